package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/leadingpeers/seckill/internal/crowd"
	"github.com/leadingpeers/seckill/internal/ops"
	"github.com/leadingpeers/seckill/pkg/events"
)

// Exit statuses beyond 0 and 1, so that scripts can tell what happened.
const (
	exitUnbalanced = 3 // the demo ran and the books do not balance
)

// exitError ends the process with its status.
type exitError struct {
	status int
	text   string
}

// Error returns the text.
func (e exitError) Error() string { return e.text }

// ExitStatus is what app.Main ends the process with.
func (e exitError) ExitStatus() int { return e.status }

// demo is one run of the demonstration.
type demo struct {
	servers servers
	buyers  int
	units   int64
	callers int
	seed    uint64
	crash   bool
	view    view
	logFile string

	stack    *stack
	activity string
	products []string
	began    time.Time
}

func demoCommand() *cobra.Command {
	d := &demo{}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Sell out a flash sale in front of your eyes, kill workers in the middle, and show that the books balance",
		Long: `Starts the gateway, two stock workers and two settle workers as processes of
their own, on embedded stand-ins for Redis, Kafka and MySQL unless real ones
are named. Simulated buyers order over HTTP; they pay, cancel, click twice or
let the time-out pass. In the middle one stock worker and one settle worker are
killed with SIGKILL and started again. At the end the units are counted in all
three stores.

Exit status: 0 the books balance, 3 they do not (the IDs are printed), 1 the
demo could not run.`,
		Args: cobra.NoArgs,
	}
	fs := cmd.Flags()
	d.servers.flags(fs)
	fs.IntVar(&d.buyers, "buyers", 20_000, "how many buyers come, 1 to 1000000")
	fs.Int64Var(&d.units, "units", 1_000, "how many units are on sale, over three products, 10 to 1000000")
	fs.IntVar(&d.callers, "callers", 64, "how many buyers call at the same time, 1 to 1024")
	fs.Uint64Var(&d.seed, "seed", 42, "decides who wants what")
	fs.BoolVar(&d.crash, "crash", true, "kill two workers in the middle of the sale")
	fs.StringVar(&d.logFile, "logs", "", "write the logs of all processes to this `file`")
	output := fs.StringP("output", "o", "text", "text, or json: one object a line")
	plain := fs.Bool("plain", false, "one line a second, also on a terminal")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := d.check(*output); err != nil {
			return err
		}
		d.view = newView(cmd.OutOrStdout(), *output == "json", *plain)
		return d.run(cmd.Context())
	}
	return cmd
}

func (d *demo) check(output string) error {
	switch {
	case output != "text" && output != "json":
		return fmt.Errorf("flag --output: %q: want text or json", output)
	case d.buyers < 1 || d.buyers > 1_000_000:
		return fmt.Errorf("flag --buyers: %d: want 1 to 1000000", d.buyers)
	case d.units < 10 || d.units > 1_000_000:
		return fmt.Errorf("flag --units: %d: want 10 to 1000000", d.units)
	case d.callers < 1 || d.callers > 1024:
		return fmt.Errorf("flag --callers: %d: want 1 to 1024", d.callers)
	}
	return nil
}

func (d *demo) run(ctx context.Context) error {
	d.began = time.Now()
	logs := io.Discard
	if d.logFile != "" {
		f, err := os.Create(d.logFile)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		logs = f
	}
	var err error
	settings := []string{"SECKILL_EXPIRE_EVERY=200ms", "SECKILL_SWEEP_EVERY=1s", "SECKILL_SWEEP_AFTER=5s"}
	if d.servers.kafka == "" {
		settings = append(settings, "SECKILL_SESSION_TIMEOUT=2s") // a real broker would refuse it
	}
	d.stack, err = d.servers.start(ctx, "127.0.0.1:0", logs, settings...)
	if err != nil {
		return err
	}
	defer d.stack.stop(ctx)
	if err := d.open(ctx); err != nil {
		return fmt.Errorf("open the sale: %w", err)
	}
	d.view.opened(d)

	buyers := crowd.New(crowd.Config{
		Gateways: []string{d.stack.gateway}, Key: d.stack.serviceKey, Activity: d.activity, Products: d.products,
		Buyers: d.buyers, Callers: d.callers, DoubleClick: 0.05, Patience: time.Minute, Seed: d.seed,
	})
	checkout := &crowd.Checkout{Gateways: []string{d.stack.gateway}, Key: d.stack.serviceKey, Cancel: 0.08, Abandon: 0.04, Now: time.Now}
	shop := events.NewConsumer(events.ConsumerConfig{
		ClientConfig: d.stack.stores.Kafka, Group: "checkout-" + d.activity, Topic: events.Orders,
	}, checkout.Handle, d.stack.stores.Publisher)

	shopCtx, closeShop := context.WithCancel(ctx)
	shopDone := make(chan error, 1)
	go func() { shopDone <- shop.Run(shopCtx) }()
	defer func() {
		closeShop()
		if err := <-shopDone; err != nil {
			_, _ = fmt.Fprintln(logs, "checkout:", err)
		}
	}()

	saleDone := make(chan struct{})
	go func() { defer close(saleDone); buyers.Run(ctx) }()
	if err := d.watch(ctx, buyers, saleDone); err != nil {
		return err
	}
	return d.prove(ctx, buyers)
}

// open creates an activity with three products over the API and publishes it.
func (d *demo) open(ctx context.Context) error {
	name := strings.ReplaceAll(uuid.NewString(), "-", "")[:6] // so that real servers can be used again and again
	d.activity = "demo-" + name
	now := time.Now().UTC()
	err := d.stack.post(ctx, "/v1/activities", map[string]any{
		"id": d.activity, "name": "Double Eleven", "starts_at": now.Add(-time.Second), "ends_at": now.Add(time.Hour), "pay_window_seconds": 2,
	})
	if err != nil {
		return err
	}
	phones, earbuds := d.units/10, d.units*3/10
	for _, p := range []struct {
		name  string
		cents int64
		total int64
	}{{"phone", 499_900, phones}, {"earbuds", 99_900, earbuds}, {"charger", 9_900, d.units - phones - earbuds}} {
		id := p.name + "-" + name
		d.products = append(d.products, id)
		err := d.stack.post(ctx, "/v1/activities/"+d.activity+"/products", map[string]any{
			"id": id, "name": p.name, "price_cents": p.cents, "currency": "CNY", "total": p.total, "per_order": 2, "per_user": 2,
		})
		if err != nil {
			return err
		}
	}
	return d.stack.post(ctx, "/v1/activities/"+d.activity+"/publish", map[string]any{"preload": true})
}

// watch shows the sale, crashes two workers in its middle, and returns when
// all buyers have their answer and everything has come to rest.
func (d *demo) watch(ctx context.Context, buyers *crowd.Crowd, saleDone <-chan struct{}) error {
	books := d.stack.stores.Books()
	tick := time.NewTicker(d.view.every())
	defer tick.Stop()
	crashed, revived := !d.crash, !d.crash
	var crashedAt time.Time
	deadline := time.Now().Add(3 * time.Minute)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		accounts, err := books.Accounts(ctx, d.products)
		if err != nil {
			return err
		}
		d.view.progress(d, buyers, accounts)
		switch {
		case !crashed && buyers.Served.Load() > int64(d.buyers)/50:
			crashed, crashedAt = true, time.Now()
			for _, name := range []string{"stock-worker-1", "settle-worker-1"} {
				d.stack.procs[name].Kill()
				d.view.note("killed %s with SIGKILL", name)
			}
		case crashed && !revived && time.Since(crashedAt) > time.Second:
			revived = true
			for _, name := range []string{"stock-worker-1", "settle-worker-1"} {
				if err := d.stack.run(ctx, name); err != nil {
					return err
				}
				d.view.note("started %s again", name)
			}
		}
		select {
		case <-saleDone:
			rest, err := d.atRest(ctx, accounts, buyers)
			if err != nil || rest && revived {
				return err
			}
		default:
		}
		if time.Now().After(deadline) {
			return nil // the books will say what is missing
		}
	}
}

// atRest reports whether nothing is under way any more: every promise has its
// end and nothing differs between the stores.
func (d *demo) atRest(ctx context.Context, accounts []ops.Account, buyers *crowd.Crowd) (bool, error) {
	for _, a := range accounts {
		if a.Awaiting != 0 || a.Open != 0 || len(a.Differences()) != 0 {
			return false, nil
		}
	}
	fates, err := d.stack.stores.Books().Fates(ctx, ids(buyers.Tally().Accepted))
	return err == nil && len(fates.Lost) == 0, err
}

// prove reads the three stores and compares them with what the buyers were told.
func (d *demo) prove(ctx context.Context, buyers *crowd.Crowd) error {
	books := d.stack.stores.Books()
	accounts, err := books.Accounts(ctx, d.products)
	if err != nil {
		return err
	}
	tally := buyers.Tally()
	fates, err := books.Fates(ctx, ids(tally.Accepted))
	if err != nil {
		return err
	}
	res := result{Type: "result", Accepted: int64(len(tally.Accepted)), Lost: int64(len(fates.Lost)), ElapsedS: time.Since(d.began).Seconds()}
	var problems []string
	for _, a := range accounts {
		res.Units += a.Total
		res.Sold += a.Paid
		res.Orders += a.Orders
		res.Oversold += a.Oversold()
		res.Leaked += a.Leaked()
		problems = append(problems, a.Differences()...)
	}
	seen := map[string]bool{}
	for _, id := range ids(tally.Accepted) {
		if seen[id] {
			res.Duplicated++
		}
		seen[id] = true
	}
	for _, id := range fates.Lost {
		problems = append(problems, "promised and without an end: "+id)
	}
	problems = slices.Concat(problems, fates.Wrong, tally.Unexpected)
	res.Balanced = len(problems) == 0 && res.Oversold == 0 && res.Leaked == 0 && res.Duplicated == 0 && buyers.GaveUp.Load() == 0
	d.view.result(d, buyers, proof{res, accounts, fates, problems})
	if !res.Balanced {
		return exitError{exitUnbalanced, "the books do not balance"}
	}
	return nil
}

func ids(accepted []crowd.Accepted) []string {
	out := make([]string, len(accepted))
	for i, a := range accepted {
		out[i] = a.ReservationID
	}
	return out
}
