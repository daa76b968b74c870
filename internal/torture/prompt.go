package torture

import (
	"time"

	"github.com/leadingpeers/seckill/internal/torture/load"
	"github.com/leadingpeers/seckill/internal/torture/plan"
)

// answerLimit is how long a buyer waits for an answer when nothing can be sold.
const answerLimit = 3 * time.Second

// Prompt is how long buyers waited for nothing.
type Prompt struct {
	Slowest503MS int64 `json:"slowest_503_ms"`             // of all
	SlowestOwnMS int64 `json:"slowest_503_undisturbed_ms"` // of those that no fault held up on their way
	Hangs        int64 `json:"hangs"`                      // no answer at all, and no fault that held it up
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
		ms := w.To.Sub(w.From).Milliseconds()
		switch {
		case w.Status != 0:
			p.Slowest503MS = max(p.Slowest503MS, ms)
			if !held {
				p.SlowestOwnMS = max(p.SlowestOwnMS, ms)
			}
		case !held:
			p.Hangs++
		}
	}
	return p
}

// late is whether buyers waited longer than they may.
func (p Prompt) late() bool { return p.Hangs > 0 || p.SlowestOwnMS > answerLimit.Milliseconds() }
