package mysql_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leadingpeers/seckill/internal/mysql"
	"github.com/leadingpeers/seckill/internal/testservers"
)

func TestSessionIsAsOpenPromises(t *testing.T) {
	testservers.Real(t) // the stand-in has no session variables
	dsn := testservers.MySQLDSN(t) + "?parseTime=false&interpolateParams=false&clientFoundRows=false&multiStatements=true&charset=latin1&loc=Asia%2FShanghai&time_zone=%27%2B08%3A00%27&sql_mode=%27%27"
	db := open(t, mysql.Config{DSN: dsn, MaxOpen: 2, LockWait: 7 * time.Second})
	isolation := "SELECT @@transaction_isolation"
	if _, err := db.ExecContext(t.Context(), "DO @@transaction_isolation"); err != nil {
		isolation = "SELECT @@tx_isolation" // MariaDB before 11.1
	}
	tests := []struct{ query, want, why string }{
		{isolation, "READ-COMMITTED", "gap locks would only make deadlocks"},
		{"SELECT @@session.time_zone", "+00:00", "NOW(3) is UTC, and so is what is read"},
		{"SELECT @@character_set_client", "utf8mb4", "names of any language; latin1 of the DSN is overruled"},
		{"SELECT @@innodb_lock_wait_timeout", "7", "as configured"},
		{"SELECT @@sql_mode LIKE '%STRICT_ALL_TABLES%'", "1", "what does not fit is an error"},
	}
	for _, tt := range tests {
		var got string
		if err := db.QueryRowContext(t.Context(), tt.query).Scan(&got); err != nil {
			t.Fatal(err)
		}
		if got != tt.want {
			t.Errorf("%s: got %q, want %q: %s", tt.query, got, tt.want, tt.why)
		}
	}
	if _, err := db.ExecContext(t.Context(), "SELECT 1; SELECT 2"); err == nil {
		t.Error("two statements in one text were accepted")
	}
}

func TestValuesAreReadAsPromised(t *testing.T) {
	db := testservers.MySQL(t)
	ctx := t.Context()
	start := time.Date(2031, 2, 3, 4, 5, 6, 789e6, time.UTC)
	insert := "INSERT INTO activities (id, name, starts_at, ends_at, pay_window_s, created_at, updated_at) VALUES (?, ?, ?, ?, 60, NOW(3), NOW(3))"
	if _, err := db.ExecContext(ctx, insert, "a1", "秒杀 🛒 'quoted' \\", start, start.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	var name string
	var at time.Time
	if err := db.QueryRowContext(ctx, "SELECT name, starts_at FROM activities WHERE id = ?", "a1").Scan(&name, &at); err != nil {
		t.Fatal(err)
	}
	if name != "秒杀 🛒 'quoted' \\" || !at.Equal(start) || at.Location() != time.UTC {
		t.Errorf("read back %q %v", name, at)
	}
	res, err := db.ExecContext(ctx, "UPDATE activities SET name = ? WHERE id = ?", name, "a1")
	if err != nil {
		t.Fatal(err)
	}
	if n, err := res.RowsAffected(); n != 1 || err != nil {
		t.Errorf("an update that changes nothing matched %d rows (%v), want 1", n, err)
	}
	_, err = db.ExecContext(ctx, insert, "a1", "again", start, start.Add(time.Hour))
	if !mysql.IsDuplicate(err) || mysql.IsCheck(err) || mysql.IsTransient(err) {
		t.Errorf("same key twice: %v", err)
	}
	_, err = db.ExecContext(ctx, insert, "a2", "backwards", start, start)
	if !mysql.IsCheck(err) || mysql.IsDuplicate(err) || mysql.IsTransient(err) {
		t.Errorf("a CHECK broken: %v", err)
	}
}

func TestOpenRefusesWithoutTellingSecrets(t *testing.T) {
	secret := "hunter2"
	tests := []struct{ dsn, why string }{
		{"", "no DSN"},
		{"root:" + secret, "no slash"},
		{"root:" + secret + "@tcp(127.0.0.1:1/x", "a torn address"},
		{"root:a/" + secret + "%zz@tcp(127.0.0.1:1)", "a slash in the password and none behind it"},
		{"root:" + secret + "@tcp(127.0.0.1:1)/x?tls=" + secret, "an unknown TLS name"},
		{"root:" + secret + "@tcp(127.0.0.1:1)/x", "nobody listens"},
	}
	for _, tt := range tests {
		db, err := mysql.Open(t.Context(), mysql.Config{DSN: tt.dsn, DialTimeout: time.Second})
		if err == nil || db != nil {
			t.Errorf("%s: opened", tt.why)
			continue
		}
		if strings.Contains(err.Error(), secret) {
			t.Errorf("%s: the error tells the password: %v", tt.why, err)
		}
	}
}

func TestMigrateRacedByFour(t *testing.T) {
	testservers.Real(t) // a stand-in brings its own schema
	schema := "m_" + testservers.Prefix(t)
	admin := open(t, mysql.Config{DSN: testservers.MySQLDSN(t), MaxOpen: 1})
	exec(t, admin, "CREATE DATABASE "+schema)
	t.Cleanup(func() { _, _ = admin.ExecContext(context.Background(), "DROP DATABASE "+schema) })

	server := testservers.MySQLDSN(t)
	dsn := server[:strings.LastIndex(server, "/")+1] + schema
	var wg sync.WaitGroup
	for range 4 {
		db := open(t, mysql.Config{DSN: dsn, MaxOpen: 3}) // a process of its own each
		wg.Go(func() {
			if err := mysql.Migrate(t.Context(), db, nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()

	db := open(t, mysql.Config{DSN: dsn})
	if n := count(t, db, "SELECT COUNT(*) FROM goose_db_version WHERE version_id = 1"); n != 1 {
		t.Errorf("migration 1 is recorded %d times, want once", n)
	}
	for _, table := range []string{"activities", "products", "stock", "reservations", "orders", "outbox"} {
		if n := count(t, db, "SELECT COUNT(*) FROM "+table); n != 0 {
			t.Errorf("%s has %d rows", table, n)
		}
	}
	if err := mysql.Migrate(t.Context(), db, nil); err != nil {
		t.Errorf("once more: %v", err)
	}
}

func TestInTxCommitsOrUndoes(t *testing.T) {
	db := testservers.MySQL(t)
	insert := "INSERT INTO stock (product_id, total, available, per_user) VALUES (?, 1, 1, 1)"
	boom := errors.New("boom")
	tests := []struct {
		id, why string
		f       func(*sql.Tx) error
		want    int64
	}{
		{"a", "nil commits", func(*sql.Tx) error { return nil }, 1},
		{"b", "an error undoes", func(*sql.Tx) error { return boom }, 0},
		{"c", "a panic undoes, and goes on", func(*sql.Tx) error { panic(boom) }, 0},
	}
	for _, tt := range tests {
		calls := 0
		func() {
			defer func() { _ = recover() }()
			err := mysql.InTx(t.Context(), db, func(tx *sql.Tx) error {
				calls++
				if _, err := tx.ExecContext(t.Context(), insert, tt.id); err != nil {
					return err
				}
				return tt.f(tx)
			})
			if tt.want == 0 && !errors.Is(err, boom) {
				t.Errorf("%s: got %v", tt.why, err)
			}
		}()
		if n := count(t, db, "SELECT COUNT(*) FROM stock WHERE product_id = '"+tt.id+"'"); n != tt.want {
			t.Errorf("%s: %d rows, want %d", tt.why, n, tt.want)
		}
		if calls != 1 {
			t.Errorf("%s: called %d times", tt.why, calls)
		}
	}
}

// Two transactions that lock two rows in opposite order: the server undoes
// one, InTx runs it again, and both count.
func TestInTxRepeatsAfterADeadlock(t *testing.T) {
	testservers.Real(t) // needs row locks
	db := testservers.MySQL(t)
	exec(t, db, "INSERT INTO stock (product_id, total, available, per_user) VALUES ('a', 100, 0, 1), ('b', 100, 0, 1)")
	var both sync.WaitGroup // each holds its first row before it asks for the second
	both.Add(2)
	var wg sync.WaitGroup
	var mu sync.Mutex
	calls := 0
	for _, order := range [][2]string{{"a", "b"}, {"b", "a"}} {
		first := sync.OnceFunc(func() { both.Done(); both.Wait() })
		wg.Go(func() {
			err := mysql.InTx(t.Context(), db, func(tx *sql.Tx) error {
				mu.Lock()
				calls++
				mu.Unlock()
				for i, id := range order {
					if i == 1 {
						first()
					}
					if _, err := tx.ExecContext(t.Context(), "UPDATE stock SET available = available + 1 WHERE product_id = ?", id); err != nil {
						return fmt.Errorf("add: %w", err) // wrapped, and still known
					}
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := count(t, db, "SELECT SUM(available) FROM stock"); n != 4 {
		t.Errorf("sum %d, want 4", n)
	}
	if calls != 3 {
		t.Errorf("%d calls, want 3: the loser once more", calls)
	}
}

func TestInTxGivesUpOnALockThatStays(t *testing.T) {
	testservers.Real(t) // needs row locks
	dsn := testservers.MySQLDSN(t)
	db := open(t, mysql.Config{DSN: dsn, LockWait: time.Second})
	exec(t, db, "INSERT INTO stock (product_id, total, available, per_user) VALUES ('a', 1, 1, 1)")
	holder, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = holder.Rollback() }()
	lock := "SELECT available FROM stock WHERE product_id = 'a' FOR UPDATE"
	if _, err := holder.ExecContext(t.Context(), lock); err != nil {
		t.Fatal(err)
	}
	calls := 0
	take := func(tx *sql.Tx) error {
		calls++
		_, err := tx.ExecContext(t.Context(), lock)
		return err
	}
	if err := mysql.InTx(t.Context(), db, take); !mysql.IsTransient(err) || calls != 5 {
		t.Errorf("after %d calls: %v; want a lock wait time-out after 5", calls, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
	defer cancel()
	calls = 0
	if err := mysql.InTx(ctx, db, take); err == nil || calls > 2 {
		t.Errorf("after %d calls: %v; want an end with the context", calls, err)
	}
}

func open(t *testing.T, cfg mysql.Config) *sql.DB {
	t.Helper()
	db, err := mysql.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func exec(t *testing.T, db *sql.DB, query string) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), query); err != nil {
		t.Fatal(err)
	}
}

func count(t *testing.T, db *sql.DB, query string) int64 {
	t.Helper()
	var n int64
	if err := db.QueryRowContext(t.Context(), query).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}
