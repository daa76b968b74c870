package simulator

import (
	"errors"
	"slices"

	"github.com/leadingpeers/seckill/internal/simulator/memory"
	"github.com/leadingpeers/seckill/pkg/events"
)

// delivery is a batch on its way through a handler: what partition.deliver of
// package events does, step for step.
type delivery struct {
	part *memory.Partition
	gen  int
	told map[string]bool // what a failed attempt has published; shared by the halves of a batch
}

// consumeSome lets the owner of a partition with records take a batch.
func (s *Simulator) consumeSome() {
	parts := s.kafka.Partitions()
	first := s.n(len(parts))
	for i := range parts {
		p := parts[(first+i)%len(parts)]
		if !p.Busy && p.Waiting() > 0 {
			p.Busy = true
			d := delivery{part: p, gen: p.Gen}
			s.start(s.procs[s.ownerOf(p)], "batch of "+string(p.Topic), func() { s.deliver(&d) }, func() {
				if p.Gen == d.gen {
					p.Busy = false
				}
			})
			return
		}
	}
}

// ownerOf is the process that has a partition.
func (s *Simulator) ownerOf(p *memory.Partition) int {
	if p.Topic == events.Deductions || p.Topic == events.Payments {
		return settleA + p.Owner
	}
	return stockA + p.Owner
}

// deliver is partition.deliver: it handles a batch and commits it last. It
// reports whether it got there.
func (s *Simulator) deliver(d *delivery) bool {
	limit := 1 + s.n(4)
	if s.current == nil {
		limit = 8
	}
	batch, next := d.part.Fetch(limit)
	if d.part.Topic == events.Payments && len(batch) > 1 {
		// Several reservations would be paid side by side, in no order that a seed could repeat.
		if some := memory.Only(batch); len(some) < len(batch) {
			next -= len(batch) - len(some)
			batch = some
		}
	}
	if s.mutant == memory.CommitFirst && s.commit(d, next) != nil {
		return false
	}
	if len(batch) > 0 && !s.handle(d, batch) {
		return false
	}
	return s.commit(d, next) == nil
}

func (s *Simulator) commit(d *delivery, next int) error {
	var fenced error
	err := s.cross(kafka, "commit", func() { fenced = d.part.Commit(d.gen, next) })
	return firstOf(err, fenced)
}

// handle is partition.handle: it repeats until there is no fault, and halves
// the batch around permanent ones. False: the ownership has ended.
func (s *Simulator) handle(d *delivery, batch []memory.Record) bool {
	evs := make([]events.Event, len(batch))
	for i, r := range batch {
		evs[i] = r.Event
	}
	for {
		next, err := s.handlers[d.part.Topic](forever(), slices.Clone(evs))
		s.sayErr("handle", err)
		if !s.tellNext(d, next) {
			return false
		}
		var permanent *events.PermanentError
		switch {
		case err == nil:
			return true
		case errors.As(err, &permanent) || s.mutant == memory.DeadLetterOutage && s.current != nil:
			return s.cure(d, batch, err)
		}
		for _, e := range next {
			if d.told == nil {
				d.told = make(map[string]bool)
			}
			d.told[e.ID()] = true
		}
		if !s.again(d) {
			return false
		}
	}
}

// cure puts the records aside that a permanent fault names, halves the batch
// for one that it does not name, and buries the record that is alone with it.
func (s *Simulator) cure(d *delivery, batch []memory.Record, err error) bool {
	if len(batch) == 1 {
		return s.bury(d, batch[0], err)
	}
	condemned := events.Condemned(err)
	var rest []memory.Record
	for _, r := range batch {
		if condemned[r.Event] == nil {
			rest = append(rest, r)
		} else if !s.bury(d, r, condemned[r.Event]) {
			return false
		}
	}
	if len(rest) < len(batch) {
		return len(rest) == 0 || s.handle(d, rest)
	}
	half := len(batch) / 2
	return s.handle(d, batch[:half]) && s.handle(d, batch[half:])
}

// bury writes a dead letter.
func (s *Simulator) bury(d *delivery, r memory.Record, err error) bool {
	for s.cross(kafka, "write a dead letter", func() {
		if !r.Hostile {
			s.world.dead = append(s.world.dead, r.Event.ID()+": "+err.Error())
		}
	}) != nil {
		if !s.again(d) {
			return false
		}
	}
	return true
}

// tellNext is partition.tell: it publishes what follows until that has worked.
func (s *Simulator) tellNext(d *delivery, next []events.Event) bool {
	next = slices.DeleteFunc(slices.Clone(next), func(e events.Event) bool { return d.told[e.ID()] })
	if len(next) == 0 {
		return true
	}
	for (logWire{s}).Publish(forever(), next...) != nil {
		if !s.again(d) {
			return false
		}
	}
	return true
}

// again waits before an attempt is repeated. False: there will be none, because
// the partition is another's by now, or the world is coming to its end and will
// deliver what is not committed.
func (s *Simulator) again(d *delivery) bool {
	if s.current == nil || s.ending {
		return false
	}
	s.pause()
	return d.part.Gen == d.gen
}
