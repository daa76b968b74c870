package bench

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/leadingpeers/seckill/internal/bench/figures"
	"github.com/leadingpeers/seckill/internal/bench/load"
	"github.com/leadingpeers/seckill/internal/bench/site"
	"github.com/leadingpeers/seckill/pkg/stock"
)

// memory fills a product with many buyers, one reservation each.
func memory(ctx context.Context, b *bench) error {
	sale, err := b.site.Sale(ctx, 1, plenty)
	if err != nil {
		return err
	}
	product := sale.Products[0]
	key := b.site.Prefix + ":{" + product + "}"
	empty, err := b.site.Redis.MemoryUsage(ctx, key, 0).Result()
	if err != nil {
		return err
	}
	if err := b.fill(ctx, product); err != nil {
		return err
	}
	hash, err := b.site.Redis.MemoryUsage(ctx, key, 0).Result()
	if err != nil {
		return err
	}
	open, err := b.site.Redis.MemoryUsage(ctx, key+":open", 0).Result()
	if err != nil {
		return err
	}
	taken, err := b.site.Taken(ctx, sale)
	if err != nil {
		return err
	}
	if taken != int64(b.Reservations) {
		return fmt.Errorf("the books do not balance: %d reserved, Redis has given %d", b.Reservations, taken)
	}
	n := float64(b.Reservations)
	b.section.Figures = append(b.section.Figures, figures.Figure{
		Name: "memory_bytes", What: "MEMORY USAGE of " + strconv.Itoa(b.Reservations) + " reservations of as many buyers (names of 8 characters), hash and list, each",
		Unit: "bytes", Subject: []float64{float64(hash-empty+open) / n}, Goal: "<=130",
	})
	b.section.Notes = append(b.section.Notes, fmt.Sprintf("hash %.1f, list %.1f bytes each", float64(hash-empty)/n, float64(open)/n))
	return b.site.Flush(ctx, sale)
}

// fill makes b.Reservations reservations, each of another buyer.
func (b *bench) fill(ctx context.Context, product string) error {
	next := make(chan int, b.Callers)
	faults := make(chan error, b.Callers)
	var wg sync.WaitGroup
	for range b.Callers {
		wg.Go(func() {
			for i := range next {
				_, _, err := b.site.Cache.Reserve(ctx, stock.Reservation{ID: reservationID(), ProductID: product, UserID: fmt.Sprintf("u%07d", i), Quantity: 1})
				if err != nil {
					select {
					case faults <- err:
					default:
					}
				}
			}
		})
	}
	for i := range b.Reservations {
		next <- i
	}
	close(next)
	wg.Wait()
	close(faults)
	return <-faults
}

const (
	crowded  = 2048                   // connections under overload
	patience = time.Second            // of a buyer
	slice    = 100 * time.Millisecond // of the recovery
	wellFor  = 10                     // slices without a bad one: all is well
)

// overload finds the gateway's peak, offers two and three times that, and half
// of it before and after, to see how soon all is well again and what well is.
func overload(ctx context.Context, b *bench) error {
	goodput := figures.Figure{Name: "overload_goodput", What: "accepted a second when three times the peak is offered", Against: "the peak, offered by as many connections as are answered", Unit: "/s", Goal: ">=0.9"}
	p99 := figures.Figure{Name: "overload_p99", What: "accept p99 when twice the peak is offered", Unit: "ms", Goal: "<=1000"}
	recovery := figures.Figure{Name: "overload_recovery", What: "after three times the peak half of it is offered: until no accepted answer of a second has taken 100 ms and nobody was turned away", Unit: "s", Goal: "<=2"}
	growth := figures.Figure{Name: "overload_rss", What: "most memory of the gateway's process afterwards", Unit: "MB"}
	f, err := b.fronts(ctx, noOpSize)
	if err != nil {
		return err
	}
	t := figures.Table{Title: "Overload, " + strconv.Itoa(crowded) + " connections, buyers who wait " + patience.String(), Columns: []string{"offered", "sent/s", "accepted/s", "503/s", "gave up/s", "accept p50 ms", "accept p99 ms", "503 p99 ms", "bad of 100 ms"}}
	var before, after load.Result
	err = b.repeat(ctx, func(ctx context.Context) error {
		peak, err := f.sell(ctx, 1, unchanged)
		if err != nil {
			return err
		}
		most := float64(peak.Accepted) / peak.Seconds
		offer := func(times float64) (load.Result, error) {
			r, err := f.sell(ctx, 1, func(s *load.Spec) { s.Conns, s.Rate, s.Patience, s.Slice = crowded, times*most, patience, slice })
			t.Rows = append(t.Rows, overloadRow(times, r.Result))
			return r.Result, err
		}
		if before, err = offer(0.5); err != nil {
			return err
		}
		double, err := offer(2)
		if err != nil {
			return err
		}
		triple, err := offer(3)
		if err != nil {
			return err
		}
		if after, err = offer(0.5); err != nil {
			return err
		}
		goodput.Add(float64(triple.Accepted)/triple.Seconds, most)
		p99.Subject = append(p99.Subject, double.Accept.P99)
		recovery.Subject = append(recovery.Subject, recovered(after))
		return nil
	})
	if err != nil {
		return err
	}
	resident, err := site.ResidentMB(f.gateway.PID())
	growth.Subject = []float64{resident}
	b.section.Figures = append(b.section.Figures, goodput, p99, recovery, growth)
	b.section.Tables = append(b.section.Tables, t)
	b.section.Charts = append(b.section.Charts, figures.Chart{
		Title: "Worst answer of each 100 ms at half of the peak, last repeat", X: "seconds", Y: "ms", LogY: true,
		Lines: []figures.Line{worst("before the overload", before), worst("after it", after)},
	})
	return err
}

func worst(name string, r load.Result) figures.Line {
	l := figures.Line{Name: name}
	for i, s := range r.Slices {
		l.Points = append(l.Points, figures.Point{X: float64(i) * slice.Seconds(), Y: s.WorstMS})
	}
	return l
}

func overloadRow(times float64, r load.Result) []string {
	per := func(n int64) string { return fmt.Sprintf("%.0f", float64(n)/r.Seconds) }
	return []string{
		fmt.Sprintf("%.1f ×", times), per(r.Answered()), per(r.Accepted), per(r.Busy), per(r.Late),
		fmt.Sprintf("%.1f", r.Accept.P50), fmt.Sprintf("%.1f", r.Accept.P99), fmt.Sprintf("%.1f", r.Refuse.P99),
		strconv.Itoa(ill(r.Slices)) + " of " + strconv.Itoa(len(r.Slices)),
	}
}

// ill counts the bad slices.
func ill(all []load.Slice) (n int) {
	for _, s := range all {
		if s.WorstMS >= 100 || s.Busy > 0 || s.Late > 0 {
			n++
		}
	}
	return n
}

// recovered is when the first wellFor good slices in a row began, in seconds;
// the whole time when there are none. A bad one later is not of the overload:
// half of the peak may have some before it, too, which the table counts beside.
func recovered(r load.Result) float64 {
	for i := range len(r.Slices) - wellFor + 1 {
		if ill(r.Slices[i:i+wellFor]) == 0 {
			return float64(i) * slice.Seconds()
		}
	}
	return float64(len(r.Slices)) * slice.Seconds()
}
