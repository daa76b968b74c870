// Package replay hands events to their readers once more, without fear: a plan
// says exactly which, and what to expect of them; running it changes nothing
// that has been decided, because every reader knows a reservation by its ID; and
// the books are read before and after.
//
// It does not send dead letters back; that is redriving.
package replay

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/leadingpeers/seckill/internal/ops/kafkalog"
	"github.com/leadingpeers/seckill/pkg/events"
)

// Plan is what to replay, as a file. The names of groups and topics are
// without the prefix, save those of groups that are not ours.
type Plan struct {
	ID          string      `json:"id"`
	MadeAt      time.Time   `json:"made_at"`
	Prefix      string      `json:"prefix"`                // of the installation it is for
	Reservation string      `json:"reservation,omitempty"` // only its events
	To          *time.Time  `json:"to,omitempty"`          // only records written before; none = up to the end that the logs had
	Ranges      []Range     `json:"ranges"`
	Products    []string    `json:"products"` // whose books are read before and after
	Expect      Expectation `json:"expect"`
}

// Range is a stretch of one partition.
type Range struct {
	Group     string       `json:"group"`
	Topic     events.Topic `json:"topic"`
	Partition int          `json:"partition"`
	From      int64        `json:"from"`
	To        int64        `json:"to"` // the offset before which it ends
	LogStart  int64        `json:"log_start"`
	LogEnd    int64        `json:"log_end"`
	Gone      int64        `json:"gone,omitempty"` // records that were asked for and are not there: before the log's start, or behind its end
	Events    int64        `json:"events"`
	First     *Mark        `json:"first,omitempty"`
	Last      *Mark        `json:"last,omitempty"`
}

// Mark is one event of a range.
type Mark struct {
	Offset      int64       `json:"offset"`
	At          time.Time   `json:"at"` // when the fact was established
	Type        events.Type `json:"type"`
	Reservation string      `json:"reservation"`
}

// Expectation is what the stores say of the events of a plan.
type Expectation struct {
	Events      int64     `json:"events"`
	Settled     int64     `json:"settled"`             // decided already: nothing will change
	Unsettled   int64     `json:"unsettled"`           // not decided yet: replaying decides them
	Sample      []string  `json:"sample,omitempty"`    // some reservations of those
	Unknown     int64     `json:"unknown,omitempty"`   // about no reservation, or for a group that is not ours
	NoEvents    int64     `json:"no_events,omitempty"` // records that cannot be decoded: they are dead letters already
	Forgotten   int64     `json:"forgotten,omitempty"` // unsettled and older than what the ledger remembers: they may have been decided
	LedgerSince time.Time `json:"ledger_since"`        // what the ledger remembers; the zero time = everything
}

// Want is what an operator asks to be replayed.
type Want struct {
	Groups      []string // ours by their short names, others in full; empty with a Reservation = all of ours
	Topic       string   // for a group that is not ours
	Partitions  []int    // empty = all
	Reservation string   // only its events

	Earliest bool      // from the oldest record; or
	FromTime time.Time // from the first record written then or later; or
	From     *int64    // from this offset
	To       time.Time // to records written before; zero = to the present end

	LedgerKeeps    time.Duration // for how long rows stay in the ledger where old ones are deleted; 0 = unknown
	LedgerComplete bool          // none was ever deleted: an event older than the oldest row was never decided
}

// Refused is a replay that must not be: nothing has changed.
type Refused struct{ What, Cause, Fix string }

// Error is what was refused, why, and what to do.
func (r *Refused) Error() string { return r.What + "\n  cause: " + r.Cause + "\n  fix:   " + r.Fix }

func refuse(what, fix, cause string, args ...any) error {
	return &Refused{What: what, Cause: fmt.Sprintf(cause, args...), Fix: fix}
}

// reader is a group and the topic that it is to read again.
type reader struct {
	group string
	topic events.Topic
}

// readers resolves the names of w.
func (w Want) readers(cfg events.ClientConfig) ([]reader, error) {
	const what = "cannot plan the replay"
	var ours []reader
	for _, t := range events.Topics() {
		if t.Group != "" {
			ours = append(ours, reader{t.Group, t.Name})
		}
	}
	if len(w.Groups) == 0 {
		if w.Reservation == "" {
			return nil, refuse(what, "name them with --group, or a reservation with --reservation", "no group is named")
		}
		return slices.DeleteFunc(ours, func(r reader) bool { return r.topic == events.Channels }), nil
	}
	var out []reader
	for _, name := range w.Groups {
		short := strings.TrimPrefix(name, cfg.GroupName(""))
		i := slices.IndexFunc(ours, func(r reader) bool { return r.group == short })
		switch {
		case i >= 0 && (w.Topic == "" || w.Topic == string(ours[i].topic)):
			out = append(out, ours[i])
		case i < 0 && slices.ContainsFunc(events.Topics(), func(t events.TopicSpec) bool { return string(t.Name) == w.Topic }):
			out = append(out, reader{name, events.Topic(w.Topic)})
		default:
			return nil, refuse(what, "groups of ours are deduct, rollback, settle, payment and channel; for another one name the topic with --topic", "group %q does not read topic %q", name, w.Topic)
		}
	}
	order := func(r reader) int { // as events flow
		return slices.IndexFunc(events.Topics(), func(t events.TopicSpec) bool { return t.Name == r.topic })
	}
	slices.SortStableFunc(out, func(a, b reader) int { return cmp.Compare(order(a), order(b)) })
	return slices.Compact(out), nil
}

// Make makes a plan: it reads every record of the ranges and looks the
// reservations up. It changes nothing.
func (d Desk) Make(ctx context.Context, w Want) (*Plan, error) {
	readers, err := w.readers(d.Kafka.Config())
	if err != nil {
		return nil, err
	}
	now := d.Now().UTC()
	p := &Plan{
		ID: now.Format("20060102-150405-") + strings.ToLower(rand.Text()[:4]), MadeAt: now, Prefix: d.prefix(), Reservation: w.Reservation,
	}
	if !w.To.IsZero() {
		to := w.To.UTC()
		p.To = &to
	}
	for _, r := range readers {
		ranges, err := d.ranges(ctx, w, r)
		if err != nil {
			return nil, fmt.Errorf("plan the replay of %s: %w", r.group, err)
		}
		p.Ranges = append(p.Ranges, ranges...)
	}
	survey, err := d.survey(ctx, w)
	if err != nil {
		return nil, fmt.Errorf("plan the replay: %w", err)
	}
	if err := survey.all(ctx, p); err != nil {
		return nil, fmt.Errorf("plan the replay: %w", err)
	}
	if p.Reservation != "" {
		p.Ranges = slices.DeleteFunc(p.Ranges, func(r Range) bool { return r.Events == 0 })
	}
	if len(p.Ranges) == 0 {
		return nil, refuse("cannot plan the replay", "look with seckill topics tail, or plan from an earlier time", "no event is in the range")
	}
	return p, nil
}

// ranges are the stretches of a topic that w asks for, as far as they are there.
func (d Desk) ranges(ctx context.Context, w Want, r reader) ([]Range, error) {
	topic := d.Kafka.Config().TopicName(r.topic)
	logs, err := d.Kafka.Extents(ctx, topic)
	if err != nil {
		return nil, err
	}
	var since map[int]int64
	if !w.FromTime.IsZero() {
		if since, err = d.Kafka.At(ctx, topic, w.FromTime); err != nil {
			return nil, err
		}
	}
	ends, err := d.ends(ctx, topic, w.To, logs)
	if err != nil {
		return nil, err
	}
	var out []Range
	for _, id := range slices.Sorted(maps.Keys(logs)) {
		if len(w.Partitions) > 0 && !slices.Contains(w.Partitions, id) {
			continue
		}
		log := logs[id]
		one := Range{Group: r.group, Topic: r.topic, Partition: id, From: log.Start, To: ends[id], LogStart: log.Start, LogEnd: log.End}
		switch {
		case w.From != nil:
			one.From = min(max(*w.From, log.Start), log.End)
			one.Gone = max(one.From-*w.From, *w.From-one.From)
		case since != nil:
			one.From = since[id]
		}
		one.From = min(one.From, one.To)
		out = append(out, one)
	}
	for _, id := range w.Partitions {
		if _, there := logs[id]; !there {
			return nil, refuse("cannot plan the replay", "name partitions that are there", "topic %s has no partition %d", topic, id)
		}
	}
	return out, nil
}

// ends are the offsets before which ranges end, by partition.
func (d Desk) ends(ctx context.Context, topic string, to time.Time, logs map[int]kafkalog.Extent) (map[int]int64, error) {
	if !to.IsZero() {
		return d.Kafka.At(ctx, topic, to)
	}
	out := map[int]int64{}
	for id, log := range logs {
		out[id] = log.End
	}
	return out, nil
}

// Load reads a plan from its file.
func Load(path string) (*Plan, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the plan: %w", err)
	}
	var p Plan
	if err := json.Unmarshal(text, &p); err != nil {
		return nil, fmt.Errorf("read the plan %s: %w", path, err)
	}
	if p.ID == "" || len(p.Ranges) == 0 {
		return nil, fmt.Errorf("read the plan %s: %w", path, errors.New("it has no ID or no ranges: seckill replay plan writes one"))
	}
	return &p, nil
}

// Save writes a plan to a file that must not be there yet.
func (p *Plan) Save(path string) error {
	text, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644) //nolint:gosec // no secret is in it, and colleagues read it
	if errors.Is(err, os.ErrExist) {
		return refuse("cannot write the plan", "name another file, or remove that one", "%s is there already", path)
	}
	if err != nil {
		return fmt.Errorf("write the plan: %w", err)
	}
	_, err = f.Write(append(text, '\n'))
	return errors.Join(err, f.Close())
}

// groups are the groups of the plan, each once, in order.
func (p *Plan) groups() (out []string) {
	for _, r := range p.Ranges {
		if !slices.Contains(out, r.Group) {
			out = append(out, r.Group)
		}
	}
	return out
}
