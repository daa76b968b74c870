package order

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// MaxStuck is the most orders that Unsettled and Unreturned return at once.
const MaxStuck = 10_000

// Unsettled returns up to limit (at most [MaxStuck]) orders that should exist:
// one for each reservation that was deducted more than olderThan ago, by the
// database's clock, and has no order, the oldest first. Only the reservation's
// activity, product, user and quantity are filled in, and CreatedAt with the
// time of the deduction. Their deductions were lost on the way and want to be
// told again. It looks up an order for every deducted reservation, without a
// lock: about once a minute, not more.
func (s *Store) Unsettled(ctx context.Context, olderThan time.Duration, limit int) ([]Order, error) {
	out, err := s.stuck(ctx, sqlUnsettled, reserved, olderThan, limit)
	if err != nil {
		return nil, fmt.Errorf("read unsettled reservations: %w", err)
	}
	return out, nil
}

// Unreturned returns up to limit (at most [MaxStuck]) orders that were
// cancelled more than olderThan ago, by the database's clock, and whose
// reservation is still deducted. Their rollbacks were lost on the way and want
// to be told again. It looks up the reservation of every cancelled order,
// without a lock: about once a minute, not more.
func (s *Store) Unreturned(ctx context.Context, olderThan time.Duration, limit int) ([]Order, error) {
	out, err := s.stuck(ctx, sqlUnreturned, find, olderThan, limit)
	if err != nil {
		return nil, fmt.Errorf("read unreturned orders: %w", err)
	}
	return out, nil
}

// stuck reads what search finds older than a time, in its order.
func (s *Store) stuck(ctx context.Context, search string, read reader, olderThan time.Duration, limit int) ([]Order, error) {
	ids, err := selectIDs(ctx, s.db, search, -olderThan.Microseconds(), min(limit, MaxStuck))
	if err != nil {
		return nil, err
	}
	var out []Order
	for part := range slices.Chunk(ids, MaxBatch) {
		found, err := read(ctx, s.db, part)
		if err != nil {
			return nil, err
		}
		for _, id := range part {
			out = append(out, found[id])
		}
	}
	return out, nil
}

// reader is find or reserved.
type reader func(ctx context.Context, q queryer, reservationIDs []string) (map[string]Order, error)

// Tally is a number of orders and the units in them.
type Tally struct{ Orders, Units int64 }

// Counts are a product's orders by state.
type Counts struct{ Awaiting, Paid, Cancelled Tally }

// Counts returns the product's orders by state, as of one instant. It reads an
// index entry per order: for reconciliation, not for the hot path.
func (s *Store) Counts(ctx context.Context, productID string) (Counts, error) {
	var c Counts
	rows, err := s.db.QueryContext(ctx, sqlCounts, productID)
	if err != nil {
		return c, fmt.Errorf("count orders of %s: %w", productID, err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var state State
		var t Tally
		if err := rows.Scan(&state, &t.Orders, &t.Units); err != nil {
			return Counts{}, fmt.Errorf("count orders of %s: %w", productID, err)
		}
		switch state {
		case AwaitingPayment:
			c.Awaiting = t
		case Paid:
			c.Paid = t
		case Cancelled:
			c.Cancelled = t
		}
	}
	if err := rows.Err(); err != nil {
		return Counts{}, fmt.Errorf("count orders of %s: %w", productID, err)
	}
	return c, nil
}
