package dialect

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/leadingpeers/seckill/internal/embedded/sqltext"
)

// TimeFormat is how a DATETIME(3) is kept: its text sorts as its time does.
const TimeFormat = "2006-01-02 15:04:05.000"

// now is the stand-in's clock: UTC, milliseconds, and the same wherever it
// stands in one statement, as NOW(3) is.
const now = "strftime('%Y-%m-%d %H:%M:%f','now')"

// The functions that mean the same in both databases.
const functions = " COUNT SUM MIN MAX COALESCE IFNULL NULLIF ABS "

// The words that a parenthesis may follow without being a function.
const notFunctions = " IN AND OR NOT WHERE ON FROM JOIN SELECT BY HAVING WHEN THEN ELSE AS EXISTS USING DISTINCT BETWEEN CASE UNION ALL LIMIT "

// The words whose meaning differs between the two databases, or is a time
// without milliseconds.
const forbidden = " LIKE REGEXP RLIKE GLOB MATCH DIV MOD XOR INTERVAL COLLATE CURRENT_TIMESTAMP CURRENT_TIME CURRENT_DATE LOCALTIME UTC_TIMESTAMP "

// translation is a statement on its way.
type translation struct {
	dialect   *Dialect
	out       strings.Builder
	args      []any
	upsert    bool // behind ON DUPLICATE KEY UPDATE
	generated bool // the database makes the key of what is inserted
}

func (t *translation) write(s string) {
	if t.out.Len() > 0 {
		t.out.WriteByte(' ') // so that no two tokens become one, or a comment
	}
	t.out.WriteString(s)
}

// expression translates tokens which are not the frame of an INSERT or UPDATE.
func (t *translation) expression(ts []sqltext.Token) error {
	for i := 0; i < len(ts); i++ {
		var err error
		switch tok := ts[i]; tok.Kind {
		case sqltext.String:
			err = t.literal(ts, i)
		case sqltext.Binary:
			t.bytes(tok.Text)
		case sqltext.Word:
			if strings.Contains(forbidden, " "+strings.ToUpper(tok.Text)+" ") {
				return fmt.Errorf("the word %s", tok.Text)
			}
			if i+1 < len(ts) && ts[i+1].IsMark("(") {
				i, err = t.call(ts, i)
				break
			}
			t.write(tok.Text)
		case sqltext.Quoted:
			t.write(identifier(tok))
		case sqltext.Number, sqltext.Mark:
			t.write(tok.Text)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// call translates the word at i, which a parenthesis follows, and returns the
// index of the last token it has used.
func (t *translation) call(ts []sqltext.Token, i int) (int, error) {
	name := strings.ToUpper(ts[i].Text)
	if strings.Contains(notFunctions, " "+name+" ") || strings.Contains(functions, " "+name+" ") {
		t.write(name)
		return i, nil // what is in the parentheses comes next
	}
	end, err := sqltext.Closing(ts, i+1)
	if err != nil {
		return 0, err
	}
	inner := ts[i+2 : end]
	args := sqltext.Split(inner)
	switch {
	case name == "NOW" && len(inner) == 1 && inner[0].Kind == sqltext.Number && inner[0].Text == "3":
		t.write(now)
	case name == "VALUES" && t.upsert && len(inner) == 1:
		t.write("excluded." + identifier(inner[0]))
	case name == "TIMESTAMPADD" && len(args) == 3:
		err = t.addTime(args)
	case name == "TIMESTAMPDIFF" && len(args) == 3:
		err = t.subtractTime(args)
	default:
		err = fmt.Errorf("the function %s with these arguments", name)
	}
	return end, err
}

// unit returns the length of the unit that stands there.
func unit(ts []sqltext.Token) (time.Duration, error) {
	if len(ts) == 1 && ts[0].Kind == sqltext.Word {
		switch strings.ToUpper(ts[0].Text) {
		case "MICROSECOND":
			return time.Microsecond, nil
		case "SECOND":
			return time.Second, nil
		case "MINUTE":
			return time.Minute, nil
		case "HOUR":
			return time.Hour, nil
		case "DAY":
			return 24 * time.Hour, nil
		}
	}
	return 0, errors.New("a unit of time of this name")
}

// addTime translates TIMESTAMPADD(unit, n, t). The sum is rounded to the
// millisecond, as MySQL does when a column takes it.
func (t *translation) addTime(args [][]sqltext.Token) error {
	length, err := unit(args[0])
	if err != nil {
		return err
	}
	t.write("strftime('%Y-%m-%d %H:%M:%f',")
	if err := t.timeValue(args[2]); err != nil {
		return err
	}
	t.write(",((")
	if err := t.expression(args[1]); err != nil {
		return err
	}
	if length < time.Second {
		t.write(fmt.Sprintf(")/%d.0)||' seconds')", time.Second/length))
		return nil
	}
	t.write(fmt.Sprintf(")*%d)||' seconds')", length/time.Second))
	return nil
}

// subtractTime translates TIMESTAMPDIFF(unit, a, b): b - a in whole units. Both
// are whole milliseconds, so the number of days between them, a float, is
// exact once it is rounded to the millisecond.
func (t *translation) subtractTime(args [][]sqltext.Token) error {
	length, err := unit(args[0])
	if err != nil {
		return err
	}
	t.write("(CAST(round((julianday(")
	if err := t.timeValue(args[2]); err != nil {
		return err
	}
	t.write(")-julianday(")
	if err := t.timeValue(args[1]); err != nil {
		return err
	}
	t.write("))*86400000.0) AS INTEGER)")
	if length < time.Millisecond {
		t.write(fmt.Sprintf("*%d)", time.Millisecond/length))
		return nil
	}
	t.write(fmt.Sprintf("/%d)", length/time.Millisecond))
	return nil
}

// timeValue translates an expression that is known to be a time.
func (t *translation) timeValue(ts []sqltext.Token) error {
	if len(ts) == 1 && ts[0].Kind == sqltext.String {
		return t.time(ts[0].Text)
	}
	return t.expression(ts)
}

// time writes a string that a DATETIME(3) column is set to or compared with:
// in the form it is kept in, rounded as MySQL rounds it.
func (t *translation) time(s string) error {
	at, err := parseTime(s)
	if err != nil {
		return fmt.Errorf("the time %.40q", s)
	}
	t.bind(at.Round(time.Millisecond).Format(TimeFormat))
	return nil
}

// parseTime reads what MySQL takes for a DATETIME(3), with a fraction or
// without. At midnight Go's driver leaves the time of day out.
func parseTime(s string) (time.Time, error) {
	if at, err := time.Parse(time.DateOnly, s); err == nil {
		return at, nil
	}
	return time.Parse(time.DateTime, s)
}

func looksLikeTime(s string) bool {
	_, err := parseTime(s)
	return err == nil
}

// literal writes the string at i. A string that looks like a time may be one,
// and a name like any other: its column tells, or it is refused.
func (t *translation) literal(ts []sqltext.Token, i int) error {
	s := ts[i].Text
	if !looksLikeTime(s) {
		t.bind(s)
		return nil
	}
	column, ok := columnOf(ts, i)
	isTime, known := t.dialect.columns[strings.ToLower(column)]
	switch {
	case !ok || !known:
		return fmt.Errorf("the string %q with no column beside it that tells whether it is a time", s)
	case isTime:
		return t.time(s)
	}
	t.bind(s)
	return nil
}

// columnOf returns the name of the column that the string at i is compared
// with or assigned to: beside an operator, or before IN.
func columnOf(ts []sqltext.Token, i int) (string, bool) {
	switch {
	case i >= 2 && comparison(ts[i-1]):
		return name(ts[i-2])
	case i+2 < len(ts) && comparison(ts[i+1]):
		if i+4 < len(ts) && ts[i+3].IsMark(".") {
			return name(ts[i+4])
		}
		return name(ts[i+2])
	}
	for i--; i >= 0 && (ts[i].Kind == sqltext.String || ts[i].IsMark(",")); i-- {
	}
	if i < 2 || !ts[i].IsMark("(") || !ts[i-1].Is("IN") {
		return "", false
	}
	if i >= 3 && ts[i-2].Is("NOT") {
		return name(ts[i-3])
	}
	return name(ts[i-2])
}

func name(t sqltext.Token) (string, bool) {
	return t.Text, t.IsName()
}

func comparison(t sqltext.Token) bool {
	return t.Kind == sqltext.Mark && slices.Contains([]string{"=", "<", ">", "<=", ">=", "<>", "!="}, t.Text)
}

func (t *translation) bind(s string) {
	t.write("?")
	t.args = append(t.args, s)
}

// bytes writes a binary string. The driver would make a NULL of an empty one.
func (t *translation) bytes(s string) {
	if s == "" {
		t.write("X''")
		return
	}
	t.write("?")
	t.args = append(t.args, []byte(s))
}

// insert translates INSERT [IGNORE] INTO table (columns) VALUES (...), ...
// [ON DUPLICATE KEY UPDATE ...].
func (t *translation) insert(ts []sqltext.Token) error {
	rest := ts[1:]
	t.write("INSERT")
	if len(rest) > 0 && rest[0].Is("IGNORE") {
		t.write("OR IGNORE")
		rest = rest[1:]
	}
	if len(rest) < 5 || !rest[0].Is("INTO") || !rest[2].IsMark("(") {
		return errors.New("an INSERT of this form")
	}
	end, err := sqltext.Closing(rest, 2)
	if err != nil {
		return err
	}
	t.generated = t.dialect.automatic[strings.ToLower(rest[1].Text)]
	columns := sqltext.Split(rest[3:end])
	t.write("INTO " + identifier(rest[1]) + " (")
	if err := t.expression(rest[3:end]); err != nil {
		return err
	}
	t.write(")")
	if rest = rest[end+1:]; len(rest) == 0 || !rest[0].Is("VALUES") {
		return errors.New("an INSERT without VALUES")
	}
	rest = rest[1:]
	t.write("VALUES")
	for more := true; more; {
		if rest, more, err = t.row(columns, rest); err != nil {
			return err
		}
	}
	if len(rest) == 0 {
		return nil
	}
	if len(rest) < 5 || !sqltext.Same(rest[:4], "ON DUPLICATE KEY UPDATE") {
		return errors.New("an INSERT with this behind its rows")
	}
	t.write("ON CONFLICT DO UPDATE SET")
	t.upsert = true
	return t.assignments(rest[4:])
}

// row translates the row that ts begins with. It returns what follows, without
// the comma that promises more.
func (t *translation) row(columns [][]sqltext.Token, ts []sqltext.Token) (rest []sqltext.Token, more bool, err error) {
	if len(ts) == 0 || !ts[0].IsMark("(") {
		return nil, false, errors.New("a row without its parenthesis")
	}
	end, err := sqltext.Closing(ts, 0)
	if err != nil {
		return nil, false, err
	}
	values := sqltext.Split(ts[1:end])
	if len(values) != len(columns) {
		return nil, false, fmt.Errorf("%d values for %d columns", len(values), len(columns))
	}
	t.write("(")
	for i, v := range values {
		if i > 0 {
			t.write(",")
		}
		if err := t.value(columns[i], v); err != nil {
			return nil, false, err
		}
	}
	t.write(")")
	if rest = ts[end+1:]; len(rest) > 0 && rest[0].IsMark(",") {
		t.write(",")
		return rest[1:], true, nil
	}
	return rest, false, nil
}

// value translates what the column is set to. There, a lone string needs no
// operator beside it to say what it is.
func (t *translation) value(column, v []sqltext.Token) error {
	if len(v) != 1 || v[0].Kind != sqltext.String || len(column) != 1 {
		return t.expression(v)
	}
	if t.dialect.columns[strings.ToLower(column[0].Text)] {
		return t.time(v[0].Text)
	}
	t.bind(v[0].Text)
	return nil
}

// update translates UPDATE table SET ... [WHERE ...].
func (t *translation) update(ts []sqltext.Token) error {
	if len(ts) < 6 || !ts[2].Is("SET") {
		return errors.New("an UPDATE of this form")
	}
	t.write("UPDATE " + identifier(ts[1]) + " SET")
	end := slices.IndexFunc(ts, func(t sqltext.Token) bool { return t.Is("WHERE") })
	if end < 0 {
		end = len(ts)
	}
	if err := t.assignments(ts[3:end]); err != nil {
		return err
	}
	return t.expression(ts[end:])
}

// assignments translates column = expression, ... MySQL makes them one after
// the other and SQLite all at once, so none may read what one before has set.
func (t *translation) assignments(ts []sqltext.Token) error {
	var set []string
	for i, item := range sqltext.Split(ts) {
		if len(item) < 3 || !item[1].IsMark("=") {
			return errors.New("an assignment of this form")
		}
		for j, tok := range item[2:] {
			insideValues := j >= 2 && item[j].Is("VALUES") // VALUES(column) is the new row's
			if column, ok := name(tok); ok && !insideValues && slices.Contains(set, strings.ToLower(column)) {
				return fmt.Errorf("an assignment that reads %s after it was set", column)
			}
		}
		set = append(set, strings.ToLower(item[0].Text))
		if i > 0 {
			t.write(",")
		}
		if err := t.expression(item); err != nil {
			return err
		}
	}
	return nil
}
