package memory_test

import (
	"errors"
	"flag"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"github.com/leadingpeers/seckill/internal/simulator/memory"
	"github.com/leadingpeers/seckill/internal/testservers"
	"github.com/leadingpeers/seckill/pkg/stock"
)

// few makes rapid try fewer times than its hundred: each step is a round trip.
func few(t *testing.T, checks int) {
	t.Helper()
	for name, value := range map[string]int{"rapid.checks": checks, "rapid.steps": 60} {
		f := flag.Lookup(name)
		if f.Value.String() != f.DefValue {
			continue // somebody has said how many
		}
		if err := f.Value.Set(strconv.Itoa(value)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Value.Set(f.DefValue) })
	}
}

// untilAllIsSeen checks draws until they have come to all of want, and fails if
// ten times as many as one check draws have not: what is rare may stay away
// from one check by chance, and from ten only by a fault.
func untilAllIsSeen(t *testing.T, saw map[string]int, want []string, draw func(*rapid.T)) {
	t.Helper()
	for range 10 {
		rapid.Check(t, draw)
		want = slices.DeleteFunc(slices.Clone(want), func(what string) bool { return saw[what] > 0 })
		if len(want) == 0 || t.Failed() {
			break
		}
	}
	t.Log(saw)
	for _, what := range want {
		t.Errorf("the draws never came to %q", what)
	}
}

// ids returns n reservation IDs that differ from those of other calls with
// another round.
func ids(round, n int) []string {
	out := make([]string, n)
	for i := range out {
		tail := strconv.FormatInt(int64(round*n+i), 8)
		digits := strings.Map(func(c rune) rune { return c - '0' + 'b' }, tail)
		out[i] = strings.Repeat("a", 25-len(digits)) + digits + "a"
	}
	return out
}

// shelf is a real Redis beside one in memory, and what a draw chooses from.
type shelf struct {
	*testing.T
	real     *stock.Cache
	model    *memory.Redis
	products []string
	ids      []string
	start    time.Time
	saw      map[string]int
	loads    map[string]string // of Redis → of the model
}

// The scripts on a server and the Redis of the simulator are given the same
// calls, drawn at random; each answer and each account must be the same.
func TestRedisIsTheScripts(t *testing.T) {
	few(t, 60)
	prefix := testservers.Prefix(t)
	client := redis.NewClient(&redis.Options{Addr: testservers.Redis(t)})
	t.Cleanup(func() { _ = client.Close() })
	cache := stock.NewCache(client, stock.CacheConfig{Prefix: prefix})
	t.Cleanup(cache.Close)
	round, saw := 0, map[string]int{}
	untilAllIsSeen(t, saw, []string{
		"reserved", "replayed", "sold_out", "over_user_limit", "over_order_limit", "not_on_sale", "not_loaded", "id_reused",
		"adopted", "tombstones", "changed", "same", "reaped", "loaded", "exists", "configured", "flushed",
	}, func(rt *rapid.T) {
		round++
		s := &shelf{
			T: t, real: cache, model: memory.NewRedis(time.Now, memory.None), ids: ids(round, 40), start: time.Now(), saw: saw, loads: map[string]string{},
			products: []string{fmt.Sprintf("p%d", round), fmt.Sprintf("q%d", round)},
		}
		rt.Repeat(map[string]func(*rapid.T){
			"reserve": s.reserve, "reserve again": s.reserve, "reserve much": s.reserve, "apply": s.apply, "apply again": s.apply, "reap": s.reap,
			"configure": s.configure, "preload": s.preload, "flush": s.flush, "": s.agree,
		})
	})
}

// any draws a reservation: one of few, so that they come again.
func (s *shelf) any(rt *rapid.T) stock.Reservation {
	n := rapid.IntRange(0, len(s.ids)-1).Draw(rt, "id")
	quantity := int64(1 + n%3)
	if rapid.IntRange(0, 9).Draw(rt, "other quantity") == 0 {
		quantity++
	}
	return stock.Reservation{ID: s.ids[n], ProductID: s.products[n%2], UserID: fmt.Sprint("user", n%5), Quantity: quantity}
}

func (s *shelf) reserve(rt *rapid.T) {
	want := s.any(rt)
	got, replayed, err := s.real.Reserve(s.Context(), want)
	say, again, no := s.model.Reserve(want)
	got.At, say.At = time.Time{}, time.Time{}
	if got != say || replayed != again || !errors.Is(err, no) && (err != nil || no != nil) {
		rt.Fatalf("reserve %+v:\n Redis %+v %v %v\n model %+v %v %v", want, got, replayed, err, say, again, no)
	}
	var refusal stock.Refusal
	switch {
	case errors.As(no, &refusal):
		s.saw[string(refusal)]++
	case again:
		s.saw["replayed"]++
	default:
		s.saw["reserved"]++
	}
}

func (s *shelf) apply(rt *rapid.T) {
	var rows []stock.Reservation
	for range rapid.IntRange(1, 6).Draw(rt, "rows") {
		r := s.any(rt)
		r.State = rapid.SampledFrom([]stock.State{stock.Deducted, stock.Refused, stock.RolledBack}).Draw(rt, "state")
		rows = append(rows, r)
	}
	got, err := s.real.Apply(s.Context(), rows)
	if diff := cmp.Diff(s.model.Apply(rows), got); err != nil || diff != "" {
		rt.Fatalf("apply %+v: %v (-model +Redis)\n%s", rows, err, diff)
	}
	s.saw["adopted"] += got.Adopted
	s.saw["tombstones"] += got.Tombstones
	s.saw["changed"] += got.Changed
	s.saw["same"] += got.Same
}

func (s *shelf) reap(rt *rapid.T) {
	product := rapid.SampledFrom(s.products).Draw(rt, "product")
	limit := rapid.IntRange(1, 8).Draw(rt, "limit")
	age := rapid.SampledFrom([]time.Duration{0, time.Hour}).Draw(rt, "age")
	got, err := s.real.Reap(s.Context(), product, age, limit)
	say, no := s.model.Reap(product, age, limit)
	for _, rows := range [][]stock.Reservation{got, say} {
		for i := range rows {
			rows[i].At = time.Time{}
		}
	}
	if !errors.Is(err, no) || !slices.Equal(got, say) {
		rt.Fatalf("reap %s older than %v, %d entries:\n Redis %+v %v\n model %+v %v", product, age, limit, got, err, say, no)
	}
	s.saw["reaped"] += len(got)
}

// terms draws what a product is sold under.
func (s *shelf) terms(rt *rapid.T) stock.Terms {
	t := stock.Terms{
		ProductID: rapid.SampledFrom(s.products).Draw(rt, "product"), PerOrder: rapid.Int64Range(2, 3).Draw(rt, "per order"),
		PerUser: rapid.Int64Range(2, 9).Draw(rt, "per user"), OnSale: rapid.IntRange(0, 7).Draw(rt, "closed") > 0,
		StartsAt: s.start.Add(-time.Hour), EndsAt: s.start.Add(time.Hour),
		Restocks: rapid.Int64Range(0, 3).Draw(rt, "restocks"),
	}
	t.Total = 20 + 3*t.Restocks
	if rapid.IntRange(0, 9).Draw(rt, "over") == 0 {
		t.EndsAt = s.start.Add(-time.Minute)
	}
	return t
}

func (s *shelf) configure(rt *rapid.T) {
	terms := s.terms(rt)
	err, no := s.real.Configure(s.Context(), terms), s.model.Configure(terms)
	if !errors.Is(err, no) {
		rt.Fatalf("configure %+v: Redis %v, model %v", terms, err, no)
	}
	if no == nil {
		s.saw["configured"]++
	}
}

func (s *shelf) preload(rt *rapid.T) {
	terms := s.terms(rt)
	var rows []stock.Reservation
	for i, id := range s.ids[:rapid.IntRange(0, 6).Draw(rt, "rows")] {
		r := stock.Reservation{ID: id, ProductID: terms.ProductID, UserID: fmt.Sprint("user", i/2), Quantity: 1 + int64(i%2), At: s.start}
		r.State = rapid.SampledFrom([]stock.State{stock.Deducted, stock.Refused, stock.RolledBack}).Draw(rt, "state")
		rows = append(rows, r)
	}
	available := rapid.Int64Range(0, 20).Draw(rt, "available")
	got, err := s.real.Preload(s.Context(), terms, available, sequence(rows))
	if say := s.model.Preload(terms, available, rows); err != nil || got != say {
		rt.Fatalf("preload %+v with %+v: Redis %v %v, model %v", terms, rows, got, err, say)
	}
	s.saw[map[bool]string{true: "loaded", false: "exists"}[got]]++
}

func sequence(rows []stock.Reservation) iter.Seq2[stock.Reservation, error] {
	return func(yield func(stock.Reservation, error) bool) {
		for _, r := range rows {
			if !yield(r, nil) {
				return
			}
		}
	}
}

// flush comes now and then, or nothing would ever be sold.
func (s *shelf) flush(rt *rapid.T) {
	product := rapid.SampledFrom(s.products).Draw(rt, "product")
	if rapid.IntRange(0, 3).Draw(rt, "mercy") > 0 {
		rt.Skip("not now")
	}
	if err := s.real.Flush(s.Context(), product, true); err != nil {
		rt.Fatal(err)
	}
	s.model.Flush(product)
	s.saw["flushed"]++
}

// agree compares the accounts and every record.
func (s *shelf) agree(rt *rapid.T) {
	loaded, err := s.real.Loaded(s.Context(), s.products)
	model := s.model.Loaded(s.products)
	if err != nil || len(loaded) != len(model) {
		rt.Fatalf("loaded: %v, %v; model %v", loaded, err, model)
	}
	for p, load := range model { // each load has another name, in Redis as in the model
		if was, seen := s.loads[loaded[p]]; seen && was != load || loaded[p] == "" {
			rt.Fatalf("%s came by the load %q, which was the model's %s and is its %s", p, loaded[p], was, load)
		}
		s.loads[loaded[p]] = load
	}
	for _, p := range s.products {
		got, err := s.real.Counts(s.Context(), p)
		say, no := s.model.Counts(p)
		if !errors.Is(err, no) || got != say {
			rt.Fatalf("counts of %s:\n Redis %+v %v\n model %+v %v", p, got, err, say, no)
		}
	}
	for n, id := range s.ids[:8] {
		p, user := s.products[n%2], fmt.Sprint("user", n%5)
		got, err := s.real.Find(s.Context(), p, user, id)
		say, no := s.model.Find(p, user, id)
		got.At, say.At = time.Time{}, time.Time{}
		if !errors.Is(err, no) || got != say {
			rt.Fatalf("find %s:\n Redis %+v %v\n model %+v %v", id, got, err, say, no)
		}
	}
}
