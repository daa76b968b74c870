package load

import (
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// The histograms hold 1 µs to a minute with three digits.
const (
	lowest, highest = 1, int64(time.Minute / time.Microsecond)
	digits          = 3
)

// answer is what came of one request.
type answer struct {
	n         int64
	status    int
	err       error
	due, took time.Duration
	at        time.Time
}

// tally counts the answers of some connections.
type tally struct {
	mu             sync.Mutex
	slice          time.Duration
	samples        bool
	accept, refuse *hdrhistogram.Histogram
	result         Result
}

func (t *tally) init(s Spec) {
	t.slice, t.samples = s.Slice, s.Samples
	t.accept = hdrhistogram.New(lowest, highest, digits)
	t.refuse = hdrhistogram.New(lowest, highest, digits)
}

// of is the slice that a request due at this time belongs to. The mutex is held.
func (t *tally) of(due time.Duration) *Slice {
	if t.slice <= 0 {
		return &Slice{} // counted and forgotten
	}
	i := int(due / t.slice)
	for len(t.result.Slices) <= i {
		t.result.Slices = append(t.result.Slices, Slice{})
	}
	return &t.result.Slices[i]
}

func (t *tally) late(due time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.result.Late++
	t.of(due).Late++
}

func (t *tally) count(a answer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	micros := min(max(a.took.Microseconds(), lowest), highest)
	slice := t.of(a.due)
	switch {
	case a.err != nil:
		t.fail(a.err.Error())
	case a.status >= 200 && a.status < 300:
		t.result.Accepted++
		slice.Accepted++
		slice.WorstMS = max(slice.WorstMS, float64(micros)/1000)
		_ = t.accept.RecordValue(micros) // it is in range
		if t.samples {
			t.result.Samples = append(t.result.Samples, Sample{N: a.n, At: a.at.UnixMilli()})
		}
	case a.status == http.StatusServiceUnavailable:
		t.result.Busy++
		slice.Busy++
		_ = t.refuse.RecordValue(micros)
	case a.status >= 400 && a.status < 500:
		t.result.Refused++
		_ = t.refuse.RecordValue(micros)
	default:
		t.fail(fmt.Sprintf("status %d", a.status))
	}
}

func (t *tally) fail(why string) {
	t.result.Failed++
	if t.result.Fault == "" {
		t.result.Fault = why
	}
}

// sum puts the tallies together.
func (r *runner) sum() Result {
	first := &r.tally[0]
	out := first.result
	for i := range r.tally[1:] {
		t := &r.tally[i+1]
		first.accept.Merge(t.accept)
		first.refuse.Merge(t.refuse)
		out.Accepted += t.result.Accepted
		out.Refused += t.result.Refused
		out.Busy += t.result.Busy
		out.Failed += t.result.Failed
		out.Late += t.result.Late
		out.Samples = append(out.Samples, t.result.Samples...)
		if out.Fault == "" {
			out.Fault = t.result.Fault
		}
		for len(out.Slices) < len(t.result.Slices) {
			out.Slices = append(out.Slices, Slice{})
		}
		for j, s := range t.result.Slices {
			into := &out.Slices[j]
			into.Accepted += s.Accepted
			into.Busy += s.Busy
			into.Late += s.Late
			into.WorstMS = max(into.WorstMS, s.WorstMS)
		}
	}
	out.Accept, out.Refuse = latency(first.accept), latency(first.refuse)
	return out
}

// Latency is a distribution of times in milliseconds.
type Latency struct {
	P50, P90, P99, P999, Max float64
	Curve                    []Point // for a chart; empty when nothing was measured
}

// Point is one point of a curve.
type Point struct{ X, Y float64 }

func latency(h *hdrhistogram.Histogram) Latency {
	ms := func(percent float64) float64 { return float64(h.ValueAtQuantile(percent)) / 1000 }
	out := Latency{P50: ms(50), P90: ms(90), P99: ms(99), P999: ms(99.9), Max: float64(h.Max()) / 1000}
	if h.TotalCount() == 0 {
		return Latency{}
	}
	for _, percent := range []float64{0, 25, 50, 75, 90, 95, 98, 99, 99.5, 99.8, 99.9, 99.95, 99.99, 100} {
		out.Curve = append(out.Curve, Point{X: percent, Y: ms(percent)})
	}
	return out
}
