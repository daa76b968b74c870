//go:build faults

package fault

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// armed is a point with what happens there.
type armed struct {
	left atomic.Int64 // times that the point may still be passed
	wait time.Duration
}

// plan is what the environment says, read once: SECKILL_TEST_FAULTS is a list of
// point:n, where the n-th time kills the process, or point:n:wait, where the
// n-th and all later ones wait; SECKILL_TEST_OFF is a list of protections.
var plan = sync.OnceValue(func() (p struct { //nolint:gochecknoglobals // the environment is one
	points map[string]*armed
	off    map[string]bool
}) {
	p.points, p.off = map[string]*armed{}, map[string]bool{}
	for entry := range strings.SplitSeq(os.Getenv("SECKILL_TEST_FAULTS"), ",") {
		part := strings.Split(entry, ":")
		if len(part) < 2 {
			continue
		}
		n, err := strconv.ParseInt(part[1], 10, 64)
		a := &armed{}
		a.left.Store(n)
		if err == nil && len(part) > 2 {
			a.wait, err = time.ParseDuration(part[2])
		}
		if err != nil {
			panic(fmt.Sprintf("SECKILL_TEST_FAULTS: %q: %v", entry, err))
		}
		p.points[part[0]] = a
	}
	for name := range strings.SplitSeq(os.Getenv("SECKILL_TEST_OFF"), ",") {
		p.off[name] = true
	}
	return p
})

// Point ends the process as a crash does, or waits, when the environment says
// so and it is time.
func Point(name string) {
	a := plan().points[name]
	if a == nil || a.left.Add(-1) > 0 {
		return
	}
	if a.wait > 0 {
		time.Sleep(a.wait)
		return
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // it takes a moment
}

// Off reports whether a protection is taken out.
func Off(name string) bool { return plan().off[name] }

// Without is text with one part replaced when a protection is taken out. The
// part must be there, or the protection would be in force unseen.
func Without(name, text, part, by string) string {
	if !Off(name) {
		return text
	}
	if !strings.Contains(text, part) {
		panic("fault: " + name + ": its text has changed: " + part)
	}
	return strings.Replace(text, part, by, 1)
}
