// Package torture runs the real system, sells on it, and hurts it: every
// process and server is killed, stopped and cut off by a schedule that follows
// from a seed. In the end all promises must have been kept. It is a tool of the
// project and no part of the product.
package torture

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/leadingpeers/seckill/internal/torture/judge"
	"github.com/leadingpeers/seckill/internal/torture/load"
	"github.com/leadingpeers/seckill/internal/torture/plan"
	"github.com/leadingpeers/seckill/internal/torture/stage"
	"github.com/leadingpeers/seckill/pkg/events"
)

// Config says how a run goes. The zero value is none: the command has the
// defaults.
type Config struct {
	Root     string        // of the module
	Dir      string        // for data and logs; emptied first
	Bin      string        // of our binaries, built with -tags faults; empty = they are built
	Port     int           // the first of 120
	Duration time.Duration // of the faults
	Seed     uint64
	Brokers  int
	Fsync    string
	Rate     int           // requests a second
	Callers  int           // at once
	Operate  bool          // operators change the sale while it goes on
	Limit    time.Duration // from the last fault until everything accepted is in the ledger
	Drift    time.Duration // from the last fault until Redis and the ledger agree about every product
	Rest     time.Duration // from the last fault until there is nothing left to wait for
	Only     []string      // faults whose kind begins with one of these; empty = all
	Without  []string      // protections to take out: the run must then fail
	Log      io.Writer
}

const (
	payWindow = 6 * time.Second
	probeName = "probe"
)

// run is one run in progress.
type run struct {
	cfg       Config
	stage     *stage.Stage
	journal   *load.Journal
	buyers    *load.Buyers
	operators *load.Operators
	checkout  *load.Checkout
	prober    *load.Prober
	judge     *judge.Judge
	scraper   *judge.Scraper
	result    Result

	mu      sync.Mutex
	excused map[string]string // product, or "*" → why
	faults  []plan.Event
	maxOpen int64
	early   []string // what happened before there was a judge
}

// Run does one run. The error is the run's own failure to be one: what the
// system did wrong is in the Result.
func Run(ctx context.Context, cfg Config) (result Result, err error) {
	r := &run{cfg: cfg, excused: map[string]string{}}
	r.result = Result{
		Seed: cfg.Seed, Brokers: cfg.Brokers, Fsync: cfg.Fsync, Without: cfg.Without, DurationS: cfg.Duration.Seconds(), FaultsByKind: map[string]int{},
	}
	start := time.Now()
	defer func() { result.WallS = seconds(time.Since(start)) }()
	defer func() {
		down, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		if r.stage != nil {
			err = errors.Join(err, r.stage.Down(down))
		}
	}()
	if err := r.setUp(ctx); err != nil {
		return r.result, err
	}
	defer func() { _ = r.journal.Close() }()
	r.log("everything is up after %s", time.Since(start).Round(100*time.Millisecond))
	if err := r.play(ctx); err != nil {
		return r.result, err
	}
	return r.result, nil
}

func (r *run) log(format string, args ...any) {
	_, _ = fmt.Fprintf(r.cfg.Log, time.Now().Format("15:04:05.000 ")+format+"\n", args...)
}

// secrets of one run.
func (r *run) settings() (env []string, service, admin string) {
	service, admin = rand.Text(), rand.Text()
	env = []string{
		"SECKILL_KEYS=service:shop:" + service + ",admin:ops:" + admin, "SECKILL_ID_KEY=" + rand.Text(),
		"SECKILL_SWEEP_EVERY=10s", "SECKILL_SWEEP_AFTER=20s", "SECKILL_AUDIT_EVERY=30s", "SECKILL_LOG_LEVEL=info",
	}
	if len(r.cfg.Without) > 0 {
		env = append(env, "SECKILL_TEST_OFF="+strings.Join(r.cfg.Without, ","))
	}
	return env, "sk_shop_" + service, "sk_ops_" + admin
}

// setUp starts the servers and processes, and puts products on sale.
func (r *run) setUp(ctx context.Context) (err error) {
	env, service, admin := r.settings()
	r.stage, err = stage.Up(ctx, stage.Config{
		Root: r.cfg.Root, Dir: r.cfg.Dir, Bin: r.cfg.Bin, Port: r.cfg.Port, Brokers: r.cfg.Brokers, Fsync: r.cfg.Fsync, Env: env, Log: r.cfg.Log, Exited: r.exited,
	})
	if err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	if r.journal, err = load.OpenJournal(filepath.Join(r.cfg.Dir, "promises.jsonl")); err != nil {
		return err
	}
	items := r.items()
	sale := load.Sale{Activity: "sale"}
	for _, it := range items {
		if it.ID != probeName {
			sale.Products = append(sale.Products, it.ID)
		}
	}
	r.judge, r.scraper = judge.New(r.stage.DB), judge.NewScraper()
	r.buyers = &load.Buyers{
		Line: load.NewLine(r.stage.Gateways(), service, r.cfg.Callers, load.BuyersPatience), Sale: sale, Journal: r.journal,
		Callers: r.cfg.Callers, Rate: r.cfg.Rate, Users: 3000, Seed: r.cfg.Seed,
	}
	r.operators = &load.Operators{
		Line: load.NewLine(r.stage.Gateways(), admin, 4, load.OperatorsPatience), Sale: sale, Seed: r.cfg.Seed, Every: 2 * time.Second,
		Touched: func(product, why string) { r.excuse([]string{product}, why) },
	}
	r.prober = &load.Prober{Buyers: r.buyers, DB: r.stage.DB, Product: probeName}
	opening, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return r.operators.Open(opening, items, payWindow)
}

// items are what is sold: much, little, and one single unit.
func (r *run) items() []load.Item {
	items := []load.Item{{ID: probeName, Total: 1_000_000, PerUser: 1}}
	for i, total := range []int64{2000, 1500, 1000, 700, 500, 300, 100, 50, 20, 5, 1, 3} {
		total *= max(1, int64(r.cfg.Duration/(2*time.Minute)))
		items = append(items, load.Item{ID: fmt.Sprint("p", i), Total: total, PerUser: 3 + int64(i%4)})
	}
	return items
}

// exited is told of a process that nobody has ended.
func (r *run) exited(e stage.Exit) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.Armed {
		r.result.SelfKilled++
		return
	}
	r.early = append(r.early, e.Name+" ended by itself: see processes.log")
}

func (r *run) excuse(products []string, why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range products {
		r.excused[p] = why
	}
}

func (r *run) isExcused(product string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.excused[product] != "" || r.excused["*"] != ""
}

// play lets everybody loose, hurts the system, lets it come to rest and judges.
func (r *run) play(ctx context.Context) error {
	publisher := events.NewPublisher(events.PublisherConfig{ClientConfig: r.stage.KafkaConfig("checkout"), Now: time.Now})
	r.checkout = &load.Checkout{Line: r.buyers.Line, Publisher: publisher, PayWindow: payWindow}
	consumer := events.NewConsumer(events.ConsumerConfig{ClientConfig: r.stage.KafkaConfig("checkout"), Group: "checkout", Topic: events.Orders, Now: time.Now}, r.checkout.Handle, publisher)

	whole, quit := context.WithCancel(ctx) // until the verdict
	selling, closeShop := context.WithCancel(whole)
	var watchers, sellers sync.WaitGroup
	defer func() { quit(); watchers.Wait(); r.checkout.Wait() }()
	defer closeShop()
	watchers.Go(func() { _ = consumer.Run(whole) })
	watchers.Go(func() { r.judge.Watch(whole) })
	watchers.Go(func() { r.watch(whole) })
	sellers.Go(func() { r.buyers.Run(selling) })
	if r.cfg.Operate {
		sellers.Go(func() { r.operators.Run(selling) })
	}
	probing, stopProbing := context.WithCancel(whole)
	defer stopProbing()
	watchers.Go(func() { r.prober.Run(probing) })

	r.hurt(ctx)
	if err := ctx.Err(); err != nil {
		return err
	}
	last := time.Now()
	r.log("the last fault is over; %d accepted, %d faults", r.buyers.Accepted.Load(), r.result.FaultsInjected)
	r.await(ctx, r.cfg.Limit, func() bool { _, ok := r.prober.Recovery(last); return ok })
	closeShop()
	stopProbing()
	sellers.Wait()
	r.recoveries()
	return r.verdict(ctx, last)
}

// hurt does the faults, and makes everything well again.
func (r *run) hurt(ctx context.Context) {
	actor := &plan.Actor{Stage: r.stage, Products: r.operators.Sale.Products}
	if r.cfg.Operate {
		actor.Restock = r.operators.RestockAll
	}
	schedule := &plan.Schedule{
		Actor: actor, Seed: r.cfg.Seed, Only: r.cfg.Only, Heavy: r.cfg.Duration >= 3*time.Minute,
		Begin: func(kind string, loses []string) { r.excuse(loses, kind); r.log("fault %s", kind) },
		End:   r.faultOver,
	}
	pause(ctx, min(5*time.Second, r.cfg.Duration/10)) // there must be something to lose
	faults, stop := context.WithTimeout(ctx, r.cfg.Duration)
	defer stop()
	schedule.Run(faults)
	if err := plan.Restore(context.WithoutCancel(ctx), r.stage); err != nil {
		r.judge.Find("cannot be restored: %v", err)
	}
}

func (r *run) faultOver(e plan.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.result.FaultsInjected++
	r.result.FaultsByKind[e.Kind]++
	if len(e.Loses) > 0 {
		r.result.RedisLosses++
	}
	if e.Err != nil {
		r.result.FaultsFailed++
		r.log("%v", e.Err)
	}
	r.faults = append(r.faults, e)
}

// watch asks the processes how they are, and Redis how much is open.
func (r *run) watch(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, p := range r.stage.Processes {
			r.scraper.Look(ctx, p.Name, p.Ops())
		}
		for _, id := range r.operators.Sale.Products {
			open, err := r.stage.Redis.Master().LLen(ctx, stage.Prefix+":{"+id+"}:open").Result()
			if err != nil {
				break
			}
			r.mu.Lock()
			r.maxOpen = max(r.maxOpen, open)
			r.mu.Unlock()
		}
	}
}

// recoveries looks up how long after each fault the system sold again.
func (r *run) recoveries() {
	var times []time.Duration
	for _, e := range r.faults {
		if d, ok := r.prober.Recovery(e.Ended); ok {
			times = append(times, d)
		} else {
			r.judge.Find("nothing was sold any more after the fault that ended at %s", e.Ended.Format("15:04:05.000"))
		}
	}
	r.result.Recovery = recoveryOf(times)
}

// await repeats f until it is true, ctx ends or the time is over.
func (r *run) await(ctx context.Context, limit time.Duration, f func() bool) bool {
	for deadline := time.Now().Add(limit); ; {
		asked := time.Now()
		if f() {
			return true
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return false
		}
		// A judge who reads without a breath takes the processor from what he waits for.
		pause(ctx, min(max(250*time.Millisecond, time.Since(asked)), time.Until(deadline)))
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
