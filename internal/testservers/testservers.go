// Package testservers gives a test the servers it runs against: real Redis,
// Kafka and MySQL or MariaDB that somebody has started, or the embedded
// stand-ins. Only tests import it.
//
// The environment chooses. SECKILL_TEST_REDIS, SECKILL_TEST_KAFKA and
// SECKILL_TEST_MYSQL name real servers (deploy/local/servers env prints them);
// SECKILL_TEST_SERVERS=embedded selects the stand-ins. A test whose server is
// neither named nor embedded fails: skipped tests would look like passed ones.
//
// Tests share the servers, so each keeps to names of its own: keys, topics and
// groups under [Prefix], and a schema for every call of [MySQL].
package testservers

import (
	"context"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/segmentio/kafka-go"
)

// The environment variables that choose the servers.
const (
	redisVariable   = "SECKILL_TEST_REDIS"   // host:port, or nodes of a cluster with commas between
	kafkaVariable   = "SECKILL_TEST_KAFKA"   // host:port, more after commas
	mysqlVariable   = "SECKILL_TEST_MYSQL"   // a DSN without a schema: root@tcp(host:port)/
	serversVariable = "SECKILL_TEST_SERVERS" // "embedded", or empty for real ones
)

// patience is how long a server may take to answer before the test fails.
const patience = 15 * time.Second

// Redis returns the address of a running Redis, as our processes take it: with
// commas in it, it is that of a cluster, which the end-to-end tests can use (make
// test-cluster). The test's keys must begin with its [Prefix].
func Redis(t testing.TB) string {
	t.Helper()
	if embeddedChosen() {
		return embeddedRedis(t)
	}
	addr := named(t, redisVariable)
	reachable(t, redisVariable, strings.Split(addr, ",")...)
	return addr
}

// Kafka returns the addresses of running brokers. The test's topics and groups
// must begin with its [Prefix].
func Kafka(t testing.TB) []string {
	t.Helper()
	if embeddedChosen() {
		return embeddedKafka(t)
	}
	brokers := strings.Split(named(t, kafkaVariable), ",")
	reachable(t, kafkaVariable, brokers...)
	return brokers
}

// Prefix returns a prefix that no other test has: "t" and six lower-case
// letters or digits. When the test ends, Redis keys and Kafka topics that begin
// with it are removed from the real servers. Call it before whatever uses it
// registers its own clean-up: clean-ups run in reverse.
func Prefix(t testing.TB) string {
	t.Helper()
	prefix := "t" + random(6)
	if embeddedChosen() {
		return prefix // the stand-ins end with the tests that use them
	}
	if addr := os.Getenv(redisVariable); addr != "" {
		t.Cleanup(func() { removeKeys(t, addr, prefix) })
	}
	if brokers := os.Getenv(kafkaVariable); brokers != "" {
		t.Cleanup(func() { removeTopics(t, brokers, prefix) })
	}
	return prefix
}

// Real skips a test of what only real servers show, such as waiting for a row
// lock or losing the tail of a log, when the stand-ins are chosen.
func Real(t testing.TB) {
	t.Helper()
	if embeddedChosen() {
		t.Skip("needs real servers, and " + serversVariable + " is embedded; make test runs it")
	}
}

func embeddedChosen() bool { return os.Getenv(serversVariable) == "embedded" }

// named returns a variable's value, and fails the test when it has none.
func named(t testing.TB, variable string) string {
	t.Helper()
	value := os.Getenv(variable)
	if value == "" {
		t.Fatalf("no server: %s is empty. `make test` starts real servers and names them; "+
			"`make test-fast` uses the embedded stand-ins; for go test alone: "+
			`eval "$(deploy/local/servers env)" or export %s=embedded`, variable, serversVariable)
	}
	return value
}

// reachable fails the test when none of the addresses takes a connection.
// One is enough: a test may have stopped another broker on purpose.
func reachable(t testing.TB, variable string, addrs ...string) {
	t.Helper()
	dialer := net.Dialer{Timeout: patience}
	var last error
	for _, addr := range addrs {
		conn, err := dialer.DialContext(t.Context(), "tcp", addr)
		if err == nil {
			_ = conn.Close()
			return
		}
		last = err
	}
	t.Fatalf("the server of %s does not answer; deploy/local/servers up starts it: %v", variable, last)
}

// random returns n lower-case letters or digits.
func random(n int) string {
	const alphabet = "0123456789abcdefghijklmnopqrstuvwxyz"
	out := make([]byte, n)
	for i := range out {
		out[i] = alphabet[rand.IntN(len(alphabet))]
	}
	return string(out)
}

// removeKeys removes the keys that begin with prefix. A server that is away
// does not fail the test: it may have been the test's purpose.
func removeKeys(t testing.TB, addr, prefix string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	remove := func(ctx context.Context, client *redis.Client) error {
		keys := client.Scan(ctx, 0, prefix+"*", 1000).Iterator()
		for keys.Next(ctx) {
			if err := client.Unlink(ctx, keys.Val()).Err(); err != nil {
				return err
			}
		}
		return keys.Err()
	}
	client := redis.NewUniversalClient(&redis.UniversalOptions{Addrs: strings.Split(addr, ",")})
	defer func() { _ = client.Close() }()
	var err error
	switch c := client.(type) {
	case *redis.ClusterClient:
		err = c.ForEachMaster(ctx, remove)
	case *redis.Client:
		err = remove(ctx, c)
	}
	if err != nil {
		t.Logf("remove the Redis keys %s*: %v", prefix, err)
	}
}

// removeTopics deletes the topics that begin with prefix; a dot separates it
// from the rest of a name. Like [removeKeys] it only tells when it cannot.
func removeTopics(t testing.TB, brokers, prefix string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	transport := &kafka.Transport{}
	defer transport.CloseIdleConnections()
	client := &kafka.Client{Addr: kafka.TCP(strings.Split(brokers, ",")...), Transport: transport}
	meta, err := client.Metadata(ctx, &kafka.MetadataRequest{})
	if err != nil {
		t.Logf("remove the topics %s.*: %v", prefix, err)
		return
	}
	var topics []string
	for _, topic := range meta.Topics {
		if strings.HasPrefix(topic.Name, prefix) {
			topics = append(topics, topic.Name)
		}
	}
	if len(topics) == 0 {
		return
	}
	gone, err := client.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: topics})
	if err != nil {
		t.Logf("remove the topics %v: %v", topics, err)
		return
	}
	for topic, err := range gone.Errors {
		if err != nil {
			t.Logf("remove the topic %s: %v", topic, err)
		}
	}
}
