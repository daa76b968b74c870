package doctor

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leadingpeers/seckill/internal/ops/topics"
	"github.com/leadingpeers/seckill/pkg/catalog"
	"github.com/leadingpeers/seckill/pkg/events"
	"github.com/leadingpeers/seckill/pkg/stock"
)

var now = time.Date(2026, 11, 11, 19, 0, 0, 0, time.UTC)

// healthy is an installation of which every check is ok.
func healthy() facts {
	f := facts{
		now: now,
		secrets: Secrets{
			IDKey: "b3f0c2d4e5a6978812345f6e7d8c9ba0", Keys: []string{"service:checkout:91d2e3f4a5b6c7d8e9f0a1b2c3d4e5f6"}, TokenKeys: []string{"k1:0f1e2d3c4b5a69788796a5b4c3d2e1f0"},
			Redis: "rediss://app:x@redis.shop:6380", Kafka: "kafka.shop:9093", KafkaUser: "app", KafkaTLS: true, MySQL: "app:x@tcp(mysql.shop:3306)/seckill",
		},
		bench: Bench{File: "bench.json", Rate: 10_000},
		redis: []stock.ServerSettings{{Addr: "redis:6379", Values: map[string]string{"redis_version": "7.0.15", "appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}}},
		mysql: map[string]string{
			"version": "8.0.40", "innodb_flush_log_at_trx_commit": "1", "sync_binlog": "1", "log_bin": "ON", "innodb_doublewrite": "ON",
			"transaction_isolation": "READ-COMMITTED", "read_only": "OFF",
		},
		schema: 3, want: 3,
		clocks:  []clock{{"Redis", 2 * time.Millisecond, time.Millisecond}, {"MySQL", -3 * time.Millisecond, time.Millisecond}},
		brokers: map[int]map[string]string{},
		sales: []sale{{
			activity: catalog.Activity{ID: "double-eleven", State: catalog.Online, StartsAt: now.Add(time.Hour), EndsAt: now.Add(2 * time.Hour)},
			wares:    []ware{{id: "phone", loaded: true, surplus: 600, available: 600, total: 600, balanced: true}},
		}},
	}
	for id := 1; id <= 3; id++ {
		f.brokers[id] = map[string]string{"auto.create.topics.enable": "false", "unclean.leader.election.enable": "false", "offsets.retention.minutes": "43200"}
	}
	for _, s := range events.Topics() {
		f.topics = append(f.topics, topics.Status{TopicSpec: s, FullName: "seckill." + string(s.Name), HavePartitions: 12, HaveReplication: 3, HaveRetention: s.Retention, HaveMinInSync: 2})
	}
	for _, name := range []string{"deduct", "rollback", "channel", "settle", "payment"} {
		f.groups = append(f.groups, group{name, "Stable", 2, 12})
	}
	return f
}

func TestAHealthyInstallation(t *testing.T) {
	checks := healthy().checks()
	for _, c := range checks {
		if c.Status != OK || c.Fix != "" || c.Why == "" {
			t.Errorf("%+v, want it ok", c)
		}
	}
	if len(checks) < 25 || !Healthy(checks) {
		t.Errorf("%d checks, healthy %t", len(checks), Healthy(checks))
	}
}

// Each check can fail, says why and what to do, and no other one is moved.
func TestEachCheckCanFail(t *testing.T) {
	redis := func(name, value string) func(*facts) { return func(f *facts) { f.redis[0].Values[name] = value } }
	mysql := func(name, value string) func(*facts) { return func(f *facts) { f.mysql[name] = value } }
	broker := func(name, value string) func(*facts) { return func(f *facts) { f.brokers[2][name] = value } }
	product := func(change func(*ware)) func(*facts) { return func(f *facts) { change(&f.sales[0].wares[0]) } }
	gone := errors.New("connection refused")
	for _, c := range []struct {
		why    string
		change func(*facts)
		check  string
		status Status
		says   string
	}{
		{"Redis is away", func(f *facts) { f.redisErr = gone }, "redis", Fail, "refused"},
		{"an old Redis", redis("redis_version", "6.0.16"), "redis version", Fail, "6.2"},
		{"no AOF", redis("appendonly", "no"), "redis appendonly", Fail, "forgets every hold"},
		{"AOF each second", redis("appendfsync", "everysec"), "redis appendfsync", Warn, "up to a second"},
		{"AOF when the kernel likes", redis("appendfsync", "no"), "redis appendfsync", Fail, "half a minute"},
		{"AOF unknown", redis("appendfsync", ""), "redis appendfsync", Warn, "cannot be read"},
		{"eviction", redis("maxmemory-policy", "allkeys-lru"), "redis maxmemory-policy", Fail, "vanish"},
		{"MySQL is away", func(f *facts) { f.mysqlErr = gone }, "mysql", Fail, "refused"},
		{"an old MySQL", mysql("version", "5.7.44"), "mysql version", Fail, "SKIP LOCKED"},
		{"an old MariaDB", mysql("version", "10.5.1-MariaDB"), "mysql version", Fail, "SKIP LOCKED"},
		{"lazy commits", mysql("innodb_flush_log_at_trx_commit", "2"), "mysql flush", Fail, "loses"},
		{"a lazy binary log", mysql("sync_binlog", "0"), "mysql sync_binlog", Fail, "replicas"},
		{"no doublewrite", mysql("innodb_doublewrite", "OFF"), "mysql doublewrite", Warn, "tear"},
		{"another isolation", mysql("transaction_isolation", "REPEATABLE-READ"), "mysql isolation", Fail, "deadlocks"},
		{"a replica", mysql("read_only", "ON"), "mysql writable", Fail, "replica"},
		{"never migrated", func(f *facts) { f.schemaErr = gone }, "schema", Fail, "refused"},
		{"an old schema", func(f *facts) { f.schema = 2 }, "schema", Fail, "wants 3"},
		{"a newer schema", func(f *facts) { f.schema = 4 }, "schema", Warn, "wants 3"},
		{"clocks half a second apart", func(f *facts) { f.clocks = []clock{{"Redis", 700 * time.Millisecond, time.Millisecond}} }, "clock this machine / Redis", Warn, "700ms apart"},
		{"clocks ten seconds apart", func(f *facts) { f.clocks = []clock{{"MySQL", -10 * time.Second, time.Millisecond}} }, "clock this machine / MySQL", Fail, "10s apart"},
		{"no clocks", func(f *facts) { f.clocksErr = gone }, "clocks", Fail, "refused"},
		{"Kafka is away", func(f *facts) { f.brokersErr = gone }, "kafka", Fail, "refused"},
		{"one broker", func(f *facts) { delete(f.brokers, 1); delete(f.brokers, 3) }, "kafka brokers", Warn, "too few disks"},
		{"topics by accident", broker("auto.create.topics.enable", "true"), "kafka auto-create", Fail, "broker 2"},
		{"unclean leaders", broker("unclean.leader.election.enable", "true"), "kafka unclean election", Fail, "lost"},
		{"offsets forgotten", broker("offsets.retention.minutes", "10080"), "kafka offsets retention", Warn, "168h"},
		{"topics unknown", func(f *facts) { f.topicsErr = gone }, "topics", Fail, "refused"},
		{"a missing topic", func(f *facts) {
			f.topics[0].Missing, f.topics[0].Changes = true, []topics.Change{{Topic: "seckill.reservations", What: "topic", Want: "12 partitions"}}
		}, "topic seckill.reservations", Fail, "12 partitions"},
		{"too few in sync", func(f *facts) {
			f.topics[0].Changes = []topics.Change{{Topic: "seckill.reservations", What: "min.insync.replicas", Have: "1", Want: "2"}}
		}, "topic seckill.reservations", Fail, `is "1"`},
		{"a longer retention", func(f *facts) {
			f.topics[0].Changes = []topics.Change{{Topic: "seckill.reservations", What: "retention.ms", Have: "8d", Want: "7d"}}
		}, "topic seckill.reservations", Warn, `is "8d"`},
		{"records for ever", func(f *facts) { f.topics[0].HaveRetention = -1 }, "topic seckill.reservations", Fail, "outlive"},
		{"a ledger that forgets sooner", func(f *facts) { f.ledger, f.topics[0].HaveRetention = 900*time.Hour, 1000*time.Hour }, "topic seckill.reservations", Fail, "outlive"},
		{"groups unknown", func(f *facts) { f.groupsErr = gone }, "groups", Fail, "refused"},
		{"nobody settles", func(f *facts) { f.groups[3].members = 0 }, "group settle", Fail, "nobody"},
		{"one alone", func(f *facts) { f.groups[0].members = 1 }, "group deduct", Warn, "one member"},
		{"more workers than partitions", func(f *facts) { f.groups[0].members = 13 }, "group deduct", Warn, "nothing to do"},
		{"no such activity", func(f *facts) { f.salesErr = gone }, "activity", Fail, "refused"},
		{"a draft", func(f *facts) { f.sales[0].activity.State = catalog.Draft }, "activity double-eleven", Warn, "draft"},
		{"over", func(f *facts) { f.now = now.Add(3 * time.Hour) }, "activity double-eleven", Warn, "nobody can buy"},
		{"not loaded", product(func(w *ware) { w.loaded = false }), "product phone", Fail, "not in Redis"},
		{"more in Redis than in MySQL", product(func(w *ware) { w.surplus = 601 }), "product phone", Fail, "601"},
		{"the ledger is wrong", product(func(w *ware) { w.balanced = false }), "product phone", Fail, "not the total"},
		{"sold out at its source", product(func(w *ware) { w.stopped = true }), "product phone", Warn, "sold out"},
		{"more than was measured", product(func(w *ware) { w.surplus, w.available, w.total = 900_000, 900_000, 900_000 }), "activity double-eleven capacity", Warn, "1m30s"},
		{"nothing measured", func(f *facts) { f.bench.Rate = 0 }, "activity double-eleven capacity", Warn, "pipeline_rate"},
		{"a short secret", func(f *facts) { f.secrets.IDKey = "b3f0c2d4e5a69788" }, "secret id-key", Fail, "16 characters"},
		{"a missing secret", func(f *facts) { f.secrets.IDKey = "" }, "secret id-key", Fail, "empty"},
		{"a well-known secret", func(f *facts) { f.secrets.Keys = []string{"admin:ops:changeme-changeme-changeme"} }, "secret keys ops", Fail, "changeme"},
		{"a monotonous secret", func(f *facts) { f.secrets.TokenKeys = []string{"k1:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab"} }, "secret token-keys k1", Fail, "few characters"},
		{"one secret twice", func(f *facts) { f.secrets.TokenKeys = []string{"k1:" + f.secrets.IDKey} }, "secret token-keys k1", Fail, "same as id-key"},
		{"no secrets here", func(f *facts) { f.secrets.IDKey, f.secrets.Keys, f.secrets.TokenKeys = "", nil, nil }, "secrets", Warn, "nobody has looked"},
		{"root without a password", func(f *facts) { f.secrets.MySQL = "root@tcp(10.0.0.5:3306)/seckill" }, "door mysql", Fail, "root without a password"},
		{"the same on this machine", func(f *facts) { f.secrets.MySQL = "root@tcp(127.0.0.1:3306)/seckill" }, "door mysql", Warn, "root without a password"},
		{"an open Redis", func(f *facts) { f.secrets.Redis = "10.0.0.6:6379" }, "door redis", Fail, "without a password"},
		{"an open Kafka", func(f *facts) { f.secrets.KafkaTLS = false }, "door kafka", Fail, "forge"},
	} {
		f := healthy()
		c.change(&f)
		var moved []Check
		for _, got := range f.checks() {
			if got.Status != OK {
				moved = append(moved, got)
			}
		}
		if len(moved) != 1 || moved[0].Name != c.check || moved[0].Status != c.status || !strings.Contains(moved[0].Why, c.says) || moved[0].Fix == "" {
			t.Errorf("%s: %+v, want only %q to %s, with why (%q) and fix", c.why, moved, c.check, c.status, c.says)
		}
		if Healthy(moved) != (c.status != Fail) {
			t.Errorf("%s: healthy is %t", c.why, Healthy(moved))
		}
	}
}

// No secret is in what is shown.
func TestSecretsAreNotShown(t *testing.T) {
	f := healthy()
	f.secrets.IDKey, f.secrets.Keys, f.secrets.MySQL = "test-canary-1", []string{"admin:ops:test-canary-2"}, "root:test-canary-3@tcp(10.0.0.5:3306)/s"
	f.secrets.Redis = "redis://app:test-canary-4@10.0.0.6:6379"
	for _, c := range f.checks() {
		if strings.Contains(c.Why+c.Fix+c.Name, "canary") {
			t.Errorf("%+v shows a secret", c)
		}
	}
}

func TestAtLeast(t *testing.T) {
	for _, c := range []struct {
		version string
		want    bool
	}{{"7.0.15", true}, {"6.2.0", true}, {"6.0.9", false}, {"10.1", true}, {"", false}, {"seven", false}} {
		if got := atLeast(c.version, 6, 2); got != c.want {
			t.Errorf("%q at least 6.2: %t", c.version, got)
		}
	}
	if !slices.Contains(knownWords(), "changeme") {
		t.Error("the most used secret is not known")
	}
}
