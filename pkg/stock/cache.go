package stock

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
)

// ErrBusy is returned when the queue to Redis is full or the cache is closed.
// Nothing has changed and nothing was sent; the same call may be made later.
var ErrBusy = errors.New("busy")

// ErrInUse is returned when a product cannot be taken out of Redis because it
// is on sale or has open reservations. Nothing has changed.
var ErrInUse = errors.New("in use")

// CacheConfig says how a [Cache] works. The zero value is a good one.
type CacheConfig struct {
	Prefix     string                // before every key, without braces; default "seckill". One per deployment
	Workers    int                   // callers of the reserve script per Redis server; default 2: one reads replies while the other writes, when many wait
	MaxBatch   int                   // most reservations in one script call, never over the constant MaxBatch; default 256: larger ones delay everybody else on that server
	QueueSize  int                   // reservations that may wait per Redis server; default 16384. More wait longer before they are turned away
	Registerer prometheus.Registerer // of the metrics; default none. Caches with the same one share their metrics
	Now        func() time.Time      // the clock that times scripts for the metrics; default none, then they are not timed. It decides nothing
}

// withDefaults fills in what is not set.
func (cfg CacheConfig) withDefaults() CacheConfig {
	set := func(n *int, standard int) {
		if *n <= 0 {
			*n = standard
		}
	}
	if cfg.Prefix == "" {
		cfg.Prefix = "seckill"
	}
	set(&cfg.Workers, 2)
	set(&cfg.MaxBatch, 256)
	set(&cfg.QueueSize, 16384)
	cfg.MaxBatch = min(cfg.MaxBatch, MaxBatch)
	return cfg
}

// Cache is the hot count: it admits buyers, in Redis. It may lose all that it
// holds without harm, because the [Ledger] decides.
//
// All methods may be called from many goroutines at once.
type Cache struct {
	client  redis.UniversalClient
	cfg     CacheConfig
	keys    keys
	scripts scripts
	metrics *metrics
	idle    sync.Pool // of *waiting

	mu         sync.RWMutex          // held for reading while something is put into a queue
	coalescers map[string]*coalescer // by the address of a Redis server, "" without a cluster
	closed     bool
}

// NewCache returns a cache on client, which stays the caller's: close the
// cache, then the client. A [redis.ClusterClient] gets a queue and workers for
// every master, any other client one of each. Nothing is dialled yet.
func NewCache(client redis.UniversalClient, cfg CacheConfig) *Cache {
	cfg = cfg.withDefaults()
	m := newMetrics(cfg.Registerer)
	return &Cache{
		client:     client,
		cfg:        cfg,
		keys:       keys{prefix: cfg.Prefix},
		scripts:    newScripts(m),
		metrics:    m,
		idle:       sync.Pool{New: func() any { return &waiting{done: make(chan struct{}, 1)} }},
		coalescers: map[string]*coalescer{},
	}
}

// Close turns new reservations away with [ErrBusy], waits for those that are
// queued and ends the workers. The other methods go on working.
func (c *Cache) Close() {
	c.mu.Lock()
	already := c.closed
	c.closed = true
	if !already {
		for _, q := range c.coalescers {
			q.close()
		}
	}
	c.mu.Unlock()
	for _, q := range c.coalescers {
		q.workers.Wait()
	}
}

// Reserve takes r.Quantity units of r.ProductID for r.UserID under r.ID. Only
// the identity fields and the quantity of r are read. The answer has r's
// identity, State [Pending] and At by Redis's clock.
//
// An ID that Redis knows already gets the answer on record instead, and replayed
// is true: State is then [Pending], [Deducted] or [RolledBack]. That holds after
// the sale has ended, too. A call that go-redis repeated by itself, because a
// connection broke, may find its own reservation so.
//
// Errors:
//   - a [Refusal]: nothing has changed. [IDReused] when the ID is known with
//     another quantity, even if that one is refused for other reasons, too;
//   - [ErrBusy], at once: nothing was sent;
//   - [ErrUnknown]: the units may have been taken. The connection broke, Redis
//     answered with an error, or ctx ended while the request was on its way;
//   - else r is not valid (see [Reservation.Validate]), ctx had ended before the
//     call, or the cluster cannot say which server holds the product: nothing
//     was sent.
//
// Repeating the call is harmless in every case.
func (c *Cache) Reserve(ctx context.Context, r Reservation) (got Reservation, replayed bool, err error) {
	if err := r.Validate(); err != nil {
		return Reservation{}, false, fmt.Errorf("reserve: %w", err)
	}
	w := c.idle.Get().(*waiting)
	w.r, w.field, w.quantity = r, userPrefix+r.UserID, strconv.FormatInt(r.Quantity, 10)
	if err := c.enqueue(ctx, w); err != nil {
		return Reservation{}, false, fmt.Errorf("reserve %s: %w", r.ID, err)
	}
	select {
	case <-w.done:
	case <-ctx.Done():
		// The worker still owns w, which is why it is not put back.
		c.metrics.unknown.Inc()
		return Reservation{}, false, fmt.Errorf("reserve %s: %w: %w", r.ID, ErrUnknown, context.Cause(ctx))
	}
	got, replayed, err = w.result(c.metrics)
	w.r, w.row, w.err = Reservation{}, "", nil
	c.idle.Put(w)
	return got, replayed, err
}

// enqueue hands w to the workers of the server that holds its product.
func (c *Cache) enqueue(ctx context.Context, w *waiting) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	address := ""
	if cluster, ok := c.client.(*redis.ClusterClient); ok {
		// go-redis keeps the map of the cluster itself. The address only says
		// who travels together: the pipeline still follows redirections.
		master, err := cluster.MasterForKey(ctx, c.keys.product(w.r.ProductID))
		if err != nil {
			return err
		}
		address = master.Options().Addr
	}
	for {
		c.mu.RLock()
		if q, ok := c.coalescers[address]; ok || c.closed {
			taken := !c.closed && q.offer(w)
			c.mu.RUnlock()
			if !taken {
				c.metrics.busy.Inc()
				return ErrBusy
			}
			return nil
		}
		c.mu.RUnlock()
		c.addCoalescer(address)
	}
}

// addCoalescer starts the workers for one more server, if nobody else has.
func (c *Cache) addCoalescer(address string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.coalescers[address] == nil && !c.closed {
		c.coalescers[address] = newCoalescer(c)
	}
}

// Find returns the reservation of one buyer by its ID, with the state that Redis has.
//
// It returns [NotLoaded] when the product is not in Redis, [ErrNotFound] when
// the buyer has no such reservation there, else a fault. Nothing changes.
func (c *Cache) Find(ctx context.Context, productID, userID, id string) (Reservation, error) {
	wanted := Reservation{ID: id, ProductID: productID, UserID: userID, Quantity: 1}
	if err := wanted.Validate(); err != nil {
		return Reservation{}, fmt.Errorf("find: %w", err)
	}
	rs, err := c.OfUser(ctx, productID, userID)
	if err != nil {
		return Reservation{}, err
	}
	for _, r := range rs {
		if r.ID == id {
			return r, nil
		}
	}
	return Reservation{}, fmt.Errorf("find %s: %w", id, ErrNotFound)
}

// OfUser returns all that Redis has of one buyer of a product, about 32
// reservations at most, in the order in which they came; none for an unknown
// buyer.
//
// It returns [NotLoaded] when the product is not in Redis, else a fault.
// Nothing changes.
func (c *Cache) OfUser(ctx context.Context, productID, userID string) ([]Reservation, error) {
	values, err := c.client.HMGet(ctx, c.keys.product(productID), surplusField, userPrefix+userID).Result()
	if err != nil {
		return nil, fmt.Errorf("reservations of %s: %w", userID, err)
	}
	if values[0] == nil {
		return nil, NotLoaded
	}
	value, ok := values[1].(string)
	if !ok {
		return nil, nil
	}
	_, rs, err := readField(productID, userID, value)
	if err != nil {
		return nil, fmt.Errorf("reservations of %s: %w", userID, err)
	}
	return rs, nil
}

// Ping reports whether Redis answers; in a cluster, whether one server does.
func (c *Cache) Ping(ctx context.Context) error {
	if err := c.client.Ping(ctx).Err(); err != nil {
		return fmt.Errorf("ping Redis: %w", err)
	}
	return nil
}
