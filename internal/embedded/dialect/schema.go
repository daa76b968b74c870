package dialect

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/leadingpeers/seckill/internal/embedded/sqltext"
)

// Dialect knows the tables, which it has from the project's own migrations: so
// there is one source for the schema of MySQL and of its stand-in.
type Dialect struct {
	migrations []Migration
	columns    map[string]bool // of any table, in lower case: is it a DATETIME?
	automatic  map[string]bool // tables with an AUTO_INCREMENT key, in lower case
}

// Migration is one step of the schema.
type Migration struct {
	Version    int64    // the number its file begins with
	Statements []string // for SQLite
}

// New reads the migrations, goose's *.sql files: of each the part that goes up,
// which may create tables and add columns, and nothing else.
func New(files fs.FS) (*Dialect, error) {
	names, err := fs.Glob(files, "*.sql")
	if err != nil {
		return nil, err
	}
	d := &Dialect{columns: make(map[string]bool), automatic: make(map[string]bool)}
	for _, file := range names {
		content, err := fs.ReadFile(files, file)
		if err != nil {
			return nil, err
		}
		m, err := d.migration(file, string(content))
		if err != nil {
			return nil, fmt.Errorf("translate migration %s: %w", file, err)
		}
		d.migrations = append(d.migrations, m)
	}
	slices.SortFunc(d.migrations, func(a, b Migration) int { return cmp.Compare(a.Version, b.Version) })
	if len(d.migrations) == 0 {
		return nil, errors.New("no migrations")
	}
	return d, nil
}

// Migrations returns the steps, the first first.
func (d *Dialect) Migrations() []Migration { return d.migrations }

func (d *Dialect) migration(file, content string) (Migration, error) {
	digits, _, _ := strings.Cut(path.Base(file), "_")
	version, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		return Migration{}, errors.New("its name does not begin with a number")
	}
	_, up, found := strings.Cut(content, "-- +goose Up")
	if !found {
		return Migration{}, errors.New("no part that goes up")
	}
	up, _, _ = strings.Cut(up, "-- +goose Down")
	ts, err := sqltext.Tokenize(up)
	if err != nil {
		return Migration{}, err
	}
	m := Migration{Version: version}
	for len(ts) > 0 {
		end := slices.IndexFunc(ts, func(t sqltext.Token) bool { return t.IsMark(";") })
		if end < 0 {
			return Migration{}, errors.New("a statement without its semicolon")
		}
		statements, err := d.statement(ts[:end])
		if err != nil {
			return Migration{}, err
		}
		m.Statements = append(m.Statements, statements...)
		ts = ts[end+1:]
	}
	return m, nil
}

func (d *Dialect) statement(ts []sqltext.Token) ([]string, error) {
	if len(ts) > 6 && sqltext.Same(ts[:2], "ALTER TABLE") && sqltext.Same(ts[3:5], "ADD COLUMN") {
		return d.addColumn(ts)
	}
	return d.createTable(ts)
}

// addColumn translates ALTER TABLE name ADD COLUMN column. As in MySQL the rows
// that are there get the column's default.
func (d *Dialect) addColumn(ts []sqltext.Token) ([]string, error) {
	t := table{name: identifier(ts[2])}
	if err := d.column(&t, ts[5:]); err != nil {
		return nil, fmt.Errorf("table %s: %w", t.name, err)
	}
	return []string{"ALTER TABLE " + t.name + " ADD COLUMN " + t.items[0]}, nil
}

// table is a CREATE TABLE on its way.
type table struct {
	name      string
	items     []string // columns and constraints
	indexes   []string // statements of their own in SQLite
	automatic bool     // its key is an AUTO_INCREMENT column
}

// createTable translates CREATE TABLE name (items) options. The options, an
// engine and a charset, have nothing to say to SQLite.
func (d *Dialect) createTable(ts []sqltext.Token) ([]string, error) {
	if len(ts) < 5 || !sqltext.Same(ts[:2], "CREATE TABLE") || !ts[3].IsMark("(") {
		return nil, fmt.Errorf("a statement that begins with %s", render(ts[:min(len(ts), 4)]))
	}
	end, err := sqltext.Closing(ts, 3)
	if err != nil {
		return nil, err
	}
	t := table{name: identifier(ts[2])}
	t.automatic = slices.ContainsFunc(ts, func(t sqltext.Token) bool { return t.Is("AUTO_INCREMENT") })
	d.automatic[strings.ToLower(ts[2].Text)] = t.automatic
	for _, item := range sqltext.Split(ts[4:end]) {
		if err := d.item(&t, item); err != nil {
			return nil, fmt.Errorf("table %s: %w", t.name, err)
		}
	}
	create := "CREATE TABLE " + t.name + " (\n  " + strings.Join(t.items, ",\n  ") + "\n)"
	return append([]string{create}, t.indexes...), nil
}

// item translates one line of a CREATE TABLE.
func (d *Dialect) item(t *table, ts []sqltext.Token) error {
	switch {
	case len(ts) < 2:
		return fmt.Errorf("the item %q", render(ts))
	case sqltext.Same(ts[:2], "PRIMARY KEY"):
		if !t.automatic { // else it stands beside the column
			t.items = append(t.items, render(ts))
		}
		return nil
	case len(ts) > 3 && sqltext.Same(ts[:2], "UNIQUE KEY"):
		t.items = append(t.items, "CONSTRAINT "+identifier(ts[2])+" UNIQUE "+render(ts[3:]))
		return nil
	case ts[0].Is("KEY"): // names of indexes are of one table in MySQL, of all in SQLite
		index := t.name + "_" + ts[1].Text
		t.indexes = append(t.indexes, "CREATE INDEX "+index+" ON "+t.name+" "+render(ts[2:]))
		return nil
	case ts[0].Is("CONSTRAINT"):
		t.items = append(t.items, render(ts))
		return nil
	}
	return d.column(t, ts)
}

// column translates name TYPE[(n)] attributes.
func (d *Dialect) column(t *table, ts []sqltext.Token) error {
	c := column{name: ts[0].Text, kind: strings.ToUpper(ts[1].Text)}
	rest := ts[2:]
	if len(rest) >= 3 && rest[0].IsMark("(") && rest[1].Kind == sqltext.Number && rest[2].IsMark(")") {
		c.size, rest = rest[1].Text, rest[3:]
	}
	fits, err := c.fits()
	if err != nil {
		return err
	}
	key := strings.ToLower(c.name)
	if isTime, known := d.columns[key]; known && isTime != (c.kind == "DATETIME") {
		return fmt.Errorf("column %s is a DATETIME in one table only", c.name)
	}
	d.columns[key] = c.kind == "DATETIME"
	attributes, binary, err := attributes(rest)
	if err != nil {
		return fmt.Errorf("column %s: %w", c.name, err)
	}
	if slices.ContainsFunc(rest, func(t sqltext.Token) bool { return t.Is("AUTO_INCREMENT") }) {
		t.items = append(t.items, c.name+" INTEGER PRIMARY KEY AUTOINCREMENT")
		return nil
	}
	if !binary && (c.kind == "VARCHAR" || c.kind == "CHAR") {
		attributes += " COLLATE NOCASE" // MySQL's default compares letters of either case as one
	}
	t.items = append(t.items, c.String()+attributes+" CONSTRAINT "+c.name+FitsSuffix+" CHECK ("+fits+")")
	return nil
}

// FitsSuffix ends the name of a CHECK that stands for a MySQL type: what breaks
// it would be "data too long" or "incorrect value" there.
const FitsSuffix = "_fits"

type column struct{ name, kind, size string }

// String is the column with the type that it has in MySQL: SQLite keeps it as
// the declared type, and the server tells it to its clients.
func (c column) String() string {
	if c.size == "" {
		return c.name + " " + c.kind
	}
	return c.name + " " + c.kind + "(" + c.size + ")"
}

// fits returns the condition for a value to be of the column's type, which
// SQLite does not enforce. NULL passes: it is for NOT NULL to refuse.
func (c column) fits() (string, error) {
	typed := func(storage, condition string) string {
		return "typeof(" + c.name + ") IN ('" + storage + "','null')" + condition
	}
	switch c.kind + "(" + c.size + ")" {
	case "BIGINT()":
		return typed("integer", ""), nil
	case "INT()":
		return typed("integer", " AND "+c.name+" BETWEEN -2147483648 AND 2147483647"), nil
	case "DATETIME(3)":
		return typed("text", " AND "+c.name+" GLOB '[0-9][0-9][0-9][0-9]-[0-1][0-9]-[0-3][0-9] [0-2][0-9]:[0-5][0-9]:[0-5][0-9].[0-9][0-9][0-9]'"), nil
	case "BLOB()":
		return typed("blob", " AND length("+c.name+") <= 65535"), nil
	case "MEDIUMBLOB()":
		return typed("blob", " AND length("+c.name+") <= 16777215"), nil
	}
	switch c.kind {
	case "VARCHAR", "CHAR":
		return typed("text", " AND length("+c.name+") <= "+c.size), nil
	case "BINARY":
		return typed("blob", " AND length("+c.name+") = "+c.size), nil
	}
	return "", fmt.Errorf("the type of column %s", c)
}

// attributes translates what follows a column's type, and says whether a
// binary collation was among it.
func attributes(ts []sqltext.Token) (out string, binary bool, err error) {
	for i := 0; i < len(ts); i++ {
		more := i+1 < len(ts)
		switch {
		case ts[i].Is("CHARACTER") && i+2 < len(ts) && ts[i+1].Is("SET"):
			i += 2
		case ts[i].Is("COLLATE") && more:
			i++
			binary = strings.HasSuffix(strings.ToLower(ts[i].Text), "_bin")
		case ts[i].Is("NOT") && more && ts[i+1].Is("NULL"):
			i++
			out += " NOT NULL"
		case ts[i].Is("DEFAULT") && more:
			i++
			out += " DEFAULT " + render(ts[i:i+1])
		case ts[i].Is("NULL"), ts[i].Is("AUTO_INCREMENT"):
		default:
			return "", false, fmt.Errorf("the attribute %s", render(ts[i:i+1]))
		}
	}
	return out, binary, nil
}

// identifier writes a name for SQLite.
func identifier(t sqltext.Token) string {
	if t.Kind == sqltext.Quoted {
		return `"` + strings.ReplaceAll(t.Text, `"`, `""`) + `"`
	}
	return t.Text
}

// render writes tokens whose strings stay in the text: of migrations only,
// which nobody but us writes.
func render(ts []sqltext.Token) string {
	out := make([]string, len(ts))
	for i, t := range ts {
		out[i] = identifier(t)
		if t.Kind == sqltext.String || t.Kind == sqltext.Binary {
			out[i] = "'" + strings.ReplaceAll(t.Text, "'", "''") + "'"
		}
	}
	return strings.Join(out, " ")
}
