package events

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
)

// Span is a part of a partition's log: the records from From up to, and
// without, To. Offsets in between may be empty.
type Span struct {
	Partition int
	From, To  int64
}

// Spans returns what a topic holds now, by partition: from its start, or from
// the first record that was written at since or later. What comes after the
// call is not in it. An empty log has From = To.
func Spans(ctx context.Context, cfg ClientConfig, topic Topic, since time.Time) ([]Span, error) {
	cfg = cfg.withDefaults()
	name := cfg.TopicName(topic)
	var out []Span
	err := cfg.withClient(func(client *kafka.Client) error {
		ids, err := partitionIDs(ctx, client, name)
		if err != nil {
			return err
		}
		logs, err := logBounds(ctx, client, name, ids...)
		if err != nil {
			return err
		}
		for _, id := range ids {
			s := Span{Partition: id, From: logs[id].start, To: logs[id].end}
			if !since.IsZero() && s.From < s.To {
				if s.From, err = offsetAt(ctx, client, name, s, since); err != nil {
					return err
				}
			}
			out = append(out, s)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look at the log of %s: %w", name, err)
	}
	return out, nil
}

// offsetAt is the first offset of s with a record of the time or later, or s.To.
func offsetAt(ctx context.Context, client *kafka.Client, topic string, s Span, since time.Time) (int64, error) {
	resp, err := client.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{
		topic: {kafka.TimeOffsetOf(s.Partition, since)},
	}})
	if err == nil {
		err = resp.Topics[topic][0].Error
	}
	if err != nil {
		return 0, err
	}
	for offset := range resp.Topics[topic][0].Offsets {
		if offset >= s.From { // -1 says that no record is so young
			return min(offset, s.To), nil
		}
	}
	return s.To, nil
}

// Stored is a record as it lies in a topic.
type Stored struct {
	Partition  int
	Offset     int64
	At         time.Time // the record's own time
	Event      Event     // zero when Unreadable says why
	Unreadable error
}

// Scan yields the records of a span of a topic that carries events, in their
// order. It joins no group and commits nothing. An error ends it; what is in a
// span may be gone by retention, then it begins later.
func Scan(ctx context.Context, cfg ClientConfig, topic Topic, s Span) iter.Seq2[Stored, error] {
	return func(yield func(Stored, error) bool) {
		for m, err := range readSpan(ctx, cfg, topic, s) {
			out := Stored{Partition: s.Partition, Offset: m.Offset, At: m.Time}
			if err == nil {
				out.Event, out.Unreadable = fromMessage(m, topic)
			}
			if !yield(out, err) {
				return
			}
		}
	}
}

// readSpan yields the raw records of a span.
func readSpan(ctx context.Context, cfg ClientConfig, topic Topic, s Span) iter.Seq2[kafka.Message, error] {
	cfg = cfg.withDefaults()
	return func(yield func(kafka.Message, error) bool) {
		if s.From >= s.To {
			return
		}
		fail := func(err error) {
			yield(kafka.Message{}, fmt.Errorf("read %s/%d at %d to %d: %w", cfg.TopicName(topic), s.Partition, s.From, s.To, err))
		}
		r := kafka.NewReader(kafka.ReaderConfig{
			Brokers: cfg.Brokers, Dialer: cfg.Dialer(), Topic: cfg.TopicName(topic), Partition: s.Partition,
			MinBytes: 1, MaxBytes: 4 << 20, MaxWait: FetchWait, ReadLagInterval: -1, MaxAttempts: 3,
			OffsetOutOfRangeError: true,
		})
		defer func() { _ = r.Close() }()
		if err := r.SetOffset(s.From); err != nil {
			fail(err)
			return
		}
		for {
			m, err := nextOf(ctx, r)
			if errors.Is(err, errQuiet) { // the last offsets of the span hold no records
				return
			}
			if err != nil {
				fail(err)
				return
			}
			if m.Offset >= s.To || !yield(m, nil) || m.Offset == s.To-1 {
				return
			}
		}
	}
}

// errQuiet says that a log that should go on did not.
var errQuiet = errors.New("nothing more to read")

// nextOf fetches one record; a log that is silent for long has no more of them.
func nextOf(ctx context.Context, r *kafka.Reader) (kafka.Message, error) {
	one, cancel := context.WithTimeoutCause(ctx, 20*time.Second, errQuiet)
	defer cancel()
	m, err := r.FetchMessage(one)
	if err != nil && ctx.Err() == nil && one.Err() != nil {
		return m, errQuiet
	}
	return m, err
}

// shortTopic takes the installation's prefix off a topic's name.
func (c ClientConfig) shortTopic(name string) (Topic, bool) {
	short, ours := strings.CutPrefix(name, c.withDefaults().Prefix+".")
	return Topic(short), ours
}
