package e2e

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/leadingpeers/seckill/internal/app"
	"github.com/leadingpeers/seckill/internal/testservers"
)

// TestSaleOnARedisCluster sells on three masters with a replica each and three
// brokers, moves a thousand slots from one master to another while it sells,
// and then kills a master, whose replica takes over with what it has.
func TestSaleOnARedisCluster(t *testing.T) {
	testservers.Real(t)
	set := ownServers(t, "--redis-cluster")
	c := startCluster(t, app.Config{
		Redis: set.redis, Kafka: set.kafka, MySQL: testservers.MySQLDSN(t), Prefix: testservers.Prefix(t),
	})
	activity, products := c.openSale(t, 20, 400, 15)
	s := c.startSale(t, activity, products, 7_000, 200) // slowly, so that there is something left to sell after each blow

	s.served(t, 1_000)
	from, to := set.node(t, 0), set.node(t, 1)
	before, _ := s.buyers.Units()
	set.reshard(t, from.id, to.id, 2_000)
	after, _ := s.buyers.Units()
	t.Logf("2,000 slots moved after %d buyers; %d reservations accepted meanwhile", s.buyers.Served.Load(), after-before)
	if got := set.node(t, 1).slots - to.slots; got != 2_000 {
		t.Errorf("the second master has %d slots more, want 2,000: nothing was moved", got)
	}

	s.served(t, s.buyers.Served.Load()+500)
	set.do(t, "kill", "redis2")
	killed := time.Now()
	eventually(t, 30*time.Second, func() error {
		if now := set.node(t, 0).masters; len(now) != 3 || slices.Contains(now, to.id) {
			return fmt.Errorf("the masters that serve are %v, and %s was killed", now, to.id)
		}
		return nil
	})
	t.Logf("a master killed after %d buyers; its replica took over after %s", s.buyers.Served.Load(), time.Since(killed).Round(10*time.Millisecond))
	set.do(t, "start", "redis2")
	sold, _ := s.buyers.Units()
	eventually(t, time.Minute, func() error {
		if now, _ := s.buyers.Units(); now < sold+100 {
			return fmt.Errorf("%d reservations were accepted before, %d now", sold, now)
		}
		return nil
	})
	s.settle(t, 2*time.Minute)
}

// node is what the i-th server of the cluster says of itself and of the others.
type node struct {
	id      string
	slots   int
	masters []string // that serve slots, by ID
}

func (s serverSet) node(t *testing.T, i int) (n node) {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:" + strconv.Itoa(s.redisPort+i)})
	defer client.Close()
	text, err := client.ClusterNodes(t.Context()).Result()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(text) {
		f := strings.Fields(line) // id address flags master ping pong epoch link slots...
		if !strings.Contains(f[2], "master") || strings.Contains(f[2], "fail") || len(f) == 8 {
			continue
		}
		n.masters = append(n.masters, f[0])
		if strings.Contains(f[2], "myself") {
			n.id = f[0]
			for _, r := range f[8:] {
				first, last, _ := strings.Cut(r, "-")
				low, _ := strconv.Atoi(first)
				high, err := strconv.Atoi(last)
				if err != nil {
					high = low
				}
				n.slots += high - low + 1
			}
		}
	}
	return n
}

// reshard moves slots from one master to another, keys and all.
func (s serverSet) reshard(t *testing.T, from, to string, slots int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "redis-cli", "--cluster", "reshard", "127.0.0.1:"+strconv.Itoa(s.redisPort),
		"--cluster-from", from, "--cluster-to", to, "--cluster-slots", strconv.Itoa(slots), "--cluster-yes").CombinedOutput()
	if err != nil {
		t.Fatalf("reshard: %v\n%s", err, out[max(0, len(out)-2000):])
	}
}
