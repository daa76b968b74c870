package web

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/leadingpeers/seckill/internal/audit"
	"github.com/leadingpeers/seckill/internal/gateway/problem"
	"github.com/leadingpeers/seckill/internal/keys"
	"github.com/leadingpeers/seckill/pkg/token"
)

// Role is what a caller may do.
type Role = keys.Role

// Key is one caller's key.
type Key = keys.Key

// The roles: those of keys, and the one of a purchase token.
const (
	Service  = keys.Service
	Viewer   = keys.Viewer
	Operator = keys.Operator
	Admin    = keys.Admin
	Buyer    = Role("buyer")
)

// Viewers are the roles that see everything.
func Viewers() []Role { return []Role{Viewer, Operator, Admin} }

// Operators are the roles that run sales.
func Operators() []Role { return []Role{Operator, Admin} }

// Identity is who has sent a request.
type Identity struct {
	KeyID string
	Role  Role // empty without key and token

	activities []string // of a service: that it may act for; none = all

	// Of a purchase token:
	Claims        token.Claims
	ReservationID string // that it makes
	Expired       bool   // only what it has made may be asked for
}

// MayActFor reports whether the caller has to do with an activity at all.
// Where it does not, nothing of that activity exists for it.
func (id Identity) MayActFor(activityID string) bool {
	switch id.Role {
	case Service:
		return len(id.activities) == 0 || slices.Contains(id.activities, activityID)
	case Buyer:
		return id.Claims.ActivityID == activityID
	case Viewer, Operator, Admin:
	}
	return true
}

type identityKey struct{}

// Caller is who has sent r; the zero Identity when nobody was named.
func Caller(r *http.Request) Identity {
	if c := calledBy(r.Context()); c != nil {
		return c.id
	}
	return Identity{}
}

// called is a request's context with its caller, who is also the actor of what
// the request changes. It is one piece of memory, where a context for each of
// the values would be four.
type called struct {
	context.Context //nolint:containedctx // it is a context

	id    Identity
	trace string
	until time.Time // it must be answered by then
}

// calledBy finds what is known of a request's caller; nil = nothing.
func calledBy(ctx context.Context) *called {
	c, _ := ctx.Value(identityKey{}).(*called)
	return c
}

// Value returns what goes with the caller, or else the value of the request's
// own context.
func (c *called) Value(key any) any {
	switch key {
	case identityKey{}:
		return c
	case audit.Key():
		if c.id.Role == Buyer {
			return audit.Actor{KeyID: "buyer", RequestID: c.trace}
		}
		return audit.Actor{KeyID: c.id.KeyID, RequestID: c.trace}
	}
	return c.Context.Value(key)
}

// RoleOf is the role of the key or token that came with a request, empty if
// none did.
func RoleOf(r *http.Request) Role { return Caller(r).Role }

// as returns r with its caller, who is also the actor of what it changes, and
// with the time by which it must be answered.
func as(r *http.Request, id Identity, until time.Time) *http.Request {
	if id.Role == "" {
		return r
	}
	return r.WithContext(&called{Context: r.Context(), id: id, trace: traceID(r), until: until}) //nolint:contextcheck // it has the request's own in it
}

// identify finds out who has sent the request. What is not ours is refused in
// the same words whether the ID or the secret is wrong, after the same work.
func (m *Mux) identify(r *http.Request) (Identity, error) {
	sent := r.Header["Authorization"]
	if len(sent) == 0 {
		return Identity{}, nil
	}
	scheme, bearer, _ := strings.Cut(sent[0], " ")
	ok := len(sent) == 1 && strings.EqualFold(scheme, "Bearer")
	if ok && strings.HasPrefix(bearer, token.Prefix) {
		return m.byToken(bearer)
	}
	id, secret, _ := strings.Cut(strings.TrimPrefix(bearer, "sk_"), "_")
	ok = ok && strings.HasPrefix(bearer, "sk_")
	key, known := m.ring.Known(id)
	if !known {
		ctx, cancel := context.WithTimeout(r.Context(), lookupTimeout)
		defer cancel()
		var err error
		if key, known, err = m.ring.Lookup(ctx, id); err != nil {
			return Identity{}, problem.Fault(problem.DatabaseUnavailable, err)
		}
	}
	hash := sha256.Sum256([]byte(secret))
	if subtle.ConstantTimeCompare(hash[:], key.Hash[:]) == 0 || !known || !ok {
		return Identity{}, problem.New(problem.Unauthenticated, "The key is malformed or not known.")
	}
	return Identity{KeyID: key.ID, Role: key.Role, activities: key.Activities}, nil
}

// lookupTimeout bounds the wait for the first load of the keys.
const lookupTimeout = 2 * time.Second

// byToken is identify for a purchase token.
func (m *Mux) byToken(text string) (Identity, error) {
	if m.cfg.Tokens == nil {
		return Identity{}, problem.New(problem.InvalidToken, "This gateway takes no purchase tokens.")
	}
	claims, reservationID, err := m.cfg.Tokens.Verify(text, m.cfg.Now())
	expired := errors.Is(err, token.ErrExpired)
	if err != nil && !expired {
		return Identity{}, problem.Of(problem.InvalidToken)
	}
	return Identity{Role: Buyer, Claims: claims, ReservationID: reservationID, Expired: expired}, nil
}

// authorize lets the request pass if its caller has one of the route's roles,
// and returns the caller. A route that names no role and is not open lets
// nobody pass. A token passes only on the path of its own product.
func (m *Mux) authorize(r *http.Request, rt Route) (Identity, error) {
	id, err := m.identify(r)
	switch {
	case err != nil:
		return Identity{}, err
	case rt.Open:
		return id, nil
	case id.Role == "":
		return Identity{}, problem.New(problem.Unauthenticated, "The request carries no key.")
	case !slices.Contains(rt.Roles, id.Role):
		return Identity{}, problem.New(problem.Forbidden, "A caller with the role %s may not do this.", id.Role)
	case id.Role == Buyer && (r.PathValue("activity") != id.Claims.ActivityID || r.PathValue("product") != id.Claims.ProductID):
		return Identity{}, problem.Of(problem.TokenMismatch)
	}
	return id, nil
}
