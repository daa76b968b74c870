package gateway

import (
	"context"
	"sync/atomic"
	"time"
)

// limit gives out contexts that end after a time. All who ask within one step
// get the same one: a context and a timer of one's own for each request cost as
// much as its script in Redis does. A wait may thus last one step longer.
//
// Who has less time than that left gets a context of his own.
//
// The contexts are nobody's children. A buyer who hangs up does not end a
// reservation half way: what Redis has taken is handed on to Kafka at once, and
// not by the reaper seconds later.
type limit struct {
	after time.Duration
	last  atomic.Pointer[context.Context]
}

// steps is how many steps a limit has.
const steps = 16

// context returns a context that ends after l.after, or up to one step later,
// but not after what is left.
func (l *limit) context(left time.Duration) context.Context {
	step := l.after / steps
	if left < l.after+step {
		return lasting(min(left, l.after))
	}
	if last := l.last.Load(); last != nil && (*last).Err() == nil { // it has ended when the machine was stopped for as long
		return *last
	}
	ctx := lasting(l.after + step)
	if !l.last.CompareAndSwap(nil, &ctx) {
		return ctx // somebody else was faster; both do
	}
	time.AfterFunc(step, func() { l.last.Store(nil) })
	return ctx
}

// lasting returns a context that ends by its time alone.
func lasting(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	context.AfterFunc(ctx, cancel)
	return ctx
}
