package events

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/metadata"
	"github.com/segmentio/kafka-go/protocol/produce"
	"github.com/segmentio/kafka-go/protocol/rawproduce"
)

// errUnanswered stands for a request whose answer has not come.
var errUnanswered = errors.New("no acknowledgement yet")

// call is one attempt of one Publish call, over one or several lanes.
type call struct {
	left      atomic.Int64 // items without an outcome
	done      chan struct{}
	abandoned atomic.Bool // nobody waits any more
	lone      [1]item     // of a call with one: most of a gateway's
}

// item is one record of a call. err may be read after the call is done.
type item struct {
	record    record
	partition int32
	call      *call
	err       error
}

// lane is what waits for one broker. It has a goroutine only while there is
// something to send, so it needs no closing.
type lane struct {
	mu    sync.Mutex
	queue []*item
	busy  int // workers at it
}

// enqueue puts items into the broker's lane and sees to it that they are sent.
func (p *Publisher) enqueue(broker int32, items ...*item) {
	p.mu.RLock()
	l := p.lanes[broker]
	p.mu.RUnlock()
	if l == nil {
		l = p.addLane(broker)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queue = append(l.queue, items...)
	if l.wants(p.cfg.Workers) {
		l.busy++
		go p.work(l)
	}
}

// crowd is how many events must wait before a further request is sent beside
// one that is under way. A broker pays 100-250 µs for a request and 1 µs for an
// event in it, so few events had better wait for the answer that is due.
const crowd = 32

// wants reports whether one more worker has something to do. The mutex is held.
func (l *lane) wants(workers int) bool {
	return l.busy == 0 || (l.busy < workers && len(l.queue) >= crowd)
}

// addLane returns the broker's lane, which it makes if nobody else has.
func (p *Publisher) addLane(broker int32) *lane {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lanes[broker] == nil {
		p.lanes[broker] = &lane{}
	}
	return p.lanes[broker]
}

// work sends what is in the lane, until nothing is.
func (p *Publisher) work(l *lane) {
	for {
		batch := p.take(l)
		if len(batch) == 0 {
			return
		}
		p.metrics.batch.Observe(float64(len(batch)))
		p.send(batch)
	}
}

// take removes what fits into one request. When it returns nothing the worker
// is signed off: another one will take what is there.
func (p *Publisher) take(l *lane) []*item {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.busy > 1 && len(l.queue) < crowd {
		l.busy--
		return nil
	}
	var batch []*item
	n, bytes := 0, 0
	for _, it := range l.queue {
		bytes += it.record.size()
		if len(batch) == p.cfg.MaxBatch || (len(batch) > 0 && bytes > maxRequestBytes) {
			break
		}
		n++
		if it.call.abandoned.Load() {
			p.finish([]*item{it}, errUnanswered)
			continue
		}
		batch = append(batch, it)
	}
	l.queue = slices.Delete(l.queue, 0, n)
	if len(batch) == 0 {
		l.busy--
	}
	return batch
}

// part is what one request has for one partition.
type part struct {
	topic     string
	partition int32
	items     []*item
	answered  bool
}

// partsOf puts the items of each partition together. There are few partitions, so
// looking through them is cheaper than a map.
func partsOf(items []*item) []part {
	var parts []part
	for _, it := range items {
		i := slices.IndexFunc(parts, func(p part) bool { return p.partition == it.partition && p.topic == it.record.topic })
		if i < 0 {
			i = len(parts)
			parts = append(parts, part{topic: it.record.topic, partition: it.partition})
		}
		parts[i].items = append(parts[i].items, it)
	}
	return parts
}

// send makes one produce request of items and gives each its outcome.
func (p *Publisher) send(items []*item) {
	// The request outlives the callers that give up: its outcome is the others'.
	ctx, cancel := context.WithTimeout(context.Background(), p.cfg.RequestTimeout+time.Second)
	defer cancel()
	parts := partsOf(items)
	memory := p.scratch.Get().(*scratch)
	req, err := p.request(memory, parts)
	if err != nil {
		p.finish(items, Permanent(err))
		return
	}
	answer, err := p.transport.RoundTrip(ctx, p.addr, req)
	if err != nil {
		p.finish(items, err) // and leave the memory: the connection may still be reading it
		return
	}
	memory.clear()
	p.scratch.Put(memory)
	for _, t := range answer.(*produce.Response).Topics {
		for _, got := range t.Partitions {
			i := slices.IndexFunc(parts, func(p part) bool { return p.partition == got.Partition && p.topic == t.Topic && !p.answered })
			if i >= 0 {
				parts[i].answered = true
				p.settle(parts[i].items, kafka.Error(got.ErrorCode))
			}
		}
	}
	for _, rest := range parts {
		if !rest.answered {
			p.finish(rest.items, errUnanswered)
		}
	}
}

// compressFrom is how many records a batch must have to be compressed. An
// encoder costs as much as publishing twenty of them, and a few records have
// little in common.
const compressFrom = 100

// request carries all partitions in one message. kafka.Client.Produce takes
// one partition a call, which costs the broker more than twice as much.
func (p *Publisher) request(memory *scratch, parts []part) (*rawproduce.Request, error) {
	ends := make([]int, len(parts))
	now := p.cfg.Now()
	for i, part := range parts {
		if err := p.encoder.batch(memory, part.items, now); err != nil {
			return nil, err
		}
		ends[i] = len(memory.out)
	}
	req := &rawproduce.Request{Acks: int16(kafka.RequireAll), Timeout: int32(p.cfg.RequestTimeout.Milliseconds())}
	start := 0
	for i, part := range parts {
		t := slices.IndexFunc(req.Topics, func(t rawproduce.RequestTopic) bool { return t.Topic == part.topic })
		if t < 0 {
			t = len(req.Topics)
			req.Topics = append(req.Topics, rawproduce.RequestTopic{Topic: part.topic})
		}
		req.Topics[t].Partitions = append(req.Topics[t].Partitions, rawproduce.RequestPartition{
			Partition: part.partition,
			RecordSet: protocol.RawRecordSet{Reader: bytes.NewReader(memory.out[start:ends[i]])},
		})
		start = ends[i]
	}
	return req, nil
}

// settle gives the items of one partition the broker's answer.
func (p *Publisher) settle(items []*item, code kafka.Error) {
	switch {
	case code == 0:
		if len(items) > 0 {
			p.metrics.messages.WithLabelValues(items[0].record.topic, "ok").Add(float64(len(items)))
		}
		p.finish(items, nil)
		return
	case refusesContent(code) && len(items) > 1:
		// A broker refuses a batch as a whole. Halving finds the event it means.
		p.send(items[:len(items)/2])
		p.send(items[len(items)/2:])
		return
	case code == kafka.NotLeaderForPartition || code == kafka.FencedLeaderEpoch || code == kafka.UnknownLeaderEpoch:
		p.refresh()
	}
	p.finish(items, code)
}

// finish gives items their outcome and wakes the callers that have all theirs.
func (p *Publisher) finish(items []*item, err error) {
	p.waiting.Add(-int64(len(items)))
	for _, it := range items {
		it.err = err
		if it.call.left.Add(-1) == 0 {
			close(it.call.done)
		}
	}
}

// refresh drops the connections and with them the picture of the cluster that
// a broker has just proved wrong; the transport has no other way to be told.
// Requests under way still end well on theirs.
func (p *Publisher) refresh() {
	now, last := p.cfg.Now().UnixMilli(), p.fresh.Load()
	if now-last > 250 && p.fresh.CompareAndSwap(last, now) { // once for all callers that stumbled
		p.heard.Store(nil)
		p.transport.CloseIdleConnections()
	}
}

// topicLayout is what routing needs to know of a topic.
type topicLayout struct {
	err        error
	partitions []metadata.ResponsePartition
	ids        []int
}

// layouts are what was heard of some topics at one time. They never change.
type layouts struct {
	at     time.Time
	topics map[string]topicLayout
}

// layoutAge is how long layouts are used. Looking a topic up in the transport's
// picture copies all its partitions, which cost every lone event a tenth of its
// publishing. A leader that has moved meanwhile says so itself.
const layoutAge = 100 * time.Millisecond

// topics looks the topics of records up in the transport's picture of the
// cluster, which is at most a second old; with lately, in what was last heard
// of it, if that is new enough and has all of them without an error.
func (p *Publisher) topics(ctx context.Context, records []record, lately bool) (map[string]topicLayout, error) {
	last := p.heard.Load()
	if lately && last != nil && p.cfg.Now().Sub(last.at) < layoutAge && last.have(records) {
		return last.topics, nil
	}
	var names []string
	for _, r := range records {
		if !slices.Contains(names, r.topic) {
			names = append(names, r.topic)
		}
	}
	answer, err := p.transport.RoundTrip(ctx, p.addr, &metadata.Request{TopicNames: names})
	if err != nil {
		return nil, err
	}
	out := make(map[string]topicLayout, len(names))
	for _, t := range answer.(*metadata.Response).Topics {
		layout := topicLayout{partitions: t.Partitions}
		if t.ErrorCode != 0 {
			layout.err = kafka.Error(t.ErrorCode)
		}
		for i := range t.Partitions {
			layout.ids = append(layout.ids, i)
		}
		out[t.Name] = layout
	}
	p.heard.Store(&layouts{at: p.cfg.Now(), topics: out})
	return out, nil
}

// have reports whether all topics of records are there without an error.
func (l *layouts) have(records []record) bool {
	for _, r := range records {
		if t, ok := l.topics[r.topic]; !ok || t.err != nil {
			return false
		}
	}
	return true
}

// route sets it's partition and returns the broker that leads it.
func (l topicLayout) route(b kafka.Murmur2Balancer, it *item) (int32, error) {
	if l.err != nil || len(l.ids) == 0 {
		return 0, or(l.err, error(kafka.UnknownTopicOrPartition))
	}
	part := l.partitions[b.Balance(kafka.Message{Key: it.record.key}, l.ids...)]
	if part.LeaderID < 0 {
		return 0, kafka.LeaderNotAvailable
	}
	it.partition = part.PartitionIndex
	return part.LeaderID, nil
}

// retriable reports whether the same request may succeed later. What is not
// Kafka's own code is a connection, a time-out or a picture of the cluster that
// does not fit any more.
func retriable(err error) bool {
	var code kafka.Error
	if !errors.As(err, &code) {
		return true
	}
	return code.Temporary() || code == kafka.BrokerNotAvailable || code == kafka.ReplicaNotAvailable || code == kafka.Unknown
}

// refusesContent reports whether a broker will never take these records, not
// even alone.
func refusesContent(err error) bool {
	return errors.Is(err, kafka.MessageSizeTooLarge) || errors.Is(err, kafka.RecordListTooLarge) ||
		errors.Is(err, kafka.InvalidRecord) || errors.Is(err, kafka.InvalidTimestamp)
}
