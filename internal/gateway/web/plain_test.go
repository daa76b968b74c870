package web

import (
	"math/rand/v2"
	"testing"
)

// body is what the tests decode into.
type body struct {
	user string
	n    int64
}

func (b *body) fields() []Field {
	return []Field{{Name: "user_id", Into: &b.user, Optional: true}, {Name: "quantity", Into: &b.n}}
}

// checkPlain fails the test when decodePlain reads text otherwise than
// decodeObject does, and reports whether it has read it.
func checkPlain(t *testing.T, text string) bool {
	t.Helper()
	var quick, slow body
	if !decodePlain([]byte(text), quick.fields()) {
		if quick != (body{}) {
			t.Errorf("%q: it was left to the other and has set %+v", text, quick)
		}
		return false
	}
	if err := decodeObject([]byte(text), slow.fields()); err != nil {
		t.Errorf("%q was read as %+v, and is wrong: %v", text, quick, err)
	}
	if quick != slow {
		t.Errorf("%q was read as %+v, want %+v", text, quick, slow)
	}
	return true
}

func TestPlainBodies(t *testing.T) {
	for _, c := range []struct {
		why, text string
		plain     bool
	}{
		{"the usual", `{"user_id":"u-1","quantity":1}`, true},
		{"with white space", " {\n\t\"quantity\" : 12 , \"user_id\" : \"u 1\" }\r\n ", true},
		{"without what is optional", `{"quantity":0}`, true},
		{"the longest number", `{"quantity":999999999999999999}`, true},
		{"empty text", `{"user_id":"","quantity":1}`, true},
		{"nothing", ``, false},
		{"an empty object lacks a field", `{}`, false},
		{"not closed", `{"quantity":1`, false},
		{"a comma too many", `{"quantity":1,}`, false},
		{"a comma before all", `{,"quantity":1}`, false},
		{"no comma", `{"user_id":"u""quantity":1}`, false},
		{"something follows", `{"quantity":1}{}`, false},
		{"twice", `{"quantity":1,"quantity":1}`, false},
		{"unknown", `{"quantity":1,"price":1}`, false},
		{"another case", `{"Quantity":1}`, false},
		{"null", `{"quantity":null}`, false},
		{"a fraction", `{"quantity":1.0}`, false},
		{"an exponent", `{"quantity":1e3}`, false},
		{"negative", `{"quantity":-1}`, false},
		{"a zero in front", `{"quantity":01}`, false},
		{"too long a number", `{"quantity":1000000000000000000}`, false},
		{"text for a number", `{"quantity":"1"}`, false},
		{"a number for text", `{"user_id":1,"quantity":1}`, false},
		{"an escape", `{"user_id":"\u0041","quantity":1}`, false},
		{"a control character", "{\"user_id\":\"\x01\",\"quantity\":1}", false},
		{"delete", "{\"user_id\":\"\x7f\",\"quantity\":1}", false},
		{"not ASCII", `{"user_id":"买家","quantity":1}`, false},
		{"nested", `{"quantity":{}}`, false},
		{"a list", `[1]`, false},
	} {
		t.Run(c.why, func(t *testing.T) {
			if got := checkPlain(t, c.text); got != c.plain {
				t.Errorf("%q: plain %v, want %v", c.text, got, c.plain)
			}
		})
	}
}

// Whatever is left out, doubled or changed in a body, both read it alike.
func TestPlainAgreesWithTheDecoder(t *testing.T) {
	const whole = `{"user_id":"u-1","quantity":12}`
	const alphabet = "{}[]\",:\\ \n0129-.eu_idqantyN\x00\x7f\xff"
	random, read := rand.New(rand.NewPCG(1, 2)), 0
	for range 200_000 {
		text := []byte(whole)
		for range random.IntN(4) {
			i := random.IntN(len(text))
			switch random.IntN(3) {
			case 0:
				text[i] = alphabet[random.IntN(len(alphabet))]
			case 1:
				text = append(text[:i], text[i+1:]...)
			case 2:
				text = append(text[:i], append([]byte{alphabet[random.IntN(len(alphabet))]}, text[i:]...)...)
			}
			if len(text) == 0 {
				break
			}
		}
		if checkPlain(t, string(text)) {
			read++
		}
	}
	if read < 10_000 {
		t.Errorf("only %d of the bodies were plain: that compares nothing", read)
	}
}
