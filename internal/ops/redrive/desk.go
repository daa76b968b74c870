// Package redrive looks after dead letters: it lists them, sends them back to
// the topics they came from, or lets them lie for good.
//
// A letter is never changed nor taken out of its topic. What was done with it
// is known from the offsets of progress groups: each has committed how far it
// has come, and with that the filter that says which letters it was for. So the
// lag of such a group is what is left to do, and a run that was cut short goes
// on where it stopped. Letters that have been sent back [Limit] times and came
// back each time are quarantined: they stay, and are left alone.
package redrive

import (
	"cmp"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"fmt"
	"iter"
	"regexp"
	"time"

	"github.com/leadingpeers/seckill/pkg/events"
)

// Limit is how often a letter is sent back unless the operator says otherwise.
const Limit = 3

// Status says what is to be done with a letter.
type Status string

// The states of a letter.
const (
	Waiting     Status = "waiting"     // nobody has done anything with it
	Redriven    Status = "redriven"    // it was sent back
	Dropped     Status = "dropped"     // it is let lie for good
	Done        Status = "done"        // one of these: a redrive and a drop have passed it, and only the audit trail knows which was first
	Quarantined Status = "quarantined" // it was sent back too often
	Stranded    Status = "stranded"    // it cannot be sent back: too large to be kept whole, or of no topic of ours
)

// Statuses lists every status.
func Statuses() []Status { return []Status{Waiting, Redriven, Dropped, Done, Quarantined, Stranded} }

// Item is a letter and its status.
type Item struct {
	events.Letter
	Status Status
}

// Desk is where dead letters are looked after.
type Desk struct {
	Kafka     events.ClientConfig
	Publisher *events.Publisher
	DB        *sql.DB          // of the audit trail
	Now       func() time.Time // clock of the wait for what comes back
	Limit     int              // redrives after which a letter is quarantined; 0 = the constant Limit
}

func (d *Desk) limit() int { return cmp.Or(d.Limit, Limit) }

// List yields the letters of a group that f chooses, whatever their status, by
// partition and offset. It changes nothing.
func (d *Desk) List(ctx context.Context, group string, f Filter) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		marks, err := d.marks(ctx, group)
		if err != nil {
			yield(Item{}, err)
			return
		}
		spans, err := d.spans(ctx, group)
		if err != nil {
			yield(Item{}, err)
			return
		}
		for _, s := range spans {
			for l, err := range events.Letters(ctx, d.Kafka, group, s) {
				if err == nil && !f.Matches(l) {
					continue
				}
				if !yield(Item{l, d.status(l, marks)}, err) || err != nil {
					return
				}
			}
		}
	}
}

// Find returns one letter by its ID.
func (d *Desk) Find(ctx context.Context, id string) (Item, error) {
	p, err := ParseID(id)
	if err != nil {
		return Item{}, err
	}
	marks, err := d.marks(ctx, p.Group)
	if err != nil {
		return Item{}, err
	}
	spans, err := d.spans(ctx, p.Group)
	if err != nil {
		return Item{}, err
	}
	for _, s := range spans {
		if s.Partition != p.Partition || p.Offset < s.From || p.Offset >= s.To {
			continue
		}
		s.From, s.To = p.Offset, p.Offset+1
		for l, err := range events.Letters(ctx, d.Kafka, p.Group, s) {
			if err != nil {
				return Item{}, err
			}
			if l.Offset == p.Offset {
				return Item{l, d.status(l, marks)}, nil
			}
		}
	}
	return Item{}, fmt.Errorf("letter %s: there is none; retention may have removed it", id)
}

func (d *Desk) spans(ctx context.Context, group string) ([]events.Span, error) {
	return events.Spans(ctx, d.Kafka, events.DeadLetterTopic(group), time.Time{})
}

// status looks through what was done before.
func (d *Desk) status(l events.Letter, marks []mark) Status {
	did := map[string]bool{}
	for _, m := range marks {
		if m.passed(l) && m.covers(d.Kafka, l) {
			did[m.Do] = true
		}
	}
	switch {
	case did[doDrop] && did[doRedrive]:
		return Done
	case did[doDrop]:
		return Dropped
	case did[doRedrive]:
		return Redriven
	}
	if _, err := l.WayBack(d.Kafka); err != nil {
		return Stranded
	}
	if l.Redrives >= d.limit() {
		return Quarantined
	}
	return Waiting
}

// marks reads every progress that somebody has made with a group's letters.
func (d *Desk) marks(ctx context.Context, group string) ([]mark, error) {
	names, err := events.ProgressGroups(ctx, d.Kafka, progressStart(group))
	if err != nil {
		return nil, err
	}
	var out []mark
	for _, name := range names {
		p, err := events.LoadProgress(ctx, d.Kafka, name, events.DeadLetterTopic(group))
		if err != nil {
			return nil, err
		}
		if m, ok := readMark(p); ok {
			out = append(out, m)
		}
	}
	return out, nil
}

func progressStart(group string) string { return "dlq-progress." + group + "." }

var namePattern = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,39}$`)

// progressGroup is the group that keeps how far m has come: the operator's name
// for it, or one that the same filter always gets.
func progressGroup(group, name string, m mark) (string, error) {
	if name != "" {
		if !namePattern.MatchString(name) {
			return "", fmt.Errorf("progress %.60q: want 1 to 40 characters of a-z, 0-9 and hyphens", name)
		}
		return progressStart(group) + name, nil
	}
	note, err := m.note()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(note))
	return progressStart(group) + m.Do + "-" + hex.EncodeToString(sum[:5]), nil
}
