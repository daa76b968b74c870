package web

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"net/http"
)

// traceHeader is the W3C Trace Context header in Go's canonical spelling.
const traceHeader = "Traceparent"

// traceForm is a header of version 00 without an identity.
const traceForm = "00-00000000000000000000000000000000-0000000000000000-00"

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
	var text [len(traceForm)]byte
	copy(text[:], traceForm)
	if sent := h[traceHeader]; len(sent) == 1 && validTrace(sent[0]) {
		copy(text[3:35], sent[0][3:35])
		copy(text[53:55], sent[0][53:55])
	} else {
		randomHex(text[3:19])
		randomHex(text[19:35])
	}
	randomHex(text[36:52])
	h[traceHeader] = []string{string(text[:])}
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
	if len(v) < len(traceForm) || (len(v) > len(traceForm) && (v[:2] == "00" || v[len(traceForm)] != '-')) {
		return false
	}
	for i := range len(traceForm) {
		if traceForm[i] == '-' != (v[i] == '-') || (traceForm[i] != '-' && !lowerHex(v[i])) {
			return false
		}
	}
	return v[:2] != "ff" && v[3:35] != traceForm[3:35] && v[36:52] != traceForm[36:52]
}

func lowerHex(c byte) bool { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') }

// randomHex writes 8 random bytes, never all zero, as 16 digits into text. They
// name things and guard nothing, so they need not be hard to guess.
func randomHex(text []byte) {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], rand.Uint64()|1)
	hex.Encode(text, b[:])
}
