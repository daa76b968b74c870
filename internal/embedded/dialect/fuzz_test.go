package dialect

import (
	"strings"
	"testing"
)

// escape writes bytes as go-sql-driver does between quotes.
func escape(raw []byte) string {
	return strings.NewReplacer("\x00", `\0`, "\n", `\n`, "\r", `\r`, "\x1a", `\Z`, "'", `\'`, `"`, `\"`, `\`, `\\`).Replace(string(raw))
}

// Whatever is in a string, it stays one token and comes out as it went in, and
// the SQL that is made holds none of it.
func FuzzStringsStayStrings(f *testing.F) {
	for _, s := range []string{"", "'", `\`, `\'`, "a'; DROP TABLE t; --", "\x00", "FOR UPDATE", "_binary'x'", "?", "2031-02-03 04:05:06x"} {
		f.Add([]byte(s))
	}
	d := testDialect(f)
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) == 0 {
			return // written as X'', which the driver would make a NULL
		}
		sql := "UPDATE orders SET reason = _binary'" + escape(raw) + "' WHERE state = 'paid'"
		st, err := d.Translate(sql)
		if err != nil {
			t.Fatal(err)
		}
		if want := "UPDATE orders SET reason = ? WHERE state = ?"; st.SQL != want {
			t.Errorf("got %q, want %q", st.SQL, want)
		}
		if got := string(st.Args[0].([]byte)); got != string(raw) {
			t.Errorf("got the argument %q, want %q", got, raw)
		}
	})
}

// No text at all makes the translator panic or write a string into SQL.
func FuzzTranslate(f *testing.F) {
	for _, tt := range translations {
		f.Add(tt.sql)
	}
	d := testDialect(f)
	f.Fuzz(func(t *testing.T, sql string) {
		st, err := d.Translate(sql)
		if err == nil && strings.ContainsAny(strings.ReplaceAll(strings.ReplaceAll(strings.ReplaceAll(st.SQL, now, ""), "'%Y-%m-%d %H:%M:%f'", ""), "' seconds'", ""), "'\\") &&
			!strings.Contains(st.SQL, "X''") {
			t.Errorf("%q became %q", sql, st.SQL)
		}
	})
}
