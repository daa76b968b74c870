package settleworker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/leadingpeers/seckill/internal/fault"
	"github.com/leadingpeers/seckill/pkg/events"
	"github.com/leadingpeers/seckill/pkg/order"
	"github.com/leadingpeers/seckill/pkg/stock"
)

// Closer ends an order one way or the other. *order.Store is one.
type Closer interface {
	PayAll(ctx context.Context, payments []order.Payment) (map[string]order.Order, error)
	Ended(ctx context.Context, payments []order.Payment) (map[order.Payment]order.Outcome, error)
	Pay(ctx context.Context, p order.Payment) (order.Order, error)
	Cancel(ctx context.Context, reservationID, reason string, announce func(order.Order) []order.Message) (order.Order, error)
}

// Finder looks a reservation up in the ledger. *stock.Ledger is one.
type Finder interface {
	Find(ctx context.Context, reservationID string) (stock.Reservation, error)
}

// Reasons that this package gives in events and in orders.
const (
	PaymentFailed = "payment_failed" // the buyer will not pay
	TooLate       = "too_late"       // refund: the order was cancelled before the money came
	AlreadyPaid   = "already_paid"   // refund: another payment has paid the order
)

// paymentsInParallel bounds how many reservations are worked on at once. Each
// is a transaction of its own that waits for the disk, and the database writes
// those that wait together in one go.
const paymentsInParallel = 8

// Payment returns the handler of the topic payments. A payment.succeeded pays
// the order and answers OrderPaid; money that the order cannot take, because it
// was cancelled or another payment has paid it, answers OrderRefundDue and
// changes nothing. A payment.failed cancels the order, whose events then come
// from the outbox, unless it is paid. The events of one reservation are handled
// in their order.
//
// With an error it also returns the events of all that has been done. A fault
// is worth repeating, and repeating is harmless: the same payment gets the same
// answer. So is a payment for an order that is not written yet though its units
// are deducted. An error that is events.Permanent comes from a record that no
// repetition can cure: another type of event, an impossible identity or payment
// reference, an amount that is not the order's, a reference that belongs to
// another order, or a reservation that never became an order. Nothing has changed for it; the
// money needs a human.
func Payment(orders Closer, ledger Finder) events.Handler {
	return func(ctx context.Context, batch []events.Event) ([]events.Event, error) {
		answers := make([]events.Event, len(batch)) // of no type where nothing follows
		errs := make([]error, len(batch))
		groups := byReservation(batch)
		paid, err := orders.PayAll(ctx, plain(groups, batch))
		if err != nil {
			return nil, err
		}
		fault.Point(fault.AfterPayment)
		rest, left := groups[:0], []order.Payment(nil)
		for _, indexes := range groups {
			if o, ok := paid[batch[indexes[0]].ReservationID]; ok {
				answers[indexes[0]] = fact(o, batch[indexes[0]].TraceParent)
				continue
			}
			rest = append(rest, indexes)
			for _, i := range indexes {
				if batch[i].Type == events.PaymentSucceeded {
					left = append(left, paymentOf(batch[i]))
				}
			}
		}
		ended, err := orders.Ended(ctx, left)
		if err == nil {
			each(rest, func(indexes []int) {
				for _, i := range indexes {
					answers[i], errs[i] = pay(ctx, orders, ledger, batch[i], ended)
				}
			})
		}
		next := slices.DeleteFunc(answers, func(e events.Event) bool { return e.Type == "" })
		return next, errors.Join(append(errs, err)...)
	}
}

// paymentOf is the payment that an event tells of.
func paymentOf(e events.Event) order.Payment {
	return order.Payment{ReservationID: e.ReservationID, Ref: e.PaymentRef, AmountCents: e.AmountCents}
}

// byReservation groups the indexes of a batch by reservation.
func byReservation(batch []events.Event) [][]int {
	var groups [][]int
	at := make(map[string]int, len(batch))
	for i, e := range batch {
		g, ok := at[e.ReservationID]
		if !ok {
			g = len(groups)
			at[e.ReservationID] = g
			groups = append(groups, nil)
		}
		groups[g] = append(groups[g], i)
	}
	return groups
}

// plain are the payments that are their reservation's only event in the batch:
// the ordinary case, which may be paid together.
func plain(groups [][]int, batch []events.Event) []order.Payment {
	var out []order.Payment
	for _, g := range groups {
		if e := batch[g[0]]; len(g) == 1 && e.Type == events.PaymentSucceeded {
			out = append(out, paymentOf(e))
		}
	}
	return out
}

// each calls f for every group, a few at a time, and returns when all have ended.
func each(groups [][]int, f func(indexes []int)) {
	if len(groups) == 1 {
		f(groups[0])
		return
	}
	var wg sync.WaitGroup
	slots := make(chan struct{}, paymentsInParallel)
	for _, g := range groups {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			f(g)
		})
	}
	wg.Wait()
}

// pay handles one payment event and returns the event that follows, if any.
func pay(ctx context.Context, orders Closer, ledger Finder, e events.Event, ended map[order.Payment]order.Outcome) (events.Event, error) {
	none := events.Event{}
	if !stock.ValidID(e.ReservationID) {
		return none, events.PermanentOf(e, "", fmt.Errorf("%.64q: not a reservation ID: %.40q", e.Type, e.ReservationID))
	}
	switch {
	case e.Type == events.PaymentSucceeded:
		known, ok := ended[paymentOf(e)]
		o, err := known.Order, known.Err
		if !ok {
			o, err = orders.Pay(ctx, paymentOf(e))
		}
		switch {
		case err == nil:
			return fact(o, e.TraceParent), nil
		case errors.Is(err, order.ErrTooLate):
			return refund(e, o, TooLate), nil
		case errors.Is(err, order.ErrPaid):
			return refund(e, o, AlreadyPaid), nil
		}
		return none, unpaid(ctx, ledger, e, err)
	case e.Type == events.PaymentFailed:
		_, err := orders.Cancel(ctx, e.ReservationID, PaymentFailed, announceIn(e.TraceParent))
		if err == nil || errors.Is(err, order.ErrPaid) {
			return none, nil
		}
		return none, unpaid(ctx, ledger, e, err)
	default:
		return none, events.PermanentOf(e, "", fmt.Errorf("reservation %s: event of type %.64q on the topic of payments", e.ReservationID, e.Type))
	}
}

// unpaid tells what no repetition can cure from what may pass.
func unpaid(ctx context.Context, ledger Finder, e events.Event, cause error) error {
	err := fmt.Errorf("%s of %s, payment %.64q: %w", e.Type, e.ReservationID, e.PaymentRef, cause)
	switch {
	case errors.Is(cause, order.ErrAmount), errors.Is(cause, order.ErrRefUsed), errors.Is(cause, order.ErrInvalid):
		return events.PermanentOf(e, "", err)
	case !errors.Is(cause, order.ErrNotFound):
		return err
	}
	row, lookup := ledger.Find(ctx, e.ReservationID)
	switch {
	case lookup == nil && row.State == stock.Deducted:
		return err // its order is still to come: the Sweeper sees to that
	case lookup == nil || errors.Is(lookup, stock.ErrNotFound):
		return events.PermanentOf(e, "", err)
	}
	return fmt.Errorf("look for reservation %s in the ledger: %w", e.ReservationID, lookup)
}

// refund tells that the money of payment e must go back: order o cannot take it.
func refund(e events.Event, o order.Order, reason string) events.Event {
	return events.Event{
		Type:          events.OrderRefundDue,
		Time:          e.Time,
		TraceParent:   e.TraceParent,
		ReservationID: e.ReservationID,
		ActivityID:    o.ActivityID,
		ProductID:     o.ProductID,
		UserID:        o.UserID,
		Quantity:      o.Quantity,
		Reason:        reason,
		OrderID:       o.ID,
		AmountCents:   e.AmountCents, // what was paid, whatever the order costs
		Currency:      e.Currency,
		PaymentRef:    e.PaymentRef,
	}
}
