package order

import (
	"context"
	"fmt"
	"time"

	"github.com/leadingpeers/seckill/internal/mysql"
)

// Unsettled returns up to limit (at most [MaxBatch]) orders that should exist:
// one for each reservation that was deducted more than olderThan ago, by the
// database's clock, and has no order, the oldest first. Only the reservation's
// activity, product, user and quantity are filled in, and CreatedAt with the time of the
// deduction. Their deductions were lost on the way and want to be told again.
func (s *Store) Unsettled(ctx context.Context, olderThan time.Duration, limit int) ([]Order, error) {
	rows, err := s.db.QueryContext(ctx, sqlUnsettled, -olderThan.Microseconds(), min(limit, MaxBatch))
	if err != nil {
		return nil, fmt.Errorf("read unsettled reservations: %w", err)
	}
	defer func() { _ = rows.Close() }()
	var out []Order
	for rows.Next() {
		var o Order
		err := rows.Scan((*mysql.ID)(&o.ReservationID), &o.ActivityID, &o.ProductID, &o.UserID, &o.Quantity, &o.CreatedAt)
		if err != nil {
			return nil, fmt.Errorf("read unsettled reservations: %w", err)
		}
		out = append(out, o)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read unsettled reservations: %w", err)
	}
	return out, nil
}

// Unreturned returns up to limit (at most [MaxBatch]) orders that were
// cancelled more than olderThan ago, by the database's clock, and whose
// reservation is still deducted. Their rollbacks were lost on the way and want
// to be told again.
func (s *Store) Unreturned(ctx context.Context, olderThan time.Duration, limit int) ([]Order, error) {
	out, err := s.unreturned(ctx, olderThan, min(limit, MaxBatch))
	if err != nil {
		return nil, fmt.Errorf("read unreturned orders: %w", err)
	}
	return out, nil
}

func (s *Store) unreturned(ctx context.Context, olderThan time.Duration, limit int) ([]Order, error) {
	rows, err := s.db.QueryContext(ctx, sqlUnreturned, -olderThan.Microseconds(), limit)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var ids []string
	for rows.Next() {
		var id mysql.ID
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		ids = append(ids, string(id))
	}
	if err := rows.Err(); err != nil || len(ids) == 0 {
		return nil, err
	}
	found, err := find(ctx, s.db, ids)
	if err != nil {
		return nil, err
	}
	out := make([]Order, len(ids))
	for i, id := range ids {
		out[i] = found[id]
	}
	return out, nil
}

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
