package gateway_test

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/leadingpeers/seckill/internal/gateway"
	"github.com/leadingpeers/seckill/pkg/events"
	"github.com/leadingpeers/seckill/pkg/order"
	"github.com/leadingpeers/seckill/pkg/stock"
)

func TestLongPoll(t *testing.T) {
	waiting := make(chan bool, 1)
	r := newRig(t, func(c *gateway.Config) {
		c.MaxWaiting = 1
		c.Cache = tellingCache{Cache: c.Cache, looks: new(atomic.Int64), asked: func() { waiting <- true }}
	})
	_, path := r.sell(t, offer{units: 10, perOrder: 1, perUser: 5})
	mine := r.reserve(t, path, "u1", "key-of-u1", 1).must(t, http.StatusAccepted)
	get := path + "/reservations/" + mine.ReservationID + "?user_id=u1"

	done := make(chan answer, 1)
	go func() { done <- r.call(t, serviceKey, "GET", get+"&wait=1h", "") }()
	<-waiting
	r.call(t, serviceKey, "GET", get+"&wait=1s", "").is(t, 429, "too_many_waiting", "one may wait at a time")
	r.call(t, serviceKey, "GET", get, "").must(t, http.StatusOK)
	r.deduct(t, mine)
	r.place(t, mine)
	placed := time.Now()
	seen := <-done
	if took := time.Since(placed); seen.State != "awaiting_payment" || took > 2*time.Second {
		t.Errorf("woke %s after the order with %s", took, seen.text)
	}
	start := time.Now()
	if seen = r.call(t, serviceKey, "GET", get+"&wait=20s", ""); seen.State != "awaiting_payment" || time.Since(start) > 5*time.Second {
		t.Errorf("waited %s for what was there: %s", time.Since(start), seen.text)
	}

	other := r.reserve(t, path, "u2", "key-of-u2", 1).must(t, http.StatusAccepted)
	start = time.Now()
	seen = r.call(t, serviceKey, "GET", path+"/reservations/"+other.ReservationID+"?user_id=u2&wait=300ms", "").must(t, http.StatusOK)
	if took := time.Since(start); seen.State != "queued" || took < 300*time.Millisecond || seen.header.Get("Retry-After") == "" {
		t.Errorf("after %s: %s", took, seen.text)
	}
}

// TestLongPollOutlivesTheServersTimeouts waits longer than other requests may
// take.
func TestLongPollOutlivesTheServersTimeouts(t *testing.T) {
	r := newRig(t, nil)
	_, path := r.sell(t, offer{units: 10, perOrder: 1, perUser: 5})
	mine := r.reserve(t, path, "u1", "key-of-u1", 1).must(t, http.StatusAccepted)
	const limit, wanted = 300 * time.Millisecond, time.Second
	hasty := r.besideServing(t, nil, func(s *http.Server) { s.ReadTimeout, s.WriteTimeout = limit, limit })
	start := time.Now()
	seen := hasty.call(t, serviceKey, "GET", path+"/reservations/"+mine.ReservationID+"?user_id=u1&wait="+wanted.String(), "")
	if took := time.Since(start); seen.State != "queued" || took < wanted {
		t.Errorf("after %s of %s: %s", took, wanted, seen.text)
	}
}

func TestShutdownEndsLongPolls(t *testing.T) {
	r := newRig(t, nil)
	_, path := r.sell(t, offer{units: 10, perOrder: 1, perUser: 5})
	mine := r.reserve(t, path, "u1", "key-of-u1", 1).must(t, http.StatusAccepted)
	waiting := make(chan bool, 1)
	r2 := r.beside(t, func(c *gateway.Config) {
		c.Cache = tellingCache{Cache: c.Cache, looks: new(atomic.Int64), asked: func() { waiting <- true }}
	})
	done := make(chan answer, 1)
	go func() {
		done <- r2.call(t, serviceKey, "GET", path+"/reservations/"+mine.ReservationID+"?user_id=u1&wait=20s", "")
	}()
	<-waiting
	start := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	if err := r2.server.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	seen := <-done
	if took := time.Since(start); took > 5*time.Second || seen.status != http.StatusOK || seen.State != "queued" {
		t.Errorf("drained after %s: %d %s", took, seen.status, seen.text)
	}
}

// tellingCache tells when a long poll looks for the second time: it waits then.
type tellingCache struct {
	gateway.Cache
	looks *atomic.Int64
	asked func()
}

func (c tellingCache) Find(ctx context.Context, productID, userID, id string) (stock.Reservation, error) {
	if c.looks.Add(1) == 2 {
		c.asked()
	}
	return c.Cache.Find(ctx, productID, userID, id)
}

func TestCancel(t *testing.T) {
	r := newRig(t, nil)
	product, path := r.sell(t, offer{units: 10, perOrder: 2, perUser: 5})
	mine := r.reserve(t, path, "u1", "key-of-u1", 2).must(t, http.StatusAccepted)
	paid := r.reserve(t, path, "u2", "key-of-u2", 1).must(t, http.StatusAccepted)
	cancel := func(a answer, user string) answer {
		return r.call(t, serviceKey, "POST", path+"/reservations/"+a.ReservationID+"/cancel", `{"user_id":"`+user+`"}`,
			"Traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	}
	cancel(mine, "u1").is(t, 409, "order_not_ready", "pending")
	r.deduct(t, mine)
	cancel(mine, "u1").is(t, 409, "order_not_ready", "deducted, the order is being written")
	placed := r.place(t, mine)
	cancel(mine, "u2").is(t, 404, "reservation_not_found", "somebody else's")
	r.call(t, adminKey, "POST", path+"/reservations/"+mine.ReservationID+"/cancel", `{"user_id":"u1"}`).is(t, 403, "forbidden", "an operator is not the buyer's service")

	for range 3 {
		seen := cancel(mine, "u1").must(t, http.StatusOK)
		if seen.State != "released" || seen.Reason != "cancelled" || seen.OrderID != placed.ID {
			t.Errorf("cancelled: %s", seen.text)
		}
	}
	var got []events.Event
	_, err := r.orders.Relay(t.Context(), 100, func(_ context.Context, messages []order.Message) error {
		for _, m := range messages {
			e, err := events.Decode(events.Type(m.Type), m.Body)
			if err != nil {
				return err
			}
			if !strings.HasPrefix(m.TraceParent, "00-4bf92f3577b34da6a3ce929d0e0e4736-") {
				t.Errorf("trace %q", m.TraceParent)
			}
			if err := e.Validate(); err != nil {
				t.Error(err)
			}
			got = append(got, e)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []events.Event{
		{
			Type: events.OrderCancelled, ReservationID: mine.ReservationID, ActivityID: mine.ActivityID, ProductID: product, UserID: "u1", Quantity: 2,
			Reason: "cancelled", OrderID: placed.ID, AmountCents: 2 * 499900, Currency: "CNY",
		},
		{
			Type: events.StockRollback, ReservationID: mine.ReservationID, ActivityID: mine.ActivityID, ProductID: product, UserID: "u1", Quantity: 2,
			Reason: "cancelled",
		},
	}
	slices.SortFunc(got, func(a, b events.Event) int { return strings.Compare(string(a.Type), string(b.Type)) })
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("three cancels left this in the outbox: %s", diff)
	}

	r.deduct(t, paid)
	r.place(t, paid)
	r.pay(t, paid)
	cancel(paid, "u2").is(t, 409, "order_paid", "paid is final")
	if seen := r.call(t, serviceKey, "GET", path+"/reservations/"+paid.ReservationID+"?user_id=u2", ""); seen.State != "paid" {
		t.Errorf("after a cancel that was refused: %s", seen.text)
	}
}
