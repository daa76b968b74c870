package stock

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are what a cache counts.
type metrics struct {
	batch   prometheus.Histogram
	seconds *prometheus.HistogramVec
	depth   prometheus.Gauge
	busy    prometheus.Counter
	taken   prometheus.Counter
	units   prometheus.Counter
	again   prometheus.Counter
	unknown prometheus.Counter
	refused map[string]refused // by the script's word
	applied map[outcome]prometheus.Counter
}

// newMetrics makes the metrics and registers them with r, if that is not nil.
// Caches with the same r share them.
func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		batch: register(r, prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "seckill_cache_reserve_batch_size",
			Help:    "Reservations in one call of the reserve script.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 10),
		})),
		seconds: register(r, prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "seckill_cache_script_seconds",
			Help:    "Time of one round trip to Redis with calls of a script.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2.5, 12),
		}, []string{"script"})),
		depth: register(r, prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "seckill_cache_queue_depth",
			Help: "Reservations that wait for a worker of the coalescer.",
		})),
		busy: register(r, prometheus.NewCounter(prometheus.CounterOpts{
			Name: "seckill_cache_busy_total",
			Help: "Reservations turned away because the coalescer's queue was full.",
		})),
		taken: register(r, prometheus.NewCounter(prometheus.CounterOpts{
			Name: "seckill_cache_reserved_total",
			Help: "Reservations that took units in Redis; repetitions are not among them.",
		})),
		units: register(r, prometheus.NewCounter(prometheus.CounterOpts{
			Name: "seckill_cache_reserved_units_total",
			Help: "Units that those reservations took.",
		})),
		again: register(r, prometheus.NewCounter(prometheus.CounterOpts{
			Name: "seckill_cache_replayed_total",
			Help: "Repetitions that got the answer on record and took nothing.",
		})),
		unknown: register(r, prometheus.NewCounter(prometheus.CounterOpts{
			Name: "seckill_cache_reserve_unknown_total",
			Help: "Reservations whose caller could not be told the outcome.",
		})),
		refused: map[string]refused{},
		applied: map[outcome]prometheus.Counter{},
	}
	refusals := register(r, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "seckill_cache_refusals_total",
		Help: "Reservations that Redis refused.",
	}, []string{"code"}))
	for _, refusal := range Refusals() {
		m.refused[string(refusal)] = refused{counter: refusals.WithLabelValues(string(refusal)), err: refusal}
	}
	applied := register(r, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "seckill_cache_applied_total",
		Help: "Decisions of the ledger told to Redis.",
	}, []string{"outcome"}))
	for letter, name := range map[outcome]string{
		changed: "changed", same: "same", adopted: "adopted", tombstone: "tombstone", notLoaded: "not_loaded",
	} {
		m.applied[letter] = applied.WithLabelValues(name)
	}
	return m
}

// refused is what one refusal is counted and answered with. The error is made
// here because making it of a reply's words copies them to the heap each time.
type refused struct {
	counter prometheus.Counter
	err     error
}

// register registers c, or returns the collector that stands under its name.
func register[C prometheus.Collector](r prometheus.Registerer, c C) C {
	if r == nil {
		return c
	}
	err := r.Register(c)
	var already prometheus.AlreadyRegisteredError
	if errors.As(err, &already) {
		if there, ok := already.ExistingCollector.(C); ok {
			return there
		}
	}
	if err != nil {
		panic(err) // a name of ours that means something else: a mistake in the program
	}
	return c
}
