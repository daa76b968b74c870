package replay

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"database/sql/driver"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/leadingpeers/seckill/internal/audit"
)

// The statements of the lock. MySQL gives it back when the connection ends,
// also that of a process which was killed.
const (
	sqlTake   = "SELECT GET_LOCK(?, 0)"
	sqlGive   = "SELECT RELEASE_ALL_LOCKS()"
	sqlIsFree = "SELECT IS_FREE_LOCK(?)"
	sqlSchema = "SELECT DATABASE()"
)

// lock keeps everybody else from replaying the same groups.
type lock struct{ conn *sql.Conn }

// take locks groups, all or none. It refuses when somebody replays one of them.
func (d Desk) take(ctx context.Context, groups []string) (*lock, error) {
	conn, err := d.DB.Conn(ctx)
	if err != nil {
		return nil, fmt.Errorf("lock the groups: %w", err)
	}
	for _, g := range groups { // in the order of the flow: two that want several do not wait for each other
		var got sql.NullInt64
		name, err := d.lockName(ctx, g)
		if err == nil {
			err = conn.QueryRowContext(ctx, sqlTake, name).Scan(&got)
		}
		if err != nil {
			l := lock{conn}
			return nil, errors.Join(fmt.Errorf("lock group %s: %w", g, err), l.release(ctx))
		}
		if got.Int64 != 1 {
			err := refuse("cannot replay group "+g, "wait until it has ended, or stop it with seckill replay stop and its plan", "another replay of this group is running%s", d.holder(ctx, g))
			l := lock{conn}
			return nil, errors.Join(err, l.release(ctx))
		}
	}
	return &lock{conn}, nil
}

// release gives the locks back, and ends their session: a connection that only
// went back to the pool might keep them.
func (l *lock) release(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	var n sql.NullInt64
	_ = l.conn.QueryRowContext(ctx, sqlGive).Scan(&n) // if it fails the server does it a moment later
	err := l.conn.Raw(func(any) error { return driver.ErrBadConn })
	if errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) {
		return nil
	}
	return err
}

// holder says who replays a group, as far as the audit trail knows.
func (d Desk) holder(ctx context.Context, group string) string {
	last, err := audit.NewTrail(d.DB).List(ctx, audit.Filter{Entity: "group/" + group, Limit: 1})
	if err != nil || len(last) == 0 {
		return ""
	}
	var doc entry
	if err := json.Unmarshal(last[0].After, &doc); err != nil {
		return ""
	}
	return fmt.Sprintf(": plan %s, by %s on %s, since %s", doc.Plan, last[0].Actor, doc.Host, last[0].At.UTC().Format("2006-01-02T15:04:05Z"))
}

// busy reports whether somebody replays a group.
func (d Desk) busy(ctx context.Context, group string) (bool, error) {
	name, err := d.lockName(ctx, group)
	if err != nil {
		return false, err
	}
	var free sql.NullInt64
	if err := d.DB.QueryRowContext(ctx, sqlIsFree, name).Scan(&free); err != nil {
		return false, fmt.Errorf("look at the lock of group %s: %w", group, err)
	}
	return free.Int64 != 1, nil
}

// lockName is the lock's name: for one group of one installation. Locks belong
// to the whole server, and their names have at most 64 characters.
func (d Desk) lockName(ctx context.Context, group string) (string, error) {
	var schema string
	if err := d.DB.QueryRowContext(ctx, sqlSchema).Scan(&schema); err != nil {
		return "", fmt.Errorf("lock group %s: %w", group, err)
	}
	sum := sha256.Sum256([]byte(schema + "/" + d.Kafka.Config().GroupName(group)))
	return "seckill-replay-" + hex.EncodeToString(sum[:20]), nil
}
