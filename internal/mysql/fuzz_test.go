package mysql

import (
	"regexp"
	"testing"
)

// FuzzID looks for a text that is taken for an ID and is not the only one of
// its bytes.
func FuzzID(f *testing.F) {
	f.Add("aaaaaaaaaaaaaaaaaaaaaaaaaa")
	form := regexp.MustCompile(`^[a-z2-7]{25}[aeimquy4]$`)
	f.Fuzz(func(t *testing.T, text string) {
		id := ID(text)
		raw, err := id.Value()
		if id.Valid() != (err == nil) || id.Valid() != form.MatchString(text) {
			t.Fatalf("%q: valid %v, of the form %v, value %v", text, id.Valid(), form.MatchString(text), err)
		}
		if err != nil {
			return
		}
		var back ID
		if err := back.Scan(raw); err != nil || back != id {
			t.Fatalf("%q comes back as %q: %v", id, back, err)
		}
	})
}
