package events

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/leadingpeers/seckill/internal/testservers"
)

// newWideCluster is newCluster with six partitions: more than calls at once.
func newWideCluster(t testing.TB) ClientConfig {
	t.Helper()
	cfg := ClientConfig{Brokers: testservers.Kafka(t), Prefix: testservers.Prefix(t)}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := Apply(ctx, cfg, Overrides{Partitions: 6, Replication: 1}); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// wide makes reservations from..to-1 of twenty products, which are in every one
// of six partitions.
func wide(from, to int) []Event {
	var out []Event
	for n := from; n < to; n++ {
		out = append(out, created(fmt.Sprintf("product-%d", n%20), n, n+1)...)
	}
	return out
}

// sixth is the partition of an event of wide.
func sixth(e Event) int {
	return kafka.Murmur2Balancer{Consistent: true}.Balance(kafka.Message{Key: []byte(e.ProductID)}, 0, 1, 2, 3, 4, 5)
}

// While calls are under way what comes from any partition waits, and makes the
// next call, in its partition's order.
func TestConsumerTogether(t *testing.T) {
	cfg := newWideCluster(t)
	p := newPublisher(t, cfg)
	publish(t, p, wide(0, 100)...)
	var j journal
	var under, most, mixed atomic.Int64
	c := consume(t, ConsumerConfig{ClientConfig: cfg, Together: true, MaxBatch: 60}, p, func(_ context.Context, batch []Event) ([]Event, error) {
		most.Store(max(most.Load(), under.Add(1)))
		defer under.Add(-1)
		time.Sleep(20 * time.Millisecond)
		last := map[int]int{}
		for _, e := range batch {
			n, _ := strconv.Atoi(strings.TrimPrefix(e.UserID, "u"))
			if before, ok := last[sixth(e)]; ok && n <= before {
				t.Errorf("event %d after %d of the same partition", n, before)
			}
			last[sixth(e)] = n
		}
		if len(last) > 1 {
			mixed.Add(1)
		}
		if len(batch) > 60 {
			t.Errorf("%d events in a call, want at most MaxBatch", len(batch))
		}
		j.add(batch)
		return follow(batch), nil
	})
	eventually(t, "all is committed", caughtUp(t, cfg))
	for n := 100; mixed.Load() == 0 && n < 1000; n += 50 { // partitions that begin one by one have nothing to share
		publish(t, p, wide(n, n+50)...)
		eventually(t, "all is committed", caughtUp(t, cfg))
	}
	if most.Load() > callsAtOnce || mixed.Load() == 0 {
		t.Errorf("%d calls at once, %d with events of several partitions: want at most %d, and some", most.Load(), mixed.Load(), callsAtOnce)
	}
	distinct, total := j.counts()
	if told := len(records(t, cfg, Deductions)); distinct != total || told != total {
		t.Errorf("%d events handled %d times and %d told, want each once", distinct, total, told)
	}
	if n := metric(t, c.cfg.Registerer, "seckill_kafka_consumer_messages_total", "ok"); n != float64(total) {
		t.Errorf("%v counted as handled, want %d", n, total)
	}
}

// A record that no retry can cure is found in its own partition's batch, and
// nobody else's is harmed. What the call had decided is told once.
func TestConsumerTogetherBuriesThePoison(t *testing.T) {
	cfg := newWideCluster(t)
	p := newPublisher(t, cfg)
	poison := rid(7)
	publish(t, p, wide(0, 100)...)
	var mu sync.Mutex
	var done journal
	consume(t, ConsumerConfig{ClientConfig: cfg, Together: true, MaxWait: 200 * time.Millisecond}, p, func(_ context.Context, batch []Event) ([]Event, error) {
		mu.Lock()
		defer mu.Unlock()
		good := slices.DeleteFunc(slices.Clone(batch), func(e Event) bool { return e.ReservationID == poison })
		if len(good) < len(batch) {
			return follow(good), Permanent(errors.New("product unknown"))
		}
		done.add(batch)
		return follow(batch), nil
	})
	eventually(t, "all is committed", caughtUp(t, cfg))
	if distinct, _ := done.counts(); distinct != 99 {
		t.Errorf("%d handled, want all but the poison", distinct)
	}
	dead := records(t, cfg, DeadLetterTopic("deduct"))
	if len(dead) != 1 || headers(dead[0])[headerSubject] != poison {
		t.Errorf("%d dead letters, want the poison", len(dead))
	}
	if n := len(records(t, cfg, Deductions)); n != 99 {
		t.Errorf("%d deductions told, want 99, each once", n)
	}
}

// An outage blocks each partition by itself, makes no dead letter, and ends.
func TestConsumerTogetherRidesOutAnOutage(t *testing.T) {
	cfg := newWideCluster(t)
	p := newPublisher(t, cfg)
	publish(t, p, wide(0, 40)...)
	var away atomic.Bool
	away.Store(true)
	c := consume(t, ConsumerConfig{ClientConfig: cfg, Together: true}, p, func(_ context.Context, batch []Event) ([]Event, error) {
		if away.Load() { // half is decided, half must wait
			return follow(batch[:len(batch)/2]), errors.New("mysql is away")
		}
		return follow(batch), nil
	})
	eventually(t, "five attempts", func() bool { return metric(t, c.cfg.Registerer, "seckill_kafka_retries_total", "handle") >= 5 })
	if n, _ := lag(t, cfg); n != 40 {
		t.Errorf("lag %d during the outage, want 40: nothing may be committed", n)
	}
	away.Store(false)
	eventually(t, "all is committed", caughtUp(t, cfg))
	if n := len(records(t, cfg, Deductions)); n != 40 {
		t.Errorf("%d deductions in the end, want 40, each once", n)
	}
	if n := len(records(t, cfg, DeadLetterTopic("deduct"))); n != 0 {
		t.Errorf("%d dead letters of an outage, want none", n)
	}
}

// A batch on the table when the consumer stops is finished and committed.
func TestConsumerTogetherDrains(t *testing.T) {
	cfg := newWideCluster(t)
	p := newPublisher(t, cfg)
	publish(t, p, wide(0, 20)...)
	begun, finish := make(chan struct{}, 10), make(chan struct{})
	c := consume(t, ConsumerConfig{ClientConfig: cfg, Together: true, MaxWait: 500 * time.Millisecond, MaxBatch: 10}, p, func(ctx context.Context, batch []Event) ([]Event, error) {
		begun <- struct{}{}
		<-finish
		return follow(batch), ctx.Err()
	})
	<-begun
	c.stop()
	close(finish)
	c.wait(t)
	left, _ := lag(t, cfg)
	if told := int64(len(records(t, cfg, Deductions))); told+left != 20 || told == 0 {
		t.Errorf("%d told and %d left, want 20 in all, and none told that is left", told, left)
	}
}
