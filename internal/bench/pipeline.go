package bench

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/leadingpeers/seckill/internal/bench/figures"
	"github.com/leadingpeers/seckill/internal/bench/load"
	"github.com/leadingpeers/seckill/internal/bench/site"
	"github.com/leadingpeers/seckill/internal/proc"
	"github.com/leadingpeers/seckill/pkg/order"
)

// settleLimit is how long the workers may take for what a run has left them.
const settleLimit = 2 * time.Minute

// line is all processes of ours.
type line struct {
	b        *bench
	gateways []*proc.Process
	workers  []*proc.Process
}

// line starts gateways and one worker of each kind, and warms them up.
func (b *bench) line(ctx context.Context, gateways int) (*line, error) {
	l := &line{b: b}
	if err := b.site.Topics(ctx); err != nil {
		return nil, err
	}
	for range gateways {
		p, err := b.site.Start(ctx, "gateway")
		if err != nil {
			return nil, err
		}
		l.gateways = append(l.gateways, p)
	}
	for _, role := range []string{"stock-worker", "settle-worker"} {
		p, err := b.site.Start(ctx, role)
		if err != nil {
			return nil, err
		}
		l.workers = append(l.workers, p)
	}
	b.say("warm up")
	_, err := l.sell(ctx, sellOptions{gateways: gateways, products: 1, change: func(s *load.Spec) { s.Duration = warmUp }})
	return l, err
}

// sellOptions says how to sell.
type sellOptions struct {
	gateways, products int
	change             func(*load.Spec)
}

// sold is what a run through all processes has come to.
type sold struct {
	run
	rowsPerSecond float64   // durable in the ledger while the buyers came
	settled       float64   // seconds until the last order was written, after the last answer
	perOrder      site.CPU  // µs of each process, from the first request to the last order
	delays        []float64 // ms from a buyer's 202 to the order's row, in ascending order; of runs with samples
}

// sell loads the gateways, waits until everything is an order and checks the books.
func (l *line) sell(ctx context.Context, o sellOptions) (out sold, err error) {
	var addrs []string
	for _, g := range l.gateways[:o.gateways] {
		addrs = append(addrs, g.API)
	}
	d, err := l.b.open(ctx, o.products, plenty, addrs...)
	if err != nil {
		return out, err
	}
	spec := l.b.closed(l.b.site.Reserve(d.sale, addrs...))
	o.change(&spec)
	before, err := l.cpu(ctx)
	if err != nil {
		return out, err
	}
	if out.Result, err = l.b.send(ctx, spec); err != nil {
		return out, err
	}
	rows, err := l.deducted(ctx, d.sale)
	if err != nil {
		return out, err
	}
	out.rowsPerSecond = float64(rows) / out.Seconds
	ended := time.Now()
	if err := l.settle(ctx, d, out.Result); err != nil {
		return out, err
	}
	out.settled = time.Since(ended).Seconds()
	after, err := l.cpu(ctx)
	if err != nil {
		return out, err
	}
	out.perOrder = after.Since(before)
	for name := range out.perOrder {
		out.perOrder[name] *= 1e6 / float64(out.Accepted)
	}
	if spec.Samples {
		if out.delays, err = l.delays(ctx, d.sale, spec.Seed, out.Samples); err != nil {
			return out, err
		}
	}
	return out, l.b.site.Flush(ctx, d.sale)
}

// settle waits until every promise is an order, and checks the books.
func (l *line) settle(ctx context.Context, d *door, sent load.Result) error {
	limit := time.Now().Add(settleLimit)
	for {
		k, err := d.count(ctx, sent)
		if err != nil {
			return err
		}
		k.workers = true
		if k.deducted, err = l.deducted(ctx, d.sale); err != nil {
			return err
		}
		for _, p := range d.sale.Products {
			c, err := l.b.site.Orders.Counts(ctx, p)
			if err != nil {
				return err
			}
			k.orders += c.Awaiting.Orders
		}
		err = k.check()
		if err == nil || time.Now().After(limit) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// deducted is how many units the ledger's stock rows have given.
func (l *line) deducted(ctx context.Context, sale site.Sale) (n int64, err error) {
	for _, p := range sale.Products {
		var taken int64
		if err := l.b.site.DB.QueryRowContext(ctx, "SELECT total - available FROM stock WHERE product_id = ?", p).Scan(&taken); err != nil {
			return 0, err
		}
		n += taken
	}
	return n, nil
}

// delays compares when buyers were answered with when their orders were
// written. Both clocks are this machine's where the database is; the row's is
// the beginning of its INSERT.
func (l *line) delays(ctx context.Context, sale site.Sale, seed string, samples []load.Sample) ([]float64, error) {
	answered := make(map[int64]int64, len(samples))
	for _, s := range samples {
		answered[s.N] = s.At
	}
	var out []float64
	for o, err := range l.b.site.Orders.Each(ctx, order.Filter{ActivityID: sale.Activity}) {
		if err != nil {
			return nil, err
		}
		n, err := strconv.ParseInt(strings.TrimPrefix(o.UserID, seed+"-"), 10, 64)
		at, known := answered[n]
		if err != nil || !known {
			return nil, fmt.Errorf("the books do not balance: order %s of %s, who was promised nothing", o.ID, o.UserID)
		}
		out = append(out, float64(max(0, o.CreatedAt.UnixMilli()-at)))
	}
	slices.Sort(out)
	return out, nil
}

// cpu is what all processes have used so far.
func (l *line) cpu(ctx context.Context) (site.CPU, error) {
	redis, err := site.RedisCPU(ctx, l.b.site.Redis)
	if err != nil {
		return nil, err
	}
	out := site.CPU{"redis": redis}
	add := func(name string, pid int) error {
		v, err := site.ProcessCPU(pid)
		out[name] += v
		return err
	}
	for _, p := range append(slices.Clone(l.gateways), l.workers...) {
		if err := add(p.Name, p.PID()); err != nil {
			return nil, err
		}
	}
	for name, pid := range l.b.Site.Servers.PIDs {
		if name = strings.TrimRight(name, "0123456789"); name == "redis" {
			continue // its main thread is counted
		}
		if err := add(name, pid); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func percentile(sorted []float64, p float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(p/100*float64(len(sorted))))]
}

func pipeline(ctx context.Context, b *bench) error {
	rows := figures.Figure{Name: "pipeline_rate", What: "rows a second in the ledger while buyers come, one product, all processes and the load on the same cores", Against: noOpWords, Unit: "/s", Goal: ">=0.45"}
	delay := figures.Figure{Name: "pipeline_p99", What: "from a buyer's 202 to the order's row, p99, open loop at half of the peak", Unit: "ms", Goal: "<=60"}
	l, err := b.line(ctx, 1)
	if err != nil {
		return err
	}
	noop, err := b.site.Reference(ctx, site.Reference{Kind: "noop", Size: noOpSize})
	if err != nil {
		return err
	}
	var calm sold
	err = b.repeat(ctx, func(ctx context.Context) error {
		nothing, err := b.drive(ctx, noop, b.closed(load.Spec{Addrs: []string{noop.API}, Paths: []string{"/"}, Reserve: true, Header: b.site.Header(), Seed: "ref"}))
		if err != nil {
			return err
		}
		// Twice as long: at first the ledger has nothing to do.
		ours, err := l.sell(ctx, sellOptions{1, 1, func(s *load.Spec) { s.Duration *= 2 }})
		if err != nil {
			return err
		}
		calm, err = l.sell(ctx, sellOptions{1, 1, func(s *load.Spec) { s.Rate, s.Samples = ours.rowsPerSecond/2, true }})
		if err != nil {
			return err
		}
		rows.Add(ours.rowsPerSecond, nothing.rate())
		delay.Subject = append(delay.Subject, percentile(calm.delays, 99))
		b.costs("CPU of an order, µs, repeat "+strconv.Itoa(len(rows.Subject)), []string{"peak", "half"}, []sold{ours, calm})
		return nil
	})
	if err != nil {
		return err
	}
	chart := figures.Line{Name: "202 to row"}
	for _, p := range []float64{0, 25, 50, 75, 90, 95, 98, 99, 99.5, 99.9, 100} {
		chart.Points = append(chart.Points, figures.Point{X: p, Y: percentile(calm.delays, p)})
	}
	b.section.Figures = append(b.section.Figures, rows, delay)
	b.section.Charts = append(b.section.Charts, figures.Chart{
		Title: "From the answer to the order, half of the peak, last repeat", X: "percentile", Y: "ms",
		Lines: []figures.Line{chart, curve("request to answer", calm.Accept)},
	})
	return nil
}

// costs adds a table of what orders cost in each process.
func (b *bench) costs(title string, names []string, runs []sold) {
	t := figures.Table{Title: title, Columns: []string{"", "accepted/s", "rows/s", "settled after s"}}
	var where []string
	for name := range runs[0].perOrder {
		where = append(where, name)
	}
	slices.Sort(where)
	t.Columns = append(append(t.Columns, where...), "all")
	for i, r := range runs {
		row := []string{names[i], fmt.Sprintf("%.0f", float64(r.Accepted)/r.Seconds), fmt.Sprintf("%.0f", r.rowsPerSecond), fmt.Sprintf("%.1f", r.settled)}
		for _, name := range where {
			row = append(row, fmt.Sprintf("%.1f", r.perOrder[name]))
		}
		t.Rows = append(t.Rows, append(row, fmt.Sprintf("%.1f", r.all())))
	}
	b.section.Tables = append(b.section.Tables, t)
}

// all is the CPU of an order in all processes, in µs.
func (s sold) all() (sum float64) {
	for _, v := range s.perOrder {
		sum += v
	}
	return sum
}

func scale(ctx context.Context, b *bench) error {
	flat := figures.Figure{Name: "scale_cost", What: "CPU of an order in all processes with 20 products", Against: "with one", Unit: "µs", Goal: "<=1.5"}
	doors := figures.Figure{Name: "scale_gateways", What: "accepted a second at 4 gateways, 4 products", Against: "at one", Unit: "/s"}
	l, err := b.line(ctx, 4)
	if err != nil {
		return err
	}
	var names []string
	var runs []sold
	lines := []figures.Line{{Name: "gateways, 4 products"}, {Name: "products, 1 gateway"}}
	sell := func(gateways, products, line int) (sold, error) {
		b.say("%d gateways, %d products", gateways, products)
		r, err := l.sell(ctx, sellOptions{gateways, products, unchanged})
		names, runs = append(names, fmt.Sprintf("%d gateways, %d products", gateways, products)), append(runs, r)
		lines[line].Points = append(lines[line].Points, figures.Point{X: float64(max(1, []int{gateways, products}[line])), Y: float64(r.Accepted) / r.Seconds})
		return r, err
	}
	var by [3]sold
	for i, n := range []int{1, 2, 4} {
		if by[i], err = sell(n, 4, 0); err != nil {
			return err
		}
	}
	doors.Add(float64(by[2].Accepted)/by[2].Seconds, float64(by[0].Accepted)/by[0].Seconds)
	for i, n := range []int{1, 4, 20} {
		if by[i], err = sell(1, n, 1); err != nil {
			return err
		}
	}
	flat.Add(by[2].all(), by[0].all())
	b.section.Figures = append(b.section.Figures, flat, doors)
	b.costs("CPU of an order, µs", names, runs)
	b.section.Charts = append(b.section.Charts, figures.Chart{Title: "Accepted a second", X: "number of", Y: "accepted/s", Lines: lines})
	return nil
}
