package events

import (
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Place is a group in a partition, all names in full.
type Place struct {
	Group, Topic string
	Partition    int
}

// Standing is how far a group has come in a partition.
type Standing struct {
	Committed int64     // the record that the group wants next; -1 when it never committed
	Start     int64     // the oldest record still there; only a reading of the log knows it
	End       int64     // the offset of the record to come
	Oldest    time.Time // when the oldest uncommitted record was written; of no matter without lag
}

// Lag is the number of records that the group has still to handle: of those
// that are there, so neither what retention has cut nor an offset that a new
// topic of the old name has not reached counts.
func (s Standing) Lag() int64 { return max(0, s.End-max(s.Committed, s.Start)) }

// Age is how long the oldest uncommitted record has waited; 0 without lag.
func (s Standing) Age(now time.Time) time.Duration {
	if s.Lag() == 0 || s.Oldest.IsZero() {
		return 0
	}
	return max(0, now.Sub(s.Oldest))
}

// Log is the extent of one partition.
type Log struct {
	Topic      string // in full
	Partition  int
	Start, End int64 // the oldest record still there, and the one to come
}

// LagBoard exports lag as metrics: what this process's consumers know of their
// own partitions, to the moment, and for everything else what somebody has
// read from the brokers. There is one for each registry. A nil board shows
// nothing.
type LagBoard struct {
	now func() time.Time

	mu   sync.Mutex
	mine map[Place]Standing
	read map[Place]Standing
	logs []Log

	lag, seconds, committed, start, end *prometheus.Desc
}

// NewLagBoard returns the board of a registry; nil for nil.
func NewLagBoard(reg prometheus.Registerer, now func() time.Time) *LagBoard {
	if reg == nil {
		return nil
	}
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("seckill_kafka_"+name, help, labels, nil)
	}
	return register(reg, &LagBoard{
		now: now, mine: map[Place]Standing{},
		lag:       desc("consumer_lag_messages", "Records that the group has still to handle.", "group", "topic", "partition"),
		seconds:   desc("consumer_lag_seconds", "Age of the oldest record that the group has still to handle; 0 without any.", "group", "topic", "partition"),
		committed: desc("consumer_committed_offset", "Offset of the record that the group wants next; -1 when it never committed.", "group", "topic", "partition"),
		start:     desc("topic_partition_start_offset", "Offset of the oldest record still there.", "topic", "partition"),
		end:       desc("topic_partition_end_offset", "Offset of the record to come.", "topic", "partition"),
	})
}

// Show replaces what was read from the brokers. Groups and partitions that are
// not among it any more are not shown any more.
func (b *LagBoard) Show(read map[Place]Standing, logs []Log) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.read, b.logs = read, logs
}

// own says where a consumer of this process stands.
func (b *LagBoard) own(p Place, s Standing) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mine[p] = s
}

// drop forgets a partition that is not ours any more.
func (b *LagBoard) drop(p Place) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.mine, p)
}

// Describe implements prometheus.Collector.
func (b *LagBoard) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{b.lag, b.seconds, b.committed, b.start, b.end} {
		out <- d
	}
}

// Collect implements prometheus.Collector. Ages grow from one call to the
// next, also when nobody has read anything in between.
func (b *LagBoard) Collect(out chan<- prometheus.Metric) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	show := func(p Place, s Standing) {
		labels := []string{p.Group, p.Topic, strconv.Itoa(p.Partition)}
		gauge(b.lag, float64(s.Lag()), labels...)
		gauge(b.seconds, s.Age(now).Seconds(), labels...)
		gauge(b.committed, float64(s.Committed), labels...)
	}
	for p, s := range b.mine {
		show(p, s)
	}
	for p, s := range b.read {
		if _, ours := b.mine[p]; !ours {
			show(p, s)
		}
	}
	for _, l := range b.logs {
		gauge(b.start, float64(l.Start), l.Topic, strconv.Itoa(l.Partition))
		gauge(b.end, float64(l.End), l.Topic, strconv.Itoa(l.Partition))
	}
}
