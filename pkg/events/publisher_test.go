package events

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
)

func TestPublishRoundTrip(t *testing.T) {
	cfg := newCluster(t)
	p := newPublisher(t, cfg)
	want := Event{
		Type: OrderCreated, Time: time.Date(2030, 1, 2, 3, 4, 5, 600_000_000, time.UTC), Source: "/settle-worker",
		TraceParent:   "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		ReservationID: rid(1), ActivityID: "summer", ProductID: "phone", UserID: "u1", Quantity: 2, OrderID: "o-1",
		AmountCents: 1999, Currency: "EUR", PayDeadline: time.Date(2030, 1, 2, 3, 19, 5, 0, time.UTC),
	}
	publish(t, p, want)
	got := records(t, cfg, Orders)
	if len(got) != 1 {
		t.Fatalf("%d records, want 1", len(got))
	}
	e, err := fromMessage(got[0], Orders)
	if err != nil {
		t.Fatal(err)
	}
	if e != want {
		t.Errorf("read back\n%+v, published\n%+v", e, want)
	}
	if age := time.Since(got[0].Time); age < 0 || age > time.Minute {
		t.Errorf("the record's own time is %s, want now: retention counts from it", got[0].Time)
	}
	if n := metric(t, p.cfg.Registerer, "seckill_kafka_producer_messages_total", "ok"); n != 1 {
		t.Errorf("%v events counted, want 1", n)
	}
}

func TestPublishFillsTimeAndSource(t *testing.T) {
	cfg := newCluster(t)
	before := time.Now()
	publish(t, newPublisher(t, cfg), created("phone", 1, 2)...)
	e, err := fromMessage(records(t, cfg, Reservations)[0], Reservations)
	if err != nil {
		t.Fatal(err)
	}
	if e.Time.Before(before.Add(-time.Second)) || e.Time.After(time.Now()) {
		t.Errorf("time %s, want now", e.Time)
	}
	if want := "/" + cfg.Prefix; e.Source != want {
		t.Errorf("source %q, want %q", e.Source, want)
	}
}

// The hashes are those of Apache Kafka's own UtilsTest.testMurmur2.
func TestPartitionIsJavas(t *testing.T) {
	cfg := newCluster(t)
	p := newPublisher(t, cfg)
	javas := map[string]int32{
		"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536,
		"a-little-bit-longer-string": -1486304829, "abc": 479470107,
	}
	n := 0
	for key := range javas {
		n++
		publish(t, p, created(key, n, n+1)...)
	}
	both := map[int]bool{}
	for _, m := range records(t, cfg, Reservations) {
		both[m.Partition] = true
		if want := int(javas[string(m.Key)]&0x7fffffff) % 2; m.Partition != want {
			t.Errorf("key %q is in partition %d, Java's partitioner says %d", m.Key, m.Partition, want)
		}
	}
	if len(both) != 2 {
		t.Errorf("all keys in partitions %v: the vectors prove nothing", both)
	}
}

// Many callers with one event each share requests; a call with many events and
// several topics is one call.
func TestPublishCoalesces(t *testing.T) {
	cfg := newCluster(t)
	p := newPublisher(t, cfg)
	const callers = 500
	errs := make(chan error, callers)
	for n := range callers {
		go func() { errs <- p.Publish(t.Context(), created(fmt.Sprintf("p%d", n%7), n, n+1)...) }()
	}
	for range callers {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	evs := created("phone", callers, callers+300)
	publish(t, p, append(evs, follow(evs)...)...)

	if n := len(records(t, cfg, Reservations)); n != callers+300 {
		t.Errorf("%d reservations, want %d", n, callers+300)
	}
	if n := len(records(t, cfg, Deductions)); n != 300 {
		t.Errorf("%d deductions, want 300", n)
	}
	if n := metric(t, p.cfg.Registerer, "seckill_kafka_producer_batch_size", ""); n == 0 || n > callers/4 {
		t.Errorf("%v requests for %d events: nothing was put together", n, callers+600)
	}
}

func TestPublishRefusesBadEventsWhole(t *testing.T) {
	cfg := newCluster(t)
	p := newPublisher(t, cfg)
	bad := created("phone", 1, 3)
	bad[1].Quantity = 0
	if err := p.Publish(t.Context(), bad...); !isPermanent(err) {
		t.Errorf("error %v, want a permanent one", err)
	}
	if n := len(records(t, cfg, Reservations)); n != 0 {
		t.Errorf("%d records written, want none", n)
	}
}

// A topic that is not there yet is waited for, until ctx ends.
func TestPublishWaitsForTheTopic(t *testing.T) {
	cfg := newCluster(t)
	cfg.Prefix += "-late"
	p := newPublisher(t, cfg)
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	err := p.Publish(short, created("phone", 1, 2)...)
	if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, kafka.UnknownTopicOrPartition) || isPermanent(err) {
		t.Fatalf("error %v, want the deadline and what stood in the way", err)
	}
	done := make(chan error, 1)
	go func() { done <- p.Publish(t.Context(), created("phone", 1, 2)...) }()
	apply(t, cfg)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if n := len(records(t, cfg, Reservations)); n != 1 {
		t.Errorf("%d records, want 1", n)
	}
}

func TestPublishBusy(t *testing.T) {
	cfg := newCluster(t)
	p := newPublisher(t, cfg)
	p.cfg.QueueSize = 10
	p.waiting.Store(8)
	defer p.waiting.Store(0)
	if err := p.Publish(t.Context(), created("phone", 0, 3)...); !errors.Is(err, ErrBusy) {
		t.Errorf("error %v, want ErrBusy: 8 wait, 3 more, 10 may", err)
	}
	if n := len(records(t, cfg, Reservations)); n != 0 {
		t.Errorf("%d records written, want none", n)
	}
	if err := p.Publish(t.Context(), created("phone", 0, 2)...); err != nil {
		t.Errorf("two more fit: %v", err)
	}
	if n := p.waiting.Load(); n != 8 {
		t.Errorf("%d wait after all is done, want the 8 that were put there", n)
	}
}

func TestPublisherClose(t *testing.T) {
	cfg := newCluster(t)
	p := newPublisher(t, cfg)
	publish(t, p, created("phone", 1, 2)...)
	for range 2 {
		if err := p.Close(t.Context()); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	if err := p.Publish(t.Context(), created("phone", 1, 2)...); !errors.Is(err, ErrClosed) {
		t.Errorf("publish after close: %v, want ErrClosed", err)
	}
}

// Close does not wait longer than its ctx for a call that cannot end.
func TestPublisherCloseCutsShort(t *testing.T) {
	cfg := newCluster(t)
	cfg.Prefix += "-never"
	p := newPublisher(t, cfg)
	done := make(chan error, 1)
	go func() { done <- p.Publish(context.Background(), created("phone", 1, 2)...) }()
	eventually(t, "the call begins", func() bool { return metric(t, p.cfg.Registerer, "seckill_kafka_producer_retries_total", "") > 0 })
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := p.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("close: %v, want the deadline", err)
	}
	if err := <-done; !errors.Is(err, ErrClosed) {
		t.Errorf("the call under way: %v, want ErrClosed", err)
	}
}

func TestPing(t *testing.T) {
	cfg := newCluster(t)
	if err := newPublisher(t, cfg).Ping(t.Context()); err != nil {
		t.Error(err)
	}
	cfg.Brokers = []string{"127.0.0.1:1"}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := newPublisher(t, cfg).Ping(ctx); err == nil {
		t.Error("nobody listens there, and Ping says nothing")
	}
}
