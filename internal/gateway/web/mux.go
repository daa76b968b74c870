// Package web is what all routes of the gateway have in common: keys and
// roles, limits, strict JSON, trace context, metrics, and one answer to every
// error. It does not know what the routes do.
package web

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"github.com/leadingpeers/seckill/internal/gateway/problem"
	"github.com/leadingpeers/seckill/internal/keys"
	"github.com/leadingpeers/seckill/pkg/token"
)

// Handler answers one request, or returns why not: a problem, a refusal, or an
// error that nobody has foreseen. It has written nothing when it returns one.
type Handler func(w http.ResponseWriter, r *http.Request) error

// Route is one operation: where it is, who may use it, what it does. A route
// without roles that is not open is closed to all.
type Route struct {
	Name   string // for metrics; stable
	Method string
	Path   string // a pattern of http.ServeMux
	Roles  []Role
	Open   bool // to everybody, even without a key
	Polls  bool // takes its slots itself, because it may wait for long
	Handle Handler
}

// Config is what a Mux needs; every field is required, but KeyStore, Tokens and
// Registerer.
type Config struct {
	Keys       []Key            // of the configuration
	KeyStore   *keys.Store      // those in MySQL; nil = none
	Tokens     *token.Ring      // nil = no purchase tokens
	InFlight   *Slots           // requests served at once; more are answered 503
	AnswerIn   time.Duration    // how long a request may take; see Within
	Now        func() time.Time // for metrics, time-outs, and the expiry of tokens
	Log        *slog.Logger     // panics, and one fault a second
	Registerer prometheus.Registerer
	Tracer     Tracer // nil = none
}

// Mux serves routes. It is an http.Handler; make one with New.
type Mux struct {
	cfg      Config
	ring     *keys.Ring
	problems problem.Table
	mux      *http.ServeMux
	unknown  http.Handler // for what the mux must not see
	metrics  *metrics
	faults   rate.Sometimes // lets one fault a second into the log
	refusals rate.Sometimes // and one refusal, at debug
}

// keysAge is how long a revoked key may still be taken for good.
const keysAge = time.Second

// New makes a Mux of routes. It returns an error when a key is not usable, or
// when a metric is registered already.
func New(cfg Config, routes []Route) (*Mux, error) {
	ring, err := keys.NewRing(cfg.Keys, cfg.KeyStore, keysAge, cfg.Now)
	if err != nil {
		return nil, err
	}
	m := &Mux{
		cfg: cfg, ring: ring, problems: problem.NewTable(), mux: http.NewServeMux(),
		faults: rate.Sometimes{Interval: time.Second}, refusals: rate.Sometimes{Interval: time.Second},
	}
	if m.metrics, err = newMetrics(cfg.Registerer, cfg.InFlight); err != nil {
		return nil, err
	}
	m.mount(routes)
	return m, nil
}

// mount puts the routes on the mux, and below all a second mux with the answer
// to the other methods of each path, and to other paths. In one mux a path of
// all methods would contradict a wider one of a single method.
func (m *Mux) mount(routes []Route) {
	methods := map[string][]string{}
	for _, rt := range routes {
		m.mux.Handle(rt.Method+" "+rt.Path, m.serve(rt))
		methods[rt.Path] = append(methods[rt.Path], rt.Method)
		if rt.Method == http.MethodGet {
			methods[rt.Path] = append(methods[rt.Path], http.MethodHead)
		}
	}
	rest := http.NewServeMux()
	for path, list := range methods {
		slices.Sort(list)
		allow := strings.Join(list, ", ")
		rest.Handle(path, m.serve(Route{Name: "other", Open: true, Handle: func(w http.ResponseWriter, r *http.Request) error {
			w.Header().Set("Allow", allow)
			return problem.New(problem.MethodNotAllowed, "%.20q is not one of: %s.", r.Method, allow)
		}}))
	}
	m.unknown = m.serve(Route{Name: "other", Open: true, Handle: func(http.ResponseWriter, *http.Request) error {
		return problem.Of(problem.RouteNotFound)
	}})
	rest.Handle("/", m.unknown)
	m.mux.Handle("/", rest)
}

// ServeHTTP answers one request. Paths that are not clean are unknown: the mux
// would redirect them, and a redirected POST is a second request.
func (m *Mux) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodConnect || path.Clean(r.URL.Path) != r.URL.Path {
		m.unknown.ServeHTTP(w, r)
		return
	}
	m.mux.ServeHTTP(w, r)
}

// serve puts around a route what all routes have in common.
func (m *Mux) serve(rt Route) http.Handler {
	seconds, answers := m.metrics.seconds.WithLabelValues(rt.Name), m.metrics.answers(rt.Name)
	nosniff := []string{"nosniff"} // of all answers
	for _, bad := range []int{http.StatusInternalServerError, http.StatusServiceUnavailable} {
		answers.of(bad) // increase() does not see the step from nothing to the first one
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := m.cfg.Now()
		rec := &recorder{ResponseWriter: w}
		end := m.startTrace(r.Header, rt.Name)
		w.Header()["X-Content-Type-Options"] = nosniff
		defer func() {
			if v := recover(); v != nil {
				m.panicked(rec, r, v)
			}
			seconds.Observe(m.cfg.Now().Sub(start).Seconds())
			answers.of(rec.status).Inc()
			end(failure(rec.status))
		}()
		if err := m.admit(rec, r, rt, start); err != nil {
			m.fail(rec, r, err)
		}
	})
}

// admit lets the request through to its handler if there is room and its key
// allows it. Room comes first: refusing must stay cheap when there is none.
func (m *Mux) admit(w http.ResponseWriter, r *http.Request, rt Route, start time.Time) error {
	if !rt.Polls {
		if !m.cfg.InFlight.Take() {
			return problem.Of(problem.Overloaded)
		}
		defer m.cfg.InFlight.Give()
	}
	id, err := m.authorize(r, rt)
	if err != nil {
		return err
	}
	return rt.Handle(w, as(r, id, start.Add(m.cfg.AnswerIn)))
}

// fail answers with the problem that err is, and counts and logs what calls
// for it. During an outage every request fails alike, so one fault a second is
// logged; the metrics have the number. A caller who has hung up is no fault.
func (m *Mux) fail(w http.ResponseWriter, r *http.Request, err error) {
	p, ctx := problem.From(err), r.Context()
	switch {
	case p.Cause == nil:
		m.metrics.refusals.WithLabelValues(string(p.Code)).Inc()
		if !m.cfg.Log.Enabled(ctx, slog.LevelDebug) {
			break
		}
		m.refusals.Do(func() {
			m.cfg.Log.DebugContext(ctx, "request refused", "code", string(p.Code), "route", r.Pattern, "trace_id", traceID(r))
		})
	case ctx.Err() == nil:
		m.metrics.faults.WithLabelValues(string(p.Code)).Inc()
		m.faults.Do(func() {
			m.cfg.Log.ErrorContext(ctx, "request not served", "code", string(p.Code), "route", r.Pattern,
				"trace_id", traceID(r), "error", p.Cause.Error())
		})
	}
	if slices.Contains([]problem.Code{problem.Unauthenticated, problem.InvalidToken, problem.TokenExpired}, p.Code) {
		w.Header().Set("WWW-Authenticate", `Bearer realm="seckill"`)
	}
	m.problems.Write(w, r, p, traceID(r))
}

// panicked logs a panic once and answers 500 if nothing was answered yet.
func (m *Mux) panicked(w *recorder, r *http.Request, v any) {
	if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(v) // the server's own way to cut a connection
	}
	m.cfg.Log.ErrorContext(r.Context(), "panic in a request", "route", r.Pattern, "trace_id", traceID(r),
		"panic", fmt.Sprint(v), "stack", string(debug.Stack()))
	if w.status == 0 {
		m.problems.Write(w, r, &problem.Problem{Code: problem.Internal}, traceID(r))
	}
}

// recorder remembers the status that was written.
type recorder struct {
	http.ResponseWriter
	status int
}

// WriteHeader writes the status, and remembers it.
func (w *recorder) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteJSON answers with body as JSON. The answer is not to be stored unless
// the handler has said so.
func WriteJSON(w http.ResponseWriter, status int, body any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	WriteText(w, status, text)
	return nil
}

// WriteText is WriteJSON for a body that is JSON already.
func WriteText(w http.ResponseWriter, status int, text []byte) {
	h := w.Header()
	values := [...]string{"application/json", "no-store"}
	h["Content-Type"] = values[:1:1]
	if len(h["Cache-Control"]) == 0 {
		h["Cache-Control"] = values[1:]
	}
	w.WriteHeader(status)
	_, _ = w.Write(text) // the caller has gone; nobody is left to tell
}
