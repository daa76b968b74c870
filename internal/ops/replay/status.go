package replay

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/leadingpeers/seckill/internal/ops/kafkalog"
)

// Progress is how far one range has come.
type Progress struct {
	Range
	Next int64 `json:"next"` // the offset that comes next
}

// Left is how many offsets of the range are still to come.
func (p Progress) Left() int64 { return max(0, p.To-max(p.Next, p.From)) }

// Report is what has become of a plan.
type Report struct {
	Plan     *Plan      `json:"plan"`
	State    *State     `json:"state"` // nil: never run
	Progress []Progress `json:"progress"`
	Running  bool       `json:"running"` // somebody replays these groups now
}

// Interrupted reports whether the replay was killed: running it again goes on.
func (r *Report) Interrupted() bool {
	return r.State != nil && r.State.Status == Running && !r.Running
}

// Report says how far the plan in a file has come. When a group that was reset
// has read its ranges, it reads the books and closes the replay.
func (d Desk) Report(ctx context.Context, path string) (*Report, error) {
	p, err := Load(path)
	if err != nil {
		return nil, err
	}
	s, err := loadState(path)
	if err != nil {
		return nil, err
	}
	out := &Report{Plan: p, State: s}
	for _, g := range p.groups() {
		busy, err := d.busy(ctx, g)
		if err != nil {
			return nil, err
		}
		out.Running = out.Running || busy
	}
	if s == nil {
		return out, nil
	}
	left := int64(0)
	for _, r := range p.Ranges {
		next := r.To
		if s.Status != Done { // then its own group is gone
			if next, err = d.next(ctx, p, s, r); err != nil {
				return nil, err
			}
		}
		one := Progress{Range: r, Next: next}
		left += one.Left()
		out.Progress = append(out.Progress, one)
	}
	if s.Status == Waiting && left == 0 {
		s.Status = Done
		if s.After, err = d.books(ctx, p.Products); err != nil {
			return nil, err
		}
		return out, s.save(path, d.Now())
	}
	return out, nil
}

// next is the offset that comes next in a range.
func (d Desk) next(ctx context.Context, p *Plan, s *State, r Range) (int64, error) {
	group := d.full(r)
	if s.Mode != Reset {
		group = d.Kafka.Config().GroupName(p.own())
	}
	committed, err := d.Kafka.Committed(ctx, group)
	return committed.Get(d.Kafka.Config().TopicName(r.Topic), r.Partition), err
}

// Stop asks the process that runs the plan in a file to finish its batch and
// end, and returns when it has. It must be called where the plan's file is.
func (d Desk) Stop(ctx context.Context, path string) error {
	r, err := d.Report(ctx, path)
	if err != nil {
		return err
	}
	if r.State == nil || r.State.Status != Running || !r.Running {
		return refuse("cannot stop the replay", "seckill replay status tells more", "it is not running")
	}
	if err := os.WriteFile(beside(path, ".stop"), nil, 0o644); err != nil { //nolint:gosec // an empty file for a colleague's process to see
		return fmt.Errorf("ask the replay to stop: %w", err)
	}
	if err := d.audit(ctx, "StopReplay", r.Plan, r.State); err != nil {
		return err
	}
	tick := time.NewTicker(stopEvery)
	defer tick.Stop()
	for {
		if r, err = d.Report(ctx, path); err != nil || r.State.Status != Running {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the replay was asked to stop and has not yet: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

// Undo gives groups that were reset the offsets back that they had. It refuses
// while they have members, and what moved no offsets of theirs. Repeating is
// harmless.
func (d Desk) Undo(ctx context.Context, path string) (map[string]kafkalog.Offsets, error) {
	p, err := Load(path)
	if err != nil {
		return nil, err
	}
	s, err := loadState(path)
	switch {
	case err != nil:
		return nil, err
	case s == nil:
		return nil, refuse("cannot undo the replay", "there is nothing to do", "it was never run")
	case s.Mode != Reset:
		return nil, refuse("cannot undo the replay", "there is nothing to do: what its events changed was due, and recorded once", "mode %s moved no offsets of group %v", s.Mode, p.groups())
	}
	l, err := d.take(ctx, p.groups())
	if err != nil {
		return nil, err
	}
	defer func() { _ = l.release(ctx) }()
	if err := d.idle(ctx, p); err != nil {
		return nil, err
	}
	for group, at := range s.Saved {
		if err := d.Kafka.Commit(ctx, group, at); err != nil {
			return nil, fmt.Errorf("restore the offsets of group %s: %w", group, err)
		}
	}
	s.Status = Undone
	if err := d.audit(ctx, "UndoReplay", p, s); err != nil {
		return nil, err
	}
	return s.Saved, s.save(path, d.Now())
}
