//go:build !faults

package fault_test

import (
	"testing"

	"github.com/leadingpeers/seckill/internal/fault"
)

// In a binary that is shipped nothing can be armed.
func TestNothingInAnOrdinaryBuild(t *testing.T) {
	t.Setenv("SECKILL_TEST_FAULTS", fault.AfterLua+":1")
	t.Setenv("SECKILL_TEST_OFF", fault.Adopt)
	fault.Point(fault.AfterLua) // would end this test
	if fault.Off(fault.Adopt) || fault.Without(fault.Adopt, "a text", "a", "no") != "a text" {
		t.Error("a protection can be taken out of an ordinary build")
	}
	if n := testing.AllocsPerRun(100, func() { fault.Point(fault.AfterLua) }); n != 0 {
		t.Errorf("a point allocates %v times", n)
	}
}
