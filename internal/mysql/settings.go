package mysql

import (
	"context"
	"database/sql"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/leadingpeers/seckill/internal/mysql/migrations"
)

// sqlSettings reads what a session has; for what only the server has, that.
const sqlSettings = "SHOW VARIABLES WHERE Variable_name IN ('version', 'innodb_flush_log_at_trx_commit', 'sync_binlog', 'log_bin', 'innodb_doublewrite', 'transaction_isolation', 'tx_isolation', 'read_only', 'max_connections')"

// Settings returns those variables of the server, and of a session that Open
// has made, on which durability and the meaning of transactions depend.
func Settings(ctx context.Context, db *sql.DB) (map[string]string, error) {
	rows, err := db.QueryContext(ctx, sqlSettings)
	if err != nil {
		return nil, fmt.Errorf("read MySQL's settings: %w", err)
	}
	defer func() { _ = rows.Close() }()
	out := map[string]string{}
	for rows.Next() {
		var name, value string
		if err := rows.Scan(&name, &value); err != nil {
			return nil, fmt.Errorf("read MySQL's settings: %w", err)
		}
		out[name] = value
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read MySQL's settings: %w", err)
	}
	return out, nil
}

// SchemaVersion returns the migration that the schema has come to, and the last
// one that this program knows. It changes nothing; an error may mean that the
// schema was never migrated.
func SchemaVersion(ctx context.Context, db *sql.DB) (have, want int64, err error) {
	files, err := fs.Glob(migrations.Files, "*.sql")
	if err != nil {
		return 0, 0, fmt.Errorf("list the migrations: %w", err)
	}
	for _, name := range files {
		number, _, _ := strings.Cut(name, "_")
		n, _ := strconv.ParseInt(number, 10, 64)
		want = max(want, n)
	}
	err = db.QueryRowContext(ctx, "SELECT COALESCE(MAX(version_id), 0) FROM goose_db_version WHERE is_applied = 1").Scan(&have)
	if err != nil {
		return 0, want, fmt.Errorf("read the schema's version: %w", err)
	}
	return have, want, nil
}
