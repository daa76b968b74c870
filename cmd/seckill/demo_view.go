package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/leadingpeers/seckill/internal/crowd"
	"github.com/leadingpeers/seckill/internal/ops"
)

// result is the last line of the demo's JSON output.
type result struct {
	Type       string  `json:"type"`
	Balanced   bool    `json:"balanced"`
	Units      int64   `json:"units"`
	Sold       int64   `json:"sold"`
	Accepted   int64   `json:"accepted"`
	Orders     int64   `json:"orders"`
	Oversold   int64   `json:"oversold"`
	Leaked     int64   `json:"leaked"`
	Duplicated int64   `json:"duplicated"`
	Lost       int64   `json:"lost"`
	ElapsedS   float64 `json:"elapsed_s"`
}

// view shows the demo: redrawn in place on a terminal, one line a second
// elsewhere, or one JSON object a line.
type view struct {
	w     io.Writer
	json  bool
	live  bool // a terminal
	lines *int // drawn last time, to be drawn over
	last  *time.Time
}

func newView(w io.Writer, asJSON, plain bool) view {
	live := false
	if f, ok := w.(*os.File); ok && !asJSON && !plain && os.Getenv("TERM") != "dumb" {
		info, err := f.Stat()
		live = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return view{w: w, json: asJSON, live: live, lines: new(int), last: new(time.Time)}
}

// every is how often progress is shown and looked at.
func (v view) every() time.Duration { return 200 * time.Millisecond }

func (v view) printf(format string, args ...any) {
	if *v.lines > 0 {
		_, _ = fmt.Fprintf(v.w, "\x1b[%dA\x1b[J", *v.lines)
		*v.lines = 0
	}
	_, _ = fmt.Fprintf(v.w, format, args...)
}

func (v view) object(o any) {
	_ = json.NewEncoder(v.w).Encode(o)
}

func (v view) opened(d *demo) {
	if v.json {
		v.object(map[string]any{"type": "opened", "activity": d.activity, "products": d.products, "units": d.units, "buyers": d.buyers, "seed": d.seed})
		return
	}
	name := func(real string) string {
		if real == "" {
			return "embedded stand-in"
		}
		return "real"
	}
	v.printf("seckill demo · %d products · %d units · %d buyers · seed %d\n", len(d.products), d.units, d.buyers, d.seed)
	v.printf("Redis: %s · Kafka: %s · MySQL: %s · 1 gateway, 2 stock workers, 2 settle workers\n\n",
		name(d.servers.redis), name(d.servers.kafka), name(d.servers.mysql))
}

func (v view) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if v.json {
		v.object(map[string]any{"type": "note", "text": text})
		return
	}
	v.printf("  ! %s\n", text)
}

func (v view) progress(d *demo, buyers *crowd.Crowd, accounts []ops.Account) {
	if !v.live && time.Since(*v.last) < time.Second {
		return
	}
	*v.last = time.Now()
	var a ops.Account
	for _, x := range accounts {
		a.Total += x.Total
		a.Surplus += x.Surplus
		a.Pending += x.Pending
		a.Deducted += x.Deducted
		a.Awaiting += x.Awaiting
		a.Paid += x.Paid
		a.Cancelled += x.Cancelled
	}
	served, elapsed := buyers.Served.Load(), time.Since(d.began)
	accepted, _ := buyers.Units()
	switch {
	case v.json:
		v.object(map[string]any{
			"type": "progress", "elapsed_s": elapsed.Seconds(), "served": served, "requests": buyers.Requests.Load(), "waits": buyers.Waits.Load(), "accepted": accepted,
			"surplus": a.Surplus, "pending": a.Pending, "deducted": a.Deducted, "awaiting": a.Awaiting, "paid": a.Paid, "cancelled": a.Cancelled,
		})
	case v.live:
		width := int(20 * a.Paid / max(a.Total, 1))
		v.printf(" %5.1fs  %s%s  %d of %d units paid\n buyers    %d of %d served · %d requests\n units     left %d · pending %d · deducted %d\n orders    awaiting payment %d · paid %d · cancelled %d\n",
			elapsed.Seconds(), strings.Repeat("█", width), strings.Repeat("░", 20-width), a.Paid, a.Total,
			served, d.buyers, buyers.Requests.Load(), a.Surplus, a.Pending, a.Deducted, a.Awaiting, a.Paid, a.Cancelled)
		*v.lines = 4
	default:
		v.printf("%5.1fs  buyers %d/%d  left %d  pending %d  deducted %d  awaiting payment %d  paid %d  cancelled %d\n",
			elapsed.Seconds(), served, d.buyers, a.Surplus, a.Pending, a.Deducted, a.Awaiting, a.Paid, a.Cancelled)
	}
}

// proof is what the stores say at the end.
type proof struct {
	result   result
	accounts []ops.Account
	fates    ops.Fates
	problems []string
}

func (v view) result(d *demo, buyers *crowd.Crowd, p proof) {
	tally, r := buyers.Tally(), p.result
	if v.json {
		for _, text := range p.problems {
			v.object(map[string]any{"type": "problem", "text": text})
		}
		for _, a := range p.accounts {
			v.object(struct {
				Type string `json:"type"`
				ops.Account
			}{"account", a})
		}
		v.object(r)
		return
	}
	v.printf("\nBuyers\n  %d requests from %d buyers: %d accepted (%d paid, %d released)", buyers.Requests.Load(), d.buyers, r.Accepted, p.fates.Paid, p.fates.Released)
	for _, code := range slices.Sorted(maps.Keys(tally.Refused)) {
		v.printf(", %d %s", tally.Refused[code], code)
	}
	slices.Sort(tally.Latency)
	if n := len(tally.Latency); n > 0 {
		v.printf("\n  accepted in p50 %s, p99 %s", tally.Latency[n/2].Round(100*time.Microsecond), tally.Latency[n*99/100].Round(100*time.Microsecond))
	}
	v.printf("\n\nReconciliation, in units, read from the stores themselves\n")
	tw := tabwriter.NewWriter(v.w, 0, 0, 2, ' ', tabwriter.AlignRight)
	row := func(cells ...any) {
		for _, c := range cells {
			_, _ = fmt.Fprint(tw, c, "\t")
		}
		_, _ = fmt.Fprintln(tw)
	}
	row("", "MySQL ledger", "", "", "Redis", "", "orders", "", "", "")
	row("product", "total", "available", "deducted", "surplus", "pending", "paid", "unpaid", "oversold", "leaked")
	for _, a := range p.accounts {
		row(a.ProductID, a.Total, a.Available, a.Deducted, a.Surplus, a.Pending, a.Paid, a.Awaiting, a.Oversold(), a.Leaked())
	}
	_ = tw.Flush()
	v.printf("\n")
	for _, text := range p.problems {
		v.printf("  ✗ %s\n", text)
	}
	mark := map[bool]string{true: "✔", false: "✗"}
	v.printf("  %s oversold %d   %s leaked %d   %s duplicated %d   %s lost %d   in %.1f s\n",
		mark[r.Oversold == 0], r.Oversold, mark[r.Leaked == 0], r.Leaked, mark[r.Duplicated == 0], r.Duplicated, mark[r.Lost == 0], r.Lost, r.ElapsedS)
	if r.Balanced {
		v.printf("  ✔ the books balance: %d orders for %d promises, each paid or released\n", r.Orders, r.Accepted)
	} else {
		v.printf("  ✗ the books do not balance\n")
	}
}
