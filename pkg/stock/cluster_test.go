package stock

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/leadingpeers/seckill/internal/testservers"
)

// startCluster starts three masters that share the slots.
func startCluster(t *testing.T) *redis.ClusterClient {
	t.Helper()
	var addrs []string
	var nodes []*redis.Client
	slots := [][2]int{{0, 5460}, {5461, 10922}, {10923, 16383}}
	for i := range slots {
		bus := freePort(t)
		child := startRedis(t, "--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(bus))
		node := redis.NewClient(&redis.Options{Addr: child.addr()})
		t.Cleanup(func() { _ = node.Close() })
		if err := node.ClusterAddSlotsRange(t.Context(), slots[i][0], slots[i][1]).Err(); err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			err := nodes[0].Do(t.Context(), "cluster", "meet", "127.0.0.1", child.port, bus).Err()
			if err != nil {
				t.Fatal(err)
			}
		}
		addrs, nodes = append(addrs, child.addr()), append(nodes, node)
	}
	for _, node := range nodes {
		eventually(t, "every node sees the whole cluster", func() bool {
			info, err := node.ClusterInfo(context.Background()).Result()
			return err == nil && strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_known_nodes:3")
		})
	}
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: addrs})
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// Every script, and a batch over products on all masters, in a real cluster.
func TestCluster(t *testing.T) {
	testservers.Real(t)
	c := newShopOn(t, startCluster(t), CacheConfig{Prefix: "cluster"})
	shops := make([]shop, 12)
	var products []string
	for i := range shops {
		shops[i] = c
		shops[i].product = fmt.Sprintf("p%d", i)
		products = append(products, shops[i].product)
		shops[i].load(50)
	}
	var group sync.WaitGroup
	for i, s := range shops {
		for n := range 30 {
			group.Go(func() {
				if _, _, err := s.Reserve(context.Background(), s.reservation("user"+strconv.Itoa(n), 100*i+n, 1)); err != nil {
					t.Error(err)
				}
			})
		}
	}
	group.Wait()
	if n := len(c.coalescers); n != 3 {
		t.Errorf("%d coalescers, want one for each master", n)
	}
	var decided []Reservation
	for i, s := range shops {
		for n := range 30 {
			r := s.reservation("user"+strconv.Itoa(n), 100*i+n, 1)
			r.State = Deducted
			if n%3 == 0 {
				r.State = RolledBack
			}
			decided = append(decided, r)
		}
	}
	if got, err := c.Apply(t.Context(), decided[1:]); err != nil || got.Changed != 12*30-1 {
		t.Errorf("apply: %+v, %v", got, err)
	}
	if loaded, err := c.Loaded(t.Context(), append(products, "p99")); err != nil || len(loaded) != 12 || loaded["p11"] == "" || loaded["p99"] != "" {
		t.Errorf("loaded: %v, %v", loaded, err)
	}
	if runID, err := c.RunID(t.Context()); err != nil || strings.Count(runID, ".") != 5 {
		t.Errorf("run ID %q of three masters, %v", runID, err)
	}
	left, err := c.Reap(t.Context(), "p0", 0, 100)
	if err != nil || len(left) != 1 || left[0].ID != decided[0].ID {
		t.Errorf("reap: %+v, %v", left, err)
	}
	for i, s := range shops {
		pending := int64(0)
		if i == 0 {
			pending = 1
		}
		s.units(30-pending, pending, 20)
		if err := c.Configure(t.Context(), Terms{ProductID: s.product, PerOrder: 1, PerUser: 1, StartsAt: s.terms().StartsAt, EndsAt: s.terms().EndsAt}); err != nil {
			t.Error(err)
		}
		if err := c.Flush(t.Context(), s.product, i == 0); i > 0 && err == nil {
			t.Error("flushed with an open list")
		}
		if _, err := c.Reap(t.Context(), s.product, 0, 100); i > 0 && err != nil {
			t.Error(err)
		}
		if err := c.Flush(t.Context(), s.product, false); err != nil {
			t.Error(err)
		}
	}
	if err := c.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}
