package stock

import (
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
)

// The forms are checked by hand because regular expressions took a fifteenth of
// a gateway's time; these say what is meant.
func TestTheFormsAreThoseOfTheirPatterns(t *testing.T) {
	const alphabet = "az27-09A 8~\x7f{;,é"
	random := rand.New(rand.NewPCG(3, 4))
	for name, c := range map[string]struct {
		pattern string
		valid   func(string) bool
		length  int
	}{
		"reservation ID": {`^[a-z2-7]{25}[aeimquy4]$`, ValidID, 26},
		"product ID":     {`^[a-z0-9]([a-z0-9-]{0,34}[a-z0-9])?$`, ValidProductID, 36},
		"user ID":        {`^[!-~]{1,64}$`, ValidUserID, 64},
	} {
		t.Run(name, func(t *testing.T) {
			pattern, good := regexp.MustCompile(c.pattern), 0
			check := func(text string) {
				if got, want := c.valid(text), pattern.MatchString(text); got != want {
					t.Errorf("%q: valid %v, want %v", text, got, want)
				} else if got {
					good++
				}
			}
			for n := range c.length + 3 {
				text := []byte(strings.Repeat("a", n))
				check(string(text))
				for i := range text { // every place, with what is allowed somewhere
					for _, b := range []byte(alphabet) {
						text[i] = b
						check(string(text))
						text[i] = 'a'
					}
				}
				for range 20 {
					for i := range text {
						text[i] = alphabet[random.IntN(4)]
					}
					check(string(text))
				}
			}
			if good < 100 {
				t.Errorf("only %d were valid: that compares nothing", good)
			}
		})
	}
}
