package reconcile

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/leadingpeers/seckill/pkg/catalog"
	"github.com/leadingpeers/seckill/pkg/events"
	"github.com/leadingpeers/seckill/pkg/order"
	"github.com/leadingpeers/seckill/pkg/stock"
)

// books are what was read.
type books struct {
	products  map[string]*product
	redisNow  time.Time
	dbNow     time.Time
	events    int64
	committed map[string]map[int]int64 // by group and partition, before anything else was read
	letters   map[string]string        // by reservation, the ID of a dead letter
	payments  map[string]*told         // by reservation, the last payment: its event does not name the product
	unpaid    map[string]bool          // those of which a payment waits for its reader
	grace     time.Duration
	sweep     time.Duration
}

// product is everything about one product.
type product struct {
	Product
	activity catalog.Activity
	wanted   stock.Terms
	changed  time.Time // of the catalogue's word, by the database's clock
	shelf    stock.OnShelf
	ledger   stock.Stock
	counts   []Difference // of buyers in Redis
	entries  map[string]*entry
}

// entry is everything about one reservation.
type entry struct {
	redis   *stock.Reservation
	row     *stock.Row
	order   *order.Order
	created *told // its event, however it ended

	waitsDeduct, waitsRollback, waitsSettle bool // an event of it is in a topic, and nobody has handled it yet
}

// told is an event in a topic.
type told struct {
	event events.Event
	at    time.Time // the record's own time
}

func (p *product) entry(id string) *entry {
	e := p.entries[id]
	if e == nil {
		e = &entry{}
		p.entries[id] = e
	}
	return e
}

// read goes through all stores once. Upstream first: what is not found further
// down had the time to get there.
func (a *Auditor) read(ctx context.Context, listings []catalog.Listing) (*books, error) {
	b := &books{
		products: map[string]*product{}, committed: map[string]map[int]int64{}, letters: map[string]string{},
		payments: map[string]*told{}, unpaid: map[string]bool{},
		grace: a.grace(), sweep: a.sweepGrace(),
	}
	var since time.Time
	for _, l := range listings {
		if since.IsZero() || l.Activity.CreatedAt.Before(since) {
			since = l.Activity.CreatedAt
		}
		for _, p := range l.Products {
			b.products[p.ID] = &product{
				Product: Product{ProductID: p.ID}, activity: l.Activity, wanted: terms(l.Activity, p), entries: map[string]*entry{},
				changed: later(l.Activity.UpdatedAt, p.UpdatedAt),
			}
		}
	}
	if len(b.products) == 0 {
		return b, nil
	}
	for _, p := range b.products {
		if err := a.readRedis(ctx, b, p); err != nil {
			return nil, fmt.Errorf("%s: %w", p.ProductID, err)
		}
	}
	if err := a.readTopics(ctx, b, since.Add(-time.Minute)); err != nil { // the clocks may differ
		return nil, err
	}
	for _, p := range b.products {
		if err := a.readLedger(ctx, p); err != nil {
			return nil, fmt.Errorf("%s: %w", p.ProductID, err)
		}
	}
	for _, l := range listings {
		for o, err := range a.Orders.Each(ctx, order.Filter{ActivityID: l.Activity.ID}) {
			if err != nil {
				return nil, err
			}
			if p := b.products[o.ProductID]; p != nil {
				p.entry(o.ReservationID).order = &o
			}
		}
	}
	var err error
	b.dbNow, err = a.Ledger.Now(ctx)
	return b, err
}

func later(x, y time.Time) time.Time {
	if x.After(y) {
		return x
	}
	return y
}

// terms are the part of the catalogue that Redis checks.
func terms(a catalog.Activity, p catalog.Product) stock.Terms {
	return stock.Terms{
		ProductID: p.ID, PerOrder: p.PerOrder, PerUser: p.PerUser, OnSale: a.State == catalog.Online && !p.SoldOut,
		StartsAt: a.StartsAt, EndsAt: a.EndsAt, Total: p.Total, Restocks: p.Restocks,
	}
}

// readRedis reads one product in Redis. Called again, it replaces what it had.
func (a *Auditor) readRedis(ctx context.Context, b *books, p *product) error {
	for _, e := range p.entries {
		e.redis = nil
	}
	p.counts, p.Loaded, p.Surplus, p.Pending, p.Held = nil, false, 0, 0, 0
	shelf, err := a.Cache.OnShelf(ctx, p.ProductID)
	if errors.Is(err, stock.NotLoaded) {
		p.shelf = stock.OnShelf{}
		return nil
	}
	if err != nil {
		return err
	}
	p.Loaded, p.shelf, p.Surplus = true, shelf, shelf.Surplus
	for buyer, err := range a.Cache.Buyers(ctx, p.ProductID) {
		if err != nil {
			return err
		}
		p.addBuyer(buyer)
	}
	now, err := a.Cache.OnShelf(ctx, p.ProductID)
	if errors.Is(err, stock.NotLoaded) {
		p.Loaded = false
		return nil
	}
	if err != nil {
		return err
	}
	p.Moving = now.Surplus != shelf.Surplus
	for user := range shelf.Open { // whoever was listed before or after was seen by the reaper
		now.Open[user] = true
	}
	p.shelf.Open = now.Open
	b.redisNow, err = a.Cache.Now(ctx)
	return err
}

func (p *product) addBuyer(buyer stock.Buyer) {
	units := buyer.Units
	for _, r := range buyer.Reservations {
		p.entry(r.ID).redis = &r
		switch r.State {
		case stock.Pending:
			p.Pending += r.Quantity
			units -= r.Quantity
		case stock.Deducted:
			p.Held += r.Quantity
			units -= r.Quantity
		case stock.Refused, stock.RolledBack:
		}
	}
	says := buyer.Problem
	if says == "" && units != 0 {
		says = fmt.Sprintf("the buyer's count is %d units off the sum of their reservations", units)
	}
	if says != "" {
		p.counts = append(p.counts, Difference{Kind: Count, ProductID: p.ProductID, UserID: buyer.UserID, Says: says, Repair: Reload})
	}
}

// drift is by how many units the sums in Redis are off the total there.
func (p *product) drift() int64 { return p.shelf.Total - p.Surplus - p.Pending - p.Held }

func (a *Auditor) readLedger(ctx context.Context, p *product) error {
	for row, err := range a.Ledger.Rows(ctx, p.ProductID) {
		if err != nil {
			return err
		}
		p.entry(row.ID).row = &row
	}
	var err error
	p.ledger, err = a.Ledger.Stock(ctx, p.ProductID)
	return err
}

// readers are the groups that decide, and what they read.
func readers() map[string]events.Topic {
	return map[string]events.Topic{
		"deduct": events.Reservations, "rollback": events.Rollbacks, "settle": events.Deductions, "payment": events.Payments,
	}
}

// readTopics reads what the topics hold about the products. Where a group
// stands is read first: what it had committed by then was handled.
func (a *Auditor) readTopics(ctx context.Context, b *books, since time.Time) error {
	for group, topic := range readers() {
		lags, err := events.Lag(ctx, a.Kafka, group, topic)
		if err != nil {
			return err
		}
		b.committed[group] = map[int]int64{}
		for _, l := range lags {
			b.committed[group][l.Partition] = l.Committed
		}
	}
	for group, topic := range readers() {
		spans, err := events.Spans(ctx, a.Kafka, topic, since)
		if err != nil {
			return err
		}
		for _, s := range spans {
			if topic == events.Rollbacks || topic == events.Deductions { // of these only what waits is of interest
				s.From = max(s.From, b.committed[group][s.Partition])
			}
			for r, err := range events.Scan(ctx, a.Kafka, topic, s) {
				if err != nil {
					return err
				}
				b.events++
				b.hear(group, r)
			}
		}
	}
	return a.readLetters(ctx, b)
}

// hear notes one record.
func (b *books) hear(group string, r events.Stored) {
	if r.Unreadable != nil {
		return // a dead letter by now
	}
	id, handled := r.Event.ReservationID, r.Offset < b.committed[group][r.Partition]
	if r.Event.Type == events.PaymentSucceeded {
		b.payments[id] = &told{r.Event, r.At}
		b.unpaid[id] = b.unpaid[id] || !handled
	}
	p := b.products[r.Event.ProductID]
	if p == nil || group == "payment" {
		return
	}
	e := p.entry(id)
	switch group {
	case "deduct":
		e.created = &told{r.Event, r.At}
		e.waitsDeduct = e.waitsDeduct || !handled
	case "rollback":
		e.waitsRollback = e.waitsRollback || !handled
	case "settle":
		e.waitsSettle = e.waitsSettle || !handled
	}
}

// readLetters remembers which reservations have an event among the dead
// letters: that explains much.
func (a *Auditor) readLetters(ctx context.Context, b *books) error {
	for group := range readers() {
		spans, err := events.Spans(ctx, a.Kafka, events.DeadLetterTopic(group), time.Time{})
		if err != nil {
			return err
		}
		for _, s := range spans {
			for l, err := range events.Letters(ctx, a.Kafka, group, s) {
				if err != nil {
					return err
				}
				b.letters[l.Event.ReservationID] = l.ID()
			}
		}
	}
	return nil
}
