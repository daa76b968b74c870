package dialect

import (
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/leadingpeers/seckill/internal/mysql/migrations"
)

func testDialect(t testing.TB) *Dialect {
	t.Helper()
	d, err := New(migrations.Files)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

const nowSQL = "strftime('%Y-%m-%d %H:%M:%f','now')"

var translations = []struct {
	why, sql string
	want     Statement
}{
	{"strings become arguments", "SELECT id FROM activities WHERE id = 'a''b' AND version > 2", Statement{
		SQL: "SELECT id FROM activities WHERE id = ? AND version > 2", Args: []any{"a'b"},
	}},
	{"a lock at the end goes", "SELECT total FROM stock WHERE product_id = 'p' FOR UPDATE;", Statement{
		SQL: "SELECT total FROM stock WHERE product_id = ?", Args: []any{"p"},
	}},
	{"SKIP LOCKED too, and not what is in a string", "SELECT id FROM orders WHERE reason = 'FOR UPDATE' LIMIT 3 for update skip locked", Statement{
		SQL: "SELECT id FROM orders WHERE reason = ? LIMIT 3", Args: []any{"FOR UPDATE"},
	}},
	{"a quoted name", "SELECT `id` FROM `orders`", Statement{SQL: `SELECT "id" FROM "orders"`}},
	{"one clock for a statement", "UPDATE orders SET state = 'paid', updated_at = NOW(3) WHERE pay_deadline <= NOW(3)", Statement{
		Kind: Exec, SQL: "UPDATE orders SET state = ? , updated_at = " + nowSQL + " WHERE pay_deadline <= " + nowSQL, Args: []any{"paid"},
	}},
	{"a sum of times", "SELECT id FROM orders WHERE created_at > TIMESTAMPADD(SECOND, -3600, NOW(3))", Statement{
		SQL: "SELECT id FROM orders WHERE created_at > strftime('%Y-%m-%d %H:%M:%f', " + nowSQL + " ,(( - 3600 )*1)||' seconds')",
	}},
	{"in microseconds", "SELECT TIMESTAMPADD(MICROSECOND, 5, '2031-02-03 04:05:06')", Statement{
		SQL: "SELECT strftime('%Y-%m-%d %H:%M:%f', ? ,(( 5 )/1000000.0)||' seconds')", Args: []any{"2031-02-03 04:05:06.000"},
	}},
	{"a difference", "SELECT TIMESTAMPDIFF(DAY, created_at, NOW(3)) FROM orders", Statement{
		SQL: "SELECT (CAST(round((julianday( " + nowSQL + " )-julianday( created_at ))*86400000.0) AS INTEGER) /86400000) FROM orders",
	}},
	{"rows, and times rounded as MySQL does", "INSERT INTO activities (id, starts_at) VALUES ('2031-02-03 04:05:06', '2031-02-03 04:05:06.7895'), ('b', NOW(3))", Statement{
		Kind: Exec, SQL: "INSERT INTO activities ( id , starts_at ) VALUES ( ? , ? ) , ( ? , " + nowSQL + " )",
		Args: []any{"2031-02-03 04:05:06", "2031-02-03 04:05:06.790", "b"},
	}},
	{"a key that the database makes", "INSERT INTO outbox (body) VALUES (_binary'\\0')", Statement{
		Kind: Exec, SQL: "INSERT INTO outbox ( body ) VALUES ( ? )", Args: []any{[]byte{0}}, Generated: true,
	}},
	{"no bytes are not NULL", "INSERT INTO outbox (body) VALUES (_binary'')", Statement{
		Kind: Exec, SQL: "INSERT INTO outbox ( body ) VALUES ( X'' )", Generated: true,
	}},
	{"IGNORE", "INSERT IGNORE INTO stock (product_id) VALUES ('p')", Statement{
		Kind: Exec, SQL: "INSERT OR IGNORE INTO stock ( product_id ) VALUES ( ? )", Args: []any{"p"},
	}},
	{"an upsert", "INSERT INTO orders (id, reason) VALUES ('a', 'ON DUPLICATE KEY UPDATE') ON DUPLICATE KEY UPDATE reason = VALUES(reason), id = id", Statement{
		Kind: Exec, SQL: "INSERT INTO orders ( id , reason ) VALUES ( ? , ? ) ON CONFLICT DO UPDATE SET reason = excluded.reason , id = id",
		Args: []any{"a", "ON DUPLICATE KEY UPDATE"},
	}},
	{"what VALUES reads was not set before", "INSERT INTO orders (id, reason) VALUES ('a', 'b') ON DUPLICATE KEY UPDATE reason = 'x', id = VALUES(reason)", Statement{
		Kind: Exec, SQL: "INSERT INTO orders ( id , reason ) VALUES ( ? , ? ) ON CONFLICT DO UPDATE SET reason = ? , id = excluded.reason",
		Args: []any{"a", "b", "x"},
	}},
	{"times beside their column", "SELECT id FROM orders o WHERE o.pay_deadline < '2031-02-03 04:05:06' AND '2031-02-03 04:05:07.1' <= o.created_at", Statement{
		SQL:  "SELECT id FROM orders o WHERE o . pay_deadline < ? AND ? <= o . created_at",
		Args: []any{"2031-02-03 04:05:06.000", "2031-02-03 04:05:07.100"},
	}},
	{"a name that looks like a time", "SELECT id FROM orders WHERE user_id IN ('a', '2031-02-03 04:05:06') AND reason NOT IN ('2031-02-03 04:05:06')", Statement{
		SQL:  "SELECT id FROM orders WHERE user_id IN ( ? , ? ) AND reason NOT IN ( ? )",
		Args: []any{"a", "2031-02-03 04:05:06", "2031-02-03 04:05:06"},
	}},
	{"a list of times", "SELECT id FROM orders WHERE created_at IN ('2031-02-03 04:05:06')", Statement{
		SQL: "SELECT id FROM orders WHERE created_at IN ( ? )", Args: []any{"2031-02-03 04:05:06.000"},
	}},
	{"midnight", "UPDATE activities SET ends_at = '2031-02-03' WHERE starts_at < '2031-02-03'", Statement{
		Kind: Exec, SQL: "UPDATE activities SET ends_at = ? WHERE starts_at < ?", Args: []any{"2031-02-03 00:00:00.000", "2031-02-03 00:00:00.000"},
	}},
	{"functions of both", "SELECT COALESCE(SUM(quantity), 0), COUNT(*), COUNT(DISTINCT user_id) FROM orders", Statement{
		SQL: "SELECT COALESCE ( SUM ( quantity ) , 0 ) , COUNT ( * ) , COUNT ( DISTINCT user_id ) FROM orders",
	}},
	{"a delete", "DELETE FROM outbox WHERE id IN (1,2)", Statement{Kind: Exec, SQL: "DELETE FROM outbox WHERE id IN ( 1 , 2 )"}},
	{"the driver's start", "START TRANSACTION", Statement{Kind: Begin}},
	{"by its other name", "begin", Statement{Kind: Begin}},
	{"to read", "START TRANSACTION READ ONLY", Statement{Kind: BeginReadOnly}},
	{"the end", "COMMIT", Statement{Kind: Commit}},
	{"the other end", "ROLLBACK", Statement{Kind: Rollback}},
	{"a savepoint", "SAVEPOINT a", Statement{Kind: Savepoint, SQL: "SAVEPOINT a"}},
	{"back to it", "ROLLBACK TO SAVEPOINT a", Statement{Kind: Savepoint, SQL: "ROLLBACK TO a"}},
	{"without it", "RELEASE SAVEPOINT a", Statement{Kind: Savepoint, SQL: "RELEASE a"}},
	{"what mysql.Open sets", "SET time_zone = '+00:00', sql_mode = 'TRADITIONAL', innodb_lock_wait_timeout = 7", Statement{Kind: Set, LockWait: 7 * time.Second}},
	{"the charset", "SET NAMES utf8mb4", Statement{Kind: Set}},
	{"the isolation, which is serial", "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED", Statement{Kind: Set}},
	{"of the next transaction", "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", Statement{Kind: Set}},
}

func TestTranslate(t *testing.T) {
	d := testDialect(t)
	for _, tt := range translations {
		got, err := d.Translate(tt.sql)
		if err != nil {
			t.Errorf("%s: %v", tt.why, err)
			continue
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: %s\n%s", tt.why, tt.sql, diff)
		}
	}
}

func TestTranslateRefuses(t *testing.T) {
	d := testDialect(t)
	tests := []struct{ sql, says, why string }{
		{"", "an empty statement", "nothing to do is a mistake"},
		{";", "an empty statement", "the same"},
		{"SELECT 1; SELECT 2", "several statements", "one injected behind another"},
		{"SELECT @@version", "the character '@'", "it has no variables"},
		{"SELECT NOW() FROM stock", "the function NOW", "whole seconds there"},
		{"SELECT NOW(6)", "the function NOW", "microseconds there"},
		{"SELECT CURRENT_TIMESTAMP", "the word CURRENT_TIMESTAMP", "another form here"},
		{"SELECT CONCAT('a', 'b')", "the function CONCAT", "unknown functions are not passed on"},
		{"SELECT LENGTH(name) FROM activities", "the function LENGTH", "bytes there, characters here"},
		{"SELECT id FROM orders WHERE user_id LIKE 'a%'", "the word LIKE", "case there by the column, here never"},
		{"SELECT 3 DIV 2", "the word DIV", "not SQLite's"},
		{"SELECT VALUES(a)", "the function VALUES", "only behind ON DUPLICATE"},
		{"SELECT TIMESTAMPADD(MONTH, 1, NOW(3))", "a unit of time", "months are of no fixed length"},
		{"SELECT TIMESTAMPADD(SECOND, 1)", "the function TIMESTAMPADD", "an argument is missing"},
		{"SELECT TIMESTAMPADD(SECOND, 1, 'tomorrow')", "the time", "no time"},
		{"SELECT COALESCE('2031-02-03 04:05:06', id) FROM orders", "no column beside it", "it may be a time or not"},
		{"INSERT INTO activities (id, starts_at) VALUES ('a', '2031-02-30 00:00:00')", "the time", "no such day"},
		{"INSERT INTO activities (id, starts_at) VALUES ('a', '0000-00-00 00:00:00')", "the time", "strict mode has no zero time"},
		{"INSERT INTO activities (id, name) VALUES ('a')", "1 values for 2 columns", "as MySQL does"},
		{"INSERT INTO activities VALUES ('a')", "an INSERT of this form", "columns are named"},
		{"INSERT INTO activities (id) SELECT id FROM products", "an INSERT without VALUES", "not needed"},
		{"INSERT INTO activities (id) VALUES ('a') AS new ON DUPLICATE KEY UPDATE id = new.id", "behind its rows", "MariaDB does not know it either"},
		{"INSERT INTO activities (id) VALUES ('a'", "a parenthesis", "torn"},
		{"INSERT INTO activities (id) VALUES ('a'),", "a row", "torn"},
		{"REPLACE INTO activities (id) VALUES ('a')", "begins with REPLACE", "deletes rows here and there differently"},
		{"UPDATE orders SET quantity = 1, amount_cents = quantity", "reads quantity after it was set", "the new value there, the old here"},
		{"UPDATE orders o JOIN stock s ON 1 = 1 SET quantity = 1", "an UPDATE of this form", "not SQLite's"},
		{"UPDATE orders SET quantity", "an UPDATE", "torn"},
		{"CREATE TABLE a (b INT)", "begins with CREATE", "it brings its schema"},
		{"DROP TABLE orders", "begins with DROP", "the same"},
		{"TRUNCATE orders", "begins with TRUNCATE", "not SQLite's"},
		{"LOCK TABLES orders WRITE", "begins with LOCK", "not SQLite's"},
		{"SET autocommit = 0", "the variable autocommit", "it would change what a statement means"},
		{"SET time_zone = '+08:00'", "the time zone", "it is UTC"},
		{"SET NAMES latin1", "a SET of this form", "it is UTF-8"},
		{"SET innodb_lock_wait_timeout = 'long'", "the lock wait", "no number"},
		{"SELECT 'a", "a string without its end", "torn"},
	}
	for _, tt := range tests {
		st, err := d.Translate(tt.sql)
		if err == nil && tt.says != "" {
			t.Errorf("%s: %q became %q", tt.why, tt.sql, st.SQL)
			continue
		}
		if tt.says != "" && (!strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), tt.sql)) {
			t.Errorf("%s: %q: the error is %q, want it to have %q and the statement", tt.why, tt.sql, err, tt.says)
		}
	}
}

func TestSchemaIsTheMigrations(t *testing.T) {
	d := testDialect(t)
	if len(d.Migrations()) == 0 || d.Migrations()[0].Version != 1 {
		t.Fatalf("migrations %v", d.Migrations())
	}
	var all string
	for _, m := range d.Migrations() {
		all += strings.Join(m.Statements, ";\n") + ";\n"
	}
	for _, want := range []string{
		"CREATE TABLE stock (",
		"product_id VARCHAR(36) NOT NULL CONSTRAINT product_id_fits CHECK",
		"name VARCHAR(120) NOT NULL COLLATE NOCASE CONSTRAINT name_fits CHECK",
		"state VARCHAR(8) NOT NULL DEFAULT 'open'",
		"CONSTRAINT no_oversell CHECK ( available >= 0 )",
		"reservation_id BINARY(16) NOT NULL CONSTRAINT reservation_id_fits CHECK",
		"payment_ref VARCHAR(64) CONSTRAINT",
		"CONSTRAINT one_order_per_payment UNIQUE ( payment_ref )",
		"CREATE INDEX reservations_by_change ON reservations ( product_id , updated_at )",
		"id INTEGER PRIMARY KEY AUTOINCREMENT",
		"ALTER TABLE stock ADD COLUMN restocks BIGINT NOT NULL DEFAULT 0 CONSTRAINT restocks_fits CHECK",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("the schema has no %q", want)
		}
	}
	for _, not := range []string{"ENGINE", "CHARSET", "goose", "DROP", "ascii"} {
		if strings.Contains(all, not) {
			t.Errorf("the schema has %q", not)
		}
	}
}

func TestSchemaRefuses(t *testing.T) {
	up := "-- +goose Up\nCREATE TABLE a (id BIGINT, at DATETIME(3));\n"
	tests := []struct{ file, content, says, why string }{
		{"1_a.sql", "CREATE TABLE a (b INT);", "goes up", "no goose file"},
		{"a.sql", up, "number", "no version"},
		{"1_a.sql", up + "ALTER TABLE a MODIFY id INT;", "begins with ALTER TABLE", "not yet known: teach it, or it would be without"},
		{"1_a.sql", "-- +goose Up\nCREATE TABLE a (b INT)", "semicolon", "torn"},
		{"1_a.sql", "-- +goose Up\nCREATE TABLE a (b JSON);", "the type of column b JSON", "an unknown type"},
		{"1_a.sql", "-- +goose Up\nCREATE TABLE a (b DATETIME);", "the type of column b DATETIME", "seconds only: we keep milliseconds"},
		{"1_a.sql", "-- +goose Up\nCREATE TABLE a (b INT UNSIGNED);", "the attribute UNSIGNED", "an unknown attribute"},
		{"1_a.sql", up + "ALTER TABLE a ADD COLUMN b JSON;", "the type of column b JSON", "an unknown type, later"},
		{"1_a.sql", up + "CREATE TABLE b (at VARCHAR(9));", "in one table only", "a string beside `at` would not tell whether it is a time"},
	}
	for _, tt := range tests {
		_, err := New(fstest.MapFS{tt.file: {Data: []byte(tt.content)}})
		if err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: the error is %v, want it to have %q", tt.why, err, tt.says)
		}
	}
	if _, err := New(fstest.MapFS{}); err == nil {
		t.Error("no migrations at all were accepted")
	}
}
