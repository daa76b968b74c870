package web

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"net/http"
)

// traceHeader is the W3C Trace Context header in Go's canonical spelling.
const traceHeader = "Traceparent"

// TraceParent is the W3C trace context of our own step in serving r, for the
// events that follow from it.
func TraceParent(r *http.Request) string { return r.Header.Get(traceHeader) }

// Tracer makes the steps of a trace visible. *trace.Tracer is one.
type Tracer interface {
	Step(parent, name, reservationID string) (own string, end func(failed string))
}

// startTrace begins our step in serving a request and returns what ends it.
func (m *Mux) startTrace(h http.Header, name string) (end func(failed string)) {
	if m.cfg.Tracer == nil {
		startTrace(h)
		return func(string) {}
	}
	parent := ""
	if sent := h[traceHeader]; len(sent) == 1 && validTrace(sent[0]) {
		parent = sent[0]
	}
	own, end := m.cfg.Tracer.Step(parent, name, "")
	h[traceHeader] = []string{own}
	return end
}

// failure is why a step with this answer counts as failed: what the server did,
// not what it refused.
func failure(status int) string {
	if status < http.StatusInternalServerError {
		return ""
	}
	return http.StatusText(status)
}

// startTrace leaves in the request's header the trace context of our own step:
// the caller's trace with a new span, or a new trace where the caller sent
// none or one that is not valid (https://www.w3.org/TR/trace-context/).
func startTrace(h http.Header) {
	trace, flags := randomHex(16), "00"
	if sent := h[traceHeader]; len(sent) == 1 && validTrace(sent[0]) {
		trace, flags = sent[0][3:35], sent[0][53:55]
	}
	h[traceHeader] = []string{"00-" + trace + "-" + randomHex(8) + "-" + flags}
}

// traceID is the trace that startTrace left in the request.
func traceID(r *http.Request) string {
	if v := r.Header.Get(traceHeader); len(v) >= 35 {
		return v[3:35]
	}
	return ""
}

// validTrace follows section 3.2: a later version may append fields.
func validTrace(v string) bool {
	const form = "00-00000000000000000000000000000000-0000000000000000-00"
	if len(v) < len(form) || (len(v) > len(form) && (v[:2] == "00" || v[len(form)] != '-')) {
		return false
	}
	for i := range len(form) {
		if form[i] == '-' != (v[i] == '-') || (form[i] != '-' && !lowerHex(v[i])) {
			return false
		}
	}
	return v[:2] != "ff" && v[3:35] != form[3:35] && v[36:52] != form[36:52]
}

func lowerHex(c byte) bool { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') }

// randomHex makes an identifier of 8 or 16 bytes. It names things and guards
// nothing, so it need not be hard to guess.
func randomHex(bytes int) string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], rand.Uint64()|1) // never all zero
	binary.BigEndian.PutUint64(b[8:], rand.Uint64())
	return hex.EncodeToString(b[:bytes])
}
