package topics_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/segmentio/kafka-go"

	"github.com/leadingpeers/seckill/internal/ops/kafkalog"
	"github.com/leadingpeers/seckill/internal/ops/topics"
	"github.com/leadingpeers/seckill/internal/testservers"
	"github.com/leadingpeers/seckill/pkg/events"
)

// patience is how long a condition may take before a test fails.
const patience = 30 * time.Second

func open(t *testing.T) *kafkalog.Kafka {
	t.Helper()
	k := kafkalog.Open(events.ClientConfig{Brokers: testservers.Kafka(t), Prefix: testservers.Prefix(t)})
	t.Cleanup(k.Close)
	return k
}

func create(t *testing.T, k *kafkalog.Kafka, topic events.Topic, partitions int, settings map[string]string) {
	t.Helper()
	config := kafka.TopicConfig{Topic: k.Config().TopicName(topic), NumPartitions: partitions, ReplicationFactor: 1}
	for name, value := range settings {
		config.ConfigEntries = append(config.ConfigEntries, kafka.ConfigEntry{ConfigName: name, ConfigValue: value})
	}
	resp, err := k.Client().CreateTopics(t.Context(), &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{config}})
	if err == nil {
		err = resp.Errors[config.Topic]
	}
	if err != nil {
		t.Fatal(err)
	}
}

// small are topics of two partitions: twelve each would be slow here.
func small() events.Overrides { return events.Overrides{Partitions: 2, Replication: 1} }

func changesOf(t *testing.T, k *kafkalog.Kafka, o events.Overrides, topic events.Topic) []string {
	t.Helper()
	plan, err := topics.Plan(t.Context(), k, o)
	if err != nil {
		t.Fatal(err)
	}
	return words(k, slices.Concat(func() (all [][]topics.Change) {
		for _, s := range plan {
			if s.Name == topic {
				all = append(all, s.Changes)
			}
		}
		return all
	}()...))
}

func words(k *kafkalog.Kafka, changes []topics.Change) (out []string) {
	for _, c := range changes {
		name := strings.TrimPrefix(c.Topic, k.Config().TopicName(""))
		out = append(out, strings.TrimSpace(fmt.Sprintf("%s %s %s->%s %s", name, c.What, c.Have, c.Want, c.Danger)))
	}
	return out
}

func millis(days int) string {
	return strconv.FormatInt((time.Duration(days) * 24 * time.Hour).Milliseconds(), 10)
}

func TestPlanAndApply(t *testing.T) {
	testservers.Real(t) // the stand-in has no such settings
	cases := []struct {
		why    string
		topic  events.Topic
		have   int // partitions; 0 = the topic is missing
		config map[string]string
		plan   []string
		ack    topics.Acknowledged
		left   []string
		after  []string // what still differs
	}{
		{"what is missing is made", events.Reservations, 0, nil, []string{"reservations topic ->2 partitions, 1 copies, 7d, 1 in sync"}, topics.Acknowledged{}, nil, nil},
		{"as planned", events.Orders, 2, map[string]string{"retention.ms": millis(14), "min.insync.replicas": "1"}, nil, topics.Acknowledged{}, nil, nil},
		{"longer retention loses nothing", events.Orders, 2, map[string]string{"retention.ms": millis(3)}, []string{"orders retention.ms 3d->14d"}, topics.Acknowledged{}, nil, nil},
		{
			"shorter retention deletes records", events.Orders, 2,
			map[string]string{"retention.ms": millis(30)},
			[]string{"orders retention.ms 30d->14d shrinks"},
			topics.Acknowledged{Rekeys: true},
			[]string{"orders retention.ms 30d->14d shrinks"},
			[]string{"orders retention.ms 30d->14d shrinks"},
		},
		{
			"and is made when told to, also from for ever", events.Orders, 2,
			map[string]string{"retention.ms": "-1"},
			[]string{"orders retention.ms for ever->14d shrinks"},
			topics.Acknowledged{Shrinks: true},
			nil, nil,
		},
		{
			"more partitions send keys elsewhere", events.Reservations, 1,
			map[string]string{"retention.ms": millis(7)},
			[]string{"reservations partitions 1->2 rekeys"},
			topics.Acknowledged{Shrinks: true},
			[]string{"reservations partitions 1->2 rekeys"},
			[]string{"reservations partitions 1->2 rekeys"},
		},
		{
			"and are made when told to", events.Reservations, 1,
			map[string]string{"retention.ms": millis(7)},
			[]string{"reservations partitions 1->2 rekeys"},
			topics.Acknowledged{Rekeys: true},
			nil, nil,
		},
		{
			"dead letters have no keys to move", events.DeadLetterTopic("deduct"), 1,
			map[string]string{"retention.ms": millis(30)},
			[]string{"deduct.dlq partitions 1->2"},
			topics.Acknowledged{},
			nil, nil,
		},
		{
			"partitions never go", events.Reservations, 3,
			map[string]string{"retention.ms": millis(7)},
			[]string{"reservations partitions 3->2 impossible"},
			topics.Acknowledged{Rekeys: true, Shrinks: true},
			[]string{"reservations partitions 3->2 impossible"},
			[]string{"reservations partitions 3->2 impossible"},
		},
		{
			"fewer copies for an acknowledgement", events.Payments, 2,
			map[string]string{"retention.ms": millis(7), "min.insync.replicas": "2"},
			[]string{"payments min.insync.replicas 2->1 shrinks"},
			topics.Acknowledged{},
			[]string{"payments min.insync.replicas 2->1 shrinks"},
			[]string{"payments min.insync.replicas 2->1 shrinks"},
		},
	}
	for _, c := range cases {
		t.Run(c.why, func(t *testing.T) {
			k := open(t)
			if c.have > 0 {
				create(t, k, c.topic, c.have, c.config)
			}
			eventually(t, k, small(), c.topic, c.plan)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			made, left, err := topics.Apply(ctx, k, small(), c.ack)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.left, words(k, left)); diff != "" {
				t.Errorf("left (-want +got):\n%s", diff)
			}
			if want := len(c.plan) - len(c.left); want > 0 && !slices.Contains(words(k, made), c.plan[0]) {
				t.Errorf("made %v, want %v among it", words(k, made), c.plan)
			}
			eventually(t, k, small(), c.topic, c.after)
		})
	}
}

// eventually waits until a plan for the topic says what is wanted: the brokers
// learn of a change in their own time.
func eventually(t *testing.T, k *kafkalog.Kafka, o events.Overrides, topic events.Topic, want []string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		got := changesOf(t, k, o, topic)
		if cmp.Equal(got, want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the plan says %q, want %q", got, want)
		}
	}
}

func TestApplyNamesTheFileItself(t *testing.T) {
	k := open(t)
	if _, _, err := topics.Apply(t.Context(), k, small(), topics.Acknowledged{}); err != nil {
		t.Fatal(err)
	}
	plan, err := topics.Plan(t.Context(), k, small())
	if err != nil {
		t.Fatal(err)
	}
	if len(plan) != len(events.Topics()) {
		t.Errorf("%d topics planned, the file has %d", len(plan), len(events.Topics()))
	}
	for _, s := range plan {
		if s.Missing || s.HavePartitions != 2 {
			t.Errorf("%s: missing %v, %d partitions, want 2", s.FullName, s.Missing, s.HavePartitions)
		}
	}
}

func TestFind(t *testing.T) {
	cfg := events.ClientConfig{Prefix: "shop"}
	for _, c := range []struct {
		name string
		want events.Topic // "" = an error
		why  string
	}{
		{"reservations", events.Reservations, "the short name"},
		{"shop.reservations", events.Reservations, "the full one"},
		{"deduct.dlq", events.DeadLetterTopic("deduct"), "dead letters"},
		{"seckill.reservations", "", "another installation's"},
		{"reservation", "", "misspelt"},
	} {
		got, err := topics.Find(cfg, c.name)
		if got.Name != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s: Find(%q) = %q, %v, want %q", c.why, c.name, got.Name, err, c.want)
		}
	}
}

func TestMoment(t *testing.T) {
	now := time.Date(2026, 11, 11, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		text, want, why string // want "" = an error
	}{
		{"", "0001-01-01T00:00:00Z", "no limit"},
		{"2026-11-11T19:00:00+08:00", "2026-11-11T11:00:00Z", "a time with its zone"},
		{"30m", "2026-11-11T11:30:00Z", "how long ago"},
		{"-30m", "2026-11-11T11:30:00Z", "with a sign"},
		{"7d", "2026-11-04T12:00:00Z", "days, which Go's durations do not have"},
		{"yesterday", "", "a word"},
		{"2026-11-11 19:00", "", "no zone: whose evening?"},
		{"--5m", "", "in the future"},
	} {
		got, err := topics.Moment(c.text, now)
		if (err == nil) != (c.want != "") || (err == nil && got.UTC().Format(time.RFC3339) != c.want) {
			t.Errorf("%s: Moment(%q) = %s, %v, want %s", c.why, c.text, got, err, c.want)
		}
	}
}

// rid makes the n-th reservation ID.
func rid(n int) string {
	return strings.Repeat("a", 24) + string(rune('a'+n/26)) + string(rune('a'+n%26))
}

func TestTail(t *testing.T) {
	k := open(t)
	if err := events.Apply(t.Context(), k.Config(), small()); err != nil {
		t.Fatal(err)
	}
	p := events.NewPublisher(events.PublisherConfig{ClientConfig: k.Config(), Now: time.Now})
	t.Cleanup(func() { _ = p.Close(context.Background()) })
	publish := func(from, to int, product string) {
		for n := from; n < to; n++ { // one after another, so that their times have an order
			e := events.Event{Type: events.ReservationCreated, ReservationID: rid(n), ProductID: product, UserID: "lin", Quantity: 1}
			if err := p.Publish(t.Context(), e); err != nil {
				t.Fatal(err)
			}
		}
	}
	publish(0, 5, "phone")
	publish(5, 10, "earbuds")
	<-time.After(2 * time.Millisecond) // record times are whole milliseconds
	middle := time.Now()
	<-time.After(2 * time.Millisecond)
	publish(10, 15, "phone")
	if err := p.Republish(t.Context(), events.Reservations, nil, kafka.Message{Key: []byte("phone"), Value: []byte("hello")}); err != nil {
		t.Fatal(err)
	}
	ids := func(from, to int) (out []string) {
		for n := from; n < to; n++ {
			out = append(out, rid(n))
		}
		return out
	}
	for _, c := range []struct {
		why  string
		f    topics.Filter
		r    topics.Range
		want []string
	}{
		{"everything, also what is no event, in the order of time over both partitions", topics.Filter{}, topics.Range{}, append(ids(0, 15), "no event")},
		{"one product", topics.Filter{Product: "earbuds"}, topics.Range{}, ids(5, 10)},
		{"one reservation", topics.Filter{Reservation: rid(12)}, topics.Range{}, ids(12, 13)},
		{"a type", topics.Filter{Type: "reservation.created"}, topics.Range{}, ids(0, 15)},
		{"a type that is not there", topics.Filter{Type: "rollback"}, topics.Range{}, nil},
		{"until a time", topics.Filter{}, topics.Range{To: middle}, ids(0, 10)},
		{"from a time", topics.Filter{Product: "phone"}, topics.Range{From: middle}, ids(10, 15)},
		{"from a time to come", topics.Filter{}, topics.Range{From: time.Now().Add(time.Hour)}, nil},
		{"until a time before all", topics.Filter{}, topics.Range{To: time.Now().Add(-time.Hour)}, nil},
	} {
		t.Run(c.why, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			var got []string
			err := topics.Tail(ctx, k, topics.Query{Topic: spec(t, events.Reservations), Filter: c.f, Range: c.r}, func(l topics.Line) error {
				id := l.Event.ReservationID
				if l.Problem != "" {
					id = "no event"
				}
				got = append(got, id)
				return nil
			})
			if diff := cmp.Diff(c.want, got); err != nil || diff != "" {
				t.Errorf("%v; tailed (-want +got):\n%s", err, diff)
			}
		})
	}
}

func spec(t *testing.T, topic events.Topic) events.TopicSpec {
	t.Helper()
	for _, s := range events.Topics() {
		if s.Name == topic {
			return s
		}
	}
	t.Fatalf("no topic %s", topic)
	return events.TopicSpec{}
}

func TestTailFollows(t *testing.T) {
	k := open(t)
	if err := events.Apply(t.Context(), k.Config(), small()); err != nil {
		t.Fatal(err)
	}
	p := events.NewPublisher(events.PublisherConfig{ClientConfig: k.Config(), Now: time.Now})
	t.Cleanup(func() { _ = p.Close(context.Background()) })
	one := func(n int, product string) {
		e := events.Event{Type: events.ReservationCreated, ReservationID: rid(n), ProductID: product, UserID: "lin", Quantity: 1}
		if err := p.Publish(t.Context(), e); err != nil {
			t.Error(err)
		}
	}
	one(0, "phone")
	enough, published := errors.New("enough"), make(chan struct{})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var got []string
	err := topics.Tail(ctx, k, topics.Query{Topic: spec(t, events.Reservations), Filter: topics.Filter{}, Range: topics.Range{Follow: true}}, func(l topics.Line) error {
		got = append(got, l.Event.ReservationID)
		switch len(got) {
		case 1:
			go func() { defer close(published); one(1, "phone") }() // comes while we look
		case 2:
			return enough
		}
		return nil
	})
	<-published
	if !errors.Is(err, enough) || !slices.Equal(got, []string{rid(0), rid(1)}) {
		t.Errorf("followed %v, %v, want both", got, err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if err := topics.Tail(ended, k, topics.Query{Topic: spec(t, events.Reservations), Filter: topics.Filter{}, Range: topics.Range{Follow: true}}, nil); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("an interrupted tail says %v", err)
	}
}

// A dead letter is shown as the event it was.
func TestTailDeadLetters(t *testing.T) {
	k := open(t)
	if err := events.Apply(t.Context(), k.Config(), small()); err != nil {
		t.Fatal(err)
	}
	p := events.NewPublisher(events.PublisherConfig{ClientConfig: k.Config(), Now: time.Now})
	t.Cleanup(func() { _ = p.Close(context.Background()) })
	e := events.Event{Type: events.StockRollback, ReservationID: rid(0), ProductID: "phone", UserID: "lin", Quantity: 1}
	if err := p.Publish(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	var dead kafka.Message
	for p := range 2 {
		for m, err := range k.Records(t.Context(), kafkalog.Stretch{Topic: k.Config().TopicName(events.Rollbacks), Partition: p, To: 1}) {
			if err == nil {
				dead = m
			}
		}
	}
	marks := map[string]string{events.HeaderOriginTopic: k.Config().TopicName(events.Rollbacks), events.HeaderErrorClass: "permanent"}
	if err := p.Republish(t.Context(), events.DeadLetterTopic("rollback"), marks, dead); err != nil {
		t.Fatal(err)
	}
	var got []topics.Line
	err := topics.Tail(t.Context(), k, topics.Query{Topic: spec(t, events.DeadLetterTopic("rollback")), Filter: topics.Filter{Reservation: rid(0)}, Range: topics.Range{}}, func(l topics.Line) error {
		got = append(got, l)
		return nil
	})
	if err != nil || len(got) != 1 || got[0].Event.Type != events.StockRollback || got[0].Headers[events.HeaderErrorClass] != "permanent" {
		t.Errorf("dead letters %+v, %v, want the rollback", got, err)
	}
}
