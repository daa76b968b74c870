package doctor

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/segmentio/kafka-go"

	"github.com/leadingpeers/seckill/internal/testservers"
	"github.com/leadingpeers/seckill/pkg/catalog"
	"github.com/leadingpeers/seckill/pkg/events"
	"github.com/leadingpeers/seckill/pkg/stock"
)

const patience = time.Minute

// ownRedis starts a Redis whose settings this test may change.
func ownRedis(t *testing.T) *redis.Client {
	t.Helper()
	var port int
	for port = 21300; port < 21400; port++ {
		if ln, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", port)); err == nil {
			_ = ln.Close()
			break
		}
	}
	server := exec.Command("redis-server", "--port", fmt.Sprint(port), "--bind", "127.0.0.1", "--dir", t.TempDir(), "--save", "", "--appendonly", "yes")
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Process.Kill(); _ = server.Wait() })
	client := redis.NewClient(&redis.Options{Addr: fmt.Sprint("127.0.0.1:", port)})
	t.Cleanup(func() { _ = client.Close() })
	await(t, "Redis", func() bool { return client.Ping(t.Context()).Err() == nil })
	return client
}

func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline, tick := time.After(patience), time.NewTicker(50*time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// The real servers, before anything is prepared, as it is prepared, and after
// somebody has changed it.
func TestExamineRealServers(t *testing.T) {
	testservers.Real(t)
	ctx := t.Context()
	cfg := events.ClientConfig{Brokers: testservers.Kafka(t), Prefix: testservers.Prefix(t)}
	db, client := testservers.MySQL(t), ownRedis(t)
	p := Patient{
		Cache: stock.NewCache(client, stock.CacheConfig{Prefix: cfg.Prefix}), Ledger: stock.NewLedger(db), Catalog: catalog.NewStore(db),
		Kafka: cfg, DB: db, Now: time.Now, Secrets: healthy().secrets,
	}
	defer p.Cache.Close()
	found := map[string]Check{}
	look := func() {
		clear(found)
		for _, c := range Examine(ctx, p) {
			found[c.Name] = c
		}
	}
	is := func(why, name string, want Status) {
		t.Helper()
		if found[name].Status != want {
			t.Errorf("%s: %s is %+v, want %s", why, name, found[name], want)
		}
	}
	topic := "topic " + cfg.TopicName(events.Reservations)

	look()
	for _, name := range []string{"redis version", "redis appendonly", "redis maxmemory-policy", "mysql version", "mysql flush", "mysql sync_binlog", "mysql isolation", "mysql writable", "schema", "clock Redis / MySQL", "kafka auto-create"} {
		is("as deploy/local/servers sets them up", name, OK)
	}
	is("before topics apply", topic, Fail)
	is("nobody works", "group deduct", Fail)

	for name, value := range map[string]string{"appendonly": "no", "appendfsync": "no", "maxmemory-policy": "allkeys-lru"} {
		if err := client.ConfigSet(ctx, name, value).Err(); err != nil {
			t.Fatal(err)
		}
	}
	applied, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := events.Apply(applied, cfg, events.Overrides{}); err != nil {
		t.Fatal(err)
	}
	work(t, cfg)
	open(t, p)
	await(t, "a member of deduct", func() bool { look(); return found["group deduct"].Status == Warn })
	is("one member", "group deduct", Warn)
	is("changed in Redis", "redis appendonly", Fail)
	is("changed in Redis", "redis appendfsync", Fail)
	is("changed in Redis", "redis maxmemory-policy", Fail)
	is("as planned", "topics", OK)
	is("on sale", "activity sale", OK)
	is("not loaded", "product phone", Fail)

	load(t, p)
	if err := client.HIncrBy(ctx, cfg.Prefix+":{phone}", "surplus", 5).Err(); err != nil {
		t.Fatal(err)
	}
	keepForEver(t, cfg)
	if _, err := db.ExecContext(ctx, "DELETE FROM goose_db_version WHERE version_id = (SELECT * FROM (SELECT MAX(version_id) FROM goose_db_version) v)"); err != nil {
		t.Fatal(err)
	}
	look()
	is("more in Redis than in the ledger", "product phone", Fail)
	is("records kept for ever", topic, Fail)
	is("a migration is missing", "schema", Fail)
}

func work(t *testing.T, cfg events.ClientConfig) {
	t.Helper()
	publisher := events.NewPublisher(events.PublisherConfig{ClientConfig: cfg, Now: time.Now})
	consumer := events.NewConsumer(events.ConsumerConfig{ClientConfig: cfg, Group: "deduct", Topic: events.Reservations},
		func(context.Context, []events.Event) ([]events.Event, error) { return nil, nil }, publisher)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- consumer.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
		_ = publisher.Close(context.Background())
	})
}

func open(t *testing.T, p Patient) {
	t.Helper()
	start := time.Now().Truncate(time.Second).Add(time.Hour)
	_, err := p.Catalog.CreateActivity(t.Context(), catalog.Activity{ID: "sale", Name: "Sale", StartsAt: start, EndsAt: start.Add(time.Hour), PayWindow: time.Hour})
	if err == nil {
		_, err = p.Catalog.AddProduct(t.Context(), catalog.Product{ID: "phone", ActivityID: "sale", Name: "Phone", Currency: "CNY", Total: 600, PerOrder: 1, PerUser: 1})
	}
	if err == nil {
		_, err = p.Catalog.SetState(t.Context(), "sale", catalog.Online)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func load(t *testing.T, p Patient) {
	t.Helper()
	start := time.Now().Truncate(time.Second).Add(time.Hour)
	_, err := stock.Load(t.Context(), p.Cache, p.Ledger, stock.Terms{ProductID: "phone", PerOrder: 1, PerUser: 1, OnSale: true, StartsAt: start, EndsAt: start.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
}

func keepForEver(t *testing.T, cfg events.ClientConfig) {
	t.Helper()
	client := &kafka.Client{Addr: kafka.TCP(cfg.Brokers...)}
	resp, err := client.IncrementalAlterConfigs(t.Context(), &kafka.IncrementalAlterConfigsRequest{Resources: []kafka.IncrementalAlterConfigsRequestResource{{
		ResourceType: kafka.ResourceTypeTopic, ResourceName: cfg.TopicName(events.Reservations),
		Configs: []kafka.IncrementalAlterConfigsRequestConfig{{Name: "retention.ms", Value: "-1", ConfigOperation: kafka.ConfigOperationSet}},
	}}})
	if err == nil {
		err = resp.Resources[0].Error
	}
	if err != nil {
		t.Fatal(err)
	}
}
