package load

import (
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
)

// noted tells of each request before it waits for a connection.
type noted struct {
	http.RoundTripper
	sent chan struct{}
}

func (n noted) RoundTrip(r *http.Request) (*http.Response, error) {
	n.sent <- struct{}{}
	return n.RoundTripper.RoundTrip(r)
}

// TestWaits: a buyer's time begins when there is a connection for him, and is
// noted when all he gets is 503.
func TestWaits(t *testing.T) {
	arrived, let := make(chan struct{}, 10), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/fine" {
			w.WriteHeader(http.StatusAccepted)
			return
		}
		arrived <- struct{}{}
		<-let
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = w.Write([]byte(`{"code":"cache_unavailable"}`))
	}))
	defer server.Close()
	line := NewLine([]string{server.URL}, "key", 1, BuyersPatience)
	sent := make(chan struct{}, 10)
	line.Client.Transport = noted{line.Client.Transport, sent}
	const conns = 4 // of a line for one caller
	var all sync.WaitGroup
	send := func(path string) {
		all.Go(func() {
			if _, err := line.Send(t.Context(), 0, Ask{Method: "GET", Path: path}); err != nil {
				t.Error(err)
			}
		})
	}
	for range conns {
		send("/sad")
	}
	for range conns {
		<-sent
		<-arrived
	}
	send("/sad") // there is no connection left for this one
	<-sent
	free := time.Now()
	close(let)
	all.Wait()
	send("/fine")
	all.Wait()
	waits := line.Waits()
	if len(waits) != conns+1 {
		t.Fatalf("%d waits, want %d: %v", len(waits), conns+1, waits)
	}
	after := 0
	for _, w := range waits {
		if w.Status != 503 || w.What != "gateway 1: GET /sad: cache_unavailable" || w.To.Before(w.From) {
			t.Errorf("%+v", w)
		}
		if w.From.After(free) {
			after++
		}
	}
	if after != 1 {
		t.Errorf("%d began after a connection was free, want the one that had to wait", after)
	}
}
