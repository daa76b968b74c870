package order_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/leadingpeers/seckill/pkg/order"
)

// A payment either pays the order, now or when it came the first time, or its
// money is due back.
func ExampleStore_Pay() {
	settle := func(ctx context.Context, orders *order.Store, p order.Payment) (refund bool, err error) {
		_, err = orders.Pay(ctx, p)
		if errors.Is(err, order.ErrTooLate) || errors.Is(err, order.ErrPaid) {
			return true, nil
		}
		return false, err
	}
	_ = settle
}

// The message that gives the units back is written in the transaction that
// cancels the order: there is no moment at which one is without the other.
func ExampleStore_Cancel() {
	cancel := func(ctx context.Context, orders *order.Store, reservationID string) error {
		_, err := orders.Cancel(ctx, reservationID, "payment_failed", func(o order.Order) []order.Message {
			return []order.Message{{Type: "seckill.stock.rollback.v1", Body: fmt.Appendf(nil, `{"reservation_id":%q}`, o.ReservationID)}}
		})
		return err
	}
	_ = cancel
}
