package sqltext

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTokenize(t *testing.T) {
	str := func(s string) []Token { return []Token{{String, s}} }
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	tests := []struct {
		why, sql string
		want     []Token
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
		{"bytes that are no text", "_binary'\xff\xfe'", []Token{{Binary, "\xff\xfe"}}},
		{"all bytes, as the driver escapes them", "_binary'" + escape(every) + "'", []Token{{Binary, string(every)}}},
		{"an introducer in capitals", `_BINARY'a'`, []Token{{Binary, "a"}}},
		{"a charset", `_utf8mb4'a'`, str("a")},
		{"a name that begins like one", `_binary2`, []Token{{Word, "_binary2"}}},
		{"comments are spaces", "a -- it's\nb# 'q\nc/* ' */d /*+ hint */--", []Token{{Word, "a"}, {Word, "b"}, {Word, "c"}, {Word, "d"}}},
		{"two minuses are no comment", "1--1", []Token{{Number, "1"}, {Mark, "-"}, {Mark, "-"}, {Number, "1"}}},
		{"backquotes", "`a``", nil},
		{"a name in backquotes", "`FOR UPDATE`", []Token{{Quoted, "FOR UPDATE"}}},
		{"numbers", "1 1.5 1e3 1.e-3 1,2", []Token{{Number, "1"}, {Number, "1.5"}, {Number, "1e3"}, {Number, "1.e-3"}, {Number, "1"}, {Mark, ","}, {Number, "2"}}},
		{"marks", "(a.b)<=1<>2>=3!=4<5>6=7*", []Token{
			{Mark, "("},
			{Word, "a"},
			{Mark, "."},
			{Word, "b"},
			{Mark, ")"},
			{Mark, "<="},
			{Number, "1"},
			{Mark, "<>"},
			{Number, "2"},
			{Mark, ">="},
			{Number, "3"},
			{Mark, "!="},
			{Number, "4"},
			{Mark, "<"},
			{Number, "5"},
			{Mark, ">"},
			{Number, "6"},
			{Mark, "="},
			{Number, "7"},
			{Mark, "*"},
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
		got, err := Tokenize(tt.sql)
		if (err != nil) != (tt.want == nil) {
			t.Errorf("%s: %q: error %v, want one: %v", tt.why, tt.sql, err, tt.want == nil)
			continue
		}
		if diff := cmp.Diff(tt.want, got); diff != "" && err == nil {
			t.Errorf("%s: %q:\n%s", tt.why, tt.sql, diff)
		}
	}
}

// escape writes bytes as go-sql-driver does between quotes.
func escape(raw []byte) string {
	return strings.NewReplacer("\x00", `\0`, "\n", `\n`, "\r", `\r`, "\x1a", `\Z`, "'", `\'`, `"`, `\"`, `\`, `\\`).Replace(string(raw))
}
