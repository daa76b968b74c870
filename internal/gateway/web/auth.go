package web

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/leadingpeers/seckill/internal/gateway/problem"
)

// Role is what a key may do.
type Role string

// The roles.
const (
	Service Role = "service" // a checkout back end: reserves for its users
	Admin   Role = "admin"   // an operator: runs the catalogue
)

// Key is one caller's key. The caller sends it as
//
//	Authorization: Bearer sk_<ID>_<secret>
//
// The secret itself is not kept.
type Key struct {
	ID   string            // 1 to 32 characters, a-z 0-9 and hyphens; no underscore, which ends it
	Hash [sha256.Size]byte // SHA-256 of the secret
	Role Role
}

var keyIDPattern = regexp.MustCompile(`^[a-z0-9-]{1,32}$`)

// keyring finds keys by ID.
func keyring(keys []Key) (map[string]Key, error) {
	ring := make(map[string]Key, len(keys))
	for _, k := range keys {
		if !keyIDPattern.MatchString(k.ID) {
			return nil, fmt.Errorf("key %q: want an ID of 1 to 32 characters of a-z, 0-9 and hyphens", k.ID)
		}
		if k.Role != Service && k.Role != Admin {
			return nil, fmt.Errorf("key %q: unknown role %q", k.ID, k.Role)
		}
		if _, twice := ring[k.ID]; twice {
			return nil, fmt.Errorf("key %q: is there twice", k.ID)
		}
		ring[k.ID] = k
	}
	return ring, nil
}

// identify returns the role of the request's key, empty without a key. A key
// that is not ours is refused in the same words whether the ID or the secret
// is wrong, after the same work.
func (m *Mux) identify(r *http.Request) (Role, error) {
	sent := r.Header["Authorization"]
	if len(sent) == 0 {
		return "", nil
	}
	scheme, bearer, _ := strings.Cut(sent[0], " ")
	id, secret, ok := strings.Cut(strings.TrimPrefix(bearer, "sk_"), "_")
	ok = ok && len(sent) == 1 && strings.EqualFold(scheme, "Bearer") && strings.HasPrefix(bearer, "sk_")
	key, known := m.keys[id]
	hash := sha256.Sum256([]byte(secret))
	if subtle.ConstantTimeCompare(hash[:], key.Hash[:]) == 0 || !known || !ok {
		return "", problem.New(problem.Unauthenticated, "The key is malformed or not known.")
	}
	return key.Role, nil
}

// authorize lets the request pass if its key has one of the route's roles, and
// returns the role. A route that names no role and is not open lets nobody
// pass.
func (m *Mux) authorize(r *http.Request, rt Route) (Role, error) {
	role, err := m.identify(r)
	switch {
	case err != nil:
		return "", err
	case rt.Open || slices.Contains(rt.Roles, role):
		return role, nil
	case role == "":
		return "", problem.New(problem.Unauthenticated, "The request carries no key.")
	default:
		return "", problem.New(problem.Forbidden, "A key with the role %s may not do this.", role)
	}
}
