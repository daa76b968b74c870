package simulator

import (
	"slices"
	"testing"
	"time"

	"github.com/leadingpeers/seckill/internal/simulator/memory"
)

// No law is broken, whatever the seed; `make simulate` plays many more.
func TestNoLawIsBroken(t *testing.T) {
	n := uint64(3000)
	if testing.Short() {
		n = 300
	}
	r := Many(memory.None, 1_000_000_000, n, 2, 0)
	if r.Violations > 0 || r.Runs != int64(n) {
		t.Errorf("%s", r)
	}
	for _, fault := range []string{
		"kill", "rebalance", "Redis restarts", "FLUSHALL", "DEL", "Kafka forgets", "rewind", "double", "outage",
		"operator", "forgery", "wrong amount", "lost", "unheard", "late", "lock lost",
	} {
		if r.Faults[fault] == 0 && !testing.Short() {
			t.Errorf("the runs never had the fault %q: %v", fault, r.Faults)
		}
	}
}

// TestManyWithin: more seeds than anybody can wait for end when the time is over.
func TestManyWithin(t *testing.T) {
	if r := Many(memory.None, 0, 1<<60, 2, 100*time.Millisecond); r.Runs == 0 || r.Violations != 0 {
		t.Errorf("%s\nwant some runs, and nothing broken", r)
	}
}

// Each protection that is taken out is missed: a law that no mutant breaks
// would be no law.
func TestEveryMutantIsCaught(t *testing.T) {
	const most = 300_000
	from := map[memory.Mutant]uint64{memory.NoHealAfterLoad: 33_000} // it takes a load that loses its lock
	for _, m := range memory.Mutants() {
		t.Run(m.String(), func(t *testing.T) {
			r := Many(m, from[m], most-from[m], 2, 0)
			if r.Violations == 0 {
				t.Fatalf("not caught: %s", r)
			}
			t.Logf("seed %d: %s", r.Seed, r.First)
		})
	}
}

// Runs that once broke a law, each a hole in the code that was closed then. The
// schedule of a seed changes with the simulator, so tests beside the code hold
// the holes closed, too.
func TestHolesStayClosed(t *testing.T) {
	tests := []struct {
		seed uint64
		why  string
	}{
		{1332944, "a worker tells Redis of a row 16 minutes after the ledger changed it, and Redis forgets it at once"},
		{6922207, "a load loses its lock, is paused for longer than the margin, and publishes what the ledger had before"},
		{14226673, "a load loses its lock, publishes what the ledger had before a loss, and dies before it heals"},
		{3067457, "Redis restarts again and loses the Healer's healing, whose rows are older than its margin"},
		{5165234, "a restart, FLUSHALL and a load, which the next restart undoes: the first restart's doubt must not be forgotten"},
		{5174678, "a load loses its lock, a decision comes between, and the load fails after it has published"},
		{5232624, "the same"},
	}
	s := New(memory.None)
	defer s.Close()
	for _, tt := range tests {
		if broken := s.Run(tt.seed); broken != "" {
			t.Errorf("seed %d: %s: %s", tt.seed, broken, tt.why)
		}
	}
}

// The same seed is the same run, step for step, whatever was played before.
func TestASeedIsOneRun(t *testing.T) {
	trace := func(before, seed uint64) []string {
		s := New(memory.None)
		defer s.Close()
		for i := range before {
			s.Run(i)
		}
		var lines []string
		s.Trace(func(line string) { lines = append(lines, line) })
		s.Run(seed)
		return lines
	}
	for seed := range uint64(40) {
		fresh, later := trace(0, seed), trace(3, seed)
		if len(fresh) < 20 || !slices.Equal(fresh, later) {
			t.Fatalf("seed %d: %d lines, then %d other ones", seed, len(fresh), len(later))
		}
	}
}

// A mutant's name is its own, and names it on the command line.
func TestMutantsHaveNames(t *testing.T) {
	seen := map[string]bool{}
	for _, m := range memory.Mutants() {
		got, ok := memory.MutantOf(m.String())
		if m.String() == "" || seen[m.String()] || !ok || got != m {
			t.Errorf("mutant %d is called %q, which is mutant %d (%v)", m, m, got, ok)
		}
		seen[m.String()] = true
	}
	if len(seen) < 16 {
		t.Errorf("%d mutants, want 16 or more", len(seen))
	}
}
