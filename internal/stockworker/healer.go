package stockworker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/leadingpeers/seckill/internal/loop"
	"github.com/leadingpeers/seckill/pkg/catalog"
	"github.com/leadingpeers/seckill/pkg/stock"
)

// Shelf is Redis as the Healer sees it, with the ledger behind it. [NewShelf]
// makes the real one.
type Shelf interface {
	// RunID changes when Redis has restarted or failed over.
	RunID(ctx context.Context) (string, error)
	// Loaded says by which load each of the products came into Redis; one that is not there is missing.
	Loaded(ctx context.Context, productIDs []string) (map[string]string, error)
	// Configure sets what a product in Redis is sold under.
	Configure(ctx context.Context, terms stock.Terms) error
	// Load puts a product into Redis from the ledger, unless it is there, and heals it.
	Load(ctx context.Context, terms stock.Terms) (loaded bool, err error)
	// Heal applies the rows that the ledger changed within the duration; 0 = all rows.
	Heal(ctx context.Context, productID string, within time.Duration) (stock.Applied, error)
}

// CacheShelf is the [Shelf] and the [AuditShelf] of a cache and a ledger.
type CacheShelf struct {
	*stock.Cache
	ledger *stock.Ledger
}

// NewShelf returns the shelf of a cache and a ledger.
func NewShelf(cache *stock.Cache, ledger *stock.Ledger) CacheShelf { return CacheShelf{cache, ledger} }

// Load puts a product into Redis: see [stock.Load].
func (s CacheShelf) Load(ctx context.Context, terms stock.Terms) (bool, error) {
	return stock.Load(ctx, s.Cache, s.ledger, terms)
}

// Heal tells Redis what the ledger has: see [stock.Heal].
func (s CacheShelf) Heal(ctx context.Context, productID string, within time.Duration) (stock.Applied, error) {
	return stock.Heal(ctx, s.Cache, s.ledger, productID, within)
}

// HealerConfig says when the Healer acts. The zero value is good, but for Now.
type HealerConfig struct {
	Every          time.Duration         // pause between two rounds; default 1 s
	ConfigureEvery time.Duration         // how often the terms in Redis are set again although nothing is known to have changed; default 10 s
	AwayAfter      time.Duration         // an absence of Redis that calls for healing; default 60 s
	Margin         time.Duration         // what the ledger changed this long before Redis was last seen well is healed first; default 10 min
	Timeout        time.Duration         // longest that loading or healing one product may take; default 60 s
	Parallel       int                   // products worked on at once; default 4. 1 = one after the other, on the goroutine of the step
	Now            func() time.Time      // clock for intervals; required
	Log            *slog.Logger          // default: none
	Registerer     prometheus.Registerer // of seckill_loaded_total, seckill_healed_total and the loop's metrics; nil = none
}

// Healer keeps Redis a function of the ledger and of the catalogue, for every
// product that is listed as on sale:
//
//   - a product of an online activity that is not in Redis is loaded. This is
//     also the warm-up: it happens as soon as the activity is published.
//   - a product whose history in Redis the Healer does not know to be whole is
//     healed. It is in doubt at the Healer's start and when the product was
//     loaded anew, by whomever, because a load may have lost its lock; also
//     after a restart or failover of Redis and after an absence: what changed
//     since Redis was last seen well, with a margin, is healed first then, and in
//     the next round all of it, because a worker may have told Redis of an old
//     row just before Redis forgot it.
//   - the terms (on sale or not, window, limits) are set in Redis when they have
//     changed in the catalogue, and every ConfigureEvery in any case, because an
//     operator's change may have found Redis away.
//
// Each of these is safe at any time, so several copies side by side do no harm.
// What fails is tried again in the next round.
type Healer struct {
	catalogue Catalogue
	shelf     Shelf
	cfg       HealerConfig
	loop      *loop.Loop
	loaded    prometheus.Counter
	healed    *prometheus.CounterVec

	runID      string    // of Redis when last seen
	seen       time.Time // when Redis was last seen well
	away       bool      // Redis did not answer in the last round
	configured time.Time // when all terms were last set

	products map[string]*memory // a round's goroutines each touch one of them
}

// memory is what the Healer knows of a product. Its zero value is a product
// whose whole history is in doubt.
type memory struct {
	whole bool        // Redis agrees with the ledger, as far as is known
	since time.Time   // what changed from here on is healed before the rest; zero = nothing is
	load  string      // by which the product came into Redis, as last seen
	terms stock.Terms // as last set in Redis
}

// NewHealer returns a Healer that is not running yet.
func NewHealer(catalogue Catalogue, shelf Shelf, cfg HealerConfig) *Healer {
	cfg.ConfigureEvery = cmp.Or(cfg.ConfigureEvery, 10*time.Second)
	cfg.AwayAfter = cmp.Or(cfg.AwayAfter, time.Minute)
	cfg.Margin = cmp.Or(cfg.Margin, 10*time.Minute)
	cfg.Timeout = cmp.Or(cfg.Timeout, time.Minute)
	cfg.Parallel = cmp.Or(cfg.Parallel, inParallel)
	cfg.Log = cmp.Or(cfg.Log, slog.New(slog.DiscardHandler))
	h := &Healer{
		catalogue: catalogue, shelf: shelf, cfg: cfg, products: make(map[string]*memory),
		// The time-out is on each product, not on a round of perhaps thousands.
		loop: loop.New(loop.Config{Name: "healer", Every: cfg.Every, Timeout: -1, Log: cfg.Log, Registerer: cfg.Registerer}),
		loaded: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "seckill_loaded_total",
			Help: "Products loaded into Redis from the ledger.",
		}),
		healed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "seckill_healed_total",
			Help: "Reservations that Redis had differently from the ledger when it was healed, by result (changed, adopted, tombstone).",
		}, []string{"result"}),
	}
	register(cfg.Registerer, h.loaded, h.healed)
	for _, result := range []string{"changed", "adopted", "tombstone"} {
		h.healed.WithLabelValues(result) // increase() does not see the step from nothing to the first one
	}
	return h
}

// Run heals until ctx ends, and then returns nil.
func (h *Healer) Run(ctx context.Context) error { return h.loop.Run(ctx, h.Step) }

// Step goes once over all products; it never has more to do. Run calls it; by
// itself it is for tests and for operators. It must not run beside itself.
func (h *Healer) Step(ctx context.Context) (more bool, err error) {
	// Before MySQL is asked: an outage of one must not hide the other's restart.
	if err := h.watch(ctx); err != nil {
		return false, err
	}
	listings, err := h.catalogue.OnSale(ctx)
	if err != nil {
		return false, fmt.Errorf("list what is on sale: %w", err)
	}
	wares := h.remember(listings)
	ids := make([]string, len(wares))
	for i, w := range wares {
		ids[i] = w.terms.ProductID
	}
	loaded, err := h.shelf.Loaded(ctx, ids)
	if err != nil {
		return false, fmt.Errorf("look for %d products in Redis: %w", len(ids), err)
	}
	all := h.cfg.Now().Sub(h.configured) >= h.cfg.ConfigureEvery
	errs := make([]error, len(wares))
	each(len(wares), h.cfg.Parallel, func(i int) { errs[i] = h.tend(ctx, wares[i], loaded[wares[i].terms.ProductID], all) })
	if all {
		h.configured = h.cfg.Now()
	}
	return false, firstOf(errs)
}

// watch asks Redis who it is, and puts every product in doubt when it is
// another than before or has been away for long.
func (h *Healer) watch(ctx context.Context) error {
	now := h.cfg.Now() // before the question: a process may be paused between the answer and the next line
	id, err := h.shelf.RunID(ctx)
	if err != nil {
		h.away = true
		return fmt.Errorf("ask Redis for its run ID: %w", err)
	}
	gap := now.Sub(h.seen)
	switch {
	case h.runID == "":
		// The first round: everything is in doubt already.
	case id != h.runID:
		h.cfg.Log.Warn("Redis has restarted or failed over, healing", "last_seen_well", h.seen)
		h.doubt(h.seen)
	case h.away && gap >= h.cfg.AwayAfter:
		h.cfg.Log.Warn("Redis is back after an absence, healing", "absent", gap)
		h.doubt(h.seen)
	}
	h.runID, h.seen, h.away = id, now, false
	return nil
}

// doubt notes that Redis may have lost what it was told around and after seen,
// of any row: most of them have changed since then, the rest may be of any age.
func (h *Healer) doubt(seen time.Time) {
	for _, m := range h.products {
		m.doubt(seen.Add(-h.cfg.Margin))
	}
}

func (m *memory) doubt(from time.Time) { *m = memory{since: from, load: m.load} }

// ware is a product of the current listing.
type ware struct {
	terms  stock.Terms
	online bool // it belongs into Redis
	memory *memory
}

// remember pairs the listing with what is known of its products and forgets
// the others.
func (h *Healer) remember(listings []catalog.Listing) []ware {
	var wares []ware
	products := make(map[string]*memory)
	for _, l := range listings {
		for _, p := range l.Products {
			m := cmp.Or(h.products[p.ID], new(memory))
			products[p.ID] = m
			wares = append(wares, ware{terms(l.Activity, p), l.Activity.State == catalog.Online, m})
		}
	}
	h.products = products
	return wares
}

// terms are the part of the catalogue that Redis checks.
func terms(a catalog.Activity, p catalog.Product) stock.Terms {
	return stock.Terms{
		ProductID: p.ID,
		PerOrder:  p.PerOrder,
		PerUser:   p.PerUser,
		OnSale:    a.State == catalog.Online && !p.SoldOut,
		StartsAt:  a.StartsAt,
		EndsAt:    a.EndsAt,
		Total:     p.Total,
		Restocks:  p.Restocks,
	}
}

// tend does for one product what it needs.
func (h *Healer) tend(ctx context.Context, w ware, load string, configure bool) error {
	ctx, cancel := context.WithTimeout(ctx, h.cfg.Timeout)
	defer cancel()
	if load != w.memory.load { // what a load has put there may be an old state of the ledger
		*w.memory = memory{load: load}
	}
	if load == "" {
		if !w.online {
			return nil
		}
		return h.load(ctx, w)
	}
	if configure || w.terms != w.memory.terms {
		err := h.shelf.Configure(ctx, w.terms)
		if errors.Is(err, stock.NotLoaded) {
			return nil // it has vanished just now; the next round loads it
		}
		if err != nil {
			return fmt.Errorf("configure %s: %w", w.terms.ProductID, err)
		}
		w.memory.terms = w.terms
	}
	if !w.memory.whole {
		return h.heal(ctx, w)
	}
	return nil
}

func (h *Healer) load(ctx context.Context, w ware) error {
	loaded, err := h.shelf.Load(ctx, w.terms)
	if err != nil {
		return fmt.Errorf("load %s: %w", w.terms.ProductID, err)
	}
	if loaded { // else another copy was faster
		h.loaded.Inc()
		h.cfg.Log.Info("loaded a product into Redis", "product", w.terms.ProductID, "on_sale", w.terms.OnSale)
	}
	return nil
}

func (h *Healer) heal(ctx context.Context, w ware) error {
	var within time.Duration // all
	all := w.memory.since.IsZero()
	if !all {
		within = h.cfg.Now().Sub(w.memory.since)
	}
	got, err := h.shelf.Heal(ctx, w.terms.ProductID, within)
	h.healed.WithLabelValues("changed").Add(float64(got.Changed))
	h.healed.WithLabelValues("adopted").Add(float64(got.Adopted))
	h.healed.WithLabelValues("tombstone").Add(float64(got.Tombstones))
	if err != nil {
		return fmt.Errorf("heal %s: %w", w.terms.ProductID, err)
	}
	if got.NotLoaded > 0 {
		return nil // it has vanished meanwhile; the next round loads it
	}
	w.memory.whole, w.memory.since = all, time.Time{}
	if got.Changed+got.Adopted+got.Tombstones > 0 {
		h.cfg.Log.Info("healed a product in Redis", "product", w.terms.ProductID,
			"changed", got.Changed, "adopted", got.Adopted, "tombstones", got.Tombstones)
	}
	return nil
}

// firstOf sums up the errors of many products in one line.
func firstOf(errs []error) error {
	var first error
	n := 0
	for _, err := range errs {
		if err != nil {
			if n++; n == 1 {
				first = err
			}
		}
	}
	if n < 2 {
		return first
	}
	return fmt.Errorf("%d of %d products, the first: %w", n, len(errs), first)
}
