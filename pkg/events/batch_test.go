package events

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
)

// What we write as a record batch is what kafka-go reads: it checks length and
// sum, too.
func TestBatchReadsBack(t *testing.T) {
	now := time.UnixMilli(1_893_456_000_123)
	for _, compression := range []kafka.Compression{NoCompression, kafka.Zstd, kafka.Lz4, kafka.Snappy, kafka.Gzip} {
		for _, n := range []int{1, compressFrom, 1000} {
			t.Run(fmt.Sprint(max(compression, 0), "/", n), func(t *testing.T) {
				e, err := newEncoder(compression, 1)
				if err != nil {
					t.Fatal(err)
				}
				var items []*item
				for i := range n {
					r := record{key: []byte("phone"), value: []byte(strings.Repeat("v", i)), headers: []kafka.Header{header("a", "b"), {Key: "none"}}}
					if i%3 == 1 {
						r.time = now.Add(time.Duration(i-50) * time.Second)
					}
					if i%5 == 1 {
						r.key, r.value, r.headers = nil, nil, nil
					}
					items = append(items, &item{record: r})
				}
				s := &scratch{out: []byte("before")}
				if err := e.batch(s, items, now); err != nil {
					t.Fatal(err)
				}
				var set protocol.RecordSet
				if _, err := set.ReadFrom(bytes.NewReader(s.out[len("before"):])); err != nil {
					t.Fatal(err)
				}
				for i, it := range items {
					got, err := set.Records.ReadRecord()
					if err != nil {
						t.Fatal(err)
					}
					want := it.record
					if want.time.IsZero() {
						want.time = now
					}
					if got.Offset != int64(i) || !got.Time.Equal(want.time) {
						t.Fatalf("offset %d at %s, want %d at %s", got.Offset, got.Time, i, want.time)
					}
					if diff := cmp.Diff([][]byte{want.key, want.value}, [][]byte{text(t, got.Key), text(t, got.Value)}); diff != "" {
						t.Fatal(diff)
					}
					if diff := cmp.Diff(want.headers, got.Headers); diff != "" {
						t.Fatal(diff)
					}
				}
			})
		}
	}
}

// text is what kafka-go has read; nil stays nil.
func text(t *testing.T, b protocol.Bytes) []byte {
	t.Helper()
	out, err := protocol.ReadAll(b)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// BenchmarkBatch measures a record's part of encoding a batch of 100.
//
//	go test ./pkg/events -run '^$' -bench Batch
func BenchmarkBatch(b *testing.B) {
	for name, compression := range map[string]kafka.Compression{"none": NoCompression, "zstd": kafka.Zstd, "lz4": kafka.Lz4, "snappy": kafka.Snappy} {
		b.Run(name, func(b *testing.B) {
			e, err := newEncoder(compression, 1)
			if err != nil {
				b.Fatal(err)
			}
			var items []*item
			for i := range 100 {
				ev := created("phone", i, i+1)[0]
				ev.UserID, ev.TraceParent = fmt.Sprintf("user-%d", i*7919), fmt.Sprintf("00-%016x%016x-%016x-00", i*7919, i*104729, i*1299709)
				r, err := toRecord(ev, "seckill.reservations")
				if err != nil {
					b.Fatal(err)
				}
				items = append(items, &item{record: r})
			}
			s := &scratch{}
			b.ReportAllocs()
			for range b.N / 100 {
				s.clear()
				if err := e.batch(s, items, time.UnixMilli(1)); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(len(s.out))/100, "bytes/record")
		})
	}
}
