package torture

import (
	"reflect"
	"testing"
	"time"

	"github.com/leadingpeers/seckill/internal/torture/judge"
	"github.com/leadingpeers/seckill/internal/torture/load"
	"github.com/leadingpeers/seckill/internal/torture/plan"
)

// TestPrompt: who waits too long while nothing holds the answer up.
func TestPrompt(t *testing.T) {
	at := func(second int) time.Time { return time.Unix(1_800_000_000+int64(second), 0) }
	wait := func(from, to, status int) []load.Wait {
		return []load.Wait{{From: at(from), To: at(to), Status: status}}
	}
	fault := func(kind string, from, to int) []plan.Event {
		return []plan.Event{{Kind: kind, Began: at(from), Ended: at(to)}}
	}
	tests := []struct {
		why    string
		waits  []load.Wait
		faults []plan.Event
		want   Prompt
		late   bool
	}{
		{"nobody waited", nil, fault("swizzle", 0, 9), Prompt{}, false},
		{"503 in time", wait(0, 3, 503), nil, Prompt{Slowest503MS: 3000, SlowestOwnMS: 3000}, false},
		{"503 too late", wait(0, 4, 503), nil, Prompt{Slowest503MS: 4000, SlowestOwnMS: 4000}, true},
		{"no answer", wait(0, 8, 0), nil, Prompt{Hangs: 1}, true},
		{"Redis stands still, and the gateway must say so in time", wait(0, 4, 503), fault("redis:stop", 0, 9), Prompt{Slowest503MS: 4000, SlowestOwnMS: 4000}, true},
		{"the gateway stood still in between", wait(0, 4, 503), fault("stop:gateway", 1, 2), Prompt{Slowest503MS: 4000}, false},
		{"everybody stood still", wait(0, 8, 0), fault("swizzle", 7, 20), Prompt{}, false},
		{"the way to the gateway was slow", wait(5, 9, 503), fault("tcp:buyer-gateway:latency", 1, 6), Prompt{Slowest503MS: 4000}, false},
		{"the gateway's way to Redis was slow", wait(5, 9, 503), fault("tcp:gateway-redis:latency", 1, 6), Prompt{Slowest503MS: 4000, SlowestOwnMS: 4000}, true},
		{"the gateway had stood still before", wait(5, 9, 503), fault("stop:gateway", 1, 5), Prompt{Slowest503MS: 4000, SlowestOwnMS: 4000}, true},
		{"the gateway stood still afterwards", wait(5, 9, 503), fault("stop:gateway", 9, 12), Prompt{Slowest503MS: 4000, SlowestOwnMS: 4000}, true},
	}
	for _, tt := range tests {
		got := promptOf(tt.waits, tt.faults)
		late := got.late
		got.late = nil
		if !reflect.DeepEqual(got, tt.want) || len(late) > 0 != tt.late {
			t.Errorf("%s: %+v, late %q; want %+v, late %t", tt.why, got, late, tt.want, tt.late)
		}
	}
}

// TestAgree: a product counts from the first look that saw no drift of it, and
// the time is noted when that is said of all of them.
func TestAgree(t *testing.T) {
	r, apart := &run{}, map[string]int64{"a": 1, "b": 1}
	last := time.Now().Add(-time.Minute)
	for _, tt := range []struct {
		drifting []string
		left     int
		noted    bool
	}{
		{[]string{"a", "b"}, 2, false},
		{[]string{"b"}, 1, false},
		{[]string{"a", "b"}, 1, false}, // orders go on ending
		{[]string{"a"}, 0, true},
	} {
		r.agree(apart, judge.State{Drifting: tt.drifting}, last)
		if len(apart) != tt.left || (r.result.DriftS > 0) != tt.noted {
			t.Errorf("after a look that saw %v drift: %d left, noted %.1f s", tt.drifting, len(apart), r.result.DriftS)
		}
	}
	noted := r.result.DriftS
	r.agree(apart, judge.State{}, last.Add(-time.Minute))
	if noted < 59 || r.result.DriftS != noted {
		t.Errorf("noted %.1f s and then %.1f s, want a minute, once", noted, r.result.DriftS)
	}
}
