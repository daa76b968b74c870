package stockworker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/leadingpeers/seckill/internal/fault"
	"github.com/leadingpeers/seckill/internal/loop"
	"github.com/leadingpeers/seckill/internal/onway"
	"github.com/leadingpeers/seckill/pkg/catalog"
	"github.com/leadingpeers/seckill/pkg/events"
	"github.com/leadingpeers/seckill/pkg/stock"
)

// Catalogue lists what is or was lately on sale. *catalog.Store is one.
type Catalogue interface {
	OnSale(ctx context.Context) ([]catalog.Listing, error)
}

// Reapable returns reservations that have been pending for too long.
// *stock.Cache is one.
type Reapable interface {
	Reap(ctx context.Context, productID string, olderThan time.Duration, limit int) ([]stock.Reservation, error)
}

// Lengths is what a [Reapable] may say beside: how many entries each product's
// open list has. *stock.Cache says it. The Reaper then asks for no more than
// there is, and may ask for more of it.
type Lengths interface {
	Open(ctx context.Context, productIDs []string) (map[string]int, error)
}

// Publisher writes events to Kafka; nil means that all of them are written.
// *events.Publisher is one.
type Publisher interface {
	Publish(ctx context.Context, evs ...events.Event) error
}

// ReaperConfig says how often and how much is reaped. The zero value is good,
// but for the clock.
type ReaperConfig struct {
	Every      time.Duration         // pause between two rounds; default 1 s
	OlderThan  time.Duration         // how long a reservation may be pending, by Redis's clock, before its event is published again; default 5 s
	Repeat     time.Duration         // how long this copy then leaves that reservation alone; default 2 × OlderThan
	Limit      int                   // entries of a product's open list in one call to Redis, and how many reservations found end the round for it; default 200
	Calls      int                   // most calls for one product in one round: Limit × Calls is how many settled entries can be dropped from its list; default 50, or 10 for a cache that does not tell the lists' Lengths
	Parallel   int                   // products worked on at once; default 4. 1 = one after the other, on the goroutine of the step
	Queue      onway.Queue           // of the group deduct on the topic reservations, by product; nil = what is pending for too long is taken to be on no way any more
	Now        func() time.Time      // clock for Repeat; required
	Log        *slog.Logger          // default: none
	Registerer prometheus.Registerer // of seckill_reaped_total and the loop's metrics; nil = none
}

// Reaper publishes the event of every reservation again that stays pending in
// Redis and is not on its way any more: the gateway died between Redis and Kafka,
// or Kafka lost the event. Several copies side by side are harmless, and so is an
// event too many; the handler Deduct sorts it out.
//
// While the worker is behind, or reads the topic once more from its start, what is
// pending is mostly still in the topic, and more of the same would go behind it and
// only hold it up: see [onway.Marks].
type Reaper struct {
	catalogue Catalogue
	cache     Reapable
	publisher Publisher
	cfg       ReaperConfig
	loop      *loop.Loop
	reaped    prometheus.Counter

	marks *onway.Marks // of reservations that stay pending
}

// NewReaper returns a Reaper that is not running yet.
func NewReaper(catalogue Catalogue, cache Reapable, publisher Publisher, cfg ReaperConfig) *Reaper {
	cfg.OlderThan = cmp.Or(cfg.OlderThan, 5*time.Second)
	cfg.Repeat = cmp.Or(cfg.Repeat, 2*cfg.OlderThan)
	cfg.Limit = cmp.Or(cfg.Limit, 200)
	if _, tells := cache.(Lengths); tells {
		cfg.Calls = cmp.Or(cfg.Calls, 50)
	}
	cfg.Calls = cmp.Or(cfg.Calls, 10)
	cfg.Parallel = cmp.Or(cfg.Parallel, inParallel)
	r := &Reaper{
		catalogue: catalogue, cache: cache, publisher: publisher, cfg: cfg, marks: onway.NewMarks(cfg.Repeat, cfg.Now),
		loop: loop.New(loop.Config{Name: "reaper", Every: cfg.Every, Log: cfg.Log, Registerer: cfg.Registerer}),
		reaped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "seckill_reaped_total",
			Help: "Reservations whose event was published again because they stayed pending in Redis.",
		}),
	}
	register(cfg.Registerer, r.reaped)
	return r
}

// Run reaps until ctx ends, and then returns nil.
func (r *Reaper) Run(ctx context.Context) error { return r.loop.Run(ctx, r.Step) }

// Step goes once over all products; it never has more to do. A product that
// cannot be reaped does not keep the others from it. Run calls it; by itself it
// is for tests and for operators.
func (r *Reaper) Step(ctx context.Context) (more bool, err error) {
	if fault.Off(fault.Reaper) {
		return false, nil
	}
	listings, err := r.catalogue.OnSale(ctx)
	if err != nil {
		return false, fmt.Errorf("list what is on sale: %w", err)
	}
	var products []catalog.Product
	for _, l := range listings {
		products = append(products, l.Products...)
	}
	r.marks.Forget()
	calls, err := r.calls(ctx, products)
	if err != nil {
		return false, err
	}
	queue := r.cfg.Queue.Once(ctx)
	errs := make([]error, len(products))
	each(len(products), r.cfg.Parallel, func(i int) { errs[i] = r.reap(ctx, products[i], calls(products[i].ID), queue) })
	return false, firstOf(errs)
}

// calls says how many calls a product is worth: none when nothing is open, as
// for most products at most times.
func (r *Reaper) calls(ctx context.Context, products []catalog.Product) (func(productID string) int, error) {
	cache, tells := r.cache.(Lengths)
	if !tells {
		return func(string) int { return r.cfg.Calls }, nil
	}
	ids := make([]string, len(products))
	for i, p := range products {
		ids[i] = p.ID
	}
	open, err := cache.Open(ctx, ids)
	if err != nil {
		return nil, fmt.Errorf("ask for the lengths of %d open lists: %w", len(ids), err)
	}
	return func(id string) int { return min(r.cfg.Calls, (open[id]+r.cfg.Limit-1)/r.cfg.Limit) }, nil
}

// reap publishes again what is pending for too long of one product.
func (r *Reaper) reap(ctx context.Context, p catalog.Product, calls int, queue func() (onway.Of, error)) error {
	pending, err := r.find(ctx, p.ID, calls)
	if err != nil {
		return fmt.Errorf("reap %s: %w", p.ID, err)
	}
	pending = slices.DeleteFunc(pending, func(row stock.Reservation) bool { return r.marks.Rests(row.ID) })
	if len(pending) == 0 {
		return nil
	}
	of, err := queue() // after Redis was asked
	if err != nil {
		return fmt.Errorf("reap %s: how far its events are handled: %w", p.ID, err)
	}
	lag := of(p.ID)
	pending = slices.DeleteFunc(pending, func(row stock.Reservation) bool { return !r.marks.Passed(row.ID, lag) })
	if len(pending) == 0 {
		return nil
	}
	evs := make([]events.Event, len(pending))
	for i, row := range pending {
		evs[i] = events.Event{
			Type:          events.ReservationCreated,
			Time:          row.At,
			ReservationID: row.ID,
			ActivityID:    p.ActivityID,
			ProductID:     row.ProductID,
			UserID:        row.UserID,
			Quantity:      row.Quantity,
		}
	}
	fault.Point(fault.AfterReap)
	if err := r.publisher.Publish(ctx, evs...); err != nil {
		return fmt.Errorf("publish %d reservations of %s again: %w", len(evs), p.ID, err)
	}
	r.reaped.Add(float64(len(evs)))
	for _, row := range pending {
		r.marks.Published(row.ID)
	}
	return nil
}

// find asks more than once: in a rush the open list grows by thousands of
// entries a second that are settled at once, and a lost reservation waits behind
// them. It ends when enough are found, or when one comes a second time: Redis
// turns what it returns to the end of the list.
func (r *Reaper) find(ctx context.Context, productID string, calls int) ([]stock.Reservation, error) {
	var found []stock.Reservation
	seen := make(map[string]bool)
	for range calls {
		rows, err := r.cache.Reap(ctx, productID, r.cfg.OlderThan, r.cfg.Limit)
		if errors.Is(err, stock.NotLoaded) {
			return nil, nil // the Healer's concern
		}
		if err != nil {
			return nil, err // what was found is pending still, and comes again
		}
		for _, row := range rows {
			if seen[row.ID] {
				return found, nil
			}
			seen[row.ID] = true
			found = append(found, row)
		}
		if len(found) >= r.cfg.Limit {
			break
		}
	}
	return found, nil
}

func register(to prometheus.Registerer, what ...prometheus.Collector) {
	if to != nil {
		to.MustRegister(what...)
	}
}
