package stockworker_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/leadingpeers/seckill/internal/stockworker"
	"github.com/leadingpeers/seckill/pkg/catalog"
	"github.com/leadingpeers/seckill/pkg/stock"
)

// fakeBooks are the counts of product p, in the ledger and in Redis.
type fakeBooks struct {
	mu      sync.Mutex
	stock   stock.Stock
	balance stock.Balance
	moving  int64
	err     error // of reading Redis
	closed  bool
	did     []string
}

func (b *fakeBooks) Stock(context.Context, string) (stock.Stock, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.stock, nil
}

func (b *fakeBooks) Moving(context.Context, string, time.Duration) (stock.Moving, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return stock.Moving{Available: b.stock.Available, Units: b.moving}, nil
}

func (b *fakeBooks) Close(_ context.Context, id string, why any) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.did = append(b.did, fmt.Sprintf("close %s %v", id, why))
	was := b.closed
	b.closed = true
	return !was, nil
}

func (b *fakeBooks) Balance(context.Context, string) (stock.Balance, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.balance, b.err
}

func (b *fakeBooks) Configure(_ context.Context, terms stock.Terms) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.did = append(b.did, fmt.Sprintf("configure %s %t", terms.ProductID, terms.OnSale))
	return nil
}

func (b *fakeBooks) Heal(_ context.Context, id string, within time.Duration) (stock.Applied, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.did = append(b.did, fmt.Sprintf("heal %s %v", id, within))
	return stock.Applied{}, nil
}

// TestAuditor steps 13 times, which is a minute: the ledger's equation is
// looked at in the first and in the last of them.
func TestAuditor(t *testing.T) {
	good := stock.Stock{Total: 10, Available: 4, Deducted: 6}
	stopped := func(numbers string) []string { return []string{"close p map[" + numbers + "]", "configure p false"} }
	healed := []string{"heal p 0s"}
	drift := func(n int) []string {
		return slices.Concat(healed, stopped(fmt.Sprintf("drift:%d equation:drift readings:12 seconds:60", n)), stopped(fmt.Sprintf("drift:%d equation:drift readings:13 seconds:60", n)))
	}
	tests := []struct {
		name    string
		books   *fakeBooks
		between func(step int, b *fakeBooks) // before a step
		want    []string
		stops   float64
		why     string
	}{
		{"at rest", &fakeBooks{stock: good, balance: stock.Balance{Surplus: 4}}, nil, nil, 0, "surplus = available"},
		{"under way", &fakeBooks{stock: good, balance: stock.Balance{Surplus: 1, Pending: 3}}, nil, nil, 0, "pending units are not the ledger's yet"},
		{"moving", &fakeBooks{stock: good, balance: stock.Balance{Surplus: 2, Pending: 7}, moving: 5}, nil, nil, 0, "decided a moment ago, and Redis not told"},
		{
			"leaked in the ledger",
			&fakeBooks{stock: stock.Stock{Total: 10, Available: 3, Deducted: 6}, balance: stock.Balance{Surplus: 3}},
			nil,
			slices.Concat(stopped("available:3 deducted:6 equation:ledger missing:1 total:10"), stopped("available:3 deducted:6 equation:ledger missing:1 total:10")),
			1, "at once; the second look finds it stopped",
		},
		{
			"invented in the ledger",
			&fakeBooks{stock: stock.Stock{Total: 10, Available: 5, Deducted: 6}, balance: stock.Balance{Surplus: 5}},
			func(step int, b *fakeBooks) {
				if step > 0 {
					b.stock, b.balance = good, stock.Balance{Surplus: 4}
				}
			},
			stopped("available:5 deducted:6 equation:ledger missing:-1 total:10"), 1, "one look is enough",
		},
		{"units leaked in Redis", &fakeBooks{stock: good, balance: stock.Balance{Surplus: 2}}, nil, drift(-2), 1, "they are nobody's, in every reading of a minute"},
		{"units invented in Redis", &fakeBooks{stock: good, balance: stock.Balance{Surplus: 8, Pending: 1}, moving: 2}, nil, drift(3), 1, "beyond what moves"},
		{
			"healed", &fakeBooks{stock: good, balance: stock.Balance{Surplus: 2}},
			func(step int, b *fakeBooks) {
				if step == 11 {
					b.balance.Surplus = 4
				}
			},
			healed, 0, "within the minute",
		},
		{
			"now and then", &fakeBooks{stock: good, balance: stock.Balance{Surplus: 2}},
			func(step int, b *fakeBooks) { b.balance.Surplus = map[bool]int64{true: 4, false: 2}[step%5 == 0] },
			nil, 0, "it returns to 0 again and again",
		},
		{"not loaded", &fakeBooks{stock: good, err: stock.NotLoaded}, nil, nil, 0, "the healer's concern"},
		{"busy", &fakeBooks{stock: good, err: stock.ErrBusy}, nil, nil, 0, "too much is open for a judgement"},
		{
			"Redis away", &fakeBooks{stock: good, balance: stock.Balance{Surplus: 2}},
			func(step int, b *fakeBooks) { b.err = map[bool]error{true: errAway}[step == 4] },
			healed, 0, "what was not read is no proof",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var log bytes.Buffer
			reg := prometheus.NewRegistry()
			catalogue := &fakeCatalogue{state: catalog.Online, products: []catalog.Product{product("p")}}
			books := tt.books
			a := stockworker.NewAuditor(catalogue, books, books, stockworker.AuditorConfig{Log: slog.New(slog.NewTextHandler(&log, nil)), Registerer: reg})
			for step := range 13 {
				if tt.between != nil {
					tt.between(step, books)
				}
				if _, err := a.Step(t.Context()); err != nil && books.err == nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(tt.want, books.did); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tt.why, diff)
			}
			if got := metric(t, reg, "seckill_audit_violations_total"); got != tt.stops {
				t.Errorf("seckill_audit_violations_total %v, want %v", got, tt.stops)
			}
			if got := strings.Count(log.String(), "level=ERROR"); got != int(tt.stops) {
				t.Errorf("%d errors logged, want %v: %s", got, tt.stops, log.String())
			}
		})
	}
}
