// Package dialect turns the project's MySQL statements into SQLite's.
//
// It is a translation of a small subset, not a MySQL: what it does not know,
// and what the two databases would silently understand in different ways, is
// an error that names the problem. The invariant: a statement that comes
// through has the same meaning in both, and no byte of a string in it was ever
// taken for SQL, because every string leaves the text and becomes an argument.
package dialect

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/leadingpeers/seckill/internal/embedded/sqltext"
)

// Kind says what the server has to do for a statement.
type Kind uint8

// The kinds of statements.
const (
	Query         Kind = iota // SQL answers rows
	Exec                      // SQL changes rows
	Begin                     // start a transaction
	BeginReadOnly             // start a transaction that does not write
	Commit
	Rollback
	Savepoint // SQL sets, releases or returns to a savepoint
	Set       // a session variable; nothing to do, or LockWait
)

// Statement is a statement for SQLite.
type Statement struct {
	Kind      Kind
	SQL       string        // without strings: a ? stands for each
	Args      []any         // for each ?, a string or a []byte
	Generated bool          // an INSERT into a table with an AUTO_INCREMENT key
	LockWait  time.Duration // of SET innodb_lock_wait_timeout; else 0
}

// Translate reads one MySQL statement. An error says what of it is not in the
// subset, and repeats its first 300 bytes.
func (d *Dialect) Translate(sql string) (Statement, error) {
	s, err := d.translate(sql)
	if err != nil {
		return Statement{}, fmt.Errorf("%w: not in the SQL of the embedded stand-in: %.300s", err, sql)
	}
	return s, nil
}

func (d *Dialect) translate(sql string) (Statement, error) {
	ts, err := sqltext.Tokenize(sql)
	if err != nil {
		return Statement{}, err
	}
	if len(ts) > 0 && ts[len(ts)-1].IsMark(";") {
		ts = ts[:len(ts)-1]
	}
	if len(ts) == 0 {
		return Statement{}, errors.New("an empty statement")
	}
	if slices.ContainsFunc(ts, func(t sqltext.Token) bool { return t.IsMark(";") }) {
		return Statement{}, errors.New("several statements in one text")
	}
	t := translation{dialect: d}
	k := Exec
	switch verb := strings.ToUpper(ts[0].Text); {
	case ts[0].Kind != sqltext.Word:
		return Statement{}, errors.New("a statement without a verb")
	case verb == "SELECT":
		k, err = Query, t.expression(withoutLock(ts))
	case verb == "INSERT":
		err = t.insert(ts)
	case verb == "UPDATE":
		err = t.update(ts)
	case verb == "DELETE":
		err = t.expression(ts)
	case verb == "SET":
		return set(ts[1:])
	default:
		return transaction(ts)
	}
	return Statement{Kind: k, SQL: t.out.String(), Args: t.args, Generated: t.generated}, err
}

// withoutLock takes the locking clause from the end of a SELECT: whoever may
// write has the only writer's lock already.
func withoutLock(ts []sqltext.Token) []sqltext.Token {
	for _, clause := range []string{"FOR UPDATE", "FOR UPDATE SKIP LOCKED", "FOR UPDATE NOWAIT", "FOR SHARE", "LOCK IN SHARE MODE"} {
		if rest, ok := cutWords(ts, clause); ok {
			return rest
		}
	}
	return ts
}

// cutWords takes the words from the end of ts.
func cutWords(ts []sqltext.Token, words string) ([]sqltext.Token, bool) {
	want := strings.Fields(words)
	n := len(ts) - len(want)
	return ts[:max(n, 0)], n >= 0 && sqltext.Same(ts[n:], words)
}

// transaction reads the statements around a transaction.
func transaction(ts []sqltext.Token) (Statement, error) {
	last := ts[len(ts)-1]
	named := last.IsName()
	head := ts[:len(ts)-1]
	switch {
	case sqltext.Same(ts, "START TRANSACTION"), sqltext.Same(ts, "BEGIN"):
		return Statement{Kind: Begin}, nil
	case sqltext.Same(ts, "START TRANSACTION READ ONLY"):
		return Statement{Kind: BeginReadOnly}, nil
	case sqltext.Same(ts, "COMMIT"):
		return Statement{Kind: Commit}, nil
	case sqltext.Same(ts, "ROLLBACK"):
		return Statement{Kind: Rollback}, nil
	case named && sqltext.Same(head, "SAVEPOINT"):
		return Statement{Kind: Savepoint, SQL: "SAVEPOINT " + identifier(last)}, nil
	case named && sqltext.Same(head, "RELEASE SAVEPOINT"):
		return Statement{Kind: Savepoint, SQL: "RELEASE " + identifier(last)}, nil
	case named && (sqltext.Same(head, "ROLLBACK TO") || sqltext.Same(head, "ROLLBACK TO SAVEPOINT")):
		return Statement{Kind: Savepoint, SQL: "ROLLBACK TO " + identifier(last)}, nil
	}
	return Statement{}, fmt.Errorf("a statement that begins with %.20s", ts[0].Text)
}

// set reads what follows SET: settings that change nothing here, because the
// stand-in is UTC, strict and serial whatever it is told, and the lock's wait.
func set(ts []sqltext.Token) (Statement, error) {
	st := Statement{Kind: Set}
	if len(ts) == 2 && ts[0].Is("NAMES") && ts[1].Is("utf8mb4") {
		return st, nil
	}
	if len(ts) > 0 && (ts[0].Is("SESSION") || ts[0].Is("TRANSACTION")) {
		if i := slices.IndexFunc(ts, func(t sqltext.Token) bool { return t.Is("LEVEL") }); i >= 0 {
			return st, nil
		}
	}
	for _, item := range sqltext.Split(ts) {
		if len(item) != 3 || !item[1].IsMark("=") {
			return st, errors.New("a SET of this form")
		}
		switch name, value := strings.ToLower(item[0].Text), item[2].Text; name {
		case "sql_mode":
		case "time_zone":
			if value != "+00:00" {
				return st, fmt.Errorf("the time zone %q", value)
			}
		case "innodb_lock_wait_timeout":
			seconds, err := strconv.Atoi(value)
			if err != nil || seconds < 1 {
				return st, fmt.Errorf("the lock wait %q", value)
			}
			st.LockWait = time.Duration(seconds) * time.Second
		default:
			return st, fmt.Errorf("the variable %s", name)
		}
	}
	return st, nil
}
