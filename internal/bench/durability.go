package bench

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/leadingpeers/seckill/internal/bench/figures"
	"github.com/leadingpeers/seckill/pkg/events"
)

// durability changes the servers' settings for a moment and puts them back.
func durability(ctx context.Context, b *bench) error {
	always := figures.Figure{Name: "durability_always", What: "reservations a second with appendfsync always, " + strconv.Itoa(b.Callers) + " callers", Against: "the same with everysec", Unit: "/s", Goal: ">=0.8"}
	err := b.repeat(ctx, func(ctx context.Context) error {
		second, err := b.withFsync(ctx, "everysec")
		if err != nil {
			return err
		}
		each, err := b.withFsync(ctx, "always")
		if err != nil {
			return err
		}
		always.Add(each, second)
		return nil
	})
	if err != nil {
		return err
	}
	b.section.Figures = append(b.section.Figures, always)
	t := figures.Table{Title: "Durable rows a second by the server's settings, one product, one writer", Columns: []string{"innodb_flush_log_at_trx_commit", "sync_binlog", "rows/s", "of 1, 1"}}
	var full float64
	for _, set := range [][2]int{{1, 1}, {1, 0}, {2, 0}} {
		rows, err := b.withFlush(ctx, set[0], set[1])
		if err != nil {
			return err
		}
		if full == 0 {
			full = rows
		}
		t.Rows = append(t.Rows, []string{strconv.Itoa(set[0]), strconv.Itoa(set[1]), fmt.Sprintf("%.0f", rows), fmt.Sprintf("%.2f", rows/full)})
	}
	b.section.Tables = append(b.section.Tables, t)
	return b.acknowledged(ctx)
}

func (b *bench) withFsync(ctx context.Context, policy string) (perSecond float64, err error) {
	was, err := b.site.Redis.ConfigGet(ctx, "appendfsync").Result()
	if err != nil {
		return 0, err
	}
	if err := b.site.Redis.ConfigSet(ctx, "appendfsync", policy).Err(); err != nil {
		return 0, err
	}
	defer func() {
		err = errors.Join(err, b.site.Redis.ConfigSet(context.WithoutCancel(ctx), "appendfsync", was["appendfsync"]).Err())
	}()
	r, err := b.reservations(ctx, b.site.Cache, b.Duration)
	return r.perSecond, err
}

func (b *bench) withFlush(ctx context.Context, flush, binlog int) (perSecond float64, err error) {
	var wasFlush, wasBinlog int
	if err := b.site.DB.QueryRowContext(ctx, "SELECT @@innodb_flush_log_at_trx_commit, @@sync_binlog").Scan(&wasFlush, &wasBinlog); err != nil {
		return 0, err
	}
	set := func(ctx context.Context, flush, binlog int) error {
		_, err1 := b.site.DB.ExecContext(ctx, "SET GLOBAL innodb_flush_log_at_trx_commit = ?", flush)
		_, err2 := b.site.DB.ExecContext(ctx, "SET GLOBAL sync_binlog = ?", binlog)
		return errors.Join(err1, err2)
	}
	defer func() { err = errors.Join(err, set(context.WithoutCancel(ctx), wasFlush, wasBinlog)) }()
	if err := set(ctx, flush, binlog); err != nil {
		return 0, err
	}
	var rates []float64
	for range b.Repeats {
		r, err := b.deduct(ctx, b.site.Ledger, "bench-flush")
		if err != nil {
			return 0, err
		}
		rates = append(rates, r)
	}
	return figures.Median(rates), nil
}

// acknowledged measures what a buyer waits for: Kafka's acknowledgement by all
// in-sync copies, with one copy of each record and, where there are three
// brokers, with three.
func (b *bench) acknowledged(ctx context.Context) error {
	brokers := len(b.site.Kafka.Brokers)
	t := figures.Table{
		Title:   fmt.Sprintf("Reservations published a second by copies of each record, acks from all of them, %d broker(s), %d callers", brokers, b.Callers),
		Columns: []string{"copies", "events/s", "p50 ms", "p99 ms"},
	}
	for _, copies := range []int{1, 3} {
		if copies > brokers {
			b.section.Notes = append(b.section.Notes, fmt.Sprintf("%d copies of each record need as many brokers, and there are %d", copies, brokers))
			continue
		}
		cfg := b.site.Kafka
		cfg.Prefix += ".copies" + strconv.Itoa(copies) // its topics go with the site's
		if err := events.Apply(ctx, cfg, events.Overrides{Replication: copies}); err != nil {
			return err
		}
		var rates, p50, p99 []float64
		for i := range b.Repeats + 1 {
			p, err := b.publish(ctx, cfg)
			if err != nil {
				return err
			}
			if i > 0 { // the first warms the brokers up
				rates, p50, p99 = append(rates, p.perSecond), append(p50, p.p50), append(p99, p.p99)
			}
		}
		t.Rows = append(t.Rows, []string{
			strconv.Itoa(copies), fmt.Sprintf("%.0f", figures.Median(rates)), fmt.Sprintf("%.2f", figures.Median(p50)), fmt.Sprintf("%.2f", figures.Median(p99)),
		})
	}
	b.section.Tables = append(b.section.Tables, t)
	return nil
}

// published is what callers of a publisher got; times in milliseconds.
type published struct{ perSecond, p50, p99 float64 }

// publish lets callers publish one event after the other, and counts in Kafka
// what they were told is there.
func (b *bench) publish(ctx context.Context, cfg events.ClientConfig) (published, error) {
	before, err := ends(ctx, cfg)
	if err != nil {
		return published{}, err
	}
	p := events.NewPublisher(events.PublisherConfig{ClientConfig: cfg, Now: time.Now})
	var count atomic.Int64
	var wg sync.WaitGroup
	faults, waits := make(chan error, b.Callers), make([]*hdrhistogram.Histogram, b.Callers)
	began := time.Now()
	for caller := range b.Callers {
		wait := hdrhistogram.New(1, time.Minute.Microseconds(), 3)
		waits[caller] = wait
		wg.Go(func() {
			for time.Since(began) < b.Duration && ctx.Err() == nil {
				start := time.Now()
				err := p.Publish(ctx, events.Event{
					Type: events.ReservationCreated, Time: start, ReservationID: reservationID(),
					ActivityID: "bench", ProductID: "bench", UserID: "u" + strconv.Itoa(caller), Quantity: 1,
				})
				if err != nil {
					faults <- err
					return
				}
				_ = wait.RecordValue(time.Since(start).Microseconds()) // a minute is past every time-out
				count.Add(1)
			}
		})
	}
	wg.Wait()
	seconds := time.Since(began).Seconds()
	close(faults)
	after, err := ends(ctx, cfg)
	if err := errors.Join(err, <-faults, p.Close(ctx)); err != nil {
		return published{}, err
	}
	if told := count.Load(); after-before != told || told == 0 {
		return published{}, fmt.Errorf("the books do not balance: callers were told of %d events, Kafka has %d", told, after-before)
	}
	for _, w := range waits[1:] {
		waits[0].Merge(w)
	}
	ms := func(q float64) float64 { return float64(waits[0].ValueAtQuantile(q)) / 1e3 }
	return published{float64(count.Load()) / seconds, ms(50), ms(99)}, nil
}

// ends sums the ends of the reservations' partitions. Just after its start a
// broker may not know yet who coordinates a group, not even of nobody's.
func ends(ctx context.Context, cfg events.ClientConfig) (sum int64, err error) {
	for range 50 {
		var lags []events.PartitionLag
		if lags, err = events.Lag(ctx, cfg, "nobody", events.Reservations); err == nil {
			for _, l := range lags {
				sum += l.End
			}
			return sum, nil
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	return 0, err
}
