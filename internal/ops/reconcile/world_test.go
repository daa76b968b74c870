package reconcile

import (
	"context"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"strings"
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

const patience = 2 * time.Minute

// world is a sale on servers of its own names, with the real workers.
type world struct {
	*testing.T
	*Auditor
	redis  *redis.Client
	prefix string
	bought int
	mu     sync.Mutex
}

func newWorld(t *testing.T, products int, units int64) *world {
	t.Helper()
	cfg := events.ClientConfig{Brokers: testservers.Kafka(t), Prefix: testservers.Prefix(t)}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := events.Apply(ctx, cfg, events.Overrides{Partitions: 2, Replication: 1}); err != nil {
		t.Fatal(err)
	}
	w := &world{T: t, prefix: cfg.Prefix, redis: redis.NewClient(&redis.Options{Addr: testservers.Redis(t)})}
	db := testservers.MySQL(t)
	w.Auditor = &Auditor{
		Cache: stock.NewCache(w.redis, stock.CacheConfig{Prefix: cfg.Prefix}), Ledger: stock.NewLedger(db), Orders: order.NewStore(db),
		Catalog: catalog.NewStore(db), Kafka: cfg, DB: db,
		Publisher: events.NewPublisher(events.PublisherConfig{ClientConfig: cfg, Now: time.Now}),
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_ = w.Publisher.Close(ctx)
		w.Cache.Close()
		_ = w.redis.Close()
	})
	w.open(products, units)
	w.consume("deduct", events.Reservations, stockworker.Deduct(w.Cache, w.Ledger))
	w.consume("rollback", events.Rollbacks, stockworker.Rollback(w.Cache, w.Ledger))
	w.consume("settle", events.Deductions, settleworker.Settle(w.Catalog, w.Orders))
	w.consume("payment", events.Payments, settleworker.Payment(w.Orders, w.Ledger))
	return w
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) open(products int, units int64) {
	w.Helper()
	ctx, now := w.Context(), time.Now().Truncate(time.Second)
	_, err := w.Catalog.CreateActivity(ctx, catalog.Activity{ID: "sale", Name: "Sale", StartsAt: now.Add(-time.Hour), EndsAt: now.Add(time.Hour), PayWindow: time.Hour})
	w.must(err)
	for i := range products {
		_, err := w.Catalog.AddProduct(ctx, catalog.Product{
			ID: fmt.Sprint("p", i+1), ActivityID: "sale", Name: "Product", PriceCents: 99, Currency: "CNY", Total: units, PerOrder: 2, PerUser: 4,
		})
		w.must(err)
	}
	_, err = w.Catalog.SetState(ctx, "sale", catalog.Online)
	w.must(err)
	listings, err := w.Catalog.OnSale(ctx)
	w.must(err)
	for _, p := range listings[0].Products {
		_, err := stock.Load(ctx, w.Cache, w.Ledger, terms(listings[0].Activity, p))
		w.must(err)
	}
}

// run runs a service until the test ends.
func (w *world) run(service func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- service(ctx) }()
	w.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			w.Error(err)
		}
	})
}

func (w *world) consume(group string, topic events.Topic, h events.Handler) {
	w.run(events.NewConsumer(events.ConsumerConfig{ClientConfig: w.Kafka, Group: group, Topic: topic, Now: time.Now}, h, w.Publisher).Run)
}

// id is a reservation ID with the number n.
func id(n int) string {
	raw := make([]byte, 16)
	binary.BigEndian.PutUint64(raw, uint64(n)*2654435761)
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(raw))
}

// reserve takes two units in Redis and tells nobody.
func (w *world) reserve(product string) (stock.Reservation, error) {
	w.mu.Lock()
	w.bought++
	n := w.bought
	w.mu.Unlock()
	got, _, err := w.Cache.Reserve(w.Context(), stock.Reservation{ID: id(n), ProductID: product, UserID: fmt.Sprint("u", n), Quantity: 2})
	return got, err
}

// buy takes two units as the gateway does.
func (w *world) buy(product string) stock.Reservation {
	w.Helper()
	r, err := w.reserve(product)
	w.must(err)
	w.announce(r)
	return r
}

func (w *world) announce(r stock.Reservation) {
	err := w.Publisher.Publish(w.Context(), events.Event{
		Type: events.ReservationCreated, Time: r.At, ReservationID: r.ID, ActivityID: "sale", ProductID: r.ProductID, UserID: r.UserID, Quantity: r.Quantity,
	})
	if err != nil {
		w.Error(err)
	}
}

func (w *world) pay(r stock.Reservation) {
	w.Helper()
	w.must(w.Publisher.Publish(w.Context(), events.Event{
		Type: events.PaymentSucceeded, ReservationID: r.ID, PaymentRef: "pay-" + r.ID, AmountCents: 99 * r.Quantity, Currency: "CNY",
	}))
}

// await repeats check until it says nothing.
func (w *world) await(check func() string) {
	w.Helper()
	deadline, tick := time.After(patience), time.NewTicker(100*time.Millisecond)
	defer tick.Stop()
	for {
		problem := check()
		if problem == "" {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			w.Fatalf("not within %s: %s", patience, problem)
		}
	}
}

func (w *world) check() Report {
	w.Helper()
	r, err := w.Check(w.Context(), "sale")
	w.must(err)
	return r
}

func (w *world) atRest() string {
	r := w.check()
	if len(r.Differences) > 0 {
		return fmt.Sprintf("%d differences, the first %+v", len(r.Differences), r.Differences[0])
	}
	return ""
}

// exec changes rows by hand.
func (w *world) exec(query string, args ...any) {
	w.Helper()
	if _, err := w.DB.ExecContext(w.Context(), query, args...); err != nil {
		w.Fatalf("%s: %v", query, err)
	}
}

func (w *world) key(product string) string { return w.prefix + ":{" + product + "}" }

// field changes a buyer's field in Redis by hand.
func (w *world) field(r stock.Reservation, change func(string) string) {
	w.Helper()
	name := "u:" + r.UserID
	value, err := w.redis.HGet(w.Context(), w.key(r.ProductID), name).Result()
	w.must(err)
	w.must(w.redis.HSet(w.Context(), w.key(r.ProductID), name, change(value)).Err())
}

// lose takes a reservation out of Redis, units and all.
func (w *world) lose(r stock.Reservation) {
	w.Helper()
	w.must(w.redis.HDel(w.Context(), w.key(r.ProductID), "u:"+r.UserID).Err())
	w.must(w.redis.HIncrBy(w.Context(), w.key(r.ProductID), "surplus", r.Quantity).Err())
}

// forget takes a reservation out of the ledger, units and all.
func (w *world) forget(r stock.Reservation) {
	w.Helper()
	w.exec("DELETE FROM reservations WHERE product_id = ? AND user_id = ?", r.ProductID, r.UserID)
	w.exec("UPDATE stock SET available = available + ? WHERE product_id = ?", r.Quantity, r.ProductID)
}

func (w *world) forgetOrder(r stock.Reservation) {
	w.Helper()
	w.exec("DELETE FROM orders WHERE product_id = ? AND user_id = ?", r.ProductID, r.UserID)
}
