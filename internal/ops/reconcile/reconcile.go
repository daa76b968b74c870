// Package reconcile reads Redis, the ledger, the orders and the topics side by
// side and compares them both ways, reservation by reservation: what one of
// them has and another has not. It explains each difference, and repairs what
// the protocol's own idempotent operations can repair.
//
// During a sale there is always something under way. That is explained, and is
// not a fault as long as it is young enough or waits where somebody will take
// it up.
package reconcile

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/leadingpeers/seckill/pkg/catalog"
	"github.com/leadingpeers/seckill/pkg/events"
	"github.com/leadingpeers/seckill/pkg/order"
	"github.com/leadingpeers/seckill/pkg/stock"
)

// Kind names what differs.
type Kind string

// The kinds of differences.
const (
	NotLoaded    Kind = "not_loaded"   // an online product is not in Redis
	Terms        Kind = "terms"        // Redis sells under other terms than the catalogue says
	Surplus      Kind = "surplus"      // Redis: surplus + pending + deducted is not the total
	Count        Kind = "count"        // Redis: a buyer's count is not the sum of their reservations, or cannot be read
	Undecided    Kind = "undecided"    // pending in Redis, and the ledger does not know it
	Unlisted     Kind = "unlisted"     // the same, and the reaper cannot see it: its buyer is not in the open list
	Untold       Kind = "untold"       // the ledger has decided, and Redis does not say so
	Contradicted Kind = "contradicted" // Redis says what apply cannot take back: rolled back, or another quantity
	Forgotten    Kind = "forgotten"    // decided in Redis, and the ledger does not know it
	Unreceived   Kind = "unreceived"   // only its event is there: neither Redis nor the ledger knows it
	NoOrder      Kind = "no_order"     // deducted, and nobody has written the order
	NoRow        Kind = "no_row"       // an order whose reservation the ledger does not know
	NotReturned  Kind = "not_returned" // the order is cancelled, and its units are still deducted
	Unpaid       Kind = "unpaid"       // the checkout has said that it is paid, and the order awaits payment
	Overdue      Kind = "overdue"      // the order awaits payment after its deadline
	Wrong        Kind = "wrong"        // an order that is not cancelled, of a reservation that was refused or rolled back
	Ledger       Kind = "ledger"       // the ledger: available + deducted is not the total
)

// Repair names the operation that cures a difference.
type Repair string

// The repairs; each may be done at any time and any number of times.
const (
	Publish   Repair = "publish"   // the event again: its reader decides, or finds that it has
	Apply     Repair = "apply"     // tell Redis what the ledger says
	Load      Repair = "load"      // put the product into Redis from the ledger
	Configure Repair = "configure" // set the catalogue's terms in Redis
	Reload    Repair = "reload"    // take the product out of Redis and load it: one more loss, which is survived
	ByHand    Repair = "by_hand"   // nothing that may be done blindly
)

// Difference is one thing that two stores say differently.
type Difference struct {
	Kind          Kind    `json:"kind"`
	ProductID     string  `json:"product"`
	ReservationID string  `json:"reservation,omitempty"`
	UserID        string  `json:"user,omitempty"`
	AgeSeconds    float64 `json:"age_seconds"`
	UnderWay      bool    `json:"under_way"` // somebody will see to it, so it is no fault
	Says          string  `json:"says"`
	Repair        Repair  `json:"repair"`

	event events.Event      // of Publish
	row   stock.Reservation // of Apply
}

// Product is the account of one product, in units.
type Product struct {
	ProductID string `json:"product"`
	Loaded    bool   `json:"loaded"`
	Moving    bool   `json:"moving"` // Redis changed while it was read: its sums are not judged
	Total     int64  `json:"total"`
	Surplus   int64  `json:"surplus"`   // Redis
	Pending   int64  `json:"pending"`   // Redis
	Held      int64  `json:"held"`      // Redis: deducted
	Available int64  `json:"available"` // ledger
	Deducted  int64  `json:"deducted"`  // ledger
	Awaiting  int64  `json:"awaiting"`  // orders
	Paid      int64  `json:"paid"`      // orders
	Cancelled int64  `json:"cancelled"` // orders
}

// Report is what one reading has found.
type Report struct {
	At          time.Time    `json:"at"` // the database's clock when it began
	Balanced    bool         `json:"balanced"`
	Products    []Product    `json:"products"`
	Differences []Difference `json:"differences"`
	Events      int64        `json:"events"` // records of the topics that were read
}

// Faults are the differences that are not under way.
func (r Report) Faults() []Difference {
	return slices.DeleteFunc(slices.Clone(r.Differences), func(d Difference) bool { return d.UnderWay })
}

// Auditor reads the books. Its fields are required, but for the last two.
type Auditor struct {
	Cache     *stock.Cache
	Ledger    *stock.Ledger
	Orders    *order.Store
	Catalog   *catalog.Store
	Kafka     events.ClientConfig
	Publisher *events.Publisher
	DB        *sql.DB // of the audit trail

	// Grace is how long what the workers, the reaper and the healer do may take
	// before it is a fault. Default 30 s.
	Grace time.Duration
	// SweepGrace is the same for what the sweeper does: it waits for a minute,
	// and looks once a minute. Default 150 s.
	SweepGrace time.Duration
}

func (a *Auditor) grace() time.Duration      { return cmp.Or(a.Grace, 30*time.Second) }
func (a *Auditor) sweepGrace() time.Duration { return cmp.Or(a.SweepGrace, 150*time.Second) }

// Check reads the books of an activity; an empty ID means all that are on sale,
// paused, or ended within the hour. Each store is read once, upstream first, and
// what differs is looked at once more before it is called a fault: in between,
// it may have moved on. Nothing changes.
//
// It holds what it has read of one product after another in memory, about a
// kilobyte a reservation.
func (a *Auditor) Check(ctx context.Context, activityID string) (Report, error) {
	listings, err := a.listings(ctx, activityID)
	if err != nil {
		return Report{}, fmt.Errorf("reconcile: %w", err)
	}
	r := Report{Differences: []Difference{}}
	if r.At, err = a.Ledger.Now(ctx); err != nil {
		return Report{}, fmt.Errorf("reconcile: %w", err)
	}
	b, err := a.read(ctx, listings)
	if err != nil {
		return Report{}, fmt.Errorf("reconcile: %w", err)
	}
	r.Events = b.events
	for _, id := range slices.Sorted(maps.Keys(b.products)) {
		p := b.products[id]
		found := p.differences(b)
		if slices.ContainsFunc(found, func(d Difference) bool { return !d.UnderWay }) {
			if found, err = a.again(ctx, b, p, found); err != nil {
				return Report{}, fmt.Errorf("reconcile %s: %w", p.ProductID, err)
			}
		}
		r.Products = append(r.Products, p.Product)
		r.Differences = append(r.Differences, found...)
	}
	r.Balanced = len(r.Faults()) == 0
	return r, nil
}

func (a *Auditor) listings(ctx context.Context, activityID string) ([]catalog.Listing, error) {
	if activityID == "" {
		return a.Catalog.OnSale(ctx)
	}
	activity, err := a.Catalog.Activity(ctx, activityID)
	if err != nil {
		return nil, err
	}
	products, err := a.Catalog.Products(ctx, activityID)
	return []catalog.Listing{{Activity: activity, Products: products}}, err
}

// again reads those entries anew that seem to be faults, and judges them by
// what they are now. A sum in Redis is a fault only when it is wrong by the same
// number twice.
func (a *Auditor) again(ctx context.Context, b *books, p *product, found []Difference) ([]Difference, error) {
	drift := p.drift()
	if err := a.readRedis(ctx, b, p); err != nil { // brings the sums, and every reservation in Redis
		return nil, err
	}
	if drift != p.drift() {
		p.Moving = true
	}
	var ids []string
	for _, d := range append(found, p.differences(b)...) {
		if !d.UnderWay && d.ReservationID != "" {
			ids = append(ids, d.ReservationID)
		}
	}
	slices.Sort(ids)
	if err := a.refresh(ctx, b, p, slices.Compact(ids)); err != nil {
		return nil, err
	}
	var err error
	if p.ledger, err = a.Ledger.Stock(ctx, p.ProductID); err != nil {
		return nil, err
	}
	if b.dbNow, err = a.Ledger.Now(ctx); err != nil {
		return nil, err
	}
	return p.differences(b), nil
}

// refresh reads the rows and the orders of some reservations anew.
func (a *Auditor) refresh(ctx context.Context, b *books, p *product, ids []string) error {
	for part := range slices.Chunk(ids, stock.MaxBatch) {
		rows, err := a.Ledger.FindAll(ctx, part)
		if err != nil {
			return err
		}
		orders, err := a.Orders.FindAll(ctx, part)
		if err != nil {
			return err
		}
		for _, id := range part {
			e := p.entry(id)
			row, known := rows[id]
			switch {
			case !known:
				e.row = nil
			case e.row == nil:
				e.row = &stock.Row{Reservation: row, ChangedAt: row.At}
			case e.row.State != row.State:
				e.row = &stock.Row{Reservation: row, ChangedAt: b.dbNow} // it has just changed
			}
			e.order = nil
			if o, known := orders[id]; known {
				e.order = &o
			}
		}
	}
	return nil
}
