package load

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/leadingpeers/seckill/internal/mysql"
)

// Prober buys one unit of a product of its own again and again, and notes how
// long the ledger takes to hear of it.
type Prober struct {
	Buyers  *Buyers // for its line and journal
	DB      *sql.DB
	Product string

	mu      sync.Mutex
	waiting map[string]time.Time // ID → when it was asked for
	done    []Probe
}

// Probe is a reservation that the ledger has.
type Probe struct{ Asked, Decided time.Time }

// Run probes until ctx ends.
func (p *Prober) Run(ctx context.Context) {
	p.waiting = map[string]time.Time{}
	var all sync.WaitGroup
	defer all.Wait()
	ask, look := time.NewTicker(300*time.Millisecond), time.NewTicker(100*time.Millisecond)
	defer ask.Stop()
	defer look.Stop()
	slots := make(chan struct{}, 32)
	for n := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-ask.C:
			select {
			case slots <- struct{}{}:
				n++
				all.Go(func() {
					defer func() { <-slots }()
					p.ask(ctx, n)
				})
			default: // nothing comes through
			}
		case <-look.C:
			p.look(ctx)
		}
	}
}

func (p *Prober) ask(ctx context.Context, n int) {
	w := wish{product: p.Product, user: fmt.Sprint("probe-", n), key: fmt.Sprintf("probe-key-%08d", n), quantity: 1}
	start := time.Now()
	b := p.Buyers
	a, err := b.Line.Send(ctx, n, Ask{"POST", b.Sale.path(w.product) + "/reservations", fmt.Appendf(nil, `{"user_id":%q,"quantity":1}`, w.user), w.key})
	if err != nil || a.Status != 202 {
		return
	}
	b.accepted(w, a)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting[a.ReservationID] = start
}

// look asks the ledger about all that is waited for.
func (p *Prober) look(ctx context.Context) {
	p.mu.Lock()
	var ids []any
	for id := range p.waiting {
		ids = append(ids, mysql.ID(id))
	}
	p.mu.Unlock()
	if len(ids) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	rows, err := p.DB.QueryContext(ctx, "SELECT reservation_id FROM reservations WHERE reservation_id IN (?"+strings.Repeat(",?", len(ids)-1)+")", ids...)
	if err != nil {
		return // MySQL may be down on purpose
	}
	defer func() { _ = rows.Close() }()
	now := time.Now()
	for rows.Next() {
		var id mysql.ID
		if rows.Scan(&id) != nil {
			return
		}
		p.mu.Lock()
		p.done = append(p.done, Probe{p.waiting[string(id)], now})
		delete(p.waiting, string(id))
		p.mu.Unlock()
	}
	_ = rows.Err()
}

// Recovery is how long after a moment the first probe that was sent after it
// was in the ledger.
func (p *Prober) Recovery(after time.Time) (time.Duration, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	first := time.Time{}
	for _, d := range p.done {
		if !d.Asked.Before(after) && (first.IsZero() || d.Decided.Before(first)) {
			first = d.Decided
		}
	}
	return first.Sub(after), !first.IsZero()
}
