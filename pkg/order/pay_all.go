package order

import (
	"context"
	"fmt"
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
	err := mysql.Retry(ctx, func() error {
		query, args := payAll(ids, good)
		_, err := s.db.ExecContext(ctx, query, args...)
		return err
	})
	if mysql.IsDuplicate(err) {
		return nil, nil // one reference has paid another order: nothing has changed, and Pay finds which
	}
	if err != nil {
		return nil, fmt.Errorf("pay %d orders: %w", len(ids), err)
	}
	found, err := find(ctx, s.db, ids)
	if err != nil {
		return nil, fmt.Errorf("read %d orders after paying them: %w", len(ids), err)
	}
	for id, o := range found {
		if o.State != Paid || o.PaymentRef != good[id].Ref || o.AmountCents != good[id].AmountCents {
			delete(found, id)
		}
	}
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
