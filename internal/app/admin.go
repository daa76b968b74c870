package app

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/pprof"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// check asks one dependency whether it answers.
type check struct {
	name string
	ask  func(context.Context) error
}

// admin is the private listener: probes, metrics, profiles.
type admin struct {
	draining atomic.Bool
	checks   []check
	limit    time.Duration // for all checks together
}

// handler serves /livez (the process runs), /readyz (its dependencies answer
// and it is not draining; ?verbose lists them), /metrics and /debug/pprof/.
func (a *admin) handler(reg *prometheus.Registry) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /readyz", a.ready)
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}

func (a *admin) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), a.limit)
	defer cancel()
	result := map[string]string{}
	ok := !a.draining.Load()
	if !ok {
		result["process"] = "draining"
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, c := range a.checks {
		wg.Go(func() {
			err := c.ask(ctx)
			mu.Lock()
			defer mu.Unlock()
			result[c.name] = "ok"
			if err != nil {
				result[c.name], ok = err.Error(), false
			}
		})
	}
	wg.Wait()
	status := http.StatusOK
	if !ok {
		status = http.StatusServiceUnavailable
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if _, verbose := r.URL.Query()["verbose"]; verbose || !ok {
		_ = json.NewEncoder(w).Encode(map[string]any{"ready": ok, "checks": result})
		return
	}
	_, _ = w.Write([]byte("{\"ready\":true}\n"))
}

// serve listens on addr and serves h in the background. The error channel gets
// one value when serving ends other than by Shutdown.
func serve(ctx context.Context, addr string, srv *http.Server) (net.Addr, <-chan error, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, nil, err
	}
	failed := make(chan error, 1)
	go func() {
		if err := srv.Serve(ln); err != nil && err != http.ErrServerClosed {
			failed <- err
		}
	}()
	return ln.Addr(), failed, nil
}
