package gateway_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/leadingpeers/seckill/api"
	"github.com/leadingpeers/seckill/internal/gateway"
)

// activityOf is the ID of the activity in a product's path.
func activityOf(path string) string {
	return strings.Split(strings.TrimPrefix(path, "/v1/activities/"), "/")[0]
}

// into reads an answer of the API as one of its models.
func into[T any](t testing.TB, a answer) T {
	t.Helper()
	var out T
	if err := json.Unmarshal([]byte(a.text), &out); err != nil {
		t.Fatalf("%v: %s", err, a.text)
	}
	return out
}

// stockOf is what the API says of a product's units.
func (r *rig) stockOf(t testing.TB, path string) api.Stock {
	t.Helper()
	return into[api.Stock](t, r.call(t, viewerKey, "GET", path+"/stock", "").must(t, http.StatusOK))
}

func TestStock(t *testing.T) {
	r := newRig(t, nil)
	product, path := r.sell(t, offer{units: 10, perOrder: 5, perUser: 9})
	r.deduct(t, r.reserve(t, path, "u1", "key-of-u1", 2).must(t, http.StatusAccepted))
	r.reserve(t, path, "u2", "key-of-u2", 3).must(t, http.StatusAccepted)
	want := api.Stock{ProductID: product, Total: 10, Available: 8, Deducted: 2, State: "open", Loaded: true, Surplus: new(int64(5)), Pending: new(int64(3)), Drift: new(int64(0))}
	if d := cmp.Diff(want, r.stockOf(t, path)); d != "" {
		t.Error(d)
	}
	r.call(t, operatorKey, "POST", path+"/flush", `{"force":true}`).must(t, http.StatusOK)
	want.Loaded, want.Surplus, want.Pending, want.Drift = false, nil, nil, nil
	if d := cmp.Diff(want, r.stockOf(t, path)); d != "" {
		t.Errorf("not in Redis: %s", d)
	}
	r.call(t, viewerKey, "GET", path+"0/stock", "").is(t, 404, "product_not_found", "unknown")
}

// TestRestock moves the total of a product that is selling, once for each
// op_id, in MySQL and in Redis.
func TestRestock(t *testing.T) {
	r := newRig(t, nil)
	product, path := r.sell(t, offer{units: 10, perOrder: 9, perUser: 99})
	_, other := r.sell(t, offer{units: 10, perOrder: 9, perUser: 99})
	r.reserve(t, path, "u1", "key-of-u1", 4).must(t, http.StatusAccepted)
	for _, tt := range []struct {
		path, body string
		status     int
		code       string
		surplus    int64
		why        string
	}{
		{path, `{"op_id":"truck-1","delta":5}`, 200, "", 11, "five more"},
		{path, `{"op_id":"truck-1","delta":5}`, 200, "", 11, "once"},
		{path, `{"op_id":"truck-1","delta":6}`, 422, "idempotency_key_reused", 11, "one truck is one load"},
		{path, `{"op_id":"back-1","delta":-3}`, 200, "", 8, "three back"},
		{path, `{"op_id":"back-2","delta":-99}`, 409, "not_enough_available", 8, "more than there are"},
		{path, `{"op_id":"zero","delta":0}`, 400, "invalid_field", 8, "a slip"},
		{path, `{"op_id":"","delta":1}`, 400, "invalid_field", 8, "no name"},
		{path, `{"op_id":"a b","delta":1}`, 400, "invalid_field", 8, "a space"},
		{path, `{"op_id":"x","delta":1.5}`, 400, "invalid_field", 8, "half a unit"},
		{path, `{"op_id":"x","delta":1e300}`, 400, "invalid_field", 8, "no such number"},
		{path, `{"op_id":"x","delta":1000000000}`, 400, "invalid_field", 8, "over nine digits"},
		{path, `{"op_id":"x","delta":999999999}`, 400, "invalid_field", 8, "over nine digits in all"},
		{path, `{"delta":1}`, 400, "missing_field", 8, "no name"},
		{path + "0", `{"op_id":"x","delta":1}`, 404, "product_not_found", 8, "unknown"},
		{other[:strings.LastIndex(other, "/")+1] + product, `{"op_id":"x","delta":1}`, 404, "product_not_found", 8, "another activity's"},
	} {
		got := r.call(t, operatorKey, "POST", tt.path+"/restock", tt.body)
		if tt.code != "" {
			got.is(t, tt.status, tt.code, tt.why)
		} else {
			got.must(t, tt.status)
		}
		if s := r.surplus(t, product); s != tt.surplus {
			t.Errorf("%s: surplus %d, want %d", tt.why, s, tt.surplus)
		}
	}
	if s := r.stockOf(t, path); s.Total != 12 || s.Available != 12 || *s.Drift != 0 {
		t.Errorf("after all: %+v", s)
	}
	r.reserve(t, path, "u2", "key-of-u2", 7).must(t, http.StatusAccepted)
	r.call(t, operatorKey, "POST", path+"/restock", `{"op_id":"back-3","delta":-2}`).is(t, 409, "not_enough_available", "all but one are given out, though the ledger has them yet")
	if got := into[api.Stock](t, r.call(t, operatorKey, "POST", path+"/restock", `{"op_id":"back-1","delta":-3}`).must(t, 200)); !got.Replayed {
		t.Errorf("units that were taken away before: %+v", got)
	}
	if got := into[api.Stock](t, r.call(t, operatorKey, "POST", path+"/restock", `{"op_id":"truck-1","delta":5}`).must(t, 200)); !got.Replayed {
		t.Errorf("the repetition is not named: %+v", got)
	}
}

func TestSoldOutAndResume(t *testing.T) {
	r := newRig(t, nil)
	product, path := r.sell(t, offer{units: 10, perOrder: 9, perUser: 99})
	_, second := r.sell(t, offer{units: 10, perOrder: 9, perUser: 99, draft: true})
	version := r.call(t, operatorKey, "GET", second, "").header.Get("ETag")
	r.call(t, operatorKey, "PATCH", second, `{"channel":"w3"}`, "If-Match", version).must(t, http.StatusOK)
	r.call(t, operatorKey, "POST", "/v1/activities/"+activityOf(second)+"/publish", `{"preload":true}`).must(t, http.StatusOK)
	mine := r.reserve(t, path, "u1", "key-of-u1", 1).must(t, http.StatusAccepted)

	if got := into[api.Stock](t, r.call(t, operatorKey, "POST", path+"/sold-out", "").must(t, 200)); got.State != "sold_out" {
		t.Errorf("sold out: %+v", got)
	}
	r.reserve(t, path, "u2", "key-of-u2", 1).is(t, 409, "not_on_sale", "the source has none")
	if again := r.reserve(t, path, "u1", "key-of-u1", 1).must(t, http.StatusAccepted); again.ReservationID != mine.ReservationID {
		t.Errorf("the retry: %s", again.text)
	}
	r.call(t, operatorKey, "POST", path+"/sold-out", "").must(t, http.StatusOK) // repeating is harmless
	r.call(t, operatorKey, "POST", path+"/resume", "").must(t, http.StatusOK)
	r.reserve(t, path, "u2", "key-of-u2", 1).must(t, http.StatusAccepted)
	if _, err := r.db.ExecContext(t.Context(), "UPDATE stock SET state = 'closed' WHERE product_id = ?", product); err != nil {
		t.Fatal(err)
	}
	r.call(t, operatorKey, "POST", path+"/resume", "").is(t, 409, "wrong_state", "stopped after a violation of its books")
	r.call(t, operatorKey, "POST", path+"0/resume", "").is(t, 404, "product_not_found", "unknown")
	r.call(t, operatorKey, "POST", path+"0/sold-out", "").is(t, 404, "product_not_found", "unknown")
	r.call(t, operatorKey, "POST", path+"/sold-out", `{"why":"x"}`).is(t, 400, "unknown_field", "it takes nothing")

	id := second[strings.LastIndex(second, "/")+1:]
	for _, tt := range []struct {
		do                 string
		changed, unchanged []string
	}{{"sold-out", []string{id}, nil}, {"sold-out", nil, []string{id}}, {"resume", []string{id}, nil}, {"resume", nil, []string{id}}} {
		got := into[api.Channel](t, r.call(t, operatorKey, "POST", "/v1/channels/w3/"+tt.do, "").must(t, http.StatusOK))
		if fmt.Sprint(got.Products, got.Unchanged) != fmt.Sprint(append([]string{}, tt.changed...), append([]string{}, tt.unchanged...)) {
			t.Errorf("%s: %+v, want changed %v, unchanged %v", tt.do, got, tt.changed, tt.unchanged)
		}
		status := map[string]int{"sold-out": 409, "resume": 202}[tt.do]
		r.reserve(t, second, "u1", "key-of-"+tt.do, 1).must(t, status)
	}
	for _, channel := range []string{"none", "UPPER", "a%20b", "%00"} {
		r.call(t, operatorKey, "POST", "/v1/channels/"+channel+"/sold-out", "").is(t, 404, "channel_not_found", channel)
		r.call(t, operatorKey, "POST", "/v1/channels/"+channel+"/resume", "").is(t, 404, "channel_not_found", channel)
	}
}

// TestDeduct publishes what is pending once more, and leaves alone what is
// decided.
func TestDeduct(t *testing.T) {
	r := newRig(t, nil)
	_, path := r.sell(t, offer{units: 10, perOrder: 5, perUser: 9})
	mine := r.reserve(t, path, "u1", "key-of-u1", 2).must(t, http.StatusAccepted)
	to := path + "/reservations/" + mine.ReservationID + "/deduct"
	before := r.published.count()
	r.call(t, operatorKey, "POST", to, `{"user_id":"u1"}`).must(t, http.StatusAccepted)
	if n := r.published.count() - before; n != 1 {
		t.Errorf("%d events for a pending reservation, want its own once more", n)
	}
	r.deduct(t, mine)
	r.call(t, operatorKey, "POST", to, `{"user_id":"u1"}`).must(t, http.StatusAccepted)
	if n := r.published.count() - before; n != 1 {
		t.Errorf("%d events after it was decided, want no more", n)
	}
	r.call(t, operatorKey, "POST", to, `{"user_id":"u2"}`).is(t, 404, "reservation_not_found", "somebody else's")
	r.call(t, operatorKey, "POST", to, `{}`).is(t, 400, "missing_field", "whose")
	mute := r.beside(t, func(c *gateway.Config) { c.Publisher = &publisher{err: http.ErrServerClosed} })
	other := r.reserve(t, path, "u3", "key-of-u3", 1).must(t, http.StatusAccepted)
	mute.call(t, operatorKey, "POST", path+"/reservations/"+other.ReservationID+"/deduct", `{"user_id":"u3"}`).is(t, 503, "events_unavailable", "Kafka is away")
}
