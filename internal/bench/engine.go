package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leadingpeers/seckill/internal/bench/figures"
	"github.com/leadingpeers/seckill/internal/bench/reference"
	"github.com/leadingpeers/seckill/internal/bench/site"
	"github.com/leadingpeers/seckill/pkg/stock"
)

// rate is one side's repeat of the engine.
type rate struct{ perSecond, redisMicros float64 }

// engine needs the program redis-benchmark.
func engine(ctx context.Context, b *bench) error {
	const against = "redis-benchmark EVALSHA of the seed's script, 50 connections, no pipelining"
	speed := figures.Figure{Name: "engine_rate", What: "reservations a second, one product, " + strconv.Itoa(b.Callers) + " callers", Against: against, Unit: "/s", Goal: ">=5"}
	cpu := figures.Figure{Name: "engine_redis_cpu", What: "CPU of Redis's main thread for a reservation", Against: against, Unit: "µs", Goal: "<=0.2"}
	defer b.confine()()
	err := b.repeat(ctx, func(ctx context.Context) error {
		theirs, err := b.redisBenchmark(ctx)
		if err != nil {
			return fmt.Errorf("reference: %w", err)
		}
		ours, err := b.reservations(ctx, b.site.Cache, b.Duration)
		if err != nil {
			return err
		}
		speed.Add(ours.perSecond, theirs.perSecond)
		cpu.Add(ours.redisMicros, theirs.redisMicros)
		return nil
	})
	b.section.Figures = append(b.section.Figures, speed, cpu)
	return err
}

// confine keeps our own goroutines to as many cores as the children get.
func (b *bench) confine() (undo func()) {
	if b.Site.Cores.Subject <= 0 {
		return func() {}
	}
	before := runtime.GOMAXPROCS(b.Site.Cores.Subject)
	return func() { runtime.GOMAXPROCS(before) }
}

// reserver takes units. *stock.Cache is one.
type reserver interface {
	Reserve(ctx context.Context, r stock.Reservation) (stock.Reservation, bool, error)
}

// reservations calls the engine from all callers and checks the books.
func (b *bench) reservations(ctx context.Context, engine reserver, duration time.Duration) (_ rate, err error) {
	sale, err := b.site.Sale(ctx, 1, stock.MaxQuantity)
	if err != nil {
		return rate{}, err
	}
	defer func() { err = errors.Join(err, b.site.Flush(ctx, sale)) }()
	before, err := site.RedisCPU(ctx, b.site.Redis)
	if err != nil {
		return rate{}, err
	}
	taken, elapsed, err := b.call(ctx, engine, sale.Products[0], duration)
	if err != nil {
		return rate{}, err
	}
	after, err := site.RedisCPU(ctx, b.site.Redis)
	if err != nil {
		return rate{}, err
	}
	redis, err := b.site.Taken(ctx, sale)
	if err != nil {
		return rate{}, err
	}
	if redis != taken || taken == 0 {
		return rate{}, fmt.Errorf("the books do not balance: callers were promised %d, Redis has given %d", taken, redis)
	}
	return rate{float64(taken) / elapsed.Seconds(), (after - before) * 1e6 / float64(taken)}, nil
}

func (b *bench) call(ctx context.Context, engine reserver, product string, duration time.Duration) (taken int64, elapsed time.Duration, err error) {
	var count atomic.Int64
	var wg sync.WaitGroup
	faults := make(chan error, b.Callers)
	began := time.Now()
	for caller := range b.Callers {
		wg.Go(func() {
			for i := 0; time.Since(began) < duration && ctx.Err() == nil; i++ {
				_, _, err := engine.Reserve(ctx, stock.Reservation{
					ID: reservationID(), ProductID: product, UserID: "u" + strconv.Itoa(caller) + "-" + strconv.Itoa(i), Quantity: 1,
				})
				if err != nil {
					faults <- err
					return
				}
				count.Add(1)
			}
		})
	}
	wg.Wait()
	elapsed = time.Since(began)
	close(faults)
	return count.Load(), elapsed, <-faults
}

// redisBenchmark measures the seed's script. The key is our own.
func (b *bench) redisBenchmark(ctx context.Context) (_ rate, err error) {
	key := b.site.Prefix + ":seed"
	sha, err := b.site.Redis.ScriptLoad(ctx, reference.SeedScript).Result()
	if err != nil {
		return rate{}, err
	}
	if err := b.site.Redis.HSet(ctx, key, reference.SurplusField, stock.MaxQuantity, reference.RestrictionField, 5).Err(); err != nil {
		return rate{}, err
	}
	defer func() { err = errors.Join(err, b.site.Redis.Del(ctx, key).Err()) }()
	host, port, err := net.SplitHostPort(b.Site.Servers.Redis)
	if err != nil {
		return rate{}, err
	}
	n := int(b.Duration.Seconds() * 40_000) // about as long as our side on a small machine
	before, err := site.RedisCPU(ctx, b.site.Redis)
	if err != nil {
		return rate{}, err
	}
	out, err := exec.CommandContext(ctx, "redis-benchmark", "-h", host, "-p", port, "-c", "50", "-P", "1", "-n", strconv.Itoa(n), "--csv",
		"EVALSHA", sha, "1", key, reference.SurplusField, reference.RestrictionField, "1").CombinedOutput()
	if err != nil {
		return rate{}, fmt.Errorf("redis-benchmark (Debian: apt-get install redis-tools): %w: %s", err, out)
	}
	after, err := site.RedisCPU(ctx, b.site.Redis)
	if err != nil {
		return rate{}, err
	}
	left, err := b.site.Redis.HGet(ctx, key, reference.SurplusField).Int64()
	if err != nil || left != stock.MaxQuantity-int64(n) {
		return rate{}, fmt.Errorf("the books of the reference do not balance: %d calls, %d of %d left: %w", n, left, stock.MaxQuantity, errors.Join(err))
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	fields := strings.Split(lines[len(lines)-1], `","`) // "test","rps",… ; the test's name has commas of its own
	if len(fields) < 2 {
		return rate{}, fmt.Errorf("redis-benchmark said %q", out)
	}
	perSecond, err := strconv.ParseFloat(strings.Trim(fields[1], `"`), 64)
	return rate{perSecond, (after - before) * 1e6 / float64(n)}, err
}
