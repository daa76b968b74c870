package stockworker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/leadingpeers/seckill/pkg/events"
	"github.com/leadingpeers/seckill/pkg/stock"
)

// inParallel is how many products are worked on at once unless a config says
// otherwise: a transaction waits mostly for the disk, but each holds a connection.
const inParallel = 4

// part is what a batch holds of one product.
type part struct {
	productID string
	events    []events.Event
	asked     []stock.Reservation // from the events, in their order
	decided   []stock.Reservation // as the ledger has them
	err       error
}

// split sorts a batch by product. It refuses the whole batch, with a permanent
// error for each record that is no reservation at all: nothing has been done
// yet, and the Consumer puts them aside.
func split(batch []events.Event, want events.Type) ([]*part, error) {
	byProduct := make(map[string]*part)
	var bad []error
	for _, e := range batch {
		r := stock.Reservation{ID: e.ReservationID, ActivityID: e.ActivityID, ProductID: e.ProductID, UserID: e.UserID, Quantity: e.Quantity}
		if e.Type != want {
			bad = append(bad, events.PermanentOf(e, "", fmt.Errorf("reservation %.40q: event of type %.64q, want %s", e.ReservationID, e.Type, want)))
			continue
		}
		if err := r.Validate(); err != nil {
			bad = append(bad, events.PermanentOf(e, "invalid", fmt.Errorf("%s: %w", want, err)))
			continue
		}
		p := byProduct[r.ProductID]
		if p == nil {
			p = &part{productID: r.ProductID}
			byProduct[r.ProductID] = p
		}
		p.events, p.asked = append(p.events, e), append(p.asked, r)
	}
	if len(bad) > 0 {
		return nil, errors.Join(bad...)
	}
	parts := make([]*part, 0, len(byProduct))
	for _, p := range byProduct {
		parts = append(parts, p)
	}
	slices.SortFunc(parts, func(a, b *part) int { return cmp.Compare(a.productID, b.productID) })
	return parts, nil
}

// change is one of the ledger's transactions: at most stock.MaxBatch
// reservations of one product.
type change func(ctx context.Context, productID string, rs []stock.Reservation) ([]stock.Reservation, error)

// inLedger makes the change for every part and keeps the rows that the ledger
// answers. One product's error stops neither the others nor their results.
func inLedger(ctx context.Context, parts []*part, do change) error {
	each(len(parts), inParallel, func(i int) {
		p := parts[i]
		for asked := range slices.Chunk(p.asked, stock.MaxBatch) {
			rows, err := do(ctx, p.productID, asked)
			if err != nil {
				p.err = p.faultOf(err)
				return
			}
			p.decided = append(p.decided, rows...)
		}
	})
	errs := make([]error, len(parts))
	for i, p := range parts {
		errs[i] = p.err
	}
	return errors.Join(errs...)
}

// faultOf tells what no repetition can cure from what may pass, and whose it is
// where that is known.
func (p *part) faultOf(err error) error {
	forged, ok := errors.AsType[*stock.NotCancelledError](err)
	switch {
	case errors.Is(err, stock.ErrNotFound):
		return p.blame("unknown_product", stock.ErrNotFound, func(events.Event) bool { return true })
	case ok:
		return p.blame("not_cancelled", stock.ErrNotCancelled, func(e events.Event) bool { return slices.Contains(forged.IDs, e.ReservationID) })
	case errors.Is(err, stock.ErrInvalid):
		return events.PermanentAs("invalid", fmt.Errorf("product %s: %w", p.productID, err))
	}
	return fmt.Errorf("product %s: %w", p.productID, err)
}

// blame makes err the permanent fault of each event that has it.
func (p *part) blame(class string, err error, has func(events.Event) bool) error {
	var errs []error
	for _, e := range p.events {
		if has(e) {
			errs = append(errs, events.PermanentOf(e, class, fmt.Errorf("reservation %s of product %s: %w", e.ReservationID, p.productID, err)))
		}
	}
	return errors.Join(errs...)
}

// each calls f for 0 to n-1, a few at a time, and returns when all have ended.
// One at a time, it calls them in their order and from its own goroutine.
func each(n, parallel int, f func(i int)) {
	if n == 1 || parallel == 1 {
		for i := range n {
			f(i)
		}
		return
	}
	var wg sync.WaitGroup
	slots := make(chan struct{}, parallel)
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			f(i)
		})
	}
	wg.Wait()
}
