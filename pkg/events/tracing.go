package events

import "github.com/segmentio/kafka-go"

// Tracer makes the steps of a trace visible. Step begins one under the W3C trace
// context parent and returns its own context, which goes on in what follows from
// the event, and what ends it: with the reason when it failed, else "".
type Tracer interface {
	Step(parent, name, reservationID string) (own string, end func(failed string))
}

// traced begins a step for an event that belongs to a trace, and leaves its
// context in the event.
func (p *partition) traced(e Event) (Event, func(failed string)) {
	if p.cfg.Tracer == nil || e.TraceParent == "" {
		return e, func(string) {}
	}
	own, end := p.cfg.Tracer.Step(e.TraceParent, "process "+p.topic, e.ReservationID)
	e.TraceParent = own
	return e, end
}

// TraceID is the trace that the event belongs to, empty for none.
func (e Event) TraceID() string {
	if !traceParent(e.TraceParent) {
		return ""
	}
	return e.TraceParent[3:35]
}

// whose tells the reservation and the trace of a record that may be no event.
func whose(m kafka.Message) (reservation, trace string) {
	var e Event
	for _, h := range m.Headers {
		switch h.Key {
		case headerSubject:
			e.ReservationID = string(h.Value)
		case headerTraceParent:
			e.TraceParent = string(h.Value)
		}
	}
	if !reservationID(e.ReservationID) {
		e.ReservationID = ""
	}
	return e.ReservationID, e.TraceID()
}
