package order_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/leadingpeers/seckill/internal/mysql"
	"github.com/leadingpeers/seckill/internal/testservers"
	"github.com/leadingpeers/seckill/pkg/order"
)

// fill puts messages 1 to n into the outbox, by cancelling orders.
func fill(t *testing.T, s *order.Store, n int) {
	t.Helper()
	place(t, s, n)
	for i := 1; i <= n; i++ {
		if _, err := s.Cancel(t.Context(), rid(i), "why", note); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRelayKeepsWhatWasNotPublished(t *testing.T) {
	s := order.NewStore(testservers.MySQL(t))
	fill(t, s, 5)
	away := errors.New("the broker is away")
	var got []order.Message
	keep := func(_ context.Context, ms []order.Message) error { got = append(got, ms...); return nil }
	fail := func(context.Context, []order.Message) error { return away }
	never := func(context.Context, []order.Message) error { t.Error("published nothing"); return nil }
	steps := []struct {
		publish func(context.Context, []order.Message) error
		n       int
		err     error
		left    int64
		why     string
	}{
		{fail, 0, away, 5, "all stay"},
		{keep, 3, nil, 2, "the limit, the oldest first"},
		{fail, 0, away, 2, "the rest stays"},
		{keep, 2, nil, 0, "and goes"},
		{never, 0, nil, 0, "an empty outbox calls nobody"},
	}
	for _, tt := range steps {
		n, err := s.Relay(t.Context(), 3, tt.publish)
		if n != tt.n || !errors.Is(err, tt.err) {
			t.Errorf("%s: got %d, %v; want %d, %v", tt.why, n, err, tt.n, tt.err)
		}
		pending, oldest, err := s.OutboxAge(t.Context())
		if err != nil || pending != tt.left || oldest.IsZero() != (tt.left == 0) {
			t.Errorf("%s: %d pending since %v (%v), want %d", tt.why, pending, oldest, err, tt.left)
		}
	}
	var want []order.Message
	for i := 1; i <= 5; i++ {
		want = append(want, order.Message{Type: "cancelled", Body: []byte(rid(i) + " why"), TraceParent: "trace"})
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("published (-want +got):\n%s", diff)
	}
}

// meeting returns a function that returns when n callers have called it, or
// fails the test when they have not after five seconds.
func meeting(t *testing.T, n int64) func() {
	var missing atomic.Int64
	missing.Store(n)
	all := make(chan struct{})
	return func() {
		if missing.Add(-1) == 0 {
			close(all)
		}
		select {
		case <-all:
		case <-time.After(5 * time.Second):
			t.Error("the others have not come: one waits for another's rows")
		}
	}
}

// Two relays hold their messages at the same moment: neither waits for the
// other, and no message goes to both.
func TestRelaysSideBySide(t *testing.T) {
	testservers.Real(t) // the stand-in has one writer at a time
	s := order.NewStore(testservers.MySQL(t))
	fill(t, s, 6)
	var mu sync.Mutex
	seen := make(map[string]int)
	meet := meeting(t, 2) // both are within publish before either leaves it
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			n, err := s.Relay(t.Context(), 3, func(_ context.Context, ms []order.Message) error {
				meet()
				mu.Lock()
				defer mu.Unlock()
				for _, m := range ms {
					seen[string(m.Body)]++
				}
				return nil
			})
			if n != 3 || err != nil {
				t.Errorf("relayed %d, %v; want 3", n, err)
			}
		})
	}
	wg.Wait()
	for body, n := range seen {
		if n != 1 {
			t.Errorf("%q was published %d times", body, n)
		}
	}
	if pending, _, err := s.OutboxAge(t.Context()); len(seen) != 6 || pending != 0 || err != nil {
		t.Errorf("%d published, %d left (%v)", len(seen), pending, err)
	}
}

func TestExpirersSideBySide(t *testing.T) {
	testservers.Real(t) // the stand-in has one writer at a time
	db := testservers.MySQL(t)
	s := order.NewStore(db)
	place(t, s, 6)
	exec(t, db, "UPDATE orders SET pay_deadline = TIMESTAMPADD(SECOND, -1, NOW(3))")
	both := meeting(t, 2)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			meet := sync.OnceFunc(both)
			n, err := s.Expire(t.Context(), 3, func(o order.Order) []order.Message {
				meet()
				return note(o)
			})
			if n != 3 || err != nil {
				t.Errorf("expired %d, %v; want 3", n, err)
			}
		})
	}
	wg.Wait()
	if got := outbox(t, s); len(got) != 6 {
		t.Errorf("%d messages, want 6: %q", len(got), got)
	}
}

func TestSweeps(t *testing.T) {
	db := testservers.MySQL(t)
	s := order.NewStore(db)
	exec(t, db, "INSERT INTO products (id, activity_id, name, price_cents, currency, per_order, created_at, updated_at) VALUES ('p', 'act', 'x', 999, 'CNY', 1, NOW(3), NOW(3))")
	// 1 has an order, 2 none, 3 none but is too young, 4 was refused.
	insert := "INSERT INTO reservations (reservation_id, product_id, user_id, quantity, state, created_at, updated_at) VALUES (?, 'p', ?, ?, ?, TIMESTAMPADD(SECOND, ?, NOW(3)), NOW(3))"
	for _, r := range []struct {
		n, quantity, age int
		state            string
	}{{1, 2, 100, "deducted"}, {2, 3, 200, "deducted"}, {3, 1, 10, "deducted"}, {4, 1, 100, "refused"}} {
		exec(t, db, insert, mysql.ID(rid(r.n)), fmt.Sprint("user-", r.n), r.quantity, r.state, -r.age)
	}
	place(t, s, 1)
	got, err := s.Unsettled(t.Context(), time.Minute, 10)
	if err != nil || len(got) != 1 {
		t.Fatalf("unsettled: %+v, %v; want reservation 2 alone", got, err)
	}
	want := order.Order{ReservationID: rid(2), ActivityID: "act", ProductID: "p", UserID: "user-2", Quantity: 3, CreatedAt: got[0].CreatedAt}
	if diff := cmp.Diff(want, got[0]); diff != "" || got[0].CreatedAt.IsZero() {
		t.Errorf("unsettled (-want +got):\n%s", diff)
	}
	if got, err := s.Unsettled(t.Context(), 0, 10); err != nil || len(got) != 2 || got[0].ReservationID != rid(2) {
		t.Errorf("unsettled of any age: %+v, %v; want 2, 3", got, err)
	}

	if got, err := s.Unreturned(t.Context(), 0, 10); err != nil || got != nil {
		t.Errorf("unreturned while nothing is cancelled: %+v, %v", got, err)
	}
	cancelled, err := s.Cancel(t.Context(), rid(1), "why", note)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.Unreturned(t.Context(), time.Minute, 10); err != nil || got != nil {
		t.Errorf("unreturned for a minute: %+v, %v; want none", got, err)
	}
	if got, err := s.Unreturned(t.Context(), 0, 10); err != nil || len(got) != 1 || got[0] != cancelled {
		t.Errorf("unreturned: %+v, %v; want %+v", got, err, cancelled)
	}
	exec(t, db, "UPDATE reservations SET state = 'rolled_back' WHERE reservation_id = ?", mysql.ID(rid(1)))
	if got, err := s.Unreturned(t.Context(), 0, 10); err != nil || got != nil {
		t.Errorf("unreturned after the rollback: %+v, %v; want none", got, err)
	}
}

func TestCounts(t *testing.T) {
	s := order.NewStore(testservers.MySQL(t))
	place(t, s, 6)
	if _, err := s.Pay(t.Context(), order.Payment{ReservationID: rid(1), Ref: "r", AmountCents: 1998}); err != nil {
		t.Fatal(err)
	}
	for i := 2; i <= 3; i++ {
		if _, err := s.Cancel(t.Context(), rid(i), "why", note); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.Counts(t.Context(), "p")
	want := order.Counts{Awaiting: order.Tally{Orders: 3, Units: 6}, Paid: order.Tally{Orders: 1, Units: 2}, Cancelled: order.Tally{Orders: 2, Units: 4}}
	if err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	if got, err := s.Counts(t.Context(), "unknown"); err != nil || got != (order.Counts{}) {
		t.Errorf("of an unknown product: %+v, %v", got, err)
	}
}
