package embedded

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	mysqldriver "github.com/go-sql-driver/mysql"

	"github.com/leadingpeers/seckill/internal/mysql"
)

// execer is a *sql.DB or a *sql.Tx.
type execer interface {
	ExecContext(ctx context.Context, statement string, args ...any) (sql.Result, error)
}

func execute(t testing.TB, db execer, statement string, args ...any) sql.Result {
	t.Helper()
	res, err := db.ExecContext(context.Background(), statement, args...)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func stockRows(t testing.TB, db *sql.DB) (n int) {
	t.Helper()
	if err := db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM stock").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// eventually polls until ok, and fails the test when it takes too long.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still not: %s", what)
		}
	}
}

func number(err error) uint16 {
	var me *mysqldriver.MySQLError
	if errors.As(err, &me) {
		return me.Number
	}
	return 0
}

func TestTransactions(t *testing.T) {
	db := openMySQL(t, startIn(t))
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	execute(t, tx, insertStock, "a", 1, 1)
	execute(t, tx, "SAVEPOINT before_b")
	execute(t, tx, insertStock, "b", 1, 1)
	if _, err := tx.ExecContext(t.Context(), insertStock, "a", 1, 1); number(err) != 1062 {
		t.Errorf("a duplicate in a transaction: %v", err)
	}
	execute(t, tx, "ROLLBACK TO SAVEPOINT before_b")
	execute(t, tx, "RELEASE SAVEPOINT before_b")
	execute(t, tx, insertStock, "c", 1, 1)
	if n := stockRows(t, db); n != 0 {
		t.Errorf("%d rows are seen before the commit", n) // and the reader did not wait for the writer
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if n := stockRows(t, db); n != 2 {
		t.Errorf("%d rows after the commit, want a and c", n)
	}
	tx, err = db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	execute(t, tx, "DELETE FROM stock")
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if n := stockRows(t, db); n != 2 {
		t.Errorf("%d rows after the rollback, want 2", n)
	}
}

func TestReadOnlyTransactionIsASnapshot(t *testing.T) {
	db := openMySQL(t, startIn(t))
	tx, err := db.BeginTx(t.Context(), &sql.TxOptions{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	count := func() (n int) {
		if err := tx.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM stock").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := count()
	execute(t, db, insertStock, "a", 1, 1) // a reader does not hold up the writer
	if after := count(); after != before {
		t.Errorf("a snapshot saw %d rows, then %d", before, after)
	}
	if _, err := tx.ExecContext(t.Context(), insertStock, "b", 1, 1); number(err) != 1792 {
		t.Errorf("a write while reading: %v, want 1792", err)
	}
}

func TestErrorsName(t *testing.T) {
	db := openMySQL(t, startIn(t))
	tests := []struct {
		statement string
		number    uint16
		why       string
	}{
		{"SELECT user FROM nowhere", 1105, "no such table"},
		{"SELECT nowhere FROM stock", 1105, "no such column"},
		{"SELECT FROM stock", 1105, "no SQL"},
		{"SHOW TABLES", 1064, "not in the subset"},
		{"SAVEPOINT a", 1235, "outside of a transaction"},
	}
	for _, tt := range tests {
		_, err := db.ExecContext(t.Context(), tt.statement)
		if number(err) != tt.number {
			t.Errorf("%s: %v, want number %d", tt.why, err, tt.number)
		}
		if tt.number != 1235 && !strings.Contains(err.Error(), tt.statement) {
			t.Errorf("%s: %v does not repeat the statement", tt.why, err)
		}
	}
	prepared, err := sql.Open("mysql", strings.Split(startIn(t), "?")[0])
	if err != nil {
		t.Fatal(err)
	}
	defer prepared.Close()
	if _, err := prepared.ExecContext(t.Context(), "DELETE FROM stock WHERE product_id = ?", "a"); err == nil || !strings.Contains(err.Error(), "interpolateParams=true") {
		t.Errorf("a prepared statement: %v, want to be told what to set", err)
	}
}

func TestTimesOfExpressions(t *testing.T) {
	db := openMySQL(t, startIn(t))
	var none sql.NullTime
	if err := db.QueryRowContext(t.Context(), "SELECT MAX(created_at) FROM outbox").Scan(&none); err != nil || none.Valid {
		t.Errorf("of no rows: %v %v", none, err)
	}
	start := time.Now().Add(-time.Millisecond)
	for range 2 {
		execute(t, db, "INSERT INTO outbox (type, body, created_at) VALUES ('t', ?, NOW(3))", []byte{1})
	}
	var first, last, now time.Time
	err := db.QueryRowContext(t.Context(), "SELECT MIN(created_at), MAX(created_at), NOW(3) FROM outbox").Scan(&first, &last, &now)
	if err != nil {
		t.Fatal(err)
	}
	if first.Before(start) || last.Before(first) || now.Before(last) || now.After(time.Now()) {
		t.Errorf("started at %v, then %v, %v, now %v", start, first, last, now)
	}
}

func TestGeneratedKeys(t *testing.T) {
	db := openMySQL(t, startIn(t))
	insert := "INSERT INTO outbox (type, body, created_at) VALUES ('t', _binary'x', NOW(3))"
	tests := []struct {
		statement string
		want      int64
		why       string
	}{
		{insert, 1, "the first"},
		{insert + ", ('t', _binary'y', NOW(3)), ('t', _binary'z', NOW(3))", 2, "the first of three"},
		{"DELETE FROM outbox", 0, "none is made"},
		{insert, 5, "no key twice"},
		{"INSERT INTO stock (product_id, total, available, per_user) VALUES ('p', 1, 1, 1)", 0, "the key is not the database's"},
	}
	for _, tt := range tests {
		id, err := execute(t, db, tt.statement).LastInsertId()
		if id != tt.want || err != nil {
			t.Errorf("%s: %d (%v), want %d", tt.why, id, err, tt.want)
		}
	}
}

// Many writers of one row, each with a read before its write.
func TestWritersAreSerial(t *testing.T) {
	db := openMySQL(t, startIn(t))
	const writers, rounds = 16, 25
	execute(t, db, insertStock, "p", 10*writers*rounds, 0)
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range rounds {
				err := mysql.InTx(t.Context(), db, func(tx *sql.Tx) error {
					var n int64
					err := tx.QueryRowContext(t.Context(), "SELECT available FROM stock WHERE product_id = 'p' FOR UPDATE").Scan(&n)
					if err != nil {
						return err
					}
					_, err = tx.ExecContext(t.Context(), "UPDATE stock SET available = ? WHERE product_id = 'p'", n+1)
					return err
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	var n int
	if err := db.QueryRowContext(t.Context(), "SELECT available FROM stock").Scan(&n); err != nil || n != writers*rounds {
		t.Errorf("counted to %d (%v), want %d", n, err, writers*rounds)
	}
}

// Those who wait for the writer's lock get it in the order in which they came,
// and one that waits for too long goes away without it.
func TestTheLockIsFair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &store{writer: make(chan struct{}, 1)}
		holder := &session{store: st, lockWait: time.Second}
		if !holder.lock() {
			t.Fatal("the lock is not free at the start")
		}
		var order []int // written by the lock's holder
		for i := range 8 {
			go func() {
				s := &session{store: st, lockWait: time.Minute}
				if i == 3 {
					s.lockWait = time.Second
				}
				if s.lock() {
					order = append(order, i)
					s.unlock()
				}
			}()
			synctest.Wait() // until it waits
		}
		time.Sleep(2 * time.Second)
		holder.unlock()
		synctest.Wait()
		if want := []int{0, 1, 2, 4, 5, 6, 7}; !slices.Equal(order, want) {
			t.Errorf("got the lock in the order %v, want %v", order, want)
		}
	})
}

func TestLockWaitEnds(t *testing.T) {
	db := openMySQL(t, startIn(t)) // whose sessions wait for 1 s
	holder, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = holder.Rollback() }()
	_, err = db.ExecContext(t.Context(), insertStock, "a", 1, 1)
	if number(err) != 1205 || !mysql.IsTransient(err) {
		t.Errorf("a statement beside an open transaction: %v, want 1205", err)
	}
	if _, err := db.BeginTx(t.Context(), nil); number(err) != 1205 {
		t.Errorf("a transaction beside an open one: %v, want 1205", err)
	}
}

// A client that goes away in a transaction leaves neither rows nor the lock.
func TestLostClient(t *testing.T) {
	dsn := startIn(t)
	db := openMySQL(t, dsn)
	var dialed net.Conn
	cfg, err := mysqldriver.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	cfg.InterpolateParams = true
	cfg.DialFunc = func(ctx context.Context, network, addr string) (_ net.Conn, err error) {
		dialed, err = (&net.Dialer{}).DialContext(ctx, network, addr)
		return dialed, err
	}
	connector, err := mysqldriver.NewConnector(cfg)
	if err != nil {
		t.Fatal(err)
	}
	lost := sql.OpenDB(connector)
	defer lost.Close()
	tx, err := lost.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	execute(t, tx, insertStock, "a", 1, 1)
	if err := dialed.Close(); err != nil {
		t.Fatal(err)
	}
	execute(t, db, insertStock, "b", 1, 1)
	if n := stockRows(t, db); n != 1 {
		t.Errorf("%d rows, want that of the client that stayed", n)
	}
}

// A transaction that does nothing for too long is undone.
func TestIdleTransaction(t *testing.T) {
	m, err := startMySQL(t.Context(), t.TempDir()+"/a.db", time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	db := openMySQL(t, m.DSN())
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(1500 * time.Millisecond); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		execute(t, tx, "UPDATE stock SET total = 1") // not idle, however long it lasts
	}
	execute(t, tx, insertStock, "a", 1, 1)
	eventually(t, "another may write", func() bool {
		_, err := db.ExecContext(t.Context(), insertStock, "b", 1, 1)
		return err == nil
	})
	if err := tx.Commit(); err == nil {
		t.Error("the transaction was idle for too long and could be committed")
	}
	if n := stockRows(t, db); n != 1 {
		t.Errorf("%d rows, want that of the client that was not idle", n)
	}
}

// Close does not wait for clients, and leaves a file that can be continued.
func TestCloseWithClients(t *testing.T) {
	path := t.TempDir() + "/a.db"
	for round := range 3 {
		m, err := StartMySQL(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		db := openMySQL(t, m.DSN())
		if n := stockRows(t, db); n != round {
			t.Errorf("%d rows at start %d", n, round)
		}
		execute(t, db, insertStock, fmt.Sprint("committed-", round), 1, 1)
		tx, err := db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		execute(t, tx, insertStock, fmt.Sprint("open-", round), 1, 1)
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		if err := m.Close(); err != nil {
			t.Errorf("once more: %v", err)
		}
		if err := db.PingContext(t.Context()); err == nil {
			t.Error("a closed server answers")
		}
	}
}
