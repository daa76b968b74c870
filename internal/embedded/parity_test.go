package embedded

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	mysqldriver "github.com/go-sql-driver/mysql"
	"github.com/google/go-cmp/cmp"

	"github.com/leadingpeers/seckill/internal/mysql"
)

// The same statements on the stand-in and, where SECKILL_TEST_MYSQL names one,
// on a real server: each must answer what stands here. (A half of a millisecond
// is not here: MySQL rounds it, as the stand-in does, and MariaDB cuts it off.)
func TestParity(t *testing.T) {
	t.Run("stand-in", func(t *testing.T) {
		t.Parallel()
		parity(t, openMySQL(t, startIn(t)))
	})
	if server := os.Getenv("SECKILL_TEST_MYSQL"); server != "" {
		t.Run("real server", func(t *testing.T) {
			t.Parallel()
			parity(t, realSchema(t, server))
		})
	}
}

// startIn returns the DSN of a stand-in that ends with the test.
func startIn(t testing.TB) string {
	t.Helper()
	m, err := StartMySQL(t.Context(), t.TempDir()+"/odd ?name%20#.db")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m.DSN()
}

func openMySQL(t testing.TB, dsn string) *sql.DB {
	t.Helper()
	db, err := mysql.Open(t.Context(), mysql.Config{DSN: dsn, LockWait: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// realSchema makes a schema of this test's own on a real server.
func realSchema(t *testing.T, server string) *sql.DB {
	t.Helper()
	name := fmt.Sprintf("e_%08x", rand.Uint32())
	address, parameters, _ := strings.Cut(server, "?")
	admin := openMySQL(t, server)
	if _, err := admin.ExecContext(t.Context(), "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := admin.ExecContext(context.Background(), "DROP DATABASE "+name); err != nil {
			t.Error(err)
		}
	})
	db := openMySQL(t, address+name+"?"+parameters)
	if err := mysql.Migrate(t.Context(), db, nil); err != nil {
		t.Fatal(err)
	}
	return db
}

// step is one statement with its answer: rows, or rows affected, or an error.
type step struct {
	why      string
	sql      string
	args     []any
	rows     []string // each value by fmt's %v or %q, a space between
	affected int64
	number   uint16 // of the error; 3819 stands for MariaDB's 4025 too
}

var (
	everyByte = func() []byte {
		b := make([]byte, 256)
		for i := range b {
			b[i] = byte(i)
		}
		return b
	}()
	hostile = "it's \"q\" \\ \x00 \x1a %_ ; -- # /* FOR UPDATE 秒杀 🛒 ?"
	at      = time.Date(2031, 2, 3, 4, 5, 6, 789_499_000, time.UTC)
	id1     = everyByte[:16]
	id2     = everyByte[240:]
)

const (
	insertActivity = "INSERT INTO activities (id, name, starts_at, ends_at, pay_window_s, created_at, updated_at) VALUES (?, ?, ?, ?, 60, NOW(3), NOW(3))"
	insertStock    = "INSERT INTO stock (product_id, total, available, per_user) VALUES (?, ?, ?, 1)"
	insertOrder    = "INSERT INTO orders (id, reservation_id, activity_id, product_id, user_id, quantity, amount_cents, currency, pay_deadline, created_at, updated_at) VALUES (?, ?, 'a', 'p', 'u', 1, 100, 'CNY', TIMESTAMPADD(MICROSECOND, ?, NOW(3)), NOW(3), NOW(3))"
)

func paritySteps() []step {
	return []step{
		{why: "text of any kind, and a time with more digits than are kept", sql: insertActivity, args: []any{"a", hostile, at, at.Add(time.Hour)}, affected: 1},
		{why: "and read back", sql: "SELECT name, starts_at FROM activities", rows: []string{fmt.Sprintf("%q 2031-02-03T04:05:06.789Z", hostile)}},
		{why: "found by its text", sql: "SELECT id FROM activities WHERE name = ?", args: []any{hostile}, rows: []string{`"a"`}},
		{why: "by its time, whatever its digits", sql: "SELECT id FROM activities WHERE starts_at = '2031-02-03 04:05:06.789000'", rows: []string{`"a"`}},
		{why: "and by the other side", sql: "SELECT id FROM activities WHERE '2031-02-03 04:05:07' > starts_at", rows: []string{`"a"`}},
		{why: "but not by an earlier one", sql: "SELECT id FROM activities WHERE starts_at <= '2031-02-03 04:05:06'"},
		{why: "names compare without case", sql: "SELECT COUNT(*) FROM activities WHERE name = 'IT'", rows: []string{"0"}},
		{why: "times of fewer digits", sql: insertActivity, args: []any{"b", "B", "2031-02-03 04:05:06.9", "2031-02-03 04:05:08"}, affected: 1},
		{why: "and read back", sql: "SELECT starts_at, ends_at FROM activities WHERE name = 'b'", rows: []string{"2031-02-03T04:05:06.9Z 2031-02-03T04:05:08Z"}},
		{why: "midnight, which the driver writes without a time of day", sql: "UPDATE activities SET starts_at = ? WHERE id = 'b' AND starts_at > ?", args: []any{at.Truncate(24 * time.Hour), at.Truncate(24 * time.Hour)}, affected: 1},
		{why: "and read back", sql: "SELECT id, starts_at FROM activities WHERE starts_at = ?", args: []any{at.Truncate(24 * time.Hour)}, rows: []string{`"b" 2031-02-03T00:00:00Z`}},
		{why: "the key exists", sql: insertActivity, args: []any{"a", "", at, at.Add(1e9)}, number: 1062},
		{why: "keys differ by case", sql: insertActivity, args: []any{"A", "", at, at.Add(1e9)}, affected: 1},
		{why: "a CHECK", sql: insertActivity, args: []any{"c", "", at, at}, number: 3819},
		{why: "too long", sql: insertActivity, args: []any{strings.Repeat("c", 37), "", at, at.Add(1e9)}, number: 1406},
		{why: "characters count, not bytes", sql: insertActivity, args: []any{"d", strings.Repeat("秒", 120), at, at.Add(1e9)}, affected: 1},
		{why: "NULL where none may be", sql: insertActivity, args: []any{nil, "", at, at.Add(1e9)}, number: 1048},
		{why: "an update counts what it matched", sql: "UPDATE activities SET name = name WHERE id IN ('a', 'b', 'z')", affected: 2},
		{why: "or nothing", sql: "UPDATE activities SET version = version + 1 WHERE id = 'z'", affected: 0},
		{why: "a delete", sql: "DELETE FROM activities WHERE id <> 'a'", affected: 3},

		{why: "rows", sql: "INSERT INTO stock (product_id, total, available, per_user) VALUES ('p', 10, 10, 1), ('q', 5, 0, 1)", affected: 2},
		{why: "a conditional update", sql: "UPDATE stock SET available = available - ? WHERE product_id = 'p' AND available >= ?", args: []any{4, 4}, affected: 1},
		{why: "below zero", sql: "UPDATE stock SET available = available - 7 WHERE product_id = 'p'", number: 3819},
		{why: "left as it was", sql: "SELECT product_id, available, available > 0, state <> 'open' FROM stock ORDER BY product_id", rows: []string{`"p" 6 1 0`, `"q" 0 0 0`}},
		{why: "a duplicate ignored", sql: "INSERT IGNORE INTO stock (product_id, total, available, per_user) VALUES ('p', 1, 1, 1), ('r', 1, 1, 1)", affected: 1},
		{why: "an upsert that sets", sql: "INSERT INTO stock (product_id, total, available, per_user) VALUES ('s', 8, 8, 1) ON DUPLICATE KEY UPDATE total = VALUES(total), available = stock.available + 1", affected: 1},
		{why: "sums and groups", sql: "SELECT per_user, COUNT(*), SUM(total), COALESCE(SUM(available), 0), MIN(available), MAX(total) FROM stock GROUP BY per_user", rows: []string{"1 4 24 15 0 10"}},
		{why: "no rows, a NULL sum", sql: "SELECT SUM(total) FROM stock WHERE product_id = 'none'", rows: []string{"<nil>"}},

		{why: "bytes of all kinds", sql: "INSERT INTO outbox (type, body, created_at) VALUES ('t', ?, NOW(3))", args: []any{everyByte}, affected: 1},
		{why: "and none", sql: "INSERT INTO outbox (type, body, created_at) VALUES ('t', ?, NOW(3))", args: []any{[]byte{}}, affected: 1},
		{why: "and read back", sql: "SELECT id, body FROM outbox ORDER BY id", rows: []string{fmt.Sprintf("1 %q", everyByte), `2 ""`}},

		{why: "an order", sql: insertOrder, args: []any{"o1", id1, int64(time.Hour / time.Microsecond)}, affected: 1},
		{why: "another", sql: insertOrder, args: []any{"o2", id2, -1_500_000}, affected: 1},
		{why: "the second of two keys", sql: insertOrder, args: []any{"o3", id2, 0}, number: 1062},
		{why: "an upsert that keeps, by either key", sql: insertOrder + " ON DUPLICATE KEY UPDATE reservation_id = reservation_id", args: []any{"o3", id2, 0}, affected: 1},
		{why: "NULLs are many in a unique key", sql: "SELECT id, payment_ref, COALESCE(payment_ref, '-') FROM orders ORDER BY id", rows: []string{`"o1" <nil> "-"`, `"o2" <nil> "-"`}},
		{why: "a payment", sql: "UPDATE orders SET state = 'paid', payment_ref = 'r' WHERE reservation_id = ? AND state = 'awaiting_payment'", args: []any{id1}, affected: 1},
		{why: "its reference is taken", sql: "UPDATE orders SET payment_ref = 'r' WHERE reservation_id = ?", args: []any{id2}, number: 1062},
		{why: "by bytes", sql: "SELECT id, reservation_id, payment_ref FROM orders WHERE reservation_id IN (?, ?) ORDER BY id DESC", args: []any{id1, id2}, rows: []string{fmt.Sprintf(`"o2" %q <nil>`, id2), fmt.Sprintf(`"o1" %q "r"`, id1)}},
		{why: "what is due", sql: "SELECT id FROM orders WHERE pay_deadline <= NOW(3) ORDER BY pay_deadline LIMIT ? FOR UPDATE", args: []any{5}, rows: []string{`"o2"`}},
		{why: "the deadline, by one clock for the statement", sql: "SELECT id, TIMESTAMPDIFF(MICROSECOND, created_at, pay_deadline), TIMESTAMPDIFF(SECOND, created_at, pay_deadline), TIMESTAMPDIFF(MINUTE, pay_deadline, created_at), TIMESTAMPDIFF(MICROSECOND, created_at, updated_at) FROM orders ORDER BY id", rows: []string{`"o1" 3600000000 3600 -60 0`, `"o2" -1500000 -1 0 0`}},
		{why: "units of time", sql: "SELECT COUNT(*) FROM orders WHERE created_at > TIMESTAMPADD(SECOND, -3600, NOW(3)) AND created_at > TIMESTAMPADD(DAY, -1, NOW(3)) AND created_at > TIMESTAMPADD(HOUR, -1, NOW(3)) AND created_at < TIMESTAMPADD(MINUTE, 1, NOW(3))", rows: []string{"2"}},
		{why: "a join that finds nothing", sql: "SELECT s.product_id, o.id, o.created_at FROM stock s LEFT JOIN orders o ON o.product_id = s.product_id AND o.state = 'cancelled' WHERE s.product_id = 'q'", rows: []string{`"q" <nil> <nil>`}},
	}
}

func parity(t *testing.T, db *sql.DB) {
	ctx := t.Context()
	for _, s := range paritySteps() {
		rows, affected, err := runStep(ctx, db, s)
		var me *mysqldriver.MySQLError
		number := uint16(0)
		if errors.As(err, &me) {
			number = me.Number
			if number == 4025 {
				number = 3819
			}
		} else if err != nil {
			t.Fatalf("%s: %v", s.why, err)
		}
		if number != s.number {
			t.Errorf("%s: %s: error %v, want number %d", s.why, s.sql, err, s.number)
		}
		if affected != s.affected {
			t.Errorf("%s: %s: %d rows affected, want %d", s.why, s.sql, affected, s.affected)
		}
		if diff := cmp.Diff(s.rows, rows); diff != "" {
			t.Errorf("%s: %s\n%s", s.why, s.sql, diff)
		}
	}
}

func runStep(ctx context.Context, db *sql.DB, s step) (rows []string, affected int64, err error) {
	if !strings.HasPrefix(s.sql, "SELECT") {
		res, err := db.ExecContext(ctx, s.sql, s.args...)
		if err != nil {
			return nil, 0, err
		}
		affected, err := res.RowsAffected()
		return nil, affected, err
	}
	found, err := db.QueryContext(ctx, s.sql, s.args...)
	if err != nil {
		return nil, 0, err
	}
	defer found.Close()
	columns, err := found.Columns()
	if err != nil {
		return nil, 0, err
	}
	for found.Next() {
		values, targets := make([]any, len(columns)), make([]any, len(columns))
		for i := range values {
			targets[i] = &values[i]
		}
		if err := found.Scan(targets...); err != nil {
			return nil, 0, err
		}
		rows = append(rows, show(values))
	}
	return rows, 0, found.Err()
}

// show writes values so that text, numbers and times cannot be mistaken for
// one another; a sum, which MySQL sends as a decimal's text, is a number.
func show(values []any) string {
	out := make([]string, len(values))
	for i, v := range values {
		switch x := v.(type) {
		case []byte:
			out[i] = fmt.Sprintf("%q", x)
			if len(x) > 0 && strings.Trim(string(x), "0123456789") == "" {
				out[i] = string(x)
			}
		case time.Time:
			out[i] = x.Format(time.RFC3339Nano)
		default:
			out[i] = fmt.Sprint(x)
		}
	}
	return strings.Join(out, " ")
}
