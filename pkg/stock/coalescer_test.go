package stock

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/leadingpeers/seckill/internal/testservers"
)

// reservation is the n-th of a buyer.
func (s shop) reservation(user string, n int, quantity int64) Reservation {
	return Reservation{ID: id(n), ActivityID: "a1", ProductID: s.product, UserID: user, Quantity: quantity}
}

// Many callers, several products, small batches, retries: every unit is sold
// once, nobody holds more than their limit, and all answers add up.
func TestReserveConcurrently(t *testing.T) {
	const products, units, callers, tries = 3, 700, 128, 30
	s := newShop(t, CacheConfig{MaxBatch: 32})
	shops := make([]shop, products)
	for i := range shops {
		shops[i] = s
		shops[i].product = fmt.Sprintf("p%d", i)
		shops[i].load(units)
	}
	var sold, soldOut, overLimit, replays [products]atomic.Int64
	var group sync.WaitGroup
	for caller := range callers {
		group.Go(func() {
			for try := range tries {
				p := (caller + try) % products
				// Two callers are one buyer, and every sixth try is a retry of the one before it on that product.
				n := caller*1000 + try
				if try%6 == 5 {
					n -= products
				}
				r := shops[p].reservation("user"+strconv.Itoa(caller/2), n, 1)
				_, replayed, err := s.Reserve(context.Background(), r)
				switch {
				case replayed && err == nil:
					replays[p].Add(1)
				case err == nil:
					sold[p].Add(1)
				case errors.Is(err, SoldOut):
					soldOut[p].Add(1)
				case errors.Is(err, OverUserLimit):
					overLimit[p].Add(1)
				default:
					t.Errorf("caller %d: %v", caller, err)
				}
			}
		})
	}
	group.Wait()
	var all int64
	for p := range shops {
		won := sold[p].Load()
		all += won + soldOut[p].Load() + overLimit[p].Load() + replays[p].Load()
		shops[p].units(units-won, won, 0)
		// 64 buyers may hold 10 units each: 640 are sold, no more and no fewer.
		if won != 640 || overLimit[p].Load() == 0 || replays[p].Load() == 0 {
			t.Errorf("product %d: sold %d, sold out %d, over the limit %d, replayed %d; want 640 sold, and some of both others",
				p, won, soldOut[p].Load(), overLimit[p].Load(), replays[p].Load())
		}
	}
	if all != callers*tries {
		t.Errorf("%d answers to %d calls", all, callers*tries)
	}
	if depth := s.metric("seckill_cache_queue_depth", ""); depth != 0 {
		t.Errorf("queue depth %v at rest", depth)
	}
	refusals := s.metric("seckill_cache_refusals_total", "over_user_limit") + s.metric("seckill_cache_refusals_total", "sold_out")
	if want := float64(all) - 3*640 - float64(replays[0].Load()+replays[1].Load()+replays[2].Load()); refusals != want {
		t.Errorf("refusals counted %v, seen %v", refusals, want)
	}
	if calls := s.metric("seckill_cache_reserve_batch_size", ""); calls >= float64(all)/2 {
		t.Errorf("%v script calls for %d reservations", calls, all)
	}
}

// The last units go to somebody, whatever the order, and to nobody twice.
func TestReserveOversell(t *testing.T) {
	s := newShop(t, CacheConfig{})
	s.load(100)
	var won atomic.Int64
	var group sync.WaitGroup
	for caller := range 200 {
		group.Go(func() {
			r := s.reservation("user"+strconv.Itoa(caller), caller, int64(1+caller%3))
			if _, _, err := s.Reserve(context.Background(), r); err == nil {
				won.Add(r.Quantity)
			} else if !errors.Is(err, SoldOut) {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if won.Load() != 100 {
		t.Errorf("%d of 100 units won", won.Load())
	}
	s.units(0, 100, 0)
}

// stall returns a shop whose requests wait at a proxy until release is called.
// One request is under way already, so what comes next stays in the queue.
func stall(t *testing.T, cfg CacheConfig) (s shop, release func(), first <-chan error) {
	t.Helper()
	p := newProxy(t, testservers.Redis(t))
	s = newShopAt(t, p.addr, cfg)
	s.load(100)
	p.mu.Lock()
	release = sync.OnceFunc(p.mu.Unlock)
	t.Cleanup(release)
	answer := make(chan error, 1)
	go func() {
		_, _, err := s.Reserve(context.Background(), s.reservation("first", 1, 1))
		answer <- err
	}()
	eventually(t, "the first request is under way", func() bool { return p.held.Load() == 1 })
	return s, release, answer
}

func TestReserveQueueFull(t *testing.T) {
	s, release, first := stall(t, CacheConfig{Workers: 1, QueueSize: 1})
	second := make(chan error, 1)
	go func() {
		_, _, err := s.Reserve(context.Background(), s.reservation("second", 2, 1))
		second <- err
	}()
	eventually(t, "the second request is queued", func() bool { return s.metric("seckill_cache_queue_depth", "") == 1 })
	if _, _, err := s.Reserve(t.Context(), s.reservation("third", 3, 1)); !errors.Is(err, ErrBusy) || errors.Is(err, ErrUnknown) {
		t.Errorf("third: %v, want busy, which is certain", err)
	}
	release()
	if err := errors.Join(<-first, <-second); err != nil {
		t.Error(err)
	}
	if _, err := s.Find(t.Context(), s.product, "third", id(3)); !errors.Is(err, ErrNotFound) {
		t.Errorf("third: found after busy: %v", err)
	}
	s.units(98, 2, 0)
	if n := s.metric("seckill_cache_busy_total", ""); n != 1 {
		t.Errorf("busy counted %v", n)
	}
}

// A caller who gives up does not know; the request runs all the same, and the
// same ID finds out.
func TestReserveGivenUp(t *testing.T) {
	s, release, first := stall(t, CacheConfig{Workers: 1})
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("the buyer went away")
	answer := make(chan error, 1)
	go func() {
		_, _, err := s.Reserve(ctx, s.reservation("ann", 2, 3))
		answer <- err
	}()
	eventually(t, "the request is queued", func() bool { return s.metric("seckill_cache_queue_depth", "") == 1 })
	cancel(gone)
	if err := <-answer; !errors.Is(err, ErrUnknown) || !errors.Is(err, gone) {
		t.Errorf("%v, want unknown, and why", err)
	}
	if _, _, err := s.Reserve(ctx, s.reservation("bob", 9, 1)); errors.Is(err, ErrUnknown) || !errors.Is(err, gone) {
		t.Errorf("a context that ended before the call: %v, want its cause and no doubt", err)
	}
	release()
	if err := <-first; err != nil {
		t.Error(err)
	}
	got, _, err := s.Reserve(t.Context(), s.reservation("ann", 2, 3))
	if err != nil || got.State != Pending || got.Quantity != 3 {
		t.Errorf("%+v, %v", got, err)
	}
	s.units(96, 4, 0)
}

// Close answers all who wait, and turns away who comes later.
func TestCloseDrains(t *testing.T) {
	const callers = 50
	s, release, first := stall(t, CacheConfig{Workers: 1, MaxBatch: 7})
	answers := make(chan error, callers)
	for n := range callers {
		go func() {
			_, _, err := s.Reserve(context.Background(), s.reservation("user"+strconv.Itoa(n), 10+n, 1))
			answers <- err
		}()
	}
	eventually(t, "all are queued", func() bool { return s.metric("seckill_cache_queue_depth", "") == callers })
	closed := make(chan struct{})
	go func() { s.Close(); close(closed) }()
	eventually(t, "the cache is closing", func() bool { s.mu.RLock(); defer s.mu.RUnlock(); return s.closed })
	if _, _, err := s.Reserve(t.Context(), s.reservation("late", 99, 1)); !errors.Is(err, ErrBusy) {
		t.Errorf("while closing: %v, want busy", err)
	}
	select {
	case <-closed:
		t.Error("closed before the queue was empty")
	default:
	}
	release()
	<-closed
	if err := <-first; err != nil {
		t.Error(err)
	}
	for range callers {
		select {
		case err := <-answers:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("a caller was not answered")
		}
	}
	s.Close() // again: harmless
	s.units(100-1-callers, 1+callers, 0)
	if depth := s.metric("seckill_cache_queue_depth", ""); depth != 0 {
		t.Errorf("queue depth %v at rest", depth)
	}
}

// The reply is lost after Redis has done the work: the case that made the same
// engine elsewhere lose its last unit.
func TestReserveReplyLost(t *testing.T) {
	for _, tt := range []struct {
		why     string
		retries int
	}{
		{"go-redis repeats the call, which finds its own reservation", 1},
		{"without a repetition the caller does not know, and asks again", -1},
	} {
		t.Run(tt.why, func(t *testing.T) {
			p := newProxy(t, testservers.Redis(t))
			client := redis.NewClient(&redis.Options{Addr: p.addr, MaxRetries: tt.retries, PoolSize: 1})
			t.Cleanup(func() { _ = client.Close() })
			s := newShopOn(t, client, CacheConfig{Prefix: testservers.Prefix(t)})
			s.load(1) // the last unit
			if _, _, err := s.Reserve(t.Context(), s.reservation("bob", 1, 2)); !errors.Is(err, SoldOut) {
				t.Fatal(err) // and the script is known now
			}
			p.lose.Store(true)
			got, replayed, err := s.Reserve(t.Context(), s.reservation("ann", 2, 1))
			if tt.retries < 0 {
				if !errors.Is(err, ErrUnknown) {
					t.Fatalf("%v, want unknown", err)
				}
				got, replayed, err = s.Reserve(t.Context(), s.reservation("ann", 2, 1))
			}
			if err != nil || !replayed || got.State != Pending || got.ActivityID != "a1" {
				t.Errorf("%+v, replayed %v, %v", got, replayed, err)
			}
			s.units(0, 1, 0)
		})
	}
}

func TestScriptFlush(t *testing.T) {
	s := newShop(t, CacheConfig{})
	s.load(10)
	for n := range 3 {
		if err := s.client.ScriptFlush(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		if _, replayed, err := s.Reserve(t.Context(), s.reservation("ann", n, 1)); err != nil || replayed {
			t.Errorf("reserve after SCRIPT FLUSH: replayed %v, %v", replayed, err)
		}
	}
	if err := s.client.ScriptFlush(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Apply(t.Context(), []Reservation{row("ann", 0, 1, Deducted), row("ann", 1, 1, RolledBack)}); err != nil || got.Changed != 2 {
		t.Errorf("apply after SCRIPT FLUSH: %+v, %v", got, err)
	}
	s.units(8, 1, 1)
}

// Redis answers with an error instead of a reply.
func TestReserveServerError(t *testing.T) {
	s := newShop(t, CacheConfig{})
	s.load(10)
	if err := s.client.Set(t.Context(), s.keys.open(s.product), "not a list", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Reserve(t.Context(), s.reservation("ann", 1, 1)); !errors.Is(err, ErrUnknown) {
		t.Errorf("%v, want unknown", err)
	}
	s.client.Del(t.Context(), s.keys.open(s.product))
	s.units(10, 0, 0)
	if n := s.metric("seckill_cache_reserve_unknown_total", ""); n != 1 {
		t.Errorf("unknown counted %v", n)
	}
}

// Redis is killed and comes back empty.
func TestRedisRestarted(t *testing.T) {
	testservers.Real(t)
	server := startRedis(t)
	s := newShopAt(t, server.addr(), CacheConfig{Prefix: "restarted"})
	s.load(10)
	before, err := s.RunID(t.Context())
	if err != nil || before == "" {
		t.Fatalf("run ID %q, %v", before, err)
	}
	if _, _, err := s.Reserve(t.Context(), s.reservation("ann", 1, 1)); err != nil {
		t.Fatal(err)
	}
	if again, err := s.RunID(t.Context()); again != before || err != nil {
		t.Errorf("run ID %q, %v; want the same %q", again, err, before)
	}
	server.kill()
	if _, _, err := s.Reserve(t.Context(), s.reservation("bob", 2, 1)); !errors.Is(err, ErrUnknown) {
		t.Errorf("while Redis is away: %v, want unknown", err)
	}
	if _, err := s.Apply(t.Context(), []Reservation{row("ann", 1, 1, Deducted)}); !errors.Is(err, ErrUnknown) {
		t.Errorf("apply while Redis is away: %v, want unknown", err)
	}
	if s.Ping(t.Context()) == nil {
		t.Error("ping while Redis is away: no error")
	}
	server.start()
	if _, _, err := s.Reserve(t.Context(), s.reservation("bob", 2, 1)); !errors.Is(err, NotLoaded) {
		t.Errorf("an empty Redis: %v, want not loaded", err)
	}
	if after, err := s.RunID(t.Context()); after == before || err != nil {
		t.Errorf("run ID %q, %v; want another one", after, err)
	}
	s.load(9, row("ann", 1, 1, Deducted)) // the ledger had ann's by then
	if _, _, err := s.Reserve(t.Context(), s.reservation("bob", 2, 1)); err != nil {
		t.Error(err)
	}
	s.units(8, 1, 1)
}
