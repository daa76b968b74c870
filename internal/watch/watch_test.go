package watch

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/leadingpeers/seckill/pkg/catalog"
	"github.com/leadingpeers/seckill/pkg/order"
	"github.com/leadingpeers/seckill/pkg/stock"
)

// shop is one activity with some products, and the three accounts of them.
type shop struct {
	state    catalog.ActivityState
	products []catalog.Product
	cache    []stock.Waiting // one for each look, the last stays
	looks    int
	away     error // of Redis
	ledger   stock.Stock
	orders   order.Counts
}

func (s *shop) OnSale(context.Context) ([]catalog.Listing, error) {
	return []catalog.Listing{{Activity: catalog.Activity{State: s.state}, Products: s.products}}, nil
}

func (s *shop) Waiting(context.Context, string) (stock.Waiting, error) {
	if s.away != nil {
		return stock.Waiting{}, s.away
	}
	w := s.cache[min(s.looks, len(s.cache)-1)]
	s.looks++
	return w, nil
}

func (s *shop) Stock(context.Context, string) (stock.Stock, error)   { return s.ledger, nil }
func (s *shop) Counts(context.Context, string) (order.Counts, error) { return s.orders, nil }

func phone() []catalog.Product { return []catalog.Product{{ID: "phone", ActivityID: "sale"}} }

func TestBooks(t *testing.T) {
	balanced := stock.Stock{Total: 10, Available: 7, Deducted: 3}
	tests := []struct {
		name string
		shop shop
		want map[string]string // metric and labels, as exported
		none []string
		why  string
	}{
		{
			name: "balanced", shop: shop{state: catalog.Online, products: phone(), cache: []stock.Waiting{{Surplus: 5, Units: 2, Oldest: 1500 * time.Millisecond}}, ledger: balanced, orders: order.Counts{Paid: order.Tally{Units: 2}, Awaiting: order.Tally{Units: 1}}},
			want: map[string]string{
				`units{account="surplus",activity="sale",product="phone"}`: "5", `units{account="pending",activity="sale",product="phone"}`: "2",
				`units{account="available",activity="sale",product="phone"}`: "7", `units{account="paid",activity="sale",product="phone"}`: "2",
				`drift_units{activity="sale",product="phone"}`: "0", `pending_oldest_seconds{activity="sale",product="phone"}`: "1.5",
				`loaded{activity="sale",product="phone"}`: "1", `ledger_imbalance_units{activity="sale",product="phone"}`: "0",
			}, why: "what every panel of the books shows",
		},
		{
			name: "under way", shop: shop{state: catalog.Online, products: phone(), cache: []stock.Waiting{{Surplus: 9}, {Surplus: 8}, {Surplus: 7}}, ledger: balanced},
			want: map[string]string{`drift_units{activity="sale",product="phone"}`: "0"}, why: "a decision between the ledger and Redis is no drift",
		},
		{
			name: "drift", shop: shop{state: catalog.Online, products: phone(), cache: []stock.Waiting{{Surplus: 4}}, ledger: balanced},
			want: map[string]string{`drift_units{activity="sale",product="phone"}`: "-3"}, why: "what stays at every look is one",
		},
		{
			name: "broken", shop: shop{state: catalog.Online, products: phone(), cache: []stock.Waiting{{Surplus: 7}}, ledger: stock.Stock{Total: 2, Available: 7, Deducted: 3}},
			want: map[string]string{
				`ledger_imbalance_units{activity="sale",product="phone"}`: "-8", `oversold_units{activity="sale",product="phone"}`: "1",
			}, why: "these page",
		},
		{
			name: "not loaded", shop: shop{state: catalog.Online, products: phone(), away: stock.NotLoaded, ledger: balanced},
			want: map[string]string{`loaded{activity="sale",product="phone"}`: "0"}, none: []string{"drift_units", `account="surplus"`},
			why: "what is not there is no difference of everything",
		},
		{
			name: "ended and flushed", shop: shop{state: catalog.Ended, products: phone(), away: stock.NotLoaded, ledger: balanced},
			want: map[string]string{`units{account="deducted",activity="sale",product="phone"}`: "3"}, none: []string{"seckill_books_loaded"},
			why: "only what is online belongs into Redis",
		},
		{
			name: "too many", shop: shop{products: append(phone(), catalog.Product{ID: "b"}, catalog.Product{ID: "c"}), cache: []stock.Waiting{{Surplus: 7}}, ledger: balanced},
			want: map[string]string{"left_out_products": "1"}, none: []string{`product="c"`}, why: "the number of series is bounded",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				reg := prometheus.NewRegistry()
				s := &tt.shop
				w := New(Stores{s, s, s, s}, Config{Products: 2, Now: time.Now, Registerer: reg})
				if _, err := w.Step(t.Context()); err != nil {
					t.Fatal(err)
				}
				text := export(t, reg)
				for name, want := range tt.want {
					if !strings.Contains(text, "seckill_books_"+name+" "+want+"\n") {
						t.Errorf("no %s %s: %s\n%s", name, want, tt.why, text)
					}
				}
				for _, name := range tt.none {
					if strings.Contains(text, name) {
						t.Errorf("%s is exported: %s\n%s", name, tt.why, text)
					}
				}
			})
		})
	}
}

func TestOutageKeepsTheFiguresAndTheirAge(t *testing.T) {
	now := time.Unix(1000, 0)
	s := &shop{products: phone(), cache: []stock.Waiting{{Surplus: 7}}, ledger: stock.Stock{Total: 7, Available: 7}}
	reg := prometheus.NewRegistry()
	w := New(Stores{s, s, s, s}, Config{Now: func() time.Time { return now }, Registerer: reg})
	step := func() error {
		_, err := w.Step(t.Context())
		return err
	}
	if err := step(); err != nil {
		t.Fatal(err)
	}
	s.away, now = errors.New("away"), now.Add(time.Second)
	if err := step(); err != nil {
		t.Errorf("a step before its time reads the stores: %v", err)
	}
	now = now.Add(time.Minute)
	if err := step(); err == nil {
		t.Error("an outage is not reported")
	}
	text := export(t, reg)
	for _, want := range []string{`seckill_books_measured_timestamp_seconds 1000`, `seckill_books_units{account="surplus",activity="sale",product="phone"} 7`} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	s.away, s.products = nil, nil
	if err := step(); err != nil {
		t.Fatal(err)
	}
	if text := export(t, reg); strings.Contains(text, "phone") {
		t.Errorf("the series of a product stay when it is no longer listed:\n%s", text)
	}
}

// export is the metrics as Prometheus reads them.
func export(t *testing.T, reg *prometheus.Registry) string {
	t.Helper()
	rec := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if rec.Code != http.StatusOK {
		t.Fatalf("status %d: %s", rec.Code, rec.Body)
	}
	return rec.Body.String()
}
