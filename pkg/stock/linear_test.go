package stock

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/anishathalye/porcupine"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/leadingpeers/seckill/internal/testservers"
	"github.com/leadingpeers/seckill/lua"
)

// linearOp is one call as its caller made it.
type linearOp struct {
	kind  byte // 'r' reserve, 'a' apply, 's' read the surplus
	r     Reservation
	state State // that is applied
}

// String is for the drawing of a history that is illegal.
func (o linearOp) String() string {
	return fmt.Sprintf("%c %s/%s %s %d %s", o.kind, o.r.ProductID, o.r.ID[:4], o.r.UserID, o.r.Quantity, o.state)
}

// unknownAnswer is one that never came: the call may have been carried out.
const unknownAnswer = "unknown"

// linearRecord is a reservation in the model.
type linearRecord struct {
	user     string
	quantity int64
	state    State
}

// linearProduct is the model of one product: what the scripts' heads promise,
// in the fewest words. It is never changed, only copied.
type linearProduct struct {
	surplus int64
	held    map[string]int64
	records map[string]linearRecord
}

const (
	linearUnits    = 16
	linearPerOrder = 2
	linearPerUser  = 4
)

func (p linearProduct) with(id string, rec linearRecord, units int64) linearProduct {
	next := linearProduct{p.surplus - units, maps.Clone(p.held), maps.Clone(p.records)}
	next.held[rec.user] += units
	next.records[id] = rec
	return next
}

func (p linearProduct) reserve(r Reservation) (string, linearProduct) {
	rec, known := p.records[r.ID]
	switch {
	case known && rec.quantity != r.Quantity:
		return string(IDReused), p
	case known:
		return "recorded " + string(rec.state), p
	case r.Quantity > linearPerOrder:
		return string(OverOrderLimit), p
	case p.surplus < r.Quantity:
		return string(SoldOut), p
	case p.held[r.UserID]+r.Quantity > linearPerUser:
		return string(OverUserLimit), p
	}
	return "reserved", p.with(r.ID, linearRecord{r.UserID, r.Quantity, Pending}, r.Quantity)
}

func (p linearProduct) apply(r Reservation, to State) (string, linearProduct) {
	rec, known := p.records[r.ID]
	next := linearRecord{r.UserID, r.Quantity, to}
	switch {
	case known && (rec.state == RolledBack || rec.state == to):
		return "same", p
	case known && to == Deducted:
		return "changed", p.with(r.ID, next, r.Quantity-rec.quantity)
	case known:
		next.quantity = rec.quantity
		return "changed", p.with(r.ID, next, -rec.quantity)
	case to == Deducted:
		return "adopted", p.with(r.ID, next, r.Quantity)
	}
	return "tombstone", p.with(r.ID, next, 0)
}

// linearModel is what porcupine checks a history against, product by product.
func linearModel() porcupine.Model {
	return porcupine.Model{
		Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
			by := map[string][]porcupine.Operation{}
			for _, op := range history {
				id := op.Input.(linearOp).r.ProductID
				by[id] = append(by[id], op)
			}
			return slices.Collect(maps.Values(by))
		},
		Init: func() any {
			return linearProduct{linearUnits, map[string]int64{}, map[string]linearRecord{}}
		},
		Step: func(state, input, output any) (bool, any) {
			p, op, got := state.(linearProduct), input.(linearOp), output.(string)
			var want string
			switch op.kind {
			case 'r':
				want, p = p.reserve(op.r)
			case 'a':
				want, p = p.apply(op.r, op.state)
			default:
				want = fmt.Sprint(p.surplus)
			}
			return got == want || got == unknownAnswer, p
		},
		Equal: func(a, b any) bool {
			x, y := a.(linearProduct), b.(linearProduct)
			return x.surplus == y.surplus && maps.Equal(x.records, y.records)
		},
		DescribeOperation: func(in, out any) string { return fmt.Sprint(in, " → ", out) },
	}
}

// linearRun makes histories of one cache.
type linearRun struct {
	shop
	proxy *toxiproxy.Proxy
	begun time.Time
}

// newLinearRun puts a proxy before Redis. edit changes the scripts.
func newLinearRun(t *testing.T, edit func(*Cache)) *linearRun {
	t.Helper()
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	proxy := toxiproxy.NewProxy(server, "redis", "127.0.0.1:0", testservers.Redis(t))
	if err := proxy.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Stop)
	client := redis.NewClient(&redis.Options{Addr: proxy.Listen, MaxRetries: -1, DialTimeout: time.Second, DialerRetries: 20, DialerRetryTimeout: 5 * time.Millisecond})
	t.Cleanup(func() { _ = client.Close() })
	s := newShopOn(t, client, CacheConfig{Prefix: testservers.Prefix(t), MaxBatch: 4})
	if edit != nil {
		edit(s.Cache)
	}
	return &linearRun{shop: s, proxy: proxy, begun: time.Now()}
}

// cut breaks every connection, and lets new ones through.
func (l *linearRun) cut() {
	l.proxy.Stop()
	if err := l.proxy.Start(); err != nil {
		l.Error(err)
	}
}

// history lets 8 callers loose on two products. Cuts are spread over it.
func (l *linearRun) history(n, cuts int) []porcupine.Operation {
	const callers, calls = 8, 60
	products := []string{fmt.Sprintf("h%d-a", n), fmt.Sprintf("h%d-b", n)}
	for _, p := range products {
		terms := l.terms()
		terms.ProductID, terms.PerOrder, terms.PerUser = p, linearPerOrder, linearPerUser
		_, err := l.Preload(l.Context(), terms, linearUnits, each(nil))
		for try := 0; err != nil && try < 50; try++ { // over connections that the last history has cut
			_, err = l.Preload(l.Context(), terms, linearUnits, each(nil))
		}
		if err != nil {
			l.Fatal(err)
		}
	}
	var mu sync.Mutex
	var all []porcupine.Operation
	var done atomic.Int64
	var clients sync.WaitGroup
	for c := range callers {
		rng := rand.New(rand.NewPCG(uint64(n), uint64(c)))
		clients.Go(func() {
			for range calls {
				op := linearDraw(rng, products)
				call := time.Since(l.begun).Nanoseconds()
				got := l.do(op)
				end := time.Since(l.begun).Nanoseconds()
				if got == unknownAnswer {
					end = 1 << 60 // it may yet be carried out
				}
				mu.Lock()
				all = append(all, porcupine.Operation{ClientId: c, Input: op, Call: call, Output: got, Return: end})
				mu.Unlock()
				if i := done.Add(1); cuts > 0 && i%(callers*calls/int64(cuts+1)) == 0 {
					l.cut()
				}
			}
		})
	}
	clients.Wait()
	return all
}

// linearDraw is one call: few IDs and few buyers, so that they meet.
func linearDraw(rng *rand.Rand, products []string) linearOp {
	id := rng.IntN(30)
	op := linearOp{kind: 'r', r: Reservation{
		ID: randomID(rand.New(rand.NewPCG(uint64(id), 7))), ProductID: products[rng.IntN(2)], UserID: fmt.Sprint("u", id%6), Quantity: 1 + int64(id%2),
	}}
	switch n := rng.IntN(100); {
	case n < 4:
		op.r.Quantity = 3 - op.r.Quantity // another quantity under the same ID
	case n < 8:
		op.r.Quantity = 3
	case n < 24:
		op.kind, op.state = 'a', Deducted
	case n < 40:
		op.kind, op.state = 'a', RolledBack
	case n < 50:
		op.kind = 's'
	}
	return op
}

// do makes the call and puts its answer into the model's words.
func (l *linearRun) do(op linearOp) string {
	ctx, cancel := context.WithTimeout(l.Context(), 10*time.Second)
	defer cancel()
	switch op.kind {
	case 'r':
		got, replayed, err := l.Reserve(ctx, op.r)
		refusal := Refusal("")
		switch {
		case errors.As(err, &refusal):
			return string(refusal)
		case err != nil:
			return unknownAnswer
		case replayed:
			return "recorded " + string(got.State)
		}
		return "reserved"
	case 'a':
		op.r.State = op.state
		got, err := l.Apply(ctx, []Reservation{op.r})
		words := map[Applied]string{{Changed: 1}: "changed", {Same: 1}: "same", {Adopted: 1}: "adopted", {Tombstones: 1}: "tombstone"}
		if err != nil {
			return unknownAnswer
		}
		return words[got]
	}
	n, err := l.Surplus(ctx, op.r.ProductID)
	if err != nil {
		return unknownAnswer
	}
	return fmt.Sprint(n)
}

// TestLinearizable: to its callers, a product in Redis looks like one that does
// one call after the other, also when connections break and answers are lost.
func TestLinearizable(t *testing.T) {
	testservers.Real(t) // miniredis has one lock for all
	histories := 200
	if testing.Short() {
		histories = 20
	}
	l := newLinearRun(t, nil)
	results := map[porcupine.CheckResult]int{}
	ops, unanswered := 0, 0
	for n := range histories {
		history := l.history(n, n%3)
		for _, op := range history {
			if op.Output == unknownAnswer {
				unanswered++
			}
		}
		ops += len(history)
		result := porcupine.CheckOperationsTimeout(linearModel(), history, 5*time.Second)
		results[result]++
		if result == porcupine.Illegal {
			t.Errorf("history %d has no order in which its answers are right", n)
		}
	}
	t.Logf("%d histories of %d calls (%d unanswered): legal %d, illegal %d, undecided %d",
		histories, ops, unanswered, results[porcupine.Ok], results[porcupine.Illegal], results[porcupine.Unknown])
	if results[porcupine.Unknown]*20 >= histories {
		t.Errorf("%d of %d histories undecided, want less than 5 %%", results[porcupine.Unknown], histories)
	}
	if unanswered == 0 {
		t.Error("no answer was ever lost: the cuts do nothing")
	}
}

// TestLinearizabilityIsNotGiven shows that the check above can fail: each of
// these scripts is wrong in one place, and found out.
func TestLinearizabilityIsNotGiven(t *testing.T) {
	testservers.Real(t)
	for _, tt := range []struct{ why, script, part, by string }{
		{"the answer on record is not looked for", "reserve", "  if comma then\n", "  if false then\n"},
		{"units are taken without a look at the surplus", "reserve", "elseif surplus < quantity then", "elseif surplus < -1000 then"},
		{"a rollback gives back twice", "apply", "if was == 'R' or was == state then", "if was == 'C' and was == state then"},
		{"a lost deduction is not adopted", "apply", "state == 'C' and quantity or 0", "0"},
		{"a reservation is not counted for its buyer", "reserve", "units + quantity > per_user", "quantity > per_user"},
	} {
		t.Run(tt.why, func(t *testing.T) {
			l := newLinearRun(t, func(c *Cache) {
				text := map[string]string{"reserve": lua.Reserve, "apply": lua.Apply}[tt.script]
				broken := strings.Replace(text, tt.part, tt.by, 1)
				if broken == text {
					t.Fatalf("%s.lua has no %q any more", tt.script, tt.part)
				}
				s := map[string]**script{"reserve": &c.scripts.reserve, "apply": &c.scripts.apply}[tt.script]
				*s = &script{text: broken, hash: redis.NewScript(broken).Hash(), seconds: (*s).seconds}
			})
			for n := range 20 {
				if porcupine.CheckOperationsTimeout(linearModel(), l.history(n, 0), 5*time.Second) == porcupine.Illegal {
					t.Logf("found in history %d", n)
					return
				}
			}
			t.Error("20 histories of a broken script, and none is illegal")
		})
	}
}
