package token_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/leadingpeers/seckill/pkg/token"
)

var (
	first  = token.Key{ID: "k1", Secret: []byte("sixteen bytes or more")}
	second = token.Key{ID: "k2", Secret: []byte("another secret, long enough")}
	now    = time.Date(2026, 11, 11, 12, 0, 0, 0, time.UTC)
	claims = token.Claims{ActivityID: "sale", ProductID: "phone", UserID: "u-88", ExpiresAt: now.Add(time.Minute)}
)

func ring(t testing.TB, keys ...token.Key) *token.Ring {
	t.Helper()
	r, err := token.NewRing(keys)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func issue(t testing.TB, r *token.Ring) (text, id string) {
	t.Helper()
	text, id, err := r.Issue(claims)
	if err != nil {
		t.Fatal(err)
	}
	return text, id
}

func TestVerify(t *testing.T) {
	r := ring(t, first)
	text, id := issue(t, r)
	again, otherID := issue(t, r)
	if text == again || id == otherID {
		t.Error("two tokens for one purchase each must differ")
	}
	for _, tt := range []struct {
		name string
		ring *token.Ring
		text string
		at   time.Time
		want error
		why  string
	}{
		{"as issued", r, text, now, nil, "nothing is wrong"},
		{"the last moment", r, text, now.Add(time.Minute - 1), nil, "it has not expired yet"},
		{"expired", r, text, now.Add(time.Minute), token.ErrExpired, "its time is over"},
		{"the key is rotated", ring(t, second, first), text, now, nil, "the older key still counts"},
		{"the key is gone", ring(t, second), text, now, token.ErrUnknownKey, "its key is not active"},
		{"another secret under this ID", ring(t, token.Key{ID: "k1", Secret: second.Secret}), text, now, token.ErrForged, "its MAC is not ours"},
		{"without prefix", r, strings.TrimPrefix(text, token.Prefix), now, token.ErrMalformed, "it could be a key"},
		{"cut", r, text[:len(text)-4], now, token.ErrMalformed, "the nonce is short"},
		{"longer", r, text + "AAAA", now, token.ErrMalformed, "there is something behind it"},
		{"endless", r, text + strings.Repeat("A", token.MaxText), now, token.ErrMalformed, "everything has a limit"},
		{"padding", r, text + "=", now, token.ErrMalformed, "one token has one text"},
		{"a line break", r, text[:20] + "\n" + text[20:], now, token.ErrMalformed, "one token has one text"},
		{"empty", r, "", now, token.ErrMalformed, "it is nothing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, gotID, err := tt.ring.Verify(tt.text, tt.at)
			if !errors.Is(err, tt.want) {
				t.Fatalf("%v, want %v: %s", err, tt.want, tt.why)
			}
			if known := err == nil || errors.Is(err, token.ErrExpired); known != (got == claims) || known != (gotID == id) {
				t.Errorf("claims %+v, ID %q with %v", got, gotID, err)
			}
		})
	}
}

func TestNoCharacterCanBeChanged(t *testing.T) {
	r := ring(t, first)
	text, _ := issue(t, r)
	for i := len(token.Prefix); i < len(text); i++ {
		for _, c := range []byte("AB_-z09") {
			changed := text[:i] + string(c) + text[i+1:]
			if changed == text {
				continue
			}
			if _, _, err := r.Verify(changed, now); err == nil || errors.Is(err, token.ErrExpired) {
				t.Fatalf("character %d changed to %c: %v, want a refusal", i, c, err)
			}
		}
	}
}

func TestBadKeysAndClaims(t *testing.T) {
	for _, keys := range [][]token.Key{
		nil, {first, second, first}, {first, first}, {{ID: "K 1", Secret: first.Secret}}, {{ID: "k1", Secret: []byte("short")}},
	} {
		if _, err := token.NewRing(keys); err == nil || strings.Contains(err.Error(), "short") {
			t.Errorf("%d keys: %v, want an error without the secret", len(keys), err)
		}
	}
	for name, change := range map[string]func(*token.Claims){
		"no activity":   func(c *token.Claims) { c.ActivityID = "" },
		"long product":  func(c *token.Claims) { c.ProductID = strings.Repeat("a", 37) },
		"user with NUL": func(c *token.Claims) { c.UserID = "u\x00" },
		"before 1970":   func(c *token.Claims) { c.ExpiresAt = time.Unix(-1, 0) },
		"after 9999":    func(c *token.Claims) { c.ExpiresAt = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
	} {
		c := claims
		change(&c)
		if text, _, err := ring(t, first).Issue(c); err == nil {
			t.Errorf("%s: issued %q", name, text)
		}
	}
}

func FuzzVerify(f *testing.F) {
	r := ring(f, first, second)
	text, _ := issue(f, r)
	f.Add(text)
	f.Add(token.Prefix)
	f.Add(token.Prefix + "AQJrMQ")
	f.Add("sk_ops_secret")
	f.Fuzz(func(t *testing.T, text string) {
		c, id, err := r.Verify(text, now)
		if err != nil && !errors.Is(err, token.ErrExpired) {
			if id != "" || c != (token.Claims{}) {
				t.Errorf("claims %+v and ID %q of a refused token", c, id)
			}
			return
		}
		if _, _, err := r.Issue(c); err != nil || len(id) != 26 {
			t.Errorf("%q verifies and its claims do not: %v, ID %q", text, err, id)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	r := ring(b, first)
	text, _ := issue(b, r)
	for b.Loop() {
		if _, _, err := r.Verify(text, now); err != nil {
			b.Fatal(err)
		}
	}
}

func ExampleRing() {
	r, err := token.NewRing([]token.Key{{ID: "2026-11", Secret: []byte("keep this one secret")}})
	if err != nil {
		fmt.Println(err)
		return
	}
	opens := time.Date(2026, 11, 11, 12, 0, 0, 0, time.UTC)
	text, _, err := r.Issue(token.Claims{ActivityID: "double-eleven", ProductID: "phone", UserID: "u-88", ExpiresAt: opens.Add(2 * time.Minute)})
	if err != nil {
		fmt.Println(err)
		return
	}
	claims, _, err := r.Verify(text, opens)
	fmt.Println(claims.UserID, err)
	_, _, err = r.Verify(text, opens.Add(time.Hour))
	fmt.Println(err)
	// Output:
	// u-88 <nil>
	// the token has expired
}
