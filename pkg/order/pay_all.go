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
	if s.paidTwice.Load() { // a topic is read again: of what has ended nothing is left to be done
		found, err := s.FindAll(ctx, ids)
		if err != nil {
			return nil, err
		}
		all := len(ids)
		ids = slices.DeleteFunc(ids, func(id string) bool { return hasEnded(found[id]) })
		s.paidTwice.Store(len(ids) < all)
		paid = paidBy(found, good)
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
	found, err := s.FindAll(ctx, ids)
	maps.Copy(paid, paidBy(found, good))
	return paid, err
}

// Outcome is what [Store.Pay] returns.
type Outcome struct {
	Order Order
	Err   error
}

// Ended tells what [Store.Pay] would say of those payments, at most [MaxBatch],
// whose orders are paid or cancelled already. Such an order never changes, so
// reading is enough, for all of them at once: a topic that is read again
// consists of them. A payment that is missing is for Pay. Nothing changes.
func (s *Store) Ended(ctx context.Context, payments []Payment) (map[Payment]Outcome, error) {
	var ids, refs []string
	for _, p := range payments {
		if p.valid() {
			ids, refs = append(ids, p.ReservationID), append(refs, p.Ref)
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	found, err := s.FindAll(ctx, ids)
	if err != nil {
		return nil, err
	}
	owners, err := s.refOwners(ctx, refs)
	if err != nil {
		return nil, fmt.Errorf("read what %d payments have paid: %w", len(refs), err)
	}
	out := make(map[Payment]Outcome, len(payments))
	for _, p := range payments {
		switch o := found[p.ReservationID]; {
		case !hasEnded(o) || !p.valid():
		case p.paid(o):
			out[p] = Outcome{Order: o}
		default:
			o, err := refuse(o, p, owners[p.Ref])
			out[p] = Outcome{o, err}
		}
	}
	return out, nil
}

// hasEnded is whether nothing changes an order any more.
func hasEnded(o Order) bool {
	return (o.State == Paid || o.State == Cancelled) && !fault.Off(fault.PayCAS)
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

// paidBy leaves those orders that their payments have paid.
func paidBy(found map[string]Order, payments map[string]Payment) map[string]Order {
	maps.DeleteFunc(found, func(id string, o Order) bool { return !payments[id].paid(o) })
	return found
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
