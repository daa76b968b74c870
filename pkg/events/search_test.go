package events

import (
	"context"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
)

// TestSearch finds the events of one reservation among others, in the order of
// their writing, and says when it has not read all.
func TestSearch(t *testing.T) {
	cfg := newCluster(t)
	p := newPublisher(t, cfg)
	publish(t, p, created("phone", 0, 50)...)
	publish(t, p, created("watch", 50, 100)...)
	publish(t, p, follow(created("phone", 7, 8))...)
	publish(t, p, created("phone", 7, 8)...) // told again
	publish(t, p, Event{Type: StockRollback, ReservationID: rid(7), ProductID: "phone", UserID: "u7", Quantity: 1, Reason: "cancelled"})
	topics := []Topic{Reservations, Deductions, Rollbacks}
	future := time.Now().Add(time.Hour)
	for _, tt := range []struct {
		why      string
		q        Query
		want     []Type
		complete bool
	}{
		{"all of one", Query{Topics: topics, ReservationID: rid(7), ProductID: "phone"}, []Type{ReservationCreated, StockDeducted, ReservationCreated, StockRollback}, true},
		{"without its product every partition is read", Query{Topics: topics, ReservationID: rid(7)}, []Type{ReservationCreated, StockDeducted, ReservationCreated, StockRollback}, true},
		{"one topic", Query{Topics: topics[1:2], ReservationID: rid(7)}, []Type{StockDeducted}, true},
		{"another product's partition may lack it", Query{Topics: topics[1:2], ReservationID: rid(8)}, nil, true},
		{"nothing is written yet", Query{Topics: topics, ReservationID: rid(7), Since: future}, nil, true},
		{"since the beginning", Query{Topics: topics[:1], ReservationID: rid(99), Since: time.Now().Add(-time.Hour)}, []Type{ReservationCreated}, true},
		{"more than may be read", Query{Topics: topics[:1], ReservationID: rid(0), MaxRecords: 1}, []Type{ReservationCreated}, false},
	} {
		found, complete, err := Search(t.Context(), cfg, tt.q)
		if err != nil || complete != tt.complete || len(found) != len(tt.want) {
			t.Errorf("%s: %d events, complete %v, %v, want %v", tt.why, len(found), complete, err, tt.want)
			continue
		}
		for i, r := range found {
			if r.Event.Type != tt.want[i] || r.Event.ReservationID != tt.q.ReservationID || r.TopicName != cfg.TopicName(r.Event.Topic()) || r.WrittenAt.IsZero() {
				t.Errorf("%s: event %d is %+v, want %s", tt.why, i, r, tt.want[i])
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, complete, err := Search(ctx, cfg, Query{Topics: topics, ReservationID: rid(7)}); complete && err == nil {
		t.Error("cut short, and taken for the whole")
	}
	if _, _, err := Search(t.Context(), cfg, Query{Topics: []Topic{"nowhere"}, ReservationID: rid(7)}); err == nil {
		t.Error("a topic that is not there was read")
	}
}

// TestSearchPassesOverWhatIsNoEvent: foreign bytes on a topic hide nothing.
func TestSearchPassesOverWhatIsNoEvent(t *testing.T) {
	cfg := newCluster(t)
	p := newPublisher(t, cfg)
	w := &kafka.Writer{Addr: kafka.TCP(cfg.Brokers...), Topic: cfg.TopicName(Reservations), Balancer: kafka.Murmur2Balancer{Consistent: true}, RequiredAcks: kafka.RequireAll}
	defer w.Close()
	if err := w.WriteMessages(t.Context(), kafka.Message{Key: []byte("phone"), Value: []byte("{")}); err != nil {
		t.Fatal(err)
	}
	publish(t, p, created("phone", 0, 1)...)
	found, complete, err := Search(t.Context(), cfg, Query{Topics: []Topic{Reservations}, ReservationID: rid(0), ProductID: "phone"})
	if err != nil || !complete || len(found) != 1 || found[0].Offset != 1 {
		t.Errorf("%+v, complete %v, %v, want the one behind the foreign record", found, complete, err)
	}
}
