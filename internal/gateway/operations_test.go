package gateway_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leadingpeers/seckill/internal/contract"
	"github.com/leadingpeers/seckill/internal/gateway"
	"github.com/leadingpeers/seckill/internal/keys"
	"github.com/leadingpeers/seckill/pkg/catalog"
	"github.com/leadingpeers/seckill/pkg/order"
	"github.com/leadingpeers/seckill/pkg/stock"
	"github.com/leadingpeers/seckill/pkg/token"
)

// operation is one of the contract.
type operation struct {
	id, method, path string
	roles            []string
}

// operations are those of the contract, by operationId.
func operations(t testing.TB) map[string]operation {
	t.Helper()
	c, err := contract.Load()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]operation{}
	for path, item := range c.Doc.Paths.Map() {
		for method, op := range item.Operations() {
			o := operation{id: op.OperationID, method: method, path: path}
			for _, role := range op.Extensions["x-roles"].([]any) {
				o.roles = append(o.roles, role.(string))
			}
			slices.Sort(o.roles)
			out[o.id] = o
		}
	}
	return out
}

// TestRoutesAreTheContract: no route that is not described, none that is only
// described, and each for the roles that the contract names.
func TestRoutesAreTheContract(t *testing.T) {
	want := operations(t)
	for _, rt := range newRig(t, nil).gateway.Routes() {
		op, ok := want[rt.Name]
		delete(want, rt.Name)
		roles := []string{"public"}
		if !rt.Open {
			roles = nil
			for _, role := range rt.Roles {
				roles = append(roles, string(role))
			}
		}
		slices.Sort(roles)
		if !ok || op.method != rt.Method || op.path != rt.Path || !slices.Equal(op.roles, roles) {
			t.Errorf("route %s %s %s for %v; the contract has %+v", rt.Name, rt.Method, rt.Path, roles, op)
		}
	}
	for id, op := range want {
		t.Errorf("the contract has %s %s (%s), and no route serves it", op.method, op.path, id)
	}
}

// TestEveryRouteHasItsRoles tries every operation with every kind of caller.
func TestEveryRouteHasItsRoles(t *testing.T) {
	r := newRig(t, nil)
	store := keys.NewStore(r.db)
	revoked := makeKey(t, store, keys.Key{ID: "revoked", Role: keys.Admin})
	if _, err := store.Revoke(t.Context(), "revoked"); err != nil {
		t.Fatal(err)
	}
	stale := makeKey(t, store, keys.Key{ID: "stale", Role: keys.Admin, ExpiresAt: time.Now().Add(-time.Hour)})
	bought, _, err := r.tokens.Issue(token.Claims{ActivityID: "a", ProductID: "p", UserID: "u1", ExpiresAt: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	callers := []struct{ name, key, role string }{
		{"no key", "", ""},
		{"service", serviceKey, "service"},
		{"viewer", viewerKey, "viewer"},
		{"operator", operatorKey, "operator"},
		{"admin", adminKey, "admin"},
		{"admin of the store", makeKey(t, store, keys.Key{ID: "second", Role: keys.Admin}), "admin"},
		{"token", bought, "buyer"},
		{"wrong secret", "sk_ops_fedcba9876543211", ""},
		{"another's secret", "sk_ops_0123456789abcdef", ""},
		{"unknown", "sk_root_fedcba9876543210", ""},
		{"revoked", revoked, ""},
		{"expired", stale, ""},
		{"forged token", "st_AQJrMQ", ""},
	}
	fill := strings.NewReplacer("{activity}", "a", "{product}", "p", "{reservation}", "aaaaaaaaaaaaaaaaaaaaaaaaaa", "{channel}", "c",
		"{order}", "o", "{key}", "none", "{asset}", "swagger-ui.css")
	for _, op := range operations(t) {
		for _, caller := range callers {
			got := r.call(t, caller.key, op.method, fill.Replace(op.path), "")
			allowed := caller.role != "" && slices.Contains(op.roles, caller.role)
			open := slices.Contains(op.roles, "public") && (caller.role != "" || caller.key == "")
			what := fmt.Sprintf("%s with %s", op.id, caller.name)
			switch {
			case (allowed || open) && (got.status == 401 || got.status == 403):
				t.Errorf("%s: %d %s", what, got.status, got.text)
			case allowed || open:
			case caller.role != "" && got.status != 403:
				t.Errorf("%s: %d, want 403", what, got.status)
			case caller.role == "" && got.status != 401:
				t.Errorf("%s: %d, want 401", what, got.status)
			}
		}
	}
}

func makeKey(t testing.TB, s *keys.Store, k keys.Key) string {
	t.Helper()
	_, text, err := s.Create(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestAServiceSeesItsOwnActivitiesOnly: each object of another one does not
// exist for it.
func TestAServiceSeesItsOwnActivitiesOnly(t *testing.T) {
	r := newRig(t, nil)
	_, mine := r.sell(t, offer{units: 10, perOrder: 1, perUser: 5})
	other, theirs := r.sell(t, offer{units: 10, perOrder: 1, perUser: 5})
	activity := strings.Split(strings.TrimPrefix(mine, "/v1/activities/"), "/")[0]
	key := makeKey(t, keys.NewStore(r.db), keys.Key{ID: "bound", Role: keys.Service, Activities: []string{activity}})
	buy := func(path string) answer {
		return r.call(t, key, "POST", path+"/reservations", `{"user_id":"u1","quantity":1}`, "Idempotency-Key", "key-of-u1")
	}
	got := buy(mine).must(t, http.StatusAccepted)
	r.call(t, key, "GET", mine+"/reservations/"+got.ReservationID+"?user_id=u1", "").must(t, http.StatusOK)
	foreign := r.reserve(t, theirs, "u1", "key-of-u1", 1).must(t, http.StatusAccepted)
	buy(theirs).is(t, 404, "activity_not_found", "not its activity")
	r.call(t, key, "GET", theirs+"/reservations/"+foreign.ReservationID+"?user_id=u1", "").is(t, 404, "activity_not_found", "not its activity")
	r.call(t, key, "POST", theirs+"/reservations/"+foreign.ReservationID+"/cancel", `{"user_id":"u1"}`).is(t, 404, "activity_not_found", "not its activity")
	r.call(t, key, "POST", "/v1/tokens", fmt.Sprintf(`{"activity_id":%q,"product_id":%q,"user_id":"u1"}`, "a-"+strings.TrimPrefix(other, "p-"), other)).is(t, 404, "activity_not_found", "not its activity")
	if s := r.surplus(t, other); s != 9 {
		t.Errorf("surplus %d of the other activity's product, want 9", s)
	}
}

// TestTokens buys with a token and nothing else, and tries every wrong one.
func TestTokens(t *testing.T) {
	r := newRig(t, nil)
	product, path := r.sell(t, offer{units: 10, perOrder: 2, perUser: 9})
	_, otherPath := r.sell(t, offer{units: 10, perOrder: 1, perUser: 5})
	activity := strings.Split(strings.TrimPrefix(path, "/v1/activities/"), "/")[0]
	issue := func() (text, id string) {
		t.Helper()
		a := r.call(t, serviceKey, "POST", "/v1/tokens", fmt.Sprintf(`{"activity_id":%q,"product_id":%q,"user_id":"u1","ttl_seconds":60}`, activity, product)).must(t, http.StatusCreated)
		var b struct{ Token string }
		if err := json.Unmarshal([]byte(a.text), &b); err != nil {
			t.Fatal(err)
		}
		return b.Token, a.ReservationID
	}
	old := func() (text, id string) {
		t.Helper()
		text, id, err := r.tokens.Issue(token.Claims{ActivityID: activity, ProductID: product, UserID: "u1", ExpiresAt: time.Now().Add(-time.Minute)})
		if err != nil {
			t.Fatal(err)
		}
		return text, id
	}
	text, id := issue()
	first := r.call(t, text, "POST", path+"/reservations", `{"quantity":1}`).must(t, http.StatusAccepted)
	if first.ReservationID != id || first.header.Get("Idempotent-Replayed") != "" {
		t.Errorf("the token's reservation is %s, got %s", id, first.text)
	}
	again := r.call(t, text, "POST", path+"/reservations", `{"quantity":1,"user_id":"u1"}`).must(t, http.StatusAccepted)
	if again.ReservationID != id || again.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("the same token again: %s %v", again.text, again.header)
	}
	r.call(t, text, "GET", path+"/reservations/"+id, "").must(t, http.StatusOK)
	r.call(t, text, "POST", path+"/reservations/"+id+"/cancel", `{}`).is(t, 409, "order_not_ready", "its order is not written in this test")

	fresh, _ := issue()
	expired, expiredID := old()
	forged := text[:len(text)-6] + "AAAAAA"
	for _, tt := range []struct {
		key, method, path, body string
		status                  int
		code, why               string
	}{
		{text, "POST", path + "/reservations", `{"quantity":2}`, 422, "idempotency_key_reused", "one token is one purchase"},
		{fresh, "POST", path + "/reservations", `{"quantity":1,"user_id":"u2"}`, 403, "token_mismatch", "another user's name"},
		{fresh, "POST", otherPath + "/reservations", `{"quantity":1}`, 403, "token_mismatch", "another product"},
		{fresh, "GET", otherPath + "/reservations/" + id, "", 403, "token_mismatch", "another product"},
		{fresh, "GET", path + "/reservations/" + id + "/events?user_id=u2", "", 403, "token_mismatch", "another user"},
		{fresh, "GET", path + "/reservations/" + id + "?user_id=u2", "", 403, "token_mismatch", "another user"},
		{fresh, "POST", path + "/reservations", `{"quantity":3}`, 422, "over_order_limit", "the rules are the same"},
		{fresh, "POST", path + "/reservations", `{}`, 400, "missing_field", "how many"},
		{forged, "POST", path + "/reservations", `{"quantity":1}`, 401, "invalid_token", "altered"},
		{"st_", "POST", path + "/reservations", `{"quantity":1}`, 401, "invalid_token", "empty"},
		{"st_" + strings.Repeat("A", 2000), "POST", path + "/reservations", `{"quantity":1}`, 401, "invalid_token", "endless"},
		{expired, "POST", path + "/reservations", `{"quantity":1}`, 401, "token_expired", "too late"},
		{expired, "GET", path + "/reservations/" + expiredID, "", 404, "reservation_not_found", "it made none"},
		{serviceKey, "POST", "/v1/tokens", `{"activity_id":"none","product_id":"p","user_id":"u1"}`, 404, "activity_not_found", "nothing to buy"},
		{serviceKey, "POST", "/v1/tokens", fmt.Sprintf(`{"activity_id":%q,"product_id":%q,"user_id":"u 1"}`, activity, product), 400, "invalid_field", "a space in the user"},
		{serviceKey, "POST", "/v1/tokens", fmt.Sprintf(`{"activity_id":%q,"product_id":%q,"user_id":"u1","ttl_seconds":3601}`, activity, product), 400, "invalid_field", "more than an hour"},
		{serviceKey, "POST", "/v1/tokens", fmt.Sprintf(`{"activity_id":%q,"product_id":%q,"user_id":"u1","ttl_seconds":0}`, activity, product), 400, "invalid_field", "no time at all"},
	} {
		r.call(t, tt.key, tt.method, tt.path, tt.body).is(t, tt.status, tt.code, tt.why)
	}
	if s := r.surplus(t, product); s != 9 {
		t.Errorf("surplus %d, want 9: one purchase and %d refusals", s, 12)
	}
}

// TestAnExpiredTokenStillAnswersItsRetry: the buyer must see the units that
// the token holds.
func TestAnExpiredTokenStillAnswersItsRetry(t *testing.T) {
	r := newRig(t, nil)
	product, path := r.sell(t, offer{units: 10, perOrder: 2, perUser: 9})
	activity := strings.Split(strings.TrimPrefix(path, "/v1/activities/"), "/")[0]
	text, id, err := r.tokens.Issue(token.Claims{ActivityID: activity, ProductID: product, UserID: "u1", ExpiresAt: time.Now().Add(30 * time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	r.call(t, text, "POST", path+"/reservations", `{"quantity":1}`).must(t, http.StatusAccepted)
	later := r.beside(t, func(c *gateway.Config) { c.Now = func() time.Time { return time.Now().Add(time.Hour) } })
	got := later.call(t, text, "POST", path+"/reservations", `{"quantity":1}`).must(t, http.StatusAccepted)
	if got.ReservationID != id || got.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("an hour later: %s", got.text)
	}
	later.call(t, text, "GET", path+"/reservations/"+id, "").must(t, http.StatusOK)
}

// TestChangeAndDelete goes through the life of what operators edit.
func TestChangeAndDelete(t *testing.T) {
	r := newRig(t, nil)
	product, path := r.sell(t, offer{units: 10, perOrder: 1, perUser: 5, draft: true})
	activity := strings.Split(path, "/products/")[0]
	tag := func(of string) string { return r.call(t, operatorKey, "GET", of, "").header.Get("ETag") }
	do := func(method, of, body string, header ...string) answer {
		if len(header) == 0 {
			header = []string{"If-Match", tag(of)}
		}
		return r.call(t, operatorKey, method, of, body, header...)
	}
	do("PATCH", activity, `{"name":"Elf"}`, "If-Match", "").is(t, 428, "precondition_required", "nobody overwrites unseen")
	do("PATCH", activity, `{"name":"Elf"}`, "If-Match", `"99"`).is(t, 412, "precondition_failed", "somebody was faster")
	do("PATCH", activity, `{"name":"Elf"}`, "If-Match", "*").is(t, 412, "precondition_failed", "one version is wanted")
	if got := do("PATCH", activity, `{"name":"Elf","pay_window_seconds":60}`).must(t, http.StatusOK); got.Version != 2 || got.header.Get("ETag") != `"2"` {
		t.Errorf("changed: %s", got.text)
	}
	for _, bad := range []struct{ of, body, code, why string }{
		{activity, `{"name":""}`, "invalid_field", "empty"},
		{activity, `{"pay_window_seconds":0}`, "invalid_field", "out of range"},
		{activity, `{"pay_window_seconds":"9"}`, "invalid_field", "wrong type"},
		{activity, `{"state":"online"}`, "unknown_field", "the state has its own operations"},
		{activity, `{"name":"a","name":"b"}`, "duplicate_field", "twice"},
		{activity, `{"name":null}`, "invalid_field", "null is no name"},
		{activity, `{"name":"a\u0000"}`, "invalid_field", "NUL"},
		{activity, "{\"name\":\"\xff\"}", "malformed_json", "not UTF-8"},
		{activity, `{"name":` + strings.Repeat("[", 500) + strings.Repeat("]", 500) + `}`, "invalid_field", "deep nesting"},
		{path, `{"total":0}`, "invalid_field", "nothing to sell"},
		{path, `{"total":1.5}`, "invalid_field", "half a unit"},
		{path, `{"price_cents":-1}`, "invalid_field", "negative"},
		{path, `{"currency":"yuan"}`, "invalid_field", "no currency"},
		{path, `{"available":5}`, "unknown_field", "the ledger's to say"},
	} {
		do("PATCH", bad.of, bad.body).is(t, 400, bad.code, bad.why)
	}
	r.call(t, operatorKey, "POST", path+"/preload", "").must(t, http.StatusOK)
	do("PATCH", path, `{"total":7,"price_cents":0,"per_user":9,"image_url":"","channel":"w3"}`).must(t, http.StatusOK)
	r.call(t, operatorKey, "POST", activity+"/publish", "").is(t, 409, "not_publishable", "it was taken out of Redis, which had the old total")
	r.call(t, operatorKey, "POST", activity+"/publish", `{"preload":true}`).must(t, http.StatusOK)
	if s := r.surplus(t, product); s != 7 {
		t.Errorf("surplus %d, want the new total", s)
	}
	refused := do("PATCH", path, `{"total":8,"name":"x"}`)
	refused.is(t, 409, "activity_online", "the seed's rule")
	if !strings.Contains(refused.text, `"field":"total"`) || !strings.Contains(refused.text, `"field":"name"`) {
		t.Errorf("the fields are not named: %s", refused.text)
	}
	do("PATCH", activity, `{"ends_at":"2099-01-01T00:00:00Z"}`).is(t, 409, "activity_online", "the window is locked")
	do("PATCH", activity, `{"name":"Zwölf"}`).must(t, http.StatusOK)
	do("DELETE", path, "").is(t, 409, "activity_online", "the seed's rule")
	do("DELETE", activity, "").is(t, 409, "activity_online", "the seed's rule")
	r.call(t, operatorKey, "POST", path+"/flush", "").is(t, 409, "in_use", "it is on sale")
	r.call(t, operatorKey, "POST", activity+"/flush", `{"force":false}`).is(t, 409, "in_use", "it is on sale")
	r.call(t, operatorKey, "POST", activity+"/flush", `{"force":1}`).is(t, 400, "invalid_field", "wrong type")
	r.call(t, operatorKey, "POST", activity+"/flush", `{"force":true}`).must(t, http.StatusOK)
	r.reserve(t, path, "u1", "key-of-u1", 1).is(t, 503, "not_loaded", "flushed")
	r.call(t, operatorKey, "POST", activity+"/preload", "").must(t, http.StatusOK)
	r.call(t, operatorKey, "POST", activity+"/pause", "").must(t, http.StatusOK)
	do("PATCH", path, `{"per_order":2}`).must(t, http.StatusOK)
	do("PATCH", path, `{"total":8}`).is(t, 409, "wrong_state", "restock instead")
	do("PATCH", activity, `{"ends_at":"2099-01-01T00:00:00Z"}`).must(t, http.StatusOK)
	r.call(t, operatorKey, "POST", activity+"/resume", "").must(t, http.StatusOK)
	r.reserve(t, path, "u1", "key-of-u1", 2).must(t, http.StatusAccepted)
	r.call(t, operatorKey, "POST", activity+"/end", "").must(t, http.StatusOK)
	do("PATCH", activity, `{"name":"x"}`).is(t, 409, "wrong_state", "it is history")
	do("DELETE", activity, "").is(t, 409, "in_use", "a reservation is not decided")

	_, other := r.sell(t, offer{units: 10, perOrder: 1, perUser: 5, draft: true})
	draft := strings.Split(other, "/products/")[0]
	r.call(t, operatorKey, "POST", other+"/preload", "").must(t, http.StatusOK)
	do("PATCH", other, `{"name":"x"}`, "If-Match", `"99"`).is(t, 412, "precondition_failed", "somebody was faster")
	do("DELETE", other, "", "If-Match", `"99"`).is(t, 412, "precondition_failed", "somebody was faster")
	do("DELETE", draft, "", "If-Match", `"99"`).is(t, 412, "precondition_failed", "somebody was faster")
	do("DELETE", other, "").must(t, http.StatusNoContent)
	r.call(t, operatorKey, "GET", other, "").is(t, 404, "product_not_found", "deleted")
	do("DELETE", draft, "").must(t, http.StatusNoContent)
	r.call(t, operatorKey, "GET", draft, "").is(t, 404, "activity_not_found", "deleted")
}

// TestLists pages, filters and tags.
func TestLists(t *testing.T) {
	r := newRig(t, nil)
	var paths []string
	for range 3 {
		_, path := r.sell(t, offer{units: 10, perOrder: 1, perUser: 5})
		paths = append(paths, path)
	}
	_, draft := r.sell(t, offer{units: 10, perOrder: 1, perUser: 5, draft: true})
	for _, key := range []string{"", viewerKey} {
		var seen []string
		for token := ""; ; {
			a := r.call(t, key, "GET", "/v1/activities?state=online&page_size=2&page_token="+token, "").must(t, http.StatusOK)
			var page struct {
				Activities []struct{ ID string }
				Next       string `json:"next_page_token"`
			}
			if err := json.Unmarshal([]byte(a.text), &page); err != nil {
				t.Fatal(err)
			}
			for _, it := range page.Activities {
				seen = append(seen, it.ID)
			}
			if token = page.Next; token == "" {
				break
			}
		}
		if len(seen) != 3 || !slices.IsSorted(seen) {
			t.Errorf("with key %q the pages hold %v, want the 3 that are online", key, seen)
		}
	}
	for query, want := range map[string]int{
		"": 4, "?state=draft": 1, "?state=ended": 0, "?from=2099-01-01T00:00:00Z": 0, "?to=2000-01-01T00:00:00Z": 0, "?from=2000-01-01T00:00:00Z&to=2099-01-01T00:00:00Z": 4,
	} {
		if got := r.call(t, viewerKey, "GET", "/v1/activities"+query, "").must(t, http.StatusOK); len(got.Activities) != want {
			t.Errorf("%s: %d activities, want %d", query, len(got.Activities), want)
		}
	}
	for _, bad := range []string{"page_size=0", "page_size=201", "page_size=x", "page_size=1.5", "page_token=%21", "page_token=_w", "page_token=AA", "state=open", "from=today", "from=0001-01-01T00:00:00Z", "state=draft&state=online"} {
		got := r.call(t, "", "GET", "/v1/activities?"+bad, "")
		if got.status != 400 {
			t.Errorf("%s: %d, want 400", bad, got.status)
		}
	}
	list := r.call(t, "", "GET", "/v1/activities", "").must(t, http.StatusOK)
	again := r.call(t, "", "GET", "/v1/activities", "", "If-None-Match", list.header.Get("ETag"))
	if again.status != http.StatusNotModified || again.text != "" || list.header.Get("Cache-Control") != "public, max-age=1" {
		t.Errorf("with its ETag %q: %d %q, cached for %q", list.header.Get("ETag"), again.status, again.text, list.header.Get("Cache-Control"))
	}
	one := r.call(t, "", "GET", paths[0], "").must(t, http.StatusOK)
	r.call(t, "", "GET", paths[0], "", "If-None-Match", one.header.Get("ETag")).must(t, http.StatusNotModified)
	for _, of := range []string{strings.Split(paths[0], "/products/")[0], strings.Split(paths[0], "/products/")[0] + "/products"} {
		seen := r.call(t, "", "GET", of, "").must(t, http.StatusOK)
		r.call(t, "", "GET", of, "", "If-None-Match", seen.header.Get("ETag")).must(t, http.StatusNotModified)
	}
	r.call(t, "", "GET", strings.Split(paths[0], "/products/")[0]+"/products?page_size=0", "").is(t, 400, "invalid_field", "no page")
	r.call(t, "", "GET", draft, "").is(t, 404, "activity_not_found", "a draft is the operators'")
}

// TestListsAskNoStore: whatever everybody asks for, MySQL is asked by the
// snapshot alone, and Redis not at all.
func TestListsAskNoStore(t *testing.T) {
	r := newRig(t, nil)
	_, path := r.sell(t, offer{units: 10, perOrder: 1, perUser: 5})
	pool := r.pool(t)
	sheet := catalog.NewStore(pool)
	slow := r.beside(t, func(c *gateway.Config) {
		c.Cache = deadCache(t) // any call would fail
		c.Catalog, c.Ledger, c.Orders = sheet, stock.NewLedger(pool), order.NewStore(pool)
		c.Snapshot = catalog.NewSnapshot(sheet, time.Hour, time.Now)
	})
	slow.call(t, "", "GET", path, "").must(t, http.StatusOK) // loads the snapshot, for an hour
	if err := pool.Close(); err != nil {                     // and now any query would fail, too
		t.Fatal(err)
	}
	for i := range 500 {
		for _, p := range []string{
			"/v1/activities", path, strings.Split(path, "/products/")[0], fmt.Sprintf("/v1/activities/a-%d", i), fmt.Sprintf("/v1/activities/a-%d/products", i),
			fmt.Sprintf("%s%d", path, i), fmt.Sprintf("/v1/activities/a-%d/products/p-%d", i, i),
		} {
			if got := slow.call(t, "", "GET", p, ""); got.status != 200 && got.status != 404 {
				t.Fatalf("GET %s: %d %s", p, got.status, got.text)
			}
		}
		slow.reserve(t, fmt.Sprintf("/v1/activities/a-%d/products/p-%d", i, i), "u1", "key-of-u1", 1).is(t, 404, "activity_not_found", "made up")
	}
	slow.call(t, viewerKey, "GET", path, "").is(t, 503, "database_unavailable", "a viewer does ask MySQL, which shows that nobody else did")
}

// TestSoldOutIsShown within the age of a snapshot.
func TestSoldOutIsShown(t *testing.T) {
	r := newRig(t, nil)
	product, path := r.sell(t, offer{units: 1, perOrder: 1, perUser: 1})
	if got := r.call(t, "", "GET", path, "").must(t, http.StatusOK); !strings.Contains(got.text, `"sold_out":false`) {
		t.Errorf("before the sale: %s", got.text)
	}
	if _, err := r.db.ExecContext(t.Context(), "UPDATE stock SET available = 0 WHERE product_id = ?", product); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		if got := r.call(t, "", "GET", path, ""); strings.Contains(got.text, `"sold_out":true`) && strings.Contains(got.text, `"available":0`) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("sold out is not shown")
		}
	}
}

// TestKeysAndAudit over the API.
func TestKeysAndAudit(t *testing.T) {
	r := newRig(t, nil)
	made := r.call(t, adminKey, "POST", "/v1/keys", `{"id":"lin","role":"operator","note":"林"}`).must(t, http.StatusCreated)
	var key struct{ Key string }
	if err := json.Unmarshal([]byte(made.text), &key); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []struct{ body, code, why string }{
		{`{}`, "missing_field", "no role"},
		{`{"role":"root"}`, "invalid_field", "no such role"},
		{`{"role":"viewer","id":"A"}`, "invalid_field", "upper case"},
		{`{"role":"viewer","activities":["a"]}`, "invalid_field", "only services are bound"},
		{`{"role":"service","activities":"a"}`, "invalid_field", "wrong type"},
		{`{"role":"service","activities":["A,b"]}`, "invalid_field", "no ID"},
		{`{"role":"viewer","note":"` + strings.Repeat("x", 121) + `"}`, "invalid_field", "too long"},
		{`{"role":"viewer","expires_at":"soon"}`, "invalid_field", "no time"},
		{`{"role":"viewer","secret":"mine"}`, "unknown_field", "the secret is ours to make"},
	} {
		r.call(t, adminKey, "POST", "/v1/keys", bad.body).is(t, 400, bad.code, bad.why)
	}
	r.call(t, adminKey, "POST", "/v1/keys", `{"id":"lin","role":"viewer"}`).is(t, 409, "already_exists", "taken")
	r.call(t, adminKey, "POST", "/v1/keys/none/revoke", "").is(t, 404, "key_not_found", "unknown")
	if list := r.call(t, adminKey, "GET", "/v1/keys", "").must(t, http.StatusOK); strings.Contains(list.text, key.Key[len("sk_lin_"):]) || !strings.Contains(list.text, `"lin"`) {
		t.Errorf("the list: %s", list.text)
	}
	await := func(status int) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); ; {
			got := r.call(t, key.Key, "POST", "/v1/activities", `{"id":"by-lin","name":"x","starts_at":"2030-01-01T00:00:00Z","ends_at":"2030-01-02T00:00:00Z","pay_window_seconds":60}`)
			if got.status == status {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%d, want %d: %s", got.status, status, got.text)
			}
		}
	}
	await(http.StatusCreated) // every gateway knows the key within a second
	r.call(t, adminKey, "POST", "/v1/keys/lin/revoke", "").must(t, http.StatusOK)
	await(http.StatusUnauthorized)

	trail := r.call(t, adminKey, "GET", "/v1/audit?entity=activity/by-lin", "").must(t, http.StatusOK)
	if !strings.Contains(trail.text, `"actor":"lin"`) || !strings.Contains(trail.text, `"action":"CreateActivity"`) || !strings.Contains(trail.text, `"request_id":"`) {
		t.Errorf("the trail of by-lin: %s", trail.text)
	}
	if v := r.call(t, adminKey, "POST", "/v1/audit/verify", "").must(t, http.StatusOK); !strings.Contains(v.text, `"intact":true`) {
		t.Errorf("the trail: %s", v.text)
	}
	if _, err := r.db.ExecContext(t.Context(), "UPDATE audit SET actor = 'nobody' WHERE id = 2"); err != nil {
		t.Fatal(err)
	}
	if v := r.call(t, adminKey, "POST", "/v1/audit/verify", "").must(t, http.StatusOK); !strings.Contains(v.text, `"intact":false`) || !strings.Contains(v.text, `"broken_id":2`) {
		t.Errorf("after entry 2 was altered: %s", v.text)
	}
	page := r.call(t, adminKey, "GET", "/v1/audit?page_size=1", "").must(t, http.StatusOK)
	var next struct {
		Next string `json:"next_page_token"`
	}
	if err := json.Unmarshal([]byte(page.text), &next); err != nil || next.Next == "" {
		t.Errorf("a page of one: %s", page.text)
	}
	r.call(t, adminKey, "GET", "/v1/audit?page_token="+cmp.Or(next.Next, "x"), "").must(t, http.StatusOK)
	r.call(t, adminKey, "GET", "/v1/audit?entity=%00", "").is(t, 400, "invalid_field", "NUL")
}
