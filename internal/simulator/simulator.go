// Package simulator plays a flash sale to its end, thousands of times a second:
// the handlers and background services of both workers as they are, over Redis,
// MySQL and Kafka in memory, in one goroutine, by a schedule that a seed draws.
//
// Between any two effects a process may die, be paused while the others go on,
// or lose its connection; Redis loses its last second or all of it, Kafka
// writes twice, late, in another order or forgets, groups start again from the
// beginning. After every effect what must hold at every instant is checked, and
// in the end, when faults have ceased and time has passed, all the rest: the
// laws of ARCHITECTURE.md and laws.go. The same seed is the same run.
//
// It finds what is wrong with the order of steps, not with SQL, Lua or the
// network: tests hold the stores in memory against the real ones.
package simulator

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/leadingpeers/seckill/internal/settleworker"
	"github.com/leadingpeers/seckill/internal/simulator/memory"
	"github.com/leadingpeers/seckill/internal/stockworker"
	"github.com/leadingpeers/seckill/pkg/events"
)

// Simulator plays one run after the other and keeps its memory. It belongs to
// one goroutine.
type Simulator struct {
	source *rand.PCG
	rng    *rand.Rand
	mutant memory.Mutant
	trace  func(line string) // nil = nobody listens

	clock time.Time
	redis *memory.Redis
	mysql *memory.MySQL
	kafka *memory.Kafka

	names    names
	products []string // of this run
	handlers map[events.Topic]events.Handler
	procs    [processes]*process
	tasks    []*task
	spare    []*task
	current  *task // who acts; nil = the scheduler
	locks    map[string]*task
	late     []lateEffect

	transactions int
	down         [servers]bool
	budget, rate int // faults of single effects that are left, and how likely each is, in percent
	plan         plan
	synced       time.Time
	ending       bool // no faults any more; what is under way comes to its end

	world     world
	faults    map[string]int64 // over all runs
	effects   int64            // over all runs
	violation string
}

// New returns a simulator of the protocol, or of a mutant of it.
func New(mutant memory.Mutant) *Simulator {
	s := &Simulator{
		source: rand.NewPCG(0, 0), mutant: mutant,
		locks: make(map[string]*task), faults: make(map[string]int64), names: newNames(),
	}
	s.rng = rand.New(s.source)
	now := func() time.Time { return s.clock }
	s.redis, s.mysql = memory.NewRedis(now, mutant), memory.NewMySQL(now, mutant)
	s.kafka = memory.NewKafka(s.names.products)
	s.handlers = map[events.Topic]events.Handler{
		events.Reservations: stockworker.Deduct(cacheWire{s}, ledgerWire{s}),
		events.Rollbacks:    stockworker.Rollback(cacheWire{s}, ledgerWire{s}),
		events.Channels:     stockworker.Channel(catalogueWire{s}, ledgerWire{s}),
		events.Deductions:   settleworker.Settle(catalogueWire{s}, orderWire{s}),
		events.Payments:     settleworker.Payment(orderWire{s}, ledgerWire{s}),
	}
	for i := range s.procs {
		s.procs[i] = s.newProcess(i)
	}
	return s
}

// names are the identities that runs use.
type names struct{ products, users, reservations []string }

func newNames() names {
	n := names{products: []string{"p", "q"}}
	for i := range 5 {
		n.users = append(n.users, "user"+strconv.Itoa(i))
	}
	for i := range 24 {
		n.reservations = append(n.reservations, fmt.Sprintf("%c%s", 'a'+i, "aaaaaaaaaaaaaaaaaaaaaaaaa"))
	}
	return n
}

// Trace lets listen hear every step of the runs that follow; nil = nobody.
func (s *Simulator) Trace(listen func(line string)) { s.trace = listen }

// Faults returns how often which fault has happened in all runs so far.
func (s *Simulator) Faults() map[string]int64 { return s.faults }

// Effects returns how many effects have been checked in all runs so far.
func (s *Simulator) Effects() int64 { return s.effects }

// Run plays the run of a seed and returns the first law that it breaks, or "".
func (s *Simulator) Run(seed uint64) (violation string) {
	s.reset(seed)
	for range s.plan.steps {
		if s.violation != "" {
			break
		}
		s.step()
	}
	if s.violation == "" {
		s.calm()
	}
	if s.violation == "" {
		s.rest()
	}
	for len(s.tasks) > 0 {
		s.tasks[0].killed = true
		s.run(0)
	}
	return s.violation
}

// n draws a number from 0 to k-1.
func (s *Simulator) n(k int) int { return s.rng.IntN(k) }

// one is true once in k times.
func (s *Simulator) one(k int) bool { return s.rng.IntN(k) == 0 }

func (s *Simulator) verbose() bool { return s.trace != nil }

// say tells the trace. Where its arguments cost something, ask verbose first.
func (s *Simulator) say(format string, args ...any) {
	if s.trace != nil {
		s.trace(fmt.Sprintf(format, args...))
	}
}

func (s *Simulator) count(fault string) { s.faults[fault]++ }

// violate notes the first broken law of a run.
func (s *Simulator) violate(law string) {
	if s.violation == "" {
		s.violation = law
		s.say("VIOLATION %s", law)
	}
}

// forever is the context of every step: nothing in memory ends early.
func forever() context.Context { return context.Background() }
