// Package lag reads from the brokers how far behind each consumer group is, in
// records and in seconds: also of groups that nobody is in, of partitions that
// nobody has committed in, and after retention has cut the log. It moves
// nothing.
package lag

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/leadingpeers/seckill/internal/ops/kafkalog"
	"github.com/leadingpeers/seckill/pkg/events"
)

// Replays is what the names of replays' own groups begin with, after the
// installation's prefix.
const Replays = "replay."

// Row is one group in one partition.
type Row struct {
	events.Place
	events.Standing
	Owner string // the member that has the partition, as client@host; empty when nobody has
	State string // of the group: Stable, Empty, Dead, PreparingRebalance or CompletingRebalance
}

// Deleted is how many records retention has deleted before the group read them.
func (r Row) Deleted() int64 {
	if r.Committed < 0 {
		return 0
	}
	return max(0, r.Start-r.Committed)
}

// Note says in words what a number alone would hide.
func (r Row) Note() string {
	switch {
	case r.Committed < 0:
		return "never committed"
	case r.Committed > r.End:
		return "committed behind the end: the topic was made anew"
	case r.Deleted() > 0:
		return fmt.Sprintf("retention has deleted %d unread records", r.Deleted())
	}
	return ""
}

// Reading is what the brokers said at one moment: nearly one, because each
// partition is asked by itself.
type Reading struct {
	At   time.Time
	Rows []Row        // by group, topic and partition
	Logs []events.Log // every partition of every topic of ours
}

// Reader reads lag, again and again. It is for one goroutine.
type Reader struct {
	kafka *kafkalog.Kafka
	now   func() time.Time
	times map[record]time.Time // when uncommitted records were written: a group that stands still is not asked about twice
}

type record struct {
	topic     string
	partition int
	offset    int64
}

// NewReader returns a reader of what k's installation has.
func NewReader(k *kafkalog.Kafka, now func() time.Time) *Reader {
	return &Reader{kafka: k, now: now, times: map[record]time.Time{}}
}

// Read reads the lag of our groups, whether they exist or not, and of others
// whose names begin with the installation's prefix: the checkout's, replays.
// With a name, in full or without the prefix, it reads only that group's,
// which may have any name.
//
// It returns an error when a broker does not answer, or no group has that
// name. A topic that does not exist has no partitions.
func (r *Reader) Read(ctx context.Context, group string) (Reading, error) {
	groups, err := r.groups(ctx, group)
	if err != nil {
		return Reading{}, fmt.Errorf("read lag: %w", err)
	}
	out := Reading{At: r.now()}
	logs := extents{kafka: r.kafka, known: map[string]map[int]kafkalog.Extent{}}
	for _, t := range events.Topics() {
		name := r.kafka.Config().TopicName(t.Name)
		parts, err := logs.of(ctx, name)
		if err != nil {
			return Reading{}, fmt.Errorf("read lag: %w", err)
		}
		for _, p := range slices.Sorted(maps.Keys(parts)) {
			out.Logs = append(out.Logs, events.Log{Topic: name, Partition: p, Start: parts[p].Start, End: parts[p].End})
		}
	}
	for _, g := range groups {
		rows, err := r.rows(ctx, &logs, g)
		if err != nil {
			return Reading{}, fmt.Errorf("read lag: %w", err)
		}
		out.Rows = append(out.Rows, rows...)
	}
	r.forget(out.Rows)
	return out, nil
}

// groups lists the groups to read.
func (r *Reader) groups(ctx context.Context, only string) ([]string, error) {
	cfg := r.kafka.Config()
	there, err := r.kafka.GroupNames(ctx, "")
	if err != nil {
		return nil, err
	}
	var ours []string
	for _, t := range events.Topics() {
		if t.Group != "" {
			ours = append(ours, cfg.GroupName(t.Group))
		}
	}
	if only != "" {
		for _, name := range []string{cfg.GroupName(only), only} { // ours first: another installation may have a group of the short name
			if slices.Contains(there, name) || slices.Contains(ours, name) {
				return []string{name}, nil
			}
		}
		return nil, fmt.Errorf("no group is called %s or %s: seckill lag without --group lists ours", only, cfg.GroupName(only))
	}
	for _, name := range there {
		if strings.HasPrefix(name, cfg.GroupName("")) {
			ours = append(ours, name)
		}
	}
	slices.Sort(ours)
	return slices.Compact(ours), nil
}

// rows reads one group: the topic it is for, and every other in which it has
// committed or owns a partition.
func (r *Reader) rows(ctx context.Context, logs *extents, group string) ([]Row, error) {
	committed, err := r.kafka.Committed(ctx, group)
	if err != nil {
		return nil, err
	}
	members, err := r.kafka.Group(ctx, group)
	if err != nil {
		return nil, err
	}
	topics := slices.Collect(maps.Keys(committed))
	for _, m := range members.Members {
		topics = slices.AppendSeq(topics, maps.Keys(m.Owns))
	}
	cfg := r.kafka.Config()
	for _, t := range events.Topics() {
		if t.Group != "" && cfg.GroupName(t.Group) == group {
			topics = append(topics, cfg.TopicName(t.Name))
		}
	}
	slices.Sort(topics)
	var out []Row
	for _, topic := range slices.Compact(topics) {
		parts, err := logs.of(ctx, topic)
		if err != nil {
			return nil, err
		}
		for p, log := range parts {
			row := Row{
				Place:    events.Place{Group: group, Topic: topic, Partition: p},
				Standing: events.Standing{Committed: committed.Get(topic, p), Start: log.Start, End: log.End},
				Owner:    members.Owner(topic, p), State: members.State,
			}
			if row.Oldest, err = r.oldest(ctx, row); err != nil {
				return nil, err
			}
			out = append(out, row)
		}
	}
	slices.SortFunc(out, func(a, b Row) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	return out, nil
}

// oldest is when the oldest uncommitted record was written; zero without one.
func (r *Reader) oldest(ctx context.Context, row Row) (time.Time, error) {
	if row.Lag() == 0 {
		return time.Time{}, nil
	}
	key := record{row.Topic, row.Partition, max(row.Committed, row.Start)}
	if at, known := r.times[key]; known {
		return at, nil
	}
	m, there, err := r.kafka.First(ctx, key.topic, key.partition, key.offset)
	if err != nil || !there {
		return time.Time{}, err
	}
	r.times[key] = m.Time
	return m.Time, nil
}

// forget drops the times of records that nobody waits for any more.
func (r *Reader) forget(rows []Row) {
	keep := map[record]time.Time{}
	for _, row := range rows {
		key := record{row.Topic, row.Partition, max(row.Committed, row.Start)}
		if at, known := r.times[key]; known {
			keep[key] = at
		}
	}
	r.times = keep
}

// extents asks about each topic once.
type extents struct {
	kafka *kafkalog.Kafka
	known map[string]map[int]kafkalog.Extent
}

func (e *extents) of(ctx context.Context, topic string) (map[int]kafkalog.Extent, error) {
	if got, known := e.known[topic]; known {
		return got, nil
	}
	got, err := e.kafka.Extents(ctx, topic)
	if err != nil && !errors.Is(err, kafkalog.ErrNoTopic) {
		return nil, err
	}
	e.known[topic] = got
	return got, nil
}
