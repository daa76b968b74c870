package gateway_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/leadingpeers/seckill/internal/gateway"
	"github.com/leadingpeers/seckill/pkg/events"
	"github.com/leadingpeers/seckill/pkg/order"
	"github.com/leadingpeers/seckill/pkg/stock"
)

// TestOnePurchase follows one reservation from the request to the payment, and
// retries it at every step.
func TestOnePurchase(t *testing.T) {
	r := newRig(t, nil)
	product, path := r.sell(t, offer{units: 10, perOrder: 2, perUser: 4})
	const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
	got := r.call(t, serviceKey, "POST", path+"/reservations", `{"user_id":"u1","quantity":2}`,
		"Idempotency-Key", "my-first-try", "Traceparent", "00-"+trace+"-00f067aa0ba902b7-01").must(t, http.StatusAccepted)

	mac := hmac.New(sha256.New, []byte(idKey))
	mac.Write([]byte("u1\x00" + product + "\x00my-first-try"))
	id := strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(mac.Sum(nil)[:16]))
	if got.ReservationID != id || got.State != "queued" || got.ProductID != product || got.UserID != "u1" || got.Quantity != 2 || got.PriceCents != 499900 {
		t.Errorf("answered %s, want reservation %s", got.text, id)
	}
	if got.header.Get("Location") != path+"/reservations/"+id+"?user_id=u1" || got.header.Get("Idempotent-Replayed") != "" {
		t.Errorf("headers %v", got.header)
	}
	evs := r.published.of(id)
	if len(evs) != 1 || !strings.HasPrefix(evs[0].TraceParent, "00-"+trace+"-") || time.Since(evs[0].Time) > time.Minute {
		t.Fatalf("published %+v", evs)
	}
	evs[0].TraceParent, evs[0].Time = "", time.Time{}
	want := events.Event{
		Type: events.ReservationCreated, ReservationID: id, ActivityID: got.ActivityID, ProductID: product, UserID: "u1", Quantity: 2,
	}
	if diff := cmp.Diff(want, evs[0]); diff != "" {
		t.Error(diff)
	}
	if n := r.surplus(t, product); n != 8 {
		t.Errorf("surplus %d, want 8", n)
	}

	steps := []struct {
		name   string
		do     func()
		state  string
		events int
		why    string
	}{
		{"nothing yet", func() {}, "queued", 2, "a retry publishes again while nothing is decided"},
		{"deducted", func() { r.deduct(t, got) }, "queued", 2, "the order is not written yet; nothing is published for what is decided"},
		{"ordered", func() { r.place(t, got) }, "awaiting_payment", 2, "the order is there"},
		{"paid", func() { r.pay(t, got) }, "paid", 2, "the end"},
	}
	for _, step := range steps {
		step.do()
		again := r.reserve(t, path, "u1", "my-first-try", 2).must(t, http.StatusAccepted)
		seen := r.call(t, serviceKey, "GET", path+"/reservations/"+id+"?user_id=u1", "").must(t, http.StatusOK)
		if again.ReservationID != id || again.State != step.state || again.header.Get("Idempotent-Replayed") != "true" {
			t.Errorf("%s: retry answered %s: %s", step.name, again.text, step.why)
		}
		if seen.text != again.text {
			t.Errorf("%s: GET says %s, the retry %s", step.name, seen.text, again.text)
		}
		if (seen.State == "queued") != (seen.header.Get("Retry-After") != "") {
			t.Errorf("%s: Retry-After %q", step.name, seen.header.Get("Retry-After"))
		}
		if n := len(r.published.of(id)); n != step.events {
			t.Errorf("%s: %d events, want %d: %s", step.name, n, step.events, step.why)
		}
		if n := r.surplus(t, product); n != 8 {
			t.Errorf("%s: surplus %d, want 8", step.name, n)
		}
	}
	paid := r.call(t, adminKey, "GET", path+"/reservations/"+id+"?user_id=u1", "").must(t, http.StatusOK)
	if paid.OrderID == "" || paid.AmountCents != 2*499900 || paid.Currency != "CNY" || !strings.HasSuffix(paid.PayDeadline, "Z") {
		t.Errorf("an operator sees %s", paid.text)
	}
	for _, other := range []struct{ path, user, why string }{
		{path + "/reservations/" + id, "u2", "somebody else's"},
		{path + "/reservations/" + strings.Repeat("a", 26), "u1", "unknown"},
		{path + "/reservations/" + strings.Repeat("7", 26), "u1", "not 128 bits"},
		{path + "/reservations/short", "u1", "no ID"},
		{path + "/reservations/" + strings.ToUpper(id), "u1", "not lower case"},
	} {
		r.call(t, serviceKey, "GET", other.path+"?user_id="+other.user, "").is(t, 404, "reservation_not_found", other.why)
	}
	_, elsewhere := r.sell(t, offer{units: 1, perOrder: 1, perUser: 1})
	r.call(t, serviceKey, "GET", elsewhere+"/reservations/"+id+"?user_id=u1", "").is(t, 404, "reservation_not_found", "another product's path")
}

func (r *rig) pay(t testing.TB, a answer) {
	t.Helper()
	if _, err := r.orders.Pay(t.Context(), order.Payment{ReservationID: a.ReservationID, Ref: "pay-" + a.ReservationID, AmountCents: a.Quantity * a.PriceCents}); err != nil {
		t.Fatal(err)
	}
}

func TestRefusalsReachTheBuyer(t *testing.T) {
	r := newRig(t, nil)
	product, path := r.sell(t, offer{units: 5, perOrder: 3, perUser: 4})
	_, early := r.sell(t, offer{units: 5, perOrder: 3, perUser: 4, starts: time.Minute})
	_, paused := r.sell(t, offer{units: 5, perOrder: 3, perUser: 4})
	r.call(t, adminKey, "POST", strings.Split(paused, "/products/")[0]+"/pause", "").must(t, http.StatusOK)
	gone, flushed := r.sell(t, offer{units: 5, perOrder: 3, perUser: 4})
	if err := r.cache.Flush(t.Context(), gone, true); err != nil {
		t.Fatal(err)
	}
	mine := r.reserve(t, path, "u1", "key-of-u1", 3).must(t, http.StatusAccepted)

	tests := []struct {
		path, user, key string
		quantity        int64
		status          int
		code, why       string
	}{
		{path, "u2", "key-of-u2", 4, 422, "over_order_limit", "one order may have 3"},
		{path, "u1", "another-key", 2, 409, "over_user_limit", "3 of 4 are held"},
		{path, "u3", "key-of-u3", 3, 409, "sold_out", "2 of 5 are left"},
		{early, "u4", "key-of-u4", 1, 409, "not_on_sale", "it starts in a minute"},
		{paused, "u4", "key-of-u4", 1, 409, "not_on_sale", "it is paused"},
		{flushed, "u4", "key-of-u4", 1, 503, "not_loaded", "Redis has lost it; the healer brings it back"},
		{path, "u1", "key-of-u1", 2, 422, "idempotency_key_reused", "the key stands for 3 units"},
	}
	before := r.published.count()
	for _, tt := range tests {
		r.reserve(t, tt.path, tt.user, tt.key, tt.quantity).is(t, tt.status, tt.code, tt.why)
	}
	if n := r.surplus(t, product); n != 2 || r.published.count() != before {
		t.Errorf("surplus %d, want 2; %d events after refusals", n, r.published.count()-before)
	}
	last := r.reserve(t, path, "u5", "key-of-u5", 2).must(t, http.StatusAccepted)
	again := r.reserve(t, path, "u5", "key-of-u5", 2).must(t, http.StatusAccepted)
	if again.ReservationID != last.ReservationID {
		t.Error("who took the last units does not see them again")
	}
	r.call(t, adminKey, "POST", strings.Split(path, "/products/")[0]+"/end", "").must(t, http.StatusOK)
	if late := r.reserve(t, path, "u1", "key-of-u1", 3).must(t, http.StatusAccepted); late.ReservationID != mine.ReservationID {
		t.Error("a retry after the end does not see its hold")
	}
	r.reserve(t, path, "u6", "key-of-u6", 1).is(t, 409, "not_on_sale", "it has ended")
}

func TestTooManyAttempts(t *testing.T) {
	r := newRig(t, nil)
	_, path := r.sell(t, offer{units: 1000, perOrder: 1, perUser: 1000})
	for i := range 100 {
		got := r.reserve(t, path, "greedy", fmt.Sprintf("attempt-%d", i), 1)
		if got.status != http.StatusAccepted {
			got.is(t, 429, "too_many_attempts", "a user's record is bounded")
			if got.Retryable || i < 30 {
				t.Errorf("after %d attempts: %s", i, got.text)
			}
			return
		}
	}
	t.Error("100 reservations of one product by one user")
}

// TestManyAtOnce sends the same request from many sides: it is one purchase.
func TestManyAtOnce(t *testing.T) {
	r := newRig(t, nil)
	product, path := r.sell(t, offer{units: 10, perOrder: 1, perUser: 5})
	var mu sync.Mutex
	ids, fresh := map[string]int{}, 0
	var wg sync.WaitGroup
	for range 40 {
		wg.Go(func() {
			got := r.reserve(t, path, "u1", "double-click", 1)
			mu.Lock()
			defer mu.Unlock()
			if got.status != http.StatusAccepted {
				t.Errorf("%d %s", got.status, got.text)
			}
			ids[got.ReservationID]++
			if got.header.Get("Idempotent-Replayed") == "" {
				fresh++
			}
		})
	}
	wg.Wait()
	if len(ids) != 1 || fresh != 1 || r.surplus(t, product) != 9 {
		t.Errorf("40 times the same: reservations %v, %d of them new, surplus %d", ids, fresh, r.surplus(t, product))
	}
}

// TestKafkaAway: never a false success, never a hang, and a retry completes it.
func TestKafkaAway(t *testing.T) {
	tests := []struct {
		name  string
		err   error
		hangs bool
		why   string
	}{
		{"refused", errors.New("broker not available"), false, "an error is not an acknowledgement"},
		{"hangs", nil, true, "nor is silence"},
		{"busy", errors.New("queue full"), false, "nor is a full queue"},
	}
	r := newRig(t, nil)
	product, path := r.sell(t, offer{units: 10, perOrder: 1, perUser: 5})
	for i, tt := range tests {
		r.published.set(tt.err, tt.hangs)
		start := time.Now()
		got := r.reserve(t, path, "u1", "try-"+tt.name, 1)
		got.is(t, 503, "events_unavailable", tt.why)
		if took := time.Since(start); took > 3*time.Second || (tt.hangs && took < 1500*time.Millisecond) {
			t.Errorf("%s: answered after %s", tt.name, took)
		}
		if strings.Contains(got.text, "broker") {
			t.Errorf("shows what is behind it: %s", got.text)
		}
		r.published.set(nil, false)
		done := r.reserve(t, path, "u1", "try-"+tt.name, 1).must(t, http.StatusAccepted)
		if n := len(r.published.of(done.ReservationID)); n != 1 || done.header.Get("Idempotent-Replayed") != "true" {
			t.Errorf("%s: the retry made %d events, replayed %q", tt.name, n, done.header.Get("Idempotent-Replayed"))
		}
		if n := r.surplus(t, product); n != int64(9-i) {
			t.Errorf("%s: surplus %d, want %d: the retry takes nothing", tt.name, n, 9-i)
		}
	}
}

// TestRedisAway stops Redis for the gateway: nothing can be sold, what is
// decided can still be seen.
func TestRedisAway(t *testing.T) {
	r := newRig(t, nil)
	_, path := r.sell(t, offer{units: 10, perOrder: 1, perUser: 5})
	decided := r.reserve(t, path, "u1", "key-of-u1", 1).must(t, http.StatusAccepted)
	open := r.reserve(t, path, "u2", "key-of-u2", 1).must(t, http.StatusAccepted)
	r.deduct(t, decided)
	r.place(t, decided)

	away := r.beside(t, func(c *gateway.Config) {
		c.Cache = deadCache(t)
		c.CacheTimeout = 0 // the default
	})
	start := time.Now()
	away.reserve(t, path, "u3", "key-of-u3", 1).is(t, 503, "cache_unavailable", "nobody can say whether a unit is left")
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("answered after %s", took)
	}
	seen := away.call(t, serviceKey, "GET", path+"/reservations/"+decided.ReservationID+"?user_id=u1", "").must(t, http.StatusOK)
	if seen.State != "awaiting_payment" {
		t.Errorf("MySQL knows better: %s", seen.text)
	}
	away.call(t, serviceKey, "GET", path+"/reservations/"+open.ReservationID+"?user_id=u2", "").is(t, 503, "cache_unavailable", "only Redis knows what is pending")
	if r.published.count() != 2 {
		t.Errorf("%d events", r.published.count())
	}
}

// TestMySQLAway stops MySQL for the gateway: the sale goes on.
func TestMySQLAway(t *testing.T) {
	r := newRig(t, nil)
	_, path := r.sell(t, offer{units: 10, perOrder: 1, perUser: 5})
	orders := &brokenOrders{Orders: r.orders}
	snapshot := &stuckSnapshot{}
	away := r.beside(t, func(c *gateway.Config) {
		snapshot.Snapshot = c.Snapshot
		c.Snapshot, c.Orders = snapshot, orders
		c.StoreTimeout = time.Second
	})
	first := away.reserve(t, path, "u1", "key-of-u1", 1).must(t, http.StatusAccepted)
	orders.broken.Store(true)
	snapshot.stuck.Store(true)
	start := time.Now()
	away.reserve(t, path, "u2", "key-of-u2", 1).must(t, http.StatusAccepted)
	if took := time.Since(start); took > 900*time.Millisecond {
		t.Errorf("a buyer waited %s for a snapshot that does not come", took)
	}
	get := path + "/reservations/" + first.ReservationID + "?user_id=u1"
	if seen := away.call(t, serviceKey, "GET", get, "").must(t, http.StatusOK); seen.State != "queued" {
		t.Errorf("pending in Redis, but %s", seen.text)
	}
	away.call(t, "", "GET", path, "").must(t, http.StatusOK)
	r.deduct(t, first)
	away.call(t, serviceKey, "GET", get, "").is(t, 503, "database_unavailable", "only MySQL knows the order")
	away.reserve(t, path, "u1", "key-of-u1", 1).is(t, 503, "database_unavailable", "so does the retry")
	orders.broken.Store(false)
	if seen := away.call(t, serviceKey, "GET", get, "").must(t, http.StatusOK); seen.State != "queued" {
		t.Errorf("deducted without an order, but %s", seen.text)
	}
}

// TestAnswersInTime lets a request wait for one server and then hang at the
// next: both waits together end in the time that one request has.
func TestAnswersInTime(t *testing.T) {
	r := newRig(t, nil)
	_, path := r.sell(t, offer{units: 10, perOrder: 1, perUser: 5})
	decided := r.reserve(t, path, "u1", "key-of-u1", 1).must(t, http.StatusAccepted)
	r.deduct(t, decided)
	one := path + "/reservations/" + decided.ReservationID
	payment := toJSON(t, map[string]any{"reservation_id": decided.ReservationID, "payment_ref": "p1", "amount_cents": 1, "currency": "CNY", "outcome": "succeeded"})
	tests := []struct {
		why, method, path, body, code string
	}{
		{"Kafka hangs after a slow catalogue", "POST", path + "/reservations", `{"user_id":"u2","quantity":1}`, "events_unavailable"},
		{"MySQL hangs when a retry asks what has become of it", "POST", path + "/reservations", `{"user_id":"u1","quantity":1}`, "database_unavailable"},
		{"MySQL hangs for who looks", "GET", one + "?user_id=u1", "", "database_unavailable"},
		{"MySQL hangs for who cancels", "POST", one + "/cancel", `{"user_id":"u1"}`, "database_unavailable"},
		{"MySQL hangs for who pays", "POST", "/v1/payments", payment, "database_unavailable"},
	}
	for _, tt := range tests {
		hurt := r.beside(t, func(c *gateway.Config) { // it has not seen the catalogue yet
			const far = 30 * time.Second
			c.AnswerIn, c.CacheTimeout, c.PublishTimeout, c.StoreTimeout = 500*time.Millisecond, far, far, far
			c.Snapshot, c.Orders, c.Publisher = slowSnapshot{c.Snapshot, 200 * time.Millisecond}, hangingOrders{c.Orders}, &publisher{hangs: true}
		})
		var header []string
		if strings.HasSuffix(tt.path, "/reservations") {
			header = []string{"Idempotency-Key", "key-of-" + tt.body[12:14]}
		}
		start := time.Now()
		hurt.call(t, serviceKey, tt.method, tt.path, tt.body, header...).is(t, 503, tt.code, tt.why)
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("%s: answered after %s", tt.why, took)
		}
	}
}

// TestReleased shows what a buyer sees of a reservation that came to nothing.
func TestReleased(t *testing.T) {
	r := newRig(t, nil)
	product, path := r.sell(t, offer{units: 2, perOrder: 2, perUser: 2})
	mine := r.reserve(t, path, "u1", "key-of-u1", 2).must(t, http.StatusAccepted)
	// Redis has forgotten somebody who bought before: the ledger refuses.
	r.deduct(t, answer{ReservationID: strings.Repeat("a", 26), ProductID: product, UserID: "u0", Quantity: 2})
	rows, err := r.ledger.Deduct(t.Context(), product, []stock.Reservation{
		{ID: mine.ReservationID, ProductID: product, UserID: "u1", Quantity: 2},
	})
	if err != nil || rows[0].State != stock.Refused {
		t.Fatalf("%+v %v", rows, err)
	}
	get := path + "/reservations/" + mine.ReservationID + "?user_id=u1"
	if seen := r.call(t, serviceKey, "GET", get, "").must(t, http.StatusOK); seen.State != "queued" {
		t.Errorf("Redis has not heard of it: %s", seen.text)
	}
	if _, err := r.cache.Apply(t.Context(), rows); err != nil {
		t.Fatal(err)
	}
	seen := r.call(t, serviceKey, "GET", get, "").must(t, http.StatusOK)
	if seen.State != "released" || seen.Reason != "sold_out" || seen.OrderID != "" {
		t.Errorf("refused by the ledger: %s", seen.text)
	}
	again := r.reserve(t, path, "u1", "key-of-u1", 2).must(t, http.StatusAccepted)
	if again.State != "released" || again.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("a retry of it: %s", again.text)
	}
	if err := r.cache.Flush(t.Context(), product, true); err != nil {
		t.Fatal(err)
	}
	if seen := r.call(t, serviceKey, "GET", get, "").must(t, http.StatusOK); seen.State != "released" {
		t.Errorf("Redis is empty: %s", seen.text)
	}
	unknown := path + "/reservations/" + strings.Repeat("e", 26) + "?user_id=u1"
	r.call(t, serviceKey, "GET", unknown, "").is(t, 503, "not_loaded", "it may have been pending in what was lost")
}

func TestBadInputChangesNothing(t *testing.T) {
	r := newRig(t, nil)
	product, path := r.sell(t, offer{units: 10, perOrder: 5, perUser: 5})
	_, hidden := r.sell(t, offer{units: 10, perOrder: 5, perUser: 5, draft: true})
	to, good := path+"/reservations", `{"user_id":"u1","quantity":1}`
	id := strings.Repeat("a", 26)
	tests := []struct {
		method, path, body string
		header             []string
		status             int
		code, why          string
	}{
		{"POST", to, `{"user_id":"u1","quantity":0}`, nil, 400, "invalid_field", "nothing"},
		{"POST", to, `{"user_id":"u1","quantity":-5}`, nil, 400, "invalid_field", "negative"},
		{"POST", to, `{"user_id":"u1","quantity":0.5}`, nil, 400, "invalid_field", "half a unit"},
		{"POST", to, `{"user_id":"u1","quantity":1e300}`, nil, 400, "invalid_field", "a number of 301 digits"},
		{"POST", to, `{"user_id":"u1","quantity":-1e300}`, nil, 400, "invalid_field", "the seed's -1e300"},
		{"POST", to, `{"user_id":"u1","quantity":"4"}`, nil, 400, "invalid_field", "a string"},
		{"POST", to, `{"user_id":"u1","quantity":"0x4"}`, nil, 400, "invalid_field", "hexadecimal"},
		{"POST", to, `{"user_id":"u1","quantity":null}`, nil, 400, "invalid_field", "null"},
		{"POST", to, `{"user_id":"u1","quantity":1000000000}`, nil, 400, "invalid_field", "ten digits"},
		{"POST", to, `{"user_id":"u1","quantity":9223372036854775807}`, nil, 400, "invalid_field", "the largest integer"},
		{"POST", to, `{"user_id":"u1"}`, nil, 400, "missing_field", "no quantity"},
		{"POST", to, `{"quantity":1}`, nil, 400, "missing_field", "no user"},
		{"POST", to, `{"user_id":"","quantity":1}`, nil, 400, "missing_field", "empty user"},
		{"POST", to, `{"user_id":"u 1","quantity":1}`, nil, 400, "invalid_field", "a space in the user"},
		{"POST", to, `{"user_id":"u\u0000","quantity":1}`, nil, 400, "invalid_field", "NUL in the user"},
		{"POST", to, `{"user_id":"用户","quantity":1}`, nil, 400, "invalid_field", "not ASCII"},
		{"POST", to, `{"user_id":"` + strings.Repeat("u", 65) + `","quantity":1}`, nil, 400, "invalid_field", "user too long"},
		{"POST", to, `{"user_id":7,"quantity":1}`, nil, 400, "invalid_field", "user not a string"},
		{"POST", to, `{"user_id":"u1","quantity":1,"price_cents":1}`, nil, 400, "unknown_field", "the price is not the buyer's to say"},
		{"POST", to, `{"user_id":"u1","quantity":1,"quantity":5}`, nil, 400, "duplicate_field", "twice"},
		{"POST", to, `{"user_id":"u1","quantity":1} {}`, nil, 400, "malformed_json", "trailing data"},
		{"POST", to, `{"user_id":"u1","quantity":1`, nil, 400, "malformed_json", "cut off"},
		{"POST", to, `[1]`, nil, 400, "malformed_json", "no object"},
		{"POST", to, "{\"user_id\":\"\xff\",\"quantity\":1}", nil, 400, "malformed_json", "not UTF-8"},
		{"POST", to, `{"user_id":{"a":{"b":1}},"quantity":1}`, nil, 400, "invalid_field", "nested"},
		{"POST", to, `{"user_id":` + strings.Repeat("[", 3000) + `}`, nil, 400, "malformed_json", "deeply nested"},
		{"POST", to, "", []string{"Content-Type", "application/json"}, 400, "malformed_json", "no body"},
		{"POST", to, good + strings.Repeat(" ", 4096), nil, 413, "body_too_large", "over 4 KiB"},
		{"POST", to, good, []string{"Content-Type", "text/plain"}, 415, "unsupported_media_type", "not JSON by its name"},
		{"POST", to, good, []string{"Content-Type", ""}, 415, "unsupported_media_type", "no type"},
		{"POST", to, good, []string{"Content-Encoding", "gzip"}, 415, "unsupported_media_type", "compressed"},
		{"POST", to, good, []string{"Idempotency-Key", ""}, 400, "missing_idempotency_key", "no key"},
		{"POST", to, good, []string{"Idempotency-Key", "short"}, 400, "invalid_idempotency_key", "short key"},
		{"POST", to, good, []string{"Idempotency-Key", strings.Repeat("k", 129)}, 400, "invalid_idempotency_key", "long key"},
		{"POST", path + "x/reservations", good, nil, 404, "product_not_found", "unknown product"},
		{"POST", "/v1/activities/none/products/none/reservations", good, nil, 404, "activity_not_found", "unknown activity"},
		{"POST", "/v1/activities/none/products/" + product + "/reservations", good, nil, 404, "activity_not_found", "a product under another activity"},
		{"POST", hidden + "/reservations", good, nil, 404, "activity_not_found", "a draft is nobody's business"},
		{"POST", "/v1/activities/%00/products/%ff%fe/reservations", good, nil, 404, "activity_not_found", "NUL and bad UTF-8 in the path"},
		{"POST", "/v1/activities/a%2Fb/products/%7Bx%7D/reservations", good, nil, 404, "activity_not_found", "slash and braces in the path"},
		{"DELETE", to, "", nil, 405, "method_not_allowed", "wrong method"},
		{"PATCH", to, good, nil, 405, "method_not_allowed", "wrong method"},
		{"PUT", to + "/" + id, good, nil, 405, "method_not_allowed", "wrong method"},
		{"POST", to + "/" + id + "/refund", good, nil, 404, "route_not_found", "unknown route"},
		{"POST", "/v2/activities", good, nil, 404, "route_not_found", "unknown version"},
		{"GET", to + "/" + id, "", nil, 400, "missing_field", "no user"},
		{"GET", to + "/" + id + "?user_id=u%201", "", nil, 400, "invalid_field", "a space in the user"},
		{"GET", to + "/" + id + "?user_id=u1&wait=20", "", nil, 400, "invalid_field", "no unit"},
		{"GET", to + "/" + id + "?user_id=u1&wait=-1s", "", nil, 400, "invalid_field", "into the past"},
		{"GET", to + "/" + id + "?user_id=u1&user_id=u2", "", nil, 400, "malformed_query", "two users"},
		{"GET", to + "/" + id + "?user_id=%zz", "", nil, 400, "malformed_query", "bad escape"},
		{"POST", to + "/" + id + "/cancel", `{"user_id":"u1","reason":"x"}`, nil, 400, "unknown_field", "cancel takes no reason"},
		{"POST", to + "/" + id + "/cancel", `{}`, nil, 400, "missing_field", "no user"},
		{"POST", to + "/" + id + "/cancel", `{"user_id":"u1"}`, nil, 404, "reservation_not_found", "nothing to cancel"},
		{"POST", to + "/!!/cancel", `{"user_id":"u1"}`, nil, 404, "reservation_not_found", "no ID"},
	}
	for _, tt := range tests {
		key := []string{"Idempotency-Key", "key-of-u1"}
		r.call(t, serviceKey, tt.method, tt.path, tt.body, append(key, tt.header...)...).is(t, tt.status, tt.code, tt.why)
	}
	counts, err := r.cache.Counts(t.Context(), product)
	if err != nil || counts.Surplus != 10 || counts.Reservations != 0 || counts.Open != 0 {
		t.Errorf("Redis has %+v %v after bad input", counts, err)
	}
	if r.published.count() != 0 {
		t.Errorf("%d events after bad input", r.published.count())
	}
	for _, table := range []string{"reservations", "orders", "outbox"} {
		var n int
		if err := r.db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM "+table).Scan(&n); err != nil || n != 0 {
			t.Errorf("%d rows in %s after bad input: %v", n, table, err)
		}
	}
}

// FuzzReserve sends any bytes as the body of a reservation: it is accepted or
// it is the sender's fault, never ours.
func FuzzReserve(f *testing.F) {
	for _, seed := range []string{`{"user_id":"u1","quantity":1}`, `{"quantity":1e300}`, `{"user_id":"\u0000"}`, `[`, "\xff"} {
		f.Add(seed)
	}
	r := newRig(f, nil)
	_, path := r.sell(f, offer{units: stock.MaxQuantity, perOrder: 9, perUser: stock.MaxQuantity})
	f.Fuzz(func(t *testing.T, body string) {
		req := httptest.NewRequest(http.MethodPost, path+"/reservations", strings.NewReader(body))
		req.Header.Set("Authorization", "Bearer "+serviceKey)
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Idempotency-Key", "fuzz-fuzz")
		w := httptest.NewRecorder()
		r.gateway.ServeHTTP(w, req)
		if w.Code != http.StatusAccepted && (w.Code < 400 || w.Code >= 500) {
			t.Fatalf("%q: %d %s", body, w.Code, w.Body)
		}
	})
}
