// Package token makes and checks purchase tokens: what a buyer's device needs
// to reserve, and all it needs. A token is bound to one activity, product and
// user, expires, and makes at most one reservation, because its MAC is the
// reservation's ID (protocol.md, "One ID"). So nothing has to be stored.
//
// It does not decide who may have a token, nor whether anything is left.
package token

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// Prefix begins every token.
const Prefix = "st_"

// MaxText is the most bytes of a token's text.
const MaxText = 512

// The errors of Verify. Whoever made the token without the key cannot tell
// them apart by time.
var (
	ErrMalformed  = errors.New("the token is not of this form")
	ErrUnknownKey = errors.New("the token's key is not active")
	ErrForged     = errors.New("the token is not one of ours")
	ErrExpired    = errors.New("the token has expired")
)

// Key is a secret that tokens are made with.
type Key struct {
	ID     string // 1 to 16 characters, a-z 0-9 and hyphens; stands in the token
	Secret []byte // at least 16 bytes, the same on every gateway
}

// Claims are what a token is bound to.
type Claims struct {
	ActivityID string // 1 to 36 characters, a-z 0-9 and inner hyphens
	ProductID  string // the same
	UserID     string // 1 to 64 printable ASCII characters without spaces
	ExpiresAt  time.Time
}

// Ring issues tokens with its first key and takes those of all its keys: add a
// key in front, and take the old one out when its last token has expired. It
// is safe for concurrent use.
type Ring struct{ keys []Key }

var (
	keyPattern  = regexp.MustCompile(`^[a-z0-9-]{1,16}$`)
	idPattern   = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,34}[a-z0-9])?$`)
	userPattern = regexp.MustCompile(`^[!-~]{1,64}$`)
)

const (
	version    = 1
	nonceBytes = 16
	macBytes   = 16
	maxKeys    = 2
	minSecret  = 16
)

// NewRing makes a ring of one or two keys. The error says which one is wrong,
// without its secret.
func NewRing(keys []Key) (*Ring, error) {
	if len(keys) == 0 || len(keys) > maxKeys {
		return nil, fmt.Errorf("%d token keys: want 1 or 2", len(keys))
	}
	for i, k := range keys {
		switch {
		case !keyPattern.MatchString(k.ID):
			return nil, fmt.Errorf("token key %d: its ID is %.20q: want 1 to 16 characters of a-z, 0-9 and hyphens", i+1, k.ID)
		case len(k.Secret) < minSecret:
			return nil, fmt.Errorf("token key %q: its secret has %d bytes: want at least %d", k.ID, len(k.Secret), minSecret)
		case i > 0 && k.ID == keys[0].ID:
			return nil, fmt.Errorf("token key %q is there twice", k.ID)
		}
	}
	return &Ring{keys: keys}, nil
}

// Issue makes a token, another one each time. The reservation that it will
// make has the ID that is returned. An error names the claim that is wrong.
func (r *Ring) Issue(c Claims) (text, reservationID string, err error) {
	if err := c.validate(); err != nil {
		return "", "", err
	}
	key := r.keys[0]
	body := []byte{version}
	body = appendText(body, key.ID)
	body = binary.BigEndian.AppendUint64(body, uint64(c.ExpiresAt.Unix())) //nolint:gosec // validate has seen that it is not negative
	body = appendText(appendText(appendText(body, c.ActivityID), c.ProductID), c.UserID)
	nonce := make([]byte, nonceBytes)
	if _, err := rand.Read(nonce); err != nil {
		return "", "", fmt.Errorf("make a nonce: %w", err)
	}
	body = append(body, nonce...)
	mac := key.mac(body)
	return Prefix + base64.RawURLEncoding.EncodeToString(append(body, mac...)), idOf(mac), nil
}

// Verify checks a token against now, and returns what it is bound to and the
// ID of its reservation. With ErrExpired it returns them, too: a retry of a
// reservation that was made in time must still be answered.
func (r *Ring) Verify(text string, now time.Time) (c Claims, reservationID string, err error) {
	encoded, ok := strings.CutPrefix(text, Prefix)
	if !ok || len(text) > MaxText {
		return Claims{}, "", ErrMalformed
	}
	// Strict: otherwise the spare bits of the last character would give one
	// token several texts.
	raw, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	if err != nil || strings.ContainsAny(encoded, "\r\n") || len(raw) < macBytes {
		return Claims{}, "", ErrMalformed
	}
	body, mac := raw[:len(raw)-macBytes], raw[len(raw)-macBytes:]
	keyID, c, ok := parse(body)
	if !ok {
		return Claims{}, "", ErrMalformed
	}
	for _, key := range r.keys {
		if key.ID != keyID {
			continue
		}
		if !hmac.Equal(mac, key.mac(body)) {
			return Claims{}, "", ErrForged
		}
		if !now.Before(c.ExpiresAt) {
			return c, idOf(mac), ErrExpired
		}
		return c, idOf(mac), nil
	}
	return Claims{}, "", ErrUnknownKey
}

// parse takes a token's body apart; false when it is not exactly one.
func parse(body []byte) (keyID string, c Claims, ok bool) {
	if len(body) == 0 || body[0] != version {
		return "", c, false
	}
	rest := body[1:]
	if keyID, rest, ok = cutText(rest); !ok || len(rest) < 8 {
		return "", c, false
	}
	seconds := binary.BigEndian.Uint64(rest)
	rest = rest[8:]
	for _, into := range []*string{&c.ActivityID, &c.ProductID, &c.UserID} {
		if *into, rest, ok = cutText(rest); !ok {
			return "", c, false
		}
	}
	if seconds > maxSeconds || len(rest) != nonceBytes {
		return "", c, false
	}
	c.ExpiresAt = time.Unix(int64(seconds), 0).UTC()
	return keyID, c, c.validate() == nil
}

// maxSeconds is the end of the year 9999.
const maxSeconds = 253402300799

func (c Claims) validate() error {
	switch {
	case !idPattern.MatchString(c.ActivityID):
		return fmt.Errorf("activity_id is %.40q: want 1 to 36 characters of a-z, 0-9 and inner hyphens", c.ActivityID)
	case !idPattern.MatchString(c.ProductID):
		return fmt.Errorf("product_id is %.40q: want 1 to 36 characters of a-z, 0-9 and inner hyphens", c.ProductID)
	case !userPattern.MatchString(c.UserID):
		return fmt.Errorf("user_id is %.70q: want 1 to 64 printable ASCII characters without spaces", c.UserID)
	case c.ExpiresAt.Unix() < 0 || c.ExpiresAt.Unix() > maxSeconds:
		return fmt.Errorf("the expiry is %s: want a time from 1970 to 9999", c.ExpiresAt)
	}
	return nil
}

// mac is HMAC-SHA256(secret, body), cut to 128 bits.
func (k Key) mac(body []byte) []byte {
	h := hmac.New(sha256.New, k.Secret)
	_, _ = h.Write(body) // a hash never fails
	return h.Sum(nil)[:macBytes]
}

// idOf is a MAC as the project writes IDs: 26 characters of base32.
func idOf(mac []byte) string {
	return base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding).EncodeToString(mac)
}

// appendText appends a text of at most 255 bytes behind its length.
func appendText(to []byte, text string) []byte {
	return append(append(to, byte(len(text))), text...)
}

func cutText(from []byte) (text string, rest []byte, ok bool) {
	if len(from) == 0 || len(from)-1 < int(from[0]) {
		return "", nil, false
	}
	n := 1 + int(from[0])
	return string(from[1:n]), from[n:], true
}
