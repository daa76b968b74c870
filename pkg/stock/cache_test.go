package stock

import (
	"errors"
	"fmt"
	"iter"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/leadingpeers/seckill/internal/testservers"
)

// bare reports whether err is the refusal itself, with nothing around it.
func bare(err error, want Refusal) bool { return errors.Is(err, want) && err.Error() == string(want) }

func TestFind(t *testing.T) {
	s := newShop(t, CacheConfig{})
	if _, err := s.Find(t.Context(), s.product, "ann", id(1)); !bare(err, NotLoaded) {
		t.Errorf("no product: %v, want the bare refusal", err)
	}
	s.load(10, row("ann", 1, 2, Deducted), row("ann", 2, 1, RolledBack), row("bob", 3, 4, Refused))
	for _, tt := range []struct {
		why   string
		user  string
		n     int
		state State // empty: not found
	}{
		{"deducted", "ann", 1, Deducted},
		{"rolled back", "ann", 2, RolledBack},
		{"refused in the ledger: Redis only knows that it holds nothing", "bob", 3, RolledBack},
		{"somebody else's is not there", "bob", 1, ""},
		{"unknown to a buyer who has others", "ann", 9, ""},
		{"a buyer without any", "eve", 1, ""},
	} {
		got, err := s.Find(t.Context(), s.product, tt.user, id(tt.n))
		if tt.state == "" {
			if !errors.Is(err, ErrNotFound) {
				t.Errorf("%s: %+v, %v", tt.why, got, err)
			}
			continue
		}
		want := row(tt.user, tt.n, map[int]int64{1: 2, 2: 1, 3: 4}[tt.n], tt.state)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v %s", tt.why, err, diff)
		}
	}
	if _, err := s.Find(t.Context(), s.product, "ann", ".*"); err == nil || errors.Is(err, ErrNotFound) {
		t.Errorf("an ID that is none: %v", err)
	}
}

func TestReserveAnswers(t *testing.T) {
	s := newShop(t, CacheConfig{})
	s.load(10, row("bob", 9, 2, Deducted))
	ask := s.reservation("ann", 1, 2)
	ask.State, ask.Reason, ask.At = RolledBack, "left over", time.Unix(1, 0) // not the caller's to say
	first, replayed, err := s.Reserve(t.Context(), ask)
	want := s.reservation("ann", 1, 2)
	want.State, want.At = Pending, first.At
	if diff := cmp.Diff(want, first); diff != "" || replayed || err != nil {
		t.Errorf("first: replayed %v, %v %s", replayed, err, diff)
	}
	if age := time.Since(first.At); age < -time.Minute || age > time.Minute {
		t.Errorf("reserved at %v", first.At)
	}
	second, replayed, err := s.Reserve(t.Context(), ask)
	if diff := cmp.Diff(first, second); diff != "" || !replayed || err != nil {
		t.Errorf("the retry: replayed %v, %v %s", replayed, err, diff)
	}
	settled, replayed, err := s.Reserve(t.Context(), s.reservation("bob", 9, 2))
	if settled.State != Deducted || !replayed || err != nil {
		t.Errorf("a settled one: %+v, replayed %v, %v", settled, replayed, err)
	}
	if _, _, err := s.Reserve(t.Context(), s.reservation("ann", 1, 3)); !bare(err, IDReused) {
		t.Errorf("another quantity: %v, want the bare refusal", err)
	}
	other := s.reservation("ann", 1, 1)
	other.ProductID = "p2"
	if _, _, err := s.Reserve(t.Context(), other); !bare(err, NotLoaded) {
		t.Errorf("another product: %v, want the bare refusal", err)
	}
	s.units(8, 2, 2)
	if n := s.metric("seckill_cache_refusals_total", "id_reused"); n != 1 {
		t.Errorf("id_reused counted %v", n)
	}
}

func TestApplyManyProducts(t *testing.T) {
	const products, users, each = 5, 40, 3
	s := newShop(t, CacheConfig{MaxBatch: 7}) // many calls, more than one write
	var rs []Reservation
	for n := range users * each {
		for p := range products {
			r := s.reservation(fmt.Sprintf("user%d", n%users), 1000*p+n, 1)
			r.ProductID, r.State = fmt.Sprintf("p%d", p), Deducted
			rs = append(rs, r)
		}
	}
	for p := range products - 1 { // the last one is not loaded
		s.product = fmt.Sprintf("p%d", p)
		s.load(200)
	}
	got, err := s.Apply(t.Context(), rs)
	if want := (Applied{Adopted: 4 * 120, NotLoaded: 120}); got != want || err != nil {
		t.Errorf("first: %+v, %v; want %+v", got, err, want)
	}
	for i := range rs {
		if i%2 == 0 {
			rs[i].State = []State{RolledBack, Refused}[i%4/2]
		}
	}
	rs = append(rs, rs[0], s.reservation("eve", 9999, 1))
	rs[len(rs)-1].State = Refused
	got, err = s.Apply(t.Context(), rs)
	if want := (Applied{Changed: 240, Same: 240 + 1, Tombstones: 1, NotLoaded: 120}); got != want || err != nil {
		t.Errorf("second: %+v, %v; want %+v", got, err, want)
	}
	for p := range products - 1 {
		s.product = fmt.Sprintf("p%d", p)
		s.units(140, 0, 60)
	}
	for outcome, want := range map[string]float64{"changed": 240, "same": 241, "adopted": 480, "tombstone": 1, "not_loaded": 240} {
		if n := s.metric("seckill_cache_applied_total", outcome); n != want {
			t.Errorf("%s counted %v, want %v", outcome, n, want)
		}
	}
	if got, err := s.Apply(t.Context(), nil); got != (Applied{}) || err != nil {
		t.Errorf("nothing to apply: %+v, %v", got, err)
	}
	pending := s.reservation("ann", 1, 1)
	for _, state := range []State{Pending, "", "paid"} {
		pending.State = state
		if _, err := s.Apply(t.Context(), []Reservation{pending}); err == nil || errors.Is(err, ErrUnknown) {
			t.Errorf("state %q: %v, want an error before anything is sent", state, err)
		}
	}
}

func TestReap(t *testing.T) {
	s := newShop(t, CacheConfig{})
	if _, err := s.Reap(t.Context(), s.product, 0, 10); !bare(err, NotLoaded) {
		t.Errorf("no product: %v, want the bare refusal", err)
	}
	s.load(10)
	if got, err := s.Reap(t.Context(), s.product, 0, 10); err != nil || len(got) != 0 {
		t.Errorf("nothing open: %v, %v", got, err)
	}
	held, _, err := s.Reserve(t.Context(), s.reservation("ann", 1, 2))
	if err != nil {
		t.Fatal(err)
	}
	held.ActivityID = "" // Redis does not keep it
	got, err := s.Reap(t.Context(), s.product, 0, 100_000)
	if diff := cmp.Diff([]Reservation{held}, got); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	if got, err := s.Reap(t.Context(), s.product, time.Hour, 10); err != nil || len(got) != 0 {
		t.Errorf("younger than an hour: %v, %v", got, err)
	}
	for _, tt := range []struct {
		why     string
		product string
		age     time.Duration
		limit   int
	}{
		{"no product ID", "", 0, 1},
		{"an age below 0", s.product, -1, 1},
		{"no entries to look at", s.product, 0, 0},
	} {
		if _, err := s.Reap(t.Context(), tt.product, tt.age, tt.limit); err == nil || errors.Is(err, ErrUnknown) {
			t.Errorf("%s: %v, want an error before anything is sent", tt.why, err)
		}
	}
}

// What is under way is found without looking at what was ever sold.
func TestWaiting(t *testing.T) {
	s := newShop(t, CacheConfig{})
	if _, err := s.Waiting(t.Context(), s.product); !bare(err, NotLoaded) {
		t.Errorf("no product: %v, want the bare refusal", err)
	}
	s.load(10)
	want := func(why string, w Waiting) {
		t.Helper()
		got, err := s.Waiting(t.Context(), s.product)
		if w.Reservations > 0 && (got.Oldest < 0 || got.Oldest > time.Minute) {
			t.Errorf("%s: the oldest is %s old", why, got.Oldest)
		}
		got.Oldest = 0
		if err != nil || got != w {
			t.Errorf("%s: %+v, %v, want %+v", why, got, err, w)
		}
	}
	want("nothing sold", Waiting{Surplus: 10})
	var held []Reservation
	for i, buyer := range []string{"ann", "bob", "ann"} {
		r, _, err := s.Reserve(t.Context(), s.reservation(buyer, i+1, 2))
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, r)
	}
	want("two of one buyer, one of another", Waiting{Surplus: 4, Units: 6, Reservations: 3})
	held[0].State, held[1].State, held[1].Reason = Deducted, Refused, string(SoldOut)
	if _, err := s.Apply(t.Context(), held[:2]); err != nil {
		t.Fatal(err)
	}
	want("decided ones are no longer waiting, though their buyers are in the open list", Waiting{Surplus: 6, Units: 2, Reservations: 1})
	for name, n := range map[string]float64{"seckill_cache_reserved_total": 3, "seckill_cache_reserved_units_total": 6, "seckill_cache_replayed_total": 0} {
		if got := s.metric(name, ""); got != n {
			t.Errorf("%s is %v, want %v", name, got, n)
		}
	}
	if _, again, err := s.Reserve(t.Context(), s.reservation("ann", 3, 2)); err != nil || !again || s.metric("seckill_cache_replayed_total", "") != 1 {
		t.Errorf("a repetition: %v, %v, %v repetitions counted", again, err, s.metric("seckill_cache_replayed_total", ""))
	}
}

// More buyers than go into a call, some with several reservations.
func TestPreloadManyBuyers(t *testing.T) {
	s := newShop(t, CacheConfig{})
	const users = 2*loadChunk + 3
	var rows []Reservation
	for n := range users {
		user := fmt.Sprintf("user%04d", n)
		rows = append(rows, row(user, 10*n, 2, Deducted))
		if n%3 == 0 {
			rows = append(rows, row(user, 10*n+1, 3, RolledBack), row(user, 10*n+2, 1, Deducted))
		}
	}
	s.load(100, rows...)
	got := s.counts()
	want := Counts{Surplus: 100, Deducted: 2*users + users/3 + 1, Reservations: len(rows), RolledBack: users/3 + 1, Buyers: users}
	if users%3 == 0 || got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if fields := s.get(); len(fields) != users+termFields || fields["u:user0003"] != "3;"+id(30)+",2,C,"+then+";"+id(31)+",3,R,"+then+";"+id(32)+",1,C,"+then {
		t.Errorf("%d fields, one of them %q", len(fields), fields["u:user0003"])
	}
	if keys := s.client.Keys(t.Context(), s.cfg.Prefix+"*").Val(); len(keys) != 1 {
		t.Errorf("left over: %v", keys)
	}
}

// A preload during a sale, and many at once, change nothing that is there.
func TestPreloadOnce(t *testing.T) {
	s := newShop(t, CacheConfig{})
	var loaded atomic.Int64
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			ok, err := s.Preload(t.Context(), s.terms(), 8, each([]Reservation{row("ann", 1, 2, Deducted)}))
			if err != nil {
				t.Error(err)
			}
			if ok {
				loaded.Add(1)
			}
		})
	}
	group.Wait()
	if loaded.Load() != 1 {
		t.Errorf("%d of 8 loaders loaded it", loaded.Load())
	}
	if _, _, err := s.Reserve(t.Context(), s.reservation("bob", 2, 3)); err != nil {
		t.Fatal(err)
	}
	terms := s.terms()
	terms.OnSale = false
	ok, err := s.Preload(t.Context(), terms, 999, each(nil))
	if ok || err != nil {
		t.Errorf("during the sale: loaded %v, %v", ok, err)
	}
	s.units(5, 3, 2)
	if keys := s.client.Keys(t.Context(), s.cfg.Prefix+"*:load:*").Val(); len(keys) != 0 {
		t.Errorf("left over: %v", keys)
	}
}

// The same loader dies half way: what it has put there goes by itself.
func TestPreloadDies(t *testing.T) {
	s := newShop(t, CacheConfig{})
	broken := errors.New("the ledger went away")
	rows := func(yield func(Reservation, error) bool) {
		for n := range 2 * loadChunk {
			if !yield(row(fmt.Sprintf("user%04d", n), n, 1, Deducted), nil) {
				return
			}
		}
		yield(Reservation{}, broken)
	}
	if ok, err := s.Preload(t.Context(), s.terms(), 8, rows); ok || !errors.Is(err, broken) {
		t.Errorf("loaded %v, %v", ok, err)
	}
	if _, err := s.Surplus(t.Context(), s.product); !bare(err, NotLoaded) {
		t.Errorf("surplus: %v, want not loaded", err)
	}
	keys := s.client.Keys(t.Context(), s.cfg.Prefix+"*").Val()
	if len(keys) != 1 || !strings.HasPrefix(keys[0], s.cfg.Prefix+":{p1}:load:") {
		t.Fatalf("keys %v, want the temporary one", keys)
	}
	if ttl := s.client.TTL(t.Context(), keys[0]).Val(); ttl <= 0 || ttl > loadTTL {
		t.Errorf("it lives for %v", ttl)
	}
}

// The loader pauses for longer than its fields live.
func TestPreloadTooSlow(t *testing.T) {
	s := newShop(t, CacheConfig{})
	rows := func(yield func(Reservation, error) bool) {
		for n := range loadChunk + 1 {
			if !yield(row(fmt.Sprintf("user%04d", n), n, 1, Deducted), nil) {
				return
			}
		}
		for _, key := range s.client.Keys(t.Context(), s.cfg.Prefix+"*").Val() {
			s.client.Del(t.Context(), key)
		}
	}
	if ok, err := s.Preload(t.Context(), s.terms(), 8, rows); ok || err == nil || !strings.Contains(err.Error(), "lost") {
		t.Errorf("loaded %v, %v", ok, err)
	}
	if keys := s.client.Keys(t.Context(), s.cfg.Prefix+"*").Val(); len(keys) != 0 {
		t.Errorf("left over: %v", keys)
	}
}

func TestPreloadInvalid(t *testing.T) {
	s := newShop(t, CacheConfig{})
	good := []Reservation{row("ann", 1, 1, Deducted)}
	spoilt := func(spoil func(r *Reservation)) iter.Seq2[Reservation, error] {
		r := good[0]
		spoil(&r)
		return each(append([]Reservation{row("amy", 2, 1, Deducted)}, r))
	}
	for _, tt := range []struct {
		why       string
		terms     func(t *Terms)
		available int64
		rows      iter.Seq2[Reservation, error]
	}{
		{"no product", func(t *Terms) { t.ProductID = "" }, 1, each(good)},
		{"nothing may be bought", func(t *Terms) { t.PerOrder = 0 }, 1, each(good)},
		{"nobody may buy", func(t *Terms) { t.PerUser = -1 }, 1, each(good)},
		{"a limit that Lua cannot hold", func(t *Terms) { t.PerUser = math.MaxInt64 }, 1, each(good)},
		{"a window that ends before it begins", func(t *Terms) { t.EndsAt = t.StartsAt }, 1, each(good)},
		{"no window", func(t *Terms) { t.StartsAt, t.EndsAt = time.Time{}, time.Time{} }, 1, each(good)},
		{"an end of sixteen digits", func(t *Terms) { t.EndsAt = time.UnixMilli(1e15) }, 1, each(good)},
		{"a total of sixteen digits", func(t *Terms) { t.Total = 1e15 }, 1, each(good)},
		{"units of sixteen digits", func(*Terms) {}, 1e15, each(good)},
		{"fewer than no units", func(*Terms) {}, -1, each(good)},
		{"units that Lua cannot count", func(*Terms) {}, math.MaxInt64, each(good)},
		{"a row of another product", func(*Terms) {}, 1, spoilt(func(r *Reservation) { r.ProductID = "p2" })},
		{"rows out of order would overwrite a buyer", func(*Terms) {}, 1, spoilt(func(r *Reservation) { r.UserID = "abe" })},
		{"pending is no state of the ledger", func(*Terms) {}, 1, spoilt(func(r *Reservation) { r.State = Pending })},
		{"no state", func(*Terms) {}, 1, spoilt(func(r *Reservation) { r.State = "" })},
		{"a row that is not valid", func(*Terms) {}, 1, spoilt(func(r *Reservation) { r.ID = "x" })},
	} {
		terms := s.terms()
		tt.terms(&terms)
		if ok, err := s.Preload(t.Context(), terms, tt.available, tt.rows); ok || err == nil || errors.Is(err, ErrUnknown) {
			t.Errorf("%s: loaded %v, %v; want it refused before Redis is asked", tt.why, ok, err)
		}
	}
	if keys := s.client.Keys(t.Context(), s.cfg.Prefix+"*").Val(); len(keys) != 0 {
		t.Errorf("left over: %v", keys)
	}
}

// What the gate takes the scripts take: the largest of everything.
func TestTermsLargest(t *testing.T) {
	s := newShop(t, CacheConfig{})
	terms := Terms{
		ProductID: s.product, PerOrder: maxCount, PerUser: maxCount, OnSale: true,
		StartsAt: time.UnixMilli(0), EndsAt: time.UnixMilli(maxCount), Total: maxCount - 1,
	}
	if loaded, err := s.Preload(t.Context(), terms, maxCount-1, each(nil)); err != nil || !loaded {
		t.Fatalf("preload: loaded %v, %v", loaded, err)
	}
	terms.Total, terms.Restocks = maxCount, maxCount
	if err := s.Configure(t.Context(), terms); err != nil {
		t.Fatal(err)
	}
	s.units(maxCount, 0, 0)
}

func TestConfigure(t *testing.T) {
	s := newShop(t, CacheConfig{})
	if err := s.Configure(t.Context(), s.terms()); !bare(err, NotLoaded) {
		t.Errorf("no product: %v, want the bare refusal", err)
	}
	s.load(10)
	for _, tt := range []struct {
		why    string
		change func(t *Terms)
		want   error
	}{
		{"as it was", func(*Terms) {}, nil},
		{"paused", func(t *Terms) { t.OnSale = false }, NotOnSale},
		{"not yet", func(t *Terms) { t.StartsAt = time.Now().Add(30 * time.Minute) }, NotOnSale},
		{"over", func(t *Terms) { t.EndsAt = time.Now().Add(-30 * time.Minute) }, NotOnSale},
		{"one an order", func(t *Terms) { t.PerOrder = 1 }, OverOrderLimit},
		{"one a buyer", func(t *Terms) { t.PerUser = 1 }, OverUserLimit},
		{"as it was again", func(*Terms) {}, nil},
	} {
		terms := s.terms()
		tt.change(&terms)
		if err := s.Configure(t.Context(), terms); err != nil {
			t.Errorf("%s: %v", tt.why, err)
		}
		_, _, err := s.Reserve(t.Context(), s.reservation("ann", len(tt.why), 2))
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: reserve: %v, want %v", tt.why, err, tt.want)
		}
	}
	s.units(6, 4, 0)
	if err := s.Configure(t.Context(), Terms{ProductID: s.product}); err == nil || errors.Is(err, ErrUnknown) {
		t.Errorf("empty terms: %v, want an error before anything is sent", err)
	}
}

func TestFlush(t *testing.T) {
	for _, tt := range []struct {
		why    string
		change func(t *Terms)
		open   bool
		force  bool
		want   error
	}{
		{"on sale", func(*Terms) {}, false, false, ErrInUse},
		{"paused", func(t *Terms) { t.OnSale = false }, false, false, nil},
		{"before the window", func(t *Terms) { t.StartsAt = time.Now().Add(30 * time.Minute) }, false, false, nil},
		{"after the window", func(t *Terms) { t.EndsAt = time.Now().Add(-30 * time.Minute) }, false, false, nil},
		{"after the window, with something open", func(t *Terms) { t.EndsAt = time.Now().Add(-30 * time.Minute) }, true, false, ErrInUse},
		{"on sale, with something open, by force", func(*Terms) {}, true, true, nil},
	} {
		t.Run(tt.why, func(t *testing.T) {
			s := newShop(t, CacheConfig{})
			s.load(10)
			if tt.open {
				if _, _, err := s.Reserve(t.Context(), s.reservation("ann", 1, 1)); err != nil {
					t.Fatal(err)
				}
			}
			terms := s.terms()
			tt.change(&terms)
			if err := s.Configure(t.Context(), terms); err != nil {
				t.Fatal(err)
			}
			if err := s.Flush(t.Context(), s.product, tt.force); !errors.Is(err, tt.want) {
				t.Errorf("%v, want %v", err, tt.want)
			}
			left := s.client.Exists(t.Context(), s.keys.product(s.product), s.keys.open(s.product)).Val()
			if (left > 0) != (tt.want != nil) {
				t.Errorf("%d keys left", left)
			}
		})
	}
	s := newShop(t, CacheConfig{})
	if err := s.Flush(t.Context(), s.product, false); err != nil {
		t.Errorf("nothing there: %v", err)
	}
	if err := s.Flush(t.Context(), "*", true); err == nil {
		t.Error("flushed a product ID that is none")
	}
}

func TestLoadedAndSurplus(t *testing.T) {
	s := newShop(t, CacheConfig{})
	s.load(10)
	got, err := s.Loaded(t.Context(), []string{"p1", "p2"})
	first := got["p1"]
	if err != nil || len(got) != 1 || first == "" {
		t.Errorf("loads %v, %v; want one of p1", got, err)
	}
	if err := s.Flush(t.Context(), "p1", true); err != nil {
		t.Fatal(err)
	}
	s.load(10)
	if got, err = s.Loaded(t.Context(), []string{"p1"}); err != nil || got["p1"] == "" || got["p1"] == first {
		t.Errorf("after another load: %v, %v; before it %q", got, err, first)
	}
	s.client.HDel(t.Context(), s.keys.product("p1"), loadField)
	if got, err = s.Loaded(t.Context(), []string{"p1"}); err != nil || got["p1"] != "unnamed" {
		t.Errorf("loaded by a version without names: %v, %v", got, err)
	}
	if got, err := s.Loaded(t.Context(), nil); err != nil || len(got) != 0 {
		t.Errorf("of none: %v, %v", got, err)
	}
	if n, err := s.Surplus(t.Context(), "p1"); n != 10 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := s.Surplus(t.Context(), "p2"); !bare(err, NotLoaded) {
		t.Errorf("no product: %v, want the bare refusal", err)
	}
	if _, err := s.Counts(t.Context(), "p2"); !bare(err, NotLoaded) {
		t.Errorf("no product: %v, want the bare refusal", err)
	}
}

// Balance counts each pending record once, however often its buyer is in open,
// and in as many calls of HMGET as it takes.
func TestBalance(t *testing.T) {
	s := newShop(t, CacheConfig{})
	if _, err := s.Balance(t.Context(), s.product); !bare(err, NotLoaded) {
		t.Errorf("no product: %v, want the bare refusal", err)
	}
	s.load(5000)
	is := func(why string, want Balance) {
		t.Helper()
		if got, err := s.Balance(t.Context(), s.product); err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", why, got, err, want)
		}
	}
	is("nothing is open", Balance{Surplus: 5000})
	hold := func(user string, n int) Reservation {
		t.Helper()
		r, _, err := s.Reserve(t.Context(), s.reservation(user, n, 2))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	first := hold("ann", 1)
	hold("ann", 2)
	is("two of one buyer", Balance{Surplus: 4996, Pending: 4})
	first.State = Deducted
	if _, err := s.Apply(t.Context(), []Reservation{first}); err != nil {
		t.Fatal(err)
	}
	is("one of them decided", Balance{Surplus: 4996, Pending: 2})
	for i := range 1100 {
		hold(fmt.Sprint("u", i), 3+i)
	}
	is("more buyers than fit into one call", Balance{Surplus: 2796, Pending: 2202})
	for i := range 900 {
		hold(fmt.Sprint("v", i), 2000+i)
	}
	if _, err := s.Balance(t.Context(), s.product); !errors.Is(err, ErrBusy) {
		t.Errorf("2002 entries in open: %v, want %v", err, ErrBusy)
	}
}

// A field that does not add up is what Broken is for, and one that is no field
// is an error, not a zero.
func TestCountsOfWrongFields(t *testing.T) {
	s := newShop(t, CacheConfig{})
	s.put(with(onSale("10"), "u:ann", "3;"+id(1)+",2,C,"+then))
	if got, err := s.Counts(t.Context(), s.product); err != nil || got.Broken != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	for _, value := range []string{"", "x;" + id(1) + ",2,C,1", "2;" + id(1), "2;" + id(1) + ",2,X,1", "2;" + id(1) + ",two,C,1", "2;" + id(1) + ",2,C,"} {
		s.put(map[string]string{"u:bob": value})
		if got, err := s.Counts(t.Context(), s.product); err == nil {
			t.Errorf("%q: %+v", value, got)
		}
		if _, err := s.Find(t.Context(), s.product, "bob", id(2)); err == nil || errors.Is(err, ErrNotFound) {
			t.Errorf("%q: find: %v", value, err)
		}
	}
}

// Two caches of one process may count into the same registry, and a cache with
// a clock times its scripts.
func TestMetricsShared(t *testing.T) {
	registry := prometheus.NewRegistry()
	client := redis.NewClient(&redis.Options{Addr: testservers.Redis(t)})
	t.Cleanup(func() { _ = client.Close() })
	clock := time.Unix(0, 0)
	now := func() time.Time { clock = clock.Add(time.Second); return clock }
	prefix := testservers.Prefix(t)
	s := shop{TB: t, product: "p1", metrics: registry}
	for range 2 {
		s.Cache = NewCache(client, CacheConfig{Prefix: prefix, Registerer: registry, Now: now})
		t.Cleanup(s.Close)
		if _, err := s.Reap(t.Context(), "p1", 0, 1); !errors.Is(err, NotLoaded) {
			t.Fatal(err)
		}
	}
	if n := s.metric("seckill_cache_script_seconds", "reap"); n != 2 {
		t.Errorf("timed %v scripts, want 2", n)
	}
}
