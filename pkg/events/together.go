package events

import (
	"context"
	"sync"

	"github.com/segmentio/kafka-go"

	"github.com/leadingpeers/seckill/internal/fault"
)

// table is where partitions put what they have in hand, so that one call of
// the handler has the batches of all that are there. It has goroutines only
// while something lies on it, so it needs no closing.
type table struct {
	mu     sync.Mutex
	shares []*share
	busy   int // calls under way
}

// callsAtOnce is how many calls may be under way with what lay on the table. One
// makes the fewest calls, but then every batch waits for the call before.
const callsAtOnce = 2

// share is one partition's batch on the table.
type share struct {
	batch  batch
	handle func(all []*share) (tell func() error) // with the partition's contexts; any one's are everybody's, of the same generation
	done   chan error                             // nil when all of the call has been handled and told
}

// together has the batch handled with those of other partitions. An error is of
// all of them: nothing is known of this batch but what it has told and what the
// error says of its events, and it must be handled by itself.
// There is no linger time: what comes while the calls are under way makes the
// next one.
func (p *partition) together(live, work context.Context, b *batch) error {
	s := &share{
		batch:  *b,
		handle: func(all []*share) func() error { return p.handleAll(live, work, all) },
		done:   make(chan error, 1),
	}
	t := &p.table
	t.mu.Lock()
	t.shares = append(t.shares, s)
	if t.busy < callsAtOnce {
		t.busy++
		go p.serve()
	}
	t.mu.Unlock()
	b.attempts++
	return <-s.done
}

// serve handles what lies on the table, until nothing does.
func (c *Consumer) serve() {
	for {
		shares := c.table.take(c.cfg.MaxBatch)
		if len(shares) == 0 {
			return
		}
		tell := shares[0].handle(shares)
		go func() { // the next call need not wait for Kafka
			done := tell()
			for _, s := range shares {
				s.done <- done
			}
		}()
	}
}

// take removes as many shares as make one batch. When it returns none the
// caller is signed off.
func (t *table) take(most int) []*share {
	t.mu.Lock()
	defer t.mu.Unlock()
	n, events := 0, 0
	for ; n < len(t.shares); n++ {
		if events += len(t.shares[n].batch.events); n > 0 && events > most {
			break
		}
	}
	taken := t.shares[:n:n]
	t.shares = append([]*share(nil), t.shares[n:]...)
	if n == 0 {
		t.busy--
	}
	return taken
}

// handleAll makes one call of the handler, and returns what tells the rest of
// it and says what went wrong.
func (p *partition) handleAll(live, work context.Context, shares []*share) (tell func() error) {
	var all []Event
	for _, s := range shares {
		all = append(all, s.batch.events...)
	}
	next, err := p.handler(work, all)
	return func() error {
		fault.Point(fault.BeforeTelling)
		if unsaid := p.tell(live, work, nil, next); unsaid != nil {
			return unsaid
		}
		if err == nil {
			return nil
		}
		for _, s := range shares { // each has its own set: they go on side by side
			for _, e := range next {
				s.batch.told[e.ID()] = struct{}{}
			}
		}
		return err
	}
}

// commits makes one request of what several partitions of a generation commit
// while another request is under way: a broker's cost is by the request.
type commits struct {
	gen   *kafka.Generation
	topic string

	mu      sync.Mutex
	next    map[int]int64 // by partition, for the next request
	waiting []chan error  // of those in next
	busy    bool
}

// commit makes next the group's position in a partition.
func (c *commits) commit(partition int, next int64) error {
	done := make(chan error, 1)
	c.mu.Lock()
	if c.next == nil {
		c.next = map[int]int64{}
	}
	c.next[partition] = next
	c.waiting = append(c.waiting, done)
	mine := !c.busy
	c.busy = true
	c.mu.Unlock()
	if mine {
		go c.send()
	}
	return <-done
}

// send makes requests until there is nothing to commit.
func (c *commits) send() {
	for {
		c.mu.Lock()
		next, waiting := c.next, c.waiting
		c.next, c.waiting = nil, nil
		c.busy = len(waiting) > 0
		c.mu.Unlock()
		if len(waiting) == 0 {
			return
		}
		err := c.gen.CommitOffsets(map[string]map[int]int64{c.topic: next})
		for _, done := range waiting {
			done <- err
		}
	}
}
