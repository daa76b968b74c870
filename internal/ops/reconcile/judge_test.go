package reconcile

import (
	"strings"
	"testing"
	"time"

	"github.com/leadingpeers/seckill/pkg/catalog"
	"github.com/leadingpeers/seckill/pkg/events"
	"github.com/leadingpeers/seckill/pkg/order"
	"github.com/leadingpeers/seckill/pkg/stock"
)

// What a reservation is judged to be, by what each store says and for how long.
func TestJudgement(t *testing.T) {
	now := time.Date(2026, 11, 11, 20, 0, 0, 0, time.UTC)
	held := func(s stock.State, age time.Duration) *stock.Reservation {
		return &stock.Reservation{ID: id(1), ProductID: "p", UserID: "u", Quantity: 2, State: s, At: now.Add(-age)}
	}
	row := func(s stock.State, age time.Duration) *stock.Row {
		return &stock.Row{Reservation: *held(s, age), ChangedAt: now.Add(-age)}
	}
	ordered := func(s order.State, age time.Duration) *order.Order {
		return &order.Order{ReservationID: id(1), State: s, AmountCents: 198, CreatedAt: now.Add(-age), UpdatedAt: now.Add(-age), PayDeadline: now.Add(time.Minute - age)}
	}
	spoken := func(age time.Duration) *told {
		return &told{events.Event{Type: events.ReservationCreated, ReservationID: id(1), ProductID: "p", UserID: "u", Quantity: 2}, now.Add(-age)}
	}
	s, ms := time.Second, time.Millisecond
	for _, c := range []struct {
		why   string
		entry entry
		kind  Kind // empty: no difference
		fault bool
		says  string
	}{
		{why: "all agree", entry: entry{redis: held(stock.Deducted, 90*s), row: row(stock.Deducted, 90*s), order: ordered(order.Paid, 80*s)}},
		{why: "refused, and Redis knows", entry: entry{redis: held(stock.RolledBack, 90*s), row: row(stock.Refused, 90*s)}},
		{"just reserved", entry{redis: held(stock.Pending, 300*ms)}, Undecided, false, "pending 300ms: on its way"},
		{"its event was lost", entry{redis: held(stock.Pending, 12*s)}, Undecided, false, "pending 12s, will be reaped"},
		{"the reaper does not work", entry{redis: held(stock.Pending, 75*s)}, Undecided, true, "pending 1m15s, and nobody decides"},
		{"the worker is behind", entry{redis: held(stock.Pending, 75*s), waitsDeduct: true}, Undecided, false, "waits in the topic"},
		{"decided a moment ago", entry{redis: held(stock.Pending, 2*s), row: row(stock.Deducted, 1*s), order: ordered(order.AwaitingPayment, s)}, Untold, false, "the worker is telling it"},
		{"decided long ago", entry{redis: held(stock.Pending, 99*s), row: row(stock.Refused, 98*s)}, Untold, true, "has died before it told"},
		{"rolled back, and Redis still sells it to them", entry{redis: held(stock.Deducted, 99*s), row: row(stock.RolledBack, 98*s), order: ordered(order.Cancelled, 98*s)}, Untold, true, "rolled_back in the ledger"},
		{"Redis has lost it", entry{row: row(stock.Deducted, 99*s), order: ordered(order.Paid, 98*s)}, Untold, true, "unknown to Redis"},
		{"the ledger has lost it", entry{redis: held(stock.Deducted, 99*s)}, Forgotten, true, "the ledger does not know it"},
		{"rolled back in Redis alone", entry{redis: held(stock.RolledBack, 99*s), row: row(stock.Deducted, 99*s), order: ordered(order.Paid, 98*s)}, Contradicted, true, "apply cannot undo"},
		{"only Kafka has it, for a moment", entry{created: spoken(3 * s)}, Unreceived, false, "neither Redis nor the ledger"},
		{"only Kafka has it", entry{created: spoken(99 * s)}, Unreceived, true, "neither Redis nor the ledger"},
		{why: "only Kafka has it, and it waits", entry: entry{created: spoken(99 * s), waitsDeduct: true}},
		{"settled in a moment", entry{redis: held(stock.Deducted, 9*s), row: row(stock.Deducted, 8*s)}, NoOrder, false, "no order for 8s: on its way"},
		{"the sweeper's", entry{redis: held(stock.Deducted, 71*s), row: row(stock.Deducted, 70*s)}, NoOrder, false, "deducted, no order for 1m10s: sweeper"},
		{"the sweeper does not work", entry{redis: held(stock.Deducted, 300*s), row: row(stock.Deducted, 299*s)}, NoOrder, true, "the sweeper should have seen to it"},
		{"the settle-worker is behind", entry{redis: held(stock.Deducted, 300*s), row: row(stock.Deducted, 299*s), waitsSettle: true}, NoOrder, false, "waits in the topic"},
		{"cancelled a moment ago", entry{redis: held(stock.Deducted, 99*s), row: row(stock.Deducted, 99*s), order: ordered(order.Cancelled, s)}, NotReturned, false, "on its way"},
		{"cancelled long ago", entry{redis: held(stock.Deducted, 999*s), row: row(stock.Deducted, 999*s), order: ordered(order.Cancelled, 900*s)}, NotReturned, true, "should have seen to it"},
		{"sold, and given back", entry{redis: held(stock.RolledBack, 99*s), row: row(stock.RolledBack, 99*s), order: ordered(order.Paid, 98*s)}, Wrong, true, "by hand"},
		{"an order of nothing", entry{order: ordered(order.Paid, 98*s)}, NoRow, true, "does not know its reservation"},
		{why: "awaits payment in time", entry: entry{redis: held(stock.Deducted, 30*s), row: row(stock.Deducted, 30*s), order: ordered(order.AwaitingPayment, 30*s)}},
		{"awaits payment too long", entry{redis: held(stock.Deducted, 99*s), row: row(stock.Deducted, 99*s), order: ordered(order.AwaitingPayment, 99*s)}, Overdue, true, "39s after its deadline"},
	} {
		p := &product{Product: Product{ProductID: "p", Loaded: true}, activity: catalog.Activity{ID: "sale"}, entries: map[string]*entry{id(1): &c.entry}}
		b := &books{redisNow: now, dbNow: now, grace: 30 * s, sweep: 150 * s}
		p.shelf.Open = map[string]bool{"u": true}
		got := p.reservation(b, id(1), &c.entry)
		if c.kind == "" {
			if len(got) > 0 {
				t.Errorf("%s: %+v, want no difference", c.why, got)
			}
			continue
		}
		if len(got) != 1 || got[0].Kind != c.kind || got[0].UnderWay == c.fault || !strings.Contains(got[0].Says, c.says) {
			t.Errorf("%s: %+v, want %s, a fault: %t, that says %q", c.why, got, c.kind, c.fault, c.says)
			continue
		}
		if got[0].Repair == Publish && got[0].event.Validate() != nil && got[0].Kind != NoRow { // an order in this table has no user
			t.Errorf("%s: would publish %+v: %v", c.why, got[0].event, got[0].event.Validate())
		}
	}
}
