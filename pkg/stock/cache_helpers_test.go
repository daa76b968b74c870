package stock

import (
	"context"
	"encoding/base32"
	"iter"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/leadingpeers/seckill/internal/testservers"
	"github.com/leadingpeers/seckill/lua"
)

// shop is a cache of a test's own, with one product in it or not yet, and the
// means to call the scripts without the cache's checks in between.
type shop struct {
	testing.TB
	*Cache
	product string
	metrics prometheus.Gatherer
}

// newShop returns a shop with nothing in it.
func newShop(t testing.TB, cfg CacheConfig) shop {
	t.Helper()
	return newShopAt(t, testservers.Redis(t), cfg)
}

// newShopAt is newShop on the server at addr.
func newShopAt(t testing.TB, addr string, cfg CacheConfig) shop {
	t.Helper()
	if cfg.Prefix == "" {
		cfg.Prefix = testservers.Prefix(t)
	}
	client := redis.NewClient(&redis.Options{Addr: addr, MaxRetries: 1})
	t.Cleanup(func() { _ = client.Close() })
	return newShopOn(t, client, cfg)
}

// newShopOn is newShop on a client.
func newShopOn(t testing.TB, client redis.UniversalClient, cfg CacheConfig) shop {
	t.Helper()
	registry := prometheus.NewRegistry()
	cfg.Registerer = registry
	c := NewCache(client, cfg)
	t.Cleanup(c.Close)
	return shop{TB: t, Cache: c, product: "p1", metrics: registry}
}

// metric reads a counter or a gauge, or of a histogram how often it observed.
// With a label's value it reads that one of several.
func (s shop) metric(name, label string) float64 {
	s.Helper()
	families, err := s.metrics.Gather()
	if err != nil {
		s.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && (label == "" || m.GetLabel()[0].GetValue() == label) {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	s.Fatalf("no metric %s of %q", name, label)
	return 0
}

// terms are on sale now, with wide limits.
func (s shop) terms() Terms {
	return Terms{
		ProductID: s.product, PerOrder: 5, PerUser: 10, OnSale: true,
		StartsAt: time.Now().Add(-time.Hour), EndsAt: time.Now().Add(time.Hour),
	}
}

// load puts units of the product on sale, with rows of the ledger.
func (s shop) load(units int64, rows ...Reservation) {
	s.Helper()
	loaded, err := s.Preload(s.Context(), s.terms(), units, each(rows))
	if err != nil || !loaded {
		s.Fatalf("preload: loaded %v, error %v", loaded, err)
	}
}

// each ranges over rows as the ledger would.
func each(rows []Reservation) iter.Seq2[Reservation, error] {
	return func(yield func(Reservation, error) bool) {
		for _, r := range rows {
			if !yield(r, nil) {
				return
			}
		}
	}
}

// counts reads the product's account and checks what always holds in it.
func (s shop) counts() Counts {
	s.Helper()
	counts, err := s.Counts(s.Context(), s.product)
	if err != nil {
		s.Fatalf("counts: %v", err)
	}
	if counts.Broken != 0 {
		s.Fatalf("%d buyers whose count is not the sum of their records", counts.Broken)
	}
	return counts
}

// units fails the test unless the account of the product adds up so.
func (s shop) units(surplus, pending, deducted int64) {
	s.Helper()
	got := s.counts()
	if got.Surplus != surplus || got.Pending != pending || got.Deducted != deducted {
		s.Errorf("surplus %d, pending %d, deducted %d; want %d, %d, %d",
			got.Surplus, got.Pending, got.Deducted, surplus, pending, deducted)
	}
}

// eval calls a script as it stands, whatever argv is.
func (s shop) eval(text string, keys []string, argv ...string) (any, error) {
	args := make([]any, len(argv))
	for i := range argv {
		args[i] = argv[i]
	}
	return s.client.Eval(context.Background(), text, keys, args...).Result()
}

// ask is one request to the reserve or the apply script, as raw text.
type ask struct{ user, id, quantity, state string }

// rawReserve calls the reserve script and returns its rows.
func (s shop) rawReserve(asks ...ask) []string {
	s.Helper()
	reply, err := s.eval(lua.Reserve, []string{s.keys.product(s.product), s.keys.open(s.product)}, argv(asks, 3)...)
	if err != nil {
		s.Fatalf("reserve %v: %v", asks, err)
	}
	return strings.Split(reply.(string), ";")[1:]
}

// rawApply calls the apply script and returns its letters.
func (s shop) rawApply(asks ...ask) string {
	s.Helper()
	reply, err := s.eval(lua.Apply, []string{s.keys.product(s.product)}, argv(asks, 4)...)
	if err != nil {
		s.Fatalf("apply %v: %v", asks, err)
	}
	return reply.(string)
}

// argv lays asks out as the scripts want them: one array after the other.
func argv(asks []ask, arrays int) []string {
	out := make([]string, arrays*len(asks))
	for i, a := range asks {
		for k, v := range []string{userPrefix + a.user, a.id, a.quantity, a.state}[:arrays] {
			out[k*len(asks)+i] = v
		}
	}
	return out
}

// id returns the n-th reservation ID: the same one for the same n.
func id(n int) string {
	const digits = "abcdefghijklmnopqrstuvwxyz234567"
	b := []byte(strings.Repeat("a", 26))
	for i := len(b) - 2; n > 0; i-- { // the last carries three bits only
		b[i] = digits[n%32]
		n /= 32
	}
	return string(b)
}

// randomID returns an ID that looks like a real one.
func randomID(r *rand.Rand) string {
	var b [16]byte
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding).EncodeToString(b[:])
}

// row is a row of the ledger.
func row(user string, n int, quantity int64, state State) Reservation {
	return Reservation{
		ID: id(n), ProductID: "p1", UserID: user, Quantity: quantity, State: state,
		At: time.UnixMilli(1700000000000).UTC(),
	}
}

// eventually polls until done holds.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !done() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}
