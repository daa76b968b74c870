package events

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
)

// BenchmarkPublish measures callers that publish one event at a time, side by
// side, over two partitions. ns/op is the time per event, all callers together.
//
//	go test ./pkg/events -run '^$' -bench Publish -benchtime 3s
func BenchmarkPublish(b *testing.B) {
	for _, callers := range []int{1, 100, 500} {
		for name, compression := range map[string]kafka.Compression{"none": NoCompression, "lz4": kafka.Lz4, "zstd": kafka.Zstd} {
			b.Run(fmt.Sprintf("callers=%d/%s", callers, name), func(b *testing.B) {
				benchmarkPublish(b, callers, compression)
			})
		}
	}
}

func benchmarkPublish(b *testing.B, callers int, compression kafka.Compression) {
	cfg := newCluster(b)
	p := NewPublisher(PublisherConfig{ClientConfig: cfg, Now: time.Now, Compression: compression})
	defer p.Close(b.Context())
	publish(b, p, created("warm-up", 0, 1)...)
	var n atomic.Int64
	errs := make(chan error, callers)
	b.ReportAllocs()
	b.ResetTimer()
	for range callers {
		go func() {
			for i := n.Add(1); i <= int64(b.N); i = n.Add(1) {
				e := created(fmt.Sprintf("product-%d", i%50), int(i), int(i)+1)
				if err := p.Publish(b.Context(), e...); err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	for range callers {
		if err := <-errs; err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}
