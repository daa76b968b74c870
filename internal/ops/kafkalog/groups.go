package kafkalog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/segmentio/kafka-go"
)

// Offsets are positions by topic and partition.
type Offsets map[string]map[int]int64

// Set puts a position in.
func (o Offsets) Set(topic string, partition int, offset int64) {
	if o[topic] == nil {
		o[topic] = map[int]int64{}
	}
	o[topic][partition] = offset
}

// Get returns a position, or -1.
func (o Offsets) Get(topic string, partition int) int64 {
	if offset, ok := o[topic][partition]; ok {
		return offset
	}
	return -1
}

// Member is one consumer of a group.
type Member struct {
	Client string           // what it calls itself
	Host   string           // where it connects from
	Owns   map[string][]int // partitions, by topic
}

// Name is the member in one word.
func (m Member) Name() string { return m.Client + "@" + strings.TrimPrefix(m.Host, "/") }

// Group is a consumer group as its coordinator sees it.
type Group struct {
	State   string // Stable, Empty, Dead (there is none), PreparingRebalance, CompletingRebalance
	Members []Member
}

// Owner names the member that has a partition; empty when nobody has.
func (g Group) Owner(topic string, partition int) string {
	for _, m := range g.Members {
		if slices.Contains(m.Owns[topic], partition) {
			return m.Name()
		}
	}
	return ""
}

// GroupNames lists the groups whose names begin with prefix.
func (k *Kafka) GroupNames(ctx context.Context, prefix string) ([]string, error) {
	resp, err := k.client.ListGroups(ctx, &kafka.ListGroupsRequest{})
	if err == nil {
		err = resp.Error
	}
	if err != nil {
		return nil, fmt.Errorf("list groups: %w", err)
	}
	var out []string
	for _, g := range resp.Groups {
		if strings.HasPrefix(g.GroupID, prefix) {
			out = append(out, g.GroupID)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// Group describes a group. One that does not exist is Dead and has no members.
func (k *Kafka) Group(ctx context.Context, name string) (Group, error) {
	resp, err := k.client.DescribeGroups(ctx, &kafka.DescribeGroupsRequest{GroupIDs: []string{name}})
	if err == nil {
		err = resp.Groups[0].Error
	}
	if errors.Is(err, kafka.GroupIdNotFound) {
		return Group{State: "Dead"}, nil
	}
	if err != nil {
		return Group{}, fmt.Errorf("describe group %s: %w", name, err)
	}
	out := Group{State: resp.Groups[0].GroupState}
	for _, m := range resp.Groups[0].Members {
		member := Member{Client: m.ClientID, Host: m.ClientHost, Owns: map[string][]int{}}
		for _, t := range m.MemberAssignments.Topics {
			member.Owns[t.Topic] = t.Partitions
		}
		out.Members = append(out.Members, member)
	}
	slices.SortFunc(out.Members, func(a, b Member) int { return cmp.Compare(a.Name(), b.Name()) })
	return out, nil
}

// Committed returns all that a group has committed; nothing for a group that
// does not exist.
func (k *Kafka) Committed(ctx context.Context, group string) (Offsets, error) {
	resp, err := k.client.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: group})
	if err == nil {
		err = resp.Error
	}
	if errors.Is(err, kafka.GroupIdNotFound) {
		return Offsets{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("offsets of group %s: %w", group, err)
	}
	out := Offsets{}
	for topic, parts := range resp.Topics {
		for _, p := range parts {
			if p.Error != nil {
				return nil, fmt.Errorf("offsets of group %s in %s/%d: %w", group, topic, p.Partition, p.Error)
			}
			if p.CommittedOffset >= 0 {
				out.Set(topic, p.Partition, p.CommittedOffset)
			}
		}
	}
	return out, nil
}

// ErrActive says that a group has members, so that only they may commit.
var ErrActive = errors.New("the group has members")

// Commit sets a group's positions; -1 takes a position away. The group must
// have no members: [ErrActive] means that the broker found one, and that some
// of the positions may have been set.
func (k *Kafka) Commit(ctx context.Context, group string, at Offsets) error {
	req := &kafka.OffsetCommitRequest{GroupID: group, GenerationID: -1, Topics: map[string][]kafka.OffsetCommit{}}
	gone := map[string][]int{}
	for topic, parts := range at {
		for p, offset := range parts {
			if offset < 0 {
				gone[topic] = append(gone[topic], p)
			} else {
				req.Topics[topic] = append(req.Topics[topic], kafka.OffsetCommit{Partition: p, Offset: offset})
			}
		}
	}
	if len(req.Topics) > 0 {
		resp, err := k.client.OffsetCommit(ctx, req)
		if err != nil {
			return fmt.Errorf("commit offsets of group %s: %w", group, err)
		}
		for topic, parts := range resp.Topics {
			for _, p := range parts {
				if err := refusal(p.Error); err != nil {
					return fmt.Errorf("commit offset of group %s in %s/%d: %w", group, topic, p.Partition, err)
				}
			}
		}
	}
	return k.forget(ctx, group, gone)
}

// forget takes positions away.
func (k *Kafka) forget(ctx context.Context, group string, topics map[string][]int) error {
	if len(topics) == 0 {
		return nil
	}
	resp, err := k.client.OffsetDelete(ctx, &kafka.OffsetDeleteRequest{GroupID: group, Topics: topics})
	if err != nil {
		return fmt.Errorf("forget offsets of group %s: %w", group, err)
	}
	if errors.Is(resp.Error, kafka.GroupIdNotFound) {
		return nil // and so it has no offset
	}
	if err := refusal(resp.Error); err != nil {
		return fmt.Errorf("forget offsets of group %s: %w", group, err)
	}
	for topic, parts := range resp.Topics {
		for _, p := range parts {
			if err := refusal(p.Error); err != nil {
				return fmt.Errorf("forget offset of group %s in %s/%d: %w", group, topic, p.Partition, err)
			}
		}
	}
	return nil
}

// refusal tells a broker's "not while it has members" apart.
func refusal(err error) error {
	if errors.Is(err, kafka.UnknownMemberId) || errors.Is(err, kafka.NonEmptyGroup) || errors.Is(err, kafka.GroupSubscribedToTopic) ||
		errors.Is(err, kafka.IllegalGeneration) || errors.Is(err, kafka.RebalanceInProgress) {
		return fmt.Errorf("%w: %w", ErrActive, err)
	}
	return err
}

// DeleteGroup removes a group without members, with its offsets. One that does
// not exist is no error.
func (k *Kafka) DeleteGroup(ctx context.Context, name string) error {
	resp, err := k.client.DeleteGroups(ctx, &kafka.DeleteGroupsRequest{GroupIDs: []string{name}})
	if err == nil {
		err = refusal(resp.Errors[name])
	}
	if err != nil && !errors.Is(err, kafka.GroupIdNotFound) {
		return fmt.Errorf("delete group %s: %w", name, err)
	}
	return nil
}
