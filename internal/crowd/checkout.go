package crowd

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leadingpeers/seckill/pkg/events"
)

// Checkout plays the shop's own back end: it reads order events and makes each
// buyer pay, cancel, pay twice or let the time-out pass.
type Checkout struct {
	Gateways []string         // where it cancels, base URLs
	Key      string           // its service key
	Cancel   float64          // share of the orders that the buyer cancels
	Abandon  float64          // share that nobody pays
	Now      func() time.Time // when a payment happens

	Paid, Cancelled, Abandoned atomic.Int64 // events handled, repetitions included
}

// Handle is an events.Handler for the topic of orders. What a buyer does
// depends only on the reservation, so an event that comes twice is answered
// the same way twice.
func (c *Checkout) Handle(ctx context.Context, batch []events.Event) ([]events.Event, error) {
	var next, cancelled []events.Event
	for _, e := range batch {
		if e.Type != events.OrderCreated {
			continue
		}
		switch fate := share(e.ReservationID); {
		case fate < c.Cancel:
			cancelled = append(cancelled, e)
		case fate < c.Cancel+c.Abandon:
			c.Abandoned.Add(1)
		default:
			next = append(next, events.Event{
				Type: events.PaymentSucceeded, Time: c.Now().UTC(), TraceParent: e.TraceParent,
				ReservationID: e.ReservationID, ProductID: e.ProductID, UserID: e.UserID,
				AmountCents: e.AmountCents, Currency: e.Currency, PaymentRef: "pay-" + e.ReservationID,
			})
			c.Paid.Add(1)
		}
	}
	return next, c.cancelAll(ctx, cancelled)
}

// cancelAll cancels a few at a time: those who pay must not wait for them.
func (c *Checkout) cancelAll(ctx context.Context, evs []events.Event) error {
	errs := make([]error, len(evs))
	var wg sync.WaitGroup
	slots := make(chan struct{}, 16)
	for i, e := range evs {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			errs[i] = c.cancel(ctx, e)
			c.Cancelled.Add(1)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// cancel asks the gateways in turn. Any answer below 500 is final: an order
// that is paid or past its deadline cannot be cancelled any more.
func (c *Checkout) cancel(ctx context.Context, e events.Event) error {
	body := fmt.Appendf(nil, `{"user_id":%q}`, e.UserID)
	var last error
	for _, gateway := range c.Gateways {
		url := gateway + "/v1/activities/" + e.ActivityID + "/products/" + e.ProductID + "/reservations/" + e.ReservationID + "/cancel"
		req, err := post(ctx, c.Key, url, body)
		if err != nil {
			return err
		}
		status, answer, err := call(http.DefaultClient, req)
		if err == nil && status < 500 && !answer.Retryable {
			return nil
		}
		if err == nil {
			err = fmt.Errorf("status %d %s", status, answer.Code)
		}
		last = fmt.Errorf("cancel %s at %s: %w", e.ReservationID, gateway, err)
	}
	return last
}

// share maps a reservation evenly onto [0, 1).
func share(id string) float64 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(id))
	return float64(h.Sum32()%10_000) / 10_000
}
