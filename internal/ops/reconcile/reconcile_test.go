package reconcile

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leadingpeers/seckill/internal/audit"
	"github.com/leadingpeers/seckill/internal/settleworker"
	"github.com/leadingpeers/seckill/internal/stockworker"
	"github.com/leadingpeers/seckill/pkg/events"
	"github.com/leadingpeers/seckill/pkg/stock"
)

// planted is one thing done to the stores by hand.
type planted struct {
	kind   Kind
	repair Repair
	why    string
	do     func(w *world, r stock.Reservation) stock.Reservation // r is a settled reservation of the product
}

func plants() []planted {
	inRedis := func(from, to string, units int64) func(*world, stock.Reservation) stock.Reservation {
		return func(w *world, r stock.Reservation) stock.Reservation {
			w.field(r, func(v string) string {
				held, rest, _ := strings.Cut(v, ";")
				if units != 0 {
					held = fmt.Sprint(r.Quantity + units)
				}
				return held + ";" + strings.Replace(rest, ","+from+",", ","+to+",", 1)
			})
			w.must(w.redis.HIncrBy(w.Context(), w.key(r.ProductID), "surplus", -units).Err())
			return r
		}
	}
	return []planted{
		{Undecided, Publish, "the gateway died between Redis and Kafka", func(w *world, r stock.Reservation) stock.Reservation {
			got, err := w.reserve(r.ProductID)
			w.must(err)
			return got
		}},
		{Unlisted, Publish, "and its buyer is missing in the open list", func(w *world, r stock.Reservation) stock.Reservation {
			got, err := w.reserve(r.ProductID)
			w.must(err)
			w.must(w.redis.LRem(w.Context(), w.key(r.ProductID)+":open", 0, got.UserID).Err())
			return got
		}},
		{Untold, Apply, "the worker died before it told Redis", inRedis("C", "P", 0)},
		{Untold, Apply, "Redis has lost a hold", func(w *world, r stock.Reservation) stock.Reservation { w.lose(r); return r }},
		{Forgotten, Publish, "MySQL was restored from before the sale of it", func(w *world, r stock.Reservation) stock.Reservation {
			w.forget(r)
			w.forgetOrder(r)
			return r
		}},
		{NotLoaded, Load, "somebody deleted the key", func(w *world, r stock.Reservation) stock.Reservation {
			w.must(w.redis.Del(w.Context(), w.key(r.ProductID), w.key(r.ProductID)+":open").Err())
			return stock.Reservation{}
		}},
		{NoOrder, Publish, "the order is gone", func(w *world, r stock.Reservation) stock.Reservation { w.forgetOrder(r); return r }},
		{NotReturned, Publish, "an order cancelled by hand", func(w *world, r stock.Reservation) stock.Reservation {
			w.exec("UPDATE orders SET state = 'cancelled', reason = 'by_hand', updated_at = NOW(3) WHERE product_id = ? AND user_id = ?", r.ProductID, r.UserID)
			return r
		}},
		{Unreceived, Publish, "only Kafka still knows it", func(w *world, r stock.Reservation) stock.Reservation {
			w.forget(r)
			w.forgetOrder(r)
			w.lose(r)
			return r
		}},
		{Terms, Configure, "a limit edited in Redis", func(w *world, r stock.Reservation) stock.Reservation {
			w.must(w.redis.HSet(w.Context(), w.key(r.ProductID), "per_user", 99).Err())
			return stock.Reservation{}
		}},
		{Surplus, Reload, "a surplus edited in Redis", func(w *world, r stock.Reservation) stock.Reservation {
			w.must(w.redis.HIncrBy(w.Context(), w.key(r.ProductID), "surplus", 3).Err())
			return stock.Reservation{}
		}},
		{Count, Reload, "a buyer's count edited in Redis", func(w *world, r stock.Reservation) stock.Reservation {
			w.field(r, func(v string) string { return "1" + strings.TrimPrefix(v, "2") })
			return stock.Reservation{}
		}},
		{Count, Reload, "a buyer's field that cannot be read", func(w *world, r stock.Reservation) stock.Reservation {
			w.field(r, func(string) string { return "nonsense" })
			return stock.Reservation{}
		}},
		{Contradicted, Reload, "rolled back in Redis alone", inRedis("C", "R", -2)},
		{Unpaid, Publish, "a payment that the order has lost", func(w *world, r stock.Reservation) stock.Reservation {
			w.exec("UPDATE orders SET state = 'awaiting_payment', payment_ref = NULL WHERE product_id = ? AND user_id = ?", r.ProductID, r.UserID)
			return r
		}},
		{NoRow, Publish, "an order without its reservation", func(w *world, r stock.Reservation) stock.Reservation {
			w.forget(r)
			w.lose(r)
			return r
		}},
	}
}

// alsoFound are the differences that come with a planted one: the same fault
// seen from another side.
func alsoFound(p planted) []Kind {
	switch {
	case p.kind == NoRow:
		return []Kind{Unreceived} // its event is in Kafka as well
	case p.why == "a buyer's field that cannot be read":
		return []Kind{Surplus, Untold} // what was in it is missing
	}
	return nil
}

func TestPlantedDifferencesAreFoundExplainedAndRepaired(t *testing.T) {
	all := plants()
	w := newWorld(t, len(all)+1, 100)
	settled := make([]stock.Reservation, len(all))
	for i := range all {
		product := fmt.Sprint("p", i+1)
		settled[i] = w.buy(product)
		w.buy(product)
	}
	w.Grace, w.SweepGrace = time.Nanosecond, time.Nanosecond // what is planted is old at once
	w.await(w.atRest)
	for i, p := range all {
		if p.kind == Unpaid {
			w.pay(settled[i]) // not sooner: a payment of what the ledger does not know is a dead letter
		}
	}
	w.await(func() string {
		if o, err := w.Orders.Counts(t.Context(), fmt.Sprint("p", slices.IndexFunc(all, func(p planted) bool { return p.kind == Unpaid })+1)); err != nil || o.Paid.Orders != 1 {
			return fmt.Sprint("the order is not paid: ", o, err)
		}
		return ""
	})

	want := map[string]string{}
	for i, p := range all {
		product := fmt.Sprint("p", i+1)
		r := p.do(w, settled[i])
		want[product+" "+string(p.kind)+" "+r.ID] = p.why
	}
	report := w.check()
	if report.Balanced {
		t.Fatal("balanced, with so much planted")
	}
	for _, d := range report.Differences {
		name := d.ProductID + " " + string(d.Kind) + " " + d.ReservationID
		t.Logf("%-12s %-10s %s", d.Kind, d.Repair, d.Says)
		var i int
		_, _ = fmt.Sscanf(d.ProductID, "p%d", &i)
		p := planted{}
		if i >= 1 && i <= len(all) {
			p = all[i-1]
		}
		_, planned := want[name]
		delete(want, name)
		switch {
		case d.UnderWay || d.Says == "":
			t.Errorf("%s: under way %t, says %q; want a fault with its reason", name, d.UnderWay, d.Says)
		case planned && d.Repair != p.repair:
			t.Errorf("%s is repaired by %s, want %s", name, d.Repair, p.repair)
		case !planned && !slices.Contains(alsoFound(p), d.Kind):
			t.Errorf("found what nobody has planted: %+v", d)
		}
	}
	for name, why := range want {
		t.Errorf("not found: %s (%s)", name, why)
	}

	rounds := 0
	w.await(func() string {
		r := w.check()
		if len(r.Differences) == 0 {
			return ""
		}
		rounds++
		if _, err := w.Repair(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%d differences left, the first %+v", len(r.Differences), r.Differences[0])
	})
	t.Logf("repaired in %d rounds", rounds)
	for _, p := range w.check().Products {
		if p.Total != p.Surplus+p.Held || p.Surplus != p.Available || p.Deducted != p.Awaiting+p.Paid {
			t.Errorf("after the repair: %+v", p)
		}
	}
	entries, err := audit.NewTrail(w.DB).List(t.Context(), audit.Filter{Entity: "books", Limit: 100})
	if err != nil || len(entries) == 0 || entries[0].Action != "RepairBooks" {
		t.Errorf("the audit trail has %v, %v; want each repair in it", entries, err)
	}
}

// What is wrong with the ledger itself is said, and left to people.
func TestWhatIsNotRepaired(t *testing.T) {
	w := newWorld(t, 3, 100)
	a, b := w.buy("p1"), w.buy("p2")
	w.Grace, w.SweepGrace = time.Nanosecond, time.Nanosecond
	w.await(w.atRest)
	w.exec("UPDATE stock SET available = available - 1 WHERE product_id = 'p3'")
	w.exec("UPDATE reservations SET state = 'rolled_back' WHERE user_id = ?", a.UserID)
	w.exec("UPDATE stock SET available = available + 2 WHERE product_id = 'p1'")
	w.exec("UPDATE orders SET pay_deadline = created_at WHERE user_id = ?", b.UserID)
	r := w.check()
	kinds := map[Kind]Repair{}
	for _, d := range r.Faults() {
		kinds[d.Kind] = d.Repair
	}
	for _, k := range []Kind{Ledger, Wrong, Overdue} {
		if kinds[k] != ByHand {
			t.Errorf("%s: repair %q, want it found and left to people; all: %v", k, kinds[k], kinds)
		}
	}
	done, err := w.Repair(t.Context(), r)
	if err != nil || done.Left != 3 {
		t.Errorf("%+v, %v; want 3 left", done, err)
	}
}

// A live sale with all services, buyers, payments and cancellations: whatever
// is under way is explained, and nothing is a fault.
func TestAHealthySaleUnderLoadHasNoFaults(t *testing.T) {
	w := newWorld(t, 4, 1200)
	w.run(stockworker.NewReaper(w.Catalog, w.Cache, w.Publisher, stockworker.ReaperConfig{Now: time.Now}).Run)
	w.run(stockworker.NewHealer(w.Catalog, stockworker.NewShelf(w.Cache, w.Ledger), stockworker.HealerConfig{Now: time.Now}).Run)
	w.run(settleworker.NewExpirer(w.Orders, settleworker.ExpirerConfig{}).Run)
	w.run(settleworker.NewRelay(w.Orders, w.Publisher, settleworker.RelayConfig{Now: time.Now}).Run)
	w.run(settleworker.NewSweeper(w.Orders, w.Publisher, settleworker.SweeperConfig{Now: time.Now}).Run)

	w.consume("checkout", events.Orders, checkout)

	sold := make(chan struct{})
	var buyers sync.WaitGroup
	for range 8 {
		buyers.Go(func() {
			for product := 0; product < 4; {
				r, err := w.reserve(fmt.Sprint("p", product+1))
				if errors.Is(err, stock.SoldOut) {
					product++
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				if rand.IntN(50) == 0 {
					continue // this gateway died here
				}
				w.announce(r)
			}
		})
	}
	go func() { buyers.Wait(); close(sold) }()

	checks, underWay, moving := 0, 0, 0
	for live := true; live; {
		select {
		case <-sold:
			live = false
		default:
		}
		r := w.check()
		checks++
		for _, d := range r.Differences {
			if underWay++; !d.UnderWay {
				t.Errorf("a fault in a healthy sale: %+v", d)
			}
		}
		for _, p := range r.Products {
			if p.Moving {
				moving++
			}
		}
	}
	if checks < 2 || underWay == 0 {
		t.Errorf("%d checks have seen %d things under way: that is no proof of anything", checks, underWay)
	}
	w.await(w.atRest)
	t.Logf("%d checks during the sale of %d reservations saw %d things under way and %d moving products; none was a fault", checks, w.bought, underWay, moving)
}

// checkout pays a third of the orders, gives a sixth up, and lets the others wait.
func checkout(_ context.Context, batch []events.Event) (next []events.Event, err error) {
	for _, e := range batch {
		if e.Type != events.OrderCreated {
			continue
		}
		answer := events.Event{Type: events.PaymentSucceeded, ReservationID: e.ReservationID, PaymentRef: "pay-" + e.ReservationID, AmountCents: e.AmountCents, Currency: e.Currency}
		switch rand.IntN(6) {
		case 0:
			answer.Type = events.PaymentFailed
		case 1, 2:
		default:
			continue
		}
		next = append(next, answer)
	}
	return next, nil
}
