package order

import (
	"context"
	"fmt"
)

// FindAll returns the orders of those reservations that have one, by
// reservation ID; at most [MaxBatch] IDs. Nothing changes.
func (s *Store) FindAll(ctx context.Context, reservationIDs []string) (map[string]Order, error) {
	if len(reservationIDs) == 0 {
		return nil, nil
	}
	found, err := find(ctx, s.db, reservationIDs)
	if err != nil {
		return nil, fmt.Errorf("find orders of %d reservations: %w", len(reservationIDs), err)
	}
	return found, nil
}
