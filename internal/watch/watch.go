// Package watch measures the books of what is on sale, so that dashboards show
// them and alerts see a difference while the sale runs. It only reads, and
// decides nothing: internal/ops says which reservation a difference is about.
package watch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/leadingpeers/seckill/internal/loop"
	"github.com/leadingpeers/seckill/pkg/catalog"
	"github.com/leadingpeers/seckill/pkg/order"
	"github.com/leadingpeers/seckill/pkg/stock"
)

// Catalogue lists what is or was lately on sale. *catalog.Store is one.
type Catalogue interface {
	OnSale(ctx context.Context) ([]catalog.Listing, error)
}

// Cache is the hot count. *stock.Cache is one.
type Cache interface {
	Waiting(ctx context.Context, productID string) (stock.Waiting, error)
}

// Ledger is the count to believe. *stock.Ledger is one.
type Ledger interface {
	Stock(ctx context.Context, productID string) (stock.Stock, error)
}

// Orders knows what was bought. *order.Store is one.
type Orders interface {
	Counts(ctx context.Context, productID string) (order.Counts, error)
}

// Stores are where the three accounts of the units are kept.
type Stores struct {
	Catalogue Catalogue
	Cache     Cache
	Ledger    Ledger
	Orders    Orders
}

// Config says how often and how much is measured. The zero value is good, but
// for Now.
type Config struct {
	Every      time.Duration         // pause between two rounds; default 10 s. A round that took long makes it 20 times as long as the round
	Products   int                   // most products measured, so that the number of series is bounded; the others are counted as left out; default 500
	Now        func() time.Time      // clock of the measurement; required
	Log        *slog.Logger          // default: none
	Registerer prometheus.Registerer // of seckill_books_* and the loop's metrics; nil = none
}

// looks is how often a product is read whose stores disagree: what is between
// two of them right now is no difference, and is gone at the next look.
const (
	looks = 5
	pause = 100 * time.Millisecond
)

// Watch measures the books. Several copies measure the same.
type Watch struct {
	stores Stores
	cfg    Config
	loop   *loop.Loop
	next   time.Time // no round before

	mu   sync.Mutex
	seen round
}

// round is what one round has measured.
type round struct {
	at      time.Time // zero before the first
	books   []book
	leftOut int
}

// book is one product in all stores.
type book struct {
	activity, product string
	online            bool // it belongs into Redis
	loaded            bool
	cache             stock.Waiting
	ledger            stock.Stock
	orders            order.Counts
}

// drift is by how many units Redis differs from the ledger.
func (b book) drift() int64 { return b.cache.Surplus + b.cache.Units - b.ledger.Available }

// New returns a Watch that is not running yet.
func New(stores Stores, cfg Config) *Watch {
	cfg.Every = cmp.Or(cfg.Every, 10*time.Second)
	cfg.Products = cmp.Or(cfg.Products, 500)
	w := &Watch{stores: stores, cfg: cfg, loop: loop.New(loop.Config{
		Name: "books", Every: min(cfg.Every, time.Second), Timeout: time.Minute, Log: cfg.Log, Registerer: cfg.Registerer,
	})}
	if cfg.Registerer != nil {
		cfg.Registerer.MustRegister(w)
	}
	return w
}

// Run measures until ctx ends, and then returns nil.
func (w *Watch) Run(ctx context.Context) error { return w.loop.Run(ctx, w.Step) }

// Step measures once, unless it is too early; it never has more to do. When a
// store does not answer, the figures of the round before stay, and their age
// says so. Run calls it; by itself it is for tests.
func (w *Watch) Step(ctx context.Context) (more bool, err error) {
	began := w.cfg.Now()
	if began.Before(w.next) {
		return false, nil
	}
	listings, err := w.stores.Catalogue.OnSale(ctx)
	if err != nil {
		return false, fmt.Errorf("list what is on sale: %w", err)
	}
	got := round{at: began}
	for _, l := range listings {
		for _, p := range l.Products {
			if len(got.books) == w.cfg.Products {
				got.leftOut++
				continue
			}
			b, err := w.read(ctx, p)
			b.online = l.Activity.State == catalog.Online
			if errors.Is(err, stock.ErrNotFound) {
				continue // it has no stock row yet
			}
			if err != nil {
				return false, fmt.Errorf("measure the books of %s: %w", p.ID, err)
			}
			got.books = append(got.books, b)
		}
	}
	took := w.cfg.Now().Sub(began)
	w.next = began.Add(max(w.cfg.Every, 20*took))
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = got
	return false, nil
}

// read looks at a product, again while its stores disagree, and keeps the look
// with the smallest difference.
func (w *Watch) read(ctx context.Context, p catalog.Product) (best book, err error) {
	for look := range looks {
		b, err := w.look(ctx, p)
		if err != nil {
			return book{}, err
		}
		if look == 0 || abs(b.drift()) < abs(best.drift()) {
			best = b
		}
		if !best.loaded || best.drift() == 0 {
			break
		}
		select {
		case <-ctx.Done():
			return best, ctx.Err()
		case <-time.After(pause):
		}
	}
	best.orders, err = w.stores.Orders.Counts(ctx, p.ID)
	return best, err
}

func (w *Watch) look(ctx context.Context, p catalog.Product) (b book, err error) {
	b = book{activity: p.ActivityID, product: p.ID}
	b.cache, err = w.stores.Cache.Waiting(ctx, p.ID)
	b.loaded = err == nil
	if err != nil && !errors.Is(err, stock.NotLoaded) {
		return b, err
	}
	b.ledger, err = w.stores.Ledger.Stock(ctx, p.ID)
	return b, err
}

func abs(n int64) int64 { return max(n, -n) }
