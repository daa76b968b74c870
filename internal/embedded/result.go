package embedded

import (
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	gomysql "github.com/go-mysql-org/go-mysql/mysql"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/leadingpeers/seckill/internal/embedded/dialect"
)

const (
	nullValue  = 0xfb // a NULL in a row of the text protocol
	binaryText = 63   // the number of MySQL's character set for bytes and numbers
)

// encode reads all rows into MySQL's text protocol.
func encode(rows *sql.Rows) (*gomysql.Result, error) {
	types, err := rows.ColumnTypes()
	if err != nil {
		return nil, err
	}
	columns := make([]column, len(types))
	values := make([]any, len(types))
	targets := make([]any, len(types))
	for i := range types {
		columns[i].declare(types[i])
		targets[i] = &values[i]
	}
	out := gomysql.NewResultset(len(types))
	for rows.Next() {
		if err := rows.Scan(targets...); err != nil {
			return nil, err
		}
		var row []byte
		for i, v := range values {
			columns[i].see(v)
			if row, err = appendValue(row, v); err != nil {
				return nil, err
			}
		}
		out.RowDatas = append(out.RowDatas, row)
	}
	for i := range columns {
		out.Fields[i] = columns[i].field()
	}
	return &gomysql.Result{Resultset: out}, rows.Err()
}

// appendValue appends a value as the text protocol has it.
func appendValue(row []byte, v any) ([]byte, error) {
	var s string
	switch x := v.(type) {
	case nil:
		return append(row, nullValue), nil
	case int64:
		s = strconv.FormatInt(x, 10)
	case float64:
		s = strconv.FormatFloat(x, 'g', -1, 64)
	case string:
		s = x
	case []byte:
		row = gomysql.AppendLengthEncodedInteger(row, uint64(len(x)))
		return append(row, x...), nil
	default:
		return nil, fmt.Errorf("a value of type %T", v)
	}
	row = gomysql.AppendLengthEncodedInteger(row, uint64(len(s)))
	return append(row, s...), nil
}

// column is what a column of a result says of itself to the client.
type column struct {
	name     string
	declared string // the type in the table, without its size; empty for an expression
	kind     uint8  // one of gomysql.MYSQL_TYPE_
	isTime   bool   // of an expression: every value so far is a time
	seen     bool
}

// declare takes the name, and the type of a column that is a table's own.
func (c *column) declare(t *sql.ColumnType) {
	c.name = t.Name()
	c.declared, _, _ = strings.Cut(t.DatabaseTypeName(), "(")
	switch c.declared {
	case "BIGINT", "INT", "INTEGER":
		c.kind = gomysql.MYSQL_TYPE_LONGLONG
	case "DATETIME":
		c.kind = gomysql.MYSQL_TYPE_DATETIME
	case "BLOB", "MEDIUMBLOB", "BINARY":
		c.kind = gomysql.MYSQL_TYPE_BLOB
	case "VARCHAR", "CHAR":
		c.kind = gomysql.MYSQL_TYPE_VAR_STRING
	default:
		c.declared, c.kind = "", gomysql.MYSQL_TYPE_NULL
	}
}

// see takes a value: the type of an expression is the type of its values. One
// whose values all are times to the millisecond, such as MAX(created_at), is a
// time.
func (c *column) see(v any) {
	if c.declared != "" || v == nil {
		return
	}
	switch x := v.(type) {
	case int64:
		c.kind = gomysql.MYSQL_TYPE_LONGLONG
	case float64:
		c.kind = gomysql.MYSQL_TYPE_DOUBLE
	case []byte:
		c.kind = gomysql.MYSQL_TYPE_BLOB
	case string:
		_, err := time.Parse(dialect.TimeFormat, x)
		c.isTime = err == nil && (c.isTime || !c.seen)
		c.kind = gomysql.MYSQL_TYPE_VAR_STRING
		if c.isTime {
			c.kind = gomysql.MYSQL_TYPE_DATETIME
		}
	}
	c.seen = true
}

func (c *column) field() *gomysql.Field {
	f := &gomysql.Field{Name: []byte(c.name), Type: c.kind, Charset: binaryText, Flag: gomysql.BINARY_FLAG}
	switch c.kind {
	case gomysql.MYSQL_TYPE_DATETIME:
		f.Decimal = 3
	case gomysql.MYSQL_TYPE_VAR_STRING:
		f.Charset, f.Flag = utf8mb4, 0
	}
	return f
}

// translateError gives an error of SQLite the number that MySQL has for it.
// mine is false when not the statement is at fault but something else, after
// which SQLite may have undone the whole transaction.
func translateError(err error, text string) (_ *gomysql.MyError, mine bool) {
	var se *sqlite.Error
	if !errors.As(err, &se) {
		return gomysql.NewError(gomysql.ER_UNKNOWN_ERROR, fmt.Sprintf("%v: in %.300s", err, text)), true
	}
	number := uint16(gomysql.ER_UNKNOWN_ERROR)
	switch se.Code() {
	case sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_ROWID:
		number = gomysql.ER_DUP_ENTRY
	case sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
		number = gomysql.ER_NO_REFERENCED_ROW_2
	case sqlite3.SQLITE_CONSTRAINT_CHECK:
		number = erCheck
		if name := strings.Fields(se.Error()); strings.HasSuffix(name[len(name)-2], dialect.FitsSuffix) { // "... failed: name (275)"
			number = gomysql.ER_DATA_TOO_LONG
		}
	case sqlite3.SQLITE_CONSTRAINT_NOTNULL:
		number = gomysql.ER_BAD_NULL_ERROR
	case sqlite3.SQLITE_BUSY:
		number = gomysql.ER_LOCK_WAIT_TIMEOUT
	}
	const primary = 0xff // the low byte of a code is its class
	class := se.Code() & primary
	mine = class == sqlite3.SQLITE_CONSTRAINT || class == sqlite3.SQLITE_ERROR || class == sqlite3.SQLITE_MISMATCH || class == sqlite3.SQLITE_TOOBIG
	return gomysql.NewError(number, fmt.Sprintf("%v: in %.300s", err, text)), mine
}

// erCheck is MySQL's number for a CHECK that a row breaks.
const erCheck = 3819
