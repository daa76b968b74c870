package events

import (
	"testing"
	"time"
)

func TestTheOldestBatchInHand(t *testing.T) {
	var h inHand
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	want := func(now int, d time.Duration, why string) {
		t.Helper()
		if got := h.oldest(at(now)); got != d {
			t.Errorf("%s at %d s, want %s: %s", got, now, d, why)
		}
	}
	want(5, 0, "nothing in hand")
	first, second := h.begin(0, at(10)), h.begin(7, at(12))
	want(15, 5*time.Second, "the older of two partitions")
	first()
	want(15, 3*time.Second, "only the younger is left")
	second()
	want(15, 0, "all is done")
}
