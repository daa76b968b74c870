package stockworker

import (
	"errors"
	"testing"

	"github.com/leadingpeers/seckill/pkg/events"
	"github.com/leadingpeers/seckill/pkg/stock"
)

// The class of a dead letter is what operators choose by, so each cause has its
// own; whatever may pass is no dead letter at all.
func TestClassesOfPermanentFaults(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string // empty: a fault that may pass
	}{
		{stock.ErrNotFound, "unknown_product"},
		{stock.ErrNotCancelled, "not_cancelled"},
		{stock.ErrInvalid, "invalid"},
		{errors.New("connection refused"), ""},
	} {
		got := ""
		if permanent, ok := errors.AsType[*events.PermanentError](faultOf("p", c.err)); ok {
			got = permanent.Class
		}
		if got != c.want {
			t.Errorf("%v: class %q, want %q", c.err, got, c.want)
		}
	}
}
