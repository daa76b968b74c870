package dialect

import (
	"errors"
	"fmt"
	"strings"
)

// kind says what a token is.
type kind uint8

const (
	word   kind = iota // a keyword or a name
	quoted             // a name in backquotes, without them
	number             // an unsigned number
	text               // a character string, decoded
	blob               // a binary string, decoded
	mark               // an operator or a separator
)

// token is one word of a statement. Comments and spaces are not tokens.
type token struct {
	kind kind
	text string
}

// is reports whether the token is the keyword, which is written in capitals.
func (t token) is(keyword string) bool {
	return t.kind == word && strings.EqualFold(t.text, keyword)
}

// isMark reports whether the token is the operator or separator.
func (t token) isMark(m string) bool { return t.kind == mark && t.text == m }

// marks are the operators that mean the same in MySQL and in SQLite. Not here,
// because they do not: / || && % ^ ~ | & <=> := and all that begins with @.
const marks = "( ) , . * = < > + - ; <= >= <> !="

// tokenize cuts a statement into tokens. It decides, and it alone, what is in
// a string: nothing later looks into one.
func tokenize(sql string) ([]token, error) {
	tokens := make([]token, 0, len(sql)/6+8)
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
func next(s string) (token, int, error) {
	c := s[0]
	switch {
	case c == '\'' || c == '"':
		value, n, err := unquote(s)
		return token{text, value}, n, err
	case c == '`':
		end := strings.IndexByte(s[1:], '`')
		if end < 1 {
			return token{}, 0, errors.New("a backquote without its end")
		}
		return token{quoted, s[1 : end+1]}, end + 2, nil
	case c >= '0' && c <= '9':
		return numeric(s)
	case nameByte(c):
		n := nameLen(s)
		if k, ok := introducer(s[:n]); ok && n < len(s) && s[n] == '\'' {
			value, m, err := unquote(s[n:])
			return token{k, value}, n + m, err
		}
		return token{word, s[:n]}, n, nil
	}
	for n := min(len(s), 3); n > 0; n-- { // the longest first; three to see <=> as a whole
		if m := s[:n]; !strings.Contains(m, " ") && strings.Contains(" "+marks+" ", " "+m+" ") {
			if strings.HasPrefix(s, "<=>") {
				break
			}
			return token{mark, m}, n, nil
		}
	}
	return token{}, 0, fmt.Errorf("the character %q", c)
}

// introducer says what string follows the charset word, as go-sql-driver
// writes _binary'...' for bytes.
func introducer(word string) (kind, bool) {
	switch strings.ToLower(word) {
	case "_binary":
		return blob, true
	case "_utf8mb4", "_ascii":
		return text, true
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
func numeric(s string) (token, int, error) {
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
		return token{}, 0, fmt.Errorf("the number %.20q", s)
	}
	return token{number, s[:n]}, n, nil
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
