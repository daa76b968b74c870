package torture

import "testing"

// TestRefusedWithoutLoss: a refusal after a 202 needs a loss that explains it.
func TestRefusedWithoutLoss(t *testing.T) {
	tests := []struct {
		why           string
		kind          string
		refused, lost int64
		want          bool
	}{
		{"Redis forgot as many", "redis:power-cut", 3, 3, false},
		{"one more than Redis forgot", "redis:power-cut", 4, 3, true},
		{"nothing was lost at all", "kill:gateway", 1, 0, true},
		{"nobody counts what FLUSHALL takes", "redis:FLUSHALL", 4, 3, false},
		{"nor what is deleted", "redis:DEL", 4, 3, false},
		{"nor what does not fit on the disk", "redis:disk-full", 4, 3, false},
		{"nor what everybody loses", "all-down", 4, 3, false},
	}
	for _, tt := range tests {
		r := Result{FaultsByKind: map[string]int{tt.kind: 1}, RefusedUnits: tt.refused, UnitsLost: tt.lost}
		if got := r.refusedWithoutLoss(); got != tt.want {
			t.Errorf("%d refused and %d lost by %s: %t, want %t: %s", tt.refused, tt.lost, tt.kind, got, tt.want, tt.why)
		}
	}
}
