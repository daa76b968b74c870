package order

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/leadingpeers/seckill/internal/fault"
	"github.com/leadingpeers/seckill/internal/mysql"
)

// PayAll makes the orders paid that await exactly these payments, all in one
// durable statement: a rush of payments costs one write to the disk instead of
// thousands. At most [MaxBatch], each of another reservation.
//
// It returns the orders that are paid by the payment given, now or before, by
// reservation ID. For one that is missing [Store.Pay] says why, or pays it. An
// error is a fault: some may be paid, and repeating finds out.
func (s *Store) PayAll(ctx context.Context, payments []Payment) (map[string]Order, error) {
	good := make(map[string]Payment, len(payments))
	ids := make([]string, 0, len(payments))
	for _, p := range payments {
		if _, twice := good[p.ReservationID]; !twice && p.valid() {
			good[p.ReservationID] = p
			ids = append(ids, p.ReservationID)
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	paid := map[string]Order{}
	if s.paidTwice.Load() { // a topic is read again: who was paid before needs only reading
		var err error
		if paid, err = s.paidBy(ctx, ids, good); err != nil {
			return nil, err
		}
		s.paidTwice.Store(len(paid) > 0)
		ids = slices.DeleteFunc(ids, func(id string) bool { _, ok := paid[id]; return ok })
	}
	if len(ids) == 0 {
		return paid, nil
	}
	if err := s.payFor(ctx, ids, good); err != nil {
		if mysql.IsDuplicate(err) {
			return paid, nil // one reference has paid another order: nothing has changed, and Pay finds which
		}
		return nil, fmt.Errorf("pay %d orders: %w", len(ids), err)
	}
	now, err := s.paidBy(ctx, ids, good)
	maps.Copy(paid, now)
	return paid, err
}

// payFor pays those orders of ids that await their payment.
func (s *Store) payFor(ctx context.Context, ids []string, payments map[string]Payment) error {
	return mysql.Retry(ctx, func() error {
		query, args := payAll(ids, payments)
		done, err := s.db.ExecContext(ctx, query, args...)
		if err != nil {
			return err
		}
		changed, err := done.RowsAffected()
		if changed < int64(len(ids)) {
			s.paidTwice.Store(true) // or too late, or never placed
		}
		return err
	})
}

// paidBy returns those orders of ids that their payments have paid.
func (s *Store) paidBy(ctx context.Context, ids []string, payments map[string]Payment) (map[string]Order, error) {
	found, err := find(ctx, s.db, ids)
	if err != nil {
		return nil, fmt.Errorf("read which of %d orders are paid: %w", len(ids), err)
	}
	maps.DeleteFunc(found, func(id string, o Order) bool {
		return o.State != Paid || o.PaymentRef != payments[id].Ref || o.AmountCents != payments[id].AmountCents
	})
	return found, nil
}

// payAll is sqlPayAll widened to the payments of ids.
func payAll(ids []string, payments map[string]Payment) (string, []any) {
	refs := make([]any, 0, 2*len(ids))
	amounts := make([]any, 0, 2*len(ids))
	for _, id := range ids {
		refs = append(refs, mysql.ID(id), payments[id].Ref)
		amounts = append(amounts, mysql.ID(id), payments[id].AmountCents)
	}
	when := strings.Repeat(sqlPayWhen, len(ids))
	query := fmt.Sprintf(mysql.In(fault.Without(fault.PayCAS, sqlPayAll, ifAwaiting, ""), len(ids)), when, when)
	return query, append(append(refs, idArgs(ids)...), amounts...)
}
