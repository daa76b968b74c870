package stock

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
)

// BenchmarkReserve: 256 callers, each reservation of a buyer of its own.
func BenchmarkReserve(b *testing.B) {
	for _, products := range []int{1, 12} {
		b.Run(fmt.Sprintf("products=%d", products), func(b *testing.B) {
			const callers = 256
			s := newShop(b, CacheConfig{})
			of := make([]string, products)
			for i := range of {
				s.product = fmt.Sprintf("p%d", i)
				of[i] = s.product
				s.load(int64(b.N) + 1)
			}
			ids, users := make([]string, b.N), make([]string, b.N)
			for i := range ids {
				ids[i], users[i] = id(i), fmt.Sprintf("u-%09d", i)
			}
			var next atomic.Int64
			var group sync.WaitGroup
			b.ReportAllocs()
			b.ResetTimer()
			for range callers {
				group.Go(func() {
					for {
						i := int(next.Add(1)) - 1
						if i >= b.N {
							return
						}
						r := Reservation{ID: ids[i], ProductID: of[i%products], UserID: users[i], Quantity: 1}
						if _, _, err := s.Reserve(context.Background(), r); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			group.Wait()
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "reserved/s")
			b.ReportMetric(float64(b.N)/s.metric("seckill_cache_reserve_batch_size", ""), "batch")
		})
	}
}

// BenchmarkApply: batches of 500 confirmations of one product, one caller. One
// operation is one confirmation.
func BenchmarkApply(b *testing.B) {
	s := newShop(b, CacheConfig{MaxBatch: MaxBatch})
	s.load(int64(b.N))
	rs := make([]Reservation, b.N)
	for i := range rs {
		rs[i] = Reservation{ID: id(i), ProductID: s.product, UserID: "u-" + strconv.Itoa(i), Quantity: 1, State: Deducted}
	}
	if _, err := s.Apply(b.Context(), rs[:0]); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for len(rs) > 0 {
		n := min(MaxBatch, len(rs))
		if got, err := s.Apply(b.Context(), rs[:n]); err != nil || got.Adopted != n {
			b.Fatalf("%+v, %v", got, err)
		}
		rs = rs[n:]
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "applied/s")
}
