package load

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// serve starts a server and returns its address.
func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func TestEveryRequestIsOfAnotherUser(t *testing.T) {
	var mu sync.Mutex
	users, keys, paths := map[string]int{}, map[string]int{}, map[string]int{}
	addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			UserID   string `json:"user_id"`
			Quantity int64  `json:"quantity"`
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil || body.Quantity != 1 || r.Header.Get("X-Test") != "yes" {
			t.Errorf("got %+v, %v, %v", body, r.Header, err)
		}
		mu.Lock()
		defer mu.Unlock()
		users[body.UserID]++
		keys[r.Header.Get("Idempotency-Key")]++
		paths[r.URL.Path]++
		w.WriteHeader(http.StatusAccepted)
	})
	got, err := Run(t.Context(), Spec{
		Addrs: []string{addr}, Paths: []string{"/a", "/b"}, Zipf: 1, Header: "X-Test: yes\r\n",
		Reserve: true, Seed: "s", Conns: 4, Duration: 200 * time.Millisecond, Samples: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	if got.Accepted == 0 || got.Failed+got.Refused+got.Busy > 0 {
		t.Fatalf("got %+v, want all accepted", got)
	}
	if n := int(got.Accepted); len(users) != n || len(keys) != n || len(got.Samples) != n {
		t.Errorf("%d requests of %d users with %d keys, %d samples", n, len(users), len(keys), len(got.Samples))
	}
	if paths["/a"] <= paths["/b"] || paths["/b"] == 0 {
		t.Errorf("chose %v, want both and the first more often", paths)
	}
	if got.Accept.P50 <= 0 || got.Accept.P99 < got.Accept.P50 || got.Accept.Max < got.Accept.P99 || len(got.Accept.Curve) == 0 {
		t.Errorf("latency %+v is none", got.Accept)
	}
}

func TestAnswersAreToldApart(t *testing.T) {
	for _, c := range []struct {
		why     string
		answer  func(w http.ResponseWriter)
		counter func(Result) int64
	}{
		{"accepted", func(w http.ResponseWriter) { w.WriteHeader(http.StatusAccepted) }, func(r Result) int64 { return r.Accepted }},
		{"refused", func(w http.ResponseWriter) { w.WriteHeader(http.StatusConflict) }, func(r Result) int64 { return r.Refused }},
		{"turned away", func(w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) }, func(r Result) int64 { return r.Busy }},
		{"failed", func(w http.ResponseWriter) { w.WriteHeader(http.StatusInternalServerError) }, func(r Result) int64 { return r.Failed }},
		{"a connection that breaks is a failure, and is made again", func(http.ResponseWriter) { panic(http.ErrAbortHandler) }, func(r Result) int64 { return r.Failed }},
		{"a long body comes in chunks", func(w http.ResponseWriter) { _, _ = io.WriteString(w, strings.Repeat("x", 20_000)) }, func(r Result) int64 { return r.Accepted }},
		{"a server that closes each connection", func(w http.ResponseWriter) { w.Header().Set("Connection", "close") }, func(r Result) int64 { return r.Accepted }},
	} {
		t.Run(c.why, func(t *testing.T) {
			addr := serve(t, func(w http.ResponseWriter, _ *http.Request) { c.answer(w) })
			got, err := Run(t.Context(), Spec{Addrs: []string{addr}, Paths: []string{"/"}, Conns: 2, Duration: 50 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			all := got.Accepted + got.Refused + got.Busy + got.Failed
			if n := c.counter(got); n < 2 || n != all {
				t.Errorf("%d of %d, fault %q", n, all, got.Fault)
			}
		})
	}
}

// A server that stalls must not hide what it does to those who come meanwhile.
func TestOpenLoopMeasuresFromTheIntendedTime(t *testing.T) {
	const stall = 300 * time.Millisecond
	var once sync.Once
	addr := serve(t, func(http.ResponseWriter, *http.Request) { once.Do(func() { time.Sleep(stall) }) })
	got, err := Run(t.Context(), Spec{Addrs: []string{addr}, Paths: []string{"/"}, Conns: 1, Rate: 100, Duration: 500 * time.Millisecond, Slice: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	// One connection: what was due during the stall waits for its end, and
	// that is more than half of the fifty.
	if got.Accepted != 50 || got.Accept.P50 < 10 || got.Accept.Max < 290 {
		t.Errorf("%d accepted, p50 %v ms, most %v ms: the stall is hidden", got.Accepted, got.Accept.P50, got.Accept.Max)
	}
	if len(got.Slices) != 5 || got.Slices[0].WorstMS < 290 {
		t.Errorf("slices %+v, want five and the stall in the first", got.Slices)
	}
}

func TestImpatientBuyersDoNotSend(t *testing.T) {
	addr := serve(t, func(http.ResponseWriter, *http.Request) { time.Sleep(50 * time.Millisecond) })
	got, err := Run(t.Context(), Spec{Addrs: []string{addr}, Paths: []string{"/"}, Conns: 1, Rate: 200, Duration: 400 * time.Millisecond, Patience: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if got.Late == 0 || got.Late+got.Accepted != 80 {
		t.Errorf("%d accepted and %d late, want 80 together and some late", got.Accepted, got.Late)
	}
}

func TestBadSpecs(t *testing.T) {
	ok := Spec{Addrs: []string{"127.0.0.1:1"}, Paths: []string{"/"}, Conns: 1, Duration: time.Second}
	for _, c := range []struct {
		why    string
		change func(*Spec)
	}{
		{"no address", func(s *Spec) { s.Addrs = nil }},
		{"no path", func(s *Spec) { s.Paths = nil }},
		{"no connection", func(s *Spec) { s.Conns = 0 }},
		{"no time", func(s *Spec) { s.Duration = 0 }},
		{"nobody there", func(*Spec) {}},
	} {
		s := ok
		c.change(&s)
		if _, err := Run(context.Background(), s); err == nil {
			t.Errorf("%s: no error", c.why)
		}
	}
}

func TestZipf(t *testing.T) {
	for _, c := range []struct {
		exponent float64
		want     string
	}{{0, "[0.25 0.50 0.75 1.00]"}, {1, "[0.48 0.72 0.88 1.00]"}} {
		if got := fmt.Sprintf("%.2f", zipf(4, c.exponent)); got != c.want {
			t.Errorf("zipf %v: %s, want %s", c.exponent, got, c.want)
		}
	}
}
