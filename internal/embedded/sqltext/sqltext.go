// Package sqltext cuts a MySQL statement into tokens. It decides, and it alone,
// what is in a string or a comment: nothing that comes after looks into one.
package sqltext

import (
	"errors"
	"fmt"
	"strings"
)

// Kind says what a token is.
type Kind uint8

// The kinds of tokens.
const (
	Word   Kind = iota // a keyword or a name
	Quoted             // a name in backquotes, without them
	Number             // an unsigned number
	String             // a character string, decoded
	Binary             // a binary string, decoded
	Mark               // an operator or a separator
)

// Token is one word of a statement. Comments and spaces are not tokens.
type Token struct {
	Kind Kind
	Text string
}

// Is reports whether the token is the keyword, in letters of any case.
func (t Token) Is(keyword string) bool {
	return t.Kind == Word && strings.EqualFold(t.Text, keyword)
}

// IsMark reports whether the token is the operator or separator.
func (t Token) IsMark(m string) bool { return t.Kind == Mark && t.Text == m }

// IsName reports whether the token may be a name.
func (t Token) IsName() bool { return t.Kind == Word || t.Kind == Quoted }

// marks are the operators that mean the same in MySQL and in SQLite. Not here,
// because they do not: / || && % ^ ~ | & <=> := and all that begins with @.
const marks = "( ) , . * = < > + - ; <= >= <> !="

// Tokenize cuts a statement, or several, into tokens. An operator that does not
// mean the same in MySQL and in SQLite is an error, and so is a string or a
// comment without its end.
func Tokenize(sql string) ([]Token, error) {
	tokens := make([]Token, 0, len(sql)/6+8)
	for i := 0; i < len(sql); {
		if n := blank(sql[i:]); n > 0 {
			i += n
			continue
		}
		t, n, err := next(sql[i:])
		if err != nil {
			return nil, err
		}
		tokens = append(tokens, t)
		i += n
	}
	return tokens, nil
}

// blank returns the length of the space or the comment that s begins with.
func blank(s string) int {
	switch {
	case strings.IndexByte(" \t\r\n\v\f", s[0]) >= 0:
		return 1
	case s[0] == '#', strings.HasPrefix(s, "--") && (len(s) == 2 || s[2] <= ' '):
		if end := strings.IndexByte(s, '\n'); end >= 0 {
			return end + 1
		}
		return len(s)
	case strings.HasPrefix(s, "/*") && !strings.HasPrefix(s, "/*!"): // MySQL runs what is in /*! */
		if end := strings.Index(s[2:], "*/"); end >= 0 {
			return end + 4
		}
	}
	return 0
}

// next reads the token that s begins with, and returns its length in s.
func next(s string) (Token, int, error) {
	c := s[0]
	switch {
	case c == '\'' || c == '"':
		value, n, err := unquote(s)
		return Token{String, value}, n, err
	case c == '`':
		end := strings.IndexByte(s[1:], '`')
		if end < 1 {
			return Token{}, 0, errors.New("a backquote without its end")
		}
		return Token{Quoted, s[1 : end+1]}, end + 2, nil
	case c >= '0' && c <= '9':
		return numeric(s)
	case nameByte(c):
		n := nameLen(s)
		if k, ok := introducer(s[:n]); ok && n < len(s) && s[n] == '\'' {
			value, m, err := unquote(s[n:])
			return Token{k, value}, n + m, err
		}
		return Token{Word, s[:n]}, n, nil
	}
	for n := min(len(s), 3); n > 0; n-- { // the longest first; three to see <=> as a whole
		if m := s[:n]; !strings.Contains(m, " ") && strings.Contains(" "+marks+" ", " "+m+" ") {
			if strings.HasPrefix(s, "<=>") {
				break
			}
			return Token{Mark, m}, n, nil
		}
	}
	return Token{}, 0, fmt.Errorf("the character %q", c)
}

// introducer says what string follows the charset word, as go-sql-driver
// writes _binary'...' for bytes.
func introducer(word string) (Kind, bool) {
	switch strings.ToLower(word) {
	case "_binary":
		return Binary, true
	case "_utf8mb4", "_ascii":
		return String, true
	}
	return 0, false
}

func nameByte(c byte) bool {
	return c == '_' || c == '$' || c >= 0x80 || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func digit(c byte) bool { return c >= '0' && c <= '9' }

func nameLen(s string) int {
	n := 0
	for n < len(s) && (nameByte(s[n]) || digit(s[n])) {
		n++
	}
	return n
}

// numeric reads 12, 1.5 or 1e-3, and refuses 0x1f, which is a string in MySQL.
func numeric(s string) (Token, int, error) {
	n := digits(s)
	if n < len(s) && s[n] == '.' {
		n += 1 + digits(s[n+1:])
	}
	if n+1 < len(s) && (s[n] == 'e' || s[n] == 'E') {
		sign := 0
		if s[n+1] == '-' || s[n+1] == '+' {
			sign = 1
		}
		if d := digits(s[n+1+sign:]); d > 0 {
			n += 1 + sign + d
		}
	}
	if n < len(s) && nameByte(s[n]) {
		return Token{}, 0, fmt.Errorf("the number %.20q", s)
	}
	return Token{Number, s[:n]}, n, nil
}

func digits(s string) int {
	n := 0
	for n < len(s) && digit(s[n]) {
		n++
	}
	return n
}

// unquote decodes the string that s begins with: a doubled quote, and MySQL's
// backslash escapes (MySQL 8.4 reference manual, "String Literals").
func unquote(s string) (value string, n int, err error) {
	quote := s[0]
	plain := 1
	for plain < len(s) && s[plain] != quote && s[plain] != '\\' {
		plain++
	}
	if plain < len(s) && s[plain] == quote && (plain+1 == len(s) || s[plain+1] != quote) {
		return s[1:plain], plain + 1, nil // most have nothing to decode
	}
	var out strings.Builder
	for i := 1; i < len(s); i++ {
		c := s[i]
		switch {
		case c == quote && i+1 < len(s) && s[i+1] == quote:
			i++
			out.WriteByte(quote)
		case c == quote:
			return out.String(), i + 1, nil
		case c == '\\' && i+1 < len(s):
			i++
			out.WriteString(unescape(s[i]))
		default:
			out.WriteByte(c)
		}
	}
	return "", 0, errors.New("a string without its end")
}

// unescape returns what a backslash and c stand for.
func unescape(c byte) string {
	switch c {
	case '0':
		return "\x00"
	case 'b':
		return "\b"
	case 'n':
		return "\n"
	case 'r':
		return "\r"
	case 't':
		return "\t"
	case 'Z':
		return "\x1a"
	case '%', '_':
		return string([]byte{'\\', c}) // kept for LIKE
	default:
		return string([]byte{c})
	}
}

// Same reports whether ts are these keywords and nothing else.
func Same(ts []Token, words string) bool {
	want := strings.Fields(words)
	if len(ts) != len(want) {
		return false
	}
	for i, t := range ts {
		if !t.Is(want[i]) {
			return false
		}
	}
	return true
}

// Split cuts ts at the commas that are in no parentheses.
func Split(ts []Token) [][]Token {
	var parts [][]Token
	depth, start := 0, 0
	for i, t := range ts {
		switch {
		case t.IsMark("("):
			depth++
		case t.IsMark(")"):
			depth--
		case t.IsMark(",") && depth == 0:
			parts = append(parts, ts[start:i])
			start = i + 1
		}
	}
	return append(parts, ts[start:])
}

// Closing returns the index of the parenthesis that closes the one at open.
func Closing(ts []Token, open int) (int, error) {
	depth := 0
	for i := open; i < len(ts); i++ {
		switch {
		case ts[i].IsMark("("):
			depth++
		case ts[i].IsMark(")"):
			depth--
			if depth == 0 {
				return i, nil
			}
		}
	}
	return 0, errors.New("a parenthesis without its end")
}
