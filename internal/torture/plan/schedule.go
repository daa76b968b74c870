package plan

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/leadingpeers/seckill/internal/torture/stage"
)

// Event is a fault that is over, or could not be done.
type Event struct {
	Kind         string
	Loses        []string
	Began, Ended time.Time
	Err          error
}

// Holds is whether it keeps answers from the buyers that the gateways would
// give: they stand still, or the way to them is hurt.
func (e Event) Holds() bool {
	return e.Kind == "stop:gateway" || e.Kind == "swizzle" || strings.HasPrefix(e.Kind, "tcp:buyer-gateway:")
}

// Schedule hurts the stage until Run's context ends.
type Schedule struct {
	Actor *Actor
	Seed  uint64
	Heavy bool                              // also what takes many seconds: everything down then up
	Only  []string                          // only faults whose kind begins with one of these; empty = all
	Begin func(kind string, loses []string) // told before a fault
	End   func(Event)                       // told after it
}

// Run does one pattern after the other until ctx ends, and has undone all when
// it returns. The order follows from the seed; the moments do not quite. It
// begins with the fault that sells the most twice, so that a short run has it.
func (s *Schedule) Run(ctx context.Context) {
	rng := rand.New(rand.NewPCG(s.Seed, 0x746f7274757265))
	if len(s.Only) == 0 {
		s.do(ctx, s.Actor.rewindRedis(rng))
	}
	for ctx.Err() == nil {
		pause(ctx, between(rng, 100*time.Millisecond, 1200*time.Millisecond))
		if ctx.Err() != nil {
			return
		}
		switch n := rng.IntN(100); {
		case len(s.Only) > 0 || n < 62:
			s.do(ctx, s.draw(rng))
		case n < 84:
			s.pair(ctx, rng)
		case n < 91:
			s.swizzle(ctx, rng)
		case n < 97:
			s.crashLoop(ctx, rng)
		case s.Heavy:
			s.allDown(ctx, rng)
		}
	}
}

func (s *Schedule) draw(rng *rand.Rand) Fault {
	for {
		f := s.Actor.Any(rng)
		if len(s.Only) == 0 || slices.ContainsFunc(s.Only, func(start string) bool { return strings.HasPrefix(f.Kind, start) }) {
			return f
		}
	}
}

// pair does two faults on different targets at the same time.
func (s *Schedule) pair(ctx context.Context, rng *rand.Rand) {
	first, second := s.draw(rng), s.draw(rng)
	for second.Target == first.Target {
		second = s.draw(rng)
	}
	offset := between(rng, 0, 500*time.Millisecond)
	var both sync.WaitGroup
	both.Go(func() { s.do(ctx, first) })
	both.Go(func() { pause(ctx, offset); s.do(ctx, second) })
	both.Wait()
}

// swizzle stops all processes one by one and lets them go on in another order.
func (s *Schedule) swizzle(ctx context.Context, rng *rand.Rand) {
	ps := s.Actor.Stage.Processes
	gap := between(rng, 50*time.Millisecond, 400*time.Millisecond)
	down, up := rng.Perm(len(ps)), rng.Perm(len(ps))
	signal := func(order []int, sig syscall.Signal) error {
		for _, i := range order {
			if err := ps[i].Signal(sig); err != nil {
				return err
			}
			pause(ctx, gap)
		}
		return nil
	}
	s.do(ctx, Fault{
		Kind:  "swizzle",
		Begin: func(context.Context) error { return signal(down, syscall.SIGSTOP) },
		End:   func(context.Context) error { return signal(up, syscall.SIGCONT) },
	})
}

// crashLoop kills one process again and again as soon as it is up.
func (s *Schedule) crashLoop(ctx context.Context, rng *rand.Rand) {
	p := one(rng, s.Actor.Stage.Processes)
	times := 3 + rng.IntN(4)
	s.do(ctx, Fault{
		Kind: "crash-loop:" + p.Role,
		Begin: func(ctx context.Context) error {
			for range times {
				p.Kill()
				if err := p.Start(ctx); err != nil {
					return err
				}
			}
			return nil
		},
		End: nothing,
	})
}

// allDown kills everything, then starts it.
func (s *Schedule) allDown(ctx context.Context, rng *rand.Rand) {
	st := s.Actor.Stage
	servers := append(st.Brokers(), "mysql")
	s.do(ctx, Fault{
		Kind: "all-down", Loses: []string{"*"}, For: between(rng, 0, 2*time.Second),
		Begin: func(ctx context.Context) error {
			for _, p := range st.Processes {
				p.Kill()
			}
			_, err := st.Redis.Kill(0)
			return errors.Join(err, st.KillServer(ctx, servers...))
		},
		End: func(ctx context.Context) error {
			err := errors.Join(st.Redis.Start(ctx), st.StartServer(ctx, servers...))
			for _, p := range st.Processes {
				err = errors.Join(err, p.Start(ctx))
			}
			return err
		},
	})
}

// do does one fault, waits, and undoes it, whatever becomes of ctx meanwhile.
func (s *Schedule) do(ctx context.Context, f Fault) {
	s.Begin(f.Kind, f.Loses)
	began := time.Now()
	whole := context.WithoutCancel(ctx)
	err := f.Begin(whole)
	pause(ctx, f.For)
	if errEnd := f.End(whole); err == nil && errEnd != nil {
		err = errEnd
	}
	if err != nil {
		err = fmt.Errorf("fault %s of %s: %w", f.Kind, f.Target, err)
	}
	s.End(Event{f.Kind, f.Loses, began, time.Now(), err})
}

// Restore makes everything well, whatever was left.
func Restore(ctx context.Context, st *stage.Stage) error {
	if err := st.StartServer(ctx, append(st.Brokers(), "mysql")...); err != nil { // those that run are left alone
		return err
	}
	for _, p := range st.Processes {
		_ = p.Signal(syscall.SIGCONT)
		if err := p.Start(ctx); err != nil {
			return err
		}
		for _, l := range []*stage.Link{p.ToRedis, p.ToMySQL} {
			if err := l.Heal(); err != nil {
				return err
			}
		}
	}
	for _, l := range append(append([]*stage.Link{}, st.Doors...), st.ToKafka...) {
		if err := l.Heal(); err != nil {
			return err
		}
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
