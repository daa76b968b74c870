package events

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
)

// Query says which events [Search] looks for.
type Query struct {
	Topics        []Topic
	ReservationID string    // what they are about
	ProductID     string    // of the reservation, if it is known: without it every partition of a topic keyed by product is read
	Since         time.Time // records that were written before are passed over
	MaxRecords    int       // read of one partition, the oldest first; default 100,000
}

// Record is an event and where it stands. An event that was published twice is
// two records.
type Record struct {
	Event     Event
	TopicName string // in full, with the prefix
	Partition int
	Offset    int64
	WrittenAt time.Time // by the clock of the process that published it
}

// searchesInParallel bounds how many partitions are read at once: each costs a
// connection.
const searchesInParallel = 8

// Search reads the events of one reservation out of the topics, as far as they
// reach at this moment, ordered by the time of their writing. complete is false
// when a partition had more than MaxRecords to read, or ctx ended before all
// were read: then records are missing. What is no event is passed over.
//
// It returns an error when a topic does not exist or no broker answers. Groups
// and their offsets are left alone.
func Search(ctx context.Context, cfg ClientConfig, q Query) (found []Record, complete bool, err error) {
	cfg = cfg.withDefaults()
	if q.MaxRecords <= 0 {
		q.MaxRecords = 100_000
	}
	var spans []span
	err = cfg.withClient(func(client *kafka.Client) error {
		for _, t := range q.Topics {
			more, err := q.spans(ctx, client, cfg, t)
			if err != nil {
				return err
			}
			spans = append(spans, more...)
		}
		return nil
	})
	if err != nil {
		return nil, false, fmt.Errorf("search for %s: %w", q.ReservationID, err)
	}
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		errs  []error
		slots = make(chan struct{}, searchesInParallel)
	)
	complete = true
	for _, s := range spans {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			records, all, err := s.read(ctx, cfg, q)
			mu.Lock()
			defer mu.Unlock()
			found, complete, errs = append(found, records...), complete && all, append(errs, err)
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, false, fmt.Errorf("search for %s: %w", q.ReservationID, err)
	}
	slices.SortStableFunc(found, func(a, b Record) int {
		return cmp.Or(a.WrittenAt.Compare(b.WrittenAt), a.Event.Time.Compare(b.Event.Time), cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Offset, b.Offset))
	})
	return found, complete, nil
}

// span is a part of one topic's log.
type span struct {
	topic Topic
	Span
}

// spans are the parts of a topic that may hold what q looks for.
func (q Query) spans(ctx context.Context, client *kafka.Client, cfg ClientConfig, t Topic) ([]span, error) {
	name := cfg.TopicName(t)
	ids, err := partitionIDs(ctx, client, name)
	if err != nil {
		return nil, err
	}
	if key := q.key(t); key != "" {
		ids = []int{partitionOf(key, ids)}
	}
	logs, err := logBounds(ctx, client, name, ids...)
	if err != nil {
		return nil, err
	}
	var out []span
	for _, id := range ids {
		one := span{t, Span{Partition: id, From: logs[id].start, To: logs[id].end}}
		if !q.Since.IsZero() && one.From < one.To {
			if one.From, err = offsetAt(ctx, client, name, one.Span, q.Since); err != nil {
				return nil, err
			}
		}
		if one.From < one.To {
			out = append(out, one)
		}
	}
	return out, nil
}

// key is that of the records of q on a topic; empty when it is not known.
func (q Query) key(t Topic) string {
	if t == Reservations || t == Rollbacks {
		return q.ProductID
	}
	return q.ReservationID
}

// read returns the records of the span that q looks for, and whether it was
// read to its end.
func (s span) read(ctx context.Context, cfg ClientConfig, q Query) (found []Record, all bool, err error) {
	r := kafka.NewReader(kafka.ReaderConfig{
		Brokers: cfg.Brokers, Dialer: cfg.Dialer(), Topic: cfg.TopicName(s.topic), Partition: s.Partition,
		MinBytes: 1, MaxBytes: 4 << 20, MaxWait: FetchWait, ReadLagInterval: -1, MaxAttempts: 3,
		OffsetOutOfRangeError: true, // retention has overtaken the search: better an error than to wait for ever
	})
	defer func() { _ = r.Close() }()
	if err := r.SetOffset(s.From); err != nil {
		return nil, false, err
	}
	for n, next := 0, s.From; next < s.To; n++ {
		if n == q.MaxRecords {
			return found, false, nil
		}
		m, err := r.FetchMessage(ctx)
		if ctx.Err() != nil {
			return found, false, nil
		}
		if err != nil {
			return nil, false, fmt.Errorf("read %s/%d at %d: %w", s.topic, s.Partition, next, err)
		}
		next = m.Offset + 1
		if m.Offset >= s.To {
			break
		}
		if e, err := fromMessage(m, s.topic); err == nil && e.ReservationID == q.ReservationID {
			found = append(found, Record{Event: e, TopicName: cfg.TopicName(s.topic), Partition: s.Partition, Offset: m.Offset, WrittenAt: m.Time.UTC()})
		}
	}
	return found, true, nil
}
