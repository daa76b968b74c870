package stockworker

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
	"github.com/leadingpeers/seckill/pkg/stock"
)

// AuditLedger is the ledger as the Auditor sees it. *stock.Ledger is one.
type AuditLedger interface {
	Stock(ctx context.Context, productID string) (stock.Stock, error)
	Moving(ctx context.Context, productID string, within time.Duration) (stock.Moving, error)
	Close(ctx context.Context, productID string, why any) (changed bool, err error)
}

// AuditShelf is Redis as the Auditor sees it, with the ledger behind it.
// [NewShelf] makes the real one.
type AuditShelf interface {
	Balance(ctx context.Context, productID string) (stock.Balance, error)
	Configure(ctx context.Context, terms stock.Terms) error
	Heal(ctx context.Context, productID string, within time.Duration) (stock.Applied, error)
}

// AuditorConfig says how often the books are compared. The zero value is good.
type AuditorConfig struct {
	Every      time.Duration         // between two checks of the ledger's equation; default 1 min. Each sums all deducted reservations
	DriftEvery time.Duration         // between two readings of the drift; default 5 s
	DriftFor   time.Duration         // how long a drift may last: every reading in this time shows one; default 60 s
	Moving     time.Duration         // how long Redis may not have been told of a decision of the ledger; default 15 s
	Log        *slog.Logger          // default: none
	Registerer prometheus.Registerer // of seckill_audit_* and the loop's metrics; nil = none
}

// Auditor stops a product whose books are wrong, before more of it is sold. It
// knows two equations:
//
//   - available + Σ deducted = total, in one snapshot of the ledger. It holds
//     at every instant, and one look is enough.
//   - drift = surplus + Σ pending − available is 0. Redis and the ledger are
//     never read at the same moment, so a drift counts only as far as it is
//     greater than the units that the ledger moved lately, and only when no
//     reading in DriftFor was free of it. Half way the product is healed.
//
// A violation closes the product in the ledger, then in Redis; metrics, the log
// and the audit trail have the numbers. An operator opens it again. Several
// copies side by side are harmless.
type Auditor struct {
	catalogue  Catalogue
	ledger     AuditLedger
	shelf      AuditShelf
	cfg        AuditorConfig
	loop       *loop.Loop
	violations *prometheus.CounterVec
	drifting   prometheus.Gauge

	rounds  int
	suspect map[string]int // product → readings in a row that showed a drift
}

// NewAuditor returns an Auditor that is not running yet.
func NewAuditor(catalogue Catalogue, ledger AuditLedger, shelf AuditShelf, cfg AuditorConfig) *Auditor {
	cfg.Every = cmp.Or(cfg.Every, time.Minute)
	cfg.DriftEvery = cmp.Or(cfg.DriftEvery, 5*time.Second)
	cfg.DriftFor = cmp.Or(cfg.DriftFor, time.Minute)
	cfg.Moving = cmp.Or(cfg.Moving, 15*time.Second)
	cfg.Log = cmp.Or(cfg.Log, slog.New(slog.DiscardHandler))
	a := &Auditor{
		catalogue: catalogue, ledger: ledger, shelf: shelf, cfg: cfg, suspect: make(map[string]int),
		loop: loop.New(loop.Config{Name: "auditor", Every: cfg.DriftEvery, Timeout: -1, Log: cfg.Log, Registerer: cfg.Registerer}),
		violations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "seckill_audit_violations_total",
			Help: "Products stopped because their books were wrong, by equation (ledger, drift).",
		}, []string{"equation"}),
		drifting: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "seckill_audit_drift_units",
			Help: "Units by which Redis and the ledger differ beyond what is moving, over all products, at the last reading.",
		}),
	}
	for _, equation := range []string{"ledger", "drift"} {
		a.violations.WithLabelValues(equation) // an alert needs to see 0 first
	}
	register(cfg.Registerer, a.violations, a.drifting)
	return a
}

// Run audits until ctx ends, and then returns nil.
func (a *Auditor) Run(ctx context.Context) error { return a.loop.Run(ctx, a.Step) }

// Step reads the drift of every product that is listed as on sale, and checks
// the ledger's equation when it is time; it never has more to do. Run calls it;
// by itself it is for tests. It must not run beside itself.
func (a *Auditor) Step(ctx context.Context) (more bool, err error) {
	listings, err := a.catalogue.OnSale(ctx)
	if err != nil {
		return false, fmt.Errorf("list what is on sale: %w", err)
	}
	var wares []stock.Terms
	for _, l := range listings {
		for _, p := range l.Products {
			wares = append(wares, terms(l.Activity, p))
		}
	}
	whole := a.rounds%max(1, int(a.cfg.Every/a.cfg.DriftEvery)) == 0
	a.rounds++
	errs := make([]error, len(wares))
	drifts := make([]int64, len(wares))
	each(len(wares), inParallel, func(i int) {
		if whole {
			errs[i] = a.equation(ctx, wares[i])
		}
		var err error
		drifts[i], err = a.drift(ctx, wares[i].ProductID)
		errs[i] = errors.Join(errs[i], err)
	})
	return false, errors.Join(firstOf(errs), a.judge(ctx, wares, drifts))
}

// equation checks the ledger's own equation of a product.
func (a *Auditor) equation(ctx context.Context, w stock.Terms) error {
	s, err := a.ledger.Stock(ctx, w.ProductID)
	if errors.Is(err, stock.ErrNotFound) {
		return nil // deleted meanwhile
	}
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	if s.Balanced() {
		return nil
	}
	return a.stop(ctx, w, "ledger", map[string]any{
		"total": s.Total, "available": s.Available, "deducted": s.Deducted, "missing": s.Total - s.Available - s.Deducted,
	})
}

// drift is by how many units Redis and the ledger differ beyond what may be on
// its way between them. What cannot be read has none.
func (a *Auditor) drift(ctx context.Context, productID string) (int64, error) {
	b, err := a.shelf.Balance(ctx, productID)
	if errors.Is(err, stock.NotLoaded) || errors.Is(err, stock.ErrBusy) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("audit: %w", err)
	}
	// The ledger is read last: what has moved since Redis was read is among what moved lately.
	m, err := a.ledger.Moving(ctx, productID, a.cfg.Moving)
	if errors.Is(err, stock.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("audit: %w", err)
	}
	switch d := b.Surplus + b.Pending - m.Available; {
	case d > m.Units:
		return d - m.Units, nil
	case d < -m.Units:
		return d + m.Units, nil
	}
	return 0, nil
}

// judge counts the readings that show a drift, heals the product half way, and
// stops it at last.
func (a *Auditor) judge(ctx context.Context, wares []stock.Terms, drifts []int64) error {
	limit := max(2, int(a.cfg.DriftFor/a.cfg.DriftEvery))
	before := a.suspect
	a.suspect = make(map[string]int)
	var sum int64
	var mu sync.Mutex
	errs := make([]error, len(wares))
	each(len(wares), inParallel, func(i int) {
		id, d := wares[i].ProductID, drifts[i]
		if d == 0 {
			return
		}
		n := before[id] + 1
		mu.Lock()
		a.suspect[id] = n
		sum += max(d, -d)
		mu.Unlock()
		switch {
		case n == limit/2:
			a.cfg.Log.Warn("Redis differs from the ledger, healing the product", "product", id, "drift", d, "readings", n)
			_, errs[i] = a.shelf.Heal(ctx, id, 0)
		case n >= limit:
			errs[i] = a.stop(ctx, wares[i], "drift", map[string]any{"drift": d, "readings": n, "seconds": a.cfg.DriftFor.Seconds()})
		}
	})
	a.drifting.Set(float64(sum))
	return firstOf(errs)
}

// stop closes a product in the ledger, then in Redis.
func (a *Auditor) stop(ctx context.Context, w stock.Terms, equation string, numbers map[string]any) error {
	numbers["equation"] = equation
	changed, err := a.ledger.Close(ctx, w.ProductID, numbers)
	if err != nil {
		return fmt.Errorf("stop %s, whose books are wrong (%v): %w", w.ProductID, numbers, err)
	}
	if changed {
		a.violations.WithLabelValues(equation).Inc()
		a.cfg.Log.Error("the books of a product are wrong: it is stopped until an operator reopens it",
			"product", w.ProductID, "equation", equation, "numbers", numbers)
	}
	w.OnSale = false
	if err := a.shelf.Configure(ctx, w); err != nil && !errors.Is(err, stock.NotLoaded) {
		return fmt.Errorf("close %s in Redis: %w", w.ProductID, err)
	}
	return nil
}
