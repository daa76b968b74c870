// Package load sends HTTP requests to a server and measures its answers. It
// runs in a process of its own and spends as little CPU as it can, because it
// often shares the cores with what it measures: connections are kept, requests
// are bytes put together beforehand, of an answer only the status is read.
//
// It does not know what the answers mean beyond their status.
package load

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Spec says what to send.
type Spec struct {
	Addrs    []string      // host:port; the connections are spread over them
	Paths    []string      // one is chosen for each request
	Zipf     float64       // exponent of how unevenly: 0 = all alike, 1 = the second half as often as the first
	Header   string        // lines that every request has, each with its \r\n
	Reserve  bool          // POST with a user, an Idempotency-Key and a quantity of 1, else GET
	Seed     string        // begins every user and key, so that no two runs share one
	Conns    int           // connections, each with one request under way at most
	Rate     float64       // requests a second, sent when they are due whatever came of the others (open loop); 0 = each connection sends when it has its answer
	Duration time.Duration // of the sending
	Patience time.Duration // a request this late is not sent any more (open loop); 0 = sent however late
	Slice    time.Duration // also count by slices of this length; 0 = no
	Samples  bool          // also tell when each request was accepted
}

// Result is what came back. An answer is accepted (2xx), refused (4xx), busy
// (503) or failed (anything else, and none).
type Result struct {
	Accepted, Refused, Busy, Failed int64
	Late                            int64   // not sent: nobody had the patience
	Fault                           string  // the first failure in words
	Seconds                         float64 // from the first request to the last answer
	CPUSeconds                      float64 // that this process has used
	Accept, Refuse                  Latency // of accepted, and of refused and busy; from the time the request was due
	Slices                          []Slice
	Samples                         []Sample
}

// Answered is how many requests have got an answer.
func (r Result) Answered() int64 { return r.Accepted + r.Refused + r.Busy }

// Slice counts the requests that were due in one slice of time.
type Slice struct {
	Accepted, Busy, Late int64
	WorstMS              float64 // of those accepted
}

// Sample is one accepted request.
type Sample struct {
	N  int64 // the request's number: its user is Seed, a hyphen and N
	At int64 // when the answer was there, Unix ms
}

// runner is one run of a Spec.
type runner struct {
	spec  Spec
	cdf   []float64 // of the paths
	next  atomic.Int64
	began time.Time

	tally [tallies]tally // each connection has one of them: fewer would be fought over, more cost memory
}

const tallies = 4

// Run sends what spec says and returns when every answer is there or ctx ends.
// It returns an error when spec is not usable or no connection could be made.
func Run(ctx context.Context, spec Spec) (Result, error) {
	if len(spec.Addrs) == 0 || len(spec.Paths) == 0 || spec.Conns < 1 || spec.Duration <= 0 {
		return Result{}, fmt.Errorf("load: want addresses, paths, connections and a duration, got %+v", spec)
	}
	r := &runner{spec: spec, cdf: zipf(len(spec.Paths), spec.Zipf)}
	for i := range r.tally {
		r.tally[i].init(spec)
	}
	conns := make([]*conn, spec.Conns)
	for i := range conns {
		conns[i] = &conn{addr: spec.Addrs[i%len(spec.Addrs)]}
		if err := conns[i].dial(ctx); err != nil {
			return Result{}, err
		}
	}
	cpu := processCPU()
	r.began = time.Now()
	var wg sync.WaitGroup
	for i, c := range conns {
		wg.Go(func() { r.run(ctx, c, &r.tally[i%tallies]) })
	}
	wg.Wait()
	out := r.sum()
	out.Seconds = time.Since(r.began).Seconds()
	out.CPUSeconds = processCPU() - cpu
	return out, ctx.Err()
}

// run sends over one connection until the time is over.
func (r *runner) run(ctx context.Context, c *conn, t *tally) {
	defer c.close()
	random := rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	for ctx.Err() == nil {
		n := r.next.Add(1) - 1
		due, ok := r.due(n)
		if !ok {
			return
		}
		if r.spec.Patience > 0 && time.Since(due) > r.spec.Patience {
			t.late(due.Sub(r.began))
			continue
		}
		path := r.spec.Paths[r.pick(random)]
		status, err := c.ask(ctx, r.spec, path, n)
		end := time.Now()
		t.count(answer{n: n, status: status, err: err, due: due.Sub(r.began), took: end.Sub(due), at: end})
	}
}

// due waits until request n is due, and reports whether it is to be sent.
func (r *runner) due(n int64) (time.Time, bool) {
	if r.spec.Rate <= 0 {
		now := time.Now()
		return now, now.Sub(r.began) < r.spec.Duration
	}
	after := time.Duration(float64(n) / r.spec.Rate * float64(time.Second))
	due := r.began.Add(after)
	if after >= r.spec.Duration {
		return due, false
	}
	time.Sleep(time.Until(due))
	return due, true
}

func (r *runner) pick(random *rand.Rand) int {
	if len(r.cdf) == 1 {
		return 0
	}
	i, _ := slices.BinarySearch(r.cdf, random.Float64())
	return min(i, len(r.cdf)-1)
}

// zipf returns the sums of the first 1, 2, … n of the shares 1/rank^exponent.
func zipf(n int, exponent float64) []float64 {
	out, sum := make([]float64, n), 0.0
	for i := range out {
		sum += math.Pow(float64(i+1), -exponent)
		out[i] = sum
	}
	for i := range out {
		out[i] /= sum
	}
	return out
}

// processCPU is the CPU time that this process has used, in seconds.
func processCPU() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return math.NaN() // cannot happen with these arguments; shows as such if it does
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}
