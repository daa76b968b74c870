package memory

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/leadingpeers/seckill/pkg/catalog"
	"github.com/leadingpeers/seckill/pkg/order"
	"github.com/leadingpeers/seckill/pkg/stock"
)

// queued is a row of the outbox.
type queued struct {
	id    int
	m     order.Message
	taken int // by whose transaction, 0 = nobody's
}

func (m *MySQL) orderOf(reservation string) *order.Order {
	for i := range m.orders {
		if m.orders[i].ReservationID == reservation {
			return &m.orders[i]
		}
	}
	return nil
}

// Insert is the statement of order.Store.Place that writes. It returns the
// orders in the order given if all are new, else nil.
func (m *MySQL) Insert(orders []order.Order) (fresh []order.Order) {
	known := false
	for _, o := range orders {
		if m.orderOf(o.ReservationID) != nil {
			known = true
			if m.mutant != TwoOrders {
				continue
			}
		}
		m.nextID++
		o.ID, o.State, o.Reason, o.PaymentRef = "order-"+strconv.Itoa(m.nextID), order.AwaitingPayment, "", ""
		o.CreatedAt, o.UpdatedAt, o.PayDeadline = m.now(), m.now(), m.now().Add(o.PayWindow)
		m.orders = append(m.orders, o)
		fresh = append(fresh, o)
	}
	if known {
		return nil
	}
	return fresh
}

// Placed is the statement of order.Store.Place that reads when not all are new:
// the orders of the reservations, in the order given.
func (m *MySQL) Placed(orders []order.Order) ([]order.Order, error) {
	out := make([]order.Order, len(orders))
	for i := range orders {
		o := m.orderOf(orders[i].ReservationID)
		if o == nil {
			return nil, errors.New("an order that was placed is gone")
		}
		out[i] = *o
	}
	return out, nil
}

// SetPaid is the compare-and-set of order.Store.Pay.
func (m *MySQL) SetPaid(p order.Payment) (changed bool, err error) {
	o := m.orderOf(p.ReservationID)
	if o == nil || o.AmountCents != p.AmountCents {
		return false, nil
	}
	if o.State != order.AwaitingPayment && (o.State == order.Paid || m.mutant != PayCancelled) {
		return false, nil
	}
	if m.payer(p.Ref) != nil {
		return false, order.ErrRefUsed
	}
	o.State, o.PaymentRef, o.UpdatedAt = order.Paid, p.Ref, m.now()
	return true, nil
}

// payer is the order that a payment has paid.
func (m *MySQL) payer(ref string) *order.Order {
	for i := range m.orders {
		if m.orders[i].PaymentRef == ref {
			return &m.orders[i]
		}
	}
	return nil
}

// PaidBy is what order.Store.Pay answers after its compare-and-set. again says
// that the set has to be tried once more: the order came between the two.
func (m *MySQL) PaidBy(p order.Payment, changed bool) (o order.Order, again bool, err error) {
	found := m.orderOf(p.ReservationID)
	if found == nil {
		return order.Order{}, false, fmt.Errorf("pay: %w", order.ErrNotFound)
	}
	o = *found
	owner := m.payer(p.Ref)
	switch {
	case !changed && o.State == order.AwaitingPayment && o.AmountCents == p.AmountCents:
		return o, true, nil
	case o.State == order.Paid && o.PaymentRef == p.Ref && o.AmountCents == p.AmountCents:
		return o, false, nil
	case owner != nil && owner.ReservationID != p.ReservationID:
		return order.Order{}, false, fmt.Errorf("pay: %w", order.ErrRefUsed)
	case o.State == order.Cancelled:
		return o, false, fmt.Errorf("pay: %w", order.ErrTooLate)
	case o.State == order.Paid && o.PaymentRef != p.Ref:
		return o, false, fmt.Errorf("pay: %w", order.ErrPaid)
	}
	return o, false, fmt.Errorf("pay: %w", order.ErrAmount)
}

// SetAllPaid is the statement of order.Store.PayAll: all or, when a reference
// has paid another order, none.
func (m *MySQL) SetAllPaid(payments []order.Payment) (done bool) {
	refs := make(map[string]bool, len(payments))
	for _, p := range payments {
		o := m.orderOf(p.ReservationID)
		if o == nil || o.State != order.AwaitingPayment || o.AmountCents != p.AmountCents {
			continue
		}
		if m.payer(p.Ref) != nil || refs[p.Ref] {
			return false
		}
		refs[p.Ref] = true
	}
	for _, p := range payments {
		_, _ = m.SetPaid(p)
	}
	return true
}

// AllPaid is what order.Store.PayAll answers after that.
func (m *MySQL) AllPaid(payments []order.Payment) map[string]order.Order {
	out := make(map[string]order.Order, len(payments))
	for _, p := range payments {
		if o := m.orderOf(p.ReservationID); o != nil && o.State == order.Paid && o.PaymentRef == p.Ref && o.AmountCents == p.AmountCents {
			out[p.ReservationID] = *o
		}
	}
	return out
}

// Ended is order.Store.Ended. A mutant without the compare-and-set does not look.
func (m *MySQL) Ended(payments []order.Payment) map[order.Payment]order.Outcome {
	out := make(map[order.Payment]order.Outcome, len(payments))
	for _, p := range payments {
		o := m.orderOf(p.ReservationID)
		if o == nil || o.State == order.AwaitingPayment || m.mutant == PayCancelled {
			continue
		}
		answer, _, err := m.PaidBy(p, false)
		out[p] = order.Outcome{Order: answer, Err: err}
	}
	return out
}

// Cancel is order.Store.Cancel. The messages that are not in the transaction,
// which a mutant has, are returned.
func (m *MySQL) Cancel(reservation, reason string, announce func(order.Order) []order.Message) (order.Order, []order.Message, error) {
	o := m.orderOf(reservation)
	switch {
	case o == nil:
		return order.Order{}, nil, fmt.Errorf("cancel order of %s: %w", reservation, order.ErrNotFound)
	case o.State == order.Paid && m.mutant != CancelPaid:
		return *o, nil, fmt.Errorf("cancel order of %s: %w", reservation, order.ErrPaid)
	case o.State == order.Cancelled:
		return *o, nil, nil
	}
	late := m.cancel(o, reason, announce)
	return *o, late, nil
}

func (m *MySQL) cancel(o *order.Order, reason string, announce func(order.Order) []order.Message) []order.Message {
	o.State, o.Reason, o.UpdatedAt = order.Cancelled, reason, m.now()
	messages := announce(*o)
	if m.mutant == AnnounceLater {
		return messages
	}
	for _, msg := range messages {
		m.nextID++
		m.outbox = append(m.outbox, queued{id: m.nextID, m: msg})
	}
	return nil
}

// Expire is order.Store.Expire, with what [MySQL.Cancel] says of messages.
func (m *MySQL) Expire(limit int, announce func(order.Order) []order.Message) (n int, late []order.Message) {
	var due []*order.Order
	for i := range m.orders {
		if o := &m.orders[i]; o.State == order.AwaitingPayment && !m.now().Before(o.PayDeadline) {
			due = append(due, o)
		}
	}
	slices.SortStableFunc(due, func(a, b *order.Order) int { return a.PayDeadline.Compare(b.PayDeadline) })
	due = due[:min(limit, len(due))]
	for _, o := range due {
		late = append(late, m.cancel(o, order.ReasonTimeout, announce)...)
	}
	return len(due), late
}

// Take locks the oldest messages that no other transaction has, for transaction
// by, which is over with [MySQL.Relayed] or [MySQL.Release].
func (m *MySQL) Take(by, limit int) (out []order.Message) {
	for i := range m.outbox {
		if q := &m.outbox[i]; q.taken == 0 && len(out) < limit {
			q.taken = by
			out = append(out, q.m)
		}
	}
	return out
}

// Relayed deletes the messages of a transaction.
func (m *MySQL) Relayed(by int) {
	m.outbox = slices.DeleteFunc(m.outbox, func(q queued) bool { return q.taken == by })
}

// Release unlocks the messages of a transaction that ends without effect.
func (m *MySQL) Release(by int) {
	for i := range m.outbox {
		if m.outbox[i].taken == by {
			m.outbox[i].taken = 0
		}
	}
}

// Unsettled is order.Store.Unsettled.
func (m *MySQL) Unsettled(olderThan time.Duration, limit int) (out []order.Order) {
	for i := range m.rows {
		r := &m.rows[i]
		if r.State != stock.Deducted || r.At.After(m.now().Add(-olderThan)) || m.orderOf(r.ID) != nil {
			continue
		}
		out = append(out, order.Order{
			ReservationID: r.ID, ActivityID: m.activity.ID, ProductID: r.ProductID, UserID: r.UserID, Quantity: r.Quantity, CreatedAt: r.At,
		})
	}
	slices.SortStableFunc(out, func(a, b order.Order) int { return a.CreatedAt.Compare(b.CreatedAt) })
	return out[:min(limit, len(out))]
}

// Unreturned is order.Store.Unreturned.
func (m *MySQL) Unreturned(olderThan time.Duration, limit int) (out []order.Order) {
	for i := range m.orders {
		o := &m.orders[i]
		if o.State != order.Cancelled || o.UpdatedAt.After(m.now().Add(-olderThan)) {
			continue
		}
		if r := m.row(o.ReservationID); r != nil && r.State == stock.Deducted {
			out = append(out, *o)
		}
	}
	slices.SortStableFunc(out, func(a, b order.Order) int { return a.PayDeadline.Compare(b.PayDeadline) })
	return out[:min(limit, len(out))]
}

// OnSale is catalog.Store.OnSale, but for what is available: that is as it was
// when anything else last changed. It must not be changed.
func (m *MySQL) OnSale() []catalog.Listing {
	if m.listings == nil {
		l := catalog.Listing{Activity: m.activity, Products: make([]catalog.Product, 0, len(m.wares))}
		for i := range m.wares {
			l.Products = append(l.Products, m.wares[i].Product)
		}
		slices.SortFunc(l.Products, func(a, b catalog.Product) int { return cmp.Compare(a.ID, b.ID) })
		m.listings = []catalog.Listing{l}
	}
	return m.listings
}

// Offers is catalog.Store.Offers.
func (m *MySQL) Offers(products []string) map[string]catalog.Offer {
	out := make(map[string]catalog.Offer, len(products))
	for _, id := range products {
		if w := m.ware(id); w != nil {
			out[id] = catalog.Offer{ActivityID: m.activity.ID, PriceCents: w.PriceCents, Currency: w.Currency, PayWindow: m.activity.PayWindow}
		}
	}
	return out
}

// SetState makes the activity online or paused.
func (m *MySQL) SetState(s catalog.ActivityState) { m.activity.State, m.listings = s, nil }
