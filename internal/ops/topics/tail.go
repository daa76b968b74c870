package topics

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/leadingpeers/seckill/internal/ops/kafkalog"
	"github.com/leadingpeers/seckill/pkg/events"
)

// Filter chooses events; what is empty does not matter.
type Filter struct {
	Reservation, Product string
	Type                 string // of the event, in full or a part of it: rollback
}

// Match reports whether e is chosen.
func (f Filter) Match(e events.Event) bool {
	return (f.Reservation == "" || e.ReservationID == f.Reservation) &&
		(f.Product == "" || e.ProductID == f.Product) &&
		(f.Type == "" || strings.Contains(string(e.Type), f.Type))
}

// empty reports whether everything is chosen, also what is no event.
func (f Filter) empty() bool { return f == Filter{} }

// Range says what of a topic to read.
type Range struct {
	From   time.Time // records written then or later; zero = from the oldest
	To     time.Time // records written before; zero = to the present end
	Follow bool      // go on with what comes, until ctx ends
}

// Query says what to read.
type Query struct {
	Topic events.TopicSpec
	Filter
	Range
}

// Line is one record, decoded.
type Line struct {
	Partition int
	Offset    int64
	At        time.Time // when the record was written
	Key       string
	Headers   map[string]string
	Event     events.Event
	Problem   string // why the record is no event; empty = it is one
}

// Tail calls show with the chosen records, each partition in its
// order, and the partitions by the time of their records, as far as they have
// been read. It returns when the range is read, when show returns an error, or
// when ctx ends; then without an error if q.Follow.
func Tail(ctx context.Context, k *kafkalog.Kafka, q Query, show func(Line) error) error {
	name := k.Config().TopicName(q.Topic.Name)
	stretches, err := stretches(ctx, k, name, q.Range)
	if err != nil {
		return fmt.Errorf("tail %s: %w", name, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	feeds := make([]feed, len(stretches))
	for i, s := range stretches {
		feeds[i] = make(feed, 100)
		go feeds[i].fill(ctx, k, s)
	}
	pick := merged
	if q.Follow {
		pick = asTheyCome
	}
	err = pick(ctx, feeds, func(m kafka.Message) error {
		line := decode(k.Config(), q.Topic.Name, m)
		if !q.empty() && (line.Problem != "" || !q.Match(line.Event)) {
			return nil
		}
		return show(line)
	})
	if q.Follow && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// stretches are what of each partition is read.
func stretches(ctx context.Context, k *kafkalog.Kafka, topic string, r Range) ([]kafkalog.Stretch, error) {
	logs, err := k.Extents(ctx, topic)
	if err != nil {
		return nil, err
	}
	var from, to map[int]int64
	if !r.From.IsZero() {
		if from, err = k.At(ctx, topic, r.From); err != nil {
			return nil, err
		}
	}
	if !r.To.IsZero() {
		if to, err = k.At(ctx, topic, r.To); err != nil {
			return nil, err
		}
	}
	var out []kafkalog.Stretch
	for _, p := range slices.Sorted(maps.Keys(logs)) {
		s := kafkalog.Stretch{Topic: topic, Partition: p, From: logs[p].Start, To: logs[p].End}
		if from != nil {
			s.From = from[p]
		}
		if to != nil {
			s.To = min(s.To, to[p])
		}
		if r.Follow {
			s.To = kafkalog.Endless
		}
		out = append(out, s)
	}
	return out, nil
}

// read is a record, or why there are no more.
type read struct {
	m   kafka.Message
	err error
}

// feed is one partition on its way.
type feed chan read

func (f feed) fill(ctx context.Context, k *kafkalog.Kafka, s kafkalog.Stretch) {
	defer close(f)
	for m, err := range k.Records(ctx, s) {
		select {
		case f <- read{m, err}:
		case <-ctx.Done():
			return
		}
	}
}

// merged takes records of bounded feeds in the order of their times.
func merged(_ context.Context, feeds []feed, take func(kafka.Message) error) error {
	heads := make([]*read, len(feeds))
	for {
		var first *read
		at := 0
		for i, f := range feeds {
			if heads[i] == nil {
				if next, more := <-f; more {
					heads[i] = &next
				}
			}
			if h := heads[i]; h != nil && (first == nil || h.err != nil || (first.err == nil && h.m.Time.Before(first.m.Time))) {
				first, at = h, i
			}
		}
		if first == nil {
			return nil
		}
		if first.err != nil {
			return first.err
		}
		heads[at] = nil
		if err := take(first.m); err != nil {
			return err
		}
	}
}

// asTheyCome takes records of endless feeds whenever there is one.
func asTheyCome(ctx context.Context, feeds []feed, take func(kafka.Message) error) error {
	all := make(feed)
	for _, f := range feeds {
		go func() {
			for r := range f {
				select {
				case all <- r:
				case <-ctx.Done():
					return
				}
			}
		}()
	}
	for {
		select {
		case r := <-all:
			if r.err != nil {
				return r.err
			}
			if err := take(r.m); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// decode reads a record; a dead letter as what it was on the topic it is from.
func decode(cfg events.ClientConfig, topic events.Topic, m kafka.Message) Line {
	line := Line{Partition: m.Partition, Offset: m.Offset, At: m.Time.UTC(), Key: string(m.Key), Headers: map[string]string{}}
	for _, h := range m.Headers {
		line.Headers[h.Key] = string(h.Value)
	}
	if from := line.Headers[events.HeaderOriginTopic]; from != "" {
		topic = events.Topic(strings.TrimPrefix(from, cfg.TopicName("")))
	}
	e, err := events.Read(m, topic)
	if err != nil {
		line.Problem = err.Error()
	}
	line.Event = e
	return line
}

// Moment reads a point in time: RFC 3339, or a duration before now such as 30m
// or 7d. Empty is the zero time.
func Moment(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at, nil
	}
	ago := strings.TrimPrefix(text, "-")
	if n, err := strconv.Atoi(strings.TrimSuffix(ago, "d")); err == nil && strings.HasSuffix(ago, "d") && n >= 0 {
		return now.AddDate(0, 0, -n), nil
	}
	if d, err := time.ParseDuration(ago); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	return time.Time{}, fmt.Errorf("%q: want a time such as 2026-11-11T20:00:00+08:00, or how long ago such as 30m or 7d", text)
}
