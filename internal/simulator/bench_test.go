package simulator

import (
	"testing"

	"github.com/leadingpeers/seckill/internal/simulator/memory"
)

// BenchmarkRun plays one run after the other. The figure to compare is ns/op.
func BenchmarkRun(b *testing.B) {
	s := New(memory.None)
	defer s.Close()
	seed := uint64(0)
	for b.Loop() {
		if broken := s.Run(seed); broken != "" {
			b.Fatalf("seed %d: %s", seed, broken)
		}
		seed++
	}
}
