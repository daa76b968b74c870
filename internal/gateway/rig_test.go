package gateway_test

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/leadingpeers/seckill/internal/audit"
	"github.com/leadingpeers/seckill/internal/contract"
	"github.com/leadingpeers/seckill/internal/gateway"
	"github.com/leadingpeers/seckill/internal/gateway/catalogue"
	"github.com/leadingpeers/seckill/internal/gateway/web"
	"github.com/leadingpeers/seckill/internal/keys"
	"github.com/leadingpeers/seckill/internal/mysql"
	"github.com/leadingpeers/seckill/internal/testservers"
	"github.com/leadingpeers/seckill/pkg/catalog"
	"github.com/leadingpeers/seckill/pkg/events"
	"github.com/leadingpeers/seckill/pkg/order"
	"github.com/leadingpeers/seckill/pkg/stock"
	"github.com/leadingpeers/seckill/pkg/token"
)

const (
	serviceKey  = "sk_shop_0123456789abcdef"
	adminKey    = "sk_ops_fedcba9876543210"
	viewerKey   = "sk_eyes_fedcba9876543210"
	operatorKey = "sk_hands_fedcba9876543210"
	idKey       = "an ID key for tests"
)

// coverage is every answer that a test of this package has had.
var coverage = &contract.Coverage{}

// TestMain ends with a look at the contract: each answer that it describes must
// have been given in some test, or nobody knows whether it is true.
func TestMain(m *testing.M) {
	status := m.Run()
	some := testing.Short()
	for _, name := range []string{"test.run", "test.skip", "test.list"} {
		some = some || flag.Lookup(name).Value.String() != ""
	}
	if !some && status == 0 {
		missing, err := coverage.Missing()
		if err != nil || len(missing) > 0 {
			fmt.Printf("FAIL: answers of the contract that no test has seen: %v %s\n", err, strings.Join(missing, ", "))
			status = 1
		}
	}
	os.Exit(status)
}

// rig is a gateway on real stores, with a publisher that keeps what it gets.
type rig struct {
	url       string
	db        *sql.DB
	dsn       string
	redis     string
	prefix    string
	cache     *stock.Cache
	ledger    *stock.Ledger
	catalog   *catalog.Store
	orders    *order.Store
	published *publisher
	tokens    *token.Ring
	server    *http.Server
	gateway   *gateway.Gateway
	products  int
}

// newRig starts a gateway whose configuration change may alter; nil = none.
func newRig(t testing.TB, change func(*gateway.Config)) *rig {
	t.Helper()
	r := &rig{dsn: testservers.MySQLDSN(t), prefix: testservers.Prefix(t), redis: testservers.Redis(t), published: &publisher{}}
	r.db = r.pool(t)
	client := redis.NewUniversalClient(&redis.UniversalOptions{Addrs: []string{r.redis}})
	r.cache = stock.NewCache(client, stock.CacheConfig{Prefix: r.prefix})
	t.Cleanup(func() { r.cache.Close(); _ = client.Close() })
	r.ledger, r.catalog, r.orders = stock.NewLedger(r.db), catalog.NewStore(r.db), order.NewStore(r.db)
	var err error
	if r.tokens, err = token.NewRing([]token.Key{{ID: "k1", Secret: []byte("a secret for tests")}}); err != nil {
		t.Fatal(err)
	}
	r.start(t, change, nil)
	return r
}

// pool opens another pool to the rig's schema.
func (r *rig) pool(t testing.TB) *sql.DB {
	t.Helper()
	db, err := mysql.Open(t.Context(), mysql.Config{DSN: r.dsn, MaxOpen: 16})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// beside starts a second gateway on the same stores.
func (r *rig) beside(t testing.TB, change func(*gateway.Config)) *rig {
	t.Helper()
	return r.besideServing(t, change, nil)
}

func (r *rig) besideServing(t testing.TB, change func(*gateway.Config), server func(*http.Server)) *rig {
	t.Helper()
	other := *r
	other.start(t, change, server)
	return &other
}

func (r *rig) start(t testing.TB, change func(*gateway.Config), server func(*http.Server)) {
	t.Helper()
	const age = 20 * time.Millisecond
	cfg := gateway.Config{
		Cache: r.cache, Ledger: r.ledger, Orders: r.orders, Publisher: r.published, Catalog: r.catalog,
		Snapshot: catalog.NewSnapshot(r.catalog, age, time.Now), SnapshotAge: age,
		Load: func(ctx context.Context, terms stock.Terms) (bool, error) {
			return stock.Load(ctx, r.cache, r.ledger, terms)
		},
		Heal: func(ctx context.Context, productID string) error {
			_, err := stock.Heal(ctx, r.cache, r.ledger, productID, 0)
			return err
		},
		Keys: []web.Key{
			{ID: "shop", Hash: sha256.Sum256([]byte("0123456789abcdef")), Role: web.Service},
			{ID: "ops", Hash: sha256.Sum256([]byte("fedcba9876543210")), Role: web.Admin},
			{ID: "eyes", Hash: sha256.Sum256([]byte("fedcba9876543210")), Role: web.Viewer},
			{ID: "hands", Hash: sha256.Sum256([]byte("fedcba9876543210")), Role: web.Operator},
		},
		KeyStore: keys.NewStore(r.db), Trail: audit.NewTrail(r.db), Tokens: r.tokens,
		IDKey: []byte(idKey), Now: time.Now, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		CacheTimeout: 5 * time.Second, StoreTimeout: 10 * time.Second, AnswerIn: 20 * time.Second, // a busy machine is no outage
	}
	if change != nil {
		change(&cfg)
	}
	var err error
	if r.gateway, err = gateway.New(cfg); err != nil {
		t.Fatal(err)
	}
	r.server = r.gateway.Server()
	r.server.Handler = contract.Handler(t, r.server.Handler, coverage)
	if server != nil {
		server(r.server)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.url = "http://" + ln.Addr().String()
	go func() { _ = r.server.Serve(ln) }()
	t.Cleanup(func() { _ = r.server.Close() })
}

// deadCache is a cache whose Redis is not there.
func deadCache(t testing.TB) *stock.Cache {
	t.Helper()
	client := redis.NewUniversalClient(&redis.UniversalOptions{Addrs: []string{"127.0.0.1:1"}, DialerRetries: 1})
	cache := stock.NewCache(client, stock.CacheConfig{})
	t.Cleanup(func() { cache.Close(); _ = client.Close() })
	return cache
}

// brokenOrders lose their MySQL when broken is set.
type brokenOrders struct {
	gateway.Orders
	broken atomic.Bool
}

// hangingOrders have a MySQL that does not answer.
type hangingOrders struct{ gateway.Orders }

func (hangingOrders) Find(ctx context.Context, _ string) (order.Order, error) {
	<-ctx.Done()
	return order.Order{}, ctx.Err()
}

// slowSnapshot takes its time.
type slowSnapshot struct {
	catalogue.Snapshot
	time time.Duration
}

func (s slowSnapshot) Get(ctx context.Context) (*catalog.View, error) {
	select {
	case <-time.After(s.time):
	case <-ctx.Done():
	}
	return s.Snapshot.Get(ctx)
}

func (slowSnapshot) Current() *catalog.View { return nil }

func (o *brokenOrders) Find(ctx context.Context, reservationID string) (order.Order, error) {
	if o.broken.Load() {
		return order.Order{}, errors.New("connection refused")
	}
	return o.Orders.Find(ctx, reservationID)
}

// stuckSnapshot waits for its MySQL when stuck is set.
type stuckSnapshot struct {
	catalogue.Snapshot
	stuck atomic.Bool
}

func (s *stuckSnapshot) Get(ctx context.Context) (*catalog.View, error) {
	if s.stuck.Load() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return s.Snapshot.Get(ctx)
}

// publisher is a Kafka that keeps everything, or fails, or does not answer.
type publisher struct {
	mu    sync.Mutex
	err   error
	hangs bool
	got   []events.Event
}

func (p *publisher) Publish(ctx context.Context, evs ...events.Event) error {
	p.mu.Lock()
	hangs, err := p.hangs, p.err
	if !hangs && err == nil {
		p.got = append(p.got, evs...)
	}
	p.mu.Unlock()
	if hangs {
		<-ctx.Done()
		return ctx.Err()
	}
	return err
}

func (p *publisher) set(err error, hangs bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err, p.hangs = err, hangs
}

// of returns the events of one reservation.
func (p *publisher) of(reservationID string) (evs []events.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.got {
		if e.ReservationID == reservationID {
			evs = append(evs, e)
		}
	}
	return evs
}

// last returns the newest event.
func (p *publisher) last() events.Event {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.got[len(p.got)-1]
}

func (p *publisher) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.got)
}

// answer is every member that an answer of this API may have.
type answer struct {
	status int
	header http.Header
	text   string

	Code          string `json:"code"`
	Detail        string `json:"detail"`
	Retryable     bool   `json:"retryable"`
	ReservationID string `json:"reservation_id"`
	ActivityID    string `json:"activity_id"`
	ProductID     string `json:"product_id"`
	UserID        string `json:"user_id"`
	Quantity      int64  `json:"quantity"`
	State         string `json:"state"`
	Reason        string `json:"reason"`
	PriceCents    int64  `json:"price_cents"`
	OrderID       string `json:"order_id"`
	AmountCents   int64  `json:"amount_cents"`
	Currency      string `json:"currency"`
	PayDeadline   string `json:"pay_deadline"`
	ID            string `json:"id"`
	Name          string `json:"name"`
	StartsAt      string `json:"starts_at"`
	Version       int64  `json:"version"`
	Loaded        bool   `json:"loaded"`
	TraceID       string `json:"trace_id"`
	Activities    []struct{ ID string }
	Products      []struct{ ID string }
}

// call sends one request with a key; header's pairs replace what is usual.
func (r *rig) call(t testing.TB, key, method, path, body string, header ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, r.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
		if header[i+1] == "" {
			req.Header.Del(header[i])
		}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	a := answer{status: resp.StatusCode, header: resp.Header, text: string(text)}
	if method != http.MethodHead && strings.Contains(resp.Header.Get("Content-Type"), "json") {
		if !json.Valid(text) {
			t.Fatalf("%s %s: answer %d is not JSON: %.200q", method, path, resp.StatusCode, text)
		}
		_ = json.Unmarshal(text, &a) // what has another shape is read by its test
	}
	return a
}

// must fails the test unless the answer has this status.
func (a answer) must(t testing.TB, status int) answer {
	t.Helper()
	if a.status != status {
		t.Fatalf("status %d, want %d: %s", a.status, status, a.text)
	}
	return a
}

// is fails the test unless the answer is this problem, retryable or not as its
// Retry-After says.
func (a answer) is(t testing.TB, status int, code, why string) {
	t.Helper()
	if a.status != status || a.Code != code {
		t.Errorf("%d %s, want %d %s: %s\n%s", a.status, a.Code, status, code, why, a.text)
	}
	if a.Retryable != (a.header.Get("Retry-After") != "") {
		t.Errorf("retryable %v with Retry-After %q: %s", a.Retryable, a.header.Get("Retry-After"), why)
	}
	if a.header.Get("Content-Type") != "application/problem+json" || a.Detail == "" || len(a.TraceID) != 32 {
		t.Errorf("not problem+json: %s %s", a.header.Get("Content-Type"), a.text)
	}
}

// offer is what a test sells.
type offer struct {
	units, perOrder, perUser int64
	starts, ends             time.Duration // from now; default: since a second, for an hour
	draft                    bool          // not published
}

// sell creates an activity with one product over the API, publishes it, and
// returns the product's ID and path.
func (r *rig) sell(t testing.TB, o offer) (productID, path string) {
	t.Helper()
	r.products++
	id := fmt.Sprintf("%s-%d", r.prefix, r.products)
	if o.starts == 0 {
		o.starts = -time.Second
	}
	if o.ends == 0 {
		o.ends = time.Hour
	}
	now := time.Now().UTC()
	r.call(t, adminKey, "POST", "/v1/activities", toJSON(t, map[string]any{
		"id": "a-" + id, "name": "Double Eleven", "starts_at": now.Add(o.starts), "ends_at": now.Add(o.ends), "pay_window_seconds": 900,
	})).must(t, http.StatusCreated)
	r.call(t, adminKey, "POST", "/v1/activities/a-"+id+"/products", toJSON(t, map[string]any{
		"id": "p-" + id, "name": "Phone", "price_cents": 499900, "currency": "CNY",
		"total": o.units, "per_order": o.perOrder, "per_user": o.perUser,
	})).must(t, http.StatusCreated)
	if !o.draft {
		r.call(t, adminKey, "POST", "/v1/activities/a-"+id+"/publish", `{"preload":true}`).must(t, http.StatusOK)
	}
	return "p-" + id, "/v1/activities/a-" + id + "/products/p-" + id
}

// reserve sends the usual request of a buyer.
func (r *rig) reserve(t testing.TB, path, user, key string, quantity int64) answer {
	t.Helper()
	return r.call(t, serviceKey, "POST", path+"/reservations", fmt.Sprintf(`{"user_id":%q,"quantity":%d}`, user, quantity), "Idempotency-Key", key)
}

// surplus is what Redis has left of a product.
func (r *rig) surplus(t testing.TB, productID string) int64 {
	t.Helper()
	n, err := r.cache.Surplus(t.Context(), productID)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// deduct does what the stock worker does for one reservation.
func (r *rig) deduct(t testing.TB, a answer) {
	t.Helper()
	rows, err := r.ledger.Deduct(t.Context(), a.ProductID, []stock.Reservation{
		{ID: a.ReservationID, ProductID: a.ProductID, UserID: a.UserID, Quantity: a.Quantity},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.cache.Apply(t.Context(), rows); err != nil {
		t.Fatal(err)
	}
}

// place does what the settle worker does for one reservation.
func (r *rig) place(t testing.TB, a answer) order.Order {
	t.Helper()
	placed, err := r.orders.Place(t.Context(), []order.Order{{
		ReservationID: a.ReservationID, ActivityID: a.ActivityID, ProductID: a.ProductID, UserID: a.UserID, Quantity: a.Quantity,
		AmountCents: a.Quantity * a.PriceCents, Currency: "CNY", PayWindow: 15 * time.Minute,
	}})
	if err != nil {
		t.Fatal(err)
	}
	return placed[0]
}

func toJSON(t testing.TB, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
