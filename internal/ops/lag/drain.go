package lag

import (
	"time"

	"github.com/leadingpeers/seckill/pkg/events"
)

// Outlook says when a lag will be gone, judging by two readings.
type Outlook struct {
	PerSecond float64       // records handled a second, between the readings
	Drain     time.Duration // until the lag is gone, if both sides go on like this; 0 when it is gone, negative when it does not shrink
	Stalled   bool          // there is lag, and nothing was handled
}

// String is the outlook in a word.
func (o Outlook) String() string {
	switch {
	case o.Stalled:
		return "stalled"
	case o.Drain < 0:
		return "growing"
	case o.Drain == 0:
		return "-"
	case o.Drain < time.Minute:
		return o.Drain.Round(100 * time.Millisecond).String()
	}
	return o.Drain.Round(time.Second).String()
}

// Outlooks compares two readings, place by place. A place that is only in the
// later one has none.
func Outlooks(before, after Reading) map[events.Place]Outlook {
	was := map[events.Place]Row{}
	for _, r := range before.Rows {
		was[r.Place] = r
	}
	seconds := after.At.Sub(before.At).Seconds()
	out := map[events.Place]Outlook{}
	for _, r := range after.Rows {
		old, known := was[r.Place]
		if !known || seconds <= 0 {
			continue
		}
		handled := max(r.Committed, r.Start) - max(old.Committed, old.Start)
		shrunk := float64(old.Lag()-r.Lag()) / seconds
		o := Outlook{PerSecond: float64(handled) / seconds}
		switch {
		case r.Lag() == 0:
		case handled <= 0:
			o.Stalled, o.Drain = true, -1
		case shrunk <= 0:
			o.Drain = -1
		default:
			o.Drain = time.Duration(float64(r.Lag()) / shrunk * float64(time.Second))
		}
		out[r.Place] = o
	}
	return out
}
