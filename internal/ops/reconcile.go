// Package ops holds the verbs of the people who run a sale: it reads the books
// of all stores side by side and says where they differ. It changes nothing.
package ops

import (
	"context"
	"fmt"
	"slices"

	"github.com/leadingpeers/seckill/pkg/order"
	"github.com/leadingpeers/seckill/pkg/stock"
)

// Books are the three stores, each with its own account of the same units.
type Books struct {
	Cache  *stock.Cache
	Ledger *stock.Ledger
	Orders *order.Store
}

// Account is one product in all three stores, in units unless it says otherwise.
type Account struct {
	ProductID string `json:"product"`
	Total     int64  `json:"total"` // MySQL: put on sale
	Loaded    bool   `json:"loaded"`
	Surplus   int64  `json:"surplus"`   // Redis: still to be had
	Pending   int64  `json:"pending"`   // Redis: taken, not yet decided
	Open      int    `json:"open"`      // Redis: entries of the open list
	Held      int64  `json:"held"`      // Redis: deducted
	Available int64  `json:"available"` // ledger: still to be had
	Deducted  int64  `json:"deducted"`  // ledger: sum over the reservations
	Awaiting  int64  `json:"awaiting"`  // orders: units that nobody has paid yet
	Paid      int64  `json:"paid"`      // orders: units sold
	Cancelled int64  `json:"cancelled"` // orders: units of cancelled orders, for information
	Orders    int64  `json:"orders"`    // number of orders, all states
}

// Oversold is by how many units more than there are were deducted or paid.
func (a Account) Oversold() int64 { return max(0, a.Deducted-a.Total, a.Paid-a.Total) }

// Leaked is how many units are in no account: neither available nor deducted
// in the ledger, or, in a product at rest, not to be had in Redis though the
// ledger has them.
func (a Account) Leaked() int64 {
	leaked := max(0, a.Total-a.Available-a.Deducted)
	if a.Loaded {
		leaked += max(0, a.Available-a.Surplus-a.Pending)
	}
	return leaked
}

// Differences lists in words where the stores disagree. For a product at rest
// (no event under way, no order unpaid) an empty list means that its books
// balance; during a sale the last four may differ by what is under way.
func (a Account) Differences() []string {
	var out []string
	differ := func(what string, x, y int64) {
		if x != y {
			out = append(out, fmt.Sprintf("%s: %s: %d against %d", a.ProductID, what, x, y))
		}
	}
	differ("ledger: total against available + deducted", a.Total, a.Available+a.Deducted)
	if !a.Loaded {
		return append(out, a.ProductID+": not in Redis")
	}
	differ("Redis: total against surplus + pending + deducted", a.Total, a.Surplus+a.Pending+a.Held)
	differ("Redis surplus against ledger available", a.Surplus, a.Available)
	differ("Redis: pending units against none", a.Pending, 0)
	differ("ledger deducted against orders paid and awaiting payment", a.Deducted, a.Paid+a.Awaiting)
	return out
}

// Accounts reads the accounts of the products, in their order.
//
// It returns a fault when a store cannot be read; nothing has changed. Each
// store is read at its own moment: only what is at rest can be compared to the
// unit.
func (b Books) Accounts(ctx context.Context, products []string) ([]Account, error) {
	loaded, err := b.Cache.Loaded(ctx, products)
	if err != nil {
		return nil, fmt.Errorf("reconcile: %w", err)
	}
	var out []Account
	for _, p := range products {
		a := Account{ProductID: p, Loaded: loaded[p] != ""}
		if a.Loaded {
			c, err := b.Cache.Counts(ctx, p)
			if err != nil {
				return nil, fmt.Errorf("reconcile %s: %w", p, err)
			}
			a.Surplus, a.Pending, a.Held, a.Open = c.Surplus, c.Pending, c.Deducted, c.Open
		}
		s, err := b.Ledger.Stock(ctx, p)
		if err != nil {
			return nil, fmt.Errorf("reconcile %s: %w", p, err)
		}
		a.Total, a.Available, a.Deducted = s.Total, s.Available, s.Deducted
		o, err := b.Orders.Counts(ctx, p)
		if err != nil {
			return nil, fmt.Errorf("reconcile %s: %w", p, err)
		}
		a.Awaiting, a.Paid, a.Cancelled = o.Awaiting.Units, o.Paid.Units, o.Cancelled.Units
		a.Orders = o.Awaiting.Orders + o.Paid.Orders + o.Cancelled.Orders
		out = append(out, a)
	}
	return out, nil
}

// Fates says what became of reservations that buyers were promised.
type Fates struct {
	Paid     int64    `json:"paid"`     // ended with a paid order
	Released int64    `json:"released"` // ended with the units given back or refused, and no paid order
	Lost     []string `json:"lost"`     // IDs without an end: no ledger row, no order, or an order nobody has closed
	Wrong    []string `json:"wrong"`    // IDs whose ledger row and order contradict each other
}

// Fates looks up each reservation in the ledger and among the orders.
func (b Books) Fates(ctx context.Context, ids []string) (Fates, error) {
	var f Fates
	for part := range slices.Chunk(ids, stock.MaxBatch) {
		rows, err := b.Ledger.FindAll(ctx, part)
		if err != nil {
			return f, fmt.Errorf("fates: %w", err)
		}
		orders, err := b.Orders.FindAll(ctx, part)
		if err != nil {
			return f, fmt.Errorf("fates: %w", err)
		}
		for _, id := range part {
			f.add(id, rows[id].State, orders[id].State)
		}
	}
	return f, nil
}

// add books one reservation; an absent row or order has the empty state.
func (f *Fates) add(id string, row stock.State, o order.State) {
	switch {
	case row == stock.Deducted && o == order.Paid:
		f.Paid++
	case row == stock.RolledBack && o == order.Cancelled,
		(row == stock.Refused || row == stock.RolledBack) && o == "":
		f.Released++
	case row == "" || row == stock.Deducted && o != order.Paid:
		f.Lost = append(f.Lost, id)
	default:
		f.Wrong = append(f.Wrong, id+": ledger "+string(row)+", order "+string(o))
	}
}
