// Package access is the part of the gateway that says who may call: purchase
// tokens, keys, and the audit trail of what was changed with them.
package access

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"regexp"
	"strconv"
	"time"

	"github.com/leadingpeers/seckill/api"
	"github.com/leadingpeers/seckill/internal/audit"
	"github.com/leadingpeers/seckill/internal/gateway/problem"
	"github.com/leadingpeers/seckill/internal/gateway/web"
	"github.com/leadingpeers/seckill/internal/keys"
	"github.com/leadingpeers/seckill/pkg/catalog"
	"github.com/leadingpeers/seckill/pkg/stock"
	"github.com/leadingpeers/seckill/pkg/token"
)

// Config is what Access needs. Without Tokens the operation that needs them
// answers that it is not there.
type Config struct {
	Keys    *keys.Store
	Trail   *audit.Trail
	Tokens  *token.Ring
	Product func(r *http.Request, activityID, productID string) (catalog.Product, error) // on sale; the error is a problem
	Timeout time.Duration                                                                // how long a request waits for MySQL
	Now     func() time.Time
}

// Access serves the routes of tokens, keys and the audit trail.
type Access struct{ cfg Config }

// New makes an Access.
func New(cfg Config) *Access { return &Access{cfg: cfg} }

// Routes lists the operations and who may use them.
func (a *Access) Routes() []web.Route {
	admin := []web.Role{web.Admin}
	return []web.Route{
		{Name: "IssueToken", Method: "POST", Path: "/v1/tokens", Roles: []web.Role{web.Service}, Handle: a.issueToken},
		{Name: "CreateKey", Method: "POST", Path: "/v1/keys", Roles: admin, Handle: a.createKey},
		{Name: "ListKeys", Method: "GET", Path: "/v1/keys", Roles: admin, Handle: a.listKeys},
		{Name: "RevokeKey", Method: "POST", Path: "/v1/keys/{key}/revoke", Roles: admin, Handle: a.revokeKey},
		{Name: "ListAudit", Method: "GET", Path: "/v1/audit", Roles: admin, Handle: a.listAudit},
		{Name: "VerifyAudit", Method: "POST", Path: "/v1/audit/verify", Roles: admin, Handle: a.verifyAudit},
	}
}

const (
	defaultTTL = 120  // seconds
	maxTTL     = 3600 // seconds
)

// issueToken makes a purchase token for a user of the calling service.
func (a *Access) issueToken(w http.ResponseWriter, r *http.Request) error {
	body := api.TokenCreate{TTLSeconds: defaultTTL}
	err := web.Decode(r, web.MaxBuyerBody,
		web.Field{Name: "activity_id", Into: &body.ActivityID}, web.Field{Name: "product_id", Into: &body.ProductID},
		web.Field{Name: "user_id", Into: &body.UserID}, web.Field{Name: "ttl_seconds", Into: &body.TTLSeconds, Optional: true})
	switch {
	case err != nil:
		return err
	case !stock.ValidUserID(body.UserID):
		return problem.New(problem.InvalidField, "user_id is %.70q: want 1 to 64 printable ASCII characters without spaces.", body.UserID)
	case body.TTLSeconds < 1 || body.TTLSeconds > maxTTL:
		return problem.New(problem.InvalidField, "ttl_seconds is %d: want 1 to %d.", body.TTLSeconds, maxTTL)
	case a.cfg.Tokens == nil:
		return problem.New(problem.RouteNotFound, "This gateway has no token keys: set token-keys.")
	}
	p, err := a.cfg.Product(r, body.ActivityID, body.ProductID)
	if err != nil {
		return err
	}
	expires := a.cfg.Now().Add(time.Duration(body.TTLSeconds) * time.Second).Truncate(time.Second)
	text, id, err := a.cfg.Tokens.Issue(token.Claims{ActivityID: p.ActivityID, ProductID: p.ID, UserID: body.UserID, ExpiresAt: expires})
	if err != nil {
		return err
	}
	return web.WriteJSON(w, http.StatusCreated, api.Token{Token: text, ReservationID: id, ExpiresAt: api.Millis{Time: expires}})
}

func keyBody(k keys.Key) api.Key {
	return api.Key{
		ID: k.ID, Role: api.Role(k.Role), Activities: k.Activities, Note: k.Note, CreatedAt: api.Millis{Time: k.CreatedAt},
		ExpiresAt: api.Millis{Time: k.ExpiresAt}, RevokedAt: api.Millis{Time: k.RevokedAt}, LastUsedAt: api.Millis{Time: k.LastUsedAt},
	}
}

// fault finds the answer to an error of the keys. nil stays nil.
func fault(err error) error {
	invalid, isInvalid := errors.AsType[*keys.InvalidError](err)
	switch {
	case err == nil:
		return nil
	case isInvalid:
		return problem.New(problem.InvalidField, "%s: %s.", invalid.Field, invalid.Problem)
	case errors.Is(err, keys.ErrExists):
		return problem.Of(problem.AlreadyExists)
	case errors.Is(err, keys.ErrNotFound):
		return problem.Of(problem.KeyNotFound)
	}
	return problem.Fault(problem.DatabaseUnavailable, err)
}

// createKey makes a key. Its answer is the only place that shows the secret.
func (a *Access) createKey(w http.ResponseWriter, r *http.Request) error {
	var k keys.Key
	var role string
	err := web.Decode(r, web.MaxAdminBody,
		web.Field{Name: "id", Into: &k.ID, Optional: true}, web.Field{Name: "role", Into: &role},
		web.Field{Name: "activities", Into: &k.Activities, Optional: true}, web.Field{Name: "note", Into: &k.Note, Optional: true},
		web.Field{Name: "expires_at", Into: &k.ExpiresAt, Optional: true})
	if err != nil {
		return err
	}
	k.Role = keys.Role(role)
	if y := k.ExpiresAt.Year(); !k.ExpiresAt.IsZero() && (y < 1970 || y > 9999) {
		return problem.New(problem.InvalidField, "expires_at: want a time from 1970 to 9999.")
	}
	ctx, cancel := web.Within(r.Context(), a.cfg.Timeout)
	defer cancel()
	made, text, err := a.cfg.Keys.Create(ctx, k)
	if err != nil {
		return fault(err)
	}
	b := keyBody(made)
	return web.WriteJSON(w, http.StatusCreated, api.KeyCreated{
		ID: b.ID, Role: b.Role, Activities: b.Activities, Note: b.Note, CreatedAt: b.CreatedAt, ExpiresAt: b.ExpiresAt, Key: text,
	})
}

func (a *Access) listKeys(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := web.Within(r.Context(), a.cfg.Timeout)
	defer cancel()
	all, err := a.cfg.Keys.List(ctx)
	if err != nil {
		return fault(err)
	}
	body := api.KeyList{Keys: []api.Key{}}
	for _, k := range all {
		body.Keys = append(body.Keys, keyBody(k))
	}
	return web.WriteJSON(w, http.StatusOK, body)
}

func (a *Access) revokeKey(w http.ResponseWriter, r *http.Request) error {
	if err := web.DecodeNothing(r); err != nil {
		return err
	}
	ctx, cancel := web.Within(r.Context(), a.cfg.Timeout)
	defer cancel()
	k, err := a.cfg.Keys.Revoke(ctx, r.PathValue("key"))
	if err != nil {
		return fault(err)
	}
	return web.WriteJSON(w, http.StatusOK, keyBody(k))
}

var (
	entityPattern = regexp.MustCompile(`^[!-~]{0,128}$`)
	actorPattern  = regexp.MustCompile(`^[!-~]{0,64}$`)
)

// listAudit shows the audit trail, the latest entry first.
func (a *Access) listAudit(w http.ResponseWriter, r *http.Request) error {
	after, limit, err := web.Page(r)
	if err != nil {
		return err
	}
	values, err := web.Query(r, "entity", "actor")
	if err != nil {
		return err
	}
	f := audit.Filter{Entity: values[0], Actor: values[1], Limit: limit + 1} // one more tells whether there is another page
	if !entityPattern.MatchString(f.Entity) || !actorPattern.MatchString(f.Actor) {
		return problem.New(problem.InvalidField, "entity and actor: want visible ASCII characters, such as product/phone.")
	}
	if after != "" {
		if f.Before, err = strconv.ParseInt(after, 10, 64); err != nil || f.Before < 1 {
			return problem.New(problem.InvalidField, "page_token is not one that this gateway gave.")
		}
	}
	ctx, cancel := web.Within(r.Context(), a.cfg.Timeout)
	defer cancel()
	found, err := a.cfg.Trail.List(ctx, f)
	if err != nil {
		return fault(err)
	}
	body := api.AuditList{Entries: []api.AuditEntry{}}
	if len(found) > limit {
		found = found[:limit]
		body.NextPageToken = web.NextPage(strconv.FormatInt(found[limit-1].ID, 10))
	}
	for _, e := range found {
		body.Entries = append(body.Entries, api.AuditEntry{
			ID: e.ID, At: api.Millis{Time: e.At}, Actor: e.Actor, RequestID: e.RequestID, Action: e.Action, Entity: e.Entity,
			Before: json.RawMessage(e.Before), After: json.RawMessage(e.After), Hash: hex.EncodeToString(e.Hash),
		})
	}
	return web.WriteJSON(w, http.StatusOK, body)
}

// verifyAudit recomputes the chain of the whole trail.
func (a *Access) verifyAudit(w http.ResponseWriter, r *http.Request) error {
	if err := web.DecodeNothing(r); err != nil {
		return err
	}
	web.Extend(w, a.cfg.Now().Add(verifyTimeout))
	ctx, cancel := context.WithTimeout(r.Context(), verifyTimeout)
	defer cancel()
	v, err := a.cfg.Trail.Verify(ctx)
	if err != nil {
		return fault(err)
	}
	return web.WriteJSON(w, http.StatusOK, api.AuditVerdict{Intact: v.Problem == "", Entries: v.Entries, BrokenID: v.Broken, Problem: v.Problem})
}

const verifyTimeout = time.Minute
