package events

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"
)

// The tests of this file need a broker that fails on command. They use the
// stand-in whatever the other tests run on.

func newFake(t testing.TB, brokers int) (*kfake.Cluster, ClientConfig) {
	t.Helper()
	fake, err := kfake.NewCluster(kfake.NumBrokers(brokers))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	cfg := ClientConfig{Brokers: fake.ListenAddrs(), Prefix: "fake"}
	apply(t, cfg)
	return fake, cfg
}

// byPartition returns one event per partition of a topic with two.
func byPartition(t testing.TB) [2]Event {
	t.Helper()
	var out [2]Event
	for n := range 100 {
		e := created(fmt.Sprintf("p%d", n), n, n+1)[0]
		out[kafka.Murmur2Balancer{Consistent: true}.Balance(kafka.Message{Key: []byte(e.Key())}, 0, 1)] = e
	}
	return out
}

func TestPublishRetriesWhatFailed(t *testing.T) {
	for _, tt := range []struct {
		name, why string
		fail      *kerr.Error
		again     int // copies of the event in the failing partition, in the end
	}{
		{"leader", "the leader has moved: it wrote nothing", kerr.NotLeaderForPartition, 1},
		{"election", "no leader yet", kerr.LeaderNotAvailable, 1},
		{"replicas", "too few in sync: nothing was written", kerr.NotEnoughReplicas, 1},
		{"late ack", "written, and the answer lost: no producer can know, readers dedupe", kerr.NotEnoughReplicasAfterAppend, 3},
		{"time-out", "the same", kerr.RequestTimedOut, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fake, cfg := newFake(t, 1)
			p := newPublisher(t, cfg)
			fault := fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: cfg.TopicName(Reservations), Partitions: []int32{1}, Err: tt.fail, Count: 2})
			both := byPartition(t)
			publish(t, p, both[:]...)
			if fault.Hits() != 2 {
				t.Fatalf("%d requests failed, want 2", fault.Hits())
			}
			copies := [2]int{}
			for _, m := range records(t, cfg, Reservations) {
				copies[m.Partition]++
			}
			if want := [2]int{1, tt.again}; copies != want {
				t.Errorf("records by partition %v, want %v: %s", copies, want, tt.why)
			}
			if n := metric(t, p.cfg.Registerer, "seckill_kafka_producer_retries_total", ""); n != 2 {
				t.Errorf("%v events sent again, want 2", n)
			}
		})
	}
}

// A leader that moves is found by its refusal, not when the metadata grow old.
func TestPublishFollowsTheLeader(t *testing.T) {
	fake, cfg := newFake(t, 3)
	p := newPublisher(t, cfg)
	p.transport.MetadataTTL = time.Hour
	both := byPartition(t)
	publish(t, p, both[:]...)
	name := cfg.TopicName(Reservations)
	for range 4 {
		to := (fake.LeaderFor(name, 0) + 1) % 3
		if err := fake.MoveTopicPartition(name, 0, to); err != nil {
			t.Fatal(err)
		}
		publish(t, p, both[0])
	}
	if n := len(records(t, cfg, Reservations)); n != 6 {
		t.Errorf("%d records, want 6: moving loses and doubles nothing", n)
	}
}

// What a broker refuses for good fails its own callers only.
func TestPublishRefusedByTheBroker(t *testing.T) {
	fake, cfg := newFake(t, 1)
	cfg.Prefix = "small"
	if err := fake.CreateTopic(cfg.TopicName(Orders), 1, map[string]string{"max.message.bytes": "2000"}); err != nil {
		t.Fatal(err)
	}
	p := newPublisher(t, cfg)
	order := func(n int) record {
		return record{topic: cfg.TopicName(Orders), key: []byte(rid(n)), value: []byte(fmt.Sprint(n))}
	}
	var many []record
	for n := range 50 {
		many = append(many, order(n))
	}
	noise := make([]byte, 4000) // does not compress
	for i := range noise {
		noise[i] = byte(i*i>>3) ^ byte(i>>1)*167
	}
	many[33].value = noise
	p.encoder.compression = NoCompression
	err := p.publish(t.Context(), many)
	if !isPermanent(err) || !errors.Is(err, kafka.MessageSizeTooLarge) || !strings.Contains(err.Error(), rid(33)) {
		t.Errorf("error %v, want a permanent one that names the event", err)
	}
	if n := len(records(t, cfg, Orders)); n != 49 {
		t.Errorf("%d records written, want all but one of 50", n)
	}

	// Beside an event that is too large, one that may not be written now: the
	// caller must not take the rest for written.
	elsewhere := record{topic: cfg.TopicName(Payments), key: []byte(rid(1)), value: []byte("1")}
	if err := fake.CreateTopic(elsewhere.topic, 1, nil); err != nil {
		t.Fatal(err)
	}
	closed := fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: elsewhere.topic, Err: kerr.TopicAuthorizationFailed, Count: -1})
	for _, pair := range [][]record{{many[33], elsewhere}, {elsewhere, many[33]}} {
		if err := p.publish(t.Context(), pair); !errors.Is(err, kafka.TopicAuthorizationFailed) || isPermanent(err) {
			t.Errorf("error %v, want the fault", err)
		}
	}
	closed.Remove()

	denied := fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.TopicAuthorizationFailed, Count: -1})
	defer denied.Remove()
	err = p.publish(t.Context(), many[:1])
	if !errors.Is(err, kafka.TopicAuthorizationFailed) || isPermanent(err) {
		t.Errorf("error %v, want the refusal, and not as the record's fault: settings can be mended", err)
	}
}

// A commit that fails ends the generation, and the batch comes again.
func TestConsumerCommitRefused(t *testing.T) {
	fake, cfg := newFake(t, 1)
	p := newPublisher(t, cfg)
	publish(t, p, created("phone", 0, 10)...)
	var j journal
	begun, finish := make(chan struct{}, 10), make(chan struct{})
	c := consume(t, ConsumerConfig{ClientConfig: cfg, MaxWait: 100 * time.Millisecond}, p, func(_ context.Context, batch []Event) ([]Event, error) {
		begun <- struct{}{}
		<-finish
		j.add(batch)
		return nil, nil
	})
	<-begun
	fault := fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Err: kerr.IllegalGeneration})
	close(finish)
	eventually(t, "all is committed", caughtUp(t, cfg))
	distinct, total := j.counts()
	if fault.Hits() != 1 || distinct != 10 || total != 20 {
		t.Errorf("%d commits refused, %d events handled %d times, want 1, 10 and 20", fault.Hits(), distinct, total)
	}
	if n := metric(t, c.cfg.Registerer, "seckill_kafka_consumer_commit_failures_total", ""); n != 1 {
		t.Errorf("%v failures counted, want 1", n)
	}
}

// A broker that needs 400 ms for every answer is read like any other, by
// whoever reads: it is far away, or busy with readers that have all just begun.
func TestReadersWaitForASlowBroker(t *testing.T) {
	fake, cfg := newFake(t, 1)
	p := newPublisher(t, cfg)
	publish(t, p, created("phone", 0, 10)...)
	fake.ControlKey(kmsg.Fetch.Int16(), func(kmsg.Request) (kmsg.Response, error, bool) {
		fake.KeepControl()
		fake.SleepControl(func() { time.Sleep(400 * time.Millisecond) })
		return nil, nil, false
	})
	var j journal
	consume(t, ConsumerConfig{ClientConfig: cfg}, p, func(_ context.Context, batch []Event) ([]Event, error) {
		j.add(batch)
		return nil, nil
	})
	eventually(t, "all is committed", caughtUp(t, cfg))
	if distinct, total := j.counts(); distinct != 10 || total != 10 {
		t.Errorf("%d events handled %d times, want 10, once each", distinct, total)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	found, complete, err := Search(ctx, cfg, Query{Topics: []Topic{Reservations}, ReservationID: rid(3), ProductID: "phone"})
	if err != nil || !complete || len(found) != 1 {
		t.Fatalf("search: %d events, complete %v, %v, want one", len(found), complete, err)
	}
	n := 0
	for _, err := range readSpan(ctx, cfg, Reservations, Span{Partition: found[0].Partition, From: 0, To: 10}) {
		if n++; err != nil {
			t.Errorf("span: %v", err)
		}
	}
	if n != 10 {
		t.Errorf("span: %d records, want 10", n)
	}
}

// The dead letter is acknowledged before the offset is committed.
func TestConsumerCommitsAfterBurying(t *testing.T) {
	fake, cfg := newFake(t, 1)
	p := newPublisher(t, cfg)
	publish(t, p, created("phone", 0, 1)...)
	fault := fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: cfg.TopicName(DeadLetterTopic("deduct")), Err: kerr.NotEnoughReplicas, Count: -1})
	consume(t, ConsumerConfig{ClientConfig: cfg}, p, func(context.Context, []Event) ([]Event, error) {
		return nil, Permanent(errors.New("no such product"))
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := fault.Wait(ctx, 5); err != nil {
		t.Fatal(err)
	}
	if n, _ := lag(t, cfg); n != 1 {
		t.Errorf("lag %d while the dead letter cannot be written, want 1", n)
	}
	fault.Remove()
	eventually(t, "all is committed", caughtUp(t, cfg))
	if n := len(records(t, cfg, DeadLetterTopic("deduct"))); n != 1 {
		t.Errorf("%d dead letters, want 1", n)
	}
}

// A record too large to keep beside our headers leaves a stub that says where
// it is; it must not block the partition for ever.
func TestConsumerBuriesTheOversized(t *testing.T) {
	fake, cfg := newFake(t, 1)
	cfg.Prefix = "small"
	for topic, limit := range map[Topic]string{Reservations: "1000000", DeadLetterTopic("deduct"): "2000"} {
		if err := fake.CreateTopic(cfg.TopicName(topic), 1, map[string]string{"max.message.bytes": limit}); err != nil {
			t.Fatal(err)
		}
	}
	p := newPublisher(t, cfg)
	p.encoder.compression = NoCompression
	topic, count := cfg.TopicName(Reservations), header(HeaderRedriveCount, strings.Repeat("9", 3000))
	bad := []record{
		{topic: topic, key: []byte("k"), value: make([]byte, MaxBody+1)},
		{topic: topic, key: []byte("k"), value: []byte("{}"), headers: []kafka.Header{count}}, // a header of ours, by somebody else
	}
	for range 3 { // each fits alone, and no two of them in one request
		bad = append(bad, record{topic: topic, key: []byte("k"), value: make([]byte, 1000)})
	}
	bad = append(bad, record{topic: topic, key: []byte("k"), value: make([]byte, 3000)}) // small, and too large for this broker
	for _, r := range bad {
		if err := p.publish(t.Context(), []record{r}); err != nil {
			t.Fatal(err)
		}
	}
	consume(t, ConsumerConfig{ClientConfig: cfg, MaxWait: time.Second}, p, func(context.Context, []Event) ([]Event, error) { return nil, nil })
	eventually(t, "all is committed", caughtUp(t, cfg))
	dead := make(map[string]kafka.Message)
	for _, m := range records(t, cfg, DeadLetterTopic("deduct")) {
		dead[headers(m)[HeaderOriginOffset]] = m
	}
	if len(dead) != len(bad) {
		t.Fatalf("%d dead letters, want %d", len(dead), len(bad))
	}
	for _, origin := range []string{"0", "5"} {
		if h := headers(dead[origin]); h[HeaderTruncated] != "true" || len(dead[origin].Value) != 0 {
			t.Errorf("dead letter %v with %d bytes, want a stub that names its origin", h, len(dead[origin].Value))
		}
	}
	if h := headers(dead["1"]); h[HeaderRedriveCount] != "0" || h[HeaderTruncated] != "" {
		t.Errorf("dead letter %v, want no count that was never one", h)
	}
	for _, origin := range []string{"2", "3", "4"} {
		if h := headers(dead[origin]); h[HeaderTruncated] != "" || len(dead[origin].Value) != 1000 {
			t.Errorf("dead letter %v with %d bytes, want the whole record", h, len(dead[origin].Value))
		}
	}
}

// What follows from a record may be what no retry can cure.
func TestConsumerBuriesWhatItCannotTell(t *testing.T) {
	_, cfg := newFake(t, 1)
	p := newPublisher(t, cfg)
	publish(t, p, created("phone", 0, 30)...)
	consume(t, ConsumerConfig{ClientConfig: cfg}, p, func(_ context.Context, batch []Event) ([]Event, error) {
		next := follow(batch)
		for i := range next {
			if next[i].ReservationID == rid(17) {
				next[i].Quantity = -1
			}
		}
		return next, nil
	})
	eventually(t, "all is committed", caughtUp(t, cfg))
	dead := records(t, cfg, DeadLetterTopic("deduct"))
	if len(dead) != 1 || headers(dead[0])[headerSubject] != rid(17) || !strings.Contains(headers(dead[0])[HeaderError], "quantity -1") {
		t.Errorf("dead letters %v, want the record whose consequence is malformed", dead)
	}
	if n := len(records(t, cfg, Deductions)); n != 29 {
		t.Errorf("%d deductions, want 29", n)
	}
}

// Both of kafka-go's ways to connect use the credentials: dialer and transport.
func TestTLSAndSASL(t *testing.T) {
	web := httptest.NewTLSServer(nil) // for its certificate of 127.0.0.1
	defer web.Close()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.TLS(web.TLS.Clone()), kfake.EnableSASL(), kfake.Superuser("PLAIN", "shop", "secret"))
	if err != nil {
		t.Fatal(err)
	}
	defer fake.Close()
	pool := x509.NewCertPool()
	pool.AddCert(web.Certificate())
	cfg := ClientConfig{Brokers: fake.ListenAddrs(), Prefix: "safe", TLS: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, SASL: plain.Mechanism{Username: "shop", Password: "secret"}}
	apply(t, cfg)
	p := newPublisher(t, cfg)
	publish(t, p, created("phone", 0, 10)...)
	c := consume(t, ConsumerConfig{ClientConfig: cfg}, p, func(_ context.Context, batch []Event) ([]Event, error) { return follow(batch), nil })
	eventually(t, "all is committed", caughtUp(t, cfg))
	c.wait(t)

	cfg.SASL = plain.Mechanism{Username: "shop", Password: "wrong"}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := newPublisher(t, cfg).Publish(ctx, created("phone", 0, 1)...); err == nil || isPermanent(err) {
		t.Errorf("a wrong password: error %v, want a fault", err)
	}
}

// What Run, Publish and Lag start, ends with them.
func TestNothingIsLeftRunning(t *testing.T) {
	_, cfg := newFake(t, 1)
	before := goleak.IgnoreCurrent()
	p := NewPublisher(PublisherConfig{ClientConfig: cfg, Now: time.Now})
	c := consume(t, ConsumerConfig{ClientConfig: cfg}, p, func(_ context.Context, batch []Event) ([]Event, error) { return follow(batch), nil })
	publish(t, p, created("phone", 0, 100)...)
	eventually(t, "all is committed", caughtUp(t, cfg))
	c.wait(t)
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	goleak.VerifyNone(t, before, goleak.IgnoreAnyFunction("github.com/twmb/franz-go/pkg/kfake.(*clientConn).read"),
		goleak.IgnoreAnyFunction("github.com/twmb/franz-go/pkg/kfake.(*clientConn).write"))
}
