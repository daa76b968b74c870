package order

import (
	"context"
	"fmt"
	"iter"
	"strings"
)

// Filter chooses orders; what is empty does not matter.
type Filter struct {
	ActivityID, ProductID, UserID string
	State                         State
}

// maxPage bounds one page of List.
const maxPage = 1000

// Get returns one order by its own ID, or [ErrNotFound].
func (s *Store) Get(ctx context.Context, id string) (Order, error) {
	found, err := list(ctx, s.db, sqlOrders+" WHERE id = ?", id)
	if err == nil && len(found) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return Order{}, fmt.Errorf("get order %.40q: %w", id, err)
	}
	return found[0], nil
}

// List returns up to limit orders (at most 1000) behind the one with the ID
// after, the oldest first: their IDs are in the order of their creation. An
// empty after is the beginning.
func (s *Store) List(ctx context.Context, f Filter, after string, limit int) ([]Order, error) {
	where, args := []string{"id > ?"}, []any{after}
	for _, by := range []struct{ column, value string }{
		{"activity_id", f.ActivityID}, {"product_id", f.ProductID}, {"user_id", f.UserID}, {"state", string(f.State)},
	} {
		if by.value != "" {
			where, args = append(where, by.column+" = ?"), append(args, by.value)
		}
	}
	found, err := list(ctx, s.db, sqlOrders+" WHERE "+strings.Join(where, " AND ")+" ORDER BY id LIMIT ?", append(args, min(max(limit, 1), maxPage))...)
	if err != nil {
		return nil, fmt.Errorf("list orders: %w", err)
	}
	return found, nil
}

// Each yields all orders, the oldest first, page by page: no transaction stays
// open meanwhile, so orders that are written or changed while it runs may be
// in it or not. A fault is the pair's error and ends the orders.
func (s *Store) Each(ctx context.Context, f Filter) iter.Seq2[Order, error] {
	return func(yield func(Order, error) bool) {
		for after := ""; ; {
			page, err := s.List(ctx, f, after, maxPage)
			if err != nil {
				yield(Order{}, err)
				return
			}
			for _, o := range page {
				if !yield(o, nil) {
					return
				}
				after = o.ID
			}
			if len(page) < maxPage {
				return
			}
		}
	}
}
