package stage

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/leadingpeers/seckill/pkg/events"
)

// groups are the consumers of our workers, with what they read.
func groups() map[string]events.Topic {
	return map[string]events.Topic{
		"deduct": events.Reservations, "rollback": events.Rollbacks, "settle": events.Deductions, "payment": events.Payments, "channel": events.Channels,
	}
}

func (s *Stage) kafka() *kafka.Client {
	return &kafka.Client{Addr: kafka.TCP(strings.Split(s.Kafka(), ",")...), Timeout: 10 * time.Second}
}

// persist repeats f until it succeeds, half a minute at most: groups empty
// slowly, and brokers come back slowly.
func persist(ctx context.Context, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// SetOffsets makes the workers' groups, which must have no members, begin at an
// offset in every partition.
func (s *Stage) SetOffsets(ctx context.Context, offset int64) error {
	client := s.kafka()
	for group, topic := range groups() {
		name := Prefix + "." + string(topic)
		err := persist(ctx, func() error {
			var offsets []kafka.OffsetCommit
			for partition := range s.partitions(topic) {
				offsets = append(offsets, kafka.OffsetCommit{Partition: partition, Offset: offset})
			}
			resp, err := client.OffsetCommit(ctx, &kafka.OffsetCommitRequest{
				GroupID: Prefix + "." + group, GenerationID: -1, Topics: map[string][]kafka.OffsetCommit{name: offsets},
			})
			if err != nil {
				return err
			}
			for _, p := range resp.Topics[name] {
				err = errors.Join(err, p.Error)
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("set the offsets of %s: %w", group, err)
		}
	}
	return nil
}

func (s *Stage) partitions(topic events.Topic) int {
	for _, spec := range events.Topics() {
		if spec.Name == topic {
			return spec.Partitions
		}
	}
	return 0
}

// DeleteGroups makes Kafka forget how far the workers' groups, which must have
// no members, have come.
func (s *Stage) DeleteGroups(ctx context.Context) error {
	client := s.kafka()
	for group := range groups() {
		id := Prefix + "." + group
		err := persist(ctx, func() error {
			resp, err := client.DeleteGroups(ctx, &kafka.DeleteGroupsRequest{GroupIDs: []string{id}})
			if err != nil {
				return err
			}
			if err := resp.Errors[id]; !errors.Is(err, kafka.GroupIdNotFound) {
				return err
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("delete the group %s: %w", group, err)
		}
	}
	return nil
}

// MoveLeaders gives every partition of our topics another leader.
func (s *Stage) MoveLeaders(ctx context.Context) error {
	client := s.kafka()
	meta, err := client.Metadata(ctx, &kafka.MetadataRequest{})
	if err != nil {
		return fmt.Errorf("move leaders: %w", err)
	}
	for _, topic := range meta.Topics {
		if !strings.HasPrefix(topic.Name, Prefix+".") {
			continue
		}
		req := &kafka.AlterPartitionReassignmentsRequest{Topic: topic.Name, Timeout: 10 * time.Second}
		var ids []int
		for _, p := range topic.Partitions {
			var brokers []int
			for _, b := range p.Replicas {
				brokers = append(brokers, b.ID)
			}
			brokers = append(brokers[1:], brokers[0])
			req.Assignments = append(req.Assignments, kafka.AlterPartitionReassignmentsRequestAssignment{PartitionID: p.ID, BrokerIDs: brokers})
			ids = append(ids, p.ID)
		}
		if _, err := client.AlterPartitionReassignments(ctx, req); err != nil {
			return fmt.Errorf("reassign %s: %w", topic.Name, err)
		}
		if _, err := client.ElectLeaders(ctx, &kafka.ElectLeadersRequest{Topic: topic.Name, Partitions: ids, Timeout: 10 * time.Second}); err != nil {
			return fmt.Errorf("elect leaders of %s: %w", topic.Name, err)
		}
	}
	return nil
}

// DeadLetters counts the records on the dead-letter topics, by group.
func (s *Stage) DeadLetters(ctx context.Context) (map[string]int64, error) {
	client := s.kafka()
	out := map[string]int64{}
	for _, spec := range events.Topics() {
		group, ok := strings.CutSuffix(string(spec.Name), ".dlq")
		if !ok {
			continue
		}
		name := Prefix + "." + string(spec.Name)
		var asked []kafka.OffsetRequest
		for p := range spec.Partitions {
			asked = append(asked, kafka.LastOffsetOf(p))
		}
		err := persist(ctx, func() error { // a broker that has just started does not know all partitions
			resp, err := client.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{name: asked}})
			if err != nil {
				return err
			}
			out[group] = 0
			for _, p := range resp.Topics[name] {
				err = errors.Join(err, p.Error)
				out[group] += p.LastOffset
			}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("count dead letters: %w", err)
		}
	}
	return out, nil
}
