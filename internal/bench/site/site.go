// Package site is the ground that measurements stand on: a schema, topics and
// keys of their own on real servers, our processes and the references as
// children, a load generator in a process of its own, and what all of them
// have used of the CPU. Nothing of it is left behind.
package site

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/segmentio/kafka-go"

	"github.com/leadingpeers/seckill/internal/bench/load"
	"github.com/leadingpeers/seckill/internal/mysql"
	"github.com/leadingpeers/seckill/internal/proc"
	"github.com/leadingpeers/seckill/pkg/catalog"
	"github.com/leadingpeers/seckill/pkg/events"
	"github.com/leadingpeers/seckill/pkg/order"
	"github.com/leadingpeers/seckill/pkg/stock"
)

// Config says where a site stands.
type Config struct {
	Servers Servers
	Exe     string    // our own binary, whose subcommands are the children
	Cores   Cores     // where the children run
	Logs    io.Writer // of the children
	Set     []string  // further settings of our processes, SECKILL_NAME=value
}

// Site is one ground; make it with Open.
type Site struct {
	Config
	Prefix  string
	DB      *sql.DB
	Redis   *redis.Client
	Cache   *stock.Cache
	Ledger  *stock.Ledger
	Catalog *catalog.Store
	Orders  *order.Store
	Kafka   events.ClientConfig

	secret string // of the key that the load carries
	dsn    string
	server *sql.DB // without a schema
	procs  []*proc.Process
}

// Open makes the ground. On error nothing is left.
func Open(ctx context.Context, cfg Config) (_ *Site, err error) {
	s := &Site{Config: cfg, Prefix: "bench-" + strings.ToLower(rand.Text()[:8]), secret: rand.Text()}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close(context.WithoutCancel(ctx)))
		}
	}()
	address, parameters, _ := strings.Cut(cfg.Servers.MySQL, "?")
	address = address[:strings.LastIndex(address, "/")+1]
	schema := strings.ReplaceAll(s.Prefix, "-", "_")
	s.dsn = address + schema
	if parameters != "" {
		s.dsn += "?" + parameters
	}
	if s.server, err = mysql.Open(ctx, mysql.Config{DSN: strings.Replace(s.dsn, address+schema, address, 1), MaxOpen: 1}); err != nil {
		return nil, err
	}
	if _, err = s.server.ExecContext(ctx, "CREATE DATABASE "+schema); err != nil {
		return nil, fmt.Errorf("make a schema for the measurement: %w", err)
	}
	if s.DB, err = mysql.Open(ctx, mysql.Config{DSN: s.dsn, MaxOpen: 32}); err != nil {
		return nil, err
	}
	if err = mysql.Migrate(ctx, s.DB, nil); err != nil {
		return nil, err
	}
	s.Redis = redis.NewClient(&redis.Options{Addr: cfg.Servers.Redis, MaxRetries: 1})
	s.Cache = stock.NewCache(s.Redis, stock.CacheConfig{Prefix: s.Prefix})
	s.Ledger, s.Catalog, s.Orders = stock.NewLedger(s.DB), catalog.NewStore(s.DB), order.NewStore(s.DB)
	s.Kafka = events.ClientConfig{Brokers: strings.Split(cfg.Servers.Kafka, ","), Prefix: s.Prefix}
	return s, nil
}

// Topics makes the topics; without it there are none.
func (s *Site) Topics(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return events.Apply(ctx, s.Kafka, events.Overrides{})
}

// Close ends the children and removes schema, keys and topics.
func (s *Site) Close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	var errs []error
	for _, p := range s.procs {
		p.Kill() // nothing in it is worth waiting for
	}
	if s.Redis != nil {
		s.Cache.Close()
		errs = append(errs, s.removeKeys(ctx), s.removeTopics(ctx), s.Redis.Close())
	}
	if s.DB != nil {
		errs = append(errs, s.DB.Close())
	}
	if s.server != nil {
		_, err := s.server.ExecContext(ctx, "DROP DATABASE IF EXISTS "+strings.ReplaceAll(s.Prefix, "-", "_"))
		errs = append(errs, err, s.server.Close())
	}
	return errors.Join(errs...)
}

func (s *Site) removeKeys(ctx context.Context) error {
	keys := s.Redis.Scan(ctx, 0, s.Prefix+"*", 1000).Iterator()
	for keys.Next(ctx) {
		if err := s.Redis.Unlink(ctx, keys.Val()).Err(); err != nil {
			return err
		}
	}
	return keys.Err()
}

func (s *Site) removeTopics(ctx context.Context) error {
	transport := &kafka.Transport{}
	defer transport.CloseIdleConnections()
	client := &kafka.Client{Addr: kafka.TCP(s.Kafka.Brokers...), Transport: transport}
	found, err := client.Metadata(ctx, &kafka.MetadataRequest{})
	if err != nil {
		return fmt.Errorf("remove the topics %s.*: %w", s.Prefix, err)
	}
	var names []string
	for _, t := range found.Topics {
		if strings.HasPrefix(t.Name, s.Prefix+".") {
			names = append(names, t.Name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	_, err = client.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: names})
	return err
}

// Sale is an activity on sale with its products, loaded into Redis.
type Sale struct {
	Activity string
	Products []string
	Units    int64 // of each product
}

// Sale puts new products on sale.
func (s *Site) Sale(ctx context.Context, products int, units int64) (Sale, error) {
	now := time.Now().UTC().Truncate(time.Second)
	a, err := s.Catalog.CreateActivity(ctx, catalog.Activity{
		Name: "bench", StartsAt: now.Add(-time.Hour), EndsAt: now.Add(24 * time.Hour), PayWindow: time.Hour,
	})
	if err != nil {
		return Sale{}, err
	}
	out := Sale{Activity: a.ID, Units: units}
	for range products {
		p, err := s.Catalog.AddProduct(ctx, catalog.Product{
			ActivityID: a.ID, Name: "A product that is measured", PriceCents: 9900, Currency: "CNY", Total: units, PerOrder: 5, PerUser: 5,
		})
		if err != nil {
			return Sale{}, err
		}
		out.Products = append(out.Products, p.ID)
	}
	if _, err := s.Catalog.SetState(ctx, a.ID, catalog.Online); err != nil {
		return Sale{}, err
	}
	for _, p := range out.Products {
		terms := stock.Terms{ProductID: p, PerOrder: 5, PerUser: 5, OnSale: true, StartsAt: a.StartsAt, EndsAt: a.EndsAt}
		if _, err := stock.Load(ctx, s.Cache, s.Ledger, terms); err != nil {
			return Sale{}, err
		}
	}
	return out, nil
}

// Taken is how many units of a sale Redis has given away.
func (s *Site) Taken(ctx context.Context, sale Sale) (int64, error) {
	var taken int64
	for _, p := range sale.Products {
		surplus, err := s.Cache.Surplus(ctx, p)
		if err != nil {
			return 0, err
		}
		taken += sale.Units - surplus
	}
	return taken, nil
}

// Flush ends a sale and takes it out of Redis, whatever is open there. Of a sale
// that is still on, the workers would load every reservation again: into the
// figures of the next one.
func (s *Site) Flush(ctx context.Context, sale Sale) error {
	if _, err := s.Catalog.SetState(ctx, sale.Activity, catalog.Ended); err != nil {
		return err
	}
	var errs []error
	for _, p := range sale.Products {
		errs = append(errs, s.Cache.Flush(ctx, p, true))
	}
	return errors.Join(errs...)
}

// Records is how many records a topic has ever got.
func (s *Site) Records(ctx context.Context, topic events.Topic) (int64, error) {
	transport := &kafka.Transport{}
	defer transport.CloseIdleConnections()
	client := &kafka.Client{Addr: kafka.TCP(s.Kafka.Brokers...), Transport: transport}
	name := s.Kafka.TopicName(topic)
	meta, err := client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{name}})
	if err != nil {
		return 0, fmt.Errorf("count the records of %s: %w", name, err)
	}
	var ask []kafka.OffsetRequest
	for _, p := range meta.Topics[0].Partitions {
		ask = append(ask, kafka.LastOffsetOf(p.ID))
	}
	ends, err := client.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{name: ask}})
	if err != nil {
		return 0, fmt.Errorf("count the records of %s: %w", name, err)
	}
	var n int64
	for _, p := range ends.Topics[name] {
		if p.Error != nil {
			return 0, fmt.Errorf("count the records of %s/%d: %w", name, p.Partition, p.Error)
		}
		n += p.LastOffset
	}
	return n, nil
}

// Start runs one of our processes with further settings as NAME=value.
func (s *Site) Start(ctx context.Context, role string, settings ...string) (*proc.Process, error) {
	env := append(environ(), "SECKILL_REDIS="+s.Servers.Redis, "SECKILL_KAFKA="+s.Servers.Kafka, "SECKILL_MYSQL="+s.dsn,
		"SECKILL_PREFIX="+s.Prefix, "SECKILL_ADMIN_LISTEN=127.0.0.1:0", "SECKILL_LISTEN=127.0.0.1:0",
		"SECKILL_KEYS=service:bench:"+s.secret, "SECKILL_ID_KEY="+s.secret)
	return s.child(ctx, role, []string{role, "--until-stdin-closes"}, append(append(env, settings...), s.Set...))
}

// Reference runs one of the servers of package reference.
func (s *Site) Reference(ctx context.Context, ref Reference) (*proc.Process, error) {
	text, err := json.Marshal(ref) //nolint:musttag // only this program writes and reads it
	if err != nil {
		return nil, err
	}
	return s.child(ctx, ref.Kind, []string{ReferenceCommand, string(text)}, environ())
}

func (s *Site) child(ctx context.Context, name string, args, env []string) (*proc.Process, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	args = s.Cores.subject(append([]string{s.Exe}, args...))
	p, err := proc.Start(ctx, proc.Spec{Name: name, Path: args[0], Args: args[1:], Env: env, Logs: s.Logs})
	if err == nil {
		s.procs = append(s.procs, p)
	}
	return p, err
}

// Header is what every request to our gateway carries.
func (s *Site) Header() string { return "Authorization: Bearer sk_bench_" + s.secret + "\r\n" }

// Reserve is the load of buyers on a sale at some gateways.
func (s *Site) Reserve(sale Sale, gateways ...string) load.Spec {
	spec := load.Spec{Addrs: gateways, Reserve: true, Header: s.Header(), Seed: strings.ToLower(rand.Text()[:6])}
	for _, p := range sale.Products {
		spec.Paths = append(spec.Paths, "/v1/activities/"+sale.Activity+"/products/"+p+"/reservations")
	}
	return spec
}

// Await returns when a gateway has the sale in its catalogue.
func (s *Site) Await(ctx context.Context, gateway string, sale Sale) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	url := "http://" + gateway + "/v1/activities/" + sale.Activity + "/products/" + sale.Products[len(sale.Products)-1]
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return fmt.Errorf("wait until the gateway sells: %w", err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until the gateway sells: it answers %s: %w", resp.Status, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Load sends what spec says from a process of its own.
func (s *Site) Load(ctx context.Context, spec load.Spec) (load.Result, error) {
	text, err := json.Marshal(spec) //nolint:musttag // only this program writes and reads it
	if err != nil {
		return load.Result{}, err
	}
	args := s.Cores.load([]string{s.Exe, LoadCommand})
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = environ()
	var out, problem bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(text), &out, &problem
	if err := cmd.Run(); err != nil {
		return load.Result{}, fmt.Errorf("load: %w: %s", err, strings.TrimSpace(problem.String()))
	}
	var r load.Result
	if err := json.Unmarshal(out.Bytes(), &r); err != nil { //nolint:musttag // only this program writes and reads it
		return r, fmt.Errorf("load: %w", err)
	}
	return r, nil
}

// environ is our environment without settings meant for somebody else.
func environ() []string {
	var out []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "SECKILL_") {
			out = append(out, e)
		}
	}
	return out
}
