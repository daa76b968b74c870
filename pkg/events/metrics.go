package events

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// register adds c to reg, or returns the collector that is there already: two
// publishers of one process count together.
func register[C prometheus.Collector](reg prometheus.Registerer, c C) C {
	if reg == nil {
		return c
	}
	err := reg.Register(c)
	var there prometheus.AlreadyRegisteredError
	if errors.As(err, &there) {
		if old, ok := there.ExistingCollector.(C); ok {
			return old
		}
	}
	if err != nil {
		panic(err) // two metrics of one name: a mistake in the program
	}
	return c
}

// Buckets, in seconds and in events.
func secondsBuckets() []float64 {
	return []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}
}

func sizeBuckets() []float64 { return []float64{1, 2, 5, 10, 20, 50, 100, 200, 500, 1000} }

type producerMetrics struct {
	messages *prometheus.CounterVec // by topic and result: ok, failed
	seconds  prometheus.Histogram
	batch    prometheus.Histogram
	retries  prometheus.Counter
}

func newProducerMetrics(reg prometheus.Registerer, inflight func() float64) producerMetrics {
	const name = "seckill_kafka_producer_"
	register(reg, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name + "inflight", Help: "Events that wait for their acknowledgement."}, inflight))
	return producerMetrics{
		messages: register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{Name: name + "messages_total", Help: "Events published, by result: ok or failed."}, []string{"topic", "result"})),
		seconds:  register(reg, prometheus.NewHistogram(prometheus.HistogramOpts{Name: name + "publish_seconds", Help: "Time of one Publish call.", Buckets: secondsBuckets()})),
		batch:    register(reg, prometheus.NewHistogram(prometheus.HistogramOpts{Name: name + "batch_size", Help: "Events in one produce request.", Buckets: sizeBuckets()})),
		retries:  register(reg, prometheus.NewCounter(prometheus.CounterOpts{Name: name + "retries_total", Help: "Events sent again."})),
	}
}

type consumerMetrics struct {
	messages       *prometheus.CounterVec // by result: ok, dead
	batchSeconds   prometheus.Histogram
	batchSize      prometheus.Histogram
	endToEnd       prometheus.Histogram
	commitSeconds  prometheus.Histogram
	commitFailures prometheus.Counter
	rebalances     prometheus.Counter
	assigned       prometheus.Gauge
	skipped        prometheus.Counter
	retries        *prometheus.CounterVec // by stage
	deadLetters    *prometheus.CounterVec // by class
	followed       *prometheus.CounterVec // by type
	committed      prometheus.Gauge
}

func newConsumerMetrics(reg prometheus.Registerer, group, topic string, busy func() float64) consumerMetrics {
	const name = "seckill_kafka_"
	labels := prometheus.Labels{"group": group, "topic": topic}
	counter := func(n, help string) prometheus.Counter {
		return register(reg, prometheus.NewCounter(prometheus.CounterOpts{Name: name + n, Help: help, ConstLabels: labels}))
	}
	counters := func(n, help, label string) *prometheus.CounterVec {
		return register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{Name: name + n, Help: help, ConstLabels: labels}, []string{label}))
	}
	histogram := func(n, help string, buckets []float64) prometheus.Histogram {
		return register(reg, prometheus.NewHistogram(prometheus.HistogramOpts{Name: name + n, Help: help, ConstLabels: labels, Buckets: buckets}))
	}
	register(reg, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: name + "consumer_handler_busy_seconds", ConstLabels: labels,
		Help: "How long the oldest batch in hand has been in hand, retries included; 0 when there is none.",
	}, busy))
	m := consumerMetrics{
		messages:       counters("consumer_messages_total", "Records done with, by result: ok or dead.", "result"),
		batchSeconds:   histogram("consumer_batch_seconds", "Time from a batch being fetched to its commit, retries included.", secondsBuckets()),
		batchSize:      histogram("consumer_batch_size", "Records in one batch.", sizeBuckets()),
		endToEnd:       histogram("consumer_end_to_end_seconds", "Time from an event's ce_time to its being handled.", secondsBuckets()),
		commitSeconds:  histogram("consumer_commit_seconds", "Time of one offset commit.", secondsBuckets()),
		commitFailures: counter("consumer_commit_failures_total", "Offset commits that failed; the batch is delivered again."),
		rebalances:     counter("consumer_rebalances_total", "Generations this member has joined."),
		assigned:       register(reg, prometheus.NewGauge(prometheus.GaugeOpts{Name: name + "consumer_assigned_partitions", Help: "Partitions this member owns.", ConstLabels: labels})),
		skipped:        counter("consumer_records_skipped_total", "Records lost to retention or truncation before they were read; 1 where the number cannot be known."),
		followed:       counters("consumer_followed_total", "Events published because of the records handled, by type. What a redelivery says again counts again.", "type"),
		committed: register(reg, prometheus.NewGauge(prometheus.GaugeOpts{
			Name: name + "consumer_last_commit_timestamp_seconds", Help: "When this member last committed an offset; 0 before the first.", ConstLabels: labels,
		})),
		retries:     counters("retries_total", "Attempts that failed and were repeated, by stage.", "stage"),
		deadLetters: counters("dead_letters_total", "Records put among the dead letters, by class: undecodable, permanent, or what the handler says (unknown_product, not_cancelled, invalid).", "class"),
	}
	// increase() does not see the step from nothing to the first one.
	for _, result := range []string{"ok", "dead"} {
		m.messages.WithLabelValues(result)
	}
	for _, class := range []string{"undecodable", "permanent", "unknown_product", "not_cancelled", "invalid"} {
		m.deadLetters.WithLabelValues(class)
	}
	return m
}
