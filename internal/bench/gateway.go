package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/leadingpeers/seckill/internal/bench/figures"
	"github.com/leadingpeers/seckill/internal/bench/load"
	"github.com/leadingpeers/seckill/internal/bench/reference"
	"github.com/leadingpeers/seckill/internal/bench/site"
	"github.com/leadingpeers/seckill/internal/proc"
	"github.com/leadingpeers/seckill/pkg/stock"
)

const (
	noOpSize  = 290 // bytes of a 202 of ours
	plenty    = stock.MaxQuantity
	warmUp    = 2 * time.Second // a cold JVM costs four times as much
	noOpWords = "a no-op net/http server"
)

// run is what one side of one repeat has come to.
type run struct {
	load.Result
	micros float64 // CPU of the server's process for an answer
}

func (r run) rate() float64 { return float64(r.Answered()) / r.Seconds }

// drive loads a server and measures the CPU of its process.
func (b *bench) drive(ctx context.Context, server *proc.Process, spec load.Spec) (run, error) {
	before, err := site.ProcessCPU(server.PID())
	if err != nil {
		return run{}, err
	}
	profiled := b.profile(ctx, server, spec)
	sent, err := b.send(ctx, spec)
	if err := errors.Join(err, <-profiled); err != nil {
		return run{}, fmt.Errorf("%s: %w", server.Name, err)
	}
	after, err := site.ProcessCPU(server.PID())
	return run{sent, (after - before) * 1e6 / float64(sent.Answered())}, err
}

// fronts are the servers that a front is measured with.
type fronts struct {
	b                    *bench
	gateway, noop, naive *proc.Process
}

// fronts starts the gateway and the references, and warms all of them up.
func (b *bench) fronts(ctx context.Context, noOpBody int) (f *fronts, err error) {
	f = &fronts{b: b}
	if err := b.site.Topics(ctx); err != nil {
		return nil, err
	}
	if f.gateway, err = b.site.Start(ctx, "gateway"); err != nil {
		return nil, err
	}
	if f.noop, err = b.site.Reference(ctx, site.Reference{Kind: "noop", Size: noOpBody}); err != nil {
		return nil, err
	}
	key := b.site.Prefix + ":seed"
	if err := b.site.Redis.HSet(ctx, key, reference.SurplusField, stock.MaxQuantity, reference.RestrictionField, 5).Err(); err != nil {
		return nil, err
	}
	if f.naive, err = b.site.Reference(ctx, site.Reference{Kind: "naive", Redis: b.Site.Servers.Redis, Key: key}); err != nil {
		return nil, err
	}
	b.say("warm up")
	if _, err := f.sell(ctx, 1, func(s *load.Spec) { s.Duration = warmUp }); err != nil {
		return nil, err
	}
	_, err = f.reference(ctx, f.naive, func(s *load.Spec) { s.Duration = warmUp / 4 })
	return f, err
}

// sell loads the gateway with buyers of new products and checks the books.
func (f *fronts) sell(ctx context.Context, products int, change func(*load.Spec)) (run, error) {
	d, err := f.b.open(ctx, products, plenty, f.gateway.API)
	if err != nil {
		return run{}, err
	}
	spec := f.b.closed(f.b.site.Reserve(d.sale, f.gateway.API))
	change(&spec)
	got, err := f.b.drive(ctx, f.gateway, spec)
	if err != nil {
		return run{}, err
	}
	return got, d.close(ctx, got.Result)
}

// reference loads a reference with the same requests.
func (f *fronts) reference(ctx context.Context, server *proc.Process, change func(*load.Spec)) (run, error) {
	spec := f.b.closed(load.Spec{Addrs: []string{server.API}, Paths: []string{"/v1/activities/a/products/p/reservations"}, Reserve: true, Header: f.b.site.Header(), Seed: "ref"})
	change(&spec)
	return f.b.drive(ctx, server, spec)
}

func unchanged(*load.Spec) {}

func gateway(ctx context.Context, b *bench) error {
	many := strconv.Itoa(b.Products)
	cpu := figures.Figure{Name: "gateway_cpu", What: "CPU of the process for an accepted request", Against: noOpWords, Unit: "µs", Goal: "<=1.25"}
	one := figures.Figure{Name: "gateway_rate", What: "accepted a second, one product", Against: noOpWords, Unit: "/s", Goal: ">=0.7"}
	twelve := figures.Figure{Name: "gateway_rate_many", What: "accepted a second, " + many + " products", Against: noOpWords, Unit: "/s", Goal: ">=0.65"}
	naive := figures.Figure{Name: "gateway_naive", What: "accepted a second, one product", Against: "a gateway with one EVALSHA a request and no Kafka", Unit: "/s", Goal: ">=1.5"}
	p99 := figures.Figure{Name: "gateway_p99", What: "accept p99, open loop at half of our peak", Against: "the usual gateway at the same rate", Unit: "ms", Goal: "<=1"}
	f, err := b.fronts(ctx, noOpSize)
	if err != nil {
		return err
	}
	var calm, calmNaive run
	err = b.repeat(ctx, func(ctx context.Context) error {
		nothing, err := f.reference(ctx, f.noop, unchanged)
		if err != nil {
			return err
		}
		usual, err := f.reference(ctx, f.naive, unchanged)
		if err != nil {
			return err
		}
		ours, err := f.sell(ctx, 1, unchanged)
		if err != nil {
			return err
		}
		spread, err := f.sell(ctx, b.Products, unchanged)
		if err != nil {
			return err
		}
		half := func(s *load.Spec) { s.Rate = ours.rate() / 2 }
		if calmNaive, err = f.reference(ctx, f.naive, half); err != nil {
			return err
		}
		if calm, err = f.sell(ctx, 1, half); err != nil {
			return err
		}
		cpu.Add(ours.micros, nothing.micros)
		one.Add(ours.rate(), nothing.rate())
		twelve.Add(spread.rate(), nothing.rate())
		naive.Add(ours.rate(), usual.rate())
		p99.Add(calm.Accept.P99, calmNaive.Accept.P99)
		return nil
	})
	if err != nil {
		return err
	}
	resident, err := site.ResidentMB(f.gateway.PID())
	b.section.Figures = append(b.section.Figures, cpu, one, twelve, naive, p99,
		figures.Figure{Name: "gateway_rss", What: "most memory of the gateway's process after all this", Unit: "MB", Subject: []float64{resident}, Goal: "<=150"})
	b.section.Charts = append(b.section.Charts, figures.Chart{
		Title: "Latency at half of our peak, open loop, last repeat", X: "percentile", Y: "ms", LogY: true,
		Lines: []figures.Line{curve("seckill gateway", calm.Accept), curve("usual gateway", calmNaive.Accept)},
	})
	return err
}

func soldOut(ctx context.Context, b *bench) error {
	speed := figures.Figure{Name: "soldout_rate", What: "refusals a second, each of another buyer", Against: noOpWords, Unit: "/s", Goal: ">=1"}
	cpu := figures.Figure{Name: "soldout_cpu", What: "CPU of the process for a refusal", Against: noOpWords, Unit: "µs"}
	redis := figures.Figure{Name: "soldout_redis", What: "CPU of Redis's main thread for a refusal", Unit: "µs"}
	f, err := b.fronts(ctx, noOpSize)
	if err != nil {
		return err
	}
	err = b.repeat(ctx, func(ctx context.Context) error {
		nothing, err := f.reference(ctx, f.noop, unchanged)
		if err != nil {
			return err
		}
		d, err := b.open(ctx, 1, 1, f.gateway.API)
		if err != nil {
			return err
		}
		before, err := site.RedisCPU(ctx, b.site.Redis)
		if err != nil {
			return err
		}
		ours, err := b.drive(ctx, f.gateway, b.closed(b.site.Reserve(d.sale, f.gateway.API)))
		if err != nil {
			return err
		}
		after, err := site.RedisCPU(ctx, b.site.Redis)
		if err != nil {
			return err
		}
		redis.Subject = append(redis.Subject, (after-before)*1e6/float64(ours.Answered()))
		if ours.Accepted != 1 {
			return fmt.Errorf("one unit was there and %d were promised", ours.Accepted)
		}
		speed.Add(ours.rate(), nothing.rate())
		cpu.Add(ours.micros, nothing.micros)
		return d.close(ctx, ours.Result)
	})
	b.section.Figures = append(b.section.Figures, speed, cpu, redis)
	return err
}

func list(ctx context.Context, b *bench) error {
	const products = 20
	speed := figures.Figure{Name: "list_rate", What: "lists of 20 products a second", Against: noOpWords + " with a body of the same size", Unit: "/s", Goal: ">=0.9"}
	cpu := figures.Figure{Name: "list_cpu", What: "CPU of the process for a list", Against: noOpWords + " with a body of the same size", Unit: "µs"}
	if err := b.site.Topics(ctx); err != nil {
		return err
	}
	gateway, err := b.site.Start(ctx, "gateway")
	if err != nil {
		return err
	}
	d, err := b.open(ctx, products, plenty, gateway.API)
	if err != nil {
		return err
	}
	path := "/v1/activities/" + d.sale.Activity + "/products"
	size, err := bodySize(ctx, "http://"+gateway.API+path)
	if err != nil {
		return err
	}
	noop, err := b.site.Reference(ctx, site.Reference{Kind: "noop", Size: size})
	if err != nil {
		return err
	}
	err = b.repeat(ctx, func(ctx context.Context) error {
		nothing, err := b.drive(ctx, noop, b.closed(load.Spec{Addrs: []string{noop.API}, Paths: []string{path}}))
		if err != nil {
			return err
		}
		ours, err := b.drive(ctx, gateway, b.closed(load.Spec{Addrs: []string{gateway.API}, Paths: []string{path}}))
		if err != nil {
			return err
		}
		if ours.Accepted != ours.Answered() {
			return fmt.Errorf("%d of %d lists were refused", ours.Answered()-ours.Accepted, ours.Answered())
		}
		speed.Add(ours.rate(), nothing.rate())
		cpu.Add(ours.micros, nothing.micros)
		return nil
	})
	b.section.Figures = append(b.section.Figures, speed, cpu)
	b.section.Notes = append(b.section.Notes, fmt.Sprintf("the list has %d bytes", size))
	return err
}

func bodySize(ctx context.Context, url string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	n, err := io.Copy(io.Discard, resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answers %s", url, resp.Status)
	}
	return int(n), err
}
