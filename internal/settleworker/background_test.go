package settleworker_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/leadingpeers/seckill/internal/onway"
	"github.com/leadingpeers/seckill/internal/settleworker"
	"github.com/leadingpeers/seckill/pkg/events"
	"github.com/leadingpeers/seckill/pkg/order"
)

// fakeOrders plays the store for the background services.
type fakeOrders struct {
	mu       sync.Mutex // the outbox is measured while it is emptied
	start    time.Time
	due      int             // orders to expire
	waiting  []order.Message // the outbox
	stuck    []order.Order   // deducted without an order
	held     []order.Order   // cancelled and still deducted
	err      error
	asked    []string
	announce []order.Message
}

func (f *fakeOrders) note(format string, args ...any) {
	f.asked = append(f.asked, fmt.Sprintf("%v ", time.Since(f.start))+fmt.Sprintf(format, args...))
}

func (f *fakeOrders) Expire(_ context.Context, limit int, announce func(order.Order) []order.Message) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := min(f.due, limit)
	f.note("expire %d", n)
	f.due -= n
	f.announce = announce(stands(1, order.Cancelled))
	return n, f.err
}

func (f *fakeOrders) Relay(ctx context.Context, limit int, publish func(context.Context, []order.Message) error) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := min(len(f.waiting), limit)
	f.note("relay %d", n)
	if err := publish(ctx, f.waiting[:n]); err != nil {
		return 0, err
	}
	f.waiting = f.waiting[n:]
	return n, f.err
}

func (f *fakeOrders) OutboxAge(context.Context) (int64, time.Time, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return int64(len(f.waiting)), f.start.Add(-1500 * time.Millisecond), f.err
}

func (f *fakeOrders) Unsettled(_ context.Context, olderThan time.Duration, limit int) ([]order.Order, error) {
	f.note("unsettled %v %d", olderThan, limit)
	return slices.Clone(f.stuck), f.err
}

func (f *fakeOrders) Unreturned(_ context.Context, olderThan time.Duration, limit int) ([]order.Order, error) {
	f.note("unreturned %v %d", olderThan, limit)
	return slices.Clone(f.held), nil
}

// fakePublisher notes what it was given.
type fakePublisher struct {
	mu  sync.Mutex
	got []events.Event
	err error
}

func (p *fakePublisher) Publish(_ context.Context, evs ...events.Event) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return p.err
	}
	p.got = append(p.got, evs...)
	return nil
}

func TestExpirer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		orders := &fakeOrders{start: time.Now(), due: 450}
		ctx, cancel := context.WithTimeout(t.Context(), 600*time.Millisecond)
		defer cancel()
		if err := settleworker.NewExpirer(orders, settleworker.ExpirerConfig{Registerer: reg}).Run(ctx); err != nil {
			t.Fatal(err)
		}
		want := []string{"0s expire 200", "0s expire 200", "0s expire 50", "250ms expire 0", "500ms expire 0"}
		if !slices.Equal(orders.asked, want) {
			t.Errorf("asked %q, want %q: a backlog at once, then every 250 ms", orders.asked, want)
		}
		checkMetric(t, reg, "seckill_expired_total", "450")
		var got []events.Event
		for _, m := range orders.announce {
			e, err := events.Decode(events.Type(m.Type), m.Body)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, e)
		}
		cancelled, back := told(1, events.OrderCancelled), told(1, events.StockRollback)
		cancelled.Time, cancelled.TraceParent = time.Time{}, "" // the outbox keeps them beside the body
		back.Time, back.TraceParent = time.Time{}, ""
		back.Reason, back.OrderID, back.AmountCents, back.Currency = order.ReasonTimeout, "", 0, ""
		if diff := cmp.Diff([]events.Event{cancelled, back}, got); diff != "" {
			t.Errorf("announced (-want +got): the cancellation and the return of its units\n%s", diff)
		}
	})
}

func TestRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		orders := &fakeOrders{start: time.Now()}
		for n := range 250 {
			e := told(n, events.OrderCancelled)
			body, err := events.Encode(e)
			if err != nil {
				t.Fatal(err)
			}
			orders.waiting = append(orders.waiting, order.Message{Type: string(e.Type), Body: body, TraceParent: e.TraceParent})
		}
		publisher := &fakePublisher{err: errAway}
		relay := settleworker.NewRelay(orders, publisher, settleworker.RelayConfig{Now: time.Now, Registerer: reg})
		ctx, cancel := context.WithTimeout(t.Context(), 250*time.Millisecond)
		defer cancel()
		go func() {
			time.Sleep(50 * time.Millisecond)
			publisher.mu.Lock()
			defer publisher.mu.Unlock()
			publisher.err = nil // Kafka is back
		}()
		if err := relay.Run(ctx); err != nil {
			t.Fatal(err)
		}
		want := []string{"0s relay 200", "100ms relay 200", "100ms relay 50", "200ms relay 0"}
		if !slices.Equal(orders.asked, want) {
			t.Errorf("asked %q, want %q: nothing is deleted while Kafka is away, a backlog goes at once", orders.asked, want)
		}
		if len(publisher.got) != 250 {
			t.Fatalf("published %d, want 250", len(publisher.got))
		}
		e := told(249, events.OrderCancelled)
		e.Time = publisher.got[249].Time
		if diff := cmp.Diff(e, publisher.got[249]); diff != "" {
			t.Errorf("published (-want +got): the event of the outbox with its trace\n%s", diff)
		}
		checkMetric(t, reg, "seckill_relayed_total", "250")
		checkMetric(t, reg, "seckill_outbox_pending", "250") // measured at 0 s
		checkMetric(t, reg, "seckill_outbox_oldest_seconds", "1.5")
	})
}

func TestRelayKeepsWhatItCannotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		orders := &fakeOrders{start: time.Now(), waiting: []order.Message{{Type: "seckill.future.v9", Body: []byte("{")}}}
		publisher := &fakePublisher{}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := settleworker.NewRelay(orders, publisher, settleworker.RelayConfig{Now: time.Now}).Run(ctx); err != nil {
			t.Fatal(err)
		}
		if len(orders.waiting) != 1 || len(publisher.got) != 0 {
			t.Errorf("outbox %v, published %v: a message of a newer version waits for that version", orders.waiting, publisher.got)
		}
	})
}

func TestSweeper(t *testing.T) {
	tests := []struct {
		name string
		err  error
		want []events.Type
		why  string
	}{
		{"both", nil, []events.Type{events.StockDeducted, events.StockRollback}, "what stands still is told again"},
		{"one query fails", errAway, []events.Type{events.StockRollback}, "the other kind is swept all the same"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				reg := prometheus.NewRegistry()
				orders := &fakeOrders{
					start: time.Now(), stuck: []order.Order{stands(1, "")}, held: []order.Order{stands(2, order.Cancelled)}, err: tt.err,
				}
				publisher := &fakePublisher{}
				ctx, cancel := context.WithTimeout(t.Context(), 61*time.Second)
				defer cancel()
				if err := settleworker.NewSweeper(orders, publisher, settleworker.SweeperConfig{Repeat: time.Minute, Now: time.Now, Registerer: reg}).Run(ctx); err != nil {
					t.Fatal(err)
				}
				asked := []string{"0s unsettled 1m0s 5000", "0s unreturned 1m0s 5000", "1m0s unsettled 1m0s 5000", "1m0s unreturned 1m0s 5000"}
				if !slices.Equal(orders.asked, asked) {
					t.Errorf("asked %q, want %q", orders.asked, asked)
				}
				var got []events.Type
				for _, e := range publisher.got {
					got = append(got, e.Type)
				}
				if want := slices.Repeat(tt.want, 2); !slices.Equal(got, want) {
					t.Errorf("published %q, want %q: %s", got, want, tt.why)
				}
				e := publisher.got[len(publisher.got)-1]
				want := events.Event{
					Type: events.StockRollback, Time: later, ReservationID: id(2), ActivityID: "sale",
					ProductID: "p", UserID: "u", Quantity: 2, Reason: order.ReasonTimeout,
				}
				if diff := cmp.Diff(want, e); diff != "" {
					t.Errorf("published (-want +got):\n%s", diff)
				}
				checkMetric(t, reg, "seckill_swept_total", fmt.Sprint(2*len(tt.want)))
			})
		})
	}
}

// A worker that is behind is not held up by more of the same: what was told
// again is left alone for twice the time, and then told once more.
func TestSweeperLeavesAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		orders := &fakeOrders{start: time.Now()}
		for n := range 1200 {
			orders.stuck = append(orders.stuck, stands(1+n, ""))
		}
		publisher := &fakePublisher{}
		s := settleworker.NewSweeper(orders, publisher, settleworker.SweeperConfig{Now: time.Now})
		for minute, want := range []int{1200, 1200, 2400} {
			if _, err := s.Step(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := len(publisher.got); got != want {
				t.Errorf("minute %d: %d events so far, want %d", minute, got, want)
			}
			time.Sleep(time.Minute)
		}
	})
}

// TestSweeperLeavesAloneWhatIsOnItsWay: deductions are keyed by reservation,
// rollbacks by product, and each has a group of its own.
func TestSweeperLeavesAloneWhatIsOnItsWay(t *testing.T) {
	orders := &fakeOrders{start: time.Now(), stuck: []order.Order{stands(1, "")}, held: []order.Order{stands(2, order.Cancelled)}}
	publisher := &fakePublisher{}
	lags := map[string]events.PartitionLag{id(1): {Committed: 3, End: 7}, "p": {Committed: 5, End: 5}, id(2): {End: 9}}
	queue := func(away error) onway.Queue {
		return func(context.Context) (onway.Of, error) {
			return func(key string) events.PartitionLag { return lags[key] }, away
		}
	}
	s := settleworker.NewSweeper(orders, publisher, settleworker.SweeperConfig{Deductions: queue(nil), Rollbacks: queue(nil), Now: time.Now})
	step := func(s *settleworker.Sweeper, why string, fault error, want ...events.Type) {
		t.Helper()
		publisher.got = nil
		if _, err := s.Step(t.Context()); !errors.Is(err, fault) {
			t.Errorf("%s: %v, want %v", why, err, fault)
		}
		var got []events.Type
		for _, e := range publisher.got {
			got = append(got, e.Type)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: published %q, want %q", why, got, want)
		}
	}
	step(s, "the deduction may be among four that wait", nil, events.StockRollback)
	lags[id(1)] = events.PartitionLag{Committed: 7, End: 9}
	step(s, "those are handled, and the rollback was published just now", nil, events.StockDeducted)
	step(s, "both were published just now", nil)
	s = settleworker.NewSweeper(orders, publisher, settleworker.SweeperConfig{Deductions: queue(errAway), Rollbacks: queue(nil), Now: time.Now})
	step(s, "nobody knows how far the deductions are", errAway, events.StockRollback)
}

// checkMetric compares a counter or a gauge, summed over its labels.
func checkMetric(t *testing.T, reg prometheus.Gatherer, name, want string) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	if got := fmt.Sprint(sum); got != want {
		t.Errorf("%s = %s, want %s", name, got, want)
	}
}
