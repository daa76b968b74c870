package memory

import (
	"errors"
	"slices"

	"github.com/leadingpeers/seckill/pkg/events"
)

// ErrFenced is the answer to a member that commits for a generation that is
// over.
var ErrFenced = errors.New("the generation is over")

// Kafka is a broker: partitions with one consumer group each.
type Kafka struct{ partitions []*Partition }

// Partition is an ordered log with a group's position in it.
type Partition struct {
	Topic     events.Topic
	Key       string // of all its records, "" = of any
	Gen       int    // counts the generations of the group
	Owner     int    // which member has it in this generation
	Busy      bool   // the owner works on a batch
	log       []Record
	committed int
}

// Record is an event in a log.
type Record struct {
	Event   events.Event
	Hostile bool // nobody of ours has written it: it may end among the dead letters
	Tried   bool // a member has fetched it
	lost    bool
}

// NewKafka returns a broker with partitions: one for each product where events
// of a product must meet, else one for a topic.
func NewKafka(products []string) *Kafka {
	k := &Kafka{}
	for _, p := range products {
		k.partitions = append(k.partitions, &Partition{Topic: events.Reservations, Key: p}, &Partition{Topic: events.Rollbacks, Key: p})
	}
	for _, t := range []events.Topic{events.Deductions, events.Payments, events.Channels} {
		k.partitions = append(k.partitions, &Partition{Topic: t})
	}
	return k
}

// Reset empties every log.
func (k *Kafka) Reset() {
	for _, p := range k.partitions {
		*p = Partition{Topic: p.Topic, Key: p.Key, log: p.log[:0]}
	}
}

// Partitions are all partitions that somebody reads.
func (k *Kafka) Partitions() []*Partition { return k.partitions }

// Append writes an event to its partition. A topic that nobody reads keeps
// nothing.
func (k *Kafka) Append(r Record) {
	topic, key := r.Event.Topic(), r.Event.Key()
	for _, p := range k.partitions {
		if p.Topic == topic && (p.Key == "" || p.Key == key) {
			p.log = append(p.log, r)
			return
		}
	}
}

// Lag is how many records wait. What is lost does not.
func (p *Partition) Lag() int {
	n := 0
	for _, r := range p.log[p.committed:] {
		if !r.lost {
			n++
		}
	}
	return n
}

// Fetch returns at most limit records after the group's position, and the
// position after them.
func (p *Partition) Fetch(limit int) (batch []Record, next int) {
	next = p.committed
	for next < len(p.log) && len(batch) < limit {
		if r := &p.log[next]; !r.lost {
			r.Tried = true
			batch = append(batch, *r)
		}
		next++
	}
	return batch, next
}

// Position is what the group has committed.
func (p *Partition) Position() int { return p.committed }

// Commit moves the group's position for a generation.
func (p *Partition) Commit(gen, next int) error {
	if gen != p.Gen {
		return ErrFenced
	}
	p.committed = next
	return nil
}

// Rebalance begins a generation with another owner. Whoever works on a batch
// goes on and does not know.
func (p *Partition) Rebalance(owner int) {
	p.Gen++
	p.Owner, p.Busy = owner, false
}

// Rewind takes the position back, as a replay or a lost offset does.
func (p *Partition) Rewind(to int) { p.committed = min(to, p.committed) }

// Lose deletes one record that nobody has fetched, counted from the position,
// and reports which.
func (p *Partition) Lose(i int) (events.Event, bool) {
	i += p.committed
	if i >= len(p.log) || p.log[i].Tried || p.log[i].lost || p.log[i].Hostile {
		return events.Event{}, false
	}
	p.log[i].lost = true
	return p.log[i].Event, true
}

// Double writes a record once more, as a producer's retry does.
func (p *Partition) Double(i int) {
	p.log = append(p.log, p.log[i])
}

// Swap lets two records that nobody has fetched, counted from the position,
// change places, as two producers or a retry do, and reports whether it did. The
// order of those that were fetched is fixed.
func (p *Partition) Swap(i, j int) bool {
	i, j = p.committed+i, p.committed+j
	if i == j || p.log[i].Tried || p.log[j].Tried {
		return false
	}
	p.log[i], p.log[j] = p.log[j], p.log[i]
	return true
}

// Len is how many records there ever were.
func (p *Partition) Len() int { return len(p.log) }

// Waiting is how many records come after the position, lost ones too.
func (p *Partition) Waiting() int { return len(p.log) - p.committed }

// Only cuts a batch where the next record is of another reservation.
func Only(batch []Record) []Record {
	n := slices.IndexFunc(batch, func(r Record) bool { return r.Event.ReservationID != batch[0].Event.ReservationID })
	if n < 0 {
		return batch
	}
	return batch[:n]
}
