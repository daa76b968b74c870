package e2e

import (
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/leadingpeers/seckill/internal/audit"
	"github.com/leadingpeers/seckill/internal/testservers"
)

// TestSaleSurvivesItsOperators sells 10,000 units to 20,000 buyers while its
// operators do all that they may do to a running sale, each through both
// gateways at once: preload it twice, restock, take units away, close a
// product and its source and open them again, and flush it by force.
func TestSaleSurvivesItsOperators(t *testing.T) {
	testservers.Real(t)
	c := startCluster(t, sharedServers(t))
	activity, products := c.openSale(t, 10, 1_000, 15)
	path := func(i int, verb string) string {
		return "/v1/activities/" + activity + "/products/" + products[i] + "/" + verb
	}
	s := c.startSale(t, activity, products, 20_000, 1_000)
	var replayed int
	for _, blow := range []struct {
		after int64
		path  string
		body  any
		why   string
	}{
		{1_000, "/v1/activities/" + activity + "/preload", nil, "two preloads of what is loaded and selling"},
		{2_000, path(0, "restock"), map[string]any{"op_id": "truck-1", "delta": 500}, "the same restock twice at once: once"},
		{3_000, path(9, "restock"), map[string]any{"op_id": "back-1", "delta": -100}, "units of the least wanted go away: once"},
		{4_000, path(1, "sold-out"), nil, "the source has none left"},
		{6_000, "/v1/activities/" + activity + "/flush", map[string]any{"force": true}, "all that Redis has goes, by force, twice"},
		{8_000, path(1, "resume"), nil, "the source has it again"},
		{10_000, path(2, "flush"), map[string]any{"force": true}, "one product is flushed"},
		{10_000, path(2, "preload"), nil, "and loaded again, twice at once"},
		{12_000, path(0, "restock"), map[string]any{"op_id": "truck-1", "delta": 500}, "the truck is reported again, long after"},
	} {
		s.served(t, blow.after)
		for _, answer := range c.twice(t, blow.path, blow.body) {
			var stock struct{ Replayed bool }
			if err := json.Unmarshal(answer, &stock); err == nil && stock.Replayed {
				replayed++
			}
		}
		t.Logf("after %d buyers: %s", s.buyers.Served.Load(), blow.why)
	}
	accounts := s.settle(t, 2*time.Minute)
	for i, want := range map[int]int64{0: 1_500, 1: 1_000, 9: 900} {
		if accounts[i].Total != want {
			t.Errorf("product %d has %d units, want %d", i, accounts[i].Total, want)
		}
	}
	if replayed != 4 { // of three restocks, each told twice, two happened
		t.Errorf("%d restocks were answered as repetitions, want 4", replayed)
	}
	counts := map[string]int{}
	trail, err := audit.NewTrail(c.stores.DB).List(t.Context(), audit.Filter{Limit: 200})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range trail {
		counts[e.Action]++
	}
	if got := fmt.Sprint(counts["RestockProduct"], counts["SellOutProduct"], counts["ResumeProduct"]); got != "2 1 1" {
		t.Errorf("restocks, sold out, resumed in the audit trail: %s, want 2 1 1: each once", got)
	}
	if paid := len(s.buyers.Tally().Accepted); paid < 5_000 {
		t.Errorf("only %d reservations were accepted: that is no proof of anything", paid)
	}
}

// twice calls an operator's route at both gateways at once.
func (c *cluster) twice(t *testing.T, path string, body any) [][]byte {
	t.Helper()
	var wg sync.WaitGroup
	answers := make([][]byte, 2)
	for i, gateway := range c.gateways() {
		wg.Go(func() { answers[i] = c.postTo(t, gateway, path, body) })
	}
	wg.Wait()
	return answers
}
