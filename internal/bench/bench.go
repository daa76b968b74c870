// Package bench measures our own path against the way everybody starts with,
// on the same servers, in the same run and in turn, and checks the books after
// every repeat: a figure whose units do not add up is an error, not a figure.
package bench

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/leadingpeers/seckill/internal/bench/figures"
	"github.com/leadingpeers/seckill/internal/bench/load"
	"github.com/leadingpeers/seckill/internal/bench/site"
)

// Config says how long and how hard to measure.
type Config struct {
	Site         site.Config
	Duration     time.Duration // of one repeat of one side
	Repeats      int           // of each side, in turn
	Callers      int           // concurrent callers of the engine, connections of the others
	Products     int           // where more than one is sold
	Zipf         float64       // exponent of how unevenly they are wanted; 0 = all alike
	Batch        int           // reservations in one ledger transaction
	Reservations int           // that the memory is measured with
	Profiles     string        // folder that gets CPU and allocation profiles of our processes under load; empty = none
	Progress     io.Writer     // gets a line for each step
}

// Setup is one kind of measurement.
type Setup struct {
	Name string
	What string
	run  func(ctx context.Context, b *bench) error
}

// Setups lists them in the order in which they are run.
func Setups() []Setup {
	return []Setup{
		{"engine", "stock.Cache.Reserve with every rule, called from many goroutines, against redis-benchmark with the usual script, one call each", engine},
		{"gateway", "The gateway's process: HTTP, rules, Redis, Kafka's acknowledgement, then 202; against a net/http server that does nothing, and against the usual gateway, which calls one script for each request and tells nobody", gateway},
		{"soldout", "Refusals of what is sold out, against a net/http server that does nothing", soldOut},
		{"list", "The list of 20 products, against a net/http server that does nothing and answers with as many bytes", list},
		{"settle", "stock.Ledger.Deduct in batches against one transaction for each order on one hot row, as durable as the server is configured", settle},
		{"pipeline", "All processes: from the request to the row in the ledger and the order, everything on the same cores", pipeline},
		{"overload", "The gateway under two and three times what it can do", overload},
		{"scale", "All processes: more gateways and more products, and what an order costs where", scale},
		{"memory", "What a reservation takes in Redis", memory},
		{"durability", "What it costs to lose less; only on servers that may be reconfigured", durability},
	}
}

// bench is one set-up under way.
type bench struct {
	Config
	site    *site.Site
	section figures.Section
}

// Run runs the set-ups called names, one after the other.
func Run(ctx context.Context, cfg Config, names []string) ([]figures.Section, error) {
	var out []figures.Section
	for _, name := range names {
		i := slices.IndexFunc(Setups(), func(s Setup) bool { return s.Name == name })
		if i < 0 {
			return out, fmt.Errorf("bench: there is no set-up %q", name)
		}
		section, err := cfg.one(ctx, Setups()[i])
		if err != nil {
			return out, fmt.Errorf("bench %s: %w", name, err)
		}
		out = append(out, section)
	}
	return out, nil
}

func (c Config) one(ctx context.Context, s Setup) (_ figures.Section, err error) {
	b := &bench{Config: c, section: figures.Section{Name: s.Name, What: s.What}}
	if b.site, err = site.Open(ctx, c.Site); err != nil {
		return b.section, err
	}
	defer func() { err = errors.Join(err, b.site.Close(ctx)) }()
	err = s.run(ctx, b)
	return b.section, err
}

// say tells what is being done.
func (b *bench) say(format string, args ...any) {
	_, _ = fmt.Fprintf(b.Progress, "%s: "+format+"\n", append([]any{b.section.Name}, args...)...)
}

// repeat calls f for each repeat.
func (b *bench) repeat(ctx context.Context, f func(ctx context.Context) error) error {
	for i := range b.Repeats {
		b.say("repeat %d of %d", i+1, b.Repeats)
		if err := f(ctx); err != nil {
			return fmt.Errorf("repeat %d: %w", i+1, err)
		}
	}
	return nil
}

// closed fills in how a spec is sent: each connection as fast as it is answered.
func (b *bench) closed(spec load.Spec) load.Spec {
	spec.Conns, spec.Duration, spec.Zipf = b.Callers, b.Duration, b.Zipf
	return spec
}

// send loads a server, and takes an answer that is neither yes nor no as an error.
func (b *bench) send(ctx context.Context, spec load.Spec) (load.Result, error) {
	r, err := b.site.Load(ctx, spec)
	if err == nil && r.Failed > 0 {
		err = fmt.Errorf("load: %d of %d requests failed: %s", r.Failed, r.Failed+r.Answered(), r.Fault)
	}
	if err == nil && r.Answered() == 0 {
		err = errors.New("load: nothing was answered")
	}
	return r, err
}

// curve is a chart's line of a latency.
func curve(name string, l load.Latency) figures.Line {
	line := figures.Line{Name: name}
	for _, p := range l.Curve {
		line.Points = append(line.Points, figures.Point{X: p.X, Y: p.Y})
	}
	return line
}

// reservationID makes a random ID in the form of the real ones.
func reservationID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, by its documentation
	return encoding().EncodeToString(b[:])
}

func encoding() *base32.Encoding {
	return base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
}
