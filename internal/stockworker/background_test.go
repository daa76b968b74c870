package stockworker_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/leadingpeers/seckill/internal/onway"
	"github.com/leadingpeers/seckill/internal/stockworker"
	"github.com/leadingpeers/seckill/pkg/catalog"
	"github.com/leadingpeers/seckill/pkg/events"
	"github.com/leadingpeers/seckill/pkg/stock"
)

// fakeCatalogue lists one activity, or fails.
type fakeCatalogue struct {
	mu       sync.Mutex
	state    catalog.ActivityState
	products []catalog.Product
	err      error
}

func (c *fakeCatalogue) OnSale(context.Context) ([]catalog.Listing, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return nil, c.err
	}
	a := catalog.Activity{ID: "sale", State: c.state, StartsAt: when, EndsAt: when.Add(time.Hour)}
	return []catalog.Listing{{Activity: a, Products: slices.Clone(c.products)}}, nil
}

func product(id string) catalog.Product {
	return catalog.Product{ID: id, ActivityID: "sale", PerOrder: 2, PerUser: 3}
}

// fakePending is the open list of each product, oldest first.
type fakePending struct {
	mu    sync.Mutex
	open  map[string][]stock.Reservation // settled ones are of state deducted
	errs  map[string]error
	asked map[string]int
}

func (p *fakePending) Reap(_ context.Context, productID string, olderThan time.Duration, limit int) ([]stock.Reservation, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked[fmt.Sprintf("%s %v %d", productID, olderThan, limit)]++
	var found []stock.Reservation
	list := p.open[productID]
	n := min(limit, len(list))
	for _, r := range list[:n] {
		if r.State == stock.Pending {
			found = append(found, r)
		}
	}
	p.open[productID] = append(slices.Clone(list[n:]), found...)
	return found, p.errs[productID]
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
	p.got = append(p.got, evs...)
	return p.err
}

func TestReaper(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		reg := prometheus.NewRegistry()
		catalogue := &fakeCatalogue{state: catalog.Online, products: []catalog.Product{product("away"), product("none"), product("p")}}
		cache := &fakePending{
			open:  map[string][]stock.Reservation{"p": {row(1, "p", stock.Pending, ""), row(2, "p", stock.Pending, "")}},
			errs:  map[string]error{"away": errAway, "none": stock.NotLoaded},
			asked: make(map[string]int),
		}
		publisher := &fakePublisher{}
		r := stockworker.NewReaper(catalogue, cache, publisher, stockworker.ReaperConfig{
			Now: time.Now, Log: slog.New(slog.NewTextHandler(&log, nil)), Registerer: reg,
		})
		ctx, cancel := context.WithTimeout(t.Context(), 10500*time.Millisecond) // eleven rounds, at 0 s to 10 s
		defer cancel()
		if err := r.Run(ctx); err != nil {
			t.Fatal(err)
		}
		again := func(n int) events.Event {
			e := created(n, "p")
			e.TraceParent = "" // Redis keeps no trace
			return e
		}
		want := []events.Event{again(1), again(2), again(1), again(2)}
		if diff := cmp.Diff(want, publisher.got); diff != "" {
			t.Errorf("published (-want +got): at 0 s and at 10 s; one product's trouble must not keep the others\n%s", diff)
		}
		if want := map[string]int{"away 5s 200": 11, "none 5s 200": 11, "p 5s 200": 22}; !maps.Equal(cache.asked, want) {
			t.Errorf("asked %v, want %v: each product in every round, p until the first comes round again", cache.asked, want)
		}
		if got := metric(t, reg, "seckill_reaped_total"); got != 4 {
			t.Errorf("seckill_reaped_total %v, want 4", got)
		}
		if got := strings.Count(log.String(), "\n"); got != 1 || !strings.Contains(log.String(), "reap away: away") {
			t.Errorf("log %q: want one line, naming the product", log.String())
		}
	})
}

func TestReaperGoesBehindTheSettled(t *testing.T) {
	settled := func(n int) []stock.Reservation {
		return slices.Repeat([]stock.Reservation{row(0, "p", stock.Deducted, "")}, n)
	}
	pending := func(n int) (rows []stock.Reservation) {
		for i := range n {
			rows = append(rows, row(1+i, "p", stock.Pending, ""))
		}
		return rows
	}
	tests := []struct {
		name   string
		open   []stock.Reservation
		found  int
		behind int // entries left in the open list
		why    string
	}{
		{"behind a rush", slices.Concat(settled(1500), pending(1)), 1, 1, "a lost reservation does not wait for minutes behind those that are settled"},
		{"behind a greater one", slices.Concat(settled(2500), pending(1)), 0, 501, "2000 entries in a round"},
		{"after an outage", pending(1000), 200, 1000, "no more than the ledger can take beside its work"},
		{"spread", slices.Concat(pending(150), settled(100), pending(250)[150:]), 250, 250, "the call that passes the limit is the last"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cache := &fakePending{open: map[string][]stock.Reservation{"p": tt.open}, asked: make(map[string]int)}
			publisher := &fakePublisher{}
			catalogue := &fakeCatalogue{products: []catalog.Product{product("p")}}
			if _, err := stockworker.NewReaper(catalogue, cache, publisher, stockworker.ReaperConfig{Now: time.Now}).Step(t.Context()); err != nil {
				t.Fatal(err)
			}
			if len(publisher.got) != tt.found || len(cache.open["p"]) != tt.behind {
				t.Errorf("%d published, %d left, want %d and %d: %s", len(publisher.got), len(cache.open["p"]), tt.found, tt.behind, tt.why)
			}
		})
	}
}

// measured also tells how long its lists are.
type measured struct{ *fakePending }

func (m measured) Open(_ context.Context, ids []string) (map[string]int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := make(map[string]int)
	for _, id := range ids {
		n[id] = len(m.open[id])
	}
	return n, nil
}

// TestReaperAsksForWhatIsThere: nothing of a product with nothing open, and
// thousands of settled entries in one round.
func TestReaperAsksForWhatIsThere(t *testing.T) {
	cache := &fakePending{asked: make(map[string]int), open: map[string][]stock.Reservation{
		"p": slices.Concat(slices.Repeat([]stock.Reservation{row(0, "p", stock.Deducted, "")}, 9000), []stock.Reservation{row(1, "p", stock.Pending, "")}),
	}}
	publisher := &fakePublisher{}
	catalogue := &fakeCatalogue{products: []catalog.Product{product("p"), product("idle")}}
	if _, err := stockworker.NewReaper(catalogue, measured{cache}, publisher, stockworker.ReaperConfig{Now: time.Now}).Step(t.Context()); err != nil {
		t.Fatal(err)
	}
	if want := map[string]int{"p 5s 200": 46}; !maps.Equal(cache.asked, want) || len(publisher.got) != 1 {
		t.Errorf("asked %v and published %d, want %v and the one behind 9000 others", cache.asked, len(publisher.got), want)
	}
}

// TestReaperLeavesAloneWhatIsOnItsWay: it asks how far the group is once in a
// round, and only when it needs to know; without an answer it publishes nothing.
func TestReaperLeavesAloneWhatIsOnItsWay(t *testing.T) {
	cache := &fakePending{open: map[string][]stock.Reservation{}, asked: make(map[string]int)}
	publisher, asked := &fakePublisher{}, 0
	lags := map[string]events.PartitionLag{"p": {Committed: 3, End: 7}, "q": {Partition: 1, Committed: 5, End: 5}}
	var away error
	r := stockworker.NewReaper(&fakeCatalogue{products: []catalog.Product{product("p"), product("q")}}, cache, publisher, stockworker.ReaperConfig{
		Now: time.Now,
		Queue: func(context.Context) (onway.Of, error) {
			asked++
			return func(productID string) events.PartitionLag { return lags[productID] }, away
		},
	})
	step := func(why string, want error, asks int, published ...int) {
		t.Helper()
		if _, err := r.Step(t.Context()); !errors.Is(err, want) || asked != asks {
			t.Errorf("%s: %v after %d questions, want %v after %d", why, err, asked, want, asks)
		}
		var got []string
		for _, e := range publisher.got {
			got = append(got, e.ReservationID)
		}
		var ids []string
		for _, n := range published {
			ids = append(ids, id(n))
		}
		if !slices.Equal(got, ids) {
			t.Errorf("%s: published %q so far, want %q", why, got, ids)
		}
	}
	step("nothing is pending", nil, 0)
	cache.open["p"], cache.open["q"] = []stock.Reservation{row(1, "p", stock.Pending, "")}, []stock.Reservation{row(2, "q", stock.Pending, "")}
	away = errAway
	step("Kafka is away", errAway, 1)
	away = nil
	step("the event of p may be among four that wait", nil, 2, 2)
	lags["p"] = events.PartitionLag{Committed: 7, End: 9}
	step("those are handled", nil, 3, 2, 1)
	step("both were published just now", nil, 3, 2, 1)
}

// fakeShelf is Redis with a ledger behind it, as sets of product IDs.
type fakeShelf struct {
	mu      sync.Mutex
	run     string
	away    error
	loaded  map[string]string // by which load
	loads   int
	loadErr map[string]error
	lost    bool // somebody else always loads first
	did     []string
}

func (s *fakeShelf) RunID(context.Context) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.run, s.away
}

func (s *fakeShelf) Loaded(_ context.Context, ids []string) (map[string]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]string)
	for _, id := range ids {
		if load := s.loaded[id]; load != "" {
			out[id] = load
		}
	}
	return out, s.away
}

func (s *fakeShelf) Configure(_ context.Context, terms stock.Terms) error {
	s.note("configure %s %t", terms.ProductID, terms.OnSale)
	return nil
}

func (s *fakeShelf) Load(_ context.Context, terms stock.Terms) (bool, error) {
	s.note("load %s %t", terms.ProductID, terms.OnSale)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.loadErr[terms.ProductID]; err != nil {
		return false, err
	}
	s.loads++
	s.loaded[terms.ProductID] = fmt.Sprint("load", s.loads)
	return !s.lost, nil
}

func (s *fakeShelf) Heal(_ context.Context, productID string, within time.Duration) (stock.Applied, error) {
	s.note("heal %s %v", productID, within)
	return stock.Applied{Changed: 1, Adopted: 2, Tombstones: 3}, nil
}

func (s *fakeShelf) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.did = append(s.did, fmt.Sprintf(format, args...))
}

// took returns what was done since the last call, sorted.
func (s *fakeShelf) took() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	did := s.did
	s.did = nil
	slices.Sort(did)
	return did
}

// world is what a Healer sees.
type world struct {
	*fakeShelf
	*fakeCatalogue
}

// change does something to the world between two rounds.
func (w world) change(do func(world)) {
	w.fakeShelf.mu.Lock()
	defer w.fakeShelf.mu.Unlock()
	w.fakeCatalogue.mu.Lock()
	defer w.fakeCatalogue.mu.Unlock()
	do(w)
}

func TestHealer(t *testing.T) {
	type act struct {
		after time.Duration // time that passes before
		do    func(world)
		want  []string
		why   string
		long  bool // that time is so long that terms are set meanwhile
	}
	nothing := func(world) {}
	// All intervals below avoid the fixed setting of terms every 10 s, unless it is meant.
	tests := []struct {
		name   string
		state  catalog.ActivityState
		loaded []string
		acts   []act
	}{
		{"publish", catalog.Online, nil, []act{
			{0, nothing, []string{"load p true"}, "the warm-up: loaded as soon as it is listed", false},
			{time.Second, nothing, []string{"configure p true", "heal p 0s"}, "what a load has put there may be old, terms too", false},
			{4 * time.Second, nothing, nil, "then there is nothing to do", false},
			{5 * time.Second, nothing, []string{"configure p true"}, "the terms are set every 10 s: Redis may have been away when an operator changed them", false},
			{time.Second, func(w world) { w.state = catalog.Paused }, []string{"configure p false"}, "a pause reaches Redis at the next round", false},
			{time.Second, func(w world) { w.state = catalog.Online }, []string{"configure p true"}, "so does its end", false},
			{time.Second, func(w world) { w.products[0].SoldOut = true }, []string{"configure p false"}, "the source channel has none left", false},
			{time.Second, func(w world) { w.products = nil }, nil, "no longer listed", false},
		}},
		{"restart of the worker", catalog.Online, []string{"p"}, []act{
			{0, nothing, []string{"configure p true", "heal p 0s"}, "nobody knows since when no healer has run: all of it", false},
			{5 * time.Second, nothing, nil, "once is enough", false},
		}},
		{"not online", catalog.Paused, nil, []act{
			{0, nothing, nil, "a paused product may stay out of Redis", false},
			{time.Second, func(w world) { w.state = catalog.Online }, []string{"load p true"}, "until it sells again", false},
		}},
		{"restart of Redis", catalog.Online, []string{"p"}, []act{
			{0, nothing, []string{"configure p true", "heal p 0s"}, "the start", false},
			{
				20*time.Minute + 5*time.Second, func(w world) { w.run = "b" },
				[]string{"configure p true", "heal p 10m1s"},
				"the tail is lost; what changed up to 10 minutes before Redis was last seen, 1 s ago", true,
			},
			{time.Second, nothing, []string{"heal p 0s"}, "then the rest: Redis may have been told of an older row just before it forgot", false},
			{time.Second, nothing, nil, "once is enough", false},
			{
				time.Minute + time.Second, func(w world) { w.run = "c" },
				[]string{"configure p true", "heal p 10m1s"},
				"again what is likely to be lost first", true,
			},
			{time.Second, nothing, []string{"heal p 0s"}, "the healing may be among what is lost now, and its rows may be older than 10 minutes", false},
		}},
		{"restart of Redis soon after the worker's", catalog.Online, []string{"p"}, []act{
			{0, nothing, []string{"configure p true", "heal p 0s"}, "the start", false},
			{2 * time.Second, func(w world) { w.run = "b" }, []string{"configure p true", "heal p 10m1s"}, "what is likely to be lost", false},
			{time.Second, func(w world) { w.run = "c" }, []string{"configure p true", "heal p 10m1s"}, "the same in a crash loop, each time", false},
			{time.Second, nothing, []string{"heal p 0s"}, "all that the start has healed may be lost again", false},
		}},
		{"restart of an empty Redis", catalog.Online, []string{"p"}, []act{
			{0, nothing, []string{"configure p true", "heal p 0s"}, "the start", false},
			{2 * time.Second, func(w world) { w.run = "b"; w.loaded["p"] = "" }, []string{"load p true"}, "all is lost: from the ledger, and Load heals", false},
		}},
		{"lost key", catalog.Online, []string{"p"}, []act{
			{0, nothing, []string{"configure p true", "heal p 0s"}, "the start", false},
			{2 * time.Second, func(w world) { w.loaded["p"] = "" }, []string{"load p true"}, "DEL or eviction of one product", false},
		}},
		{"lost and loaded between two rounds", catalog.Online, []string{"p"}, []act{
			{0, nothing, []string{"configure p true", "heal p 0s"}, "the start", false},
			{2 * time.Second, func(w world) { w.loaded["p"] = "another" }, []string{"configure p true", "heal p 0s"}, "by an operator, who may have lost the lock and then died", false},
			{time.Second, nothing, nil, "once is enough", false},
		}},
		{"another copy loads", catalog.Online, nil, []act{
			{0, func(w world) { w.lost = true }, []string{"load p true"}, "Load finds it there, and has healed it all the same", false},
			{time.Second, nothing, []string{"configure p true", "heal p 0s"}, "the other copy may have known other terms", false},
		}},
		{"another copy has loaded", catalog.Paused, nil, []act{
			{0, nothing, nil, "paused, so not loaded", false},
			{
				time.Second, func(w world) { w.state = catalog.Online; w.loaded["p"] = "another" },
				[]string{"configure p true", "heal p 0s"},
				"it is there all at once: the other copy may have died between loading and healing", false,
			},
		}},
		{"short absence", catalog.Online, []string{"p"}, []act{
			{0, nothing, []string{"configure p true", "heal p 0s"}, "the start", false},
			{time.Second, func(w world) { w.away = errAway }, nil, "Redis does not answer", false},
			{7 * time.Second, func(w world) { w.away = nil }, nil, "the same Redis after 7 s: workers have waited", false},
		}},
		{"long absence", catalog.Online, []string{"p"}, []act{
			{0, nothing, []string{"configure p true", "heal p 0s"}, "the start", false},
			{20*time.Minute + time.Second, func(w world) { w.away = errAway }, nil, "Redis does not answer", true},
			{time.Minute, func(w world) { w.away = nil }, []string{"configure p true", "heal p 11m1s"}, "a minute: healed from 10 minutes before it", false},
			{time.Second, nothing, []string{"heal p 0s"}, "then the rest", false},
		}},
		{"MySQL away meanwhile", catalog.Online, []string{"p"}, []act{
			{0, nothing, []string{"configure p true", "heal p 0s"}, "the start", false},
			{20*time.Minute + time.Second, func(w world) { w.err = errAway; w.run = "b" }, nil, "Redis restarts while the catalogue cannot be read", true},
			{29 * time.Minute, func(w world) { w.err = nil }, []string{"configure p true", "heal p 39m1s"}, "the debt is kept, counted from when Redis was last seen well", false},
			{time.Second, nothing, []string{"heal p 0s"}, "then the rest", false},
		}},
		{"one fails", catalog.Online, nil, []act{
			{0, func(w world) { w.products = append(w.products, product("q")); w.loadErr["p"] = errAway }, []string{"load p true", "load q true"}, "p's trouble is not q's", false},
			{time.Second, func(w world) { delete(w.loadErr, "p") }, []string{"configure q true", "heal q 0s", "load p true"}, "tried again at the next round", false},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := world{
					&fakeShelf{run: "a", loaded: make(map[string]string), loadErr: make(map[string]error)},
					&fakeCatalogue{state: tt.state, products: []catalog.Product{product("p")}},
				}
				for _, p := range tt.loaded {
					w.fakeShelf.loaded[p] = "before"
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				done := make(chan error, 1)
				for i, a := range tt.acts {
					time.Sleep(a.after - min(a.after, time.Millisecond)) // just before a round
					synctest.Wait()
					if i > 0 {
						if did := w.took(); len(did) > 0 && !a.long {
							t.Fatalf("act %d: did %q before it", i, did)
						}
					}
					w.change(a.do)
					if i == 0 {
						h := stockworker.NewHealer(w.fakeCatalogue, w.fakeShelf, stockworker.HealerConfig{Now: time.Now})
						go func() { done <- h.Run(ctx) }()
					}
					time.Sleep(min(a.after, time.Millisecond))
					synctest.Wait()
					if diff := cmp.Diff(tt.acts[i].want, w.took()); diff != "" {
						t.Errorf("act %d (-want +got): %s\n%s", i, a.why, diff)
					}
				}
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// metric is the sum of a counter over its labels.
func metric(t *testing.T, reg prometheus.Gatherer, name string) (sum float64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}
