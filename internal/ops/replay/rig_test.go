package replay_test

import (
	"context"
	"database/sql"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/leadingpeers/seckill/internal/mysql"
	"github.com/leadingpeers/seckill/internal/ops"
	"github.com/leadingpeers/seckill/internal/ops/kafkalog"
	"github.com/leadingpeers/seckill/internal/ops/lag"
	"github.com/leadingpeers/seckill/internal/ops/replay"
	"github.com/leadingpeers/seckill/internal/settleworker"
	"github.com/leadingpeers/seckill/internal/stockworker"
	"github.com/leadingpeers/seckill/internal/testservers"
	"github.com/leadingpeers/seckill/pkg/catalog"
	"github.com/leadingpeers/seckill/pkg/events"
	"github.com/leadingpeers/seckill/pkg/order"
	"github.com/leadingpeers/seckill/pkg/stock"
)

const patience = 180 * time.Second // how long a condition may take before a test fails

// address is how a process reaches the servers of a test.
type address struct {
	Redis, DSN, Prefix string
	Brokers            []string
}

// shop is one process's connections, and its replay desk.
type shop struct {
	address
	db        *sql.DB
	redis     *redis.Client
	cache     *stock.Cache
	ledger    *stock.Ledger
	orders    *order.Store
	catalogue *catalog.Store
	kafka     *kafkalog.Kafka
	publisher *events.Publisher
	desk      replay.Desk
}

func openShop(ctx context.Context, a address) (*shop, error) {
	db, err := mysql.Open(ctx, mysql.Config{DSN: a.DSN, MaxOpen: 16})
	if err != nil {
		return nil, err
	}
	s := &shop{address: a, db: db, redis: redis.NewClient(&redis.Options{Addr: a.Redis})}
	client := events.ClientConfig{Brokers: a.Brokers, Prefix: a.Prefix}
	s.cache = stock.NewCache(s.redis, stock.CacheConfig{Prefix: a.Prefix})
	s.ledger, s.orders, s.catalogue = stock.NewLedger(db), order.NewStore(db), catalog.NewStore(db)
	s.kafka = kafkalog.Open(client)
	s.publisher = events.NewPublisher(events.PublisherConfig{ClientConfig: client, Now: time.Now, QueueSize: 1 << 20})
	s.desk = replay.Desk{
		Kafka: s.kafka, DB: db, Books: ops.Books{Cache: s.cache, Ledger: s.ledger, Orders: s.orders}, Publisher: s.publisher,
		Handlers: map[string]events.Handler{
			"deduct": stockworker.Deduct(s.cache, s.ledger), "rollback": stockworker.Rollback(s.cache, s.ledger),
			"settle": settleworker.Settle(s.catalogue, s.orders), "payment": settleworker.Payment(s.orders, s.ledger),
			"channel": stockworker.Channel(s.catalogue, s.ledger),
		},
		By: "lin", Now: time.Now, Log: slog.New(slog.DiscardHandler),
	}
	return s, nil
}

func (s *shop) close() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_ = s.publisher.Close(ctx)
	s.kafka.Close()
	s.cache.Close()
	_, _ = s.redis.Close(), s.db.Close()
}

// rig is a sale whose workers are started and stopped by the test.
type rig struct {
	*shop
	t    *testing.T
	sold int
}

func products() []string { return []string{"phone", "earbuds", "charger"} }

const perProduct = 1_000_000

// newRig opens a sale of three products with topics of three partitions.
func newRig(t *testing.T) *rig {
	t.Helper()
	testservers.Real(t) // the stand-in of MySQL has no locks by name
	a := address{Redis: testservers.Redis(t), DSN: testservers.MySQLDSN(t), Brokers: testservers.Kafka(t), Prefix: testservers.Prefix(t)}
	s, err := openShop(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	r := &rig{shop: s, t: t}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r.must(events.Apply(ctx, s.kafka.Config(), events.Overrides{Partitions: 3, Replication: 1}))
	now := time.Now().Truncate(time.Second)
	_, err = s.catalogue.CreateActivity(ctx, catalog.Activity{ID: "sale", Name: "Sale", StartsAt: now.Add(-time.Hour), EndsAt: now.Add(time.Hour), PayWindow: time.Hour})
	r.must(err)
	for _, id := range products() {
		_, err := s.catalogue.AddProduct(ctx, catalog.Product{ID: id, ActivityID: "sale", Name: id, PriceCents: 99, Currency: "CNY", Total: perProduct, PerOrder: 2, PerUser: 2})
		r.must(err)
	}
	_, err = s.catalogue.SetState(ctx, "sale", catalog.Online)
	r.must(err)
	for _, id := range products() {
		terms := stock.Terms{ProductID: id, PerOrder: 2, PerUser: 2, OnSale: true, StartsAt: now.Add(-time.Hour), EndsAt: now.Add(time.Hour)}
		_, err := stock.Load(ctx, s.cache, s.ledger, terms)
		r.must(err)
	}
	r.eventually("the broker has a coordinator", func() bool { _, err := s.kafka.Group(ctx, r.group("deduct")); return err == nil })
	return r
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) eventually(what string, done func() bool) {
	r.t.Helper()
	deadline, tick := time.After(patience), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			r.t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

func (r *rig) group(name string) string        { return r.kafka.Config().GroupName(name) }
func (r *rig) topic(name events.Topic) string  { return r.kafka.Config().TopicName(name) }
func (r *rig) plan(name string) (path string)  { return filepath.Join(r.t.TempDir(), name+".json") }
func (r *rig) lag(group string) (n, com int64) { return lagOf(r.t, r.shop, group) }

func lagOf(t *testing.T, s *shop, group string) (n, committed int64) {
	t.Helper()
	got, err := lag.NewReader(s.kafka, time.Now).Read(t.Context(), group)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range got.Rows {
		n, committed = n+row.Lag(), committed+row.Committed
	}
	return n, committed
}

// id makes the n-th reservation ID.
func id(n int) string {
	var raw [16]byte
	binary.BigEndian.PutUint64(raw[8:], uint64(n))
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(raw[:]))
}

// sell lets n more buyers reserve one unit each, and publishes that.
func (r *rig) sell(n int) {
	r.t.Helper()
	evs := make([]events.Event, n)
	errs := make([]error, n)
	var wg sync.WaitGroup
	slots := make(chan struct{}, 512)
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			k := r.sold + i
			want := stock.Reservation{ID: id(k), ProductID: products()[k%3], UserID: fmt.Sprint("user", k), Quantity: 1}
			got, _, err := r.cache.Reserve(r.t.Context(), want)
			errs[i] = err
			evs[i] = events.Event{Type: events.ReservationCreated, Time: got.At, ReservationID: want.ID, ActivityID: "sale", ProductID: want.ProductID, UserID: want.UserID, Quantity: 1}
		})
	}
	wg.Wait()
	r.sold += n
	r.must(errors.Join(errs...))
	for len(evs) > 0 {
		some := min(len(evs), 5000)
		r.must(r.publisher.Publish(r.t.Context(), evs[:some]...))
		evs = evs[some:]
	}
}

// pay publishes what became of the payments of reservations from..to-1: every
// fifth fails, which gives its units back.
func (r *rig) pay(from, to int) {
	r.t.Helper()
	var evs []events.Event
	for n := from; n < to; n++ {
		e := events.Event{Type: events.PaymentSucceeded, ReservationID: id(n), PaymentRef: fmt.Sprint("pay", n), AmountCents: 99, Currency: "CNY"}
		if n%5 == 0 {
			e = events.Event{Type: events.PaymentFailed, ReservationID: id(n), PaymentRef: fmt.Sprint("pay", n)}
		}
		evs = append(evs, e)
	}
	r.must(r.publisher.Publish(r.t.Context(), evs...))
}

// work runs all the workers' consumers and the relay until stop is called.
func (r *rig) work() (stop func()) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	run := func(f func(context.Context) error) {
		running.Go(func() {
			if err := f(ctx); err != nil {
				r.t.Error(err)
			}
		})
	}
	for _, spec := range events.Topics() {
		if spec.Group != "" {
			run(events.NewConsumer(events.ConsumerConfig{
				ClientConfig: r.kafka.Config(), Group: spec.Group, Topic: spec.Name, SessionTimeout: 6 * time.Second, DrainTimeout: 4 * time.Second,
			}, r.desk.Handlers[spec.Group], r.publisher).Run)
		}
	}
	run(settleworker.NewRelay(r.orders, r.publisher, settleworker.RelayConfig{Every: 50 * time.Millisecond, Now: time.Now}).Run)
	var once sync.Once
	stop = func() { once.Do(func() { cancel(); running.Wait() }) }
	r.t.Cleanup(stop)
	return stop
}

// rest waits until nothing is under way.
func (r *rig) rest() {
	r.t.Helper()
	r.eventually("nothing is under way", func() bool {
		for _, g := range []string{"deduct", "rollback", "settle", "payment"} {
			if n, committed := r.lag(g); n > 0 || committed < 0 {
				return false
			}
		}
		pending, _, err := r.orders.OutboxAge(r.t.Context())
		return err == nil && pending == 0
	})
}

// night is a sale of n reservations that is over: every one has its end, and
// the workers are stopped.
func night(t *testing.T, n int) *rig {
	t.Helper()
	r := newRig(t)
	stop := r.work()
	r.sell(n)
	r.eventually("every reservation has its order", func() bool { return r.count("orders") == n })
	r.pay(0, n)
	r.eventually("every order has its end", func() bool { return r.count("orders WHERE state = 'awaiting_payment'") == 0 })
	r.rest()
	stop()
	return r
}

func (r *rig) count(from string) (n int) {
	r.t.Helper()
	r.must(r.db.QueryRowContext(r.t.Context(), "SELECT COUNT(*) FROM "+from).Scan(&n))
	return n
}

// books are everything that a replay must not change: every row, by checksum,
// and every count of Redis.
func (r *rig) books() map[string]string {
	r.t.Helper()
	out := map[string]string{}
	rows, err := r.db.QueryContext(r.t.Context(), "CHECKSUM TABLE reservations, orders, stock, outbox, restocks")
	r.must(err)
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var table, sum string
		r.must(rows.Scan(&table, &sum))
		out[table[strings.LastIndex(table, ".")+1:]] = sum
	}
	r.must(rows.Err())
	for _, p := range products() {
		c, err := r.cache.Counts(r.t.Context(), p)
		r.must(err)
		out["Redis "+p] = fmt.Sprintf("%+v", c)
	}
	return out
}

// make plans and writes the plan.
func (r *rig) make(w replay.Want) (*replay.Plan, string) {
	r.t.Helper()
	p, err := r.desk.Make(r.t.Context(), w)
	r.must(err)
	path := r.plan(p.ID)
	r.must(p.Save(path))
	return p, path
}

// everything is a replay of all groups from the first record on.
func everything() replay.Want {
	return replay.Want{Groups: []string{"deduct", "rollback", "settle", "payment"}, Earliest: true}
}

// ends are the ends of a topic's partitions, summed.
func (r *rig) ends(topic events.Topic) (n int64) {
	r.t.Helper()
	logs, err := r.kafka.Extents(r.t.Context(), r.topic(topic))
	r.must(err)
	for log := range maps.Values(logs) {
		n += log.End
	}
	return n
}

// refused fails the test unless err is a refusal whose text has all the words.
func refused(t *testing.T, err error, words ...string) {
	t.Helper()
	var refusal *replay.Refused
	if !errors.As(err, &refusal) {
		t.Fatalf("got %v, want a refusal that says %q", err, words)
	}
	for _, w := range words {
		if !strings.Contains(refusal.Error(), w) {
			t.Errorf("refused with %q, want %q in it", refusal, w)
		}
	}
}

// stateFile is the state beside a plan, as text.
func stateFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(strings.TrimSuffix(path, ".json") + ".state.json")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
