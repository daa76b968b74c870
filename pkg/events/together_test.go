package events

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// both makes n events in each of the two partitions.
func both(n int) []Event {
	return append(created("phone", 0, n), created("watch", n, 2*n)...)
}

// While one call is under way the other partition's batch waits, and what has
// come meanwhile from both makes the next call.
func TestConsumerTogether(t *testing.T) {
	cfg := newCluster(t)
	p := newPublisher(t, cfg)
	publish(t, p, both(50)...)
	var j journal
	var under, most, mixed atomic.Int64
	c := consume(t, ConsumerConfig{ClientConfig: cfg, Together: true, MaxBatch: 20}, p, func(_ context.Context, batch []Event) ([]Event, error) {
		most.Store(max(most.Load(), under.Add(1)))
		defer under.Add(-1)
		time.Sleep(20 * time.Millisecond)
		if len(batch) > 20 {
			t.Errorf("%d events in a call, want at most MaxBatch", len(batch))
		}
		if slices.ContainsFunc(batch, func(e Event) bool { return e.ProductID != batch[0].ProductID }) {
			mixed.Add(1)
		}
		j.add(batch)
		return follow(batch), nil
	})
	eventually(t, "all is committed", caughtUp(t, cfg))
	for n := 100; mixed.Load() == 0 && n < 1000; n += 10 { // full batches leave no room for another's
		publish(t, p, append(created("phone", n, n+5), created("watch", n+5, n+10)...)...)
		eventually(t, "all is committed", caughtUp(t, cfg))
	}
	if most.Load() != 1 || mixed.Load() == 0 {
		t.Errorf("%d calls at once, %d with events of both partitions: want 1 and some", most.Load(), mixed.Load())
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
	cfg := newCluster(t)
	p := newPublisher(t, cfg)
	poison := rid(7)
	publish(t, p, both(50)...)
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
	cfg := newCluster(t)
	p := newPublisher(t, cfg)
	publish(t, p, both(20)...)
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
	cfg := newCluster(t)
	p := newPublisher(t, cfg)
	publish(t, p, both(10)...)
	begun, finish := make(chan struct{}, 10), make(chan struct{})
	c := consume(t, ConsumerConfig{ClientConfig: cfg, Together: true, MaxWait: time.Second, MaxBatch: 10}, p, func(ctx context.Context, batch []Event) ([]Event, error) {
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
