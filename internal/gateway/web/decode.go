package web

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/leadingpeers/seckill/internal/gateway/problem"
)

// The largest bodies, in bytes.
const (
	MaxBuyerBody = 4 << 10
	MaxAdminBody = 64 << 10
)

// Field is one member that a request body may have.
type Field struct {
	Name     string
	Into     any // *string, *int64, *bool, *time.Time, *[]string, or a pointer to one of the first four: nil = absent
	Optional bool
}

// Decode reads the body of r, at most limit bytes of JSON, into fields.
//
// The body is one flat JSON object and nothing after it, read more strictly
// than encoding/json does: names match exactly, none comes twice, none is
// unknown, null is no value, integers have no fraction or exponent, and text is
// valid UTF-8 without control characters. What is nested is refused unseen.
// The error is a problem; some fields may then have been filled in.
func Decode(r *http.Request, limit int64, fields ...Field) error {
	if err := checkMediaType(r.Header); err != nil {
		return err
	}
	body, err := readBody(r, limit)
	if err != nil {
		return err
	}
	if decodePlain(body, fields) {
		return nil
	}
	return decodeObject(body, fields)
}

// DecodeNothing reads the body of an operation that takes none: it may be
// absent, or an empty object.
func DecodeNothing(r *http.Request) error {
	body, err := readBody(r, MaxBuyerBody)
	if err != nil || len(bytes.TrimSpace(body)) == 0 {
		return err
	}
	return decodeObject(body, nil)
}

// DecodeOptional is Decode for a body that may be absent.
func DecodeOptional(r *http.Request, limit int64, fields ...Field) error {
	if r.ContentLength == 0 {
		return nil
	}
	return Decode(r, limit, fields...)
}

func checkMediaType(h http.Header) error {
	if sent := h["Content-Type"]; len(sent) == 1 && sent[0] == "application/json" && len(h["Content-Encoding"]) == 0 {
		return nil // as nearly everybody writes it
	}
	kind, params, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil || kind != "application/json" {
		return problem.New(problem.UnsupportedMediaType, "Content-Type is %.80q: want application/json.", h.Get("Content-Type"))
	}
	if charset, ok := params["charset"]; ok && !strings.EqualFold(charset, "utf-8") {
		return problem.New(problem.UnsupportedMediaType, "The charset is %.40q: want utf-8.", charset)
	}
	if h.Get("Content-Encoding") != "" {
		return problem.New(problem.UnsupportedMediaType, "Content-Encoding is %.40q: want none.", h.Get("Content-Encoding"))
	}
	return nil
}

func readBody(r *http.Request, limit int64) ([]byte, error) {
	if n := r.ContentLength; n > 0 && n <= limit {
		body := make([]byte, n)
		if _, err := io.ReadFull(r.Body, body); err == nil { // net/http ends the body there
			return body, nil
		}
		return nil, problem.New(problem.MalformedJSON, "The body ended before it was complete.")
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, limit+1))
	switch {
	case err != nil:
		return nil, problem.New(problem.MalformedJSON, "The body ended before it was complete.")
	case int64(len(body)) > limit:
		return nil, problem.New(problem.BodyTooLarge, "The body may have %d bytes.", limit)
	}
	return body, nil
}

// decodeObject is Decode once the bytes are there.
func decodeObject(body []byte, fields []Field) error {
	if !utf8.Valid(body) {
		return problem.New(problem.MalformedJSON, "The body is not valid UTF-8.")
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	if start, err := dec.Token(); err != nil || start != json.Delim('{') {
		return problem.New(problem.MalformedJSON, "The body is not a JSON object.")
	}
	seen := make([]bool, len(fields))
	for dec.More() {
		if err := decodeMember(dec, fields, seen); err != nil {
			return err
		}
	}
	if _, err := dec.Token(); err != nil {
		return problem.New(problem.MalformedJSON, "The object is not closed or not well formed.")
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return problem.New(problem.MalformedJSON, "Something follows the JSON object.")
	}
	for i, f := range fields {
		if !seen[i] && !f.Optional {
			return problem.New(problem.MissingField, "%s is required.", f.Name)
		}
	}
	return nil
}

// decodeMember reads one name and its value.
func decodeMember(dec *json.Decoder, fields []Field, seen []bool) error {
	token, err := dec.Token()
	name, isName := token.(string)
	if err != nil || !isName {
		return problem.New(problem.MalformedJSON, "The object is not well formed.")
	}
	i := slices.IndexFunc(fields, func(f Field) bool { return f.Name == name })
	if i < 0 {
		return problem.New(problem.UnknownField, "%.60q is not a field of this operation.", name)
	}
	if seen[i] {
		return problem.New(problem.DuplicateField, "%s is there twice.", name)
	}
	seen[i] = true
	var value json.RawMessage
	if err := dec.Decode(&value); err != nil {
		return problem.New(problem.MalformedJSON, "The value of %s is not well formed.", name)
	}
	return decodeValue(name, value, fields[i].Into)
}

func decodeValue(name string, value json.RawMessage, into any) error {
	if string(value) == "null" {
		return problem.New(problem.InvalidField, "%s is null.", name)
	}
	if err := json.Unmarshal(value, into); err != nil {
		return problem.New(problem.InvalidField, "%s is %.40s: want %s.", name, value, wanted(into))
	}
	if slices.ContainsFunc(texts(into), func(text string) bool { return strings.ContainsFunc(text, unprintable) }) {
		return problem.New(problem.InvalidField, "%s has a control character or is not valid Unicode.", name)
	}
	return nil
}

// texts are the texts that were decoded into into.
func texts(into any) []string {
	switch v := into.(type) {
	case *string:
		return []string{*v}
	case **string:
		return []string{**v}
	case *[]string:
		return *v
	}
	return nil
}

func wanted(into any) string {
	switch into.(type) {
	case *int64, **int64:
		return "a whole number"
	case *bool, **bool:
		return "true or false"
	case *[]string:
		return "a list of strings"
	case *time.Time, **time.Time:
		return "a time as in RFC 3339, 2006-01-02T15:04:05Z"
	default:
		return "a string"
	}
}

// unprintable also refuses U+FFFD, which is what half a surrogate pair becomes.
func unprintable(r rune) bool { return unicode.IsControl(r) || r == utf8.RuneError }

// Query returns the values of the named parameters of r, empty where absent.
// Other parameters are left alone: proxies and trackers add their own.
func Query(r *http.Request, names ...string) ([]string, error) {
	all, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, problem.New(problem.MalformedQuery, "The query string is not well formed.")
	}
	values := make([]string, len(names))
	for i, name := range names {
		if len(all[name]) > 1 {
			return nil, problem.New(problem.MalformedQuery, "%s is there twice.", name)
		}
		values[i] = all.Get(name)
	}
	return values, nil
}

// IdempotencyKey reads the header of that name
// (draft-ietf-httpapi-idempotency-key-header-07; the quotes of its examples
// are part of the key when they are sent).
func IdempotencyKey(h http.Header) (string, error) {
	sent := h["Idempotency-Key"]
	if len(sent) == 0 {
		return "", problem.Of(problem.MissingIdempotencyKey)
	}
	key := sent[0]
	invisible := strings.ContainsFunc(key, func(r rune) bool { return r < '!' || r > '~' })
	if len(sent) > 1 || len(key) < 8 || len(key) > 128 || invisible {
		return "", problem.New(problem.InvalidIdempotencyKey, "Want one Idempotency-Key of 8 to 128 visible ASCII characters.")
	}
	return key, nil
}

// Page reads the query's page_size and page_token. The token is what NextPage
// was given.
func Page(r *http.Request) (after string, size int, err error) {
	values, err := Query(r, "page_size", "page_token")
	if err != nil {
		return "", 0, err
	}
	size = defaultPage
	if values[0] != "" {
		if size, err = strconv.Atoi(values[0]); err != nil || size < 1 || size > maxPage {
			return "", 0, problem.New(problem.InvalidField, "page_size is %.20q: want 1 to %d.", values[0], maxPage)
		}
	}
	raw, err := base64.RawURLEncoding.DecodeString(values[1])
	foreign := func(c rune) bool { return c <= ' ' || c > '~' } // keys are plain, and other bytes are no text to a database
	if err != nil || len(raw) > maxPageToken || strings.ContainsFunc(string(raw), foreign) {
		return "", 0, problem.New(problem.InvalidField, "page_token is not one that this gateway gave.")
	}
	return string(raw), size, nil
}

// NextPage is the token of the page after the row with this key.
func NextPage(key string) string { return base64.RawURLEncoding.EncodeToString([]byte(key)) }

const (
	defaultPage  = 50
	maxPage      = 200
	maxPageToken = 128
)

// IfMatch reads the version that the caller wants to change.
func IfMatch(r *http.Request) (version int64, err error) {
	sent := r.Header["If-Match"]
	if len(sent) == 0 {
		return 0, problem.Of(problem.PreconditionRequired)
	}
	text, ok := strings.CutPrefix(sent[0], `"`)
	text, ok2 := strings.CutSuffix(text, `"`)
	version, err = strconv.ParseInt(text, 10, 64)
	if len(sent) > 1 || !ok || !ok2 || err != nil {
		return 0, problem.New(problem.PreconditionFailed, "If-Match is %.40q: want the ETag of one version.", sent[0])
	}
	return version, nil
}

// ETag is the tag of a version.
func ETag(version int64) string { return `"` + strconv.FormatInt(version, 10) + `"` }

// Text is an answer of 200 that is ready to be sent, again and again.
type Text struct {
	tag    string
	body   []byte
	length []string // of body, as its header
}

// Tag encodes body as JSON, with a tag made of the bytes.
func Tag(body any) (*Text, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("encode the answer: %w", err)
	}
	sum := fnv.New64a()
	_, _ = sum.Write(text) // a hash never fails
	return &Text{tag: `"` + strconv.FormatUint(sum.Sum64(), 36) + `"`, body: text, length: []string{strconv.Itoa(len(text))}}, nil
}

// Write answers with t, or with its tag alone, as 304, when the caller has it already.
func (t *Text) Write(w http.ResponseWriter, r *http.Request) error {
	h := w.Header()
	h.Set("ETag", t.tag)
	if r.Header.Get("If-None-Match") == t.tag {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	h.Set("Content-Type", "application/json")
	if h.Get("Cache-Control") == "" {
		h.Set("Cache-Control", "no-store")
	}
	h["Content-Length"] = t.length // or net/http cuts a long body into chunks
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(t.body) // the caller has gone; nobody is left to tell
	return nil
}

// WriteTagged answers with body as JSON under tag; with the tag alone, as 304,
// when the caller has this version already.
func WriteTagged(w http.ResponseWriter, r *http.Request, tag string, body any) error {
	w.Header().Set("ETag", tag)
	if r.Header.Get("If-None-Match") == tag {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	return WriteJSON(w, http.StatusOK, body)
}
