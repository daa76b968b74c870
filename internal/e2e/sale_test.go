package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/segmentio/kafka-go"

	"github.com/leadingpeers/seckill/internal/app"
	"github.com/leadingpeers/seckill/internal/testservers"
	"github.com/leadingpeers/seckill/pkg/events"
)

// TestSaleSurvivesKilledWorkers sells 10,000 units over 20 products to 50,000
// buyers, kills one worker of each kind in the middle, and then has every
// topic handled again from its first event.
func TestSaleSurvivesKilledWorkers(t *testing.T) {
	testservers.Real(t)
	c := startCluster(t, sharedServers(t))
	activity, products := c.openSale(t, 20, 500, 15)
	s := c.startSale(t, activity, products, 50_000, 0)

	s.served(t, 5_000)
	for _, name := range []string{"stock-worker-1", "settle-worker-1"} {
		c.procs[name].Kill()
		t.Logf("%s killed after %d buyers", name, s.buyers.Served.Load())
	}
	s.served(t, 12_000)
	for _, name := range []string{"stock-worker-1", "settle-worker-1"} {
		c.start(t, name)
		t.Logf("%s started again after %d buyers", name, s.buyers.Served.Load())
	}
	accounts := s.settle(t, 2*time.Minute)
	if n := len(s.buyers.Tally().Accepted); n < 5_000 {
		t.Fatalf("only %d reservations were accepted: that is no proof of anything", n)
	}

	before := c.rows(t)
	handled := c.replay(t)
	after := c.rows(t)
	if before != after {
		t.Errorf("a replay of every topic changed rows\nbefore:\n%s\nafter:\n%s", before, after)
	}
	again, err := c.stores.Books().Accounts(t.Context(), products)
	if err != nil {
		t.Fatal(err)
	}
	for i := range accounts {
		if accounts[i] != again[i] {
			t.Errorf("a replay of every topic moved units: before %+v, after %+v", accounts[i], again[i])
		}
	}
	t.Logf("replayed %d events: rows and units as before\n%s", handled, after)
}

// TestPartitionsGoOnWithoutTheKilled kills one worker of each kind and leaves
// it dead: within 12 s the other one has handled all that was published in the
// meantime, whichever partition it is in.
func TestPartitionsGoOnWithoutTheKilled(t *testing.T) {
	testservers.Real(t)
	c := startCluster(t, sharedServers(t))
	activity, products := c.openSale(t, 20, 1_000, 15)
	s := c.startSale(t, activity, products, 6_000, 200)

	s.served(t, 1_000)
	c.procs["stock-worker-1"].Kill()
	c.procs["settle-worker-1"].Kill()
	killed := time.Now()
	s.served(t, s.buyers.Served.Load()+600) // some for every partition of the dead
	ended, err := c.lags(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	left, err := c.unhandled(t.Context(), ended)
	if err != nil {
		t.Fatal(err)
	}
	for _, group := range []string{"deduct", "settle", "payment"} {
		if left[group] == 0 {
			t.Errorf("%s: nothing waits for the dead worker, so that nobody has to take over: %v", group, left)
		}
	}
	eventually(t, 12*time.Second-time.Since(killed), func() error {
		left, err := c.unhandled(t.Context(), ended)
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("partitions with something unhandled from before: %v", left)
		}
		return err
	})
	t.Logf("every partition went on %s after the kills", time.Since(killed).Round(10*time.Millisecond))
	s.settle(t, time.Minute)
}

// unhandled counts by group the partitions that have not been handled up to where they ended.
func (c *cluster) unhandled(ctx context.Context, ended map[string][]events.PartitionLag) (map[string]int, error) {
	left := map[string]int{}
	now, err := c.lags(ctx)
	for group, partitions := range now {
		for i, l := range partitions {
			if max(0, l.Committed) < ended[group][i].End { // -1: never committed
				left[group]++
			}
		}
	}
	return left, err
}

// groups are the consumers of our own workers, with their topics.
func groups() map[string]events.Topic {
	return map[string]events.Topic{"deduct": events.Reservations, "rollback": events.Rollbacks, "settle": events.Deductions, "payment": events.Payments}
}

// lags is where each of our workers' groups stands, by partition in order.
func (c *cluster) lags(ctx context.Context) (map[string][]events.PartitionLag, error) {
	all := map[string][]events.PartitionLag{}
	for group, topic := range groups() {
		var err error
		if all[group], err = events.Lag(ctx, c.stores.Kafka, group, topic); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// replay stops the workers, sets every group back to the first event, starts
// them again and waits until all has been handled. It returns how many events
// that were at least.
func (c *cluster) replay(t *testing.T) int64 {
	t.Helper()
	workers := roles[2:]
	for _, name := range workers {
		if err := c.procs[name].Stop(20 * time.Second); err != nil {
			t.Fatalf("%s does not end well: %v", name, err)
		}
	}
	client := &kafka.Client{Addr: kafka.TCP(strings.Split(c.cfg.Kafka, ",")...)}
	var total int64
	all, err := c.lags(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for group, topic := range groups() {
		name := c.cfg.Prefix + "." + string(topic)
		var offsets []kafka.OffsetCommit
		for _, l := range all[group] {
			offsets = append(offsets, kafka.OffsetCommit{Partition: l.Partition, Offset: 0})
			total += l.End
		}
		eventually(t, 30*time.Second, func() error { // a group with members refuses
			resp, err := client.OffsetCommit(t.Context(), &kafka.OffsetCommitRequest{
				GroupID: c.cfg.Prefix + "." + group, GenerationID: -1, Topics: map[string][]kafka.OffsetCommit{name: offsets},
			})
			if err != nil {
				return err
			}
			for _, p := range resp.Topics[name] {
				if p.Error != nil {
					return p.Error
				}
			}
			return nil
		})
	}
	for _, name := range workers {
		c.start(t, name)
	}
	c.drained(t, 2*time.Minute)
	return total
}

// drained waits until no group has anything left to handle.
func (c *cluster) drained(t *testing.T, limit time.Duration) {
	t.Helper()
	eventually(t, limit, func() error {
		all, err := c.lags(t.Context())
		if err != nil {
			return err
		}
		for group, partitions := range all {
			for _, l := range partitions {
				if l.Lag != 0 {
					return fmt.Errorf("%s: partition %d lags by %d", group, l.Partition, l.Lag)
				}
			}
		}
		return nil
	})
}

// TestSaleSurvivesLostServers takes away a broker of three, and then all that
// Redis holds, in the middle of a sale.
func TestSaleSurvivesLostServers(t *testing.T) {
	testservers.Real(t)
	set := ownServers(t)
	c := startCluster(t, app.Config{
		Redis: set.redis, Kafka: set.kafka, MySQL: testservers.MySQLDSN(t), Prefix: testservers.Prefix(t),
	})
	activity, products := c.openSale(t, 8, 2_000, 15)
	s := c.startSale(t, activity, products, 15_000, 200) // slowly, so that there is something left to sell after each blow

	s.served(t, 1_000)
	set.do(t, "kill", "kafka2")
	t.Logf("one broker of three killed after %d buyers", s.buyers.Served.Load())
	s.served(t, 2_000)
	set.do(t, "start", "kafka2")
	t.Logf("the broker is back after %d buyers", s.buyers.Served.Load())

	s.served(t, s.buyers.Served.Load()+500)
	client := redis.NewClient(&redis.Options{Addr: set.redis})
	defer client.Close()
	if err := client.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	set.do(t, "kill", "redis")
	set.do(t, "start", "redis")
	back := time.Now()
	t.Logf("Redis emptied, killed and started after %d buyers", s.buyers.Served.Load())
	sold, _ := s.buyers.Units()
	eventually(t, time.Minute, func() error {
		if now, _ := s.buyers.Units(); now <= sold {
			return fmt.Errorf("%d reservations were accepted before, and none since", sold)
		}
		return nil
	})
	t.Logf("the sale went on by itself %s after Redis was back", time.Since(back).Round(10*time.Millisecond))
	s.settle(t, 2*time.Minute)
}

// serverSet is a set of servers of this test's own, to be broken at will.
type serverSet struct {
	env          []string
	redis, kafka string
	redisPort    int
}

// ownServers starts a second set with three brokers beside the shared one, and
// removes it at the end. Its MySQL stays unused. With "--redis-cluster" its
// Redis is six nodes.
func ownServers(t *testing.T, options ...string) serverSet {
	t.Helper()
	redisPort, mysqlPort, kafkaPort := freePort(t, 16_500, 6), freePort(t, 26_300, 1), freePort(t, 26_000, 30) // brokers take their port, +10 and +20, and the next ones
	set := serverSet{
		redisPort: redisPort, redis: fmt.Sprintf("127.0.0.1:%d", redisPort),
		kafka: fmt.Sprintf("127.0.0.1:%d,127.0.0.1:%d,127.0.0.1:%d", kafkaPort, kafkaPort+10, kafkaPort+20),
		env: append(os.Environ(), "SECKILL_SERVERS_DATA="+t.TempDir(), "SECKILL_SERVERS_REDIS_PORT="+strconv.Itoa(redisPort),
			"SECKILL_SERVERS_MYSQL_PORT="+strconv.Itoa(mysqlPort), "SECKILL_SERVERS_KAFKA_PORT="+strconv.Itoa(kafkaPort)),
	}
	if slices.Contains(options, "--redis-cluster") {
		set.redis = fmt.Sprintf("127.0.0.1:%d,127.0.0.1:%d", redisPort, redisPort+1) // the client learns the others
	}
	t.Cleanup(func() { set.do(t, "down") })
	set.do(t, append([]string{"up", "--brokers", "3"}, options...)...)
	return set
}

func (s serverSet) do(t *testing.T, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "../../deploy/local/servers", args...)
	cmd.Env = s.env
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("servers %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// freePort finds so many free ports in a row, below the range that outgoing
// connections use.
func freePort(t *testing.T, from, count int) int {
	t.Helper()
	for port, free := from, 0; port < from+100; port++ {
		ln, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err != nil {
			free = 0
			continue
		}
		_ = ln.Close()
		if free++; free == count {
			return port - count + 1
		}
	}
	t.Fatalf("no %d free ports from %d to %d", count, from, from+99)
	return 0
}
