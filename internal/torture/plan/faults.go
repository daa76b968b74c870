// Package plan decides what is hurt, when, for how long and together with what:
// a schedule that follows from a seed.
package plan

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/leadingpeers/seckill/internal/fault"
	"github.com/leadingpeers/seckill/internal/torture/stage"
)

// Fault is one thing that is done to a part of the stage, and undone.
type Fault struct {
	Kind   string
	Target string        // two faults on one target do not go together
	For    time.Duration // between Begin and End
	Loses  []string      // products of which Redis may lose reservations; "*" = all
	Begin  func(context.Context) error
	End    func(context.Context) error
}

// Actor makes the faults of a stage.
type Actor struct {
	Stage    *stage.Stage
	Products []string
	Restock  func(ctx context.Context, units int64) // adds so many to every product; nil = nobody does
}

// maker makes one kind of fault. Kinds with more weight come more often.
type maker struct {
	weight int
	make   func(a *Actor, rng *rand.Rand) Fault
}

// makers lists every kind.
func (a *Actor) makers() []maker {
	all := []maker{
		{12, (*Actor).point},
		{10, (*Actor).killProcess},
		{8, (*Actor).stopProcess},
		{3, (*Actor).drainProcess},
		{12, (*Actor).link},
		{5, (*Actor).door},
		{6, (*Actor).toKafka},
		{4, (*Actor).killRedis},
		{8, (*Actor).cutRedis},
		{8, (*Actor).rewindRedis},
		{3, (*Actor).stopRedis},
		{4, (*Actor).flushAll},
		{5, (*Actor).deleteProduct},
		{2, (*Actor).flushScripts},
		{4, (*Actor).failover},
		{3, (*Actor).maxMemory},
		{3, (*Actor).killBroker},
		{3, (*Actor).pauseBroker},
		{4, (*Actor).killMySQL},
		{2, (*Actor).pauseMySQL},
		{4, (*Actor).lockRows},
		{3, (*Actor).cutSessions},
		{3, (*Actor).replay},
		{2, (*Actor).forgetOffsets},
	}
	if _, ok := a.Stage.SmallDisk(); ok {
		all = append(all, maker{3, (*Actor).fillDisk})
	}
	if len(a.Stage.Brokers()) > 1 {
		all = append(all, maker{6, (*Actor).moveLeaders})
	}
	return all
}

// Any draws one fault.
func (a *Actor) Any(rng *rand.Rand) Fault {
	all := a.makers()
	sum := 0
	for _, m := range all {
		sum += m.weight
	}
	n := rng.IntN(sum)
	for _, m := range all {
		if n -= m.weight; n < 0 {
			return m.make(a, rng)
		}
	}
	panic("unreachable")
}

func between(rng *rand.Rand, low, high time.Duration) time.Duration {
	return low + time.Duration(rng.Int64N(int64(high-low)))
}

func one[T any](rng *rand.Rand, of []T) T { return of[rng.IntN(len(of))] }

func nothing(context.Context) error { return nil }

func (a *Actor) killProcess(rng *rand.Rand) Fault {
	p := one(rng, a.Stage.Processes)
	return Fault{
		Kind: "kill:" + p.Role, Target: p.Name, For: between(rng, 50*time.Millisecond, 3*time.Second),
		Begin: func(context.Context) error { p.Kill(); return nil },
		End:   func(ctx context.Context) error { return p.Start(ctx) },
	}
}

func (a *Actor) stopProcess(rng *rand.Rand) Fault {
	p := one(rng, a.Stage.Processes)
	d := between(rng, 100*time.Millisecond, 4*time.Second)
	if rng.IntN(4) == 0 { // long enough to lose its partitions, and to come back as a zombie
		d = between(rng, 10*time.Second, 15*time.Second)
	}
	return Fault{
		Kind: "stop:" + p.Role, Target: p.Name, For: d,
		Begin: func(context.Context) error { return p.Signal(syscall.SIGSTOP) },
		End:   func(context.Context) error { return p.Signal(syscall.SIGCONT) },
	}
}

func (a *Actor) drainProcess(rng *rand.Rand) Fault {
	p := one(rng, a.Stage.Processes)
	return Fault{
		Kind: "drain:" + p.Role, Target: p.Name, For: between(rng, 50*time.Millisecond, time.Second),
		Begin: func(context.Context) error { _ = p.Stop(10 * time.Second); return nil }, // in trouble it may not manage
		End:   func(ctx context.Context) error { return p.Start(ctx) },
	}
}

// point starts a process again that ends by itself when it comes to a fault
// point.
func (a *Actor) point(rng *rand.Rand) Fault {
	p := one(rng, a.Stage.Processes)
	at, hit := one(rng, fault.Points(p.Role)), 1+rng.IntN(6)
	return Fault{
		Kind: "point:" + at, Target: p.Name, For: between(rng, 2*time.Second, 5*time.Second),
		Begin: func(ctx context.Context) error {
			p.Kill()
			return p.Start(ctx, fmt.Sprintf("SECKILL_TEST_FAULTS=%s:%d", at, hit))
		},
		End: p.Disarm,
	}
}

func (a *Actor) onLink(rng *rand.Rand, what string, l *stage.Link) Fault {
	kind, own := one(rng, stage.Toxics()), rand.New(rand.NewPCG(rng.Uint64(), 0)) // Begin runs beside other faults
	return Fault{
		Kind: "tcp:" + what + ":" + kind, Target: what, For: between(rng, 200*time.Millisecond, 5*time.Second),
		Begin: func(context.Context) error { return l.Hurt(kind, own) },
		End:   func(context.Context) error { return l.Heal() },
	}
}

func (a *Actor) link(rng *rand.Rand) Fault {
	p := one(rng, a.Stage.Processes)
	what, l := p.Role+"-redis", p.ToRedis
	if rng.IntN(2) == 0 {
		what, l = p.Role+"-mysql", p.ToMySQL
	}
	f := a.onLink(rng, what, l)
	f.Target += p.Name
	return f
}

func (a *Actor) door(rng *rand.Rand) Fault {
	return a.onLink(rng, "buyer-gateway", one(rng, a.Stage.Doors))
}

func (a *Actor) toKafka(rng *rand.Rand) Fault {
	return a.onLink(rng, "kafka", one(rng, a.Stage.ToKafka))
}

func (a *Actor) killRedis(rng *rand.Rand) Fault {
	return Fault{
		Kind: "redis:kill", Target: "redis", For: between(rng, 0, 3*time.Second), Loses: []string{"*"},
		Begin: func(context.Context) error { _, err := a.Stage.Redis.Kill(0); return err },
		End:   a.Stage.Redis.Start,
	}
}

func (a *Actor) cutRedis(rng *rand.Rand) Fault {
	lose := between(rng, 100*time.Millisecond, 2*time.Second)
	return Fault{
		Kind: "redis:power-cut", Target: "redis", For: between(rng, 0, 2*time.Second), Loses: []string{"*"},
		Begin: func(context.Context) error { _, err := a.Stage.Redis.Kill(lose); return err },
		End:   a.Stage.Redis.Start,
	}
}

// rewindRedis lets Redis forget what it has sold while nobody wrote it into the
// ledger, and sell it again: whoever decides then must count for himself. What
// is sold are the last units of every product, which have just come.
func (a *Actor) rewindRedis(rng *rand.Rand) Fault {
	workers := a.Stage.Named("stock-worker")
	signal := func(sig syscall.Signal) (err error) {
		for _, p := range workers {
			err = errors.Join(err, p.Signal(sig))
		}
		return err
	}
	before := between(rng, 1500*time.Millisecond, 3*time.Second)
	return Fault{
		Kind: "redis:rewind+workers-stopped", Target: "redis", For: between(rng, 1500*time.Millisecond, 3*time.Second), Loses: []string{"*"},
		Begin: func(ctx context.Context) error {
			if a.Restock != nil {
				a.Restock(ctx, 30)
			}
			from := time.Now()
			if err := signal(syscall.SIGSTOP); err != nil {
				return err
			}
			pause(ctx, before)
			if _, err := a.Stage.Redis.Kill(time.Since(from)); err != nil {
				return err
			}
			return a.Stage.Redis.Start(ctx)
		},
		End: func(context.Context) error { return signal(syscall.SIGCONT) },
	}
}

func (a *Actor) stopRedis(rng *rand.Rand) Fault {
	return Fault{
		Kind: "redis:stop", Target: "redis", For: between(rng, 100*time.Millisecond, 6*time.Second),
		Begin: func(context.Context) error { return a.Stage.Redis.Signal(syscall.SIGSTOP) },
		End:   func(context.Context) error { return a.Stage.Redis.Signal(syscall.SIGCONT) },
	}
}

func (a *Actor) flushAll(*rand.Rand) Fault {
	return Fault{
		Kind: "redis:FLUSHALL", Target: "redis", Loses: []string{"*"}, End: nothing,
		Begin: func(ctx context.Context) error { return a.Stage.Redis.Master().FlushAll(ctx).Err() },
	}
}

func (a *Actor) deleteProduct(rng *rand.Rand) Fault {
	id := one(rng, a.Products)
	key := stage.Prefix + ":{" + id + "}"
	return Fault{
		Kind: "redis:DEL", Target: "redis", Loses: []string{id}, End: nothing,
		Begin: func(ctx context.Context) error { return a.Stage.Redis.Master().Del(ctx, key, key+":open").Err() },
	}
}

func (a *Actor) flushScripts(*rand.Rand) Fault {
	return Fault{
		Kind: "redis:SCRIPT FLUSH", Target: "redis", End: nothing,
		Begin: func(ctx context.Context) error { return a.Stage.Redis.Master().ScriptFlush(ctx).Err() },
	}
}

func (a *Actor) failover(rng *rand.Rand) Fault {
	return Fault{
		Kind: "redis:failover", Target: "redis", Loses: []string{"*"}, For: between(rng, 0, time.Second),
		Begin: a.Stage.Redis.Failover, End: nothing,
	}
}

func (a *Actor) maxMemory(rng *rand.Rand) Fault {
	set := func(to string) func(context.Context) error {
		return func(ctx context.Context) error { return a.Stage.Redis.Master().ConfigSet(ctx, "maxmemory", to).Err() }
	}
	return Fault{Kind: "redis:maxmemory", Target: "redis", For: between(rng, 500*time.Millisecond, 4*time.Second), Begin: set("1mb"), End: set("0")}
}

// fillDisk leaves the master's disk without a free byte.
func (a *Actor) fillDisk(rng *rand.Rand) Fault {
	dir, _ := a.Stage.SmallDisk()
	file := filepath.Join(dir, "ballast")
	return Fault{
		Kind: "redis:disk-full", Target: "redis", For: between(rng, time.Second, 5*time.Second), Loses: []string{"*"},
		Begin: func(context.Context) error {
			f, err := os.Create(file)
			if err != nil {
				return err
			}
			chunk := make([]byte, 1<<20)
			for err == nil {
				if _, err = f.Write(chunk); err != nil && len(chunk) > 1 {
					chunk, err = chunk[:len(chunk)/2], nil
				}
			}
			_ = f.Close()
			if !errors.Is(err, syscall.ENOSPC) {
				return err
			}
			return nil
		},
		End: func(context.Context) error { return os.Remove(file) },
	}
}

func (a *Actor) killBroker(rng *rand.Rand) Fault {
	return a.server(rng, "kill", one(rng, a.Stage.Brokers()))
}

func (a *Actor) pauseBroker(rng *rand.Rand) Fault {
	return a.server(rng, "stop", one(rng, a.Stage.Brokers()))
}

func (a *Actor) killMySQL(rng *rand.Rand) Fault { return a.server(rng, "kill", "mysql") }

func (a *Actor) pauseMySQL(rng *rand.Rand) Fault { return a.server(rng, "stop", "mysql") }

func (a *Actor) server(rng *rand.Rand, how, name string) Fault {
	kind := name
	if name != "mysql" {
		kind = "kafka"
	}
	f := Fault{Kind: kind + ":" + how, Target: kind, For: between(rng, 100*time.Millisecond, 4*time.Second)}
	if how == "kill" {
		f.Begin = func(ctx context.Context) error { return a.Stage.KillServer(ctx, name) }
		f.End = func(ctx context.Context) error { return a.Stage.StartServer(ctx, name) }
		return f
	}
	f.Begin = func(ctx context.Context) error { return a.Stage.PauseServer(ctx, name) }
	f.End = func(ctx context.Context) error { return a.Stage.ContinueServer(ctx, name) }
	return f
}

// lockRows is somebody else's session that holds the stock rows.
func (a *Actor) lockRows(rng *rand.Rand) Fault {
	query, args := "SELECT available FROM stock WHERE product_id = ? FOR UPDATE", []any{one(rng, a.Products)}
	if rng.IntN(3) == 0 {
		query, args = "SELECT available FROM stock FOR UPDATE", nil
	}
	unlock := func() error { return nil }
	return Fault{
		Kind: "mysql:foreign-lock", Target: "mysql", For: between(rng, 200*time.Millisecond, 6*time.Second),
		Begin: func(ctx context.Context) error {
			tx, err := a.Stage.DB.BeginTx(context.WithoutCancel(ctx), nil)
			if err != nil {
				return err
			}
			unlock = tx.Rollback
			_, err = tx.ExecContext(ctx, query, args...)
			return err
		},
		End: func(context.Context) error { return unlock() },
	}
}

// cutSessions ends the sessions of all clients.
func (a *Actor) cutSessions(*rand.Rand) Fault {
	return Fault{
		Kind: "mysql:kill-sessions", Target: "mysql", End: nothing,
		Begin: func(ctx context.Context) error {
			rows, err := a.Stage.DB.QueryContext(ctx, "SELECT id FROM information_schema.processlist WHERE id <> CONNECTION_ID() AND command <> 'Binlog Dump' AND db = 'torture'")
			if err != nil {
				return err
			}
			var ids []int64
			for rows.Next() {
				var id int64
				if err := rows.Scan(&id); err != nil {
					return err
				}
				ids = append(ids, id)
			}
			_ = rows.Close()
			for _, id := range ids {
				_, _ = a.Stage.DB.ExecContext(ctx, fmt.Sprintf("KILL %d", id)) // it may have gone by itself
			}
			return rows.Err()
		},
	}
}

// away ends both copies of the roles for something that a group with members
// refuses, and starts them again.
func (a *Actor) away(kind string, do func(context.Context) error) Fault {
	workers := slices.Concat(a.Stage.Named("stock-worker"), a.Stage.Named("settle-worker"))
	return Fault{
		Kind: kind, Target: "workers",
		Begin: func(ctx context.Context) error {
			for _, p := range workers {
				_ = p.Stop(10 * time.Second)
			}
			return do(ctx)
		},
		End: func(ctx context.Context) error {
			var errs []error
			for _, p := range workers {
				errs = append(errs, p.Start(ctx))
			}
			return errors.Join(errs...)
		},
	}
}

func (a *Actor) replay(*rand.Rand) Fault {
	return a.away("kafka:replay-from-0", func(ctx context.Context) error { return a.Stage.SetOffsets(ctx, 0) })
}

func (a *Actor) forgetOffsets(*rand.Rand) Fault {
	return a.away("kafka:groups-deleted", a.Stage.DeleteGroups)
}

func (a *Actor) moveLeaders(*rand.Rand) Fault {
	return Fault{Kind: "kafka:leader-move", Target: "kafka", End: nothing, Begin: a.Stage.MoveLeaders}
}
