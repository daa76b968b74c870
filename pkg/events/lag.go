package events

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/segmentio/kafka-go"
)

// PartitionLag says how far a group has come in one partition. All are record
// offsets or counts of records.
type PartitionLag struct {
	Partition int
	Start     int64 // the oldest record still there
	Committed int64 // the next record the group wants; -1 when it never committed
	End       int64 // the offset of the record to come
	Lag       int64 // records not yet handled
}

// Lag returns the lag of a group (without prefix) on a topic, by partition. A
// group that never committed lags by everything that is there. It returns an
// error when the topic does not exist or a broker does not answer; on a fresh
// broker the first call may find no coordinator yet.
func Lag(ctx context.Context, cfg ClientConfig, group string, topic Topic) ([]PartitionLag, error) {
	cfg = cfg.withDefaults()
	name, id := cfg.TopicName(topic), cfg.GroupName(group)
	var out []PartitionLag
	err := cfg.withClient(func(client *kafka.Client) error {
		ids, err := partitionIDs(ctx, client, name)
		if err != nil {
			return err
		}
		logs, err := logBounds(ctx, client, name, ids...)
		if err != nil {
			return err
		}
		committed, err := committedOffsets(ctx, client, id, map[string][]int{name: ids})
		if err != nil {
			return err
		}
		for _, p := range ids {
			l := PartitionLag{Partition: p, Start: logs[p].start, Committed: committed[p], End: logs[p].end}
			l.Lag = max(0, l.End-max(l.Committed, l.Start))
			out = append(out, l)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("lag of %s on %s: %w", id, name, err)
	}
	return out, nil
}

// LagOf returns the partition, among those of a topic, that has the events of a
// key ([Event.Key]). parts must be all of them and not empty, as [Lag] returns
// them.
func LagOf(parts []PartitionLag, key string) PartitionLag {
	ids := make([]int, len(parts))
	for i, p := range parts {
		ids[i] = p.Partition
	}
	id := partitionOf(key, ids)
	return parts[slices.IndexFunc(parts, func(p PartitionLag) bool { return p.Partition == id })]
}

// committedOffsets returns what a group has committed, -1 where nothing.
func committedOffsets(ctx context.Context, client *kafka.Client, group string, ask map[string][]int) (map[int]int64, error) {
	resp, err := client.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: group, Topics: ask})
	if err == nil {
		err = resp.Error
	}
	unheard := errors.Is(err, kafka.GroupIdNotFound) // so some brokers say that a group has never committed
	if err != nil && !unheard {
		return nil, err
	}
	out := map[int]int64{}
	for _, parts := range ask {
		for _, p := range parts {
			out[p] = -1
		}
	}
	if unheard {
		return out, nil
	}
	for _, parts := range resp.Topics {
		for _, p := range parts {
			if p.Error != nil {
				return nil, p.Error
			}
			out[p.Partition] = p.CommittedOffset
		}
	}
	return out, nil
}
