package replay

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"github.com/leadingpeers/seckill/internal/ops"
	"github.com/leadingpeers/seckill/internal/ops/kafkalog"
	"github.com/leadingpeers/seckill/internal/ops/lag"
	"github.com/leadingpeers/seckill/pkg/events"
)

// Desk is where an operator replays: connections, and who it is.
type Desk struct {
	Kafka     *kafkalog.Kafka
	DB        *sql.DB // of the lock and the audit trail
	Books     ops.Books
	Publisher *events.Publisher
	Handlers  map[string]events.Handler // the workers' own, by group
	By        string                    // who, for the audit trail: at most 64 printable ASCII characters
	Now       func() time.Time
	Log       *slog.Logger // of outages, while they last
}

func (d Desk) prefix() string { return strings.TrimSuffix(d.Kafka.Config().TopicName(""), ".") }

// ours reports whether a range is read by a group of ours.
func (d Desk) ours(r Range) bool {
	for _, t := range events.Topics() {
		if t.Group != "" && t.Group == r.Group && t.Name == r.Topic {
			return true
		}
	}
	return false
}

// full is the full name of a group of a plan.
func (d Desk) full(r Range) string {
	if d.ours(r) {
		return d.Kafka.Config().GroupName(r.Group)
	}
	return r.Group
}

// own is the group, without prefix, in which a plan's progress is kept.
func (p *Plan) own() string { return lag.Replays + p.ID }

// Options say how to run a plan.
type Options struct {
	Mode Mode
	Rate float64 // events a second, at most; 0 = as fast as it goes
}

// Run runs the plan in a file, or goes on with it where it was stopped, failed
// or was killed. It refuses (a *[Refused]) what must not be, and then nothing
// has changed: a plan whose end has moved since, a range that the ledger may
// have forgotten, a group that is being replayed, and for [Reset] one with
// members. It returns ctx's error when ctx ends; the batch in hand is finished
// before, and running again goes on behind it.
//
// Every event may reach its handler more often than once: after a fault, and
// after being killed.
func (d Desk) Run(ctx context.Context, path string, o Options) (*State, error) {
	p, s, err := d.open(path, o)
	if err != nil {
		return nil, err
	}
	l, err := d.take(ctx, p.groups())
	if err != nil {
		return nil, err
	}
	defer func() { _ = l.release(ctx) }()
	again := s != nil
	if err := d.verify(ctx, p, again); err != nil {
		return nil, err
	}
	if o.Mode == Reset {
		if err := d.idle(ctx, p); err != nil {
			return nil, err
		}
	}
	if s, err = d.begin(ctx, path, p, s, o); err != nil {
		return nil, err
	}
	err = d.carryOut(ctx, path, p, s, o)
	return s, d.end(ctx, path, p, s, err)
}

// open reads the plan and its state, and refuses what can be seen from them.
func (d Desk) open(path string, o Options) (*Plan, *State, error) {
	const what = "cannot run the plan"
	p, err := Load(path)
	if err != nil {
		return nil, nil, err
	}
	s, err := loadState(path)
	switch {
	case err != nil:
		return nil, nil, err
	case p.Prefix != d.prefix():
		return nil, nil, refuse(what, "say --prefix "+p.Prefix, "it is for the installation %q, and this is %q", p.Prefix, d.prefix())
	case p.Expect.Forgotten > 0:
		return nil, nil, refuse(what, "plan from a later time; or, if no row was ever deleted from the ledger, plan with --ledger-complete",
			"%d of its events are older than what the ledger remembers (%s) and not in it: they may have been decided and forgotten, and would be decided again",
			p.Expect.Forgotten, p.Expect.LedgerSince.Format(time.RFC3339))
	case s != nil && s.Plan != p.ID:
		return nil, nil, refuse(what, "remove "+beside(path, ".state.json")+" if that replay is of no interest any more", "the state beside it is of another plan, %s", s.Plan)
	case s != nil && (s.Status == Done || s.Status == Undone || s.Status == Waiting):
		return nil, nil, refuse(what, "make a new plan; seckill replay status tells what this one did", "it has been run and is %s", s.Status)
	case s != nil && s.Mode != o.Mode:
		return nil, nil, refuse(what, "go on with --mode "+string(s.Mode)+", or make a new plan", "it was begun in mode %s", s.Mode)
	}
	return p, s, d.allows(p, o)
}

// allows refuses what a mode cannot do.
func (d Desk) allows(p *Plan, o Options) error {
	const what = "cannot run the plan"
	if o.Mode != Reset && o.Mode != Isolate && o.Mode != Republish {
		return refuse(what, "say --mode reset, isolate or republish", "there is no mode %q", o.Mode)
	}
	if o.Mode == Reset && o.Rate > 0 {
		return refuse(what, "leave --rate out, or use --mode isolate", "in mode reset the workers read, and they know of no rate")
	}
	if o.Mode == Reset && p.Reservation != "" {
		return refuse(what, "use --mode isolate or republish", "a group that is reset reads everything, not only reservation %s", p.Reservation)
	}
	for _, r := range p.Ranges {
		if o.Mode == Isolate && (!d.ours(r) || d.Handlers[r.Group] == nil) {
			return refuse(what, "use --mode reset or republish", "group %s is not ours: its handler is elsewhere", r.Group)
		}
		if o.Mode != Reset && r.Topic == events.Channels {
			return refuse(what, "use --mode reset, which reads up to the present", "of a channel the last word counts, and an old one must not come after it")
		}
	}
	return nil
}

// verify compares the plan with the logs as they are now, and leaves out what
// retention has deleted since. The end is only compared before the first run:
// a republishing moves it by itself.
func (d Desk) verify(ctx context.Context, p *Plan, again bool) error {
	const what, fix = "cannot run the plan", "make a new plan; with --to and a time that has passed, new records do not matter to it"
	var logs map[int]kafkalog.Extent
	var ends map[int]int64
	for i := range p.Ranges {
		r := &p.Ranges[i]
		topic := d.Kafka.Config().TopicName(r.Topic)
		if i == 0 || p.Ranges[i-1].Topic != r.Topic {
			var to time.Time
			if p.To != nil {
				to = *p.To
			}
			var err error
			if logs, err = d.Kafka.Extents(ctx, topic); err != nil {
				return fmt.Errorf("compare the plan with %s: %w", topic, err)
			}
			if ends, err = d.ends(ctx, topic, to, logs); err != nil {
				return fmt.Errorf("compare the plan with %s: %w", topic, err)
			}
		}
		log, there := logs[r.Partition]
		switch planned := d.plannedEnd(p, *r); {
		case !there || log.End < r.To || log.End < r.LogEnd:
			return refuse(what, fix, "%s/%d ends at %d and reached %d when it was planned: the topic was made anew", topic, r.Partition, log.End, r.LogEnd)
		case !again && p.Reservation == "" && ends[r.Partition] != planned:
			return refuse(what, fix, "the end of %s/%d has moved from %d to %d since it was planned", topic, r.Partition, planned, ends[r.Partition])
		}
		if log.Start > r.From {
			r.Gone += min(log.Start, r.To) - r.From
			r.From = min(log.Start, r.To)
		}
	}
	return nil
}

// plannedEnd is where a range ended when it was planned.
func (d Desk) plannedEnd(p *Plan, r Range) int64 {
	if p.To == nil {
		return r.LogEnd
	}
	return r.To
}

// idle refuses groups that have members, and names them.
func (d Desk) idle(ctx context.Context, p *Plan) error {
	for _, r := range p.Ranges {
		g, err := d.Kafka.Group(ctx, d.full(r))
		if err != nil {
			return err
		}
		if len(g.Members) == 0 && g.State != "PreparingRebalance" && g.State != "CompletingRebalance" {
			continue
		}
		who := "no one by name yet"
		for i, m := range g.Members {
			if i == 0 {
				who = ""
			}
			who += fmt.Sprintf("\n         %s with %v", m.Name(), m.Owns)
		}
		return refuse("cannot move the offsets of group "+d.full(r), "stop these workers first and wait until they are gone, or use --mode isolate",
			"it is active (%s): %s", g.State, who)
	}
	return nil
}

// begin writes down that the replay has begun, before it does anything.
func (d Desk) begin(ctx context.Context, path string, p *Plan, s *State, o Options) (*State, error) {
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	if s == nil {
		s = &State{Plan: p.ID, Mode: o.Mode, StartedAt: d.Now().UTC()}
		if s.Before, err = d.books(ctx, p.Products); err != nil {
			return nil, err
		}
		if err := d.remember(ctx, p, s); err != nil {
			return nil, err
		}
	}
	s.Status, s.By, s.Host, s.PID, s.Error = Running, d.By, host, os.Getpid(), ""
	if err := os.Remove(beside(path, ".stop")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if err := d.audit(ctx, "RunReplay", p, s); err != nil {
		return nil, err
	}
	return s, s.save(path, d.Now())
}

// remember notes what the mode needs to be undone, or to notice harm.
func (d Desk) remember(ctx context.Context, p *Plan, s *State) error {
	s.Saved, s.Dead = map[string]kafkalog.Offsets{}, map[string]int64{}
	for _, r := range p.Ranges {
		group, topic := d.full(r), d.Kafka.Config().TopicName(r.Topic)
		switch s.Mode {
		case Isolate:
		case Reset:
			committed, err := d.Kafka.Committed(ctx, group)
			if err != nil {
				return err
			}
			if s.Saved[group] == nil {
				s.Saved[group] = kafkalog.Offsets{}
			}
			s.Saved[group].Set(topic, r.Partition, committed.Get(topic, r.Partition))
		case Republish:
			if _, known := s.Dead[r.Group]; known || !d.ours(r) {
				continue
			}
			n, err := d.deadLetters(ctx, r.Group)
			if err != nil {
				return err
			}
			s.Dead[r.Group] = n
		}
	}
	return nil
}

// deadLetters counts all that a group of ours ever had.
func (d Desk) deadLetters(ctx context.Context, group string) (n int64, err error) {
	logs, err := d.Kafka.Extents(ctx, d.Kafka.Config().TopicName(events.DeadLetterTopic(group)))
	for _, log := range logs {
		n += log.End
	}
	return n, err
}

// carryOut does what the mode says. A stop file ends it like the end of ctx.
func (d Desk) carryOut(ctx context.Context, path string, p *Plan, s *State, o Options) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go d.awaitStop(ctx, path, cancel)
	limit := newLimiter(o.Rate)
	switch o.Mode {
	case Reset:
		return d.reset(ctx, p)
	case Isolate:
		return d.isolate(ctx, p, s, limit)
	case Republish:
		return d.republish(ctx, p, s, limit)
	}
	return nil
}

// stopEvery is how often a running replay looks whether it was asked to stop.
const stopEvery = 100 * time.Millisecond

func (d Desk) awaitStop(ctx context.Context, path string, stop context.CancelFunc) {
	tick := time.NewTicker(stopEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if _, err := os.Stat(beside(path, ".stop")); err == nil {
				stop()
				return
			}
		}
	}
}

// end writes down what came of it.
func (d Desk) end(ctx context.Context, path string, p *Plan, s *State, err error) error {
	ctx = context.WithoutCancel(ctx)
	switch {
	case errors.Is(err, context.Canceled):
		s.Status = Stopped
	case err != nil:
		s.Status, s.Error = Failed, err.Error()
	case s.Mode == Reset:
		s.Status = Waiting
	default:
		s.Status = Done
		if s.After, err = d.books(ctx, p.Products); err == nil {
			err = d.Kafka.DeleteGroup(ctx, d.Kafka.Config().GroupName(p.own()))
		}
	}
	return errors.Join(err, s.save(path, d.Now()), d.audit(ctx, "EndReplay", p, s))
}

// limiter keeps a replay to its rate, in small steps: a batch of 500 events at
// 50 a second would be ten seconds of nothing and then a wave.
type limiter struct {
	*rate.Limiter
	batch int // the most events at once
}

func newLimiter(perSecond float64) limiter {
	if perSecond <= 0 {
		return limiter{rate.NewLimiter(rate.Inf, 0), maxBatch}
	}
	batch := min(max(int(perSecond/10), 1), maxBatch)
	return limiter{rate.NewLimiter(rate.Limit(perSecond), batch), batch}
}

const maxBatch = 500
