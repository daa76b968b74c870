package gateway_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leadingpeers/seckill/internal/gateway"
	"github.com/leadingpeers/seckill/pkg/catalog"
	"github.com/leadingpeers/seckill/pkg/stock"
)

// TestLifeOfAnActivity takes an activity from draft to its end and looks at
// what operators, the public and buyers see.
func TestLifeOfAnActivity(t *testing.T) {
	r := newRig(t, nil)
	product, path := r.sell(t, offer{units: 10, perOrder: 1, perUser: 5, draft: true})
	activity := strings.Split(path, "/products/")[0]
	do := func(verb string) answer { return r.call(t, adminKey, "POST", activity+"/"+verb, "") }

	r.call(t, adminKey, "GET", activity, "").must(t, http.StatusOK)
	r.call(t, "", "GET", activity, "").is(t, 404, "activity_not_found", "a draft")
	r.call(t, "", "GET", path, "").is(t, 404, "activity_not_found", "a draft's product")
	r.call(t, serviceKey, "GET", activity, "").is(t, 404, "activity_not_found", "a draft is the operators'")
	if list := r.call(t, adminKey, "GET", "/v1/activities", ""); len(list.Activities) != 1 {
		t.Errorf("operators see %s", list.text)
	}
	if list := r.call(t, "", "GET", "/v1/activities", ""); len(list.Activities) != 0 || !strings.Contains(list.text, "[]") {
		t.Errorf("the public sees %s", list.text)
	}
	do("pause").is(t, 409, "wrong_state", "a draft sells nothing")
	do("resume").is(t, 409, "wrong_state", "a draft was never on")
	do("end").is(t, 409, "wrong_state", "a draft has not begun")
	if got := r.call(t, adminKey, "POST", path+"/preload", "{}").must(t, http.StatusOK); !strings.Contains(got.text, `"loaded":true`) {
		t.Errorf("preload: %s", got.text)
	}
	if got := r.call(t, adminKey, "POST", path+"/preload", "").must(t, http.StatusOK); !strings.Contains(got.text, `"loaded":false`) {
		t.Errorf("preload again: %s", got.text)
	}

	if got := do("publish").must(t, http.StatusOK); got.State != "online" || got.Version != 2 {
		t.Errorf("published: %s", got.text)
	}
	do("publish").must(t, http.StatusOK)
	if got := r.call(t, "", "GET", activity, "").must(t, http.StatusOK); got.State != "online" || !strings.HasSuffix(got.StartsAt, "Z") || len(got.StartsAt) != 24 {
		t.Errorf("the public sees %s", got.text)
	}
	if got := r.call(t, "", "GET", path, "").must(t, http.StatusOK); got.ID != product || got.header.Get("Cache-Control") != "public, max-age=1" {
		t.Errorf("the public sees %s %v", got.text, got.header)
	}
	if list := r.call(t, "", "GET", activity+"/products", "").must(t, http.StatusOK); len(list.Products) != 1 {
		t.Errorf("the public sees %s", list.text)
	}
	if head := r.call(t, "", "HEAD", path, ""); head.status != http.StatusOK || head.text != "" {
		t.Errorf("HEAD: %d %q", head.status, head.text)
	}
	r.reserve(t, path, "u1", "key-of-u1", 1).must(t, http.StatusAccepted)
	r.call(t, adminKey, "POST", activity+"/products", `{"name":"x","price_cents":1,"currency":"CNY","total":1}`).is(t, 409, "activity_online", "the seed's own rule")

	if got := do("pause").must(t, http.StatusOK); got.State != "paused" {
		t.Errorf("paused: %s", got.text)
	}
	r.reserve(t, path, "u2", "key-of-u2", 1).is(t, 409, "not_on_sale", "paused")
	late := r.call(t, adminKey, "POST", activity+"/products", `{"name":"x","price_cents":1,"currency":"CNY","total":1}`).must(t, http.StatusCreated)
	if got := do("resume").must(t, http.StatusOK); got.State != "online" {
		t.Errorf("resumed: %s", got.text)
	}
	r.reserve(t, path, "u2", "key-of-u2", 1).must(t, http.StatusAccepted)
	r.reserve(t, activity+"/products/"+late.ID, "u2", "key-of-u2", 1).must(t, http.StatusAccepted)
	if got := do("end").must(t, http.StatusOK); got.State != "ended" {
		t.Errorf("ended: %s", got.text)
	}
	r.reserve(t, path, "u3", "key-of-u3", 1).is(t, 409, "not_on_sale", "ended")
	do("end").must(t, http.StatusOK)
	do("resume").is(t, 409, "wrong_state", "the end is final")
	do("publish").is(t, 409, "wrong_state", "the end is final")
	r.call(t, "", "GET", activity, "").must(t, http.StatusOK)
}

func TestPublishNeedsAProductAndAFuture(t *testing.T) {
	r := newRig(t, nil)
	r.call(t, adminKey, "POST", "/v1/activities",
		`{"id":"empty","name":"Empty","starts_at":"2030-01-01T00:00:00Z","ends_at":"2030-01-02T00:00:00Z","pay_window_seconds":60}`).must(t, http.StatusCreated)
	r.call(t, adminKey, "POST", "/v1/activities/empty/publish", "").is(t, 409, "not_publishable", "no products")
	_, path := r.sell(t, offer{units: 1, perOrder: 1, perUser: 1, starts: -time.Hour, ends: -time.Minute, draft: true})
	r.call(t, adminKey, "POST", strings.Split(path, "/products/")[0]+"/publish", "").is(t, 409, "not_publishable", "it is over")
	if got := r.call(t, adminKey, "GET", "/v1/activities/empty", ""); got.State != "draft" || got.Version != 1 {
		t.Errorf("after a publication that was refused: %s", got.text)
	}
}

// TestStateChangesRace resumes at one gateway, whose word reaches Redis only
// after the activity has been paused at another: MySQL's last word holds.
func TestStateChangesRace(t *testing.T) {
	r := newRig(t, nil)
	_, path := r.sell(t, offer{units: 1000, perOrder: 1, perUser: 1000})
	activity := strings.Split(path, "/products/")[0]
	r.call(t, adminKey, "POST", activity+"/pause", "").must(t, http.StatusOK)

	late := lateCache{entered: make(chan bool), leave: make(chan bool)}
	other := r.beside(t, func(c *gateway.Config) { late.Cache, c.Cache = c.Cache, &late })
	resumed := make(chan answer)
	go func() { resumed <- other.call(t, adminKey, "POST", activity+"/resume", "") }()
	<-late.entered
	r.call(t, adminKey, "POST", activity+"/pause", "").must(t, http.StatusOK)
	late.leave <- true
	if got := <-resumed; got.status != http.StatusOK || got.State != "paused" {
		t.Errorf("whoever resumed is told %d %s", got.status, got.text)
	}
	r.reserve(t, path, "u1", "key-of-u1", 1).is(t, 409, "not_on_sale", "it was paused last")
}

// lateCache holds the first terms that open a product.
type lateCache struct {
	gateway.Cache
	once           sync.Once
	entered, leave chan bool
}

func (c *lateCache) Configure(ctx context.Context, terms stock.Terms) error {
	if terms.OnSale {
		c.once.Do(func() { c.entered <- true; <-c.leave })
	}
	return c.Cache.Configure(ctx, terms)
}

// TestPublishAfterAFault: what failed half-way is completed by the same request.
func TestPublishAfterAFault(t *testing.T) {
	r := newRig(t, nil)
	_, path := r.sell(t, offer{units: 10, perOrder: 1, perUser: 5, draft: true})
	activity := strings.Split(path, "/products/")[0]
	dead := deadCache(t)
	away := r.beside(t, func(c *gateway.Config) {
		c.Cache = dead
		c.Load = func(ctx context.Context, terms stock.Terms) (bool, error) {
			return stock.Load(ctx, dead, r.ledger, terms)
		}
		c.AdminTimeout = 2 * time.Second
	})
	away.call(t, adminKey, "POST", activity+"/publish", "").is(t, 503, "cache_unavailable", "Redis is away")
	if got := r.call(t, adminKey, "GET", activity, ""); got.State != "draft" {
		t.Errorf("online without its products: %s", got.text)
	}
	if _, err := r.catalog.SetState(t.Context(), strings.TrimPrefix(activity, "/v1/activities/"), catalog.Online); err != nil {
		t.Fatal(err)
	}
	r.call(t, adminKey, "POST", activity+"/publish", "").must(t, http.StatusOK)
	r.reserve(t, path, "u1", "key-of-u1", 1).must(t, http.StatusAccepted)
}

func TestBadCatalogueChangesNothing(t *testing.T) {
	r := newRig(t, nil)
	product, path := r.sell(t, offer{units: 10, perOrder: 1, perUser: 5, draft: true})
	activity := strings.Split(path, "/products/")[0]
	id := strings.TrimPrefix(activity, "/v1/activities/")
	a := func(replace ...string) string {
		return strings.NewReplacer(replace...).Replace(
			`{"id":"new","name":"New","starts_at":"2030-01-01T00:00:00Z","ends_at":"2030-01-02T00:00:00Z","pay_window_seconds":60}`)
	}
	p := func(replace ...string) string {
		return strings.NewReplacer(replace...).Replace(
			`{"id":"new","name":"New","image_url":"https://x.example/i.png","price_cents":100,"currency":"CNY","total":5,"per_order":1,"per_user":1}`)
	}
	const as = "/v1/activities"
	tests := []struct {
		path, body string
		status     int
		code, why  string
	}{
		{as, a(`"id":"new"`, `"id":"`+id+`"`), 409, "already_exists", "the ID is taken"},
		{as, a(`"id":"new"`, `"id":"New"`), 400, "invalid_field", "upper case"},
		{as, a(`"id":"new"`, `"id":"a/b"`), 400, "invalid_field", "slash"},
		{as, a(`"name":"New"`, `"name":""`), 400, "invalid_field", "empty name"},
		{as, a(`"name":"New"`, `"name":"a\u0000b"`), 400, "invalid_field", "NUL"},
		{as, a(`"name":"New"`, `"name":"`+strings.Repeat("长", 121)+`"`), 400, "invalid_field", "121 characters"},
		{as, a(`2030-01-02T00:00:00Z`, `2029-01-02T00:00:00Z`), 400, "invalid_field", "ends before it starts"},
		{as, a(`2030-01-01T00:00:00Z`, `soon`), 400, "invalid_field", "no time"},
		{as, a(`2030-01-01T00:00:00Z`, `1030-01-01T00:00:00Z`), 400, "invalid_field", "a thousand years ago"},
		{as, a(`:60`, `:0`), 400, "invalid_field", "no time to pay"},
		{as, a(`:60`, `:86401`), 400, "invalid_field", "more than a day to pay"},
		{as, a(`:60`, `:9223372036854775807`), 400, "invalid_field", "would overflow"},
		{as, a(`"name":"New",`, ``), 400, "missing_field", "no name"},
		{as, a(`"name"`, `"state":"online","name"`), 400, "unknown_field", "the state is not the caller's to say"},
		{as, a() + "{}", 400, "malformed_json", "trailing data"},
		{as, a("}", strings.Repeat(" ", 64<<10)+"}"), 413, "body_too_large", "over 64 KiB"},
		{activity + "/products", p(`"id":"new"`, `"id":"`+product+`"`), 409, "already_exists", "the ID is taken"},
		{as + "/none/products", p(), 404, "activity_not_found", "unknown activity"},
		{activity + "/products", p(`"total":5`, `"total":0`), 400, "invalid_field", "nothing to sell"},
		{activity + "/products", p(`"total":5`, `"total":1e3`), 400, "invalid_field", "exponent"},
		{activity + "/products", p(`"total":5`, `"total":1000000000`), 400, "invalid_field", "ten digits"},
		{activity + "/products", p(`"price_cents":100`, `"price_cents":-1`), 400, "invalid_field", "negative price"},
		{activity + "/products", p(`"price_cents":100`, `"price_cents":9.99`), 400, "invalid_field", "not in cents"},
		{activity + "/products", p(`"CNY"`, `"yuan"`), 400, "invalid_field", "no currency"},
		{activity + "/products", p(`"per_order":1`, `"per_order":0`), 400, "invalid_field", "no limit at all"},
		{activity + "/products", p(`"per_user":1`, `"per_user":-1`), 400, "invalid_field", "negative limit"},
		{activity + "/products", p(`https://x.example/i.png`, `javascript:alert(1)`), 400, "invalid_field", "no image"},
		{activity + "/products", p(`"total"`, `"available":9,"total"`), 400, "unknown_field", "the stock is not the caller's to say"},
		{activity + "/publish", `{"force":true}`, 400, "unknown_field", "publish takes no field"},
		{as + "/none/publish", "", 404, "activity_not_found", "unknown activity"},
		{as + "/none/products/" + product + "/preload", "", 404, "activity_not_found", "unknown activity"},
		{activity + "/products/none/preload", "", 404, "product_not_found", "unknown product"},
	}
	for _, tt := range tests {
		r.call(t, adminKey, "POST", tt.path, tt.body).is(t, tt.status, tt.code, tt.why)
	}
	list := r.call(t, adminKey, "GET", "/v1/activities", "").must(t, http.StatusOK)
	products := r.call(t, adminKey, "GET", activity+"/products", "").must(t, http.StatusOK)
	if len(list.Activities) != 1 || len(products.Products) != 1 {
		t.Errorf("bad input left %s %s", list.text, products.text)
	}
	if got := r.call(t, adminKey, "GET", activity, ""); got.Version != 1 || got.State != "draft" {
		t.Errorf("bad input left %s", got.text)
	}
	if _, err := r.cache.Surplus(t.Context(), product); err == nil {
		t.Error("bad input loaded the product")
	}
}

func TestConfigNamesWhatIsMissing(t *testing.T) {
	if _, err := gateway.New(gateway.Config{}); err == nil || !strings.Contains(err.Error(), "Cache") {
		t.Errorf("an empty Config: %v", err)
	}
	newRig(t, func(c *gateway.Config) {
		short := *c
		short.IDKey = []byte("short")
		if _, err := gateway.New(short); err == nil || !strings.Contains(err.Error(), "IDKey") {
			t.Errorf("a short IDKey: %v", err)
		}
		nobody := *c
		nobody.Keys, nobody.KeyStore = nil, nil
		if _, err := gateway.New(nobody); err == nil || !strings.Contains(err.Error(), "KeyStore") {
			t.Errorf("no keys: %v", err)
		}
	})
}
