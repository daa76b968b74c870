package testservers

import (
	"context"
	"database/sql"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/segmentio/kafka-go"

	"github.com/leadingpeers/seckill/internal/mysql"
)

func TestPrefixTakesItsKeysAndTopicsAway(t *testing.T) {
	Real(t)
	ctx := t.Context()
	addr, brokers := Redis(t), Kafka(t)
	client := redis.NewClient(&redis.Options{Addr: addr})
	defer client.Close()
	admin := &kafka.Client{Addr: kafka.TCP(brokers...)}

	var prefix, other string
	t.Run("a test that leaves things behind", func(t *testing.T) {
		prefix, other = Prefix(t), Prefix(t)
		if prefix == other {
			t.Fatalf("two prefixes are both %s", prefix)
		}
		for _, key := range []string{prefix + ":{p1}", prefix + ":{p1}:open", other + ":{p1}"} {
			if err := client.Set(ctx, key, "1", 0).Err(); err != nil {
				t.Fatal(err)
			}
		}
		made, err := admin.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{
			{Topic: prefix + ".reservations", NumPartitions: 2, ReplicationFactor: 1},
		}})
		if err != nil {
			t.Fatal(err)
		}
		if err := made.Errors[prefix+".reservations"]; err != nil {
			t.Fatal(err)
		}
		awaitTopics(ctx, t, brokers, prefix, 1)
	})
	keys, err := client.Keys(ctx, prefix+"*").Result()
	if err != nil || len(keys) != 0 {
		t.Errorf("keys after the test: %v, %v", keys, err)
	}
	awaitTopics(ctx, t, brokers, prefix, 0)
}

// awaitTopics polls until the brokers list the wanted number of topics.
func awaitTopics(ctx context.Context, t *testing.T, brokers []string, prefix string, want int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		if got := countTopics(ctx, t, brokers, prefix); got == want {
			return
		}
	}
}

// countTopics asks with a new transport: an old one answers from memory.
func countTopics(ctx context.Context, t *testing.T, brokers []string, prefix string) int {
	t.Helper()
	transport := &kafka.Transport{}
	defer transport.CloseIdleConnections()
	client := &kafka.Client{Addr: kafka.TCP(brokers...), Transport: transport}
	meta, err := client.Metadata(ctx, &kafka.MetadataRequest{})
	if err != nil {
		t.Fatalf("count the topics under %s: %v", prefix, err)
	}
	got := 0
	for _, topic := range meta.Topics {
		if strings.HasPrefix(topic.Name, prefix) {
			got++
		}
	}
	return got
}

func TestMySQLIsMigratedAndDropped(t *testing.T) {
	var dsn string
	t.Run("a test with two schemas", func(t *testing.T) {
		one, two := MySQL(t), MySQL(t)
		const insert = "INSERT INTO stock (product_id, total, available, per_user) VALUES ('p', 1, 1, 1)"
		for why, db := range map[string]*sql.DB{"the first": one, "the second, which shares no row with it": two} {
			if _, err := db.ExecContext(t.Context(), insert); err != nil {
				t.Errorf("%s: %v", why, err)
			}
		}
		dsn = MySQLDSN(t)
	})
	if db, err := mysql.Open(t.Context(), mysql.Config{DSN: dsn}); err == nil {
		defer db.Close()
		if _, err := db.ExecContext(t.Context(), "SELECT product_id FROM stock"); err == nil {
			t.Errorf("%s still answers after its test", dsn)
		}
	}
}

func TestWithSchema(t *testing.T) {
	for _, c := range []struct{ dsn, want string }{
		{"root@tcp(127.0.0.1:3306)/", "root@tcp(127.0.0.1:3306)/s"},
		{"u:p@tcp(h:1)/?tls=true&loc=a/b", "u:p@tcp(h:1)/s?tls=true&loc=a/b"},
	} {
		if got := withSchema(c.dsn, "s"); got != c.want {
			t.Errorf("withSchema(%s) = %s, want %s", c.dsn, got, c.want)
		}
	}
}

func TestMissingServerFails(t *testing.T) {
	for _, variable := range []string{redisVariable, kafkaVariable, mysqlVariable, serversVariable} {
		t.Setenv(variable, "")
	}
	for name, call := range map[string]func(testing.TB){
		redisVariable: func(t testing.TB) { Redis(t) },
		kafkaVariable: func(t testing.TB) { Kafka(t) },
		mysqlVariable: func(t testing.TB) { MySQL(t) },
	} {
		r := &recorder{TB: t}
		func() {
			defer func() { _ = recover() }()
			call(r)
		}()
		if !strings.Contains(r.fatal, name) || !strings.Contains(r.fatal, "make test") {
			t.Errorf("%s unset: the test was told %q, want the variable and `make test`", name, r.fatal)
		}
	}
}

// recorder is a test that notes why it failed.
type recorder struct {
	testing.TB
	fatal string
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.fatal = strings.TrimSpace(format)
	if len(args) > 0 {
		if s, ok := args[0].(string); ok {
			r.fatal += " " + s
		}
	}
	panic("ended")
}
