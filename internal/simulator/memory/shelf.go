package memory

import (
	"strconv"
	"strings"
	"time"

	"github.com/leadingpeers/seckill/pkg/stock"
)

// Preload is lua/preload.lua: the last call of a load, after the filling ones.
func (r *Redis) Preload(terms stock.Terms, available int64, rows []stock.Reservation) (loaded bool) {
	s := r.slot(terms.ProductID)
	if s.load != "" && r.mutant != PreloadOverwrites {
		return false
	}
	open := s.open // a list of its own, which a load does not touch
	s.clear()
	r.loads++
	s.load, s.surplus, s.terms, s.open = strconv.Itoa(r.loads), available, terms, open
	for _, row := range rows {
		b := s.orNew(row.UserID)
		to := stock.RolledBack
		if row.State == stock.Deducted {
			to = stock.Deducted
			b.units += row.Quantity
		}
		b.add(record{row.ID, row.Quantity, to, row.At})
	}
	return true
}

// Configure is lua/configure.lua.
func (r *Redis) Configure(terms stock.Terms) error {
	s := r.slot(terms.ProductID)
	if s.load == "" {
		return stock.NotLoaded
	}
	total, restocks := s.terms.Total, s.terms.Restocks
	if terms.Restocks > restocks {
		s.surplus += terms.Total - total
		if r.mutant != RestockTwice {
			total, restocks = terms.Total, terms.Restocks
		}
	}
	s.terms = terms
	s.terms.Total, s.terms.Restocks = total, restocks
	return nil
}

// Loaded says by which load each of the products came here.
func (r *Redis) Loaded(products []string) map[string]string {
	out := make(map[string]string, len(products))
	for _, p := range products {
		if load := r.slot(p).load; load != "" {
			out[p] = load
		}
	}
	return out
}

// RunID changes with every restart.
func (r *Redis) RunID() string { return strconv.Itoa(r.life) }

// Wiped counts how often keys were lost: whoever fills a hash meanwhile has
// lost it.
func (r *Redis) Wiped() int { return r.wiped }

// Flush takes a product out by force. The list goes with it.
func (r *Redis) Flush(product string) {
	s := r.slot(product)
	s.clear()
	r.wiped++
}

// FlushAll is the command FLUSHALL.
func (r *Redis) FlushAll() {
	for i := range r.slots {
		r.slots[i].clear()
	}
	r.wiped++
}

// Sync makes everything durable, as the fsync of each second does, or as a
// replica catches up.
func (r *Redis) Sync() { copyAll(&r.disk, r.slots) }

// Restart kills Redis and starts it again, or its replica instead of it: what
// was not durable is lost.
func (r *Redis) Restart() {
	copyAll(&r.slots, r.disk)
	r.life++
	r.wiped++
}

func copyAll(to *[]slot, from []slot) {
	for len(*to) < len(from) {
		if len(*to) < cap(*to) {
			*to = (*to)[:len(*to)+1]
		} else {
			*to = append(*to, slot{})
		}
	}
	*to = (*to)[:len(from)]
	for i := range from {
		(*to)[i].copyOf(&from[i])
	}
}

// Reset makes r as new, with another mutant, and keeps its memory.
func (r *Redis) Reset(mutant Mutant) {
	r.mutant, r.life, r.wiped, r.loads = mutant, 1, 0, 0
	r.slots, r.disk = r.slots[:0], r.disk[:0]
}

// Counts is what [stock.Cache.Counts] counts.
func (r *Redis) Counts(product string) (stock.Counts, error) {
	s := r.slot(product)
	if s.load == "" {
		return stock.Counts{}, stock.NotLoaded
	}
	out := stock.Counts{Surplus: s.surplus, Open: len(s.open)}
	for i := range s.buyers {
		b := &s.buyers[i]
		sum := int64(0)
		for _, rec := range b.records {
			switch rec.state {
			case stock.Pending:
				out.Pending += rec.quantity
				sum += rec.quantity
			case stock.Deducted:
				out.Deducted += rec.quantity
				sum += rec.quantity
			case stock.RolledBack, stock.Refused:
				out.RolledBack++
			}
		}
		out.Reservations += len(b.records)
		out.Buyers++
		if sum != b.units {
			out.Broken++
		}
	}
	return out, nil
}

// Total is the total that Redis was told last.
func (r *Redis) Total(product string) int64 { return r.slot(product).terms.Total }

// Find returns the record of one buyer's reservation.
func (r *Redis) Find(product, user, id string) (stock.Reservation, error) {
	s := r.slot(product)
	if s.load == "" {
		return stock.Reservation{}, stock.NotLoaded
	}
	if b := s.buyer(user); b != nil {
		if i := b.find(id); i >= 0 {
			rec := b.records[i]
			return stock.Reservation{ID: id, ProductID: product, UserID: user, Quantity: rec.quantity, State: rec.state, At: rec.at}, nil
		}
	}
	return stock.Reservation{}, stock.ErrNotFound
}

// String is a product as one readable line.
func (r *Redis) String() string {
	var out strings.Builder
	for i := range r.slots {
		s := &r.slots[i]
		if s.load == "" {
			out.WriteString(s.product + " not loaded; ")
			continue
		}
		out.WriteString(s.product + " surplus " + strconv.FormatInt(s.surplus, 10))
		for _, b := range s.buyers {
			for _, rec := range b.records {
				out.WriteString(" " + rec.id[:4] + "=" + strconv.FormatInt(rec.quantity, 10) + string(rec.state))
			}
		}
		out.WriteString(" open " + strings.Join(s.open, ",") + "; ")
	}
	return out.String()
}

// UnixEpoch is where a simulated clock begins.
func UnixEpoch() time.Time { return time.Date(2030, 11, 11, 0, 0, 0, 0, time.UTC) }
