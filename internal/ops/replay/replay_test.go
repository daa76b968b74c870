package replay_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/segmentio/kafka-go"

	"github.com/leadingpeers/seckill/internal/audit"
	"github.com/leadingpeers/seckill/internal/ops/kafkalog"
	"github.com/leadingpeers/seckill/internal/ops/replay"
	"github.com/leadingpeers/seckill/internal/testservers"
	"github.com/leadingpeers/seckill/pkg/events"
)

// Everything once more, in each mode: not one row and not one unit changes.
func TestReplayOfEverythingChangesNothing(t *testing.T) {
	const n = 600
	r := night(t, n)
	before := r.books()
	if n := r.count("reservations WHERE state = 'rolled_back'"); n != 120 {
		t.Fatalf("%d reservations rolled back, want a fifth of them: the night was not as planned", n)
	}
	same := func(t *testing.T) {
		t.Helper()
		if diff := cmp.Diff(before, r.books()); diff != "" {
			t.Errorf("the books (-before +after):\n%s", diff)
		}
	}
	t.Run("the plan says so", func(t *testing.T) {
		p, _ := r.make(everything())
		want := replay.Expectation{Events: p.Expect.Events, Settled: p.Expect.Events, LedgerSince: p.Expect.LedgerSince}
		if diff := cmp.Diff(want, p.Expect); diff != "" || p.Expect.Events < 4*n-480 {
			t.Errorf("expected: %d events, all settled (-want +got):\n%s", p.Expect.Events, diff)
		}
		if !slices.Equal(p.Products, []string{"charger", "earbuds", "phone"}) || len(p.Ranges) != 12 {
			t.Errorf("products %v, %d ranges, want three and twelve", p.Products, len(p.Ranges))
		}
		var sum int64
		for _, r := range p.Ranges {
			sum += r.Events
			if r.Events > 0 && (r.First.Offset != r.From || r.Last.Offset != r.To-1 || r.Events != r.To-r.From) {
				t.Errorf("range %+v: first %+v, last %+v", r, r.First, r.Last)
			}
		}
		if sum != p.Expect.Events {
			t.Errorf("%d events in the ranges, %d expected", sum, p.Expect.Events)
		}
		same(t)
	})
	t.Run("isolate", func(t *testing.T) {
		p, path := r.make(everything())
		s, err := r.desk.Run(t.Context(), path, replay.Options{Mode: replay.Isolate})
		r.must(err)
		if s.Status != replay.Done || len(s.Differences()) > 0 || len(s.After) != 3 || s.Refused > 0 {
			t.Errorf("%s, refused %d %v, differences %v", s.Status, s.Refused, s.Sample, s.Differences())
		}
		if n, _ := r.lag("deduct"); n != 0 {
			t.Errorf("the group itself was moved: it lags by %d", n)
		}
		if g, err := r.kafka.Group(t.Context(), r.group("replay."+p.ID)); err != nil || g.State != "Dead" {
			t.Errorf("the replay's own group is %s, %v, want it gone", g.State, err)
		}
		_, err = r.desk.Run(t.Context(), path, replay.Options{Mode: replay.Isolate})
		refused(t, err, "it has been run and is done", "make a new plan")
		same(t)
		stop := r.work() // what was told again is taken by those who know it
		r.rest()
		stop()
		same(t)
	})
	t.Run("republish", func(t *testing.T) {
		p, path := r.make(everything())
		ends := r.ends(events.Reservations)
		stop := r.work()
		s, err := r.desk.Run(t.Context(), path, replay.Options{Mode: replay.Republish})
		r.must(err)
		r.rest()
		stop()
		if s.Status != replay.Done || len(s.Differences()) > 0 {
			t.Errorf("%s, differences %v", s.Status, s.Differences())
		}
		if got := r.ends(events.Reservations); got != ends+n {
			t.Errorf("%d reservations in the topic, want %d once more: %d", got, n, ends+n)
		}
		marked := 0
		logs, err := r.kafka.Extents(t.Context(), r.topic(events.Reservations))
		r.must(err)
		for id, log := range logs {
			for m, err := range r.kafka.Records(t.Context(), kafkalog.Stretch{Topic: r.topic(events.Reservations), Partition: id, To: log.End}) {
				r.must(err)
				if slices.ContainsFunc(m.Headers, func(h kafka.Header) bool { return h.Key == replay.HeaderReplay && string(h.Value) == p.ID }) {
					marked++
				}
			}
		}
		if marked != n {
			t.Errorf("%d records are marked as replayed, want %d", marked, n)
		}
		same(t)
	})
	t.Run("reset", func(t *testing.T) {
		p, path := r.make(everything())
		s, err := r.desk.Run(t.Context(), path, replay.Options{Mode: replay.Reset})
		r.must(err)
		if lag, _ := r.lag("deduct"); s.Status != replay.Waiting || lag != sumOf(p, "deduct") {
			t.Errorf("%s, lag %d, want it to wait for the workers with %d", s.Status, lag, sumOf(p, "deduct"))
		}
		stop := r.work()
		var report *replay.Report
		r.eventually("the workers have read it", func() bool {
			var err error
			report, err = r.desk.Report(t.Context(), path)
			r.must(err)
			return report.State.Status == replay.Done
		})
		r.rest()
		stop()
		if len(report.State.Differences()) > 0 || len(report.State.After) != 3 {
			t.Errorf("differences %v", report.State.Differences())
		}
		same(t)
	})
	t.Run("it is in the audit trail", func(t *testing.T) {
		trail := audit.NewTrail(r.db)
		got, err := trail.List(t.Context(), audit.Filter{Entity: "group/deduct", Actor: "lin", Limit: 100})
		r.must(err)
		var actions []string
		for _, e := range got {
			actions = append(actions, e.Action)
		}
		want := []string{"EndReplay", "RunReplay", "EndReplay", "RunReplay", "EndReplay", "RunReplay"}
		if !slices.Equal(actions, want) || !strings.Contains(string(got[1].After), `"mode": "reset"`) && !strings.Contains(string(got[1].After), `"mode":"reset"`) {
			t.Errorf("audited %v, %s, want %v", actions, got[1].After, want)
		}
		if v, err := trail.Verify(t.Context()); err != nil || v.Broken != 0 {
			t.Errorf("the trail is broken: %+v, %v", v, err)
		}
	})
}

func sumOf(p *replay.Plan, group string) (n int64) {
	for _, r := range p.Ranges {
		if r.Group == group {
			n += r.To - r.From
		}
	}
	return n
}

// A replay does what was left undone, and the plan has said so before.
func TestReplayHeals(t *testing.T) {
	r := night(t, 100)
	before := r.books()
	lost := []string{id(7), id(8), id(23)}
	for _, one := range lost {
		var raw []byte
		r.must(r.db.QueryRowContext(t.Context(), "SELECT reservation_id FROM reservations WHERE reservation_id = ?", rawID(one)).Scan(&raw))
		_, err := r.db.ExecContext(t.Context(), "DELETE FROM orders WHERE reservation_id = ?", raw)
		r.must(err)
	}
	p, path := r.make(replay.Want{Groups: []string{"settle"}, Earliest: true})
	slices.Sort(p.Expect.Sample)
	if p.Expect.Unsettled != 3 || !slices.Equal(p.Expect.Sample, lost) || p.Expect.Settled != p.Expect.Events-3 {
		t.Fatalf("expected %+v, want the three lost orders", p.Expect)
	}
	s, err := r.desk.Run(t.Context(), path, replay.Options{Mode: replay.Isolate})
	r.must(err)
	if n := r.count("orders"); n != 100 || s.Status != replay.Done {
		t.Errorf("%d orders, %s, want 100 again", n, s.Status)
	}
	if len(s.Differences()) == 0 || !strings.Contains(strings.Join(s.Differences(), "\n"), "awaiting was 0 and is") {
		t.Errorf("differences %v, want the orders that are back", s.Differences())
	}
	if after := r.books(); after["reservations"] != before["reservations"] || after["stock"] != before["stock"] {
		t.Error("units have moved")
	}
}

func rawID(text string) []byte {
	n := 0
	for i := range 1000 {
		if id(i) == text {
			n = i
		}
	}
	raw := make([]byte, 16)
	raw[14], raw[15] = byte(n>>8), byte(n)
	return raw
}

// One reservation alone, in all topics.
func TestReplayOfOneReservation(t *testing.T) {
	r := night(t, 60)
	before := r.books()
	p, path := r.make(replay.Want{Reservation: id(10), Earliest: true})
	var topics []string
	for _, one := range p.Ranges {
		topics = append(topics, string(one.Topic))
	}
	if want := []string{"reservations", "rollbacks", "deductions", "payments"}; !slices.Equal(topics, want) || p.Expect.Events != 4 || p.Expect.Settled != 4 {
		t.Errorf("ranges in %v, expected %+v, want one in each of %v", topics, p.Expect, want)
	}
	var handled atomic.Int64
	desk := r.desk
	desk.Handlers = map[string]events.Handler{}
	for group, handle := range r.desk.Handlers {
		desk.Handlers[group] = func(ctx context.Context, batch []events.Event) ([]events.Event, error) {
			handled.Add(int64(len(batch)))
			return handle(ctx, batch)
		}
	}
	_, err := desk.Run(t.Context(), path, replay.Options{Mode: replay.Reset})
	refused(t, err, "reads everything, not only reservation "+id(10), "isolate or republish")
	_, err = desk.Run(t.Context(), path, replay.Options{Mode: replay.Isolate})
	r.must(err)
	if handled.Load() != 4 {
		t.Errorf("%d events handled, want its 4", handled.Load())
	}
	if diff := cmp.Diff(before, r.books()); diff != "" {
		t.Errorf("the books (-before +after):\n%s", diff)
	}
	_, err = r.desk.Make(t.Context(), replay.Want{Reservation: id(9999), Earliest: true})
	refused(t, err, "no event is in the range")
}

// What must not be replayed is refused, with the cause and what to do, and
// nothing has changed.
func TestRefusals(t *testing.T) {
	r := night(t, 30)
	run := func(path string, mode replay.Mode) error {
		_, err := r.desk.Run(t.Context(), path, replay.Options{Mode: mode})
		return err
	}
	deduct := replay.Want{Groups: []string{"deduct"}, Earliest: true}
	t.Run("a group with members, for reset, by their names", func(t *testing.T) {
		_, path := r.make(deduct)
		stop := r.work()
		r.eventually("the worker is in", func() bool {
			g, err := r.kafka.Group(t.Context(), r.group("deduct"))
			return err == nil && g.State == "Stable"
		})
		_, committed := r.lag("deduct")
		err := run(path, replay.Reset)
		refused(t, err, "it is active (Stable)", r.Prefix+"-", "@127.0.0.1 with map", r.topic(events.Reservations)+":[0 1 2]", "stop these workers first")
		if _, after := r.lag("deduct"); after != committed {
			t.Error("the offsets moved all the same")
		}
		r.must(run(path, replay.Isolate)) // beside them it may run
		stop()
	})
	t.Run("a plan whose end has moved", func(t *testing.T) {
		_, path := r.make(deduct)
		r.sell(1)
		for _, mode := range []replay.Mode{replay.Reset, replay.Isolate, replay.Republish} {
			refused(t, run(path, mode), "the end of "+r.topic(events.Reservations), "has moved", "--to")
		}
		bounded := deduct
		bounded.To = time.Now()
		<-time.After(2 * time.Millisecond) // record times are whole milliseconds
		_, path = r.make(bounded)
		r.sell(1) // does not matter to a plan that ends at a time
		r.must(run(path, replay.Isolate))
	})
	t.Run("another installation's plan", func(t *testing.T) {
		p, _ := r.make(deduct)
		p.Prefix = "other"
		path := r.plan("other")
		r.must(p.Save(path))
		refused(t, run(path, replay.Isolate), `it is for the installation "other"`)
	})
	t.Run("a mode that does not exist", func(t *testing.T) {
		_, path := r.make(deduct)
		refused(t, run(path, "again"), `no mode "again"`)
	})
	t.Run("a rate that nobody keeps", func(t *testing.T) {
		_, path := r.make(deduct)
		_, err := r.desk.Run(t.Context(), path, replay.Options{Mode: replay.Reset, Rate: 5})
		refused(t, err, "leave --rate out")
	})
	t.Run("an old word about a channel", func(t *testing.T) {
		_, path := r.make(replay.Want{Groups: []string{"channel"}, Earliest: true})
		refused(t, run(path, replay.Isolate), "the last word counts")
		refused(t, run(path, replay.Republish), "the last word counts")
	})
	t.Run("a group of others has its handler elsewhere", func(t *testing.T) {
		_, path := r.make(replay.Want{Groups: []string{"checkout"}, Topic: "orders", Earliest: true})
		refused(t, run(path, replay.Isolate), "group checkout is not ours")
		r.must(run(path, replay.Reset))
	})
	for _, c := range []struct {
		why   string
		want  replay.Want
		words []string
	}{
		{"no group", replay.Want{Earliest: true}, []string{"no group is named"}},
		{"a group that reads something else", replay.Want{Groups: []string{"deduct"}, Topic: "orders"}, []string{`group "deduct" does not read topic "orders"`}},
		{"a group of others without its topic", replay.Want{Groups: []string{"checkout"}}, []string{"name the topic"}},
		{"a partition that is not there", replay.Want{Groups: []string{"deduct"}, Partitions: []int{1, 9}}, []string{"has no partition 9"}},
	} {
		t.Run(c.why, func(t *testing.T) {
			_, err := r.desk.Make(t.Context(), c.want)
			refused(t, err, c.words...)
		})
	}
	t.Run("a file that is there", func(t *testing.T) {
		p, path := r.make(deduct)
		refused(t, p.Save(path), "is there already")
	})
}

// A ledger that has forgotten may not be asked again.
func TestRefusesWhatTheLedgerHasForgotten(t *testing.T) {
	r := newRig(t)
	stop := r.work()
	r.sell(20)
	r.eventually("orders", func() bool { return r.count("orders") == 20 })
	<-time.After(5 * time.Millisecond)
	r.sell(20)
	r.eventually("orders", func() bool { return r.count("orders") == 40 })
	r.rest()
	stop()
	for n := range 20 { // somebody tidied up
		_, err := r.db.ExecContext(t.Context(), "DELETE FROM reservations WHERE reservation_id = ?", rawID(id(n)))
		r.must(err)
	}
	want := replay.Want{Groups: []string{"deduct"}, Earliest: true}
	p, path := r.make(want)
	if p.Expect.Forgotten != 20 || p.Expect.Unsettled != 20 {
		t.Errorf("expected %+v, want 20 forgotten", p.Expect)
	}
	for _, mode := range []replay.Mode{replay.Reset, replay.Isolate, replay.Republish} {
		_, err := r.desk.Run(t.Context(), path, replay.Options{Mode: mode})
		refused(t, err, "20 of its events are older than what the ledger remembers", "--ledger-complete")
	}
	want.LedgerComplete = true
	if p, _ := r.make(want); p.Expect.Forgotten != 0 {
		t.Errorf("%d forgotten of a ledger that is complete", p.Expect.Forgotten)
	}
	want.LedgerKeeps = time.Nanosecond
	if p, _ := r.make(want); p.Expect.Forgotten != 20 {
		t.Errorf("%d forgotten of a ledger that keeps nothing, want the 20 that are not in it", p.Expect.Forgotten)
	}
}

// The offsets that a group had are given back, also those that it had not.
func TestUndo(t *testing.T) {
	r := night(t, 30)
	topic := r.topic(events.Reservations)
	r.must(r.kafka.Commit(t.Context(), r.group("deduct"), kafkalog.Offsets{topic: {1: 2, 2: -1}}))
	saved, err := r.kafka.Committed(t.Context(), r.group("deduct"))
	r.must(err)
	if saved.Get(topic, 1) != 2 || saved.Get(topic, 2) != -1 {
		t.Fatalf("committed %v: not as planned", saved)
	}
	_, path := r.make(replay.Want{Groups: []string{"deduct"}, Earliest: true})
	_, err = r.desk.Undo(t.Context(), path)
	refused(t, err, "it was never run")
	_, err = r.desk.Run(t.Context(), path, replay.Options{Mode: replay.Reset})
	r.must(err)
	moved, err := r.kafka.Committed(t.Context(), r.group("deduct"))
	r.must(err)
	if moved.Get(topic, 0) != 0 || moved.Get(topic, 1) != 0 || moved.Get(topic, 2) != 0 {
		t.Errorf("moved to %v, want 0 everywhere", moved)
	}
	for range 2 { // and again is harmless
		_, err = r.desk.Undo(t.Context(), path)
		r.must(err)
		restored, err := r.kafka.Committed(t.Context(), r.group("deduct"))
		r.must(err)
		if diff := cmp.Diff(saved, restored); diff != "" {
			t.Errorf("restored (-want +got):\n%s", diff)
		}
	}
	if !strings.Contains(stateFile(t, path), `"status": "undone"`) {
		t.Error("the state does not say that it is undone")
	}
	_, path = r.make(replay.Want{Groups: []string{"settle"}, Earliest: true})
	_, err = r.desk.Run(t.Context(), path, replay.Options{Mode: replay.Isolate})
	r.must(err)
	_, err = r.desk.Undo(t.Context(), path)
	refused(t, err, "moved no offsets")
}

// Two operators do not replay the same group at once.
func TestTwoOperators(t *testing.T) {
	r := night(t, 30)
	_, first := r.make(replay.Want{Groups: []string{"deduct", "settle"}, Earliest: true})
	inside, goOn := make(chan struct{}), make(chan struct{})
	desk := r.desk
	desk.Handlers = map[string]events.Handler{"settle": r.desk.Handlers["settle"], "deduct": func(ctx context.Context, batch []events.Event) ([]events.Event, error) {
		select {
		case inside <- struct{}{}:
		case <-goOn:
		}
		<-goOn
		return r.desk.Handlers["deduct"](ctx, batch)
	}}
	done := make(chan error, 1)
	go func() {
		_, err := desk.Run(t.Context(), first, replay.Options{Mode: replay.Isolate})
		done <- err
	}()
	<-inside
	other, err := openShop(t.Context(), r.address)
	r.must(err)
	defer other.close()
	other.desk.By = "wang"
	p, err := other.desk.Make(t.Context(), replay.Want{Groups: []string{"settle"}, Earliest: true})
	r.must(err)
	second := r.plan("second")
	r.must(p.Save(second))
	for _, mode := range []replay.Mode{replay.Reset, replay.Isolate, replay.Republish} {
		_, err = other.desk.Run(t.Context(), second, replay.Options{Mode: mode})
		refused(t, err, "cannot replay group settle", "another replay of this group is running: plan ", "by lin on ")
	}
	report, err := other.desk.Report(t.Context(), first)
	r.must(err)
	if !report.Running || report.Interrupted() {
		t.Errorf("running %v, interrupted %v, want it running", report.Running, report.Interrupted())
	}
	close(goOn)
	r.must(<-done)
	_, err = other.desk.Run(t.Context(), second, replay.Options{Mode: replay.Isolate})
	r.must(err) // now it may: the first has written nothing behind the plan, because all of it had orders
}

// A replay is stopped by another process and goes on later behind what it did.
func TestStopAndGoOn(t *testing.T) {
	r := night(t, 300)
	before := r.books()
	for _, mode := range []replay.Mode{replay.Isolate, replay.Republish} {
		t.Run(string(mode), func(t *testing.T) {
			p, path := r.make(replay.Want{Groups: []string{"deduct"}, Earliest: true})
			refused(t, r.desk.Stop(t.Context(), path), "it is not running")
			done := make(chan error, 1)
			go func() {
				_, err := r.desk.Run(t.Context(), path, replay.Options{Mode: mode, Rate: 50})
				done <- err
			}()
			r.eventually("it has begun", func() bool { return left(t, r, path) < sumOf(p, "deduct") })
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			r.must(r.desk.Stop(ctx, path))
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Errorf("Run: %v, want that it was stopped", err)
			}
			rest := left(t, r, path)
			if rest == 0 || rest == sumOf(p, "deduct") {
				t.Fatalf("%d left of %d, want it stopped in between", rest, sumOf(p, "deduct"))
			}
			s, err := r.desk.Run(t.Context(), path, replay.Options{Mode: mode})
			r.must(err)
			if s.Status != replay.Done || len(s.Differences()) > 0 || left(t, r, path) != 0 {
				t.Errorf("%s, %v, %d left", s.Status, s.Differences(), left(t, r, path))
			}
		})
	}
	if diff := cmp.Diff(before, r.books()); diff != "" {
		t.Errorf("the books (-before +after):\n%s", diff)
	}
}

func left(t *testing.T, r *rig, path string) (n int64) {
	t.Helper()
	report, err := r.desk.Report(t.Context(), path)
	r.must(err)
	if report.State == nil {
		return sumOf(report.Plan, "deduct")
	}
	for _, p := range report.Progress {
		n += p.Left()
	}
	return n
}

const childVariable = "SECKILL_TEST_REPLAY_CHILD"

// child is a process that replays, to be killed.
type child struct {
	Address address
	Path    string
	Options replay.Options
}

func TestMain(m *testing.M) {
	if text := os.Getenv(childVariable); text != "" {
		if err := replayAsChild(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func replayAsChild(text string) error {
	var c child
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		return err
	}
	s, err := openShop(context.Background(), c.Address)
	if err != nil {
		return err
	}
	_, err = s.desk.Run(context.Background(), c.Path, c.Options)
	return err
}

// A replay that is killed in the middle goes on where it was, and the locks of
// the dead are nobody's.
func TestKilledInTheMiddle(t *testing.T) {
	r := night(t, 300)
	before := r.books()
	for _, mode := range []replay.Mode{replay.Isolate, replay.Republish} {
		t.Run(string(mode), func(t *testing.T) {
			p, path := r.make(replay.Want{Groups: []string{"deduct"}, Earliest: true})
			text, err := json.Marshal(child{r.address, path, replay.Options{Mode: mode, Rate: 60}})
			r.must(err)
			exe, err := os.Executable()
			r.must(err)
			cmd := exec.CommandContext(t.Context(), exe)
			cmd.Env = append(os.Environ(), childVariable+"="+string(text))
			var out strings.Builder
			cmd.Stderr = &out
			r.must(cmd.Start())
			r.eventually("it is well under way", func() bool { return left(t, r, path) < sumOf(p, "deduct")-50 })
			r.must(cmd.Process.Kill())
			_ = cmd.Wait()
			report, err := r.desk.Report(t.Context(), path)
			r.must(err)
			r.eventually("its lock is free", func() bool {
				report, err = r.desk.Report(t.Context(), path)
				r.must(err)
				return report.Interrupted()
			})
			rest := left(t, r, path)
			if rest == 0 {
				t.Fatal("it was killed too late")
			}
			desk, handled := r.desk, atomic.Int64{}
			desk.Handlers = map[string]events.Handler{"deduct": func(ctx context.Context, batch []events.Event) ([]events.Event, error) {
				handled.Add(int64(len(batch)))
				return r.desk.Handlers["deduct"](ctx, batch)
			}}
			ends := r.ends(events.Reservations)
			s, err := desk.Run(t.Context(), path, replay.Options{Mode: mode})
			r.must(err)
			if mode == replay.Republish {
				handled.Store(r.ends(events.Reservations) - ends)
			}
			if s.Status != replay.Done || len(s.Differences()) > 0 || handled.Load() != rest {
				t.Errorf("%s, %v; %d events in the second run, want the %d that were left\n%s", s.Status, s.Differences(), handled.Load(), rest, &out)
			}
		})
	}
	if diff := cmp.Diff(before, r.books()); diff != "" {
		t.Errorf("the books (-before +after):\n%s", diff)
	}
}

// Retention has overtaken the plan, or the group: what is gone is said, and the
// rest is replayed.
func TestRetentionOvertook(t *testing.T) {
	r := night(t, 60)
	zero := int64(0)
	want := replay.Want{Groups: []string{"deduct"}, From: &zero}
	p, path := r.make(want)
	cut := p.Ranges[0].Partition
	for _, one := range p.Ranges {
		if one.Events > 10 {
			cut = one.Partition
		}
	}
	testservers.DeleteRecords(t, r.topic(events.Reservations), int32(cut), 7)
	r.eventually("they are gone", func() bool {
		logs, err := r.kafka.Extents(t.Context(), r.topic(events.Reservations))
		return err == nil && logs[cut].Start == 7
	})
	p, _ = r.make(want)
	for _, one := range p.Ranges {
		gone := int64(0)
		if one.Partition == cut {
			gone = 7
		}
		if one.Gone != gone || one.From != gone {
			t.Errorf("range %+v, want it clamped to %d", one, gone)
		}
	}
	s, err := r.desk.Run(t.Context(), path, replay.Options{Mode: replay.Isolate}) // planned before
	r.must(err)
	if s.Status != replay.Done {
		t.Errorf("%s", s.Status)
	}
	beyond := int64(1 << 40)
	_, err = r.desk.Make(t.Context(), replay.Want{Groups: []string{"deduct"}, From: &beyond})
	r.must(err)
}

// A topic that was made anew is not the one that was planned.
func TestTopicMadeAnew(t *testing.T) {
	r := night(t, 30)
	_, path := r.make(replay.Want{Groups: []string{"deduct"}, Earliest: true})
	topic := r.topic(events.Reservations)
	_, err := r.kafka.Client().DeleteTopics(t.Context(), &kafka.DeleteTopicsRequest{Topics: []string{topic}})
	r.must(err)
	r.eventually("it is gone", func() bool {
		r.kafka.Refresh()
		found, _, err := r.kafka.Topics(t.Context(), topic)
		return err == nil && len(found) == 0
	})
	r.must(events.Apply(t.Context(), r.kafka.Config(), events.Overrides{Partitions: 3, Replication: 1}))
	r.kafka.Refresh()
	for _, mode := range []replay.Mode{replay.Reset, replay.Isolate, replay.Republish} {
		_, err = r.desk.Run(t.Context(), path, replay.Options{Mode: mode})
		refused(t, err, "the topic was made anew")
	}
	before := r.books()
	stop := r.work() // the workers find their offsets behind the end, and go on
	r.sell(10)
	r.eventually("what is new is handled", func() bool { return r.count("orders") == 40 })
	r.rest()
	stop()
	if r.books()["reservations"] == before["reservations"] {
		t.Error("nothing was handled")
	}
}

// What no handler takes is counted, and is not put among the dead letters a
// second time; a republishing stops when new ones come.
func TestPoisonInTheRange(t *testing.T) {
	r := newRig(t)
	stop := r.work()
	poison := events.Event{Type: events.ReservationCreated, ReservationID: id(5000), ProductID: "unknown", UserID: "lin", Quantity: 1}
	r.sell(30)
	r.eventually("orders", func() bool { return r.count("orders") == 30 })
	r.must(r.publisher.Publish(t.Context(), poison))
	r.eventually("it is among the dead letters", func() bool { return r.ends(events.DeadLetterTopic("deduct")) == 1 })
	r.rest()
	_, path := r.make(replay.Want{Groups: []string{"deduct"}, Earliest: true})
	s, err := r.desk.Run(t.Context(), path, replay.Options{Mode: replay.Isolate})
	r.must(err)
	if s.Refused != 1 || len(s.Sample) != 1 || !strings.Contains(s.Sample[0], "unknown") || r.ends(events.DeadLetterTopic("deduct")) != 1 {
		t.Errorf("refused %d %v, %d dead letters, want one of each", s.Refused, s.Sample, r.ends(events.DeadLetterTopic("deduct")))
	}
	_, path = r.make(replay.Want{Groups: []string{"deduct"}, Earliest: true})
	desk, late := r.desk, time.Duration(0)
	desk.Now = func() time.Time { late += 2 * time.Second; return time.Now().Add(late) } // looks at every batch
	_, err = desk.Run(t.Context(), path, replay.Options{Mode: replay.Republish, Rate: 20})
	if err == nil || !strings.Contains(err.Error(), "new dead letters: group deduct has 1 more") {
		t.Errorf("republishing a poison: %v, want that it stops", err)
	}
	if !strings.Contains(stateFile(t, path), `"status": "failed"`) {
		t.Error("the state does not say that it failed")
	}
	stop()
}

// A backlog: the workers were down, the lag is seen with its age, and it is
// drained without a unit lost.
// SECKILL_TEST_BACKLOG=1000000 makes it an hour's.
func TestBacklogIsDrained(t *testing.T) {
	n := 5000
	if text := os.Getenv("SECKILL_TEST_BACKLOG"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	r := newRig(t)
	r.sell(n)
	if lag, _ := r.lag("deduct"); lag != int64(n) {
		t.Errorf("lag %d, want the %d that nobody has read", lag, n)
	}
	stop := r.work()
	r.eventually("every reservation has its order", func() bool { return r.count("orders") == n })
	r.rest()
	stop()
	accounts, err := r.desk.Books.Accounts(t.Context(), products())
	r.must(err)
	for _, a := range accounts {
		if a.Oversold() > 0 || a.Leaked() > 0 || a.Pending > 0 || a.Deducted != a.Awaiting {
			t.Errorf("%+v", a)
		}
	}
}

// TestReplayAtScale is by hand: SECKILL_TEST_REPLAY_LARGE=200000 sells so many,
// and replays each topic from the first record on, and then all of them.
func TestReplayAtScale(t *testing.T) {
	n, err := strconv.Atoi(os.Getenv("SECKILL_TEST_REPLAY_LARGE"))
	if err != nil {
		t.Skip("SECKILL_TEST_REPLAY_LARGE is no number of reservations")
	}
	r := night(t, n)
	before := r.books()
	measure := func(mode replay.Mode, groups ...string) {
		start := time.Now()
		p, path := r.make(replay.Want{Groups: groups, Earliest: true})
		planned := time.Since(start)
		start = time.Now()
		s, err := r.desk.Run(t.Context(), path, replay.Options{Mode: mode})
		r.must(err)
		took := time.Since(start)
		t.Logf("%s %v: %d events, %d of them unsettled, planned in %s, replayed in %s: %.0f a second; differences %v, refused %d",
			mode, groups, p.Expect.Events, p.Expect.Unsettled, planned, took, float64(p.Expect.Events)/took.Seconds(), s.Differences(), s.Refused)
		if diff := cmp.Diff(before, r.books()); diff != "" {
			t.Errorf("the books (-before +after):\n%s", diff)
		}
	}
	for _, group := range everything().Groups {
		measure(replay.Isolate, group)
	}
	measure(replay.Republish, everything().Groups...)
}
