// Package doctor looks, before a sale, for what would hurt during it: settings
// that lose what was promised, clocks that differ, topics that are not as
// planned, workers that are missing, products that are not loaded, secrets that
// anybody knows. Each check says why it matters and what to do. It changes
// nothing.
package doctor

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/leadingpeers/seckill/internal/mysql"
	"github.com/leadingpeers/seckill/internal/ops/kafkalog"
	"github.com/leadingpeers/seckill/internal/ops/topics"
	"github.com/leadingpeers/seckill/pkg/catalog"
	"github.com/leadingpeers/seckill/pkg/events"
	"github.com/leadingpeers/seckill/pkg/stock"
)

// Status is what a check has found.
type Status string

// The states of a check.
const (
	OK   Status = "ok"
	Warn Status = "warn" // it can be lived with, if you know why
	Fail Status = "fail" // do not sell like this
)

// Check is one thing looked at.
type Check struct {
	Name   string `json:"name"`
	Status Status `json:"status"`
	Why    string `json:"why"`           // what was found, and what it means
	Fix    string `json:"fix,omitempty"` // what to do; empty when it is ok
}

// Healthy reports whether no check fails.
func Healthy(checks []Check) bool {
	for _, c := range checks {
		if c.Status == Fail {
			return false
		}
	}
	return true
}

// Secrets are the settings that may be default, short or public. They are
// judged, and never shown.
type Secrets struct {
	IDKey     string
	Keys      []string // role:id:secret
	TokenKeys []string // id:secret
	Redis     string   // addresses or URLs
	Kafka     string   // brokers
	KafkaUser string
	KafkaTLS  bool
	MySQL     string // DSN
}

// Bench is what was measured on these servers, if anything was.
type Bench struct {
	File string
	Rate float64 // rows a second in the ledger; 0 = not measured
}

// Patient is what is examined. All of it is required, but for Activity, Bench
// and LedgerRetention.
type Patient struct {
	Cache   *stock.Cache
	Ledger  *stock.Ledger
	Catalog *catalog.Store
	Kafka   events.ClientConfig
	DB      *sql.DB
	Now     func() time.Time
	Secrets Secrets

	Activity        string        // only this one is looked at; empty = all that are on sale
	Bench           Bench         // the file of a bench, for the capacity
	LedgerRetention time.Duration // how long you keep rows of the ledger; 0 = for ever
}

// clock is another machine's time against ours.
type clock struct {
	name   string
	offset time.Duration // ahead of ours
	within time.Duration // it is that to this, either way
}

// group is a consumer group of the workers.
type group struct {
	name       string
	state      string
	members    int
	partitions int
}

// ware is a product of the sale.
type ware struct {
	id                string
	loaded            bool
	surplus           int64
	available, total  int64
	moved             bool // somebody has bought
	balanced, stopped bool
}

// sale is an activity and its products.
type sale struct {
	activity catalog.Activity
	wares    []ware
}

// facts are what Examine has found out; the checks are pure functions of them.
// An error stands in place of what could not be read.
type facts struct {
	now     time.Time
	secrets Secrets
	bench   Bench
	ledger  time.Duration

	redis        []stock.ServerSettings
	redisErr     error
	mysql        map[string]string
	mysqlErr     error
	schema, want int64
	schemaErr    error
	clocks       []clock
	clocksErr    error
	topics       []topics.Status
	topicsErr    error
	brokers      map[int]map[string]string
	brokersErr   error
	groups       []group
	groupsErr    error
	sales        []sale
	salesErr     error
}

// Examine reads everything and returns the checks, in a fixed order. What
// cannot be read is a failed check, not an error.
func Examine(ctx context.Context, p Patient) []Check {
	f := facts{now: p.Now(), secrets: p.Secrets, bench: p.Bench, ledger: p.LedgerRetention}
	f.redis, f.redisErr = p.Cache.Settings(ctx)
	f.mysql, f.mysqlErr = mysql.Settings(ctx, p.DB)
	f.schema, f.want, f.schemaErr = mysql.SchemaVersion(ctx, p.DB)
	f.clocks, f.clocksErr = p.clocks(ctx)
	kafka := kafkalog.Open(p.Kafka)
	defer kafka.Close()
	f.topics, f.topicsErr = topics.Plan(ctx, kafka, events.Overrides{})
	f.brokers, f.brokersErr = kafka.BrokerSettings(ctx, "auto.create.topics.enable", "unclean.leader.election.enable", "offsets.retention.minutes")
	f.groups, f.groupsErr = p.groups(ctx, kafka, f.topics)
	f.sales, f.salesErr = p.sales(ctx)
	return f.checks()
}

// clocks asks each server for its time, in the middle of a round trip.
func (p Patient) clocks(ctx context.Context) ([]clock, error) {
	var out []clock
	for _, c := range []struct {
		name string
		ask  func(context.Context) (time.Time, error)
	}{{"Redis", p.Cache.Now}, {"MySQL", p.Ledger.Now}} {
		_, _ = c.ask(ctx) // the first one may have to connect
		before := p.Now()
		there, err := c.ask(ctx)
		after := p.Now()
		if err != nil {
			return nil, err
		}
		half := after.Sub(before) / 2
		out = append(out, clock{c.name, there.Sub(before.Add(half)), half + time.Millisecond}) // NOW(3) has milliseconds
	}
	return out, nil
}

// workers are the groups without which a sale stands still, and what they read.
func workers() map[string]events.Topic {
	return map[string]events.Topic{
		"deduct": events.Reservations, "rollback": events.Rollbacks, "channel": events.Channels,
		"settle": events.Deductions, "payment": events.Payments,
	}
}

func (p Patient) groups(ctx context.Context, kafka *kafkalog.Kafka, plan []topics.Status) ([]group, error) {
	var out []group
	for _, name := range []string{"deduct", "rollback", "channel", "settle", "payment"} {
		g, err := kafka.Group(ctx, p.Kafka.GroupName(name))
		if err != nil {
			return nil, err
		}
		one := group{name: name, state: g.State, members: len(g.Members)}
		for _, t := range plan {
			if t.Name == workers()[name] {
				one.partitions = t.HavePartitions
			}
		}
		out = append(out, one)
	}
	return out, nil
}

func (p Patient) sales(ctx context.Context) ([]sale, error) {
	listings, err := p.Catalog.OnSale(ctx)
	if p.Activity != "" {
		listings = []catalog.Listing{{}}
		if listings[0].Activity, err = p.Catalog.Activity(ctx, p.Activity); err == nil {
			listings[0].Products, err = p.Catalog.Products(ctx, p.Activity)
		}
	}
	if err != nil {
		return nil, err
	}
	var out []sale
	for _, l := range listings {
		s := sale{activity: l.Activity}
		for _, product := range l.Products {
			w, err := p.ware(ctx, product)
			if err != nil {
				return nil, fmt.Errorf("product %s: %w", product.ID, err)
			}
			s.wares = append(s.wares, w)
		}
		out = append(out, s)
	}
	return out, nil
}

func (p Patient) ware(ctx context.Context, product catalog.Product) (ware, error) {
	w := ware{id: product.ID, loaded: true, total: product.Total, stopped: product.SoldOut}
	var err error
	if w.surplus, err = p.Cache.Surplus(ctx, product.ID); errors.Is(err, stock.NotLoaded) {
		w.loaded = false
	} else if err != nil {
		return w, err
	}
	books, err := p.Ledger.Stock(ctx, product.ID)
	if err != nil {
		return w, err
	}
	w.available, w.moved, w.balanced = books.Available, books.Deducted > 0, books.Available+books.Deducted == books.Total
	return w, nil
}
