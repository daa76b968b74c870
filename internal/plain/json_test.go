package plain_test

import (
	"encoding/json"
	"testing"

	"github.com/leadingpeers/seckill/internal/plain"
)

// Each byte by itself: beside another one that must be escaped, one that was
// forgotten would not be seen.
func TestAppendText(t *testing.T) {
	texts := []string{"", "plain", "\u2028", "\u2029", "é", "手机"}
	for c := range 256 {
		texts = append(texts, "a"+string([]byte{byte(c)})+"z")
	}
	for _, text := range texts {
		want, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := plain.AppendText([]byte("before"), text); string(got) != "before"+string(want) {
			t.Errorf("%q is %s, want %s behind what was there", text, got, want)
		}
	}
}
