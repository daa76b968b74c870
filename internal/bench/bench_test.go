package bench

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/leadingpeers/seckill/internal/app"
	"github.com/leadingpeers/seckill/internal/bench/figures"
	"github.com/leadingpeers/seckill/internal/bench/load"
	"github.com/leadingpeers/seckill/internal/bench/site"
	"github.com/leadingpeers/seckill/internal/testservers"
	"github.com/leadingpeers/seckill/pkg/stock"
)

// TestMain lets this binary be its own children, as cmd/seckill is.
func TestMain(m *testing.M) {
	var err error
	switch {
	case slices.Contains(os.Args, site.LoadCommand):
		err = site.ServeLoad(context.Background(), os.Stdin, os.Stdout)
	case slices.Contains(os.Args, site.ReferenceCommand):
		err = site.ServeReference(context.Background(), os.Args[len(os.Args)-1], os.Stdin, app.NewLogger(os.Stderr, "info"))
	case len(os.Args) > 1 && slices.Contains([]string{"gateway", "stock-worker", "settle-worker"}, os.Args[1]):
		root := &cobra.Command{}
		root.AddCommand(app.Command(app.Role(os.Args[1])))
		os.Exit(app.Main(root))
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// short is a measurement that proves nothing but that it works.
func short(t *testing.T) Config {
	t.Helper()
	testservers.Real(t) // a schema is made, and the load is meant for real servers
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Config{
		Site: site.Config{
			Servers: site.Servers{Redis: testservers.Redis(t), Kafka: strings.Join(testservers.Kafka(t), ","), MySQL: os.Getenv("SECKILL_TEST_MYSQL")},
			Exe:     exe, Logs: t.Output(),
		},
		Duration: 200 * time.Millisecond, Repeats: 1, Callers: 8, Products: 2, Batch: 50, Reservations: 2000, Progress: t.Output(),
	}
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{Config: short(t), section: figures.Section{Name: t.Name()}}
	var err error
	if b.site, err = site.Open(t.Context(), b.Site); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.site.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return b
}

// TestSetups runs those that need only seconds, with real children.
func TestSetups(t *testing.T) {
	sections, err := Run(t.Context(), short(t), []string{"engine", "settle", "memory", "soldout", "pipeline"})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sections {
		if len(s.Figures) == 0 {
			t.Errorf("%s: no figure", s.Name)
		}
		for _, f := range s.Figures {
			if v := f.Value(); !(v >= 0) || (v == 0 && f.Name != "pipeline_p99") {
				t.Errorf("%s is %v, want a positive number", f.Name, v)
			}
		}
	}
	var out strings.Builder
	if err := (figures.Report{Sections: sections}).HTML(&out); err != nil || !strings.Contains(out.String(), "<polyline") {
		t.Errorf("the page has no curve: %v", err)
	}
}

func TestNoSuchSetup(t *testing.T) {
	if _, err := Run(t.Context(), Config{Progress: io.Discard}, []string{"speed"}); err == nil || !strings.Contains(err.Error(), `"speed"`) {
		t.Errorf("got %v, want an error that names the set-up", err)
	}
}

// everyTenth is an engine that promises every tenth buyer units that it does not take.
type everyTenth struct {
	reserver
	n atomic.Int64
}

func (e *everyTenth) Reserve(ctx context.Context, r stock.Reservation) (stock.Reservation, bool, error) {
	if e.n.Add(1)%10 == 0 {
		return r, false, nil
	}
	return e.reserver.Reserve(ctx, r)
}

// forgetful is a ledger that says of the last reservation of each batch that
// it has deducted it.
type forgetful struct{ deductor }

func (f forgetful) Deduct(ctx context.Context, productID string, rs []stock.Reservation) ([]stock.Reservation, error) {
	last := rs[len(rs)-1]
	last.State = stock.Deducted
	rows, err := f.deductor.Deduct(ctx, productID, rs[:len(rs)-1])
	return append(rows, last), err
}

// A check of the books that cannot fail would bless any speed.
func TestTheBooksFindABrokenSubject(t *testing.T) {
	b := newBench(t)
	if err := b.site.Topics(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		why string
		run func(ctx context.Context) error
	}{
		{"an engine that promises what it does not take", func(ctx context.Context) error {
			_, err := b.reservations(ctx, &everyTenth{reserver: b.site.Cache}, b.Duration)
			return err
		}},
		{"a ledger that forgets a row", func(ctx context.Context) error {
			_, err := b.deduct(ctx, forgetful{b.site.Ledger}, "broken")
			return err
		}},
		{"a gateway that only says 202", func(ctx context.Context) error {
			liar := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPost {
					w.WriteHeader(http.StatusAccepted)
				}
			}))
			defer liar.Close()
			addr := liar.Listener.Addr().String()
			d, err := b.open(ctx, 2, plenty, addr)
			if err != nil {
				return err
			}
			sent, err := b.send(ctx, b.closed(b.site.Reserve(d.sale, addr)))
			if err != nil {
				return err
			}
			return d.close(ctx, sent)
		}},
	} {
		t.Run(c.why, func(t *testing.T) {
			if err := c.run(t.Context()); err == nil || !strings.Contains(err.Error(), "the books do not balance") {
				t.Errorf("got %v, want an error that says so", err)
			}
		})
	}
}

func TestBooks(t *testing.T) {
	whole := books{sent: load.Result{Accepted: 10}, redis: 10, topic: 10, deducted: 10, orders: 10, workers: true}
	for _, c := range []struct {
		why    string
		change func(*books)
		ok     bool
	}{
		{"all say the same", func(*books) {}, true},
		{"without workers nobody asks the ledger", func(k *books) { k.workers, k.deducted, k.orders = false, 0, 0 }, true},
		{"turned away after the units were taken", func(k *books) { k.sent.Busy, k.redis, k.topic, k.deducted, k.orders = 3, 12, 11, 11, 11 }, true},
		{"an event that was published twice", func(k *books) { k.topic = 11 }, true},
		{"a promise that Redis does not know", func(k *books) { k.redis = 9 }, false},
		{"a unit that nobody was promised", func(k *books) { k.redis = 11 }, false},
		{"an event that was not written", func(k *books) { k.topic = 9 }, false},
		{"an event that was not written, under load", func(k *books) { k.sent.Busy, k.topic = 3, 9 }, false},
		{"a reservation that is not deducted", func(k *books) { k.deducted, k.orders = 9, 9 }, false},
		{"a deduction without an order", func(k *books) { k.orders = 9 }, false},
		{"an order too many", func(k *books) { k.orders = 11 }, false},
	} {
		t.Run(c.why, func(t *testing.T) {
			k := whole
			c.change(&k)
			if err := k.check(); (err == nil) != c.ok {
				t.Errorf("got %v, want ok = %v", err, c.ok)
			}
		})
	}
}

func TestRecovered(t *testing.T) {
	good, bad := load.Slice{Accepted: 5, WorstMS: 20}, load.Slice{Accepted: 5, WorstMS: 150}
	second := slices.Repeat([]load.Slice{good}, wellFor)
	for _, c := range []struct {
		why    string
		slices []load.Slice
		want   float64
	}{
		{"never ill", second, 0},
		{"ill at first", slices.Concat([]load.Slice{bad, bad}, second), 0.2},
		{"well for less than a second between", slices.Concat([]load.Slice{bad}, second[1:], []load.Slice{bad}, second), 1.1},
		{"a bad moment long after", slices.Concat([]load.Slice{bad}, second, []load.Slice{bad}, second), 0.1},
		{"somebody turned away", slices.Concat([]load.Slice{good, {Accepted: 1, Busy: 1}}, second), 0.2},
		{"somebody gave up", slices.Concat([]load.Slice{{Late: 1}}, second), 0.1},
		{"never well for a second", slices.Concat([]load.Slice{bad}, second[1:]), 1},
		{"shorter than a second", []load.Slice{good}, 0.1},
	} {
		if got := recovered(load.Result{Slices: c.slices}); got < c.want-0.01 || got > c.want+0.01 {
			t.Errorf("%s: %v, want %v", c.why, got, c.want)
		}
	}
}
