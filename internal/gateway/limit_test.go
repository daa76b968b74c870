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
		first := l.context(time.Hour)
		time.Sleep(step - time.Nanosecond)
		if l.context(time.Hour) != first {
			t.Error("another context within one step")
		}
		time.Sleep(2 * time.Nanosecond)
		synctest.Wait()
		second := l.context(time.Hour)
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
		late := l.context(l.after / 2)
		if got := left(late); got != l.after/2 {
			t.Errorf("who has only half the time left has %s, want %s", got, l.after/2)
		}
		time.Sleep(2 * l.after)
		synctest.Wait()
		if first.Err() == nil || second.Err() == nil || late.Err() == nil {
			t.Error("they have not ended")
		}
	})
}
