package events

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestConsumerHandlesTellsAndCommits(t *testing.T) {
	cfg := newCluster(t)
	p := newPublisher(t, cfg)
	evs := append(created("phone", 0, 300), created("watch", 300, 500)...)
	for i := range evs {
		evs[i].TraceParent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	}
	publish(t, p, evs...)
	var j journal
	c := consume(t, ConsumerConfig{ClientConfig: cfg}, p, func(_ context.Context, batch []Event) ([]Event, error) {
		j.add(batch)
		return follow(batch), nil
	})
	eventually(t, "all is committed", caughtUp(t, cfg))
	if distinct, total := j.counts(); distinct != 500 || total != 500 {
		t.Errorf("%d reservations handled, %d times in all, want 500 once each", distinct, total)
	}
	told := records(t, cfg, Deductions)
	if len(told) != 500 {
		t.Errorf("%d deductions, want 500", len(told))
	}
	for _, m := range told {
		if e, err := fromMessage(m, Deductions); err != nil || e.TraceParent != evs[0].TraceParent {
			t.Fatalf("deduction %+v, %v: want the trace carried on", e, err)
		}
	}
	for name, want := range map[string]float64{
		"seckill_kafka_consumer_messages_total": 500, "seckill_kafka_consumer_end_to_end_seconds": 500,
		"seckill_kafka_consumer_assigned_partitions": 2,
		"seckill_kafka_consumer_followed_total":      500, "seckill_kafka_consumer_handler_busy_seconds": 0,
		"seckill_kafka_consumer_records_skipped_total": 0, "seckill_kafka_consumer_commit_failures_total": 0,
	} {
		if got := metric(t, c.cfg.Registerer, name, ""); got != want {
			t.Errorf("%s = %v, want %v", name, got, want)
		}
	}
}

// Lag tools see only partitions with a commit, so a group that is new commits
// where it starts, before any record comes.
func TestConsumerCommitsItsBaseline(t *testing.T) {
	cfg := newCluster(t)
	p := newPublisher(t, cfg)
	publish(t, p, created("phone", 0, 7)...)
	if n, everywhere := lag(t, cfg); n > 0 && (n != 7 || everywhere) {
		t.Fatalf("lag %d, committed everywhere %v: want 7 and false before the group exists", n, everywhere)
	}
	held := make(chan struct{})
	consume(t, ConsumerConfig{ClientConfig: cfg}, p, func(ctx context.Context, _ []Event) ([]Event, error) {
		select { // nothing beyond the baseline may be committed
		case <-held:
		case <-ctx.Done():
		}
		return nil, ctx.Err()
	})
	eventually(t, "a position in both partitions, and lag 7", func() bool {
		n, everywhere := lag(t, cfg)
		return n == 7 && everywhere
	})
	close(held)
	eventually(t, "all is committed", caughtUp(t, cfg))
}

// Three members come and go while events flow: none is lost.
func TestConsumersJoinAndLeave(t *testing.T) {
	cfg := newCluster(t)
	p := newPublisher(t, cfg)
	var j journal
	h := func(_ context.Context, batch []Event) ([]Event, error) {
		j.add(batch)
		return nil, nil
	}
	halt := make(chan struct{})
	sent := make(chan int, 1)
	go func() {
		for n := 0; ; n += 10 {
			select {
			case <-halt:
				sent <- n
				return
			default:
			}
			if err := p.Publish(t.Context(), append(created("phone", n, n+5), created("watch", n+5, n+10)...)...); err != nil {
				t.Error(err)
				sent <- n
				return
			}
		}
	}()
	join := func() *consumer {
		t.Helper()
		c := consume(t, ConsumerConfig{ClientConfig: cfg, MaxBatch: 20}, p, h)
		eventually(t, "the new member handles events", func() bool {
			return metric(t, c.cfg.Registerer, "seckill_kafka_consumer_messages_total", "ok") > 0
		})
		return c
	}
	a := join()
	b := join()
	a.wait(t)
	c := join()
	b.wait(t)
	close(halt)
	events := <-sent
	eventually(t, "all is committed", caughtUp(t, cfg))
	c.wait(t)
	distinct, total := j.counts()
	if distinct != events {
		t.Errorf("%d of %d events handled: some are lost", distinct, events)
	}
	t.Logf("%d events, handled %d times", distinct, total)
}

// crashVariable makes the test binary the process that crashes.
const crashVariable = "SECKILL_TEST_EVENTS_CRASH"

// A handler's panic takes the process down with its batch uncommitted, and the
// batch is delivered again.
func TestConsumerCrashRedelivers(t *testing.T) {
	if at := os.Getenv(crashVariable); at != "" {
		crash(strings.Split(at, "|"))
	}
	cfg := newCluster(t)
	p := newPublisher(t, cfg)
	publish(t, p, created("phone", 0, 50)...)
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
	child.Env = append(os.Environ(), crashVariable+"="+cfg.Prefix+"|"+strings.Join(cfg.Brokers, ","))
	out, err := child.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || !strings.Contains(string(out), "panic: broken invariant: 50 events") {
		t.Fatalf("the process did not die of its handler: %v\n%s", err, out)
	}
	if n, everywhere := lag(t, cfg); n != 50 || !everywhere {
		t.Errorf("lag %d, baseline %v after the crash, want 50 and the baseline", n, everywhere)
	}
	var j journal
	consume(t, ConsumerConfig{ClientConfig: cfg}, p, func(_ context.Context, batch []Event) ([]Event, error) {
		j.add(batch)
		return nil, nil
	})
	eventually(t, "all is committed", caughtUp(t, cfg)) // after the dead member's session
	if distinct, _ := j.counts(); distinct != 50 {
		t.Errorf("%d of 50 events delivered again", distinct)
	}
}

func crash(at []string) {
	cfg := ClientConfig{Prefix: at[0], Brokers: strings.Split(at[1], ",")}
	p := NewPublisher(PublisherConfig{ClientConfig: cfg, Now: time.Now})
	c := NewConsumer(ConsumerConfig{ClientConfig: cfg, Group: "deduct", Topic: Reservations, SessionTimeout: 6 * time.Second, MaxWait: time.Second},
		func(_ context.Context, batch []Event) ([]Event, error) {
			panic(fmt.Sprintf("broken invariant: %d events", len(batch)))
		}, p)
	fmt.Println("the consumer returned:", c.Run(context.Background()))
	os.Exit(0)
}

// An outage blocks the partition. It is retried in place, logged twice, and
// makes no dead letter; what was decided during it is told once.
func TestConsumerRidesOutAnOutage(t *testing.T) {
	cfg := newCluster(t)
	p := newPublisher(t, cfg)
	publish(t, p, created("phone", 0, 20)...)
	var j journal
	var away atomic.Bool
	away.Store(true)
	log := &logBook{}
	c := consume(t, ConsumerConfig{ClientConfig: cfg, Log: log.logger()}, p, func(_ context.Context, batch []Event) ([]Event, error) {
		j.add(batch)
		if away.Load() { // half is decided, half must wait
			return follow(batch[:len(batch)/2]), errors.New("mysql is away")
		}
		return follow(batch), nil
	})
	eventually(t, "five attempts", func() bool { return metric(t, c.cfg.Registerer, "seckill_kafka_retries_total", "handle") >= 5 })
	if n, _ := lag(t, cfg); n != 20 {
		t.Errorf("lag %d during the outage, want 20: nothing may be committed", n)
	}
	if n := len(records(t, cfg, Deductions)); n != 10 {
		t.Errorf("%d deductions told during the outage, want the 10 that are decided, once", n)
	}
	away.Store(false)
	eventually(t, "all is committed", caughtUp(t, cfg))
	if n := len(records(t, cfg, Deductions)); n != 20 {
		t.Errorf("%d deductions in the end, want 20, each once", n)
	}
	if n := len(records(t, cfg, DeadLetterTopic("deduct"))); n != 0 {
		t.Errorf("%d dead letters of an outage, want none", n)
	}
	if begun, ended := log.count("stage fails", "stage=handle"), log.count("works again", "stage=handle"); begun != 1 || ended != 1 {
		t.Errorf("the outage is logged %d times at its beginning, %d times at its end, want once each", begun, ended)
	}
}

// One record in the middle of 500 that no retry can cure: it alone is put
// among the dead letters, as it was, and everything else is handled.
func TestConsumerBuriesThePoison(t *testing.T) {
	cfg := newCluster(t)
	p := newPublisher(t, cfg)
	evs := created("phone", 0, 500)
	evs[237].TraceParent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	poison := evs[237].ReservationID
	publish(t, p, evs...)
	var origin kafka.Message
	for _, m := range records(t, cfg, Reservations) {
		if headers(m)[headerSubject] == poison {
			origin = m
		}
	}
	var j journal
	c := consume(t, ConsumerConfig{ClientConfig: cfg, MaxWait: 500 * time.Millisecond}, p, func(_ context.Context, batch []Event) ([]Event, error) {
		slices.Reverse(batch) // a handler may do with its batch what it likes
		for _, e := range batch {
			if e.ReservationID == poison {
				return nil, Permanent(fmt.Errorf("reservation %s: product unknown", e.ReservationID))
			}
		}
		j.add(batch)
		return follow(batch), nil
	})
	eventually(t, "all is committed", caughtUp(t, cfg))
	if distinct, total := j.counts(); distinct != 499 || total != 499 {
		t.Errorf("%d reservations handled, %d times in all, want 499 once each", distinct, total)
	}
	dead := records(t, cfg, DeadLetterTopic("deduct"))
	if len(dead) != 1 {
		t.Fatalf("%d dead letters, want 1", len(dead))
	}
	m := dead[0]
	if string(m.Key) != "phone" || string(m.Value) != string(origin.Value) || !m.Time.Equal(origin.Time) {
		t.Errorf("dead letter %s %s %s, want the record as it was: %s %s %s", m.Key, m.Value, m.Time, origin.Key, origin.Value, origin.Time)
	}
	h := headers(m)
	for _, kept := range origin.Headers {
		if h[kept.Key] != string(kept.Value) {
			t.Errorf("header %s is %q, was %q", kept.Key, h[kept.Key], kept.Value)
		}
	}
	attempts, _ := strconv.Atoi(h[HeaderAttempt])
	at, err := time.Parse(time.RFC3339, h[HeaderFailedAt])
	want := map[string]string{
		HeaderOriginTopic: cfg.TopicName(Reservations), HeaderOriginPartition: strconv.Itoa(origin.Partition),
		HeaderOriginOffset: strconv.FormatInt(origin.Offset, 10), HeaderGroup: cfg.GroupName("deduct"),
		HeaderErrorClass: "permanent", HeaderError: "reservation " + poison + ": product unknown", HeaderRedriveCount: "0",
	}
	for key, value := range want {
		if h[key] != value {
			t.Errorf("header %s is %q, want %q", key, h[key], value)
		}
	}
	if attempts < 2 || attempts > 11 || err != nil || time.Since(at) > time.Minute {
		t.Errorf("attempt %q, failed at %q: want about log2(500) attempts, just now", h[HeaderAttempt], h[HeaderFailedAt])
	}
	if n := metric(t, c.cfg.Registerer, "seckill_kafka_dead_letters_total", "permanent"); n != 1 {
		t.Errorf("%v dead letters counted, want 1", n)
	}
}

// Bytes that are no event of the topic go among the dead letters at once, and
// what stands beside them is handled.
func TestConsumerBuriesWhatItCannotRead(t *testing.T) {
	cfg := newCluster(t)
	p := newPublisher(t, cfg)
	good, err := toRecord(created("phone", 0, 1)[0], cfg.TopicName(Reservations))
	if err != nil {
		t.Fatal(err)
	}
	bad := good
	bad.value = []byte("{\xff")
	bad.headers = append(slices.Clone(good.headers), header(HeaderRedriveCount, "3"), header(HeaderError, "an older one"))
	bare := record{topic: good.topic, value: []byte("hello")}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := p.publish(ctx, []record{good, bad, bare, good}); err != nil {
		t.Fatal(err)
	}
	var j journal
	c := consume(t, ConsumerConfig{ClientConfig: cfg}, p, func(_ context.Context, batch []Event) ([]Event, error) {
		j.add(batch)
		return nil, nil
	})
	eventually(t, "all is committed", caughtUp(t, cfg))
	if _, total := j.counts(); total != 2 {
		t.Errorf("%d events handled, want 2", total)
	}
	values := map[string]map[string]string{}
	for _, m := range records(t, cfg, DeadLetterTopic("deduct")) {
		values[string(m.Value)] = headers(m)
	}
	for value, want := range map[string]map[string]string{
		"{\xff": {HeaderErrorClass: "undecodable", HeaderAttempt: "0", HeaderRedriveCount: "3", HeaderError: "decode " + string(ReservationCreated) + ": not UTF-8"},
		"hello": {HeaderErrorClass: "undecodable", HeaderAttempt: "0", HeaderRedriveCount: "0", HeaderError: `ce_specversion "": want "1.0"`},
	} {
		for key, text := range want {
			if values[value][key] != text {
				t.Errorf("dead letter %q: header %s is %q, want %q", value, key, values[value][key], text)
			}
		}
	}
	if n := metric(t, c.cfg.Registerer, "seckill_kafka_dead_letters_total", "undecodable"); n != 2 {
		t.Errorf("%v dead letters counted, want 2", n)
	}
}

// A batch is committed only when what follows from it is written.
func TestConsumerCommitsAfterTelling(t *testing.T) {
	cfg := newCluster(t)
	publish(t, newPublisher(t, cfg), created("phone", 0, 10)...)
	elsewhere := cfg
	elsewhere.Prefix += "-late" // topics that are not there yet: publishing fails
	var handled atomic.Int64
	c := consume(t, ConsumerConfig{ClientConfig: cfg}, newPublisher(t, elsewhere), func(_ context.Context, batch []Event) ([]Event, error) {
		handled.Add(1)
		return follow(batch), nil
	})
	eventually(t, "the batch is handled, not told", func() bool {
		return handled.Load() > 0 && metric(t, c.publisher.cfg.Registerer, "seckill_kafka_producer_retries_total", "") > 20
	})
	if n, everywhere := lag(t, cfg); n != 10 || !everywhere {
		t.Errorf("lag %d, baseline %v while nothing can be told, want 10 and the baseline", n, everywhere)
	}
	apply(t, elsewhere)
	eventually(t, "all is committed", caughtUp(t, cfg))
	if n := len(records(t, elsewhere, Deductions)); n != 10 {
		t.Errorf("%d deductions, want 10", n)
	}
}

// A batch in hand when ctx ends is finished and committed; no other is begun.
func TestConsumerDrainsWhenStopped(t *testing.T) {
	cfg := newCluster(t)
	p := newPublisher(t, cfg)
	publish(t, p, created("phone", 0, 20)...)
	begun, finish := make(chan struct{}, 10), make(chan struct{})
	c := consume(t, ConsumerConfig{ClientConfig: cfg, MaxBatch: 10, MaxWait: time.Second}, p, func(ctx context.Context, batch []Event) ([]Event, error) {
		begun <- struct{}{}
		<-finish
		return follow(batch), ctx.Err()
	})
	<-begun
	c.stop()
	close(finish)
	c.wait(t)
	if n, _ := lag(t, cfg); n != 10 {
		t.Errorf("lag %d after the drain, want 10: one batch committed, the other not begun", n)
	}
	if n := len(records(t, cfg, Deductions)); n != 10 {
		t.Errorf("%d deductions, want those of the batch that was in hand", n)
	}
}

// A rebalance does not cancel the batch in hand: it is finished, told and
// committed before the partition goes to somebody else.
func TestConsumerDrainsWhenRebalanced(t *testing.T) {
	cfg := newCluster(t)
	p := newPublisher(t, cfg)
	publish(t, p, append(created("phone", 0, 10), created("watch", 10, 20)...)...)
	var j journal
	begun, finish := make(chan struct{}, 10), make(chan struct{})
	var cancelled atomic.Bool
	first := consume(t, ConsumerConfig{ClientConfig: cfg}, p, func(ctx context.Context, batch []Event) ([]Event, error) {
		begun <- struct{}{}
		<-finish
		cancelled.Store(cancelled.Load() || ctx.Err() != nil)
		j.add(batch)
		return nil, nil
	})
	<-begun
	second := consume(t, ConsumerConfig{ClientConfig: cfg}, p, func(_ context.Context, batch []Event) ([]Event, error) {
		j.add(batch)
		return nil, nil
	})
	eventually(t, "the broker wants the group to rebalance", func() bool { g, err := describe(t, cfg); return err == nil && g.GroupState == "PreparingRebalance" })
	close(finish)
	eventually(t, "the second member is in", func() bool {
		return metric(t, second.cfg.Registerer, "seckill_kafka_consumer_rebalances_total", "") > 0
	})
	eventually(t, "all is committed", caughtUp(t, cfg))
	if distinct, total := j.counts(); distinct != 20 || total != 20 || cancelled.Load() {
		t.Errorf("%d events handled %d times, cancelled %v: want 20 once each, not cancelled", distinct, total, cancelled.Load())
	}
	if n := metric(t, first.cfg.Registerer, "seckill_kafka_consumer_commit_failures_total", ""); n != 0 {
		t.Errorf("%v commits failed", n)
	}
}

// describe returns the group "deduct" as its coordinator sees it.
func describe(t testing.TB, cfg ClientConfig) (group kafka.DescribeGroupsResponseGroup, err error) {
	t.Helper()
	err = cfg.withClient(func(client *kafka.Client) error {
		resp, err := client.DescribeGroups(t.Context(), &kafka.DescribeGroupsRequest{GroupIDs: []string{cfg.GroupName("deduct")}})
		if err != nil {
			return err
		}
		group = resp.Groups[0]
		return group.Error
	})
	return group, err
}

// The topic may be created after the consumer was started.
func TestConsumerWaitsForItsTopic(t *testing.T) {
	cfg := newCluster(t)
	cfg.Prefix += "-late"
	p := newPublisher(t, cfg)
	log := &logBook{}
	c := consume(t, ConsumerConfig{ClientConfig: cfg, Log: log.logger()}, p, func(context.Context, []Event) ([]Event, error) { return nil, nil })
	eventually(t, "three looks", func() bool { return metric(t, c.cfg.Registerer, "seckill_kafka_retries_total", "topic") >= 3 })
	apply(t, cfg)
	publish(t, p, created("phone", 0, 3)...)
	eventually(t, "all is committed", caughtUp(t, cfg))
	if n := log.count("stage fails", "stage=topic"); n != 1 {
		t.Errorf("a missing topic is logged %d times, want once", n)
	}
}

// A position outside the log must not be passed over in silence.
func TestConsumerOutsideTheLog(t *testing.T) {
	for _, tt := range []struct {
		name, why string
		committed int64 // in the partition of product "phone"
		deleted   int64 // records before this one
		handled   int
		skipped   float64
		line      string
	}{
		{"overtaken", "retention has deleted 4 of the 8 wanted", 2, 6, 4, 4, "records were deleted before they were read"},
		{"beyond", "the topic was made anew, or truncated: start over, the number lost is unknown", 99, 0, 10, 1, "position is outside the log"},
		{"within", "nothing lost: nothing counted", 6, 3, 4, 0, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := newCluster(t)
			p := newPublisher(t, cfg)
			publish(t, p, created("phone", 0, 10)...)
			at := records(t, cfg, Reservations)[0].Partition
			commitAs(t, cfg, at, tt.committed)
			deleteRecords(t, cfg, at, tt.deleted)
			var j journal
			log := &logBook{}
			c := consume(t, ConsumerConfig{ClientConfig: cfg, Log: log.logger()}, p, func(_ context.Context, batch []Event) ([]Event, error) {
				j.add(batch)
				return nil, nil
			})
			eventually(t, "what is left is handled: "+tt.why, func() bool { n, _ := j.counts(); return n == tt.handled })
			eventually(t, "all is committed", caughtUp(t, cfg))
			if n := metric(t, c.cfg.Registerer, "seckill_kafka_consumer_records_skipped_total", ""); n != tt.skipped {
				t.Errorf("%v records counted as skipped, want %v: %s", n, tt.skipped, tt.why)
			}
			if tt.line != "" && log.count("level=ERROR", tt.line) != 1 {
				t.Errorf("no line %q in the log", tt.line)
			}
		})
	}
}

// commitAs sets the position of the group, which has no members.
func commitAs(t testing.TB, cfg ClientConfig, partition int, offset int64) {
	t.Helper()
	eventually(t, "the position is set", func() bool {
		var failed error
		err := cfg.withClient(func(client *kafka.Client) error {
			resp, err := client.OffsetCommit(t.Context(), &kafka.OffsetCommitRequest{
				GroupID: cfg.GroupName("deduct"), GenerationID: -1,
				Topics: map[string][]kafka.OffsetCommit{cfg.TopicName(Reservations): {{Partition: partition, Offset: offset}}},
			})
			if err == nil {
				failed = resp.Topics[cfg.TopicName(Reservations)][0].Error
			}
			return err
		})
		return err == nil && failed == nil // a fresh broker has no coordinator at first
	})
}

// deleteRecords does what retention does. kafka-go has no such request.
func deleteRecords(t testing.TB, cfg ClientConfig, partition int, before int64) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(cfg.Brokers...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	p := kmsg.NewDeleteRecordsRequestTopicPartition()
	p.Partition, p.Offset = int32(partition), before
	topic := kmsg.NewDeleteRecordsRequestTopic()
	topic.Topic, topic.Partitions = cfg.TopicName(Reservations), append(topic.Partitions, p)
	req := kmsg.NewDeleteRecordsRequest()
	req.TimeoutMillis, req.Topics = 10_000, append(req.Topics, topic)
	resp, err := req.RequestWith(t.Context(), client)
	if err != nil {
		t.Fatal(err)
	}
	if code := resp.Topics[0].Partitions[0].ErrorCode; code != 0 {
		t.Fatal(kafka.Error(code))
	}
}

// Records that the handler names are put aside at once, whether it has the batch
// alone or with those of other partitions; everything else is handled, told once
// and in its order, and one that is not named is still found.
func TestConsumerPutsAsideWhoIsNamed(t *testing.T) {
	for _, tt := range []struct {
		name     string
		together bool
		named    []int
		unnamed  []int
		fault    bool // the first call has an outage beside what it names
		most     int64
		why      string
	}{
		{"some among many", false, []int{0, 17, 250, 499}, nil, false, 2, "one call says who, one handles the rest"},
		{"all", false, upTo(500), nil, false, 1, "nothing is left to be handled"},
		{"and an outage", false, []int{3, 4}, nil, true, 3, "the outage is of the rest, which is tried again"},
		{"and one unnamed", false, []int{3, 4}, []int{99}, false, 20, "the batch without those named is halved"},
		{"together", true, []int{0, 17, 250, 499}, nil, false, 3 * 12, "each partition handles its rest by itself"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := newCluster(t)
			if tt.together {
				cfg = newWideCluster(t)
			}
			p := newPublisher(t, cfg)
			evs := created("phone", 0, 500)
			if tt.together {
				evs = wide(0, 500)
			}
			publish(t, p, evs...)
			bad := make(map[string]bool)
			for _, n := range append(slices.Clone(tt.named), tt.unnamed...) {
				bad[evs[n].ReservationID] = slices.Contains(tt.named, n)
			}
			var mu sync.Mutex
			var calls atomic.Int64
			var j journal
			wait := time.Minute // until the batch has all 500, however slow the machine
			if tt.together {
				wait = time.Second
			}
			consume(t, ConsumerConfig{ClientConfig: cfg, Together: tt.together, MaxWait: wait}, p, func(_ context.Context, batch []Event) ([]Event, error) {
				mu.Lock()
				defer mu.Unlock()
				first := calls.Add(1) == 1
				var errs []error
				good := batch[:0:0]
				for _, e := range batch {
					switch named, isBad := bad[e.ReservationID]; {
					case named:
						errs = append(errs, fmt.Errorf("deep: %w", PermanentOf(e, "invalid", fmt.Errorf("reservation %s is bad", e.ReservationID))))
					case isBad:
						errs = append(errs, Permanent(errors.New("somebody here is bad")))
					default:
						good = append(good, e)
					}
				}
				if first && tt.fault {
					errs = append(errs, errors.New("mysql is away"))
				}
				if calls.Load() == 2 && tt.fault {
					errs = append(errs, errors.New("mysql is still away"))
				}
				if len(errs) == 0 {
					j.add(batch)
				}
				return follow(good), errors.Join(errs...)
			})
			eventually(t, "all is committed", caughtUp(t, cfg))
			if distinct, total := j.counts(); distinct != 500-len(bad) || total != 500-len(bad) {
				t.Errorf("%d handled, %d times in all, want %d once each: %s", distinct, total, 500-len(bad), tt.why)
			}
			if n := calls.Load(); n > tt.most {
				t.Errorf("%d calls, want at most %d: %s", n, tt.most, tt.why)
			}
			dead := records(t, cfg, DeadLetterTopic("deduct"))
			for _, m := range dead {
				h := headers(m)
				id := h[headerSubject]
				named, isBad := bad[id]
				if want := "reservation " + id + " is bad"; !isBad || named && (h[HeaderError] != want || h[HeaderErrorClass] != "invalid" || h[HeaderAttempt] == "0") {
					t.Errorf("dead letter of %s, %q of class %s after %s attempts", id, h[HeaderError], h[HeaderErrorClass], h[HeaderAttempt])
				}
			}
			if told := len(records(t, cfg, Deductions)); len(dead) != len(bad) || told != 500-len(bad) {
				t.Errorf("%d dead letters and %d told, want %d and %d", len(dead), told, len(bad), 500-len(bad))
			}
		})
	}
}

// upTo returns 0 to n-1.
func upTo(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

func TestCondemned(t *testing.T) {
	a, b := Event{ReservationID: "a"}, Event{ReservationID: "b"}
	for _, tt := range []struct {
		err  error
		want map[Event]string
		why  string
	}{
		{nil, map[Event]string{}, "nothing went wrong"},
		{errors.New("away"), map[Event]string{}, "nobody's fault"},
		{Permanent(errors.New("x")), map[Event]string{}, "somebody's, but whose?"},
		{PermanentOf(a, "", nil), map[Event]string{}, "no fault"},
		{PermanentOf(a, "", errors.New("x")), map[Event]string{a: "x"}, "alone"},
		{fmt.Errorf("1: %w", errors.Join(errors.New("away"), fmt.Errorf("2: %w", PermanentOf(a, "", errors.New("x"))), PermanentOf(b, "", errors.New("y")))), map[Event]string{a: "x", b: "y"}, "deep, beside others"},
		{errors.Join(PermanentOf(a, "", errors.New("first")), PermanentOf(a, "", errors.New("second"))), map[Event]string{a: "first"}, "a letter has one reason"},
	} {
		got := make(map[Event]string)
		for e, err := range Condemned(tt.err) {
			got[e] = err.Error()
		}
		if !maps.Equal(got, tt.want) {
			t.Errorf("%v condemns %v, want %v: %s", tt.err, got, tt.want, tt.why)
		}
	}
}
