// Package settleworker turns deductions into orders and orders into money or
// back into stock: the handlers [Settle] and [Payment], and three background
// services, [Expirer], [Relay] and [Sweeper].
//
// Every step may be done twice, late or out of order without a second order, a
// second payment or a second return of units. Several copies work side by side
// and none of them leads.
package settleworker

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/leadingpeers/seckill/internal/fault"
	"github.com/leadingpeers/seckill/pkg/catalog"
	"github.com/leadingpeers/seckill/pkg/events"
	"github.com/leadingpeers/seckill/pkg/order"
	"github.com/leadingpeers/seckill/pkg/stock"
)

// Pricer tells what products cost and how long a buyer may take to pay; it
// leaves out what it does not know. *catalog.Store is one.
type Pricer interface {
	Offers(ctx context.Context, productIDs []string) (map[string]catalog.Offer, error)
}

// Placer writes orders, one for each reservation, and returns them as they
// stand. *order.Store is one.
type Placer interface {
	Place(ctx context.Context, orders []order.Order) ([]order.Order, error)
}

// Settle returns the handler of the topic deductions. It places an order for
// each deduction, at the catalogue's price, and answers the event of the state
// in which the order stands: OrderCreated for a new one.
//
// For an order that was there already the event is published again, because
// nobody knows whether the first one was written. It is the event of its
// present state, not OrderCreated in any case: a reader that missed the first
// one learns all of it from OrderPaid or OrderCancelled too, and nobody is
// asked to collect money for an order that no longer waits for any.
//
// A fault is worth repeating, and repeating is harmless. An error that is
// events.Permanent comes from a record that no repetition can cure: not a
// stock.deducted, an impossible identity, a product that the catalogue does not
// have, or an amount or a time to pay that no order can have. Nothing has
// changed for it.
func Settle(catalogue Pricer, orders Placer) events.Handler {
	return func(ctx context.Context, batch []events.Event) ([]events.Event, error) {
		next := make([]events.Event, 0, len(batch))
		for some := range slices.Chunk(batch, order.MaxBatch) {
			told, err := settle(ctx, catalogue, orders, some)
			next = append(next, told...)
			if err != nil {
				return next, err
			}
		}
		return next, nil
	}
}

func settle(ctx context.Context, catalogue Pricer, orders Placer, batch []events.Event) ([]events.Event, error) {
	wanted, err := price(ctx, catalogue, batch)
	if err != nil {
		return nil, err
	}
	placed, err := orders.Place(ctx, wanted)
	if errors.Is(err, order.ErrInvalid) {
		return nil, events.PermanentAs("invalid", err)
	}
	if err != nil {
		return nil, fmt.Errorf("settle %d reservations: %w", len(batch), err)
	}
	fault.Point(fault.AfterOrder)
	next := make([]events.Event, len(placed))
	for i, o := range placed {
		next[i] = fact(o, batch[i].TraceParent)
	}
	return next, nil
}

// price makes the orders of a batch of deductions.
func price(ctx context.Context, catalogue Pricer, batch []events.Event) ([]order.Order, error) {
	var products []string
	var bad []error
	for _, e := range batch {
		bad = append(bad, check(e, events.StockDeducted))
		products = append(products, e.ProductID)
	}
	if err := errors.Join(bad...); err != nil {
		return nil, err
	}
	slices.Sort(products)
	products = slices.Compact(products)
	offers, err := catalogue.Offers(ctx, products)
	if err != nil {
		return nil, fmt.Errorf("look up the offers of %d products: %w", len(products), err)
	}
	orders := make([]order.Order, len(batch))
	for i, e := range batch {
		offer, ok := offers[e.ProductID]
		if !ok {
			bad[i] = events.PermanentOf(e, "unknown_product", fmt.Errorf("reservation %s: product %s is not in the catalogue", e.ReservationID, e.ProductID))
			continue
		}
		if offer.PriceCents > math.MaxInt64/e.Quantity {
			bad[i] = events.PermanentOf(e, "", fmt.Errorf("reservation %s: %d units at %d cents are beyond counting", e.ReservationID, e.Quantity, offer.PriceCents))
			continue
		}
		orders[i] = order.Order{
			ReservationID: e.ReservationID,
			ActivityID:    offer.ActivityID,
			ProductID:     e.ProductID,
			UserID:        e.UserID,
			Quantity:      e.Quantity,
			AmountCents:   offer.PriceCents * e.Quantity,
			Currency:      offer.Currency,
			PayWindow:     offer.PayWindow,
		}
	}
	return orders, errors.Join(bad...)
}

// check refuses with a permanent error what is not the event of a reservation.
func check(e events.Event, want events.Type) error {
	if e.Type != want {
		return events.PermanentOf(e, "", fmt.Errorf("reservation %.40q: event of type %.64q, want %s", e.ReservationID, e.Type, want))
	}
	r := stock.Reservation{ID: e.ReservationID, ProductID: e.ProductID, UserID: e.UserID, Quantity: e.Quantity}
	if err := r.Validate(); err != nil {
		return events.PermanentOf(e, "invalid", fmt.Errorf("%s: %w", want, err))
	}
	return nil
}

// fact is the event of the state in which an order stands.
func fact(o order.Order, trace string) events.Event {
	e := events.Event{
		Time:          o.UpdatedAt,
		TraceParent:   trace,
		ReservationID: o.ReservationID,
		ActivityID:    o.ActivityID,
		ProductID:     o.ProductID,
		UserID:        o.UserID,
		Quantity:      o.Quantity,
		Reason:        o.Reason,
		OrderID:       o.ID,
		AmountCents:   o.AmountCents,
		Currency:      o.Currency,
		PaymentRef:    o.PaymentRef,
	}
	switch o.State {
	case order.AwaitingPayment:
		e.Type, e.Time, e.PayDeadline = events.OrderCreated, o.CreatedAt, o.PayDeadline
	case order.Paid:
		e.Type = events.OrderPaid
	case order.Cancelled:
		e.Type = events.OrderCancelled
	}
	return e
}

// announce is what the outbox carries when an order is cancelled: the fact, and
// the event that gives its units back.
func announce(o order.Order) []order.Message { return announceIn("")(o) }

// announceIn is announce for what belongs to a trace.
func announceIn(trace string) func(order.Order) []order.Message {
	return func(o order.Order) []order.Message {
		e := back(o)
		e.TraceParent = trace
		return []order.Message{message(fact(o, trace)), message(e)}
	}
}

// back is the event that gives the units of a cancelled order back.
func back(o order.Order) events.Event {
	return events.Event{
		Type:          events.StockRollback,
		Time:          o.UpdatedAt,
		ReservationID: o.ReservationID,
		ActivityID:    o.ActivityID,
		ProductID:     o.ProductID,
		UserID:        o.UserID,
		Quantity:      o.Quantity,
		Reason:        o.Reason,
	}
}

// message encodes an event for the outbox. An order of the database that is not
// a valid event is a broken invariant: without the message its units would
// never return.
func message(e events.Event) order.Message {
	body, err := events.Encode(e)
	if err != nil {
		panic(fmt.Sprintf("encode %s of order %s: %v", e.Type, e.OrderID, err))
	}
	return order.Message{Type: string(e.Type), Body: body, TraceParent: e.TraceParent}
}
