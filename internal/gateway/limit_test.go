package gateway

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// Whoever asks waits for the time that is set, and for one step more at most.
func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const step = 100 * time.Millisecond
		l := limit{after: steps * step}
		first := l.context()
		time.Sleep(step - 1)
		if l.context() != first {
			t.Error("another context within one step")
		}
		time.Sleep(2)
		synctest.Wait()
		second := l.context()
		if second == first {
			t.Error("the same context after a step")
		}
		for _, c := range []struct {
			ctx  context.Context
			left time.Duration // of the wait of who asked last
		}{{first, l.after - 2}, {second, l.after + step}} {
			until, _ := c.ctx.Deadline()
			if left := time.Until(until); left < c.left || left > l.after+step {
				t.Errorf("%s left, want %s", left, c.left)
			}
		}
		time.Sleep(2 * l.after)
		synctest.Wait()
		if first.Err() == nil || second.Err() == nil {
			t.Error("they have not ended")
		}
	})
}
