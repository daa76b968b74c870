package web

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/leadingpeers/seckill/internal/gateway/problem"
)

// sample has one field of every kind.
type sample struct {
	name  string
	count int64
	at    time.Time
	note  string
}

func (s *sample) fields() []Field {
	return []Field{
		{Name: "name", Into: &s.name},
		{Name: "count", Into: &s.count},
		{Name: "at", Into: &s.at, Optional: true},
		{Name: "note", Into: &s.note, Optional: true},
	}
}

func TestDecodeObject(t *testing.T) {
	tests := []struct {
		body string
		want problem.Code
		why  string
	}{
		{`{"name":"a","count":4}`, "", "the plain case"},
		{" {\"count\" : -4 ,\n\"name\":\"\\u00e9\"}\t", "", "order, space and escapes are free"},
		{`{"name":"a","count":4,"at":"2026-11-11T20:00:00.5+08:00","note":""}`, "", "optional fields"},
		{``, problem.MalformedJSON, "empty"},
		{`null`, problem.MalformedJSON, "not an object"},
		{`[]`, problem.MalformedJSON, "not an object"},
		{`"a"`, problem.MalformedJSON, "not an object"},
		{`{"name":"a","count":4`, problem.MalformedJSON, "not closed"},
		{`{"name":"a","count":4,}`, problem.MalformedJSON, "trailing comma"},
		{`{"name":"a" "count":4}`, problem.MalformedJSON, "no comma"},
		{`{"name" "a"}`, problem.MalformedJSON, "no colon"},
		{`{name:"a"}`, problem.MalformedJSON, "name without quotes"},
		{`{'name':'a'}`, problem.MalformedJSON, "wrong quotes"},
		{`{"name":"a","count":4}{}`, problem.MalformedJSON, "trailing object"},
		{`{"name":"a","count":4} x`, problem.MalformedJSON, "trailing text"},
		{`{"name":"a","count":4]`, problem.MalformedJSON, "wrong bracket"},
		{"{\"name\":\"a\x00\",\"count\":4}", problem.MalformedJSON, "raw NUL in a string"},
		{"\xef\xbb\xbf{}", problem.MalformedJSON, "byte order mark"},
		{"{\"name\":\"\xff\",\"count\":4}", problem.MalformedJSON, "not UTF-8"},
		{`{"name":"a","count":04}`, problem.MalformedJSON, "leading zero"},
		{`{"name":"a","count":0x4}`, problem.MalformedJSON, "hexadecimal"},
		{`{"name":"a","count":+4}`, problem.MalformedJSON, "plus sign"},
		{`{"name":"a","count":NaN}`, problem.MalformedJSON, "no number"},
		{`{"name":"a","count":"4"}`, problem.InvalidField, "number in a string"},
		{`{"name":"a","count":0.5}`, problem.InvalidField, "fraction"},
		{`{"name":"a","count":4.0}`, problem.InvalidField, "fraction, even of nothing"},
		{`{"name":"a","count":4e0}`, problem.InvalidField, "exponent"},
		{`{"name":"a","count":1e300}`, problem.InvalidField, "far too large"},
		{`{"name":"a","count":9223372036854775808}`, problem.InvalidField, "one too large"},
		{`{"name":"a","count":true}`, problem.InvalidField, "not a number"},
		{`{"name":"a","count":null}`, problem.InvalidField, "null is not a value"},
		{`{"name":null,"count":4}`, problem.InvalidField, "null is not a value"},
		{`{"name":7,"count":4}`, problem.InvalidField, "not a string"},
		{`{"name":{"a":1},"count":4}`, problem.InvalidField, "nested object"},
		{`{"name":["a"],"count":4}`, problem.InvalidField, "nested list"},
		{`{"name":"a\u0000b","count":4}`, problem.InvalidField, "escaped NUL"},
		{`{"name":"a\nb","count":4}`, problem.InvalidField, "escaped newline"},
		{`{"name":"\ud800","count":4}`, problem.InvalidField, "half a surrogate pair"},
		{`{"name":"a","count":4,"at":"tomorrow"}`, problem.InvalidField, "not a time"},
		{`{"name":"a","count":4,"at":1700000000}`, problem.InvalidField, "not a time"},
		{`{"name":"a","count":4,"at":"2026-11-11T20:00:00"}`, problem.InvalidField, "time without a zone"},
		{`{"name":"a"}`, problem.MissingField, "count is required"},
		{`{}`, problem.MissingField, "name is required"},
		{`{"name":"a","count":4,"price":1}`, problem.UnknownField, "unknown"},
		{`{"Name":"a","count":4}`, problem.UnknownField, "names are exact"},
		{`{"name":"a","count":4,"":1}`, problem.UnknownField, "empty name"},
		{`{"name":"a","count":4,"count":5}`, problem.DuplicateField, "twice"},
		{`{"name":"a","count":4,"c\u006funt":5}`, problem.DuplicateField, "twice, in other letters"},
		{`{"x":` + strings.Repeat("[", 20000), problem.UnknownField, "deep nesting is not even read"},
		{`{"name":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}`, problem.MalformedJSON, "deep nesting in a known field"},
	}
	for _, tt := range tests {
		var s sample
		if err := decodeObject([]byte(tt.body), s.fields()); codeOf(err) != tt.want {
			t.Errorf("%.60q: %v, want %q: %s", tt.body, err, tt.want, tt.why)
		}
	}
}

// codeOf is the code that err answers with, empty for nil.
func codeOf(err error) problem.Code {
	if err == nil {
		return ""
	}
	return problem.From(err).Code
}

func TestDecodeChecksTheEnvelope(t *testing.T) {
	const good = `{"name":"a","count":4}`
	tests := []struct {
		body   string
		header http.Header
		want   problem.Code
		why    string
	}{
		{good, http.Header{"Content-Type": {"application/json"}}, "", "the plain case"},
		{good, http.Header{"Content-Type": {"Application/JSON; charset=UTF-8"}}, "", "case does not count, UTF-8 may be said"},
		{good, nil, problem.UnsupportedMediaType, "no type"},
		{good, http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, problem.UnsupportedMediaType, "what curl -d says by itself"},
		{good, http.Header{"Content-Type": {"text/json"}}, problem.UnsupportedMediaType, "not the type"},
		{good, http.Header{"Content-Type": {"application/json; charset=gbk"}}, problem.UnsupportedMediaType, "JSON is UTF-8"},
		{good, http.Header{"Content-Type": {"application/json;"}}, "", "an empty parameter is none"},
		{good, http.Header{"Content-Type": {"application/json"}, "Content-Encoding": {"gzip"}}, problem.UnsupportedMediaType, "compressed"},
		{good + strings.Repeat(" ", 100-len(good)), http.Header{"Content-Type": {"application/json"}}, "", "as long as allowed"},
		{good + strings.Repeat(" ", 101-len(good)), http.Header{"Content-Type": {"application/json"}}, problem.BodyTooLarge, "a byte too long"},
	}
	for _, tt := range tests {
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(tt.body))
		r.Header = tt.header
		var s sample
		if err := Decode(r, 100, s.fields()...); codeOf(err) != tt.want {
			t.Errorf("%v: %v, want %q: %s", tt.header, err, tt.want, tt.why)
		}
	}
}

func TestDecodeNothing(t *testing.T) {
	tests := []struct {
		body string
		want problem.Code
		why  string
	}{
		{"", "", "no body"},
		{" \n", "", "nothing in it"},
		{"{}", "", "what a client sends that always sends JSON"},
		{`{"state":"online"}`, problem.UnknownField, "the operation takes no field"},
		{"x", problem.MalformedJSON, "not JSON"},
		{strings.Repeat(" ", MaxBuyerBody+1), problem.BodyTooLarge, "not even nothing may be long"},
	}
	for _, tt := range tests {
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(tt.body))
		if err := DecodeNothing(r); codeOf(err) != tt.want {
			t.Errorf("%.20q: %v, want %q: %s", tt.body, err, tt.want, tt.why)
		}
	}
}

func TestIdempotencyKey(t *testing.T) {
	tests := []struct {
		sent []string
		want problem.Code
		why  string
	}{
		{[]string{"my-first"}, "", "eight characters"},
		{[]string{strings.Repeat("~", 128)}, "", "128 characters"},
		{nil, problem.MissingIdempotencyKey, "missing"},
		{[]string{""}, problem.InvalidIdempotencyKey, "empty"},
		{[]string{"seven77"}, problem.InvalidIdempotencyKey, "too short"},
		{[]string{strings.Repeat("a", 129)}, problem.InvalidIdempotencyKey, "too long"},
		{[]string{"has a space"}, problem.InvalidIdempotencyKey, "a space is not visible"},
		{[]string{"tab\tinside"}, problem.InvalidIdempotencyKey, "control character"},
		{[]string{"schlüssel-1"}, problem.InvalidIdempotencyKey, "not ASCII"},
		{[]string{"my-first", "my-second"}, problem.InvalidIdempotencyKey, "which of the two?"},
	}
	for _, tt := range tests {
		if _, err := IdempotencyKey(http.Header{"Idempotency-Key": tt.sent}); codeOf(err) != tt.want {
			t.Errorf("%q: %v, want %q: %s", tt.sent, err, tt.want, tt.why)
		}
	}
}

func TestQuery(t *testing.T) {
	tests := []struct {
		query string
		want  problem.Code
		why   string
	}{
		{"", "", "none"},
		{"user_id=u&wait=1s&utm_source=x", "", "others are left alone"},
		{"user_id=u&user_id=v", problem.MalformedQuery, "which of the two?"},
		{"user_id=%zz", problem.MalformedQuery, "bad escape"},
		{"user_id=u;wait=1s", problem.MalformedQuery, "the old separator"},
	}
	for _, tt := range tests {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.URL.RawQuery = tt.query
		if _, err := Query(r, "user_id", "wait"); codeOf(err) != tt.want {
			t.Errorf("%q: %v, want %q: %s", tt.query, err, tt.want, tt.why)
		}
	}
}

// FuzzDecode holds the decoder to this: it never panics and answers only with
// problems that blame the caller; what it accepts is one JSON object for
// encoding/json too, with the same values, and clean text.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`{"name":"a","count":4}`, `{"name":"\ud83d\ude00","count":-1,"at":"2026-11-11T20:00:00Z"}`, `{"count":1e3}`,
		`{"name":"a","count":4,"count":5}`, `{"Name":"a"}`, `[[[[`, `{"note":null}`, "{\"name\":\"\xff\"}", `{} {}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var s sample
		if err := decodeObject(body, s.fields()); err != nil {
			if p := problem.From(err); problem.NewTable()[p.Code].Status != http.StatusBadRequest {
				t.Fatalf("%q: %v", body, err)
			}
			return
		}
		var loose struct {
			Name, Note string
			Count      float64
			At         time.Time
		}
		if err := json.Unmarshal(body, &loose); err != nil {
			t.Fatalf("%q: accepted, but encoding/json says %v", body, err)
		}
		if loose.Name != s.name || loose.Note != s.note || !loose.At.Equal(s.at) || math.Abs(loose.Count-float64(s.count)) > 1 {
			if loose.Count < 1e15 && loose.Count > -1e15 {
				t.Fatalf("%q: %+v, encoding/json has %+v", body, s, loose)
			}
		}
		for _, text := range []string{s.name, s.note} {
			if !utf8.ValidString(text) || strings.ContainsAny(text, "\x00\n\r\x7f\ufffd") {
				t.Fatalf("%q: accepted %q", body, text)
			}
		}
	})
}

func ExampleDecode() {
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(`{"user_id": "u1", "quantity": "2"}`))
	r.Header.Set("Content-Type", "application/json")
	var user string
	var quantity int64
	err := Decode(r, MaxBuyerBody, Field{Name: "user_id", Into: &user}, Field{Name: "quantity", Into: &quantity})
	fmt.Println(err)
	// Output: invalid_field: quantity is "2": want a whole number.
}
