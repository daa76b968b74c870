package gateway_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/leadingpeers/seckill/internal/gateway"
	"github.com/leadingpeers/seckill/pkg/stock"
)

// TestReopen: a product that the audit has stopped sells nothing until an
// operator says so and its books are right; then Redis has what the ledger has.
func TestReopen(t *testing.T) {
	r := newRig(t, nil)
	product, path := r.sell(t, offer{units: 10, perOrder: 2, perUser: 5})
	for _, verb := range []string{"/reopen", "/heal"} {
		r.call(t, "", "POST", path+verb, "").is(t, 401, "unauthenticated", "nobody")
		r.call(t, viewerKey, "POST", path+verb, "").is(t, 403, "forbidden", "viewers look on")
		r.call(t, operatorKey, "POST", path+"-x"+verb, "").is(t, 404, "product_not_found", "unknown")
		r.call(t, operatorKey, "POST", path+verb, `{"force":true}`).is(t, 400, "unknown_field", "there is no force")
	}
	dead := deadCache(t)
	away := r.beside(t, func(c *gateway.Config) {
		c.Cache = dead
		c.Load = func(context.Context, stock.Terms) (bool, error) { return false, errors.New("away") }
		c.Heal = func(context.Context, string) error { return errors.New("away") }
	})
	away.call(t, operatorKey, "POST", path+"/heal", "").is(t, 503, "preload_failed", "Redis is away")
	away.call(t, operatorKey, "POST", path+"/reopen", "").is(t, 503, "preload_failed", "Redis is away")
	if got := r.call(t, operatorKey, "POST", path+"/reopen", "").must(t, http.StatusOK); got.State != "open" {
		t.Errorf("never stopped: %s", got.text)
	}
	exec := func(query string) {
		t.Helper()
		if _, err := r.db.ExecContext(t.Context(), query, product); err != nil {
			t.Fatal(err)
		}
	}
	exec("UPDATE stock SET available = 7, state = 'closed' WHERE product_id = ?")
	got := r.call(t, operatorKey, "POST", path+"/reopen", "")
	got.is(t, 409, "wrong_state", "three units are missing")
	if !strings.Contains(got.Detail, "7 and 0 of 10") {
		t.Errorf("the numbers are not named: %s", got.text)
	}
	r.call(t, operatorKey, "POST", path+"/resume", "").is(t, 409, "wrong_state", "the source has no say in it")
	exec("UPDATE stock SET available = 10 WHERE product_id = ?")
	client := redis.NewClient(&redis.Options{Addr: r.redis})
	defer client.Close()
	if err := client.HSet(t.Context(), r.prefix+":{"+product+"}", "surplus", 3).Err(); err != nil {
		t.Fatal(err)
	}
	got = r.call(t, operatorKey, "POST", path+"/reopen", "").must(t, http.StatusOK)
	if got.State != "open" || !strings.Contains(got.text, `"surplus":10`) || !strings.Contains(got.text, `"drift":0`) {
		t.Errorf("reopened: %s", got.text)
	}
	r.reserve(t, path, "u1", "key-of-u1", 2).must(t, http.StatusAccepted)
}

// TestHeal brings back to Redis what the ledger has and Redis has lost.
func TestHeal(t *testing.T) {
	r := newRig(t, nil)
	product, path := r.sell(t, offer{units: 10, perOrder: 2, perUser: 5})
	got := r.reserve(t, path, "u1", "key-of-u1", 2).must(t, http.StatusAccepted)
	if _, err := r.ledger.Deduct(t.Context(), product, []stock.Reservation{
		{ID: got.ReservationID, ProductID: product, UserID: "u1", Quantity: 2},
	}); err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(&redis.Options{Addr: r.redis})
	defer client.Close()
	key := r.prefix + ":{" + product + "}"
	if err := client.HDel(t.Context(), key, "u:u1").Err(); err != nil {
		t.Fatal(err)
	}
	if err := client.HSet(t.Context(), key, "surplus", 10).Err(); err != nil {
		t.Fatal(err)
	}
	if got := r.call(t, viewerKey, "GET", path+"/stock", "").must(t, http.StatusOK); !strings.Contains(got.text, `"drift":2`) {
		t.Fatalf("before: %s", got.text)
	}
	for range 2 {
		if got := r.call(t, operatorKey, "POST", path+"/heal", "").must(t, http.StatusOK); !strings.Contains(got.text, `"drift":0`) {
			t.Errorf("healed: %s", got.text)
		}
	}
}
