// Package walk has only tests: the handlers and background services of both
// workers on a real Redis and a real MySQL, with a queue in memory in place of
// Kafka, so that each step can be chosen, doubled, reordered, lost or cut short.
package walk

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/leadingpeers/seckill/internal/settleworker"
	"github.com/leadingpeers/seckill/internal/stockworker"
	"github.com/leadingpeers/seckill/internal/testservers"
	"github.com/leadingpeers/seckill/pkg/catalog"
	"github.com/leadingpeers/seckill/pkg/events"
	"github.com/leadingpeers/seckill/pkg/order"
	"github.com/leadingpeers/seckill/pkg/stock"
)

var errCrash = errors.New("the process dies here")

// item is an event in a queue of the world.
type item struct {
	event events.Event
	tried bool // a handler has seen it and not finished
}

// world is one activity with its stores, workers and queues.
type world struct {
	t         *testing.T
	redis     *redis.Client
	prefix    string
	db        *sql.DB
	cache     *stock.Cache
	ledger    *stock.Ledger
	orders    *order.Store
	catalogue *catalog.Store

	handlers map[events.Topic]events.Handler
	healer   *stockworker.Healer
	reaper   *stockworker.Reaper
	expirer  *settleworker.Expirer
	relay    *settleworker.Relay
	sweeper  *settleworker.Sweeper

	mu     sync.Mutex // the reaper publishes for several products at once
	queues map[events.Topic][]item
	dead   []events.Event
	run    string       // what Redis says of itself
	fault  func() error // what Redis does to Apply; nil = nothing
	acks   func() error // what Kafka says after it has written; nil = yes
}

// newWorld opens an activity whose products have the given totals, two units to
// an order and four to a buyer at most. Nothing is in Redis yet.
func newWorld(t *testing.T, totals map[string]int64) *world {
	w := &world{t: t, prefix: testservers.Prefix(t), queues: make(map[events.Topic][]item), run: "first"}
	w.redis = redis.NewClient(&redis.Options{Addr: testservers.Redis(t)})
	w.db = testservers.MySQL(t)
	w.cache = stock.NewCache(w.redis, stock.CacheConfig{Prefix: w.prefix})
	t.Cleanup(func() {
		w.cache.Close()
		_ = w.redis.Close()
	})
	w.ledger, w.orders, w.catalogue = stock.NewLedger(w.db), order.NewStore(w.db), catalog.NewStore(w.db)
	w.handlers = map[events.Topic]events.Handler{
		events.Reservations: stockworker.Deduct(w, w.ledger),
		events.Rollbacks:    stockworker.Rollback(w, w.ledger),
		events.Deductions:   settleworker.Settle(w.catalogue, w.orders),
		events.Payments:     settleworker.Payment(w.orders, w.ledger),
	}
	w.healer = stockworker.NewHealer(w.catalogue, shelf{stockworker.NewShelf(w.cache, w.ledger), &w.run}, stockworker.HealerConfig{Now: time.Now})
	w.reaper = stockworker.NewReaper(w.catalogue, w.cache, w, stockworker.ReaperConfig{OlderThan: time.Millisecond, Now: time.Now})
	w.expirer = settleworker.NewExpirer(w.orders, settleworker.ExpirerConfig{})
	w.relay = settleworker.NewRelay(w.orders, w, settleworker.RelayConfig{Now: time.Now})
	w.sweeper = settleworker.NewSweeper(w.orders, w, settleworker.SweeperConfig{OlderThan: time.Microsecond, Now: time.Now})
	w.open(totals)
	return w
}

func (w *world) open(totals map[string]int64) {
	w.t.Helper()
	ctx, now := w.t.Context(), time.Now().Truncate(time.Second)
	_, err := w.catalogue.CreateActivity(ctx, catalog.Activity{
		ID: "sale", Name: "Sale", StartsAt: now.Add(-time.Hour), EndsAt: now.Add(time.Hour), PayWindow: time.Hour,
	})
	w.must(err)
	for id, total := range totals {
		_, err := w.catalogue.AddProduct(ctx, catalog.Product{
			ID: id, ActivityID: "sale", Name: "Product " + id, PriceCents: 99, Currency: "CNY", Total: total, PerOrder: 2, PerUser: 4,
		})
		w.must(err)
	}
	_, err = w.catalogue.SetState(ctx, "sale", catalog.Online)
	w.must(err)
}

// shelf is the real one, but for what Redis says of itself.
type shelf struct {
	stockworker.Shelf
	run *string
}

func (s shelf) RunID(context.Context) (string, error) { return *s.run, nil }

// Apply is the cache's, with the faults of the moment: before the change or
// after it.
func (w *world) Apply(ctx context.Context, rs []stock.Reservation) (stock.Applied, error) {
	if w.fault == nil {
		return w.cache.Apply(ctx, rs)
	}
	if err := w.fault(); err != nil {
		return stock.Applied{}, err
	}
	got, err := w.cache.Apply(ctx, rs)
	return got, errors.Join(err, w.fault())
}

// Publish puts events into their queues, by the bytes that Kafka would carry.
func (w *world) Publish(_ context.Context, evs ...events.Event) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range evs {
		body, err := events.Encode(e)
		if err != nil {
			return events.Permanent(err)
		}
		read, err := events.Decode(e.Type, body)
		if err != nil {
			return events.Permanent(err)
		}
		read.Time, read.TraceParent = e.Time, e.TraceParent
		w.queues[e.Topic()] = append(w.queues[e.Topic()], item{event: read})
	}
	if w.acks != nil {
		return w.acks()
	}
	return nil
}

// handle does with a batch what the Consumer does: it publishes what follows
// even beside an error, keeps records with a permanent fault that names them or
// that they are alone with as dead letters, and halves a batch with another. It
// returns a fault that wants the batch to be tried again.
func (w *world) handle(topic events.Topic, batch []events.Event) error {
	next, err := w.handlers[topic](w.t.Context(), batch)
	w.must(w.Publish(w.t.Context(), next...))
	var permanent *events.PermanentError
	if !errors.As(err, &permanent) {
		return err
	}
	if len(batch) == 1 {
		w.dead = append(w.dead, batch[0])
		return nil
	}
	condemned := events.Condemned(err)
	var rest []events.Event
	for _, e := range batch {
		if condemned[e] == nil {
			rest = append(rest, e)
		} else {
			w.dead = append(w.dead, e)
		}
	}
	if len(rest) == 0 {
		return nil
	}
	if len(rest) < len(batch) {
		return w.handle(topic, rest)
	}
	half := len(batch) / 2
	return errors.Join(w.handle(topic, batch[:half]), w.handle(topic, batch[half:]))
}

// take empties a queue.
func (w *world) take(topic events.Topic) []events.Event {
	var batch []events.Event
	for _, i := range w.queues[topic] {
		batch = append(batch, i.event)
	}
	w.queues[topic] = nil
	return batch
}

// drain handles everything that is under way, and what follows from it, but for
// the topic of orders, which has no reader here.
func (w *world) drain() {
	w.t.Helper()
	for busy := true; busy; {
		busy = false
		for topic := range w.handlers {
			if batch := w.take(topic); len(batch) > 0 {
				busy = true
				w.must(w.handle(topic, batch))
			}
		}
		for _, step := range []func(context.Context) (bool, error){w.expirer.Step, w.relay.Step} {
			more, err := step(w.t.Context())
			w.must(err)
			busy = busy || more
		}
		for topic := range w.handlers {
			busy = busy || len(w.queues[topic]) > 0
		}
	}
}

// buy reserves in Redis, as the gateway does, without the event.
func (w *world) buy(r stock.Reservation) (events.Event, error) {
	got, _, err := w.cache.Reserve(w.t.Context(), r)
	return events.Event{
		Type: events.ReservationCreated, Time: got.At, ReservationID: r.ID, ActivityID: "sale",
		ProductID: r.ProductID, UserID: r.UserID, Quantity: r.Quantity,
	}, err
}

// bought reserves quantity units of product p for reservation n, and publishes.
func (w *world) bought(n int, user string, quantity int64) stock.Reservation {
	w.t.Helper()
	r := stock.Reservation{ID: id(n), ProductID: "p", UserID: user, Quantity: quantity}
	e, err := w.buy(r)
	w.must(err)
	w.must(w.Publish(w.t.Context(), e))
	return r
}

// paid publishes a payment of the right amount for a reservation of two units
// or as many as it has.
func (w *world) paid(r stock.Reservation, ref string) {
	w.t.Helper()
	w.must(w.Publish(w.t.Context(), events.Event{
		Type: events.PaymentSucceeded, Time: time.Now(), ReservationID: r.ID, PaymentRef: ref, AmountCents: 99 * r.Quantity, Currency: "CNY",
	}))
}

// due lets the time to pay of every order pass that waits for its payment.
func (w *world) due() {
	w.t.Helper()
	_, err := w.db.ExecContext(w.t.Context(), "UPDATE orders SET pay_deadline = created_at WHERE state = 'awaiting_payment'")
	w.must(err)
}

func (w *world) step(step func(context.Context) (bool, error)) {
	w.t.Helper()
	_, err := step(w.t.Context())
	w.must(err)
}

// until repeats a step until it has put something into a queue: it looks only at
// what is a millisecond old.
func (w *world) until(topic events.Topic, step func(context.Context) (bool, error)) {
	w.t.Helper()
	for end := time.Now().Add(5 * time.Second); len(w.queues[topic]) == 0; {
		if time.Now().After(end) {
			w.t.Fatalf("nothing comes to the topic %s", topic)
		}
		w.step(step)
	}
}

// lose takes a product out of Redis, as a loss of its memory does.
func (w *world) lose(product string) {
	w.t.Helper()
	w.must(w.redis.Del(w.t.Context(), w.key(product), w.key(product)+":open").Err())
}

func (w *world) key(product string) string { return w.prefix + ":{" + product + "}" }

// backup is a product as Redis had it at some moment.
type backup struct {
	product string
	hash    map[string]string
	open    []string
}

func (w *world) backup(product string) backup {
	w.t.Helper()
	hash, err := w.redis.HGetAll(w.t.Context(), w.key(product)).Result()
	w.must(err)
	open, err := w.redis.LRange(w.t.Context(), w.key(product)+":open", 0, -1).Result()
	w.must(err)
	return backup{product, hash, open}
}

// restore is a restart of Redis that has lost all it was told since the backup.
func (w *world) restore(b backup) {
	w.t.Helper()
	w.lose(b.product)
	w.run += "+"
	if len(b.hash) > 0 {
		w.must(w.redis.HSet(w.t.Context(), w.key(b.product), b.hash).Err())
	}
	for _, entry := range b.open {
		w.must(w.redis.RPush(w.t.Context(), w.key(b.product)+":open", entry).Err())
	}
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// balanced checks the equation in both stores, whatever is under way.
func (w *world) balanced(product string) (stock.Counts, stock.Stock) {
	w.t.Helper()
	s, err := w.ledger.Stock(w.t.Context(), product)
	w.must(err)
	if s.Available < 0 || s.Available+s.Deducted != s.Total {
		w.t.Fatalf("%s: S1: available %d + deducted %d, want a total of %d", product, s.Available, s.Deducted, s.Total)
	}
	c, err := w.cache.Counts(w.t.Context(), product)
	if errors.Is(err, stock.NotLoaded) {
		return c, s
	}
	w.must(err)
	if c.Surplus+c.Pending+c.Deducted != s.Total || c.Broken > 0 {
		w.t.Fatalf("%s: surplus %d + pending %d + deducted %d, want a total of %d; %d broken fields",
			product, c.Surplus, c.Pending, c.Deducted, s.Total, c.Broken)
	}
	return c, s
}

// atRest checks that Redis and the ledger agree to the unit, as S8 says, and
// that so many units are deducted.
func (w *world) atRest(product string, deducted int64) {
	w.t.Helper()
	w.step(w.reaper.Step) // drops what is settled from the open list
	c, s := w.balanced(product)
	if c.Surplus != s.Available || c.Pending != 0 || c.Deducted != s.Deducted || c.Open != 0 {
		w.t.Errorf("%s: S8: Redis has %+v, the ledger %+v", product, c, s)
	}
	if s.Deducted != deducted {
		w.t.Errorf("%s: %d units deducted, want %d", product, s.Deducted, deducted)
	}
}

// stands checks the states of a reservation in Redis, the ledger and the orders.
func (w *world) stands(r stock.Reservation, inRedis, inLedger stock.State, o order.State) {
	w.t.Helper()
	got := fmt.Sprintf("%s, %s, %s", w.inRedis(r), w.inLedger(r), w.ordered(r))
	if want := fmt.Sprintf("%s, %s, %s", inRedis, inLedger, o); got != want {
		w.t.Errorf("reservation %s stands at %q (Redis, ledger, order), want %q", r.ID, got, want)
	}
}

func (w *world) inRedis(r stock.Reservation) stock.State {
	w.t.Helper()
	got, err := w.cache.Find(w.t.Context(), r.ProductID, r.UserID, r.ID)
	if !errors.Is(err, stock.ErrNotFound) && !errors.Is(err, stock.NotLoaded) {
		w.must(err)
	}
	return got.State
}

func (w *world) inLedger(r stock.Reservation) stock.State {
	w.t.Helper()
	got, err := w.ledger.Find(w.t.Context(), r.ID)
	if !errors.Is(err, stock.ErrNotFound) {
		w.must(err)
	}
	return got.State
}

func (w *world) ordered(r stock.Reservation) order.State {
	w.t.Helper()
	got, err := w.orders.Find(w.t.Context(), r.ID)
	if !errors.Is(err, order.ErrNotFound) {
		w.must(err)
	}
	return got.State
}

// told counts the events of each type that were published on the topic of
// orders. One that was published again has the same ID, and counts once.
func (w *world) told() map[events.Type]int {
	n := make(map[events.Type]int)
	seen := make(map[string]bool)
	for _, i := range w.queues[events.Orders] {
		if id := i.event.ID(); !seen[id] {
			seen[id] = true
			n[i.event.Type]++
		}
	}
	return n
}
