package events

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go"
)

// PublisherConfig says how a Publisher works.
type PublisherConfig struct {
	ClientConfig
	// Source is the ce_source of events that have none, a URI reference.
	// Default: "/" and the ClientID.
	Source string
	// QueueSize is how many events may wait for their acknowledgement at once;
	// beyond it Publish answers ErrBusy. More rides out longer pauses of a
	// broker, and lets callers wait longer. Default 16384 events.
	QueueSize int
	// MaxBatch is the most events in one request to one broker. Default 1000.
	MaxBatch int
	// Workers is how many requests to one broker may be under way at once.
	// Two keep the broker busy while the other's answer travels; the second is
	// sent only when a crowd of events waits for it. Default 2.
	Workers int
	// RequestTimeout is how long the brokers may take to replicate a request
	// before it is sent again. Default 3 s.
	RequestTimeout time.Duration
	// Compression of what is sent. Default zstd. BenchmarkPublish on two busy
	// cores with Kafka 4.3.1 showed no difference beyond its noise between none,
	// lz4 and zstd for lone events; with 500 callers the broker spent 15-19 µs
	// an event on none, 13-21 on lz4, 11-18 on zstd, and zstd stores least.
	// The zero value means the default; see NoCompression.
	Compression kafka.Compression
	// Now is the clock, for events without a time and for dead letters.
	// Required.
	Now func() time.Time
	// Registerer gets the metrics seckill_kafka_producer_*. nil = none.
	Registerer prometheus.Registerer
	// Log gets a line at debug for every event that is acknowledged. nil = none.
	Log *slog.Logger
}

// NoCompression in PublisherConfig.Compression sends events as they are.
const NoCompression kafka.Compression = -1

const maxRequestBytes = 900_000 // before compression; a broker takes 1 MiB per partition

// Publisher writes events to Kafka with acknowledgement by all replicas in
// sync. It is safe for concurrent use, and is meant to be shared: events of
// all callers that are waiting go out together, in one request per broker over
// all its topics and partitions. There is no linger time: a lone event leaves
// at once, and while a request is under way the next one fills up.
//
// Delivery is at least once. Order is kept between two calls only if the
// second begins after the first has returned nil.
type Publisher struct {
	cfg       PublisherConfig
	transport *kafka.Transport
	addr      net.Addr
	balancer  kafka.Murmur2Balancer
	metrics   producerMetrics
	names     map[Topic]string // of the topics that carry events, in full
	encoder   *encoder
	scratch   sync.Pool // of *scratch

	waiting atomic.Int64 // events in the lanes and on the wire
	heard   atomic.Pointer[layouts]
	fresh   atomic.Int64 // when the metadata were last thrown away, Unix ms

	mu     sync.RWMutex    // held for reading by every call, for an instant
	lanes  map[int32]*lane // by broker
	closed bool
	calls  sync.WaitGroup // Publish calls under way
	stop   chan struct{}  // closed when those calls must give up
	once   sync.Once
}

// NewPublisher makes a Publisher; it connects when it is first used. It panics
// when a required field of cfg is missing.
func NewPublisher(cfg PublisherConfig) *Publisher {
	if len(cfg.Brokers) == 0 || cfg.Now == nil {
		panic("events: PublisherConfig needs Brokers and Now")
	}
	cfg.ClientConfig = cfg.ClientConfig.withDefaults()
	cfg.Source = or(cfg.Source, "/"+cfg.ClientID)
	cfg.QueueSize = or(cfg.QueueSize, 16384)
	cfg.MaxBatch = or(cfg.MaxBatch, 1000)
	cfg.Workers = or(cfg.Workers, 2)
	cfg.RequestTimeout = or(cfg.RequestTimeout, 3*time.Second)
	cfg.Compression = or(cfg.Compression, kafka.Zstd)
	cfg.Log = or(cfg.Log, slog.New(slog.DiscardHandler))
	p := &Publisher{
		cfg: cfg, transport: cfg.Transport(), addr: cfg.addr(),
		balancer: kafka.Murmur2Balancer{Consistent: true}, // Java's and librdkafka's partition for every key
		names:    map[Topic]string{},
		lanes:    map[int32]*lane{}, stop: make(chan struct{}),
	}
	for _, t := range []Topic{Reservations, Rollbacks, Deductions, Orders, Payments, Channels} {
		p.names[t] = cfg.TopicName(t)
	}
	p.scratch.New = func() any { return &scratch{} }
	var err error
	if p.encoder, err = newEncoder(cfg.Compression, cfg.Workers); err != nil {
		panic(err) // the options are constants
	}
	p.metrics = newProducerMetrics(cfg.Registerer, func() float64 { return float64(p.waiting.Load()) })
	return p
}

// or returns v, or the default when v is the zero value.
func or[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

// Publish writes evs and returns nil when all are acknowledged. It repeats
// what failed, and only that, until ctx ends: leaders that move, too few
// replicas, brokers that are away, a topic that is not there yet.
//
// Any number of events is one call. Events without a time get the present one.
// Repeating a call that failed is harmless: readers know an event by its ID.
//
// Errors: ErrBusy and ErrClosed: nothing was written. A *PermanentError: an
// event is malformed, then nothing was written, or a broker refused it for its
// size or content, then the others were written. Anything else is a fault after
// which any of the events may have been written, or may still be.
func (p *Publisher) Publish(ctx context.Context, evs ...Event) error {
	records := make([]record, len(evs))
	for i, e := range evs {
		if e.Time.IsZero() {
			e.Time = p.cfg.Now()
		}
		e.Source = or(e.Source, p.cfg.Source)
		var err error
		if records[i], err = toRecord(e, p.names[e.Topic()]); err != nil {
			return Permanent(err)
		}
	}
	err := p.publish(ctx, records)
	if err == nil && p.cfg.Log.Enabled(ctx, slog.LevelDebug) {
		for _, e := range evs {
			p.cfg.Log.DebugContext(ctx, "event published", "topic", p.cfg.TopicName(e.Topic()), "event_id", e.ID(), "type", string(e.Type),
				"reservation_id", e.ReservationID, "product", e.ProductID, "trace_id", e.TraceID())
		}
	}
	return err
}

// Republish writes records to topic once more, as they were: key, value and
// headers, byte for byte, save that the headers of extra replace those of
// their names. Their time is the present, because retention counts from it;
// the fact's own time is in its headers. The promise is that of [Publisher.Publish].
func (p *Publisher) Republish(ctx context.Context, topic Topic, extra map[string]string, msgs ...kafka.Message) error {
	records := make([]record, len(msgs))
	for i, m := range msgs {
		headers := slices.DeleteFunc(slices.Clone(m.Headers), func(h kafka.Header) bool { _, replaced := extra[h.Key]; return replaced })
		for _, name := range slices.Sorted(maps.Keys(extra)) {
			headers = append(headers, header(name, extra[name]))
		}
		records[i] = record{topic: p.cfg.TopicName(topic), key: m.Key, value: m.Value, headers: headers}
	}
	return p.publish(ctx, records)
}

// publish writes records under the promise of Publish.
func (p *Publisher) publish(ctx context.Context, records []record) error {
	if len(records) == 0 {
		return nil
	}
	if !p.begin() {
		return ErrClosed
	}
	defer p.calls.Done()
	n := int64(len(records))
	if before := p.waiting.Add(n) - n; before > 0 && before+n > int64(p.cfg.QueueSize) {
		p.waiting.Add(-n)
		return ErrBusy
	}
	start := p.cfg.Now()
	defer func() { p.metrics.seconds.Observe(p.cfg.Now().Sub(start).Seconds()) }()

	var pause *backoff.ExponentialBackOff
	var refused error
	for {
		got := p.round(ctx, records, pause == nil)
		refused = graver(refused, got.refused)
		if len(got.again) == 0 {
			return refused
		}
		if pause == nil {
			pause = backoff.NewExponentialBackOff(backoff.WithInitialInterval(50*time.Millisecond),
				backoff.WithMaxInterval(time.Second), backoff.WithMaxElapsedTime(0))
		}
		if err := p.wait(ctx, pause.NextBackOff()); err != nil {
			for _, r := range got.again {
				p.metrics.messages.WithLabelValues(r.topic, "failed").Inc()
			}
			return fmt.Errorf("publish %d of %d events: %w: %w", len(got.again), n, err, got.fault)
		}
		records = got.again
		p.waiting.Add(int64(len(records)))
		p.metrics.retries.Add(float64(len(records)))
	}
}

// wait returns nil after d, or the reason not to go on.
func (p *Publisher) wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-p.stop:
		return ErrClosed
	}
}

// outcome is what one attempt came to: acknowledged is what is in neither.
type outcome struct {
	again   []record // may succeed later
	fault   error    // why, one of them
	refused error    // why some others never will, one of them
}

// round sends records once, each to the leader of its partition. It has taken
// them out of p.waiting when it returns, save those it gave up waiting for. The
// first round may go by what it has lately heard of the leaders.
func (p *Publisher) round(ctx context.Context, records []record, first bool) outcome {
	topics, err := p.topics(ctx, records, first)
	if err != nil {
		p.waiting.Add(-int64(len(records)))
		if retriable(err) {
			return outcome{again: records, fault: err}
		}
		return outcome{refused: fmt.Errorf("look up the topics: %w", err)}
	}
	c := &call{done: make(chan struct{})}
	c.left.Store(int64(len(records)))
	items := c.lone[:]
	if len(records) > 1 {
		items = make([]item, len(records))
	}
	var byLeader map[int32][]*item // of several: a lone one needs no sorting
	for i, r := range records {
		it := &items[i]
		it.record, it.call = r, c
		switch leader, err := topics[r.topic].route(p.balancer, it); {
		case err != nil:
			p.finish([]*item{it}, err)
		case len(records) == 1:
			p.enqueue(leader, it) //nolint:contextcheck // a request belongs to all its callers, no one's end may cut it short
		default:
			if byLeader == nil {
				byLeader = map[int32][]*item{}
			}
			byLeader[leader] = append(byLeader[leader], it)
		}
	}
	for leader, some := range byLeader {
		p.enqueue(leader, some...) //nolint:contextcheck // as above
	}
	select {
	case <-c.done:
		return p.sum(items)
	case <-ctx.Done():
	case <-p.stop:
	}
	c.abandoned.Store(true)
	return outcome{again: records, fault: errUnanswered}
}

// sum sorts what came of the items of a finished call.
func (p *Publisher) sum(items []item) outcome {
	var out outcome
	for i := range items {
		switch it := &items[i]; {
		case it.err == nil:
		case retriable(it.err):
			out.again, out.fault = append(out.again, it.record), it.err
		default:
			p.metrics.messages.WithLabelValues(it.record.topic, "failed").Inc()
			err := fmt.Errorf("publish key %s to %s: %w", it.record.key, it.record.topic, it.err)
			if refusesContent(it.err) {
				err = Permanent(err)
			}
			out.refused = graver(out.refused, err)
		}
	}
	return out
}

// graver returns the error that the caller must hear of: a fault before a
// permanent one, because that says that the other events are written.
func graver(a, b error) error {
	if a == nil || (b != nil && isPermanent(a)) {
		return b
	}
	return a
}

// begin reports whether the Publisher is open, and if so counts the caller in.
func (p *Publisher) begin() bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if !p.closed {
		p.calls.Add(1)
	}
	return !p.closed
}

// Close refuses new calls, waits for those under way until ctx ends, and
// closes the connections. It returns an error when it had to cut calls short;
// their events may have been written. Closing again is harmless.
func (p *Publisher) Close(ctx context.Context) error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	idle := make(chan struct{})
	go func() {
		p.calls.Wait()
		close(idle)
	}()
	var err error
	select {
	case <-idle:
	case <-ctx.Done():
		err = fmt.Errorf("close the publisher with calls under way: %w", ctx.Err())
	}
	p.once.Do(func() { close(p.stop) }) // from here on every call returns at once
	<-idle
	p.transport.CloseIdleConnections()
	return err
}

// Ping returns nil when a broker answers within ctx. It does not say that
// every partition has a leader.
func (p *Publisher) Ping(ctx context.Context) error {
	client := kafka.Client{Addr: p.addr, Transport: p.transport}
	if _, err := client.ApiVersions(ctx, &kafka.ApiVersionsRequest{}); err != nil {
		return fmt.Errorf("ping kafka: %w", err)
	}
	return nil
}
