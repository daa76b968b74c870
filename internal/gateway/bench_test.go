package gateway_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/leadingpeers/seckill/internal/gateway"
	"github.com/leadingpeers/seckill/pkg/events"
)

// BenchmarkReserve measures what the gateway itself takes for an answer, on a
// real Redis and without Kafka and connections: 64 callers for each core.
//
//	go test ./internal/gateway -run '^$' -bench Reserve -benchtime 50000x
func BenchmarkReserve(b *testing.B) {
	for _, c := range []struct {
		name  string
		units int64
		want  int
	}{{"accepted", 999_999_999, http.StatusAccepted}, {"sold out", 1, http.StatusConflict}} {
		b.Run(c.name, func(b *testing.B) {
			r := newRig(b, func(cfg *gateway.Config) { cfg.Publisher = swallow{}; cfg.MaxInFlight = 1 << 20 })
			_, path := r.sell(b, offer{units: c.units, perOrder: 5, perUser: 5})
			var n atomic.Int64
			ask := func() int {
				i := n.Add(1)
				req := httptest.NewRequest(http.MethodPost, path+"/reservations", strings.NewReader(fmt.Sprintf(`{"user_id":"user-%d","quantity":1}`, i)))
				req.Header.Set("Authorization", "Bearer "+serviceKey)
				req.Header.Set("Idempotency-Key", fmt.Sprintf("key-of-%d", i))
				req.Header.Set("Content-Type", "application/json")
				w := silent{header: http.Header{}}
				r.gateway.ServeHTTP(&w, req)
				return w.status
			}
			ask() // takes the only unit
			b.SetParallelism(64)
			b.ReportAllocs()
			b.ResetTimer()
			before := cpu(b)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if got := ask(); got != c.want {
						b.Errorf("status %d, want %d", got, c.want)
						return
					}
				}
			})
			b.ReportMetric(float64(cpu(b)-before)/float64(b.N), "cpu-ns/op") // a busy machine does not change it much
		})
	}
}

// cpu is what this process has used, in ns.
func cpu(b *testing.B) int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// swallow is a publisher that keeps nothing.
type swallow struct{}

func (swallow) Publish(context.Context, ...events.Event) error { return nil }

// silent keeps only the status.
type silent struct {
	header http.Header
	status int
}

func (a *silent) Header() http.Header         { return a.header }
func (a *silent) WriteHeader(status int)      { a.status = status }
func (a *silent) Write(b []byte) (int, error) { return len(b), nil }
