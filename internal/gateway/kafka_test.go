package gateway_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leadingpeers/seckill/internal/gateway"
	"github.com/leadingpeers/seckill/internal/testservers"
	"github.com/leadingpeers/seckill/pkg/events"
)

// TestThroughKafka reserves with the real publisher: what was answered with
// 202 is on the topic, under the product's key, with its trace.
func TestThroughKafka(t *testing.T) {
	kafka, publisher := realKafka(t)
	r := newRig(t, func(c *gateway.Config) {
		c.Publisher = publisher
		c.PublishTimeout, c.AnswerIn = 20*time.Second, 30*time.Second // a busy machine is no outage
	})
	_, path := r.sell(t, offer{units: 10, perOrder: 1, perUser: 5})
	const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
	var mu sync.Mutex // a consumer handles its partitions side by side
	accepted := map[string]bool{}
	for _, user := range []string{"u1", "u2", "u3"} {
		got := r.call(t, serviceKey, "POST", path+"/reservations", `{"user_id":"`+user+`","quantity":1}`,
			"Idempotency-Key", "key-of-"+user, "Traceparent", "00-"+trace+"-00f067aa0ba902b7-00").must(t, http.StatusAccepted)
		accepted[got.ReservationID] = true
	}

	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	consumer := events.NewConsumer(events.ConsumerConfig{ClientConfig: kafka, Group: "test", Topic: events.Reservations},
		func(_ context.Context, batch []events.Event) ([]events.Event, error) {
			mu.Lock()
			defer mu.Unlock()
			for _, e := range batch {
				if !accepted[e.ReservationID] || e.Type != events.ReservationCreated || !strings.HasPrefix(e.TraceParent, "00-"+trace+"-") {
					t.Errorf("on the topic: %+v", e)
				}
				delete(accepted, e.ReservationID)
			}
			if len(accepted) == 0 {
				cancel()
			}
			return nil, nil
		}, publisher)
	if err := consumer.Run(ctx); err != nil {
		t.Error(err)
	}
	if len(accepted) != 0 {
		t.Errorf("answered with 202 and not on the topic: %v", accepted)
	}
}

// realKafka makes topics of the test's own, and a publisher to them.
func realKafka(t *testing.T) (events.ClientConfig, *events.Publisher) {
	t.Helper()
	kafka := events.ClientConfig{Brokers: testservers.Kafka(t), Prefix: testservers.Prefix(t)}
	if err := events.Apply(t.Context(), kafka, events.Overrides{Partitions: 2}); err != nil {
		t.Fatal(err)
	}
	publisher := events.NewPublisher(events.PublisherConfig{ClientConfig: kafka, Now: time.Now})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = publisher.Close(ctx)
	})
	return kafka, publisher
}
