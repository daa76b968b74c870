package load

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// Item is a product to put on sale.
type Item struct {
	ID      string
	Total   int64
	PerUser int64
}

// Operators change the sale while it goes on.
type Operators struct {
	Line  *Line
	Sale  Sale
	Seed  uint64
	Every time.Duration // about, between two operations
	// Touched is told of products whose accepted buyers may be refused by the
	// ledger because of what is done now.
	Touched func(product, why string)
	Did     Counts
	Failed  Counts

	mu     sync.Mutex
	totals map[string]int64 // what each product's total must be in the end
	ops    int
}

// Open puts the items on sale.
func (o *Operators) Open(ctx context.Context, items []Item, payWindow time.Duration) error {
	now := time.Now().UTC()
	post := func(path string, body any) error {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		a, err := o.Line.Insist(ctx, Ask{Method: "POST", Path: path, Body: text})
		if err == nil && a.Status >= 300 && a.Status != 409 { // it exists: an earlier try had come through
			err = fmt.Errorf("POST %s: %d %.300s", path, a.Status, a.Text)
		}
		return err
	}
	o.totals = map[string]int64{}
	err := post("/v1/activities", map[string]any{
		"id": o.Sale.Activity, "name": "torture", "starts_at": now.Add(-time.Minute), "ends_at": now.Add(24 * time.Hour), "pay_window_seconds": int(payWindow.Seconds()),
	})
	for _, it := range items {
		if err != nil {
			return err
		}
		o.totals[it.ID] = it.Total
		err = post("/v1/activities/"+o.Sale.Activity+"/products", map[string]any{
			"id": it.ID, "name": it.ID, "price_cents": 100, "currency": "CNY", "total": it.Total, "per_order": 3, "per_user": it.PerUser,
		})
	}
	if err != nil {
		return err
	}
	return post("/v1/activities/"+o.Sale.Activity+"/publish", map[string]any{"preload": true})
}

// Totals is what each product's total must be, when Run is over.
func (o *Operators) Totals() map[string]int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	out := map[string]int64{}
	for k, v := range o.totals {
		out[k] = v
	}
	return out
}

// Run changes something now and then until ctx ends, and finishes what it has
// begun.
func (o *Operators) Run(ctx context.Context) {
	rng := rand.New(rand.NewPCG(o.Seed, 0x6f70))
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(o.Every/2 + time.Duration(rng.Int64N(int64(o.Every)))):
		}
		o.step(context.WithoutCancel(ctx), rng)
	}
}

// insistence is how long an operator tries until there is an answer. Three times
// everything down and up again, one after the other, take two minutes on two slow
// cores, and between them Redis is emptied and the gateways are killed.
const insistence = 5 * time.Minute

func (o *Operators) step(ctx context.Context, rng *rand.Rand) {
	ctx, cancel := context.WithTimeout(ctx, insistence)
	defer cancel()
	product := one(rng, o.Sale.Products)
	path := o.Sale.path(product)
	switch n := rng.IntN(100); {
	case n < 40:
		o.restock(ctx, product, 1+rng.Int64N(300))
	case n < 50:
		o.Touched(product, "units taken away")
		o.restock(ctx, product, -1-rng.Int64N(20))
	case n < 62:
		o.Touched(product, "sold out at the source")
		o.do(ctx, "sold out", path+"/sold-out", nil)
		time.Sleep(time.Duration(rng.IntN(1500)) * time.Millisecond)
		o.do(ctx, "resume", path+"/resume", nil)
	case n < 74:
		o.do(ctx, "preload", path+"/preload", nil)
	case n < 80:
		o.Touched(product, "flushed")
		o.do(ctx, "flush", path+"/flush", []byte(`{"force":true}`))
	case n < 88:
		o.do(ctx, "heal", path+"/heal", nil)
	case n < 92:
		o.do(ctx, "pause activity", "/v1/activities/"+o.Sale.Activity+"/pause", nil)
		time.Sleep(time.Duration(rng.IntN(800)) * time.Millisecond)
		o.do(ctx, "resume activity", "/v1/activities/"+o.Sale.Activity+"/resume", nil)
	default:
		o.do(ctx, "preload activity", "/v1/activities/"+o.Sale.Activity+"/preload", nil)
	}
}

// restock changes a total once, though it asks twice.
func (o *Operators) restock(ctx context.Context, product string, delta int64) {
	o.mu.Lock()
	o.ops++
	body := fmt.Appendf(nil, `{"op_id":"op-%d","delta":%d}`, o.ops, delta)
	o.mu.Unlock()
	a, ok := o.do(ctx, "restock", o.Sale.path(product)+"/restock", body)
	if !ok || a.Status != 200 {
		return
	}
	o.mu.Lock()
	o.totals[product] += delta
	o.mu.Unlock()
	o.do(ctx, "restock again", o.Sale.path(product)+"/restock", body)
}

// RestockAll adds units to every product at once.
func (o *Operators) RestockAll(ctx context.Context, units int64) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	var all sync.WaitGroup
	for _, product := range o.Sale.Products {
		all.Go(func() { o.restock(ctx, product, units) })
	}
	all.Wait()
}

// do insists on an answer. Refusals, such as for a product that is in the wrong
// state, are answers.
func (o *Operators) do(ctx context.Context, what, path string, body []byte) (Answer, bool) {
	a, err := o.Line.Insist(ctx, Ask{Method: "POST", Path: path, Body: body})
	if err != nil {
		o.Failed.Add(what + ": " + err.Error())
		return a, false
	}
	o.Did.Add(fmt.Sprint(what, " ", a.Status))
	return a, true
}
