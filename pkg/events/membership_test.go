package events

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// cable connects until it is cut.
type cable struct {
	mu    sync.Mutex
	cut   bool
	conns []net.Conn
}

func (c *cable) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut {
		return nil, errors.New("the cable is cut")
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err == nil {
		c.conns = append(c.conns, conn)
	}
	return conn, err
}

func (c *cable) cutAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = true
	for _, conn := range c.conns {
		_ = conn.Close()
	}
}

// clients returns the client IDs of the members of the group "deduct", in order.
func clients(t testing.TB, cfg ClientConfig) []string {
	t.Helper()
	group, err := describe(t, cfg)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, m := range group.Members {
		out = append(out, m.ClientID)
	}
	slices.Sort(out)
	return out
}

// A member whose connections break while the broker cannot be reached stays in
// the group, and only its own Run takes it out.
func TestLeaveOld(t *testing.T) {
	cfg := newCluster(t)
	p := newPublisher(t, cfg)
	c := NewConsumer(ConsumerConfig{ClientConfig: cfg, Group: "deduct", Topic: Reservations}, func(context.Context, []Event) ([]Event, error) { return nil, nil }, p)
	c.leaveOld(t.Context(), "ghost-a") // a group that nobody has joined: nothing to do
	haunt(t, c, "ghost-a")
	for _, tt := range []struct {
		name, why string
		want      []string
	}{
		{"ghost", "a member of another Run stays", []string{"ghost-a"}},
		{"ghost-a", "our own goes, although it never answers", nil},
		{"ghost-a", "again changes nothing", nil},
	} {
		c.leaveOld(t.Context(), tt.name)
		if got := clients(t, cfg); !slices.Equal(got, tt.want) {
			t.Errorf("after leaving as %s the group has %v, want %v: %s", tt.name, got, tt.want, tt.why)
		}
	}
}

// haunt makes a member of c's group that will never be heard of again.
func haunt(t testing.TB, c *Consumer, clientID string) {
	t.Helper()
	var line cable
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	group, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID: c.group, Topics: []string{c.topic}, Brokers: c.cfg.Brokers, JoinGroupBackoff: joinPause,
		SessionTimeout: 2 * patience,
		Dialer:         &kafka.Dialer{ClientID: clientID, DialFunc: line.dial},
	})
	if err != nil {
		t.Fatal(err)
	}
	joined := false
	for !joined {
		_, err := group.Next(ctx)
		if ctx.Err() != nil {
			t.Fatalf("%s does not get into the group: %v", clientID, err)
		}
		joined = err == nil
	}
	line.cutAll()
	if err := group.Close(); err != nil {
		t.Fatal(err)
	}
	if got := clients(t, c.cfg.ClientConfig); !slices.Contains(got, clientID) {
		t.Fatalf("the group has %v, want %s in it", got, clientID)
	}
}

// After its coordinator was away a Consumer goes on at once, and not when the
// broker has given up waiting for the member that it was before.
func TestConsumerLeavesNoGhost(t *testing.T) {
	fake, cfg := newFake(t, 1)
	p := newPublisher(t, cfg)
	publish(t, p, created("phone", 0, 10)...)
	var j journal
	c := consume(t, ConsumerConfig{ClientConfig: cfg, SessionTimeout: 4 * patience}, p, func(_ context.Context, batch []Event) ([]Event, error) {
		j.add(batch)
		return nil, nil
	})
	eventually(t, "the first are committed", caughtUp(t, cfg))
	away := fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.FindCoordinator}, Err: kerr.CoordinatorNotAvailable, Count: -1})
	fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Heartbeat}, Err: kerr.NotCoordinator, Count: 1})
	eventually(t, "joining has failed", func() bool {
		return metric(t, c.cfg.Registerer, "seckill_kafka_retries_total", "join") > 0
	})
	away.Remove()
	publish(t, p, created("phone", 10, 20)...)
	eventually(t, "all is committed", caughtUp(t, cfg))
	if distinct, total := j.counts(); distinct != 20 || total != 20 {
		t.Errorf("%d events handled %d times, want 20, once each", distinct, total)
	}
	if got := clients(t, cfg); len(got) != 1 {
		t.Errorf("the group has %v, want one member", got)
	}
}
