package torture

import (
	"fmt"
	"time"

	"github.com/leadingpeers/seckill/internal/torture/load"
	"github.com/leadingpeers/seckill/internal/torture/plan"
)

// Prompt is how long buyers waited for nothing.
type Prompt struct {
	Slowest503MS int64 `json:"slowest_503_ms"`             // of all
	SlowestOwnMS int64 `json:"slowest_503_undisturbed_ms"` // of those that no fault held up on their way
	Hangs        int64 `json:"hangs"`                      // no answer at all, and no fault that held it up

	late []string // those that waited longer than they may
}

// promptOf measures the waits. A gateway that stands still can answer nobody,
// and an answer through a slow proxy comes late: what overlaps such a fault
// says nothing about the gateway.
func promptOf(waits []load.Wait, faults []plan.Event) (p Prompt) {
	for _, w := range waits {
		held := false
		for _, f := range faults {
			held = held || f.Holds() && f.Began.Before(w.To) && w.From.Before(f.Ended)
		}
		took := w.To.Sub(w.From)
		if w.Status != 0 {
			p.Slowest503MS = max(p.Slowest503MS, took.Milliseconds())
		}
		if held {
			continue
		}
		if w.Status == 0 {
			p.Hangs++
		} else {
			p.SlowestOwnMS = max(p.SlowestOwnMS, took.Milliseconds())
		}
		if w.Status == 0 || took > load.Prompt {
			p.late = append(p.late, fmt.Sprintf("a buyer waited %s, from %s, for an answer %d that no fault held up: %s", took.Round(time.Millisecond), w.From.Format("15:04:05.000"), w.Status, w.What))
		}
	}
	return p
}
