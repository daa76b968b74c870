package memory_test

import (
	"testing"

	"github.com/leadingpeers/seckill/internal/simulator/memory"
	"github.com/leadingpeers/seckill/pkg/events"
)

// A log keeps the order in which somebody has read it: a commit that arrives
// late would otherwise pass over a record that nobody has handled.
func TestSwap(t *testing.T) {
	for _, tt := range []struct {
		why     string
		fetched int
		i, j    int
		want    string
	}{
		{"two producers may come in any order", 0, 0, 2, "cba"},
		{"one that was fetched stays", 1, 0, 1, "abc"},
		{"so does its place, whichever is named first", 1, 2, 0, "abc"},
		{"those behind it may change places", 1, 1, 2, "acb"},
		{"one with itself is no change", 0, 1, 1, "abc"},
	} {
		k := memory.NewKafka(nil)
		for _, id := range []string{"a", "b", "c"} {
			k.Append(memory.Record{Event: events.Event{Type: events.PaymentSucceeded, ReservationID: id}})
		}
		for _, p := range k.Partitions() {
			if p.Topic != events.Payments {
				continue
			}
			p.Fetch(tt.fetched)
			done := p.Swap(tt.i, tt.j)
			got := ""
			batch, _ := p.Fetch(3)
			for _, r := range batch {
				got += r.Event.ReservationID
			}
			if got != tt.want || done != (tt.want != "abc") {
				t.Errorf("%s: %s (%v), want %s", tt.why, got, done, tt.want)
			}
		}
	}
}
