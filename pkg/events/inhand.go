package events

import (
	"sync"
	"time"
)

// inHand knows since when each partition's batch is being worked on. A handler
// that hangs keeps the group's heartbeats going, so nothing else would show it.
type inHand struct {
	mu    sync.Mutex
	since map[int]time.Time
}

// begin notes that the partition has a batch in hand, and returns the end of it.
func (h *inHand) begin(partition int, now time.Time) (end func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.since == nil {
		h.since = map[int]time.Time{}
	}
	h.since[partition] = now
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.since, partition)
	}
}

// oldest is how long the oldest batch has been in hand, 0 without any.
func (h *inHand) oldest(now time.Time) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	var longest time.Duration
	for _, since := range h.since {
		longest = max(longest, now.Sub(since))
	}
	return longest
}
