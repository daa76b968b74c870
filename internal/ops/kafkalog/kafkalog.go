// Package kafkalog looks at Kafka from outside, as operators do: the extents
// of logs, stretches of records, groups with their offsets and members. It is
// what the rooms of internal/ops share; it decides nothing, and delivers
// nothing to anybody.
package kafkalog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/leadingpeers/seckill/pkg/events"
)

// callTimeout bounds one request; callers bound the whole.
const callTimeout = 10 * time.Second

// Kafka is a connection to the brokers. It is safe for concurrent use, and has
// to be closed. Topics and groups have their full names here.
type Kafka struct {
	cfg       events.ClientConfig
	transport *kafka.Transport
	client    *kafka.Client
}

// Open prepares a connection; it dials when it is first used.
func Open(cfg events.ClientConfig) *Kafka {
	transport := cfg.Transport()
	return &Kafka{cfg: cfg, transport: transport, client: &kafka.Client{
		Addr: kafka.TCP(cfg.Brokers...), Timeout: callTimeout, Transport: transport,
	}}
}

// Close ends the connections.
func (k *Kafka) Close() { k.transport.CloseIdleConnections() }

// Refresh makes the next look at topics a fresh one: a connection's picture of
// the cluster may be a second old.
func (k *Kafka) Refresh() { k.transport.CloseIdleConnections() }

// Config is how the brokers are reached.
func (k *Kafka) Config() events.ClientConfig { return k.cfg }

// Client is the connection itself, for requests that only one room makes.
func (k *Kafka) Client() *kafka.Client { return k.client }

// Topic is a topic as the brokers have it.
type Topic struct {
	Name       string
	Partitions []int // their numbers, from the lowest
	Replicas   int   // copies of each partition, the fewest of any
}

// ErrNoTopic says that a topic does not exist.
var ErrNoTopic = errors.New("no such topic")

// Topics describes the topics that exist, by name, and says how many brokers
// there are. Without names it describes all.
func (k *Kafka) Topics(ctx context.Context, names ...string) (map[string]Topic, int, error) {
	meta, err := k.client.Metadata(ctx, &kafka.MetadataRequest{Topics: names})
	if err != nil {
		return nil, 0, fmt.Errorf("list topics: %w", err)
	}
	out := map[string]Topic{}
	for _, t := range meta.Topics {
		if errors.Is(t.Error, kafka.UnknownTopicOrPartition) {
			continue
		}
		if t.Error != nil && len(t.Partitions) == 0 {
			return nil, 0, fmt.Errorf("describe topic %s: %w", t.Name, t.Error)
		}
		topic := Topic{Name: t.Name}
		for _, p := range t.Partitions {
			topic.Partitions = append(topic.Partitions, p.ID)
			if topic.Replicas == 0 || len(p.Replicas) < topic.Replicas {
				topic.Replicas = len(p.Replicas)
			}
		}
		slices.Sort(topic.Partitions)
		out[t.Name] = topic
	}
	return out, len(meta.Brokers), nil
}

// Extent is what is left of a partition's log: the oldest record still there,
// and the offset that the next one will get.
type Extent struct{ Start, End int64 }

// Extents returns the extents of a topic's partitions. [ErrNoTopic] when there
// is none.
func (k *Kafka) Extents(ctx context.Context, topic string) (map[int]Extent, error) {
	out := map[int]Extent{}
	err := k.eachPartition(ctx, topic, func(id int) error {
		got, err := k.offsets(ctx, topic, kafka.FirstOffsetOf(id), kafka.LastOffsetOf(id))
		out[id] = Extent{Start: got.FirstOffset, End: got.LastOffset}
		return err
	})
	return out, err
}

// At returns the offset of the first record written at a time or later, by
// partition; a partition without one has its end.
func (k *Kafka) At(ctx context.Context, topic string, at time.Time) (map[int]int64, error) {
	out := map[int]int64{}
	err := k.eachPartition(ctx, topic, func(id int) error {
		got, err := k.offsets(ctx, topic, kafka.LastOffsetOf(id))
		if err != nil {
			return err
		}
		found, err := k.offsets(ctx, topic, kafka.TimeOffsetOf(id, at))
		if err != nil {
			return err
		}
		out[id] = got.LastOffset
		for offset := range found.Offsets {
			if offset >= 0 { // -1: none as late
				out[id] = offset
			}
		}
		return nil
	})
	return out, err
}

func (k *Kafka) eachPartition(ctx context.Context, topic string, f func(id int) error) error {
	found, _, err := k.Topics(ctx, topic)
	if err != nil {
		return err
	}
	t, there := found[topic]
	if !there {
		return fmt.Errorf("topic %s: %w", topic, ErrNoTopic)
	}
	for _, id := range t.Partitions { // one after another: the library opens a connection for each that is under way
		if err := f(id); err != nil {
			return fmt.Errorf("offsets of %s/%d: %w", topic, id, err)
		}
	}
	return nil
}

// offsets asks about one partition. A leader that has not heard of it yet, as just
// after the partition was made, is asked again for a while.
func (k *Kafka) offsets(ctx context.Context, topic string, what ...kafka.OffsetRequest) (got kafka.PartitionOffsets, err error) {
	for try := 1; ; try++ {
		resp, err := k.client.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{topic: what}})
		if err != nil {
			return kafka.PartitionOffsets{}, err
		}
		got = resp.Topics[topic][0]
		var refusal kafka.Error
		if !errors.As(got.Error, &refusal) || !refusal.Temporary() || try == leaderTries {
			return got, got.Error
		}
		select {
		case <-ctx.Done():
			return got, got.Error
		case <-time.After(leaderPause):
		}
	}
}

// How often, and after what pauses, a partition may be without a leader that
// knows it.
const (
	leaderTries = 50
	leaderPause = 100 * time.Millisecond
)

// Endless is the end of a stretch that has none.
const Endless = -1

// Stretch is a run of records of one partition.
type Stretch struct {
	Topic     string
	Partition int
	From, To  int64 // the first record, and the one before which it ends; or Endless
}

// Records reads a stretch. A record of it that is not there any more is left
// out; an error is the pair's and ends the records: the log ends
// before the stretch does, or ctx has ended. Brokers that are away are waited for.
func (k *Kafka) Records(ctx context.Context, s Stretch) iter.Seq2[kafka.Message, error] {
	return func(yield func(kafka.Message, error) bool) {
		if some, err := k.within(ctx, s); !some || err != nil {
			if err != nil {
				yield(kafka.Message{}, err)
			}
			return
		}
		r := kafka.NewReader(kafka.ReaderConfig{
			Brokers: k.cfg.Brokers, Dialer: k.cfg.Dialer(), Topic: s.Topic, Partition: s.Partition,
			MinBytes: 1, MaxBytes: 4 << 20, MaxWait: events.FetchWait, QueueCapacity: 1000, ReadLagInterval: -1,
			ReadBackoffMin: 20 * time.Millisecond, ReadBackoffMax: 500 * time.Millisecond, OffsetOutOfRangeError: true,
		})
		defer func() { _ = r.Close() }()
		if err := r.SetOffset(s.From); err != nil {
			yield(kafka.Message{}, err)
			return
		}
		for {
			m, err := r.FetchMessage(ctx)
			var code kafka.Error
			switch {
			case errors.Is(err, kafka.OffsetOutOfRange):
				err = fmt.Errorf("read %s/%d: offset %d is not in the log: %w", s.Topic, s.Partition, s.From, err)
			case err != nil && ctx.Err() == nil && (!errors.As(err, &code) || code.Temporary()):
				continue // the reader tries again by itself
			}
			if err == nil && s.To != Endless && m.Offset >= s.To {
				return
			}
			if !yield(m, err) || err != nil || (s.To != Endless && m.Offset == s.To-1) {
				return
			}
		}
	}
}

// within reports whether anything of a bounded stretch is there; an error says
// that its end is not. Reading would wait for it for ever.
func (k *Kafka) within(ctx context.Context, s Stretch) (some bool, err error) {
	if s.To == Endless || s.From >= s.To {
		return s.To == Endless, nil
	}
	got, err := k.offsets(ctx, s.Topic, kafka.FirstOffsetOf(s.Partition), kafka.LastOffsetOf(s.Partition))
	if err != nil {
		return false, fmt.Errorf("read %s/%d: %w", s.Topic, s.Partition, err)
	}
	if got.LastOffset < s.To {
		return false, fmt.Errorf("read %s/%d: the log ends at %d, before %d: the topic was made anew", s.Topic, s.Partition, got.LastOffset, s.To)
	}
	return got.FirstOffset < s.To, nil
}

// First returns the first record at an offset or behind it, before the log's
// end; ok is false when there is none.
func (k *Kafka) First(ctx context.Context, topic string, partition int, offset int64) (m kafka.Message, ok bool, err error) {
	resp, err := k.client.Fetch(ctx, &kafka.FetchRequest{
		Topic: topic, Partition: partition, Offset: offset, MinBytes: 1, MaxBytes: 64 << 10, MaxWait: 500 * time.Millisecond,
	})
	if err == nil {
		err = resp.Error
	}
	if err != nil {
		return m, false, fmt.Errorf("read %s/%d at %d: %w", topic, partition, offset, err)
	}
	for {
		rec, err := resp.Records.ReadRecord()
		if errors.Is(err, io.EOF) {
			return m, false, nil
		}
		if err != nil {
			return m, false, fmt.Errorf("read %s/%d at %d: %w", topic, partition, offset, err)
		}
		if rec.Offset >= offset { // a batch comes whole
			return kafka.Message{Topic: topic, Partition: partition, Offset: rec.Offset, Time: rec.Time}, true, nil
		}
	}
}
