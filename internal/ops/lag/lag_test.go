package lag_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/leadingpeers/seckill/internal/ops/kafkalog"
	"github.com/leadingpeers/seckill/internal/ops/lag"
	"github.com/leadingpeers/seckill/internal/testservers"
	"github.com/leadingpeers/seckill/pkg/events"
)

// patience is how long a condition may take before a test fails.
const patience = 30 * time.Second

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline, tick := time.After(patience), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// open makes topics of three partitions each.
func open(t *testing.T) *kafkalog.Kafka {
	t.Helper()
	k := kafkalog.Open(events.ClientConfig{Brokers: testservers.Kafka(t), Prefix: testservers.Prefix(t)})
	t.Cleanup(k.Close)
	if err := events.Apply(t.Context(), k.Config(), events.Overrides{Partitions: 3, Replication: 1}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the broker has a coordinator", func() bool { _, err := k.Group(t.Context(), k.Config().GroupName("deduct")); return err == nil })
	return k
}

func publisher(t *testing.T, k *kafkalog.Kafka) *events.Publisher {
	t.Helper()
	p := events.NewPublisher(events.PublisherConfig{ClientConfig: k.Config(), Now: time.Now})
	t.Cleanup(func() { _ = p.Close(context.Background()) })
	return p
}

func rid(n int) string {
	return strings.Repeat("a", 22) + string([]byte{'a' + byte(n/17576%26), 'a' + byte(n/676%26), 'a' + byte(n/26%26), 'a' + byte(n%26)})
}

// publish writes reservations of twenty products, so that every partition has some.
func publish(t *testing.T, p *events.Publisher, from, to int) {
	t.Helper()
	var evs []events.Event
	for n := from; n < to; n++ {
		evs = append(evs, events.Event{Type: events.ReservationCreated, ReservationID: rid(n), ProductID: fmt.Sprintf("p%d", n%20), UserID: "lin", Quantity: 1})
	}
	for some := range slices.Chunk(evs, 5000) {
		if err := p.Publish(t.Context(), some...); err != nil {
			t.Fatal(err)
		}
	}
}

// consume runs a member of the group deduct until the returned function is called.
func consume(t *testing.T, k *kafkalog.Kafka, p *events.Publisher, handle events.Handler) (stop func()) {
	t.Helper()
	c := events.NewConsumer(events.ConsumerConfig{ClientConfig: k.Config(), Group: "deduct", Topic: events.Reservations, SessionTimeout: 6 * time.Second, DrainTimeout: 4 * time.Second}, handle, p)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(stop)
	return stop
}

func read(t *testing.T, k *kafkalog.Kafka, group string) map[int]lag.Row {
	t.Helper()
	reading, err := lag.NewReader(k, time.Now).Read(t.Context(), group)
	if err != nil {
		t.Fatal(err)
	}
	out := map[int]lag.Row{}
	for _, r := range reading.Rows {
		out[r.Partition] = r
	}
	return out
}

func total(rows map[int]lag.Row) (n int64) {
	for _, r := range rows {
		n += r.Lag()
	}
	return n
}

// figures are what Kafka's own tool says of a partition.
type figures struct{ committed, end, lag int64 }

// kafkaTool runs Kafka's own kafka-consumer-groups from the jars of deploy/local/servers.
func kafkaTool(t *testing.T, k *kafkalog.Kafka, group string) map[int]figures {
	t.Helper()
	home := os.Getenv("SECKILL_SERVERS_HOME")
	if home == "" {
		user, err := os.UserHomeDir()
		if err != nil {
			t.Fatal(err)
		}
		home = filepath.Join(user, ".cache", "seckill")
	}
	libs := filepath.Join(home, "kafka", "libs")
	if _, err := os.Stat(libs); err != nil {
		t.Fatalf("no Kafka jars in %s: deploy/local/servers up fetches them", libs)
	}
	java := "java"
	if dir := os.Getenv("JAVA_HOME"); dir != "" {
		java = filepath.Join(dir, "bin", "java")
	}
	out, err := exec.CommandContext(t.Context(), java, "-XX:+UseSerialGC", "-Dlog4j2.configurationFile=../../../deploy/local/kafka/log4j2.properties",
		"-cp", filepath.Join(libs, "*"), "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
		"--bootstrap-server", k.Config().Brokers[0], "--describe", "--group", group).CombinedOutput()
	if err != nil {
		t.Fatalf("Kafka's own tool: %v\n%s", err, out)
	}
	found := map[int]figures{}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line) // GROUP TOPIC PARTITION [LEADER-EPOCH] CURRENT-OFFSET LOG-END-OFFSET LAG …
		if len(f) < 6 || f[0] != group {
			continue
		}
		number := func(i int) int64 {
			n, err := strconv.ParseInt(f[i], 10, 64)
			if err != nil {
				return -1 // "-": nothing was committed
			}
			return n
		}
		found[int(number(2))] = figures{number(3), number(4), number(5)}
	}
	if len(found) == 0 {
		t.Fatalf("Kafka's own tool says nothing of %s:\n%s", group, out)
	}
	return found
}

// kcat says where a partition ends, and how many records lie behind an offset.
func kcat(t *testing.T, k *kafkalog.Kafka, topic string, partition int, from int64) (end, behind int64) {
	t.Helper()
	run := func(args ...string) []byte {
		out, err := exec.CommandContext(t.Context(), "kcat", append([]string{"-b", k.Config().Brokers[0], "-q"}, args...)...).Output()
		if err != nil {
			t.Fatalf("kcat %v: %v", args, err)
		}
		return out
	}
	words := strings.Fields(string(run("-Q", "-t", fmt.Sprintf("%s:%d:-1", topic, partition))))
	end, err := strconv.ParseInt(words[len(words)-1], 10, 64)
	if err != nil {
		t.Fatalf("kcat says %q", words)
	}
	if from < end {
		lines := bufio.NewScanner(bytes.NewReader(run("-C", "-e", "-t", topic, "-p", strconv.Itoa(partition), "-o", strconv.FormatInt(from, 10), "-f", "%o\n")))
		for lines.Scan() {
			behind++
		}
	}
	return end, behind
}

// Three programs say the same: ours, Kafka's own, and kcat. SECKILL_TEST_LAG
// says of how many events; by itself of 1,000.
func TestLagIsWhatKafkaAndKcatSay(t *testing.T) {
	testservers.Real(t)
	all := 1000
	if text := os.Getenv("SECKILL_TEST_LAG"); text != "" {
		var err error
		if all, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	handled := all * 6 / 10
	k := open(t)
	p := publisher(t, k)
	group, topic := k.Config().GroupName("deduct"), k.Config().TopicName(events.Reservations)
	publish(t, p, 0, handled)
	stop := consume(t, k, p, func(context.Context, []events.Event) ([]events.Event, error) { return nil, nil })
	eventually(t, "all is handled", func() bool {
		rows := read(t, k, "deduct")
		return total(rows) == 0 && rows[0].Committed >= 0 && rows[1].Committed >= 0 && rows[2].Committed >= 0
	})
	same(t, k, group, topic) // with a member, without lag
	stop()
	publish(t, p, handled, all)
	same(t, k, group, topic) // without a member, with lag
	if n := total(read(t, k, group)); n != int64(all-handled) {
		t.Errorf("lag %d, want the %d published since", n, all-handled)
	}
}

func same(t *testing.T, k *kafkalog.Kafka, group, topic string) {
	t.Helper()
	ours := map[int]figures{}
	for p, r := range read(t, k, group) {
		ours[p] = figures{r.Committed, r.End, r.Lag()}
		end, behind := kcat(t, k, topic, p, r.Committed)
		if end != r.End || behind != r.Lag() {
			t.Errorf("partition %d: end %d, lag %d; kcat says %d and finds %d records", p, r.End, r.Lag(), end, behind)
		}
	}
	if diff := cmp.Diff(kafkaTool(t, k, group), ours, cmp.AllowUnexported(figures{})); diff != "" {
		t.Errorf("Kafka's own tool and we (-Kafka +we):\n%s", diff)
	}
}

// Under load, what Kafka's tool says lies between what we say before and after.
func TestLagUnderLoad(t *testing.T) {
	testservers.Real(t)
	k := open(t)
	p := publisher(t, k)
	group := k.Config().GroupName("deduct")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for n := 0; ctx.Err() == nil; n += 100 {
			var evs []events.Event
			for i := range 100 {
				evs = append(evs, events.Event{Type: events.ReservationCreated, ReservationID: rid((n + i) % 400000), ProductID: fmt.Sprintf("p%d", i%20), UserID: "lin", Quantity: 1})
			}
			_ = p.Publish(ctx, evs...) // the last one is cut short
		}
	}()
	defer func() { cancel(); <-ended }()
	consume(t, k, p, func(context.Context, []events.Event) ([]events.Event, error) { return nil, nil })
	eventually(t, "the group works everywhere", func() bool {
		rows := read(t, k, "deduct")
		return rows[0].Committed > 0 && rows[1].Committed > 0 && rows[2].Committed > 0
	})
	before := read(t, k, group)
	kafkas := kafkaTool(t, k, group)
	after := read(t, k, group)
	for p, f := range kafkas {
		if b, a := before[p], after[p]; f.committed < b.Committed || f.committed > a.Committed || f.end < b.End || f.end > a.End {
			t.Errorf("partition %d: Kafka's tool says %+v, we said %d of %d before and %d of %d after", p, f, b.Committed, b.End, a.Committed, a.End)
		}
		if owner := after[p].Owner; !regexp.MustCompile(`^` + k.Config().Prefix + `-[a-z2-7]{8}@127\.0\.0\.1$`).MatchString(owner) {
			t.Errorf("partition %d is owned by %q, want the client's name and host", p, owner)
		}
	}
	if before[0].End+before[1].End+before[2].End == after[0].End+after[1].End+after[2].End {
		t.Error("nothing moved: this was no load")
	}
}

// What is not ordinary is shown as it is, and said in words.
func TestLagOutOfTheOrdinary(t *testing.T) {
	k := open(t)
	p := publisher(t, k)
	topic := k.Config().TopicName(events.Reservations)
	publish(t, p, 0, 300)
	logs, err := k.Extents(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	commit := func(group string, at map[int]int64) {
		if err := k.Commit(t.Context(), k.Config().GroupName(group), kafkalog.Offsets{topic: at}); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		why, group string
		at         map[int]int64
		lag        [3]int64
		note       [3]string
	}{
		{"nobody has ever been in the group", "deduct", nil, [3]int64{logs[0].End, logs[1].End, logs[2].End}, [3]string{"never committed", "never committed", "never committed"}},
		{"the last word of the day before", "checkout", map[int]int64{0: logs[0].End, 1: logs[1].End, 2: logs[2].End}, [3]int64{}, [3]string{}},
		{"a partition without a commit counts whole", "half", map[int]int64{0: logs[0].End - 1, 1: 2}, [3]int64{1, logs[1].End - 2, logs[2].End}, [3]string{"", "", "never committed"}},
		{"an offset behind the end of a topic made anew is no lag, and said", "anew", map[int]int64{0: 9999, 1: logs[1].End, 2: logs[2].End}, [3]int64{}, [3]string{"committed behind the end: the topic was made anew"}},
	} {
		t.Run(c.why, func(t *testing.T) {
			if c.at != nil {
				commit(c.group, c.at)
			}
			rows := read(t, k, c.group)
			for p := range 3 {
				if rows[p].Lag() != c.lag[p] || rows[p].Note() != c.note[p] {
					t.Errorf("partition %d: lag %d, note %q, want %d, %q", p, rows[p].Lag(), rows[p].Note(), c.lag[p], c.note[p])
				}
				if age := rows[p].Age(time.Now()); (age > 0) != (c.lag[p] > 0) || age > time.Hour {
					t.Errorf("partition %d: age %s with lag %d", p, age, c.lag[p])
				}
			}
		})
	}
	t.Run("an empty topic has none", func(t *testing.T) {
		rows := read(t, k, "settle")
		if len(rows) != 3 || total(rows) != 0 {
			t.Errorf("%d partitions with lag %d, want 3 with none", len(rows), total(rows))
		}
	})
	t.Run("a group that nobody has heard of", func(t *testing.T) {
		if _, err := lag.NewReader(k, time.Now).Read(t.Context(), "nobody"); err == nil || !strings.Contains(err.Error(), "no group is called nobody") {
			t.Errorf("read %v, want an error that says so", err)
		}
	})
	t.Run("ours, though somebody else has a group of the short name", func(t *testing.T) {
		short := "short-" + k.Config().Prefix
		commit(short, map[int]int64{0: 1})
		if err := k.Commit(t.Context(), short, kafkalog.Offsets{topic: {0: 2}}); err != nil {
			t.Fatal(err)
		}
		if got := read(t, k, short)[0].Committed; got != 1 {
			t.Errorf("committed %d, want the 1 of our group", got)
		}
	})
	t.Run("a group whose offsets were deleted", func(t *testing.T) {
		commit("checkout", map[int]int64{0: -1})
		rows := read(t, k, "checkout")
		if rows[0].Note() != "never committed" || rows[0].Lag() != logs[0].End || rows[1].Lag() != 0 {
			t.Errorf("partition 0: lag %d, note %q; partition 1: lag %d", rows[0].Lag(), rows[0].Note(), rows[1].Lag())
		}
	})
}

// Retention that has overtaken a group: what is gone is not lag, and is said.
func TestLagAfterRetention(t *testing.T) {
	k := open(t)
	publish(t, publisher(t, k), 0, 300)
	topic, group := k.Config().TopicName(events.Reservations), k.Config().GroupName("deduct")
	logs, err := k.Extents(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Commit(t.Context(), group, kafkalog.Offsets{topic: {0: 3, 1: 0, 2: logs[2].End}}); err != nil {
		t.Fatal(err)
	}
	testservers.DeleteRecords(t, topic, 0, 10)
	eventually(t, "the records are gone", func() bool { return read(t, k, group)[0].Start == 10 })
	row := read(t, k, group)[0]
	if row.Deleted() != 7 || row.Lag() != logs[0].End-10 || row.Note() != "retention has deleted 7 unread records" {
		t.Errorf("lag %d, %d deleted, %q; want %d and 7", row.Lag(), row.Deleted(), row.Note(), logs[0].End-10)
	}
}

// The poller's metrics are there for groups that nobody works for, and follow.
func TestPoller(t *testing.T) {
	k := open(t)
	p := publisher(t, k)
	publish(t, p, 0, 300)
	topic := k.Config().TopicName(events.Reservations)
	replay := k.Config().GroupName(lag.Replays + "r1")
	if err := k.Commit(t.Context(), replay, kafkalog.Offsets{topic: {0: 0}}); err != nil {
		t.Fatal(err)
	}
	reg := prometheus.NewRegistry()
	poller := lag.NewPoller(k.Config(), lag.PollerConfig{Every: 50 * time.Millisecond, Now: time.Now, Registerer: reg})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- poller.Run(ctx) }()
	eventually(t, "the lag of nobody is shown", func() bool {
		return sum(t, reg, "seckill_kafka_consumer_lag_messages", k.Config().GroupName("deduct")) == 300
	})
	eventually(t, "and its age", func() bool {
		return sum(t, reg, "seckill_kafka_consumer_lag_seconds", k.Config().GroupName("deduct")) > 0
	})
	if n := sum(t, reg, "seckill_kafka_consumer_committed_offset", k.Config().GroupName("deduct")); n != -3 {
		t.Errorf("committed %v, want -1 in each of three partitions", n)
	}
	if n := sum(t, reg, "seckill_kafka_topic_partition_end_offset", topic); n != 300 {
		t.Errorf("end offsets %v, want 300 in all", n)
	}
	if n := sum(t, reg, "seckill_kafka_consumer_lag_messages", replay); n != 0 {
		t.Errorf("a replay's group is shown with %v: each has a name of its own, for ever", n)
	}
	consume(t, k, p, func(context.Context, []events.Event) ([]events.Event, error) { return nil, nil })
	eventually(t, "the lag is gone", func() bool {
		return sum(t, reg, "seckill_kafka_consumer_lag_messages", "") == 0 && sum(t, reg, "seckill_kafka_consumer_lag_seconds", "") == 0 &&
			sum(t, reg, "seckill_kafka_consumer_committed_offset", k.Config().GroupName("deduct")) == 300
	})
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// sum adds up the gauges of a name whose group or topic is label; "" = all.
func sum(t *testing.T, reg *prometheus.Registry, name, label string) (n float64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if f.GetName() == name && l.GetName() != "partition" && (l.GetValue() == label || label == "" && l.GetName() == "topic") {
					n += m.GetGauge().GetValue()
				}
			}
		}
	}
	return n
}

func TestOutlooks(t *testing.T) {
	start := time.Date(2026, 11, 11, 20, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		why           string
		before, after events.Standing
		want          string
	}{
		{"caught up", events.Standing{Committed: 10, End: 10}, events.Standing{Committed: 20, End: 20}, "-"},
		{"shrinks by 50 a second with 200 to go", events.Standing{Committed: 0, End: 300}, events.Standing{Committed: 200, End: 400}, "4s"},
		{"as fast as new ones come", events.Standing{Committed: 0, End: 100}, events.Standing{Committed: 100, End: 200}, "growing"},
		{"nobody works", events.Standing{Committed: 5, End: 100}, events.Standing{Committed: 5, End: 120}, "stalled"},
		{"nobody works, nothing comes", events.Standing{Committed: 5, End: 100}, events.Standing{Committed: 5, End: 100}, "stalled"},
		{"a million at 500 a second", events.Standing{Committed: 0, End: 1_000_000}, events.Standing{Committed: 1000, End: 1_000_000}, "33m18s"},
	} {
		place := events.Place{Group: "g", Topic: "t"}
		at := func(s events.Standing, when time.Time) lag.Reading {
			return lag.Reading{At: when, Rows: []lag.Row{{Place: place, Standing: s}}}
		}
		got := lag.Outlooks(at(c.before, start), at(c.after, start.Add(2*time.Second)))[place]
		if got.String() != c.want {
			t.Errorf("%s: %q (%+v), want %q", c.why, got, got, c.want)
		}
	}
}
