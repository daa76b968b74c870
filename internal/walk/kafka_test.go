package walk

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/leadingpeers/seckill/internal/testservers"
	"github.com/leadingpeers/seckill/pkg/events"
	"github.com/leadingpeers/seckill/pkg/order"
	"github.com/leadingpeers/seckill/pkg/stock"
)

// TestOverKafka runs the four handlers in their Consumers, with records in
// between that no retry can cure, every event twice, and buyers who pay as soon
// as they are told of their order.
func TestOverKafka(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]int64{"p": 40, "q": 40})
	w.step(w.healer.Step)
	client := events.ClientConfig{Brokers: testservers.Kafka(t), Prefix: w.prefix}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	w.must(events.Apply(ctx, client, events.Overrides{Partitions: 2, Replication: 1}))
	publisher := events.NewPublisher(events.PublisherConfig{ClientConfig: client, Now: time.Now})
	defer func() { w.must(publisher.Close(context.WithoutCancel(ctx))) }()
	stop := w.consume(ctx, client, publisher)
	defer stop()

	var asked []stock.Reservation
	for n := range 30 {
		r := stock.Reservation{ID: id(n), ProductID: []string{"p", "q"}[n%2], UserID: fmt.Sprint("user", n), Quantity: 2}
		asked = append(asked, r)
		e, err := w.buy(r)
		w.must(err)
		poison := e
		poison.ReservationID, poison.ProductID = id(1000+n), "unknown"
		w.must(publisher.Publish(ctx, e, e, poison))
	}
	for _, r := range asked {
		w.await(ctx, "an order paid", func() bool { return w.ordered(r) == order.Paid && w.inRedis(r) == deducted })
	}
	w.atRest("p", 30)
	w.atRest("q", 30)
	for _, r := range asked { // forged: they are paid
		w.must(publisher.Publish(ctx, events.Event{
			Type: events.StockRollback, ReservationID: r.ID, ProductID: r.ProductID, UserID: r.UserID, Quantity: r.Quantity,
		}))
	}
	w.await(ctx, "30 dead letters of each kind", func() bool { // or more: at least once
		return w.written(ctx, client, "deduct") >= 30 && w.written(ctx, client, "rollback") >= 30
	})
	for _, r := range asked {
		w.stands(r, deducted, deducted, order.Paid)
	}
	w.atRest("p", 30)
	w.atRest("q", 30)
	if n := w.written(ctx, client, "settle") + w.written(ctx, client, "payment"); n != 0 {
		t.Errorf("%d dead letters of the settle-worker, want none", n)
	}
}

// consume starts the Consumers and a checkout that pays for every order. stop
// drains them.
func (w *world) consume(ctx context.Context, client events.ClientConfig, publisher *events.Publisher) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	start := func(group string, topic events.Topic, h events.Handler) {
		c := events.NewConsumer(events.ConsumerConfig{ClientConfig: client, Group: group, Topic: topic}, h, publisher)
		running.Go(func() {
			if err := c.Run(ctx); err != nil {
				w.t.Errorf("group %s: %v", group, err)
			}
		})
	}
	start("deduct", events.Reservations, w.handlers[events.Reservations])
	start("rollback", events.Rollbacks, w.handlers[events.Rollbacks])
	start("settle", events.Deductions, w.handlers[events.Deductions])
	start("payment", events.Payments, w.handlers[events.Payments])
	start("checkout", events.Orders, func(_ context.Context, batch []events.Event) (next []events.Event, err error) {
		for _, e := range batch {
			if e.Type == events.OrderCreated {
				next = append(next, events.Event{
					Type: events.PaymentSucceeded, ReservationID: e.ReservationID, PaymentRef: "pay-" + e.ReservationID,
					AmountCents: e.AmountCents, Currency: e.Currency,
				})
			}
		}
		return next, nil
	})
	return func() {
		cancel()
		running.Wait()
	}
}

// written counts the dead letters of a group.
func (w *world) written(ctx context.Context, client events.ClientConfig, group string) (n int64) {
	w.t.Helper()
	lags, err := events.Lag(ctx, client, group, events.DeadLetterTopic(group))
	w.must(err)
	for _, l := range lags {
		n += l.End
	}
	return n
}

// await polls for a condition until ctx ends.
func (w *world) await(ctx context.Context, what string, done func() bool) {
	w.t.Helper()
	for !done() {
		select {
		case <-ctx.Done():
			w.t.Fatalf("waited in vain for %s", what)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
