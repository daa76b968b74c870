package memory

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/leadingpeers/seckill/pkg/catalog"
	"github.com/leadingpeers/seckill/pkg/order"
	"github.com/leadingpeers/seckill/pkg/stock"
)

// MySQL does what the transactions of pkg/stock, pkg/order and pkg/catalog do,
// each as one step. See [NewMySQL].
type MySQL struct {
	mutant Mutant
	now    func() time.Time

	activity catalog.Activity
	wares    []ware
	rows     []Row
	orders   []order.Order
	outbox   []queued
	nextID   int
	listings []catalog.Listing // nil when they have changed
}

// ware is a product with its stock row.
type ware struct {
	catalog.Product
	ops []restock
}

type restock struct {
	id    string
	delta int64
}

// Row is a row of the table reservations.
type Row struct {
	stock.Reservation // At is when it was created; no activity
	Updated           time.Time
}

// NewMySQL returns a database of one activity, with a clock.
func NewMySQL(now func() time.Time, mutant Mutant) *MySQL { return &MySQL{now: now, mutant: mutant} }

// Reset makes m as new, with another mutant, an activity and its products, and
// keeps its memory.
func (m *MySQL) Reset(mutant Mutant, activity catalog.Activity, products ...catalog.Product) {
	m.mutant, m.activity, m.nextID, m.listings = mutant, activity, 0, nil
	m.wares, m.rows, m.orders, m.outbox = m.wares[:0], m.rows[:0], m.orders[:0], m.outbox[:0]
	for _, p := range products {
		p.Available = p.Total
		m.wares = append(m.wares, ware{Product: p})
	}
}

func (m *MySQL) ware(product string) *ware {
	for i := range m.wares {
		if m.wares[i].ID == product {
			return &m.wares[i]
		}
	}
	return nil
}

func (m *MySQL) row(id string) *Row {
	for i := range m.rows {
		if m.rows[i].ID == id {
			return &m.rows[i]
		}
	}
	return nil
}

// Deduct is stock.Ledger.Deduct.
func (m *MySQL) Deduct(product string, rs []stock.Reservation) ([]stock.Reservation, error) {
	decided, commit, err := m.Decide(product, rs)
	if err == nil {
		commit()
	}
	return decided, err
}

// Decide is Deduct up to its commit. The lock of the stock row keeps anything
// from happening between the two.
func (m *MySQL) Decide(product string, rs []stock.Reservation) (decided []stock.Reservation, commit func(), err error) {
	w := m.ware(product)
	if w == nil {
		return nil, nil, fmt.Errorf("deduct %s: %w", product, stock.ErrNotFound)
	}
	var fresh []Row
	taken := int64(0)
	for _, r := range rs {
		if slices.ContainsFunc(decided, func(d stock.Reservation) bool { return d.ID == r.ID }) {
			continue
		}
		if known := m.row(r.ID); known != nil && m.mutant != NoUniqueID {
			row := answer(known.Reservation, r)
			row.Settled = m.orderOf(r.ID) != nil
			decided = append(decided, row)
			continue
		}
		no := m.refuses(w, r, taken, fresh)
		r.State, r.Reason = stock.Deducted, ""
		if no != "" {
			r.State, r.Reason = stock.Refused, string(no)
		} else {
			taken += r.Quantity
		}
		decided = append(decided, answer(r, r))
		r.ActivityID, r.At = "", m.now()
		fresh = append(fresh, Row{r, m.now()})
	}
	return decided, func() {
		m.rows = append(m.rows, fresh...)
		w.Available -= taken
	}, nil
}

// answer is a row as the ledger returns it for an input.
func answer(row, asked stock.Reservation) stock.Reservation {
	row.ActivityID, row.At = asked.ActivityID, time.Time{}
	return row
}

// refuses returns why the ledger does not deduct, or "".
func (m *MySQL) refuses(w *ware, r stock.Reservation, taken int64, fresh []Row) stock.Refusal {
	held := int64(0)
	for _, rows := range [2][]Row{m.rows, fresh} {
		for i := range rows {
			if rows[i].UserID == r.UserID && rows[i].ProductID == w.ID && rows[i].State == stock.Deducted {
				held += rows[i].Quantity
			}
		}
	}
	switch {
	case w.SoldOut:
		return stock.SoldOut
	case r.Quantity > w.Available-taken && m.mutant != NoStockGuard:
		return stock.SoldOut
	case held+r.Quantity > w.PerUser && m.mutant != NoUserGuard:
		return stock.OverUserLimit
	}
	return ""
}

// Rollback is stock.Ledger.Rollback.
func (m *MySQL) Rollback(product string, rs []stock.Reservation) ([]stock.Reservation, error) {
	w := m.ware(product)
	if w == nil {
		return nil, fmt.Errorf("roll back %s: %w", product, stock.ErrNotFound)
	}
	var forged []string
	for _, r := range rs {
		row := m.row(r.ID)
		if row == nil || row.State != stock.Deducted || row.ProductID != product || m.mutant == NoCancelledCheck {
			continue
		}
		if o := m.orderOf(r.ID); o == nil || o.State != order.Cancelled {
			forged = append(forged, r.ID)
		}
	}
	if len(forged) > 0 {
		slices.Sort(forged)
		return nil, fmt.Errorf("roll back %s: %w", product, &stock.NotCancelledError{IDs: slices.Compact(forged)})
	}
	var out []stock.Reservation
	for _, r := range rs {
		if slices.ContainsFunc(out, func(d stock.Reservation) bool { return d.ID == r.ID }) {
			continue
		}
		row := m.row(r.ID)
		switch {
		case row == nil:
			r.State = stock.RolledBack
			out = append(out, answer(r, r))
			if m.mutant != NoLedgerTombstone {
				r.ActivityID, r.At = "", m.now()
				m.rows = append(m.rows, Row{r, m.now()})
			}
			continue
		case row.State == stock.Deducted && row.ProductID == product:
			row.State, row.Updated = stock.RolledBack, m.now()
			if o := m.orderOf(r.ID); o != nil {
				row.Reason = o.Reason
			}
			w.Available += row.Quantity
		case row.State == stock.RolledBack && m.mutant == RollbackTwice:
			w.Available += row.Quantity
		}
		out = append(out, answer(row.Reservation, r))
	}
	return out, nil
}

// Changed is stock.Ledger.Changed.
func (m *MySQL) Changed(product string, within time.Duration) []stock.Reservation {
	var out []stock.Reservation
	for i := range m.rows {
		r := &m.rows[i]
		if r.ProductID == product && (within <= 0 || !r.Updated.Before(m.now().Add(-within))) {
			out = append(out, r.Reservation)
		}
	}
	return out
}

// Snapshot is what stock.Ledger.Snapshot reads under the lock.
func (m *MySQL) Snapshot(product string) (stock.Units, []stock.Reservation, error) {
	w := m.ware(product)
	if w == nil {
		return stock.Units{}, nil, fmt.Errorf("snapshot %s: %w", product, stock.ErrNotFound)
	}
	rows := m.Changed(product, 0)
	slices.SortStableFunc(rows, func(a, b stock.Reservation) int { return cmp.Compare(a.UserID, b.UserID) })
	return stock.Units{Total: w.Total, Available: w.Available, Restocks: w.Restocks}, rows, nil
}

// Find is stock.Ledger.Find.
func (m *MySQL) Find(id string) (stock.Reservation, error) {
	if row := m.row(id); row != nil {
		return row.Reservation, nil
	}
	return stock.Reservation{}, fmt.Errorf("find reservation %.40q: %w", id, stock.ErrNotFound)
}

// Restock is stock.Ledger.Restock.
func (m *MySQL) Restock(product, op string, delta int64) (replayed bool, err error) {
	w := m.ware(product)
	if w == nil {
		return false, stock.ErrNotFound
	}
	for _, o := range w.ops {
		if o.id == op && o.delta != delta {
			return false, stock.ErrOpReused
		}
		if o.id == op {
			return true, nil
		}
	}
	if w.Available+delta < 0 {
		return false, stock.ErrNotEnough
	}
	w.ops = append(w.ops, restock{op, delta})
	w.Total, w.Available, w.Restocks = w.Total+delta, w.Available+delta, w.Restocks+1
	m.listings = nil
	return false, nil
}

// SetSoldOut is stock.Ledger.SetSoldOut. No product is stopped here.
func (m *MySQL) SetSoldOut(products []string, soldOut bool) (changed []string, err error) {
	for _, id := range slices.Compact(slices.Sorted(slices.Values(products))) {
		w := m.ware(id)
		if w == nil {
			return changed, stock.ErrNotFound
		}
		if w.SoldOut != soldOut {
			w.SoldOut, m.listings = soldOut, nil
			changed = append(changed, id)
		}
	}
	return changed, nil
}

// Rows are all rows of reservations, in the order of their coming. They must
// not be changed.
func (m *MySQL) Rows() []Row { return m.rows }

// Orders are all orders, in the order of their coming. They must not be changed.
func (m *MySQL) Orders() []order.Order { return m.orders }

// Outbox is how many messages wait.
func (m *MySQL) Outbox() int { return len(m.outbox) }

// Products are the products with their stock.
func (m *MySQL) Products(each func(p *catalog.Product)) {
	for i := range m.wares {
		each(&m.wares[i].Product)
	}
}
