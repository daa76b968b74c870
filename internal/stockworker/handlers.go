// Package stockworker decides in the ledger about what Redis has admitted, and
// keeps Redis in agreement with it: the handlers [Deduct] and [Rollback], and
// two background services, [Reaper] and [Healer].
//
// Every step may be done twice, late or out of order without moving a unit
// twice. Several copies work side by side and none of them leads.
package stockworker

import (
	"context"
	"errors"
	"fmt"

	"github.com/leadingpeers/seckill/internal/fault"
	"github.com/leadingpeers/seckill/pkg/events"
	"github.com/leadingpeers/seckill/pkg/stock"
)

// Applier makes Redis agree with the ledger about reservations. A product that
// is not in Redis is skipped. *stock.Cache is one.
type Applier interface {
	Apply(ctx context.Context, rs []stock.Reservation) (stock.Applied, error)
}

// Deductor takes units in the ledger, or refuses to. *stock.Ledger is one.
type Deductor interface {
	Deduct(ctx context.Context, productID string, rs []stock.Reservation) ([]stock.Reservation, error)
}

// Returner gives units back in the ledger. *stock.Ledger is one.
type Returner interface {
	Rollback(ctx context.Context, productID string, rs []stock.Reservation) ([]stock.Reservation, error)
}

// Deduct returns the handler of the topic reservations. It lets the ledger
// decide about each reservation, one transaction for each product of the batch,
// and answers one event for each: StockDeducted, or StockRollback for what was
// refused. A reservation that was decided before gets the same event again,
// because nobody knows whether the first one was written, unless what follows
// from it is there: see said.
// Then it tells Redis, of refusals too: should Kafka lose the rollback that
// follows from one, and Redis have lost the reservation, nobody else would.
//
// With an error it also returns the events of all that has been decided; they
// are true whatever becomes of the rest. A fault is worth repeating, and
// repeating is harmless. An error that is events.Permanent comes from a record
// that no repetition can cure: not a reservation.created, an impossible
// identity, or a product that the ledger does not have. Nothing has changed
// for such a record.
func Deduct(cache Applier, ledger Deductor) events.Handler {
	return func(ctx context.Context, batch []events.Event) ([]events.Event, error) {
		parts, err := split(batch, events.ReservationCreated)
		if err != nil {
			return nil, err
		}
		err = inLedger(ctx, parts, ledger.Deduct)
		fault.Point(fault.AfterLedger)
		causes := make(map[string]events.Event, len(batch))
		for _, e := range batch {
			causes[e.ReservationID] = e
		}
		var next []events.Event
		var rows []stock.Reservation
		for _, p := range parts {
			for _, row := range p.decided {
				if !said(row) {
					next = append(next, decision(row, causes[row.ID]))
				}
			}
			rows = append(rows, p.decided...)
		}
		return next, errors.Join(err, tell(ctx, cache, rows))
	}
}

// said is whether the event of a row was written for certain, because its
// effect is there: nothing but a StockDeducted makes an order, and nothing but a
// StockRollback a row that is rolled back. Both are final, so it need not be
// written again. If it were, each replay of the reservations would make the
// topics behind it longer, and the next replay slower.
func said(row stock.Reservation) bool { return row.Settled || row.State == stock.RolledBack }

// decision is the event of what the ledger holds about a reservation: identity
// and units are the ledger's, the activity and the trace come from the event
// that caused it, because the ledger does not keep them. It happens now: the
// Publisher puts the time in.
func decision(row stock.Reservation, cause events.Event) events.Event {
	kind := events.StockRollback
	if row.State == stock.Deducted {
		kind = events.StockDeducted
	}
	return events.Event{
		Type:          kind,
		TraceParent:   cause.TraceParent,
		ReservationID: row.ID,
		ActivityID:    cause.ActivityID,
		ProductID:     row.ProductID,
		UserID:        row.UserID,
		Quantity:      row.Quantity,
		Reason:        row.Reason,
	}
}

// Rollback returns the handler of the topic rollbacks. It gives the units of
// each reservation back in the ledger, once, and then in Redis, once. User and
// quantity are the ledger's own; what the event says of them counts only for a
// reservation that the ledger has never seen, which becomes a tombstone there.
// Nothing follows from it.
//
// A fault is worth repeating, and repeating is harmless. An error that is
// events.Permanent comes from a record that no repetition can cure: not a
// stock.rollback, an impossible identity, a product that the ledger does not
// have, or a deducted reservation whose order is not cancelled: a forged
// rollback. Nothing has changed for it, nor for the records of the same
// product in this batch.
func Rollback(cache Applier, ledger Returner) events.Handler {
	return func(ctx context.Context, batch []events.Event) ([]events.Event, error) {
		parts, err := split(batch, events.StockRollback)
		if err != nil {
			return nil, err
		}
		err = inLedger(ctx, parts, ledger.Rollback)
		fault.Point(fault.AfterRollback)
		var rows []stock.Reservation
		for _, p := range parts {
			rows = append(rows, p.decided...)
		}
		return nil, errors.Join(err, tell(ctx, cache, rows))
	}
}

// tell makes Redis agree with rows of the ledger. Products that are not in
// Redis need no telling: they are loaded from the ledger.
func tell(ctx context.Context, cache Applier, rows []stock.Reservation) error {
	if len(rows) == 0 {
		return nil
	}
	if _, err := cache.Apply(ctx, rows); err != nil {
		return fmt.Errorf("tell Redis of %d decisions: %w", len(rows), err)
	}
	return nil
}
