package reconcile

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/leadingpeers/seckill/pkg/catalog"
	"github.com/leadingpeers/seckill/pkg/events"
	"github.com/leadingpeers/seckill/pkg/order"
	"github.com/leadingpeers/seckill/pkg/stock"
)

// differences compares everything about p, and fills in its account.
func (p *product) differences(b *books) []Difference {
	out := p.sums(b)
	p.Awaiting, p.Paid, p.Cancelled = 0, 0, 0
	for _, id := range slices.Sorted(maps.Keys(p.entries)) {
		e := p.entries[id]
		if e.order != nil {
			switch e.order.State {
			case order.AwaitingPayment:
				p.Awaiting += e.order.Quantity
			case order.Paid:
				p.Paid += e.order.Quantity
			case order.Cancelled:
				p.Cancelled += e.order.Quantity
			}
		}
		for _, d := range p.reservation(b, id, e) {
			d.ProductID, d.ReservationID = p.ProductID, id
			d.AgeSeconds = max(0, d.AgeSeconds)
			if letter := b.letters[id]; letter != "" && !d.UnderWay {
				d.Says += "; an event of it is the dead letter " + letter
			}
			out = append(out, d)
		}
	}
	return out
}

// sums compares the counts of the product as a whole.
func (p *product) sums(b *books) []Difference {
	p.Total, p.Available, p.Deducted = p.ledger.Total, p.ledger.Available, p.ledger.Deducted
	var out []Difference
	add := func(kind Kind, repair Repair, underWay bool, format string, args ...any) {
		out = append(out, Difference{Kind: kind, ProductID: p.ProductID, Repair: repair, UnderWay: underWay, Says: fmt.Sprintf(format, args...)})
	}
	if p.Total != p.Available+p.Deducted {
		add(Ledger, ByHand, false, "the ledger has %d available and %d deducted of %d: stop the product; no operation of the protocol makes up for that", p.Available, p.Deducted, p.Total)
	}
	young := b.dbNow.Sub(p.changed) < b.grace
	if !p.Loaded {
		if p.activity.State == catalog.Online {
			add(NotLoaded, Load, young, "online, and not in Redis: nobody can buy; the healer loads it within seconds")
		}
		return out
	}
	if terms := differing(p.shelf.Terms, p.wanted); terms != "" && (p.activity.State == catalog.Online || p.activity.State == catalog.Paused) {
		add(Terms, Configure, young, "Redis sells under other terms than the catalogue says: %s; the healer sets them every 10 s", terms)
	}
	if d := p.drift(); d != 0 {
		add(Surplus, Reload, p.Moving, "surplus %d + pending %d + deducted %d is %d units off the total %d in Redis%s",
			p.Surplus, p.Pending, p.Held, -d, p.shelf.Total, map[bool]string{true: "; it moved while it was read, so that is no proof"}[p.Moving])
	}
	return append(out, p.counts...)
}

// differing names what the terms differ in.
func differing(has, wants stock.Terms) string {
	var out []string
	for _, f := range []struct {
		name        string
		have, wants any
	}{
		{"per_order", has.PerOrder, wants.PerOrder},
		{"per_user", has.PerUser, wants.PerUser},
		{"on_sale", has.OnSale, wants.OnSale},
		{"starts_at", has.StartsAt.UnixMilli(), wants.StartsAt.UnixMilli()},
		{"ends_at", has.EndsAt.UnixMilli(), wants.EndsAt.UnixMilli()},
		{"total", has.Total, wants.Total},
		{"restocks", has.Restocks, wants.Restocks},
	} {
		if f.have != f.wants {
			out = append(out, fmt.Sprintf("%s %v instead of %v", f.name, f.have, f.wants))
		}
	}
	return strings.Join(out, ", ")
}

// reservation compares what the stores say about one reservation.
func (p *product) reservation(b *books, id string, e *entry) []Difference {
	var out []Difference
	if p.Loaded {
		out = append(out, p.inRedis(b, id, e)...)
	}
	if e.redis == nil && e.row == nil && e.created != nil && !e.waitsDeduct {
		age := b.dbNow.Sub(e.created.at)
		out = append(out, Difference{
			Kind: Unreceived, UserID: e.created.event.UserID, AgeSeconds: age.Seconds(), UnderWay: age < b.grace, Repair: Publish, event: e.created.event,
			Says: fmt.Sprintf("its event was handled %s ago, and neither Redis nor the ledger knows it", show(age)),
		})
	}
	return append(out, p.ordered(b, e)...)
}

// inRedis compares Redis with the ledger.
func (p *product) inRedis(b *books, id string, e *entry) []Difference {
	switch {
	case e.redis == nil && e.row != nil:
		return p.untold(b, e, "unknown to Redis")
	case e.redis == nil:
		return nil
	case e.row == nil && e.redis.State == stock.Pending:
		return p.undecided(b, e)
	case e.row == nil:
		age := b.redisNow.Sub(e.redis.At)
		return []Difference{{
			Kind: Forgotten, UserID: e.redis.UserID, AgeSeconds: age.Seconds(), UnderWay: e.waitsDeduct, Repair: Publish, event: p.decided(id, e),
			Says: fmt.Sprintf("%s in Redis, and the ledger does not know it%s", e.redis.State, waits(e.waitsDeduct)),
		}}
	}
	want := stock.RolledBack
	if e.row.State == stock.Deducted {
		want = stock.Deducted
	}
	switch {
	case e.redis.State == stock.Pending, e.redis.State == stock.Deducted && want == stock.RolledBack:
		return p.untold(b, e, string(e.redis.State)+" in Redis")
	case e.redis.State != want, want == stock.Deducted && (e.redis.Quantity != e.row.Quantity || e.redis.UserID != e.row.UserID):
		age := b.dbNow.Sub(e.row.ChangedAt)
		return []Difference{{
			Kind: Contradicted, UserID: e.row.UserID, AgeSeconds: age.Seconds(), Repair: Reload,
			Says: fmt.Sprintf("%s in Redis with %d units for %s, %s in the ledger with %d for %s: apply cannot undo that", e.redis.State, e.redis.Quantity, e.redis.UserID, e.row.State, e.row.Quantity, e.row.UserID),
		}}
	}
	return nil
}

// untold is a decision of the ledger that Redis does not have.
func (p *product) untold(b *books, e *entry, has string) []Difference {
	age := b.dbNow.Sub(e.row.ChangedAt)
	under := age < b.grace || e.waitsDeduct || e.waitsRollback
	return []Difference{{
		Kind: Untold, UserID: e.row.UserID, AgeSeconds: age.Seconds(), UnderWay: under, Repair: Apply, row: e.row.Reservation,
		Says: fmt.Sprintf("%s in the ledger for %s, %s%s", e.row.State, show(age), has, map[bool]string{true: ": the worker is telling it", false: ": a worker has died before it told; heal"}[under]),
	}}
}

// undecided is what waits in Redis for the ledger.
func (p *product) undecided(b *books, e *entry) []Difference {
	r := *e.redis
	age := b.redisNow.Sub(r.At)
	d := Difference{Kind: Undecided, UserID: r.UserID, AgeSeconds: age.Seconds(), UnderWay: age < b.grace || e.waitsDeduct, Repair: Publish, event: p.created(r)}
	switch {
	case e.waitsDeduct:
		d.Says = fmt.Sprintf("pending %s%s", show(age), waits(true))
	case !p.shelf.Open[r.UserID] && !d.UnderWay:
		d.Kind = Unlisted
		d.Says = fmt.Sprintf("pending %s, and its buyer is not in the open list: the reaper will never see it", show(age))
	case d.UnderWay && age < 5*time.Second:
		d.Says = fmt.Sprintf("pending %s: on its way", show(age))
	case d.UnderWay:
		d.Says = fmt.Sprintf("pending %s, will be reaped", show(age))
	default:
		d.Says = fmt.Sprintf("pending %s, and nobody decides: does a stock-worker run, and can it write to MySQL?", show(age))
	}
	return []Difference{d}
}

// ordered compares the ledger with the orders, and those with the payments.
func (p *product) ordered(b *books, e *entry) []Difference {
	o := e.order
	switch {
	case e.row == nil && o == nil:
		return nil
	case e.row == nil:
		return p.noRow(b, *o)
	case o == nil && e.row.State != stock.Deducted:
		return nil
	case o == nil:
		age := b.dbNow.Sub(e.row.ChangedAt)
		d := Difference{Kind: NoOrder, UserID: e.row.UserID, AgeSeconds: age.Seconds(), UnderWay: age < b.sweep || e.waitsSettle, Repair: Publish}
		d.event = p.fact(events.StockDeducted, e.row.Reservation)
		d.Says = fmt.Sprintf("deducted, no order for %s%s", show(age), sweeper(age, e.waitsSettle, d.UnderWay))
		return []Difference{d}
	case e.row.State != stock.Deducted && o.State != order.Cancelled:
		return []Difference{{
			Kind: Wrong, UserID: o.UserID, AgeSeconds: b.dbNow.Sub(o.UpdatedAt).Seconds(), Repair: ByHand,
			Says: fmt.Sprintf("order %s is %s, and its reservation is %s in the ledger: its units may be sold to somebody else; cancel and refund it by hand", o.ID, o.State, e.row.State),
		}}
	case e.row.State == stock.Deducted && o.State == order.Cancelled:
		age := b.dbNow.Sub(o.UpdatedAt)
		d := Difference{Kind: NotReturned, UserID: o.UserID, AgeSeconds: age.Seconds(), UnderWay: age < b.sweep || e.waitsRollback, Repair: Publish}
		d.event = p.fact(events.StockRollback, e.row.Reservation)
		d.event.Reason = o.Reason
		d.Says = fmt.Sprintf("order cancelled, units still deducted for %s%s", show(age), sweeper(age, e.waitsRollback, d.UnderWay))
		return []Difference{d}
	}
	return p.awaiting(b, *o)
}

// awaiting looks at an order that may be paid or due.
func (p *product) awaiting(b *books, o order.Order) []Difference {
	if o.State != order.AwaitingPayment {
		return nil
	}
	if t := b.payments[o.ReservationID]; t != nil && t.event.AmountCents == o.AmountCents {
		age := b.dbNow.Sub(t.at)
		under := age < b.grace || b.unpaid[o.ReservationID]
		return []Difference{{
			Kind: Unpaid, UserID: o.UserID, AgeSeconds: age.Seconds(), UnderWay: under, Repair: Publish, event: t.event,
			Says: fmt.Sprintf("paid with %s %s ago, and the order awaits payment%s", t.event.PaymentRef, show(age), waits(b.unpaid[o.ReservationID])),
		}}
	}
	if late := b.dbNow.Sub(o.PayDeadline); late > b.grace {
		return []Difference{{
			Kind: Overdue, UserID: o.UserID, AgeSeconds: late.Seconds(), Repair: ByHand,
			Says: fmt.Sprintf("order %s awaits payment %s after its deadline: does a settle-worker run? It cancels such orders", o.ID, show(late)),
		}}
	}
	return nil
}

// noRow is an order that the ledger knows nothing of.
func (p *product) noRow(b *books, o order.Order) []Difference {
	age := b.dbNow.Sub(o.CreatedAt)
	r := stock.Reservation{ID: o.ReservationID, ProductID: o.ProductID, UserID: o.UserID, Quantity: o.Quantity, At: o.CreatedAt}
	d := Difference{
		Kind: NoRow, UserID: o.UserID, AgeSeconds: age.Seconds(), Repair: Publish, event: p.created(r),
		Says: fmt.Sprintf("order %s is %s, and the ledger does not know its reservation", o.ID, o.State),
	}
	if o.State == order.Cancelled {
		d.event = p.fact(events.StockRollback, r)
		d.event.Reason = o.Reason
	}
	return []Difference{d}
}

// decided is the event that lets the ledger decide what Redis says is decided.
func (p *product) decided(id string, e *entry) events.Event {
	if e.redis.State == stock.Deducted {
		return p.created(*e.redis)
	}
	event := p.fact(events.StockRollback, *e.redis) // becomes a tombstone there
	event.Reason = "reconciled"
	event.ReservationID = id
	return event
}

// created is the event that a gateway or a reaper publishes.
func (p *product) created(r stock.Reservation) events.Event {
	return p.fact(events.ReservationCreated, r)
}

// fact is an event about a reservation of p.
func (p *product) fact(kind events.Type, r stock.Reservation) events.Event {
	return events.Event{
		Type: kind, Time: r.At, ReservationID: r.ID, ActivityID: p.activity.ID,
		ProductID: p.ProductID, UserID: r.UserID, Quantity: r.Quantity,
	}
}

func waits(yes bool) string {
	if yes {
		return ": its event waits in the topic to be handled"
	}
	return ""
}

// sweeper says whether the sweeper is to be expected.
func sweeper(age time.Duration, waiting, underWay bool) string {
	switch {
	case waiting:
		return waits(true)
	case !underWay:
		return ": the sweeper should have seen to it"
	case age > time.Minute:
		return ": sweeper"
	}
	return ": on its way"
}

// show is a duration for people.
func show(d time.Duration) string {
	d = max(0, d)
	return cmp.Or(d.Round(time.Second), d.Round(time.Millisecond)).String()
}
