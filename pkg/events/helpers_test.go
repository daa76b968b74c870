package events

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go"

	"github.com/leadingpeers/seckill/internal/testservers"
)

const patience = 30 * time.Second // how long a condition may take before a test fails

// eventually returns when done does, and fails the test when that takes too long.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	deadline, tick := time.After(patience), time.NewTicker(10*time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// newCluster gives the test topics of its own, two partitions each, on the
// servers of testservers.
func newCluster(t testing.TB) ClientConfig {
	t.Helper()
	cfg := ClientConfig{Brokers: testservers.Kafka(t), Prefix: testservers.Prefix(t)}
	apply(t, cfg)
	return cfg
}

func apply(t testing.TB, cfg ClientConfig) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := Apply(ctx, cfg, Overrides{Partitions: 2, Replication: 1}); err != nil {
		t.Fatal(err)
	}
}

func newPublisher(t testing.TB, cfg ClientConfig) *Publisher {
	t.Helper()
	p := NewPublisher(PublisherConfig{ClientConfig: cfg, Now: time.Now, Registerer: prometheus.NewRegistry()})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := p.Close(ctx); err != nil {
			t.Errorf("close the publisher: %v", err)
		}
	})
	return p
}

func publish(t testing.TB, p *Publisher, evs ...Event) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := p.Publish(ctx, evs...); err != nil {
		t.Fatal(err)
	}
}

// rid makes the n-th reservation ID of a test.
func rid(n int) string {
	const alphabet = "abcdefghijklmnopqrstuvwxyz234567"
	id := []byte("aaaaaaaaaaaaaaaaaaaaaaaaaa")
	for i := len(id) - 1; n > 0; i, n = i-1, n/32 {
		id[i] = alphabet[n%32]
	}
	return string(id)
}

// created makes reservations from..to-1 of one product.
func created(product string, from, to int) []Event {
	var out []Event
	for n := from; n < to; n++ {
		out = append(out, Event{Type: ReservationCreated, ReservationID: rid(n), ProductID: product, UserID: fmt.Sprintf("u%d", n), Quantity: 1})
	}
	return out
}

// follow is what a handler of reservations decides.
func follow(batch []Event) []Event {
	var next []Event
	for _, e := range batch {
		e.Type, e.Time, e.Source = StockDeducted, time.Time{}, ""
		next = append(next, e)
	}
	return next
}

// journal counts what handlers have seen, by reservation.
type journal struct {
	mu      sync.Mutex
	seen    map[string]int
	batches []int // sizes
}

func (j *journal) add(batch []Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.seen == nil {
		j.seen = map[string]int{}
	}
	for _, e := range batch {
		j.seen[e.ReservationID]++
	}
	j.batches = append(j.batches, len(batch))
}

// counts returns how many reservations were seen, and how many times in all.
func (j *journal) counts() (distinct, total int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, n := range j.seen {
		total += n
	}
	return len(j.seen), total
}

// consumer is a Consumer that runs.
type consumer struct {
	*Consumer
	stop context.CancelFunc
	done chan error
}

// consume starts a consumer of reservations in the group "deduct"; it is
// stopped, at the latest, when the test ends.
func consume(t testing.TB, cfg ConsumerConfig, p *Publisher, h Handler) *consumer {
	t.Helper()
	cfg.Group, cfg.Topic = or(cfg.Group, "deduct"), or(cfg.Topic, Reservations)
	cfg.SessionTimeout, cfg.HeartbeatInterval = or(cfg.SessionTimeout, 6*time.Second), 100*time.Millisecond
	cfg.DrainTimeout, cfg.RetryMax = 5*time.Second, 200*time.Millisecond
	cfg.Registerer = prometheus.NewRegistry()
	ctx, cancel := context.WithCancel(context.Background())
	c := &consumer{Consumer: NewConsumer(cfg, h, p), stop: cancel, done: make(chan error, 1)}
	go func() { c.done <- c.Run(ctx); close(c.done) }()
	t.Cleanup(func() { c.wait(t) })
	return c
}

// wait stops the consumer and returns when it has ended.
func (c *consumer) wait(t testing.TB) {
	t.Helper()
	c.stop()
	select {
	case err := <-c.done:
		if err != nil {
			t.Errorf("Run: %v", err)
		}
	case <-time.After(patience):
		t.Fatal("Run does not return")
	}
}

// lag returns the records that the group "deduct" has not committed, and
// whether it has committed a position in every partition.
func lag(t testing.TB, cfg ClientConfig) (records int64, everywhere bool) {
	t.Helper()
	parts, err := Lag(t.Context(), cfg, "deduct", Reservations)
	if err != nil {
		return -1, false // a fresh broker finds no coordinator at first
	}
	everywhere = true
	for _, p := range parts {
		records += p.Lag
		everywhere = everywhere && p.Committed >= 0
	}
	return records, everywhere
}

func caughtUp(t testing.TB, cfg ClientConfig) func() bool {
	return func() bool { n, everywhere := lag(t, cfg); return n == 0 && everywhere }
}

// records reads all of a topic, by partition.
func records(t testing.TB, cfg ClientConfig, topic Topic) []kafka.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	name := cfg.TopicName(topic)
	var out []kafka.Message
	err := cfg.withClient(func(client *kafka.Client) error {
		found, err := partitions(ctx, client, name)
		if err != nil {
			return err
		}
		for _, p := range found {
			logs, err := logBounds(ctx, client, name, p.ID)
			if err != nil {
				return err
			}
			r := kafka.NewReader(kafka.ReaderConfig{Brokers: cfg.Brokers, Topic: name, Partition: p.ID, MaxWait: 100 * time.Millisecond})
			for at := logs[p.ID].start; at < logs[p.ID].end; {
				m, err := r.ReadMessage(ctx)
				if err != nil {
					r.Close()
					return err
				}
				at = m.Offset + 1
				out = append(out, m)
			}
			r.Close()
		}
		return nil
	})
	if err != nil {
		t.Fatalf("read %s: %v", name, err)
	}
	return out
}

// headers returns a record's headers as text.
func headers(m kafka.Message) map[string]string {
	out := map[string]string{}
	for _, h := range m.Headers {
		out[h.Key] = string(h.Value)
	}
	return out
}

// logBook keeps the messages that a consumer logs.
type logBook struct {
	mu    sync.Mutex
	lines []string
}

func (b *logBook) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lines = append(b.lines, string(p))
	return len(p), nil
}

func (b *logBook) logger() *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }

// count returns how many lines hold all the words.
func (b *logBook) count(words ...string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for _, line := range b.lines {
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) }) {
			n++
		}
	}
	return n
}

// metric returns the sum of a counter or gauge, or the number of observations
// of a histogram, over the series that have the label value; "" = all.
func metric(t testing.TB, reg prometheus.Registerer, name, label string) float64 {
	t.Helper()
	families, err := reg.(*prometheus.Registry).Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			matches := label == ""
			for _, l := range m.GetLabel() {
				matches = matches || l.GetValue() == label
			}
			if matches {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return sum
}
