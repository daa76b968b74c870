package events

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
)

// A ghost is a member that the broker waits for and that nobody is any more.
// kafka-go (0.4.51) makes one whenever joining fails: ConsumerGroup.run forgets
// its member ID and joins as somebody new, and it can leave with the old ID
// neither while the coordinator is away nor when the answer that would have told
// the ID was lost. A rebalance waits for the ghost until its session has run out,
// SessionTimeout after the broker's return or after the last rebalance, and as
// long the partitions are with nobody. So a Consumer that failed to join takes
// its ghosts out of the group, and only then joins again. It knows them by the
// client ID, which no other Run has.

// joinRetryMax is the longest pause between two looks for the topic and the
// coordinator: all partitions wait for them.
const joinRetryMax = time.Second

// never is how long a group waits before it joins again by itself after a
// failure: it is closed before.
const never = 24 * time.Hour

// ownName returns a client ID for the group's connections of one Run.
func ownName(clientID string) string { return clientID + "-" + strings.ToLower(rand.Text()[:8]) }

// leaveOld takes the members with this client ID out of the group. It retries
// until that is done or ctx ends, but not for longer than SessionTimeout: by
// then the broker has given them up by itself. No ConsumerGroup may be joining
// meanwhile.
func (c *Consumer) leaveOld(ctx context.Context, clientID string) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.SessionTimeout)
	defer cancel()
	_ = c.retry(ctx, "leave", 0, func() error { // its failure is counted and logged
		return c.cfg.withClient(func(client *kafka.Client) error {
			ghosts, err := c.membersOf(ctx, client, clientID)
			if err != nil || len(ghosts) == 0 {
				return err
			}
			// A member's own error says only that the broker has forgotten it, too.
			left, err := client.LeaveGroup(ctx, &kafka.LeaveGroupRequest{GroupID: c.group, Members: ghosts})
			if err == nil {
				err = left.Error
			}
			if err != nil {
				return fmt.Errorf("leave group %s: %w", c.group, err)
			}
			c.outages.log.Debug("left for members that failed to join", "members", len(ghosts))
			return nil
		})
	})
}

// membersOf returns the group's members with a client ID.
func (c *Consumer) membersOf(ctx context.Context, client *kafka.Client, clientID string) ([]kafka.LeaveGroupRequestMember, error) {
	resp, err := client.DescribeGroups(ctx, &kafka.DescribeGroupsRequest{GroupIDs: []string{c.group}})
	if err == nil {
		err = resp.Groups[0].Error
	}
	switch {
	case errors.Is(err, kafka.GroupIdNotFound):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("describe group %s: %w", c.group, err)
	}
	var out []kafka.LeaveGroupRequestMember
	for _, m := range resp.Groups[0].Members {
		if m.ClientID == clientID {
			out = append(out, kafka.LeaveGroupRequestMember{ID: m.MemberID})
		}
	}
	return out, nil
}
