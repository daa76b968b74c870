package web

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/leadingpeers/seckill/internal/gateway/problem"
)

const secret = "0123456789abcdef"

func testConfig(log *slog.Logger) Config {
	return Config{
		Keys: []Key{
			{ID: "shop", Hash: sha256.Sum256([]byte(secret)), Role: Service},
			{ID: "ops-1", Hash: sha256.Sum256([]byte("with_under_score")), Role: Admin},
		},
		InFlight: NewSlots(1),
		AnswerIn: time.Minute,
		Now:      time.Now,
		Log:      log,
	}
}

func newTestMux(t *testing.T, cfg Config, routes ...Route) *Mux {
	t.Helper()
	m, err := New(cfg, routes)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// ask sends one request and returns the answer with its problem's code.
func ask(h http.Handler, method, target string, header http.Header) (*httptest.ResponseRecorder, string) {
	r := httptest.NewRequest(method, target, nil)
	for k, v := range header {
		r.Header[k] = v
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	var body struct{ Code string }
	_ = json.Unmarshal(w.Body.Bytes(), &body)
	return w, body.Code
}

func ok(w http.ResponseWriter, _ *http.Request) error { return WriteJSON(w, http.StatusOK, "ok") }

func TestKeysAndRoles(t *testing.T) {
	m := newTestMux(t, testConfig(slog.New(slog.DiscardHandler)),
		Route{Name: "s", Method: "GET", Path: "/service", Roles: []Role{Service}, Handle: ok},
		Route{Name: "a", Method: "GET", Path: "/admin", Roles: []Role{Admin}, Handle: ok},
		Route{Name: "o", Method: "GET", Path: "/open", Open: true, Handle: ok},
		Route{Name: "n", Method: "GET", Path: "/nobody", Handle: ok},
	)
	none, shop, ops := "", "Bearer sk_shop_"+secret, "Bearer sk_ops-1_with_under_score"
	tests := []struct {
		path, header string
		want         int
		why          string
	}{
		{"/service", shop, 200, "its role"},
		{"/service", strings.Replace(shop, "Bearer", "bEARER", 1), 200, "the scheme's case does not count"},
		{"/service", ops, 403, "an operator does not buy"},
		{"/service", none, 401, "no key"},
		{"/admin", ops, 200, "its role; a secret may have underscores"},
		{"/admin", shop, 403, "a shop does not run the catalogue"},
		{"/open", none, 200, "open to all"},
		{"/open", shop, 200, "open to all"},
		{"/open", "Bearer sk_shop_wrong", 401, "a wrong key is a mistake, even where none is needed"},
		{"/nobody", shop, 403, "a route without roles is closed"},
		{"/nobody", ops, 403, "a route without roles is closed"},
		{"/nobody", none, 401, "a route without roles is closed"},
		{"/service", "Bearer sk_shop_wrong", 401, "wrong secret"},
		{"/service", "Bearer sk_shop_", 401, "empty secret"},
		{"/service", "Bearer sk_shop", 401, "no secret"},
		{"/service", "Bearer sk_other_" + secret, 401, "unknown ID"},
		{"/service", "Bearer shop_" + secret, 401, "no sk_"},
		{"/service", "Bearer  sk_shop_" + secret, 401, "two spaces"},
		{"/service", "Basic sk_shop_" + secret, 401, "wrong scheme"},
		{"/service", "sk_shop_" + secret, 401, "no scheme"},
		{"/service", "Bearer", 401, "no key in it"},
		{"/service", "Bearer sk__", 401, "empty ID and secret"},
	}
	for _, tt := range tests {
		header := http.Header{}
		if tt.header != "" {
			header.Set("Authorization", tt.header)
		}
		w, _ := ask(m, "GET", tt.path, header)
		if w.Code != tt.want {
			t.Errorf("%s with %q: %d, want %d: %s", tt.path, tt.header, w.Code, tt.want, tt.why)
		}
		if (w.Code == 401) != (w.Header().Get("WWW-Authenticate") != "") {
			t.Errorf("%s with %q: %d with WWW-Authenticate %q", tt.path, tt.header, w.Code, w.Header().Get("WWW-Authenticate"))
		}
	}
	w, _ := ask(m, "GET", "/service", http.Header{"Authorization": {shop, shop}})
	if w.Code != 401 {
		t.Errorf("two Authorization headers: %d, want 401", w.Code)
	}
}

func TestKeyring(t *testing.T) {
	tests := []struct {
		keys []Key
		why  string
	}{
		{[]Key{{ID: "", Role: Admin}}, "no ID"},
		{[]Key{{ID: "a_b", Role: Admin}}, "the underscore ends the ID"},
		{[]Key{{ID: "a", Role: "root"}}, "no such role"},
		{[]Key{{ID: "a"}}, "no role"},
		{[]Key{{ID: "a", Role: Admin}, {ID: "a", Role: Service}}, "twice"},
	}
	for _, tt := range tests {
		cfg := testConfig(nil)
		cfg.Keys = tt.keys
		if _, err := New(cfg, nil); err == nil {
			t.Errorf("keys %v were taken: %s", tt.keys, tt.why)
		}
	}
}

func TestOtherPathsAndMethods(t *testing.T) {
	m := newTestMux(t, testConfig(slog.New(slog.DiscardHandler)),
		Route{Name: "r", Method: "GET", Path: "/v1/things/{thing}", Open: true, Handle: ok},
		Route{Name: "w", Method: "POST", Path: "/v1/things/{thing}", Open: true, Handle: ok},
		Route{Name: "x", Method: "POST", Path: "/v1/things/{thing}/stop", Open: true, Handle: ok},
	)
	tests := []struct {
		method, path string
		status       int
		code, allow  string
		why          string
	}{
		{"GET", "/v1/things/a", 200, "", "", "a route"},
		{"HEAD", "/v1/things/a", 200, "", "", "GET without the body"},
		{"DELETE", "/v1/things/a", 405, "method_not_allowed", "GET, HEAD, POST", "another method"},
		{"OPTIONS", "/v1/things/a", 405, "method_not_allowed", "GET, HEAD, POST", "another method"},
		{"GET", "/v1/things/a/stop", 405, "method_not_allowed", "POST", "another method"},
		{"BREW", "/v1/things/a/stop", 405, "method_not_allowed", "POST", "no method at all"},
		{"GET", "/", 404, "route_not_found", "", "nothing there"},
		{"GET", "/v1/things", 404, "route_not_found", "", "nothing there"},
		{"GET", "/v1/things/a/", 404, "route_not_found", "", "a slash too many"},
		{"POST", "/v1//things/a", 404, "route_not_found", "", "not redirected"},
		{"POST", "/v1/things/../things/a", 404, "route_not_found", "", "not redirected"},
		{"GET", "/v1/things/%2e%2e/a", 404, "route_not_found", "", "not redirected"},
		{"GET", "/v1/things/%00", 200, "", "", "a name like any other; the handler looks it up"},
	}
	for _, tt := range tests {
		r := httptest.NewRequest(tt.method, "/", nil)
		path, raw, _ := strings.Cut(tt.path, "%")
		r.URL = &url.URL{Path: tt.path}
		if raw != "" {
			u, err := url.Parse(tt.path)
			if err != nil {
				t.Fatal(path, err)
			}
			r.URL = u
		}
		w := httptest.NewRecorder()
		m.ServeHTTP(w, r)
		var body struct{ Code string }
		_ = json.Unmarshal(w.Body.Bytes(), &body)
		if w.Code != tt.status || body.Code != tt.code || w.Header().Get("Allow") != tt.allow {
			t.Errorf("%s %s: %d %s Allow %q, want %d %s %q: %s", tt.method, tt.path,
				w.Code, body.Code, w.Header().Get("Allow"), tt.status, tt.code, tt.allow, tt.why)
		}
	}
}

func TestPanicIsAnsweredAndLoggedOnce(t *testing.T) {
	var log bytes.Buffer
	m := newTestMux(t, testConfig(slog.New(slog.NewJSONHandler(&log, nil))),
		Route{Name: "p", Method: "GET", Path: "/early", Open: true, Handle: func(http.ResponseWriter, *http.Request) error { panic("17 units too many") }},
		Route{Name: "q", Method: "GET", Path: "/late", Open: true, Handle: func(w http.ResponseWriter, _ *http.Request) error {
			w.WriteHeader(http.StatusOK)
			panic("too late for an answer")
		}},
		Route{Name: "c", Method: "GET", Path: "/cut", Open: true, Handle: func(http.ResponseWriter, *http.Request) error { panic(http.ErrAbortHandler) }},
	)
	w, code := ask(m, "GET", "/early", nil)
	if w.Code != 500 || code != "internal" || strings.Contains(w.Body.String(), "17 units") {
		t.Errorf("answered %d %s", w.Code, w.Body)
	}
	if n := strings.Count(log.String(), "17 units too many"); n != 1 || !strings.Contains(log.String(), "mux_test.go") {
		t.Errorf("logged %d times, or without the stack: %s", n, log.String())
	}
	if w, _ := ask(m, "GET", "/late", nil); w.Code != 200 {
		t.Errorf("answered %d after 200", w.Code)
	}
	func() {
		defer func() {
			if err, ok := recover().(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
				t.Errorf("the server's own panic became %v", err)
			}
		}()
		ask(m, "GET", "/cut", nil)
	}()
	if w, _ := ask(m, "GET", "/early", nil); w.Code != 500 {
		t.Errorf("%d: a panic kept its slot", w.Code)
	}
}

func TestTooManyInFlight(t *testing.T) {
	entered, leave := make(chan bool), make(chan bool)
	m := newTestMux(t, testConfig(slog.New(slog.DiscardHandler)),
		Route{Name: "slow", Method: "GET", Path: "/slow", Open: true, Handle: func(w http.ResponseWriter, r *http.Request) error {
			entered <- true
			<-leave
			return ok(w, r)
		}},
		Route{Name: "quick", Method: "GET", Path: "/quick", Roles: []Role{Service}, Handle: ok},
		Route{Name: "polls", Method: "GET", Path: "/polls", Open: true, Polls: true, Handle: ok},
	)
	done := make(chan int)
	go func() { w, _ := ask(m, "GET", "/slow", nil); done <- w.Code }()
	<-entered
	w, code := ask(m, "GET", "/quick", nil)
	if w.Code != 503 || code != "overloaded" || w.Header().Get("Retry-After") == "" {
		t.Errorf("%d %s: want 503 overloaded, before the key is looked at", w.Code, code)
	}
	if w, _ := ask(m, "GET", "/polls", nil); w.Code != 200 {
		t.Errorf("%d: a route that takes its own slots was turned away", w.Code)
	}
	leave <- true
	if got := <-done; got != 200 {
		t.Errorf("the slow request got %d", got)
	}
	if w, _ := ask(m, "GET", "/quick", nil); w.Code != 401 {
		t.Errorf("%d: the slot was not given back", w.Code)
	}
}

func TestFaultsAreCountedAndOneASecondIsLogged(t *testing.T) {
	var log bytes.Buffer
	reg := prometheus.NewRegistry()
	cfg := testConfig(slog.New(slog.NewJSONHandler(&log, nil)))
	cfg.Registerer = reg
	m := newTestMux(t, cfg,
		Route{Name: "down", Method: "GET", Path: "/down", Open: true, Handle: func(http.ResponseWriter, *http.Request) error {
			return problem.Fault(problem.CacheUnavailable, errors.New("dial tcp 10.0.0.7: refused"))
		}},
		Route{Name: "no", Method: "GET", Path: "/no", Open: true, Handle: func(http.ResponseWriter, *http.Request) error {
			return problem.Of(problem.SoldOut)
		}},
	)
	for range 100 {
		if w, _ := ask(m, "GET", "/down", nil); w.Code != 503 || strings.Contains(w.Body.String(), "10.0.0.7") {
			t.Fatalf("answered %d %s", w.Code, w.Body)
		}
		ask(m, "GET", "/no", nil)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	m.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(gone, "GET", "/down", nil)) // not counted below
	if n := strings.Count(log.String(), "10.0.0.7"); n < 1 || n > 10 {
		t.Errorf("100 faults of one moment made %d log lines", n)
	}
	if strings.Contains(log.String(), "sold_out") {
		t.Error("a refusal was logged")
	}
	w, _ := ask(promhttp.HandlerFor(reg, promhttp.HandlerOpts{}), "GET", "/", nil)
	for _, line := range []string{
		`seckill_gateway_faults_total{code="cache_unavailable"} 100`,
		`seckill_gateway_refusals_total{code="sold_out"} 100`,
		`seckill_gateway_requests_total{code="503",route="down"} 101`,
		`seckill_gateway_request_seconds_count{route="no"} 100`,
		`seckill_gateway_in_flight_requests 0`,
	} {
		if !strings.Contains(w.Body.String(), line+"\n") {
			t.Errorf("no line %s in\n%s", line, w.Body)
		}
	}
	if _, err := New(cfg, nil); err == nil {
		t.Error("the same metrics were registered twice")
	}
}

func TestTrace(t *testing.T) {
	const trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	tests := []struct {
		sent []string
		keep bool
		why  string
	}{
		{[]string{"00-" + trace + "-" + parent + "-01"}, true, "the plain case"},
		{[]string{"cc-" + trace + "-" + parent + "-01-what-comes-later"}, true, "a later version"},
		{nil, false, "none"},
		{[]string{""}, false, "empty"},
		{[]string{"00-" + trace + "-" + parent + "-01-extra"}, false, "version 00 has no more fields"},
		{[]string{"ff-" + trace + "-" + parent + "-01"}, false, "not a version"},
		{[]string{"00-" + strings.ToUpper(trace) + "-" + parent + "-01"}, false, "upper case"},
		{[]string{"00-" + strings.Repeat("0", 32) + "-" + parent + "-01"}, false, "no trace"},
		{[]string{"00-" + trace + "-" + strings.Repeat("0", 16) + "-01"}, false, "no span"},
		{[]string{"00-" + trace + "-" + parent + "-0"}, false, "too short"},
		{[]string{"00-" + trace + "_" + parent + "-01"}, false, "not a hyphen"},
		{[]string{"00-" + trace[:31] + "--" + parent + "-01"}, false, "a hyphen within"},
		{[]string{"00-" + trace + "-" + parent + "-01", "00-" + trace + "-" + parent + "-01"}, false, "which of the two?"},
	}
	for _, tt := range tests {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header["Traceparent"] = tt.sent
		startTrace(r.Header)
		got := TraceParent(r)
		if !validTrace(got) || len(got) != 55 || len(traceID(r)) != 32 {
			t.Errorf("%q became %q: not valid", tt.sent, got)
		}
		if strings.Contains(got, parent) {
			t.Errorf("%q became %q: not a span of our own", tt.sent, got)
		}
		if (traceID(r) == trace) != tt.keep || (tt.keep && !strings.HasSuffix(got, "-01")) {
			t.Errorf("%q became %q: %s", tt.sent, got, tt.why)
		}
	}
}
