package events

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/segmentio/kafka-go"
)

// Progress is how far something that is no member of a group has come with a
// topic. It is kept in Kafka as the committed offsets of a group of its own, so
// that every lag tool shows what is left.
type Progress struct {
	Group   string        // without the prefix
	Note    string        // kept with the offsets, at most 4000 bytes
	Offsets map[int]int64 // by partition the next offset to look at; absent = from the start
}

// LoadProgress reads a progress; one that nobody has saved is empty.
func LoadProgress(ctx context.Context, cfg ClientConfig, group string, topic Topic) (Progress, error) {
	cfg = cfg.withDefaults()
	p := Progress{Group: group, Offsets: map[int]int64{}}
	err := cfg.withClient(func(client *kafka.Client) error {
		found, err := partitions(ctx, client, cfg.TopicName(topic))
		if err != nil {
			return err
		}
		var ids []int
		for _, part := range found {
			ids = append(ids, part.ID)
		}
		resp, err := client.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: cfg.GroupName(group), Topics: map[string][]int{cfg.TopicName(topic): ids}})
		if err == nil {
			err = resp.Error
		}
		if errors.Is(err, kafka.GroupIdNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, part := range resp.Topics[cfg.TopicName(topic)] {
			if part.Error != nil {
				return part.Error
			}
			if part.CommittedOffset >= 0 {
				p.Offsets[part.Partition], p.Note = part.CommittedOffset, part.Metadata
			}
		}
		return nil
	})
	if err != nil {
		return Progress{}, fmt.Errorf("read the progress %s: %w", cfg.GroupName(group), err)
	}
	return p, nil
}

// SaveProgress keeps the offsets of p for the partitions that it has, with the
// note. A group that has members refuses it.
func SaveProgress(ctx context.Context, cfg ClientConfig, topic Topic, p Progress) error {
	cfg = cfg.withDefaults()
	var offsets []kafka.OffsetCommit
	for part, offset := range p.Offsets {
		offsets = append(offsets, kafka.OffsetCommit{Partition: part, Offset: offset, Metadata: p.Note})
	}
	err := cfg.withClient(func(client *kafka.Client) error {
		resp, err := client.OffsetCommit(ctx, &kafka.OffsetCommitRequest{
			GroupID: cfg.GroupName(p.Group), GenerationID: -1, Topics: map[string][]kafka.OffsetCommit{cfg.TopicName(topic): offsets},
		})
		if err != nil {
			return err
		}
		for _, part := range resp.Topics[cfg.TopicName(topic)] {
			if part.Error != nil {
				return part.Error
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("save the progress %s: %w", cfg.GroupName(p.Group), err)
	}
	return nil
}

// ProgressGroups lists the groups whose name, without the prefix, begins with
// start, in order.
func ProgressGroups(ctx context.Context, cfg ClientConfig, start string) ([]string, error) {
	cfg = cfg.withDefaults()
	var out []string
	err := cfg.withClient(func(client *kafka.Client) error {
		resp, err := client.ListGroups(ctx, &kafka.ListGroupsRequest{})
		if err == nil {
			err = resp.Error
		}
		if err != nil {
			return err
		}
		for _, g := range resp.Groups {
			if name, ours := strings.CutPrefix(g.GroupID, cfg.Prefix+"."); ours && strings.HasPrefix(name, start) {
				out = append(out, name)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the groups %s*: %w", cfg.GroupName(start), err)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}
