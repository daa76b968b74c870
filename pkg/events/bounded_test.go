package events

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go"
)

// bounds of the partitions of reservations.
func until(t testing.TB, cfg ClientConfig) map[int]int64 {
	t.Helper()
	parts, err := Lag(t.Context(), cfg, "deduct", Reservations)
	if err != nil {
		t.Fatal(err)
	}
	out := map[int]int64{}
	for _, p := range parts {
		out[p.Partition] = p.End
	}
	return out
}

// A bounded consumption ends by itself, at the bound and not behind it.
func TestConsumerUntil(t *testing.T) {
	cfg := newCluster(t)
	p := newPublisher(t, cfg)
	publish(t, p, created("phone", 0, 700)...)
	publish(t, p, created("earbuds", 700, 800)...)
	eventually(t, "the broker has a coordinator", func() bool { _, err := Lag(t.Context(), cfg, "deduct", Reservations); return err == nil })
	bound := until(t, cfg)
	publish(t, p, created("phone", 800, 900)...)
	publish(t, p, created("earbuds", 900, 1000)...)
	poison := rid(123)
	var j journal
	var mu sync.Mutex
	var refused []string
	c := consume(t, ConsumerConfig{ClientConfig: cfg, Until: bound, Refused: func(m kafka.Message, err error) {
		mu.Lock()
		defer mu.Unlock()
		refused = append(refused, headers(m)[headerSubject]+": "+err.Error())
	}}, p, func(_ context.Context, batch []Event) ([]Event, error) {
		if slices.ContainsFunc(batch, func(e Event) bool { return e.ReservationID == poison }) {
			return nil, Permanent(errors.New("product unknown"))
		}
		j.add(batch)
		return nil, nil
	})
	select {
	case err := <-c.done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(patience):
		t.Fatal("Run does not return when all its bounds are reached")
	}
	if distinct, total := j.counts(); distinct != 799 || total != 799 {
		t.Errorf("%d reservations handled, %d times in all, want the 799 before the bound, once each", distinct, total)
	}
	if !slices.Equal(refused, []string{poison + ": product unknown"}) || len(records(t, cfg, DeadLetterTopic("deduct"))) != 0 {
		t.Errorf("refused %v, want the poison there and not among the dead letters", refused)
	}
	parts, err := Lag(t.Context(), cfg, "deduct", Reservations)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range parts {
		if part.Committed != bound[part.Partition] {
			t.Errorf("partition %d committed at %d, want the bound %d", part.Partition, part.Committed, bound[part.Partition])
		}
	}
}

// Nothing is read of a partition without a bound, and nothing twice of one
// whose bound is committed.
func TestConsumerUntilPartly(t *testing.T) {
	cfg := newCluster(t)
	p := newPublisher(t, cfg)
	pair := byPartition(t)
	publish(t, p, pair[0], pair[1])
	eventually(t, "the broker has a coordinator", func() bool { _, err := Lag(t.Context(), cfg, "deduct", Reservations); return err == nil })
	for range 2 {
		var j journal
		c := consume(t, ConsumerConfig{ClientConfig: cfg, Until: map[int]int64{1: 1}}, p, func(_ context.Context, batch []Event) ([]Event, error) {
			j.add(batch)
			return nil, nil
		})
		if err := <-c.done; err != nil {
			t.Fatal(err)
		}
		if j.seen[pair[0].ReservationID] != 0 {
			t.Error("the partition without a bound was read")
		}
	}
	parts, err := Lag(t.Context(), cfg, "deduct", Reservations)
	if err != nil || parts[0].Committed != -1 || parts[1].Committed != 1 {
		t.Errorf("committed %v (%v), want nothing in 0 and 1 in 1", parts, err)
	}
}

// What lay before the bound was deleted: what lies behind it is not ours.
func TestConsumerUntilBehindRetention(t *testing.T) {
	cfg := newCluster(t)
	p := newPublisher(t, cfg)
	publish(t, p, created("phone", 0, 10)...)
	eventually(t, "the broker has a coordinator", func() bool { _, err := Lag(t.Context(), cfg, "deduct", Reservations); return err == nil })
	id := 0
	for part, end := range until(t, cfg) {
		if end == 10 {
			id = part
		}
	}
	commitAs(t, cfg, id, 0)
	deleteRecords(t, cfg, id, 7)
	var j journal
	c := consume(t, ConsumerConfig{ClientConfig: cfg, Until: map[int]int64{id: 5}}, p, func(_ context.Context, batch []Event) ([]Event, error) {
		j.add(batch)
		return nil, nil
	})
	select {
	case err := <-c.done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(patience):
		t.Fatal("Run waits for records that are gone")
	}
	if _, total := j.counts(); total != 0 {
		t.Errorf("%d events from behind the bound were handled", total)
	}
}

func TestRepublish(t *testing.T) {
	cfg := newCluster(t)
	p := newPublisher(t, cfg)
	e := created("phone", 0, 1)[0]
	e.Time = time.Date(2026, 11, 11, 12, 0, 0, 0, time.UTC)
	publish(t, p, e)
	was := records(t, cfg, Reservations)[0]
	was.Headers = append(was.Headers, header("from-elsewhere", "x"), header("x-mark", "old"))
	if err := p.Republish(t.Context(), Reservations, map[string]string{"x-mark": "new"}, was); err != nil {
		t.Fatal(err)
	}
	all := records(t, cfg, Reservations)
	if len(all) != 2 {
		t.Fatalf("%d records, want 2", len(all))
	}
	is := all[1]
	h := headers(is)
	if string(is.Key) != "phone" || string(is.Value) != string(was.Value) || is.Partition != was.Partition || h["from-elsewhere"] != "x" || h["x-mark"] != "new" {
		t.Errorf("republished %s %s %v, want it as it was, with x-mark new", is.Key, is.Value, h)
	}
	got, err := Read(is, Reservations)
	if err != nil || got.ID() != e.ID() || !got.Time.Equal(e.Time) {
		t.Errorf("read %v %v, want %s of %s", got, err, e.ID(), e.Time)
	}
	if time.Since(is.Time) > time.Hour {
		t.Errorf("the record's time is %s: retention would take it at once", is.Time)
	}
}

func TestLagBoard(t *testing.T) {
	now := time.Date(2026, 11, 11, 20, 0, 0, 0, time.UTC)
	reg := prometheus.NewRegistry()
	b := NewLagBoard(reg, func() time.Time { return now })
	if NewLagBoard(reg, time.Now) != b {
		t.Error("one registry has two boards")
	}
	place := func(p int) Place { return Place{"s.deduct", "s.reservations", p} }
	ago := func(s int) time.Time { return now.Add(-time.Duration(s) * time.Second) }
	b.own(place(0), Standing{Committed: 7, End: 10, Oldest: ago(3)})
	b.own(place(1), Standing{Committed: 9, End: 9, Oldest: ago(3)})
	b.own(place(9), Standing{Committed: 0, End: 1, Oldest: ago(3)})
	b.drop(place(9))
	b.Show(map[Place]Standing{
		place(0): {Committed: 1, End: 2, Oldest: ago(99)},             // ours: what we know is fresher
		place(2): {Committed: -1, Start: 4, End: 6, Oldest: ago(60)},  // never committed
		place(3): {Committed: 3, Start: 50, End: 60, Oldest: ago(30)}, // retention has overtaken it
		place(4): {Committed: 99, End: 5, Oldest: ago(30)},            // the topic was made anew
	}, []Log{{"s.reservations", 3, 50, 60}})
	now = now.Add(time.Second) // nobody reads, and the age grows
	want := []string{
		"consumer_committed_offset s.deduct 0 s.reservations 7",
		"consumer_committed_offset s.deduct 1 s.reservations 9",
		"consumer_committed_offset s.deduct 2 s.reservations -1",
		"consumer_committed_offset s.deduct 3 s.reservations 3",
		"consumer_committed_offset s.deduct 4 s.reservations 99",
		"consumer_lag_messages s.deduct 0 s.reservations 3",
		"consumer_lag_messages s.deduct 1 s.reservations 0",
		"consumer_lag_messages s.deduct 2 s.reservations 2",
		"consumer_lag_messages s.deduct 3 s.reservations 10",
		"consumer_lag_messages s.deduct 4 s.reservations 0",
		"consumer_lag_seconds s.deduct 0 s.reservations 4",
		"consumer_lag_seconds s.deduct 1 s.reservations 0",
		"consumer_lag_seconds s.deduct 2 s.reservations 61",
		"consumer_lag_seconds s.deduct 3 s.reservations 31",
		"consumer_lag_seconds s.deduct 4 s.reservations 0",
		"topic_partition_end_offset 3 s.reservations 60",
		"topic_partition_start_offset 3 s.reservations 50",
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range families {
		for _, m := range f.GetMetric() {
			line := strings.TrimPrefix(f.GetName(), "seckill_kafka_")
			for _, l := range m.GetLabel() {
				line += " " + l.GetValue()
			}
			got = append(got, fmt.Sprintf("%s %v", line, m.GetGauge().GetValue()))
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("shown (-want +got):\n%s", diff)
	}
	NewLagBoard(nil, nil).own(place(0), Standing{}) // nobody looks
}

// A worker whose handler is stuck shows a lag that grows.
func TestConsumerShowsItsLag(t *testing.T) {
	cfg := newCluster(t)
	p := newPublisher(t, cfg)
	publish(t, p, created("phone", 0, 3)...)
	stuck := make(chan struct{})
	c := consume(t, ConsumerConfig{ClientConfig: cfg}, p, func(ctx context.Context, _ []Event) ([]Event, error) {
		select {
		case <-stuck:
			return nil, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	})
	reg := c.cfg.Registerer
	eventually(t, "the lag is shown", func() bool { return metric(t, reg, "seckill_kafka_consumer_lag_messages", "") == 3 })
	first := metric(t, reg, "seckill_kafka_consumer_lag_seconds", "")
	eventually(t, "its age grows", func() bool { return metric(t, reg, "seckill_kafka_consumer_lag_seconds", "") > first })
	close(stuck)
	eventually(t, "it is gone", func() bool {
		return metric(t, reg, "seckill_kafka_consumer_lag_messages", "") == 0 && metric(t, reg, "seckill_kafka_consumer_committed_offset", "") == 3
	})
	c.wait(t)
	if n := metric(t, reg, "seckill_kafka_consumer_committed_offset", ""); n != 0 {
		t.Errorf("a stopped worker still shows an offset: %v", n)
	}
}
