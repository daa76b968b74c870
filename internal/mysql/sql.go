package mysql

import (
	"database/sql/driver"
	"encoding/base32"
	"fmt"
	"strings"
)

// In widens the first "(?)" of query to n parameters: "id IN (?)" becomes
// "id IN (?,?,?)". As it stands, the constant is a valid statement for one. n
// is at least 1.
func In(query string, n int) string {
	return strings.Replace(query, "(?)", "(?"+strings.Repeat(",?", n-1)+")", 1)
}

// Values repeats the row that follows the first "VALUES " of query n times. As
// it stands, the constant is a valid statement for one row. n is at least 1.
func Values(query string, n int) string {
	const word = "VALUES "
	start := strings.Index(query, word) + len(word)
	end, depth := start, 0
	for ; end < len(query); end++ {
		if query[end] == '(' {
			depth++
		}
		if query[end] == ')' {
			depth--
		}
		if depth == 0 {
			end++
			break
		}
	}
	return query[:end] + strings.Repeat(","+query[start:end], n-1) + query[end:]
}

// ID is a 128-bit identity: in Go 26 characters of lower-case base32, in a
// table BINARY(16).
type ID string

var idEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding) //nolint:gochecknoglobals // nothing writes it

const idBytes = 16

// Valid reports whether id is one. The last of its 26 characters carries only
// three bits; a text whose other two are set would share its bytes with
// another text, and is not valid.
func (id ID) Valid() bool {
	raw, err := idEncoding.DecodeString(string(id))
	return err == nil && len(raw) == idBytes && idEncoding.EncodeToString(raw) == string(id)
}

// Value implements driver.Valuer.
func (id ID) Value() (driver.Value, error) {
	if !id.Valid() {
		return nil, fmt.Errorf("ID %.40q: want 128 bits in base32", string(id))
	}
	return idEncoding.DecodeString(string(id))
}

// Scan implements sql.Scanner.
func (id *ID) Scan(src any) error {
	raw, ok := src.([]byte)
	if !ok || len(raw) != idBytes {
		return fmt.Errorf("ID in a column: %d bytes of %T, want %d bytes", len(raw), src, idBytes)
	}
	*id = ID(idEncoding.EncodeToString(raw))
	return nil
}
