package stockworker

import (
	"errors"
	"testing"

	"github.com/leadingpeers/seckill/pkg/events"
	"github.com/leadingpeers/seckill/pkg/stock"
)

// The class of a dead letter is what operators choose by, so each cause has its
// own, and who has it is named where that is known; whatever may pass is no dead
// letter at all.
func TestFaultsOfAPart(t *testing.T) {
	first, second := events.Event{ReservationID: "first"}, events.Event{ReservationID: "second"}
	p := &part{productID: "p", events: []events.Event{first, second}}
	for _, c := range []struct {
		err  error
		want string // empty: a fault that may pass
		of   map[events.Event]bool
		why  string
	}{
		{stock.ErrNotFound, "unknown_product", map[events.Event]bool{first: true, second: true}, "nobody of it has a stock row"},
		{&stock.NotCancelledError{IDs: []string{"second"}}, "not_cancelled", map[events.Event]bool{second: true}, "the ledger says which; the others are to be rolled back"},
		{stock.ErrInvalid, "invalid", nil, "the ledger says only of the batch that it is"},
		{errors.New("connection refused"), "", nil, "an outage is nobody's fault"},
	} {
		err, got := p.faultOf(c.err), ""
		if permanent, ok := errors.AsType[*events.PermanentError](err); ok {
			got = permanent.Class
		}
		if got != c.want || !errors.Is(err, c.err) && c.of == nil {
			t.Errorf("%v: class %q, want %q: %s", err, got, c.want, c.why)
		}
		condemned := events.Condemned(err)
		for _, e := range p.events {
			if (condemned[e] != nil) != c.of[e] {
				t.Errorf("%v names %s: %t, want %t: %s", err, e.ReservationID, condemned[e] != nil, c.of[e], c.why)
			}
		}
	}
}
