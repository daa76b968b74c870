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
	ts, err := tokenize(sql)
	if err != nil {
		return Statement{}, err
	}
	if len(ts) > 0 && ts[len(ts)-1].isMark(";") {
		ts = ts[:len(ts)-1]
	}
	if len(ts) == 0 {
		return Statement{}, errors.New("an empty statement")
	}
	if slices.ContainsFunc(ts, func(t token) bool { return t.isMark(";") }) {
		return Statement{}, errors.New("several statements in one text")
	}
	t := translation{dialect: d}
	k := Exec
	switch verb := strings.ToUpper(ts[0].text); {
	case ts[0].kind != word:
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
func withoutLock(ts []token) []token {
	for _, clause := range []string{"FOR UPDATE", "FOR UPDATE SKIP LOCKED", "FOR UPDATE NOWAIT", "FOR SHARE", "LOCK IN SHARE MODE"} {
		if rest, ok := cutWords(ts, clause); ok {
			return rest
		}
	}
	return ts
}

// cutWords takes the words from the end of ts.
func cutWords(ts []token, words string) ([]token, bool) {
	want := strings.Fields(words)
	n := len(ts) - len(want)
	return ts[:max(n, 0)], n >= 0 && same(ts[n:], words)
}

// same reports whether ts are these keywords and nothing else.
func same(ts []token, words string) bool {
	want := strings.Fields(words)
	if len(ts) != len(want) {
		return false
	}
	for i, t := range ts {
		if !t.is(want[i]) {
			return false
		}
	}
	return true
}

// transaction reads the statements around a transaction.
func transaction(ts []token) (Statement, error) {
	last := ts[len(ts)-1]
	named := last.kind == word || last.kind == quoted
	head := ts[:len(ts)-1]
	switch {
	case same(ts, "START TRANSACTION"), same(ts, "BEGIN"):
		return Statement{Kind: Begin}, nil
	case same(ts, "START TRANSACTION READ ONLY"):
		return Statement{Kind: BeginReadOnly}, nil
	case same(ts, "COMMIT"):
		return Statement{Kind: Commit}, nil
	case same(ts, "ROLLBACK"):
		return Statement{Kind: Rollback}, nil
	case named && same(head, "SAVEPOINT"):
		return Statement{Kind: Savepoint, SQL: "SAVEPOINT " + identifier(last)}, nil
	case named && same(head, "RELEASE SAVEPOINT"):
		return Statement{Kind: Savepoint, SQL: "RELEASE " + identifier(last)}, nil
	case named && (same(head, "ROLLBACK TO") || same(head, "ROLLBACK TO SAVEPOINT")):
		return Statement{Kind: Savepoint, SQL: "ROLLBACK TO " + identifier(last)}, nil
	}
	return Statement{}, fmt.Errorf("a statement that begins with %.20s", ts[0].text)
}

// set reads what follows SET: settings that change nothing here, because the
// stand-in is UTC, strict and serial whatever it is told, and the lock's wait.
func set(ts []token) (Statement, error) {
	st := Statement{Kind: Set}
	if len(ts) == 2 && ts[0].is("NAMES") && ts[1].is("utf8mb4") {
		return st, nil
	}
	if len(ts) > 0 && (ts[0].is("SESSION") || ts[0].is("TRANSACTION")) {
		if i := slices.IndexFunc(ts, func(t token) bool { return t.is("LEVEL") }); i >= 0 {
			return st, nil
		}
	}
	for _, item := range split(ts) {
		if len(item) != 3 || !item[1].isMark("=") {
			return st, errors.New("a SET of this form")
		}
		switch name, value := strings.ToLower(item[0].text), item[2].text; name {
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

// split cuts ts at the commas that are in no parentheses.
func split(ts []token) [][]token {
	var parts [][]token
	depth, start := 0, 0
	for i, t := range ts {
		switch {
		case t.isMark("("):
			depth++
		case t.isMark(")"):
			depth--
		case t.isMark(",") && depth == 0:
			parts = append(parts, ts[start:i])
			start = i + 1
		}
	}
	return append(parts, ts[start:])
}

// closing returns the index of the parenthesis that closes the one at open.
func closing(ts []token, open int) (int, error) {
	depth := 0
	for i := open; i < len(ts); i++ {
		switch {
		case ts[i].isMark("("):
			depth++
		case ts[i].isMark(")"):
			depth--
			if depth == 0 {
				return i, nil
			}
		}
	}
	return 0, errors.New("a parenthesis without its end")
}

// identifier writes a name for SQLite.
func identifier(t token) string {
	if t.kind == quoted {
		return `"` + strings.ReplaceAll(t.text, `"`, `""`) + `"`
	}
	return t.text
}
