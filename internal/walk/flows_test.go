package walk

import (
	"encoding/base32"
	"encoding/binary"
	"errors"
	"iter"
	"maps"
	"strings"
	"testing"

	"github.com/leadingpeers/seckill/pkg/catalog"
	"github.com/leadingpeers/seckill/pkg/events"
	"github.com/leadingpeers/seckill/pkg/order"
	"github.com/leadingpeers/seckill/pkg/stock"
)

// id returns the nth reservation ID.
func id(n int) string {
	b := make([]byte, 16)
	binary.BigEndian.PutUint64(b[8:], uint64(n))
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b))
}

const (
	pending    = stock.Pending
	deducted   = stock.Deducted
	refused    = stock.Refused
	rolledBack = stock.RolledBack
)

// checkTold compares the events on the topic of orders.
func (w *world) checkTold(want map[events.Type]int) {
	w.t.Helper()
	if got := w.told(); !maps.Equal(got, want) {
		w.t.Errorf("told %v, want %v", got, want)
	}
}

// TestPaid is the ordinary course.
func TestPaid(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]int64{"p": 10})
	w.step(w.healer.Step) // loads
	r := w.bought(1, "ann", 2)
	w.stands(r, pending, "", "")
	w.balanced("p")
	w.drain()
	w.stands(r, deducted, deducted, order.AwaitingPayment)
	w.paid(r, "ref")
	w.drain()
	w.stands(r, deducted, deducted, order.Paid)
	w.atRest("p", 2)
	w.checkTold(map[events.Type]int{events.OrderCreated: 1, events.OrderPaid: 1})
}

// TestNotPaid lets the time-out pass, or the payment fail: the units come back
// and can be bought again.
func TestNotPaid(t *testing.T) {
	tests := []struct {
		name   string
		unpaid func(*world, stock.Reservation)
		reason string
	}{
		{"time-out", func(w *world, _ stock.Reservation) { w.due() }, order.ReasonTimeout},
		{"payment failed", func(w *world, r stock.Reservation) {
			w.must(w.Publish(w.t.Context(), events.Event{Type: events.PaymentFailed, ReservationID: r.ID}))
		}, "payment_failed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, map[string]int64{"p": 2})
			w.step(w.healer.Step)
			r := w.bought(1, "ann", 2)
			w.drain()
			if _, err := w.buy(stock.Reservation{ID: id(2), ProductID: "p", UserID: "bob", Quantity: 1}); !errors.Is(err, stock.SoldOut) {
				t.Fatalf("the last unit is held: %v, want %v", err, stock.SoldOut)
			}
			tt.unpaid(w, r)
			w.drain()
			w.stands(r, rolledBack, rolledBack, order.Cancelled)
			w.atRest("p", 0)
			w.checkTold(map[events.Type]int{events.OrderCreated: 1, events.OrderCancelled: 1})
			if o, err := w.orders.Find(t.Context(), r.ID); err != nil || o.Reason != tt.reason {
				t.Errorf("reason %q, error %v; want %q", o.Reason, err, tt.reason)
			}
			again := w.bought(2, "bob", 2)
			w.drain()
			w.stands(again, deducted, deducted, order.AwaitingPayment)

			w.paid(r, "late") // after the end: nothing is resurrected
			w.drain()
			w.stands(r, rolledBack, rolledBack, order.Cancelled)
			w.checkTold(map[events.Type]int{events.OrderCreated: 2, events.OrderCancelled: 1, events.OrderRefundDue: 1})
		})
	}
}

// TestRefused lets Redis admit more than the ledger has: a restart has given it
// back an older state.
func TestRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]int64{"p": 2})
	w.step(w.healer.Step)
	old := w.backup("p")
	first := w.bought(1, "ann", 2)
	w.drain()
	w.restore(old)
	second := w.bought(2, "bob", 2) // Redis has forgotten that there are none left
	w.drain()
	w.stands(first, "", deducted, order.AwaitingPayment)
	w.stands(second, rolledBack, refused, "")
	w.step(w.healer.Step) // adopts what Redis has lost
	w.stands(first, deducted, deducted, order.AwaitingPayment)
	w.atRest("p", 2)
}

// TestCrashes lets each process die at each place, and everything that is in
// Kafka come again.
func TestCrashes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]int64{"p": 10})
	w.step(w.healer.Step)
	ctx := t.Context()

	// The gateway, between Redis and Kafka: nobody knows but Redis.
	r := stock.Reservation{ID: id(1), ProductID: "p", UserID: "ann", Quantity: 2}
	_, err := w.buy(r)
	w.must(err)
	w.stands(r, pending, "", "")
	w.until(events.Reservations, w.reaper.Step)
	batch := w.take(events.Reservations)

	// The stock-worker, after the commit and before anything is published.
	w.fault = func() error { return errCrash }
	if _, err := w.handlers[events.Reservations](ctx, batch); err == nil {
		t.Error("Redis is away and the batch counts as handled")
	}
	w.fault = nil
	w.stands(r, pending, deducted, "")
	w.balanced("p")
	w.must(w.handle(events.Reservations, batch)) // it comes again
	w.stands(r, deducted, deducted, "")

	// The settle-worker, the same way.
	batch = w.take(events.Deductions)
	if len(batch) != 1 {
		t.Fatalf("%d deductions, want the one that was seen before", len(batch))
	}
	_, err = w.handlers[events.Deductions](ctx, batch)
	w.must(err)
	w.must(w.handle(events.Deductions, batch))
	w.checkTold(map[events.Type]int{events.OrderCreated: 1}) // the first died with the process

	// The relay, after Kafka has written and before the outbox knows.
	w.due()
	w.step(w.expirer.Step)
	w.acks = func() error { return errCrash }
	if _, err := w.relay.Step(ctx); err == nil {
		t.Error("Kafka did not ack and the outbox was emptied")
	}
	w.acks = nil
	w.step(w.relay.Step)
	if n := len(w.queues[events.Rollbacks]); n != 2 {
		t.Errorf("%d rollbacks, want 2: at least once", n)
	}

	// The rollback, after the commit and before Redis knows.
	batch = w.take(events.Rollbacks)
	w.fault = func() error { return errCrash }
	if _, err := w.handlers[events.Rollbacks](ctx, batch); err == nil {
		t.Error("Redis is away and the batch counts as handled")
	}
	w.fault = nil
	w.stands(r, deducted, rolledBack, order.Cancelled)
	w.must(w.handle(events.Rollbacks, batch))
	w.stands(r, rolledBack, rolledBack, order.Cancelled)
	w.atRest("p", 0)
}

// TestRollbackFirst lets the rollback overtake the reservation.
func TestRollbackFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]int64{"p": 10})
	w.step(w.healer.Step)
	r := w.bought(1, "ann", 2)
	created := w.take(events.Reservations)
	back := created[0]
	back.Type = events.StockRollback
	w.must(w.handle(events.Rollbacks, []events.Event{back, back}))
	w.stands(r, rolledBack, rolledBack, "")
	w.must(w.handle(events.Reservations, created))
	w.drain()
	w.stands(r, rolledBack, rolledBack, "")
	w.atRest("p", 0)
}

// TestForgedRollback lets somebody ask for the units of a paid order, of an
// unpaid one, and of a deduction that has no order yet.
func TestForgedRollback(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]int64{"p": 10})
	w.step(w.healer.Step)
	bare := w.bought(3, "cid", 1)
	w.must(w.handle(events.Reservations, w.take(events.Reservations)))
	held := w.take(events.Deductions)
	paid, unpaid := w.bought(1, "ann", 2), w.bought(2, "bob", 2)
	w.drain()
	w.paid(paid, "ref")
	w.drain()
	other := w.bought(4, "dan", 2) // and a true one in the same batch
	w.must(w.handle(events.Reservations, w.take(events.Reservations)))
	w.must(w.handle(events.Deductions, w.take(events.Deductions)))
	_, err := w.orders.Cancel(t.Context(), other.ID, "by_buyer", func(order.Order) []order.Message { return nil })
	w.must(err)
	for _, r := range []stock.Reservation{paid, other, unpaid, bare} {
		w.must(w.Publish(t.Context(), events.Event{
			Type: events.StockRollback, ReservationID: r.ID, ProductID: "p", UserID: r.UserID, Quantity: r.Quantity,
		}))
	}
	w.drain()
	w.stands(paid, deducted, deducted, order.Paid)
	w.stands(unpaid, deducted, deducted, order.AwaitingPayment)
	w.stands(bare, deducted, deducted, "")
	w.stands(other, rolledBack, rolledBack, order.Cancelled)
	if len(w.dead) != 3 {
		t.Errorf("%d dead letters, want the 3 forged ones: %v", len(w.dead), w.dead)
	}
	w.must(w.handle(events.Deductions, held))
	w.atRest("p", 5)
}

// TestPoison mixes records that nobody can handle into a batch.
func TestPoison(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]int64{"p": 10, "q": 10})
	w.step(w.healer.Step)
	good := w.bought(1, "ann", 2)
	for n, product := range []string{"unknown", "q", "unknown", "p"} {
		w.must(w.Publish(t.Context(), events.Event{
			Type: events.ReservationCreated, ReservationID: id(10 + n), ProductID: product, UserID: "eve", Quantity: 1,
		}))
	}
	w.drain()
	if len(w.dead) != 2 || w.dead[0].ProductID != "unknown" || w.dead[1].ProductID != "unknown" {
		t.Errorf("dead letters %v, want those of the unknown product", w.dead)
	}
	w.stands(good, deducted, deducted, order.AwaitingPayment)
	w.atRest("p", 3)
	w.atRest("q", 1)
}

// TestPayments pays in all the wrong ways.
func TestPayments(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]int64{"p": 10})
	w.step(w.healer.Step)
	r, other, early := w.bought(1, "ann", 2), w.bought(2, "bob", 1), w.bought(3, "cid", 1)
	w.must(w.handle(events.Reservations, w.take(events.Reservations)))
	deductions := w.take(events.Deductions)
	w.must(w.handle(events.Deductions, deductions[:2]))

	w.paid(early, "early") // its order is still to come
	if err := w.handle(events.Payments, w.take(events.Payments)); err == nil {
		t.Error("a payment that overtakes its order is given up")
	}
	w.must(w.handle(events.Deductions, deductions[2:]))
	w.paid(early, "early")
	w.paid(r, "ref")
	w.drain()
	w.paid(r, "ref")                                                                              // the same again
	w.paid(r, "twice")                                                                            // the buyer pays twice
	w.paid(other, "ref")                                                                          // one payment for two orders
	w.paid(stock.Reservation{ID: other.ID, Quantity: 2}, "dear")                                  // the wrong amount
	w.paid(stock.Reservation{ID: id(99), Quantity: 1}, "of nothing"[3:])                          // of no reservation
	w.must(w.Publish(t.Context(), events.Event{Type: events.PaymentFailed, ReservationID: r.ID})) // after it was paid
	w.drain()
	w.stands(r, deducted, deducted, order.Paid)
	w.stands(early, deducted, deducted, order.Paid)
	w.stands(other, deducted, deducted, order.AwaitingPayment)
	if len(w.dead) != 3 {
		t.Errorf("%d dead letters, want 3: %v", len(w.dead), w.dead)
	}
	w.checkTold(map[events.Type]int{events.OrderCreated: 3, events.OrderPaid: 2, events.OrderRefundDue: 1})
	w.atRest("p", 4)
}

// TestSweeper lets Kafka lose a deduction and a rollback.
func TestSweeper(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]int64{"p": 10})
	w.step(w.healer.Step)
	r := w.bought(1, "ann", 2)
	w.must(w.handle(events.Reservations, w.take(events.Reservations)))
	w.take(events.Deductions) // lost
	w.stands(r, deducted, deducted, "")
	w.until(events.Deductions, w.sweeper.Step)
	w.must(w.handle(events.Deductions, w.take(events.Deductions)))
	w.due()
	w.step(w.expirer.Step)
	w.step(w.relay.Step)
	w.take(events.Rollbacks) // lost
	w.stands(r, deducted, deducted, order.Cancelled)
	w.until(events.Rollbacks, w.sweeper.Step)
	w.drain()
	w.stands(r, rolledBack, rolledBack, order.Cancelled)
	w.atRest("p", 0)
}

// TestRedisLost takes everything from Redis in the middle of a sale.
func TestRedisLost(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]int64{"p": 10})
	w.step(w.healer.Step)
	settled, gone, flying := w.bought(1, "ann", 2), w.bought(2, "bob", 2), w.bought(3, "cid", 1)
	created := w.take(events.Reservations)
	w.must(w.handle(events.Reservations, created[:2]))
	w.must(w.handle(events.Deductions, w.take(events.Deductions)))
	w.due()
	w.paid(settled, "ref")
	w.must(w.handle(events.Payments, w.take(events.Payments)))
	w.lose("p")
	w.drain() // bob's rollback while Redis has nothing
	w.stands(settled, "", deducted, order.Paid)
	w.stands(gone, "", rolledBack, order.Cancelled)
	w.step(w.healer.Step)
	w.stands(settled, deducted, deducted, order.Paid)
	w.stands(gone, rolledBack, rolledBack, order.Cancelled)
	w.stands(flying, "", "", "")
	w.must(w.handle(events.Reservations, created)) // all of them again
	w.drain()
	w.stands(flying, deducted, deducted, order.AwaitingPayment) // adopted
	w.atRest("p", 3)
}

// TestRedisTailLost restarts Redis with an older state: deductions are adopted
// and tombstones come back, so that nothing is sold twice.
func TestRedisTailLost(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]int64{"p": 10})
	w.step(w.healer.Step)
	early := w.bought(1, "ann", 2)
	w.drain()
	held := w.bought(2, "bob", 2)
	old := w.backup("p")
	late := w.bought(3, "cid", 2)
	w.drain()
	w.due()
	w.paid(early, "ref")
	w.must(w.handle(events.Payments, w.take(events.Payments)))
	w.drain()
	w.stands(early, deducted, deducted, order.Paid)
	w.stands(held, rolledBack, rolledBack, order.Cancelled)
	w.restore(old)
	w.stands(held, pending, rolledBack, order.Cancelled)
	w.stands(late, "", rolledBack, order.Cancelled)
	w.step(w.healer.Step)
	w.stands(early, deducted, deducted, order.Paid)
	w.stands(held, rolledBack, rolledBack, order.Cancelled)
	w.stands(late, rolledBack, rolledBack, order.Cancelled)
	w.atRest("p", 2)
	if _, err := w.buy(late); err != nil { // a retry of the buyer's request
		t.Error(err)
	}
	w.stands(late, rolledBack, rolledBack, order.Cancelled)
	w.atRest("p", 2)
}

// TestStaleLoad puts a product into Redis that sells what is gone: the healer
// cannot take a sale back, but the ledger refuses it and the surplus goes below
// zero until the books agree.
func TestStaleLoad(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]int64{"p": 2})
	listing, err := w.catalogue.OnSale(t.Context())
	w.must(err)
	terms := stock.Terms{ProductID: "p", PerOrder: 2, PerUser: 4, OnSale: true, StartsAt: listing[0].Activity.StartsAt, EndsAt: listing[0].Activity.EndsAt}
	none := iter.Seq2[stock.Reservation, error](func(func(stock.Reservation, error) bool) {})
	first := stock.Reservation{ID: id(1), ProductID: "p", UserID: "ann", Quantity: 2}
	_, err = w.ledger.Deduct(t.Context(), "p", []stock.Reservation{first})
	w.must(err)
	_, err = w.cache.Preload(t.Context(), terms, 2, none) // without the lock, from before
	w.must(err)
	second := w.bought(2, "bob", 1)
	w.step(w.healer.Step)
	if s, err := w.cache.Surplus(t.Context(), "p"); err != nil || s != -1 {
		t.Errorf("surplus %d, error %v; want -1: ann's two were adopted, bob's one is still pending", s, err)
	}
	w.drain()
	w.stands(second, rolledBack, refused, "")
	w.atRest("p", 2)
}

// TestPauseWhileRedisForgets sets the terms again that Redis has lost.
func TestPauseWhileRedisForgets(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]int64{"p": 2})
	w.step(w.healer.Step)
	old := w.backup("p")
	_, err := w.catalogue.SetState(t.Context(), "sale", catalog.Paused)
	w.must(err)
	w.step(w.healer.Step)
	r := stock.Reservation{ID: id(1), ProductID: "p", UserID: "ann", Quantity: 1}
	if _, err := w.buy(r); !errors.Is(err, stock.NotOnSale) {
		t.Errorf("paused: %v, want %v", err, stock.NotOnSale)
	}
	w.restore(old) // on sale, says Redis
	w.step(w.healer.Step)
	if _, err := w.buy(r); !errors.Is(err, stock.NotOnSale) {
		t.Errorf("paused and restarted: %v, want %v", err, stock.NotOnSale)
	}
	_, err = w.catalogue.SetState(t.Context(), "sale", catalog.Online)
	w.must(err)
	w.step(w.healer.Step)
	if _, err := w.buy(r); err != nil {
		t.Errorf("online again: %v", err)
	}
}
