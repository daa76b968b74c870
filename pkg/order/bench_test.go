package order_test

import (
	"strconv"
	"testing"

	"github.com/leadingpeers/seckill/internal/testservers"
	"github.com/leadingpeers/seckill/pkg/order"
)

// BenchmarkPlace: batches of 500 orders, one caller: all new, and all placed
// before, as when a topic is read again. One operation is one batch.
func BenchmarkPlace(b *testing.B) {
	for _, again := range []bool{false, true} {
		b.Run("again="+strconv.FormatBool(again), func(b *testing.B) {
			s := order.NewStore(testservers.MySQL(b))
			next := 0
			batch := func() []order.Order {
				orders := make([]order.Order, order.MaxBatch)
				for i := range orders {
					orders[i] = sample(next)
					next++
				}
				return orders
			}
			place := func(orders []order.Order) {
				if got, err := s.Place(b.Context(), orders); err != nil || len(got) != len(orders) {
					b.Fatalf("%d of %d: %v", len(got), len(orders), err)
				}
			}
			old := batch()
			place(old)
			for b.Loop() {
				if again {
					place(old)
				} else {
					place(batch())
				}
			}
			b.ReportMetric(order.MaxBatch*float64(b.N)/b.Elapsed().Seconds(), "orders/s")
		})
	}
}

// BenchmarkPayAll: batches of 500 payments, one caller: all paid before, as
// when a topic is read again. One operation is one batch.
func BenchmarkPayAll(b *testing.B) {
	s := order.NewStore(testservers.MySQL(b))
	orders, payments := make([]order.Order, order.MaxBatch), make([]order.Payment, order.MaxBatch)
	for i := range orders {
		orders[i] = sample(i)
		payments[i] = order.Payment{ReservationID: rid(i), Ref: "ref-" + strconv.Itoa(i), AmountCents: orders[i].AmountCents}
	}
	if _, err := s.Place(b.Context(), orders); err != nil {
		b.Fatal(err)
	}
	pay := func() {
		if paid, err := s.PayAll(b.Context(), payments); err != nil || len(paid) != len(payments) {
			b.Fatalf("%d of %d: %v", len(paid), len(payments), err)
		}
	}
	pay()
	for b.Loop() {
		pay()
	}
	b.ReportMetric(order.MaxBatch*float64(b.N)/b.Elapsed().Seconds(), "payments/s")
}
