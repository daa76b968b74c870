// Package onway keeps the services that publish events again from publishing what
// is on its way.
//
// While a worker is behind, or reads a topic once more from its start, what has
// not moved on is mostly still in that topic. More of the same would go behind it,
// hold it up, and be there for the next reading, too. So whoever finds something
// that stands still notes where the log ends, and publishes its event again when
// the group has come that far: whatever was published before is handled then, or
// lost. It compares offsets and no clocks.
package onway

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/leadingpeers/seckill/pkg/events"
)

// Of returns how far a group has come in the partition that has the events of a
// key ([events.Event.Key]).
type Of = func(key string) events.PartitionLag

// Queue says how far a group has come with a topic, at the moment of the call. A
// nil Queue says of everything that it has been handled.
type Queue func(ctx context.Context) (Of, error)

// Topic is the Queue of a group (without prefix) on a topic, as [events.Lag] has
// it.
func Topic(cfg events.ClientConfig, group string, topic events.Topic) Queue {
	return func(ctx context.Context) (Of, error) {
		parts, err := events.Lag(ctx, cfg, group, topic)
		return func(key string) events.PartitionLag { return events.LagOf(parts, key) }, err
	}
}

// Once returns a function that asks when it is first called, and gives everybody
// that answer.
func (q Queue) Once(ctx context.Context) func() (Of, error) {
	return sync.OnceValues(func() (Of, error) {
		if q == nil {
			return func(string) events.PartitionLag { return events.PartitionLag{} }, nil
		}
		return q(ctx)
	})
}

// Marks is what a service remembers of the reservations that it has found standing
// still: of those that it has found within the time of repeat. It is safe for
// concurrent use.
type Marks struct {
	repeat time.Duration
	now    func() time.Time

	mu    sync.Mutex
	marks map[string]mark
}

type mark struct {
	seen      time.Time // when it was found or published last
	published bool      // again, and not found since: it rests, and the rest is not known
	partition int       // of its events
	end       int64     // the offset that the group must have reached
}

// NewMarks returns marks that let a reservation rest for the time of repeat after
// it was published again.
func NewMarks(repeat time.Duration, now func() time.Time) *Marks {
	return &Marks{repeat: repeat, now: now, marks: make(map[string]mark)}
}

// Forget drops the marks of what was neither found nor published for the time of
// repeat.
func (m *Marks) Forget() {
	now := m.now()
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.DeleteFunc(m.marks, func(_ string, k mark) bool { return now.Sub(k.seen) >= m.repeat })
}

// Rests reports whether a reservation was published again just now.
func (m *Marks) Rests(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := m.marks[id]
	return k.published && m.now().Sub(k.seen) < m.repeat
}

// Passed reports whether the group has handled all that was published of a
// reservation until it was found first. A lag that was read before it
// was found this time may let an event through that is on its way, which is harmless.
func (m *Marks) Passed(id string, lag events.PartitionLag) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	k, found := m.marks[id]
	if !found || k.published || k.partition != lag.Partition || k.end > lag.End { // new, or the topic was made anew
		k = mark{partition: lag.Partition, end: lag.End}
	}
	k.seen = m.now()
	m.marks[id] = k
	return max(lag.Committed, lag.Start) >= k.end
}

// Published lets a reservation rest whose event has just been published again. The
// next mark is behind that event.
func (m *Marks) Published(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.marks[id] = mark{seen: m.now(), published: true}
}
