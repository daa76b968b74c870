package dialect

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTokenize(t *testing.T) {
	str := func(s string) []token { return []token{{text, s}} }
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	tests := []struct {
		why, sql string
		want     []token
	}{
		{"plain", `'abc'`, str("abc")},
		{"empty", `''`, str("")},
		{"a doubled quote", `'it''s'`, str("it's")},
		{"only doubled quotes", `''''''`, str("''")},
		{"an escaped quote does not end it", `'a\'b'`, str("a'b")},
		{"an escaped backslash before the end", `'a\\'`, str(`a\`)},
		{"a backslash, a quote, and more", `'\\\'; DROP TABLE orders; -- '`, str(`\'; DROP TABLE orders; -- `)},
		{"SQL in a string stays a string", `'x FOR UPDATE'`, str("x FOR UPDATE")},
		{"comments in a string stay", `'a -- b # c /* d */'`, str("a -- b # c /* d */")},
		{"a question mark in a string", `'a?b'`, str("a?b")},
		{"the escapes", `'\0\b\n\r\t\Z\"\q\%\_'`, str("\x00\b\n\r\t\x1a\"q\\%\\_")},
		{"double quotes make a string too", `"a'b""c\""`, str(`a'b"c"`)},
		{"text of any language", `'秒杀 🛒'`, str("秒杀 🛒")},
		{"bytes that are no text", "_binary'\xff\xfe'", []token{{blob, "\xff\xfe"}}},
		{"all bytes, as the driver escapes them", "_binary'" + escape(every) + "'", []token{{blob, string(every)}}},
		{"an introducer in capitals", `_BINARY'a'`, []token{{blob, "a"}}},
		{"a charset", `_utf8mb4'a'`, str("a")},
		{"a name that begins like one", `_binary2`, []token{{word, "_binary2"}}},
		{"comments are spaces", "a -- it's\nb# 'q\nc/* ' */d /*+ hint */--", []token{{word, "a"}, {word, "b"}, {word, "c"}, {word, "d"}}},
		{"two minuses are no comment", "1--1", []token{{number, "1"}, {mark, "-"}, {mark, "-"}, {number, "1"}}},
		{"backquotes", "`a``", nil},
		{"a name in backquotes", "`FOR UPDATE`", []token{{quoted, "FOR UPDATE"}}},
		{"numbers", "1 1.5 1e3 1.e-3 1,2", []token{{number, "1"}, {number, "1.5"}, {number, "1e3"}, {number, "1.e-3"}, {number, "1"}, {mark, ","}, {number, "2"}}},
		{"marks", "(a.b)<=1<>2>=3!=4<5>6=7*", []token{
			{mark, "("}, {word, "a"}, {mark, "."}, {word, "b"}, {mark, ")"}, {mark, "<="}, {number, "1"}, {mark, "<>"}, {number, "2"},
			{mark, ">="}, {number, "3"}, {mark, "!="}, {number, "4"}, {mark, "<"}, {number, "5"}, {mark, ">"}, {number, "6"}, {mark, "="}, {number, "7"}, {mark, "*"},
		}},
		{"no end", `'abc`, nil},
		{"an end that is escaped away", `'abc\'`, nil},
		{"a backslash at the end of all", `'abc\`, nil},
		{"a comment without its end", "a /* b", nil},
		{"a comment that MySQL runs", "a /*!50000 b */", nil},
		{"a variable", "@a", nil},
		{"a hexadecimal number is a string in MySQL", "0x41", nil},
		{"a NUL outside of a string", "a\x00b", nil},
		{"an OR there, a concatenation here", "a || b", nil},
		{"decimals there, integers here", "3 / 2", nil},
		{"equality of NULLs", "a <=> b", nil},
	}
	for _, tt := range tests {
		got, err := tokenize(tt.sql)
		if (err != nil) != (tt.want == nil) {
			t.Errorf("%s: %q: error %v, want one: %v", tt.why, tt.sql, err, tt.want == nil)
			continue
		}
		if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(token{})); diff != "" && err == nil {
			t.Errorf("%s: %q:\n%s", tt.why, tt.sql, diff)
		}
	}
}

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
