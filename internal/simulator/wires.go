package simulator

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/leadingpeers/seckill/internal/onway"
	"github.com/leadingpeers/seckill/internal/simulator/memory"
	"github.com/leadingpeers/seckill/pkg/events"
	"github.com/leadingpeers/seckill/pkg/stock"
)

// server is what an effect is sent to.
type server int

const (
	redis server = iota
	mysql
	kafka
	servers
)

func (to server) String() string { return [servers]string{"Redis", "MySQL", "Kafka"}[to] }

// The faults that a caller sees. What has happened nobody knows.
var (
	errRedis = fmt.Errorf("%w: the connection broke", stock.ErrUnknown)
	errMySQL = errors.New("the connection to MySQL broke")
	errKafka = errors.New("no acknowledgement from Kafka")
)

func (to server) fault() error { return [servers]error{errRedis, errMySQL, errKafka}[to] }

// cross takes an effect to a server. Before it the others go on; then it may
// not arrive, arrive and be answered in vain, or arrive when nobody waits for
// it any more.
func (s *Simulator) cross(to server, what string, effect func()) error {
	if s.current == nil {
		effect()
		return nil
	}
	s.pause()
	if s.current.overdue(s.clock) {
		s.say("  %s: %s is out of time", s.current.of.name, what)
		return context.DeadlineExceeded
	}
	switch s.mishap(to) {
	case arrives:
		s.say("  %s: %s", s.current.of.name, what)
		effect()
		if s.one(6) {
			s.pause() // before the answer is read
		}
		return nil
	case unheard:
		s.say("  %s: %s, and never hears of it", s.current.of.name, what)
		effect()
	case delayed:
		s.say("  %s: %s does not arrive yet", s.current.of.name, what)
		s.late = append(s.late, lateEffect{what, effect})
	case lost:
		s.say("  %s: %s does not arrive", s.current.of.name, what)
	}
	return to.fault()
}

// fate is what becomes of an effect on its way.
type fate int

const (
	arrives fate = iota
	lost
	unheard
	delayed
)

// mishap draws what becomes of an effect.
func (s *Simulator) mishap(to server) fate {
	if s.down[to] {
		return lost
	}
	if s.budget == 0 || s.n(100) >= s.rate {
		return arrives
	}
	s.budget--
	switch n := s.n(5); {
	case n < 2:
		s.count("unheard")
		return unheard
	case n == 2 && to != mysql:
		s.count("late")
		return delayed
	default:
		s.count("lost")
		return lost
	}
}

// lateEffect is on its way to a server, and its sender does not wait for it.
type lateEffect struct {
	what   string
	effect func()
}

// transact is cross for a transaction that locks a product's stock row.
func (s *Simulator) transact(product, what string, effect func()) error {
	for {
		blocked := false
		err := s.cross(mysql, what, func() {
			if blocked = s.locked(product); !blocked {
				effect()
			}
		})
		if !blocked || err != nil {
			return err
		}
		if s.n(4) == 0 {
			return errMySQL // the lock took too long
		}
	}
}

func (s *Simulator) locked(product string) bool {
	holder := s.locks[product]
	return holder != nil && holder != s.current
}

// cacheWire is Redis as the workers reach it.
type cacheWire struct{ *Simulator }

func (w cacheWire) Apply(_ context.Context, rows []stock.Reservation) (stock.Applied, error) {
	out, err := w.apply(rows)
	if w.mutant == memory.ApplyAtBest {
		err = nil
	}
	return out, err
}

func (w cacheWire) apply(rows []stock.Reservation) (out stock.Applied, err error) {
	err = w.cross(redis, "apply", func() {
		out = w.redis.Apply(rows)
		w.sayRows("apply", rows)
		w.touch()
	})
	return out, err
}

func only(rows []stock.Reservation, state stock.State) (out []stock.Reservation) {
	for _, r := range rows {
		if r.State == state {
			out = append(out, r)
		}
	}
	return out
}

func (w cacheWire) Reserve(r stock.Reservation) (got stock.Reservation, replayed bool, err error) {
	var no error
	err = w.cross(redis, "reserve", func() {
		_, known := w.redis.Find(r.ProductID, r.UserID, r.ID)
		got, replayed, no = w.redis.Reserve(r)
		w.touch()
		if known == nil && no != nil && !errors.Is(no, stock.IDReused) {
			w.violate(fmt.Sprintf("S0: %s is on record and its retry is refused: %v", r.ID[:4], no))
		}
	})
	if err == nil {
		err = no
	}
	return got, replayed, err
}

func (w cacheWire) Reap(_ context.Context, product string, olderThan time.Duration, limit int) (out []stock.Reservation, err error) {
	var no error
	err = w.cross(redis, "reap", func() { out, no = w.redis.Reap(product, olderThan, limit) })
	if err == nil {
		err = no
	}
	return out, err
}

func (w cacheWire) Preload(_ context.Context, terms stock.Terms, available int64, rows iter.Seq2[stock.Reservation, error]) (loaded bool, err error) {
	var all []stock.Reservation
	for r, err := range rows {
		if err != nil {
			return false, err
		}
		all = append(all, r)
	}
	wiped := w.redis.Wiped()
	if err := w.cross(redis, "preload fill", func() {}); err != nil {
		return false, err
	}
	gone := false
	err = w.cross(redis, "preload publish", func() {
		if gone = len(all) > 0 && w.redis.Wiped() != wiped; !gone {
			loaded = w.redis.Preload(terms, available, all)
			w.touch()
		}
	})
	if err == nil && gone {
		return false, errRedis
	}
	return loaded, err
}

func (w cacheWire) Configure(_ context.Context, terms stock.Terms) error {
	var no error
	err := w.cross(redis, "configure", func() {
		no = w.redis.Configure(terms)
		w.touch()
	})
	if err == nil {
		err = no
	}
	return err
}

func (w cacheWire) Loaded(_ context.Context, products []string) (out map[string]string, err error) {
	err = w.cross(redis, "loaded", func() { out = w.redis.Loaded(products) })
	if w.current != nil {
		w.current.until = w.clock.Add(tendTimeout) // what the Healer does next has an end
	}
	return out, err
}

func (w cacheWire) RunID(context.Context) (id string, err error) {
	err = w.cross(redis, "run ID", func() { id = w.redis.RunID() })
	if w.mutant == memory.NoHealAfterLoss {
		id = "the same"
	}
	return id, err
}

// shelfWire is what the Healer sees: stock.Load and stock.Heal over the wires.
type shelfWire struct {
	cacheWire
	loads map[string]string // of a mutant: the load of each product that was last to be healed
}

// newShelf makes the shelf of one Healer.
func (s *Simulator) newShelf() shelfWire {
	w := shelfWire{cacheWire: cacheWire{s}}
	if s.mutant == memory.NoHealAfterLoad {
		w.loads = make(map[string]string)
	}
	return w
}

func (w shelfWire) Load(ctx context.Context, terms stock.Terms) (bool, error) {
	if w.mutant != memory.NoHealAfterLoad {
		return stock.Load(ctx, w, ledgerWire{w.Simulator}, terms)
	}
	loaded := false
	err := ledgerWire{w.Simulator}.Snapshot(ctx, terms.ProductID, func(units stock.Units, rows iter.Seq2[stock.Reservation, error]) error {
		terms.Total, terms.Restocks = units.Total, units.Restocks
		done, err := w.Preload(ctx, terms, units.Available, rows)
		loaded = loaded || done
		return err
	})
	if is, known := w.Loaded(ctx, []string{terms.ProductID}); known == nil && is[terms.ProductID] != "" {
		return loaded, nil
	}
	return loaded, err
}

func (w shelfWire) Heal(ctx context.Context, product string, within time.Duration) (stock.Applied, error) {
	if w.loads != nil {
		if load := w.redis.Loaded(w.products)[product]; load != w.loads[product] {
			w.loads[product] = load
			return stock.Applied{}, nil
		}
	}
	return stock.Heal(ctx, w, ledgerWire{w.Simulator}, product, within)
}

// Apply is that of a load or a heal.
func (w shelfWire) Apply(_ context.Context, rows []stock.Reservation) (stock.Applied, error) {
	if w.mutant == memory.HealDeductionsOnly {
		rows = only(rows, stock.Deducted)
	}
	return w.apply(rows)
}

// logWire is Kafka as whoever publishes reaches it.
type logWire struct{ *Simulator }

func (w logWire) Publish(_ context.Context, evs ...events.Event) error {
	for _, e := range evs {
		if err := e.Validate(); err != nil {
			return events.Permanent(err)
		}
	}
	if w.current == nil {
		w.append(evs)
		return nil
	}
	w.pause()
	switch w.mishap(kafka) {
	case arrives:
		w.append(evs)
		return nil
	case unheard: // some or all
		w.append(evs[:1+w.n(len(evs))])
	case delayed:
		w.late = append(w.late, lateEffect{"publish", func() { w.append(evs) }})
	case lost:
	}
	w.say("  %s: no acknowledgement of %d events", w.current.of.name, len(evs))
	return errKafka
}

// queue is how far the events of a topic are handled.
func (w logWire) queue(topic events.Topic) onway.Queue {
	return func(context.Context) (onway.Of, error) {
		lags := make(map[string]events.PartitionLag)
		err := w.cross(kafka, "ask for the lag of "+string(topic), func() {
			for i, p := range w.kafka.Partitions() {
				if p.Topic == topic {
					lags[p.Key] = events.PartitionLag{Partition: i, Committed: int64(p.Position()), End: int64(p.Len())}
				}
			}
		})
		return func(key string) events.PartitionLag {
			if of, keyed := lags[key]; keyed {
				return of
			}
			return lags[""] // the one partition for all keys
		}, err
	}
}

// append writes events to the log and notes what has been told.
func (w logWire) append(evs []events.Event) {
	for _, e := range evs {
		if w.verbose() {
			w.say("  Kafka has %s", e.ID())
		}
		w.kafka.Append(memory.Record{Event: e})
		w.told(e)
	}
}
