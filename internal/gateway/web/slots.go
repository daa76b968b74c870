package web

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Slots counts what is going on at once, up to a limit. Taking one never waits.
type Slots struct {
	limit int64
	used  atomic.Int64
}

// NewSlots returns limit free slots.
func NewSlots(limit int) *Slots { return &Slots{limit: int64(limit)} }

// Take reports whether there was a free slot. Whoever took one must Give it
// back.
func (s *Slots) Take() bool {
	if s.used.Add(1) > s.limit {
		s.used.Add(-1)
		return false
	}
	return true
}

// Give returns a slot.
func (s *Slots) Give() { s.used.Add(-1) }

// Gauge is a metric of the slots in use.
func (s *Slots) Gauge(name, help string) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help},
		func() float64 { return float64(s.used.Load()) })
}
