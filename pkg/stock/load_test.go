package stock_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/leadingpeers/seckill/internal/testservers"
	"github.com/leadingpeers/seckill/pkg/stock"
)

// newTestCache returns a cache of the test's own and terms for product p.
func newTestCache(t testing.TB) (*stock.Cache, stock.Terms) {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: testservers.Redis(t)})
	t.Cleanup(func() { _ = client.Close() })
	c := stock.NewCache(client, stock.CacheConfig{Prefix: testservers.Prefix(t)})
	t.Cleanup(c.Close)
	return c, stock.Terms{
		ProductID: "p", PerOrder: 5, PerUser: 5, OnSale: true,
		StartsAt: time.Now().Add(-time.Hour), EndsAt: time.Now().Add(time.Hour),
	}
}

// wantCounts fails the test unless Redis's account of product p is want.
func wantCounts(t testing.TB, c *stock.Cache, want stock.Counts) {
	t.Helper()
	if got, err := c.Counts(t.Context(), "p"); err != nil || got != want {
		t.Errorf("%v\n%s", err, cmp.Diff(want, got))
	}
}

// decideAll has the ledger decide, in batches.
func decideAll(t testing.TB, l *stock.Ledger, rs []stock.Reservation) []stock.Reservation {
	t.Helper()
	var out []stock.Reservation
	for len(rs) > 0 {
		n := min(stock.MaxBatch, len(rs))
		rows, err := l.Deduct(t.Context(), "p", rs[:n])
		if err != nil {
			t.Fatal(err)
		}
		out, rs = append(out, rows...), rs[n:]
	}
	return out
}

func TestLoad(t *testing.T) {
	db := testservers.MySQL(t)
	l := stock.NewLedger(db)
	c, terms := newTestCache(t)
	if _, err := stock.Load(t.Context(), c, l, terms); !errors.Is(err, stock.ErrNotFound) {
		t.Errorf("no such product: %v", err)
	}
	putOnSale(t, db, "p", 10, 5)
	decideAll(t, l, []stock.Reservation{wish(1, "bob", 3), wish(2, "ann", 2), wish(3, "bob", 4), wish(4, "eve", 1)})
	putOrder(t, db, 4, "cancelled", "payment_timeout")
	if _, err := l.Rollback(t.Context(), "p", []stock.Reservation{wish(4, "eve", 1), wish(5, "max", 2)}); err != nil {
		t.Fatal(err)
	}
	loaded, err := stock.Load(t.Context(), c, l, terms)
	if !loaded || err != nil {
		t.Fatalf("loaded %v, %v", loaded, err)
	}
	// bob's second was over his limit, eve's came back, max's was never there.
	want := stock.Counts{Surplus: 5, Deducted: 5, Reservations: 5, RolledBack: 3, Buyers: 4}
	wantCounts(t, c, want)
	for n, state := range map[int]stock.State{1: stock.Deducted, 3: stock.RolledBack} {
		if got, err := c.Find(t.Context(), "p", "bob", ledgerID(n)); err != nil || got.State != state || got.At.IsZero() {
			t.Errorf("bob's %d: %+v, %v; want %s", n, got, err, state)
		}
	}
	loaded, err = stock.Load(t.Context(), c, l, terms)
	if loaded || err != nil {
		t.Errorf("again: loaded %v, %v", loaded, err)
	}
	wantCounts(t, c, want)
}

// A load that finds the product there heals all the same: the load before it
// may have died between the last script and the healing.
func TestLoadHealsWhatIsThere(t *testing.T) {
	db := testservers.MySQL(t)
	l := stock.NewLedger(db)
	c, terms := newTestCache(t)
	putOnSale(t, db, "p", 10, 5)
	if _, err := stock.Load(t.Context(), c, l, terms); err != nil {
		t.Fatal(err)
	}
	decideAll(t, l, []stock.Reservation{wish(1, "ann", 3)}) // and nobody has told Redis
	if loaded, err := stock.Load(t.Context(), c, l, terms); loaded || err != nil {
		t.Errorf("loaded %v, %v", loaded, err)
	}
	wantCounts(t, c, stock.Counts{Surplus: 7, Deducted: 3, Reservations: 1, Buyers: 1})
}

func TestHeal(t *testing.T) {
	const buyers = 2300 // more than are applied at once
	db := testservers.MySQL(t)
	l := stock.NewLedger(db)
	c, terms := newTestCache(t)
	putOnSale(t, db, "p", 2000, 5)
	if _, err := stock.Load(t.Context(), c, l, terms); err != nil {
		t.Fatal(err)
	}
	var rs []stock.Reservation
	for n := range buyers {
		rs = append(rs, wish(n, "u"+strconv.Itoa(n), 1))
	}
	decideAll(t, l, rs)
	got, err := stock.Heal(t.Context(), c, l, "p", 0)
	if want := (stock.Applied{Adopted: 2000, Tombstones: 300}); got != want || err != nil {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	wantCounts(t, c, stock.Counts{Deducted: 2000, Reservations: buyers, RolledBack: 300, Buyers: buyers})
	got, err = stock.Heal(t.Context(), c, l, "p", time.Hour)
	if want := (stock.Applied{Same: buyers}); got != want || err != nil {
		t.Errorf("again: %+v, %v; want %+v", got, err, want)
	}
	if err := c.Flush(t.Context(), "p", true); err != nil {
		t.Fatal(err)
	}
	got, err = stock.Heal(t.Context(), c, l, "p", time.Hour)
	if want := (stock.Applied{NotLoaded: buyers}); got != want || err != nil {
		t.Errorf("not loaded: %+v, %v; want %+v", got, err, want)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := stock.Heal(gone, c, l, "p", 0); !errors.Is(err, context.Canceled) {
		t.Errorf("a context that has ended: %v", err)
	}
}

// Redis loses all it has, again and again, while buyers buy and the ledger
// decides. When all is quiet, the two agree and nothing was sold twice.
func TestLoadDuringASale(t *testing.T) {
	const units, buyers = 60, 40
	db := testservers.MySQL(t)
	l := stock.NewLedger(db)
	c, terms := newTestCache(t)
	putOnSale(t, db, "p", units, 5)
	ctx := t.Context()
	if _, err := stock.Load(ctx, c, l, terms); err != nil {
		t.Fatal(err)
	}
	var sale, losses sync.WaitGroup
	over := make(chan struct{})
	losses.Go(func() {
		for {
			select {
			case <-over:
				return
			default:
			}
			if err := c.Flush(ctx, "p", true); err != nil {
				t.Error(err)
			}
			if _, err := stock.Load(ctx, c, l, terms); err != nil {
				t.Error(err)
			}
		}
	})
	for buyer := range buyers {
		sale.Go(func() {
			for try := range 4 {
				r := wish(100*buyer+try, fmt.Sprintf("u%d", buyer), int64(1+try%2))
				held, _, err := c.Reserve(ctx, r)
				var refusal stock.Refusal
				if errors.As(err, &refusal) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				rows, err := l.Deduct(ctx, "p", []stock.Reservation{held})
				if err == nil {
					_, err = c.Apply(ctx, rows)
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	sale.Wait()
	close(over)
	losses.Wait()
	available := balanced(t, l, "p")
	got, err := c.Counts(ctx, "p")
	if err != nil || got.Surplus != available || got.Pending != 0 || got.Deducted != units-available || got.Broken != 0 {
		t.Errorf("Redis %+v, %v; the ledger has %d of %d left", got, err, available, units)
	}
	if available == units {
		t.Error("nothing was sold")
	}
}

// unlocked is a ledger whose session ends while a load holds its lock: the load
// hears of it when all is published.
type unlocked struct{ decided stock.Reservation }

func (u unlocked) Snapshot(_ context.Context, _ string, use func(stock.Units, iter.Seq2[stock.Reservation, error]) error) error {
	none := func(func(stock.Reservation, error) bool) {}
	return errors.Join(use(stock.Units{Total: 1, Available: 1}, none), errors.New("commit: the connection is gone"))
}

func (u unlocked) Changed(context.Context, string, time.Duration) iter.Seq2[stock.Reservation, error] {
	return func(yield func(stock.Reservation, error) bool) { yield(u.decided, nil) }
}

// published is a Redis that takes every load.
type published struct{ applied []stock.Reservation }

func (p *published) Preload(context.Context, stock.Terms, int64, iter.Seq2[stock.Reservation, error]) (bool, error) {
	return true, nil
}

func (p *published) Apply(_ context.Context, rs []stock.Reservation) (stock.Applied, error) {
	p.applied = append(p.applied, rs...)
	return stock.Applied{Adopted: len(rs)}, nil
}

// What was decided while a load had lost its lock is applied, although the load
// fails; nobody else knows that it must be.
func TestLoadThatLostItsLockHeals(t *testing.T) {
	decided := stock.Reservation{ID: "abc", ProductID: "p", UserID: "ann", Quantity: 1, State: stock.Deducted}
	p := &published{}
	loaded, err := stock.Load(t.Context(), p, unlocked{decided}, stock.Terms{ProductID: "p"})
	if !loaded || err == nil {
		t.Errorf("loaded %v, error %v; want both", loaded, err)
	}
	if len(p.applied) != 1 || p.applied[0] != decided {
		t.Errorf("applied %+v, want what was decided", p.applied)
	}
}
