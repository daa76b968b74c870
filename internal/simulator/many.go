package simulator

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leadingpeers/seckill/internal/simulator/memory"
)

// Report is what many runs have shown.
type Report struct {
	Mutant     memory.Mutant
	Runs       int64
	Effects    int64 // after each of which the laws were checked
	Took       time.Duration
	Faults     map[string]int64
	Violations int64
	Laws       map[string]int64 // which law was broken how often
	Seed       uint64           // the lowest of a run that broke a law
	First      string           // what it broke
	Others     []uint64         // some more
}

// Many plays the runs of n seeds from first on, some side by side: all of them, or
// as many as begin within a time; 0 = all. Of a mutant it stops soon after the
// first violation.
func Many(mutant memory.Mutant, first, n uint64, workers int, within time.Duration) Report {
	out := Report{Mutant: mutant, Faults: make(map[string]int64), Laws: make(map[string]int64)}
	var next atomic.Uint64
	var stop atomic.Bool
	var mu sync.Mutex
	var wg sync.WaitGroup
	start := stopwatch()
	for range max(1, workers) {
		wg.Go(func() {
			s := New(mutant)
			defer s.Close()
			runs := int64(0)
			for i := next.Add(1) - 1; i < n && !stop.Load() && (within == 0 || start() < within); i = next.Add(1) - 1 {
				runs++
				if broken := s.Run(first + i); broken != "" {
					mu.Lock()
					out.broke(first+i, broken)
					mu.Unlock()
					stop.Store(mutant != memory.None || out.Violations > 100)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			out.Runs += runs
			out.Effects += s.effects
			for name, times := range s.faults {
				out.Faults[name] += times
			}
		})
	}
	wg.Wait()
	out.Took = start()
	return out
}

// stopwatch measures how long runs take; nothing depends on it.
func stopwatch() func() time.Duration {
	start := time.Now() //nolint:forbidigo // the one thing here that real time is for
	return func() time.Duration { return time.Since(start) }
}

// broke notes a violation.
func (r *Report) broke(seed uint64, law string) {
	if r.Violations == 0 || seed < r.Seed {
		r.Seed, r.First = seed, law
	}
	r.Violations++
	if len(r.Others) < 20 {
		r.Others = append(r.Others, seed)
	}
	name, _, _ := strings.Cut(law, ":")
	r.Laws[name]++
}

// String is the report in a few lines.
func (r Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d runs, %d effects checked, in %.1f s: %.0f runs/s\n", r.Runs, r.Effects, r.Took.Seconds(), float64(r.Runs)/r.Took.Seconds())
	total := int64(0)
	b.WriteString("faults:")
	for _, name := range slices.Sorted(maps.Keys(r.Faults)) {
		fmt.Fprintf(&b, " %s %d,", name, r.Faults[name])
		total += r.Faults[name]
	}
	fmt.Fprintf(&b, " together %d\n", total)
	if r.Violations == 0 {
		fmt.Fprintf(&b, "violations: 0 (mutant %s)\n", r.Mutant)
		return b.String()
	}
	fmt.Fprintf(&b, "violations: %d %v (mutant %s), the first with --seed %d\n  %s\nseeds: %d\n", r.Violations, r.Laws, r.Mutant, r.Seed, r.First, r.Others)
	return b.String()
}
