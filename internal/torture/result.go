package torture

import (
	"slices"
	"time"

	"github.com/leadingpeers/seckill/internal/torture/judge"
)

// Result is a run in one line of JSON.
type Result struct {
	Seed      uint64   `json:"seed"`
	Brokers   int      `json:"brokers"`
	Fsync     string   `json:"appendfsync"`
	Without   []string `json:"without,omitempty"` // protections that were taken out
	DurationS float64  `json:"duration_s"`
	WallS     float64  `json:"wall_s"`

	FaultsInjected int            `json:"faults_injected"`
	FaultsByKind   map[string]int `json:"faults_by_kind"`
	FaultsFailed   int            `json:"faults_failed"`
	SelfKilled     int            `json:"self_killed"` // processes that ended at a fault point
	RedisLosses    int            `json:"redis_losses"`
	UnitsLost      int64          `json:"redis_units_lost"` // given away by Redis and not known any more after a kill or failover

	HTTPRequests  int64            `json:"http_requests"`
	Accepted      int64            `json:"accepted_202"`
	AcceptedUnits int64            `json:"accepted_units"`
	Replayed      int64            `json:"replayed"`
	Answers       map[string]int64 `json:"answers"`
	Unanswered    int64            `json:"unanswered"`
	ReadNotFound  int64            `json:"read_not_found"` // promises that read 404 for a while
	Prompt
	Orders        int              `json:"orders"`
	Paid          int              `json:"paid"`
	Released      int              `json:"released"`
	RefusedAfter  map[string]int   `json:"rejected_after_accept"`
	RefusedUnits  int64            `json:"rejected_after_accept_units"`
	Checkout      map[string]int64 `json:"checkout"`
	Operators     map[string]int64 `json:"operators"`
	Reaped        int64            `json:"reaped"`
	Healed        int64            `json:"healed"`
	Adopted       int64            `json:"adopted"`
	Swept         int64            `json:"swept"`
	SeenBefore    int64            `json:"dup_events_seen"`
	DeadLetters   map[string]int64 `json:"dlq"`
	MaxOpen       int64            `json:"max_open"`
	Growth        map[string]int64 `json:"growth"`
	Samples       int64            `json:"samples"`
	SamplesMissed int64            `json:"samples_missed"`

	Recovery Recovery `json:"recovery_s"`
	LedgerS  float64  `json:"accepted_in_ledger_s"` // after the last fault
	DriftS   float64  `json:"drift_zero_s"`         // surplus + pending units were what is available in every product at some look, after the last fault; 0 = never
	RestS    float64  `json:"at_rest_s"`            // everything ended and balanced, after the last fault
	judge.Verdict
	Findings []string `json:"findings,omitempty"`
}

// refusedWithoutLoss is whether more units were refused after a 202 than Redis
// has lost. It says nothing of faults in which Redis loses what nobody counts:
// that is done only when it is killed or fails over.
func (r Result) refusedWithoutLoss() bool {
	for _, uncounted := range []string{"redis:FLUSHALL", "redis:DEL", "redis:disk-full", "all-down"} {
		if r.FaultsByKind[uncounted] > 0 {
			return false
		}
	}
	return r.RefusedUnits > r.UnitsLost
}

// Recovery is how long after a fault a new reservation was in the ledger, in
// seconds.
type Recovery struct {
	N   int     `json:"n"`
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	Max float64 `json:"max"`
}

func recoveryOf(times []time.Duration) Recovery {
	if len(times) == 0 {
		return Recovery{}
	}
	slices.Sort(times)
	at := func(q float64) float64 { return seconds(times[int(q*float64(len(times)-1))]) }
	return Recovery{N: len(times), P50: at(0.5), P95: at(0.95), Max: at(1)}
}

// seconds rounds to milliseconds.
func seconds(d time.Duration) float64 { return float64(d.Milliseconds()) / 1000 }
