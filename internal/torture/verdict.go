package torture

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/leadingpeers/seckill/internal/torture/judge"
	"github.com/leadingpeers/seckill/internal/torture/stage"
)

// verdict waits until the system is at rest, and looks at everything.
func (r *run) verdict(ctx context.Context, last time.Time) error {
	promises, twice := r.journal.Promises()
	for _, text := range twice {
		r.judge.FindDuplicate(text)
	}
	c := judge.Case{Promises: promises, Totals: r.operators.Totals(), Excused: r.isExcused, Redis: r.stage.Redis.Master(), Prefix: stage.Prefix}
	if err := r.heard(ctx, slices.Collect(maps.Keys(promises)), last); err != nil {
		return err
	}
	var state judge.State
	var err error
	apart := maps.Clone(c.Totals) // products about which no look has seen Redis and the ledger agree
	until := func(limit time.Duration, done func() bool) bool {
		return r.await(ctx, limit-time.Since(last), func() bool {
			if state, err = r.judge.Look(ctx, c); err == nil {
				r.agree(apart, state, last)
			}
			return err == nil && done()
		})
	}
	if !until(r.cfg.Drift, func() bool { return len(apart) == 0 }) {
		r.judge.Find("Redis and the ledger have not agreed about %v within %s after the last fault (%v)", slices.Sorted(maps.Keys(apart)), r.cfg.Drift, err)
	}
	until(r.cfg.Rest, func() bool { return state.AtRest() })
	r.result.RestS = seconds(time.Since(last))
	if err != nil {
		return err
	}
	r.judge.Settle(state)
	if err := r.judge.Sample(ctx, true); err != nil {
		return err
	}
	if r.result.DeadLetters, err = r.stage.DeadLetters(ctx); err != nil {
		return err
	}
	r.count(state)
	return nil
}

// heard waits until the ledger has heard of all promises.
func (r *run) heard(ctx context.Context, missing []string, last time.Time) (err error) {
	promised := len(missing)
	var after time.Duration // until they were last counted
	r.await(ctx, r.cfg.Limit-time.Since(last), func() bool {
		var left []string
		if left, err = r.judge.Missing(ctx, missing); err != nil {
			return false
		}
		missing, after = left, time.Since(last)
		return len(missing) == 0
	})
	switch {
	case len(missing) > 0:
		r.judge.Find("%d promises were not in the ledger %s after the last fault (%v)", len(missing), r.cfg.Limit, err)
		err = nil
	case after > r.cfg.Limit:
		r.judge.Find("all promises were seen in the ledger %s after the last fault, and that is more than %s", after, r.cfg.Limit)
	}
	r.result.LedgerS = seconds(max(0, after))
	r.log("%d of %d promises are in the ledger after %.1f s", promised-len(missing), promised, r.result.LedgerS)
	return ctx.Err()
}

// agree takes those products out of apart about which Redis and the ledger
// agree, and notes when none is left. While orders end, the two are never read
// at the same moment, so one look that sees them agree has to do.
func (r *run) agree(apart map[string]int64, s judge.State, last time.Time) {
	if len(apart) == 0 {
		return
	}
	maps.DeleteFunc(apart, func(id string, _ int64) bool { return !slices.Contains(s.Drifting, id) })
	if len(apart) == 0 {
		r.result.DriftS = seconds(time.Since(last))
	}
}

// count fills in the result.
func (r *run) count(s judge.State) {
	for _, group := range []string{"deduct", "settle", "channel"} { // the others get what is forged, and money for nothing
		if n := r.result.DeadLetters[group]; n > 0 {
			r.judge.Find("%d dead letters of the group %s", n, group)
		}
	}
	for text := range r.buyers.Unexpected.All() {
		r.judge.Find("unexpected: %s", text)
	}
	for text := range r.operators.Failed.All() {
		r.judge.Find("an operator got no answer: %s", text)
	}
	r.mu.Lock()
	for _, text := range r.early {
		r.judge.Find("%s", text)
	}
	r.result.MaxOpen = r.maxOpen
	r.mu.Unlock()
	if s.Paid == 0 || r.buyers.Accepted.Load() < 100 {
		r.judge.Find("only %d accepted and %d paid: that proves nothing", r.buyers.Accepted.Load(), s.Paid)
	}
	b, out := r.buyers, &r.result
	out.HTTPRequests, out.Accepted, out.AcceptedUnits, out.Replayed = b.Requests.Load(), b.Accepted.Load(), b.Units.Load(), b.Replayed.Load()
	out.Answers, out.Unanswered, out.ReadNotFound = b.Answers.All(), b.Unanswered.Load(), b.NotFound.Load()
	out.Prompt = promptOf(b.Line.Waits(), r.faults)
	for _, text := range out.late {
		r.judge.Find("%s", text)
		r.log("%s", text)
	}
	out.Orders, out.Paid, out.Released, out.RefusedAfter = s.Orders, s.Paid, s.Released, s.Refused
	out.Checkout, out.Operators = r.checkout.Did.All(), r.operators.Did.All()
	maps.DeleteFunc(out.Answers, func(k string, _ int64) bool { return strings.HasPrefix(k, "hostile: 4") })
	out.Reaped, out.Healed, out.Swept = r.scraper.Total("seckill_reaped_total"), r.scraper.Total("seckill_healed_total"), r.scraper.Total("seckill_swept_total")
	out.Adopted, out.SeenBefore = r.scraper.Total(`seckill_cache_applied_total{outcome="adopted"}`), r.scraper.Total(`seckill_cache_applied_total{outcome="same"}`)
	out.UnitsLost, out.RefusedUnits = r.stage.Redis.Lost(), s.RefusedUnits
	if !r.cfg.Operate && out.refusedWithoutLoss() {
		r.judge.Find("%d accepted units were refused, and Redis has lost %d", out.RefusedUnits, out.UnitsLost)
	}
	out.Growth = r.scraper.Growth()
	out.Samples, out.SamplesMissed = r.judge.Samples()
	out.Verdict, out.Findings = r.judge.Verdict()
}
