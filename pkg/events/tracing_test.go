package events

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
)

// fakeTracer gives every step the same trace with a span of its own, and notes
// how each ends.
type fakeTracer struct {
	mu    sync.Mutex
	begun []string
	ended map[string]string // by reservation
}

const (
	causeTrace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	ownTrace   = "00-0af7651916cd43dd8448eb211c80319c-%016x-01"
)

func (f *fakeTracer) Step(parent, name, reservation string) (own string, end func(failed string)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.begun = append(f.begun, parent+" "+name)
	return fmt.Sprintf(ownTrace, len(f.begun)), func(failed string) {
		f.mu.Lock()
		defer f.mu.Unlock()
		if _, twice := f.ended[reservation]; twice {
			failed = "ended twice"
		}
		f.ended[reservation] = failed
	}
}

// The step of an event that is handled is the cause of what follows; one that
// becomes a dead letter has failed; one without a trace begins none.
func TestConsumerTracesWhatItHandles(t *testing.T) {
	cfg := newCluster(t)
	p := newPublisher(t, cfg)
	evs := created("phone", 0, 3)
	evs[0].TraceParent, evs[1].TraceParent = causeTrace, causeTrace
	good, poison := evs[0].ReservationID, evs[1].ReservationID
	publish(t, p, evs...)
	tracer := &fakeTracer{ended: map[string]string{}}
	consume(t, ConsumerConfig{ClientConfig: cfg, Tracer: tracer}, p, func(_ context.Context, batch []Event) ([]Event, error) {
		for _, e := range batch {
			if e.ReservationID == poison {
				return nil, Permanent(errors.New("no such product"))
			}
		}
		return follow(batch), nil
	})
	eventually(t, "all is committed", caughtUp(t, cfg))
	tracer.mu.Lock()
	defer tracer.mu.Unlock()
	if len(tracer.begun) != 2 || tracer.begun[0] != causeTrace+" process "+cfg.TopicName(Reservations) {
		t.Errorf("steps %q, want one for each event that belongs to a trace", tracer.begun)
	}
	if len(tracer.ended) != 2 || tracer.ended[good] != "" || tracer.ended[poison] != "no such product" {
		t.Errorf("ended %v, want the poison failed", tracer.ended)
	}
	for _, m := range records(t, cfg, Deductions) {
		e, err := fromMessage(m, Deductions)
		if err != nil {
			t.Fatal(err)
		}
		if e.ReservationID == good && (e.TraceParent == causeTrace || e.TraceID() != causeTrace[3:35]) {
			t.Errorf("the deduction belongs to %q, want our own step in the same trace", e.TraceParent)
		}
		if e.ReservationID == evs[2].ReservationID && e.TraceParent != "" {
			t.Errorf("an event without a trace goes on with %q", e.TraceParent)
		}
	}
	for _, m := range records(t, cfg, DeadLetterTopic("deduct")) {
		if h := headers(m)[headerTraceParent]; h != causeTrace {
			t.Errorf("the dead letter belongs to %q, want the record as it was", h)
		}
	}
}
