package events

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
)

const deadLetterSuffix = ".dlq"

// DeadLetterGroups lists the groups that have a topic for dead letters, in the
// order of topics.yaml.
func DeadLetterGroups() []string {
	var out []string
	for _, t := range Topics() {
		if group, ok := strings.CutSuffix(string(t.Name), deadLetterSuffix); ok {
			out = append(out, group)
		}
	}
	return out
}

// Header is one header of a record.
type Header struct{ Key, Value string }

// Letter is a dead letter as it lies in its topic: the record that a group
// could not handle, and what became of it. Only where a redrive brings it is
// checked; all else in it was written by somebody, and may be anything.
type Letter struct {
	Group     string // that could not handle it, and whose topic of dead letters it is in; without the prefix
	Partition int    // of that topic
	Offset    int64

	Key, Value []byte
	Headers    []Header  // all, ours among them
	Time       time.Time // of the record it was

	OriginTopic     string // with the prefix
	OriginPartition string // as the header says
	OriginOffset    string
	Attempt         string
	Class           string // see PermanentAs
	Error           string
	FailedAt        time.Time // zero when the header is missing or no time
	Redrives        int       // how often it was sent back
	Truncated       bool      // key, value and headers were too large to keep

	Type       Type   // ce_type
	Event      Event  // of a Whole letter the event, else what could be made out
	Unreadable string // why the value is no event; empty when it is
}

// ID names a letter: group/partition/offset.
func (l Letter) ID() string { return fmt.Sprintf("%s/%d/%d", l.Group, l.Partition, l.Offset) }

// Letters yields the letters of a span of a group's topic of dead letters.
func Letters(ctx context.Context, cfg ClientConfig, group string, s Span) iter.Seq2[Letter, error] {
	return func(yield func(Letter, error) bool) {
		for m, err := range readSpan(ctx, cfg, DeadLetterTopic(group), s) {
			var l Letter
			if err == nil {
				l = cfg.letterOf(group, m)
			}
			if !yield(l, err) {
				return
			}
		}
	}
}

func (c ClientConfig) letterOf(group string, m kafka.Message) Letter {
	l := Letter{Group: group, Partition: m.Partition, Offset: m.Offset, Key: m.Key, Value: m.Value, Time: m.Time}
	h := map[string]string{}
	for _, header := range m.Headers {
		h[header.Key] = string(header.Value)
		l.Headers = append(l.Headers, Header{header.Key, string(header.Value)})
	}
	l.OriginTopic, l.OriginPartition, l.OriginOffset = h[HeaderOriginTopic], h[HeaderOriginPartition], h[HeaderOriginOffset]
	l.Attempt, l.Class, l.Error = h[HeaderAttempt], h[HeaderErrorClass], h[HeaderError]
	l.Redrives = redrives(h[HeaderRedriveCount])
	l.FailedAt, _ = time.Parse(time.RFC3339Nano, h[HeaderFailedAt])
	l.Truncated = h[HeaderTruncated] != ""
	l.Type = Type(h[headerType])
	topic, _ := c.shortTopic(l.OriginTopic)
	e, err := fromMessage(m, topic)
	if err != nil {
		l.Unreadable = err.Error()
		_ = json.Unmarshal(m.Value, &e) // what can be made out helps to find it
		if e.ReservationID == "" {
			e.ReservationID = h[headerSubject]
		}
	}
	l.Event = e
	return l
}

// ErrNoWayBack is returned for a letter that cannot be sent back to where it
// came from. Nothing was written.
var ErrNoWayBack = errors.New("no way back")

// WayBack returns the topic that a letter came from, with the prefix, or
// [ErrNoWayBack] with the reason: its content was too large to keep, or its
// origin is not a topic of events of this installation.
func (l Letter) WayBack(cfg ClientConfig) (string, error) {
	topic, ours := cfg.shortTopic(l.OriginTopic)
	switch {
	case l.Truncated:
		return "", fmt.Errorf("%s: %w: its content was too large to keep; it was %s/%s at %s", l.ID(), ErrNoWayBack, l.OriginTopic, l.OriginPartition, l.OriginOffset)
	case !ours || !carriesEvents(topic):
		return "", fmt.Errorf("%s: %w: its origin is %.100q, which is no topic of events here", l.ID(), ErrNoWayBack, l.OriginTopic)
	}
	return l.OriginTopic, nil
}

// carriesEvents reports whether topic is one of ours, and not of dead letters.
func carriesEvents(topic Topic) bool {
	for _, t := range Topics() {
		if t.Name == topic {
			return !strings.HasSuffix(string(topic), deadLetterSuffix)
		}
	}
	return false
}

// Redrive sends letters back to the topics they came from, by their own origin
// header, and returns nil when all are acknowledged. Each has the key, the
// value and the headers that it had, and a count of its redrives that is one
// higher. Its record gets a new time: retention counts from it.
//
// [ErrNoWayBack]: nothing was written. Else the errors of [Publisher.Publish].
// Repeating is harmless: readers know an event by its ID.
func (p *Publisher) Redrive(ctx context.Context, letters ...Letter) error {
	records := make([]record, len(letters))
	for i, l := range letters {
		var err error
		if records[i], err = l.sentBack(p.cfg.ClientConfig); err != nil {
			return err
		}
	}
	return p.publish(ctx, records)
}

// sentBack is the record that a redrive of l writes, or [ErrNoWayBack].
func (l Letter) sentBack(cfg ClientConfig) (record, error) {
	topic, err := l.WayBack(cfg)
	if err != nil {
		return record{}, err
	}
	r := record{topic: topic, key: l.Key, value: l.Value}
	for _, h := range l.Headers {
		if !strings.HasPrefix(h.Key, "x-seckill-") {
			r.headers = append(r.headers, header(h.Key, h.Value))
		}
	}
	r.headers = append(r.headers, header(HeaderRedriveCount, strconv.Itoa(l.Redrives+1)))
	return r, nil
}
