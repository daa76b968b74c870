// Package memory is Redis, MySQL and Kafka as the protocol needs them, as plain
// values in one goroutine: what the scripts of package lua, the transactions of
// pkg/stock and pkg/order and a log with offsets do, step by step, and nothing
// else. Tests hold each against the real thing.
//
// Nothing fails here. The simulator decides what gets through.
package memory

import (
	"slices"
	"time"

	"github.com/leadingpeers/seckill/pkg/stock"
)

// Redis does what the scripts do. Its zero value is of no use: see [NewRedis].
type Redis struct {
	mutant Mutant
	now    func() time.Time
	life   int    // counts the restarts
	wiped  int    // counts the losses of keys that somebody may be filling
	loads  int    // counts what has put a product here
	slots  []slot // one for each product that was ever here
	disk   []slot // as a restart finds them
}

// slot is one product's hash and its list.
type slot struct {
	product string
	load    string // by which the product is here, "" = it is not
	surplus int64
	terms   stock.Terms
	buyers  []buyer
	open    []string
}

// buyer is one field of the hash. Its records are replaced, never changed, so
// that a copy of the slot is a snapshot.
type buyer struct {
	user    string
	units   int64
	records []record
}

type record struct {
	id       string
	quantity int64
	state    stock.State // Pending, Deducted or RolledBack
	at       time.Time
}

// NewRedis returns an empty Redis with a clock.
func NewRedis(now func() time.Time, mutant Mutant) *Redis { return &Redis{now: now, mutant: mutant} }

// slot returns a product's slot, a new one when there is none.
func (r *Redis) slot(product string) *slot {
	for i := range r.slots {
		if r.slots[i].product == product {
			return &r.slots[i]
		}
	}
	if len(r.slots) < cap(r.slots) { // of an earlier run: its lists are used again
		r.slots = r.slots[:len(r.slots)+1]
	} else {
		r.slots = append(r.slots, slot{})
	}
	s := &r.slots[len(r.slots)-1]
	s.clear()
	s.product = product
	return s
}

func (s *slot) clear() {
	*s = slot{product: s.product, buyers: s.buyers[:0], open: s.open[:0]}
}

func (s *slot) copyOf(from *slot) {
	buyers, open := append(s.buyers[:0], from.buyers...), append(s.open[:0], from.open...)
	*s = *from
	s.buyers, s.open = buyers, open
}

func (s *slot) buyer(user string) *buyer {
	for i := range s.buyers {
		if s.buyers[i].user == user {
			return &s.buyers[i]
		}
	}
	return nil
}

// orNew returns a buyer's field, a new one when there is none.
func (s *slot) orNew(user string) *buyer {
	if b := s.buyer(user); b != nil {
		return b
	}
	s.buyers = append(s.buyers, buyer{user: user})
	return &s.buyers[len(s.buyers)-1]
}

func (b *buyer) find(id string) int {
	for i := range b.records {
		if b.records[i].id == id {
			return i
		}
	}
	return -1
}

func (b *buyer) add(r record) {
	b.records = append(b.records[:len(b.records):len(b.records)], r)
}

func (b *buyer) set(i int, r record) {
	b.records = slices.Clone(b.records)
	b.records[i] = r
}

// full is what lua/reserve.lua calls FULL.
func (b *buyer) full() bool {
	size := 0
	for _, r := range b.records {
		size += len(";,,P,0000000000000") + len(r.id)
		for q := r.quantity; q > 0; q /= 10 {
			size++
		}
	}
	return size >= 1440
}

// Reserve is lua/reserve.lua for one request.
func (r *Redis) Reserve(want stock.Reservation) (got stock.Reservation, replayed bool, err error) {
	got = stock.Reservation{ID: want.ID, ActivityID: want.ActivityID, ProductID: want.ProductID, UserID: want.UserID, Quantity: want.Quantity}
	s := r.slot(want.ProductID)
	if s.load == "" {
		return stock.Reservation{}, false, stock.NotLoaded
	}
	b := s.buyer(want.UserID)
	if b != nil && r.mutant != NoRecordedAnswer {
		if i := b.find(want.ID); i >= 0 {
			known := b.records[i]
			if known.quantity != want.Quantity {
				return stock.Reservation{}, false, stock.IDReused
			}
			got.State, got.At = known.state, known.at
			return got, true, nil
		}
	}
	if no := r.refuses(s, b, want.Quantity); no != "" {
		return stock.Reservation{}, false, no
	}
	if b == nil {
		b = s.orNew(want.UserID)
	}
	if i := b.find(want.ID); i >= 0 { // only without the recorded answer
		got.State, got.At = b.records[i].state, b.records[i].at
		return got, true, nil
	}
	s.surplus -= want.Quantity
	b.units += want.Quantity
	b.add(record{id: want.ID, quantity: want.Quantity, state: stock.Pending, at: r.now()})
	s.open = append(s.open, want.UserID)
	got.State, got.At = stock.Pending, r.now()
	return got, false, nil
}

// refuses returns why a new reservation is not taken, or "".
func (r *Redis) refuses(s *slot, b *buyer, quantity int64) stock.Refusal {
	now := r.now()
	units := int64(0)
	if b != nil {
		units = b.units
	}
	switch {
	case !s.terms.OnSale || now.Before(s.terms.StartsAt) || !now.Before(s.terms.EndsAt):
		return stock.NotOnSale
	case quantity > s.terms.PerOrder:
		return stock.OverOrderLimit
	case s.surplus < quantity:
		return stock.SoldOut
	case units+quantity > s.terms.PerUser && r.mutant != NoRedisUserLimit:
		return stock.OverUserLimit
	case b != nil && b.full():
		return stock.TooManyAttempts
	}
	return ""
}

// Apply is lua/apply.lua.
func (r *Redis) Apply(rows []stock.Reservation) (out stock.Applied) {
	for _, row := range rows {
		s := r.slot(row.ProductID)
		if s.load == "" {
			out.NotLoaded++
			continue
		}
		b := s.orNew(row.UserID)
		to := stock.RolledBack
		if row.State == stock.Deducted {
			to = stock.Deducted
		}
		moved := int64(0)
		switch i := b.find(row.ID); {
		case i < 0 && to == stock.Deducted:
			out.Adopted++
			if r.mutant != NoAdopt {
				moved = row.Quantity
			}
			b.add(record{row.ID, row.Quantity, to, r.now()})
		case i < 0:
			out.Tombstones++
			if r.mutant != NoRedisTombstone {
				b.add(record{row.ID, row.Quantity, to, r.now()})
			}
		case b.records[i].state == to && to == stock.RolledBack && r.mutant == RollbackAgain:
			moved = -row.Quantity
		case b.records[i].state == stock.RolledBack || b.records[i].state == to:
			out.Same++
		default:
			out.Changed++
			was := b.records[i]
			quantity := was.quantity
			moved = -quantity
			if to == stock.Deducted {
				quantity, moved = row.Quantity, row.Quantity-quantity
			}
			b.set(i, record{row.ID, quantity, to, was.at})
		}
		b.units += moved
		s.surplus -= moved
		if len(b.records) == 0 { // a mutant's: Redis would have no such field
			s.buyers = s.buyers[:len(s.buyers)-1]
		}
	}
	return out
}

// Reap is lua/reap.lua.
func (r *Redis) Reap(product string, olderThan time.Duration, limit int) ([]stock.Reservation, error) {
	s := r.slot(product)
	if s.load == "" {
		return nil, stock.NotLoaded
	}
	if limit = min(limit, len(s.open), stock.MaxBatch); limit == 0 {
		return nil, nil
	}
	latest := r.now().Add(-olderThan)
	var found []stock.Reservation
	var stay, rotate []string
	for i, user := range s.open[:limit] {
		if slices.Contains(s.open[:i], user) {
			continue
		}
		pending, returned := false, false
		if b := s.buyer(user); b != nil {
			for _, rec := range b.records {
				if rec.state != stock.Pending {
					continue
				}
				pending = true
				if !rec.at.After(latest) {
					returned = true
					found = append(found, stock.Reservation{
						ID: rec.id, ProductID: product, UserID: user, Quantity: rec.quantity, State: stock.Pending, At: rec.at,
					})
				}
			}
		}
		if returned {
			rotate = append(rotate, user)
		} else if pending {
			stay = append(stay, user)
		}
	}
	if len(stay) < limit {
		s.open = slices.Concat(stay, s.open[limit:], rotate)
	}
	return found, nil
}
