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
		time.Sleep(step - time.Nanosecond)
		if l.context() != first {
			t.Error("another context within one step")
		}
		time.Sleep(2 * time.Nanosecond)
		synctest.Wait()
		second := l.context()
		if second == first {
			t.Error("the same context after a step")
		}
		left := func(ctx context.Context) time.Duration {
			until, _ := ctx.Deadline()
			return time.Until(until)
		}
		if got := left(first); got < l.after-2*time.Nanosecond {
			t.Errorf("who asked last for the first has %s left, want about %s", got, l.after)
		}
		if got := left(second); got != l.after+step {
			t.Errorf("who asked first for the second has %s left, want %s", got, l.after+step)
		}
		time.Sleep(2 * l.after)
		synctest.Wait()
		if first.Err() == nil || second.Err() == nil {
			t.Error("they have not ended")
		}
	})
}
