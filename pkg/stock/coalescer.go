package stock

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// waiting is one caller of Reserve in a queue. The worker sets row, at and err
// and then sends to done; after that the caller owns it again.
type waiting struct {
	r        Reservation
	field    string // the buyer's field
	quantity string // r.Quantity in decimal
	row      string // what the script replied for it
	at       int64  // Redis's clock then, ms
	err      error
	done     chan struct{} // holds one: no worker waits for a caller who has left
}

// coalescer turns callers of Reserve into batches, for one Redis server. A
// worker takes one caller, then whatever else is queued by then, and never
// waits for more: batches are small at low load and grow with the load by
// themselves. All products of a batch go to Redis in one write.
type coalescer struct {
	cache   *Cache
	queue   chan *waiting
	crowded chan struct{} // holds one: the queue has grown long
	workers sync.WaitGroup
}

// crowd is how many callers must be queued before a further call is sent beside
// one that is under way. Fewer had better wait for the answer that is due: a
// call costs Redis and us as much as ten reservations in it.
const crowd = 16

// newCoalescer starts a queue's workers.
func newCoalescer(c *Cache) *coalescer {
	q := &coalescer{cache: c, queue: make(chan *waiting, c.cfg.QueueSize), crowded: make(chan struct{}, 1)}
	q.workers.Go(q.work)
	for range c.cfg.Workers - 1 {
		q.workers.Go(q.help)
	}
	return q
}

// close ends the workers once the queue is empty. Nobody may offer any more.
func (q *coalescer) close() {
	close(q.queue)
	close(q.crowded)
}

// offer puts w into the queue, unless that is full.
func (q *coalescer) offer(w *waiting) bool {
	q.cache.metrics.depth.Inc() // before a worker can subtract it
	select {
	case q.queue <- w:
		if len(q.queue) >= crowd {
			select {
			case q.crowded <- struct{}{}:
			default:
			}
		}
		return true
	default:
		q.cache.metrics.depth.Dec()
		return false
	}
}

// work sends batches until the queue is closed and empty.
func (q *coalescer) work() {
	b := batch{of: map[string]*group{}}
	for first := range q.queue {
		q.fill(&b, first)
		q.send(&b)
		b.clear()
	}
}

// help sends batches for as long as the queue is long.
func (q *coalescer) help() {
	b := batch{of: map[string]*group{}}
	for range q.crowded {
		for len(q.queue) >= crowd {
			select {
			case first, open := <-q.queue:
				if open {
					q.fill(&b, first)
					q.send(&b)
					b.clear()
				}
			default: // the others were faster
			}
		}
	}
}

// fill takes what is queued, until one product's group is a whole script call.
func (q *coalescer) fill(b *batch, first *waiting) {
	full := b.add(first) == q.cache.cfg.MaxBatch
	for taken := 1; ; taken++ {
		if full {
			q.cache.metrics.depth.Sub(float64(taken))
			return
		}
		select {
		case w, open := <-q.queue:
			if open {
				full = b.add(w) == q.cache.cfg.MaxBatch
				continue
			}
		default:
		}
		q.cache.metrics.depth.Sub(float64(taken))
		return
	}
}

// send makes one script call per product and wakes the callers. The context is
// no caller's: a batch belongs to all of them. The client's own time-outs end it.
func (q *coalescer) send(b *batch) {
	c := q.cache
	for _, g := range b.groups {
		b.calls = append(b.calls, g.call(c))
	}
	for i, cmd := range c.run(context.Background(), c.scripts.reserve, b.calls) {
		c.metrics.batch.Observe(float64(len(b.groups[i].waiting)))
		b.groups[i].answer(cmd)
	}
}

// batch is what a worker sends at once. It is used again and again.
type batch struct {
	of     map[string]*group // by product
	groups []*group
	spare  []*group
	calls  [][]any
}

// group is the part of a batch for one product: one script call.
type group struct {
	waiting []*waiting
	args    []any
}

// add puts w into its product's group and returns the group's size.
func (b *batch) add(w *waiting) int {
	g := b.of[w.r.ProductID]
	if g == nil {
		if last := len(b.spare) - 1; last >= 0 {
			g, b.spare = b.spare[last], b.spare[:last]
		} else {
			g = &group{}
		}
		b.of[w.r.ProductID] = g
		b.groups = append(b.groups, g)
	}
	g.waiting = append(g.waiting, w)
	return len(g.waiting)
}

// clear makes b empty and keeps its memory.
func (b *batch) clear() {
	for _, g := range b.groups {
		clear(g.waiting)
		clear(g.args)
		g.waiting, g.args = g.waiting[:0], g.args[:0]
	}
	b.spare = append(b.spare, b.groups...)
	clear(b.of)
	b.groups, b.calls = b.groups[:0], b.calls[:0]
}

// call is the script call of g. Strings are passed by pointer, because a
// pointer fits into an interface and a string is copied to the heap for it.
func (g *group) call(c *Cache) []any {
	product := g.waiting[0].r.ProductID
	args := c.scripts.reserve.start(g.args, c.keys.product(product), c.keys.open(product))
	for _, w := range g.waiting {
		args = append(args, &w.field)
	}
	for _, w := range g.waiting {
		args = append(args, &w.r.ID)
	}
	for _, w := range g.waiting {
		args = append(args, &w.quantity)
	}
	g.args = args
	return args
}

// answer gives every caller of g its row of the reply, or the error, and wakes it.
func (g *group) answer(cmd *redis.Cmd) {
	reply, err := cmd.Text()
	var at int64
	if err == nil {
		var ms string
		ms, reply, _ = strings.Cut(reply, ";")
		if at, err = strconv.ParseInt(ms, 10, 64); err == nil && strings.Count(reply, ";") != len(g.waiting)-1 {
			err = fmt.Errorf("reserve replied %d rows to %d requests", strings.Count(reply, ";")+1, len(g.waiting))
		}
	}
	for _, w := range g.waiting {
		w.at, w.err = at, err
		if err == nil {
			w.row, reply, _ = strings.Cut(reply, ";")
		}
		w.done <- struct{}{}
	}
}

// result is what the script decided about w: see [Cache.Reserve].
func (w *waiting) result(m *metrics) (got Reservation, replayed bool, err error) {
	if w.err != nil {
		m.unknown.Inc()
		return Reservation{}, false, fmt.Errorf("reserve %s: %w: %w", w.r.ID, ErrUnknown, w.err)
	}
	if w.row == "+" {
		w.r.State, w.r.Reason, w.r.At = Pending, "", time.UnixMilli(w.at).UTC()
		m.taken.Inc()
		m.units.Add(float64(w.r.Quantity))
		return w.r, false, nil
	}
	if no, ok := m.refused[w.row]; ok {
		no.counter.Inc()
		return Reservation{}, false, no.err
	}
	w.r.Reason = ""
	if err := readAnswer(&w.r, w.row); err != nil {
		m.unknown.Inc()
		return Reservation{}, false, fmt.Errorf("reserve %s: %w: %w", w.r.ID, ErrUnknown, err)
	}
	m.again.Inc()
	return w.r, true, nil
}
