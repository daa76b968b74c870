package load

import (
	"context"
	"fmt"
	"hash/fnv"
	"sync"
	"time"

	"github.com/leadingpeers/seckill/pkg/events"
)

// Publisher writes events. *events.Publisher is one.
type Publisher interface {
	Publish(ctx context.Context, evs ...events.Event) error
}

// Checkout is the shop's back end: it hears of orders and makes each buyer do
// what the reservation's ID says, so that an event that comes twice is answered
// the same way twice.
type Checkout struct {
	Line      *Line
	Publisher Publisher
	PayWindow time.Duration
	Did       Counts

	later  sync.WaitGroup
	forged sync.Map // by reservation
}

// Handle is an events.Handler for the topic of orders.
func (c *Checkout) Handle(ctx context.Context, batch []events.Event) (next []events.Event, err error) {
	for _, e := range batch {
		if e.Type != events.OrderCreated {
			c.Did.Add("heard " + string(e.Type))
			continue
		}
		pay := events.Event{
			Type: events.PaymentSucceeded, Time: time.Now().UTC(), TraceParent: e.TraceParent,
			ReservationID: e.ReservationID, ProductID: e.ProductID, UserID: e.UserID,
			AmountCents: e.AmountCents, Currency: e.Currency, PaymentRef: "pay-" + e.ReservationID,
		}
		other := pay
		other.PaymentRef = "second-" + e.ReservationID
		switch fate := share(e.ReservationID); {
		case fate < 58:
			c.Did.Add("paid")
			next = append(next, pay)
		case fate < 66:
			c.Did.Add("paid twice")
			next = append(next, pay, pay)
		case fate < 70:
			c.Did.Add("paid by two payments")
			next = append(next, pay, other)
		case fate < 76:
			c.Did.Add("paid too late")
			c.inAWhile(ctx, c.PayWindow+time.Second, func(ctx context.Context) { c.publish(ctx, pay) })
		case fate < 84:
			c.Did.Add("cancelled")
			c.inAWhile(ctx, 0, func(ctx context.Context) { c.cancel(ctx, e) })
		case fate < 87:
			c.Did.Add("paid and cancelled at once")
			next = append(next, pay)
			c.inAWhile(ctx, 0, func(ctx context.Context) { c.cancel(ctx, e) })
		case fate < 90:
			c.Did.Add("payment failed")
			failed := pay
			failed.Type, failed.AmountCents, failed.Currency = events.PaymentFailed, 0, ""
			next = append(next, failed)
		case fate < 91:
			c.Did.Add("paid, then a forged rollback")
			next = append(next, pay)
			if _, again := c.forged.LoadOrStore(e.ReservationID, true); again {
				continue // each costs a dead letter and its halving
			}
			forged := events.Event{
				Type: events.StockRollback, Time: time.Now().UTC(), ReservationID: e.ReservationID, ActivityID: e.ActivityID,
				ProductID: e.ProductID, UserID: e.UserID, Quantity: 999, Reason: "forged",
			}
			c.inAWhile(ctx, time.Second, func(ctx context.Context) { c.publish(ctx, forged) })
		case fate < 94:
			c.Did.Add("paid, then cancelled")
			next = append(next, pay)
			c.inAWhile(ctx, 2*time.Second, func(ctx context.Context) { c.cancel(ctx, e) })
		default:
			c.Did.Add("abandoned")
		}
	}
	return next, nil
}

// inAWhile does something later, beside the handler.
func (c *Checkout) inAWhile(ctx context.Context, d time.Duration, do func(context.Context)) {
	ctx = context.WithoutCancel(ctx)
	c.later.Go(func() {
		time.Sleep(d)
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		do(ctx)
	})
}

// Wait returns when nothing is left to do later.
func (c *Checkout) Wait() { c.later.Wait() }

func (c *Checkout) publish(ctx context.Context, e events.Event) {
	for c.Publisher.Publish(ctx, e) != nil && ctx.Err() == nil {
		time.Sleep(200 * time.Millisecond)
	}
}

func (c *Checkout) cancel(ctx context.Context, e events.Event) {
	path := "/v1/activities/" + e.ActivityID + "/products/" + e.ProductID + "/reservations/" + e.ReservationID + "/cancel"
	a, err := c.Line.Insist(ctx, Ask{Method: "POST", Path: path, Body: fmt.Appendf(nil, `{"user_id":%q}`, e.UserID)})
	if err == nil {
		c.Did.Add(fmt.Sprint("cancel answered ", a.Status, " ", a.Code))
	}
}

// share maps a reservation evenly onto 0 to 99.
func share(id string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(id))
	return h.Sum32() % 100
}
