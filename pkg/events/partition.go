package events

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go"

	"github.com/leadingpeers/seckill/internal/fault"
)

// partition is one partition during one generation of the group.
type partition struct {
	*Consumer
	commits *commits
	id      int
	next    int64 // the record wanted next; negative before the group's first commit
	lost    bool  // the reader has stopped: next is outside the log

	finished bool // all before the consumption's bound is committed
}

// errReached says that the partition is read up to the consumption's bound.
var errReached = errors.New("the end of the range is reached")

// reached reports whether nothing below the bound is left to be fetched.
func (p *partition) reached() bool {
	until, named := p.cfg.Until[p.id]
	return p.cfg.Until != nil && (!named || p.next >= until)
}

// past reports whether a record lies beyond the bound.
func (p *partition) past(offset int64) bool {
	until, named := p.cfg.Until[p.id]
	return named && offset >= until
}

// errMoved says that next was outside the log and has been moved.
var errMoved = errors.New("position was outside the log")

// joinPause is how long a member waits before it joins again after a failure.
const joinPause = 500 * time.Millisecond

// breathe waits for joinPause, or until live ends.
func breathe(live context.Context) {
	pause, cancel := context.WithTimeout(live, joinPause)
	defer cancel()
	<-pause.Done()
}

// queueCapacity is how many records the reader holds beside what is in hand. It
// is small so that the reader rests while a batch is in hand, and then fetches
// all that has come meanwhile at once. A reader that runs ahead makes a request
// for every record that is written: each costs the broker as much as a hundred
// records.
const queueCapacity = 8

// publishTimeout is how long one attempt to tell what follows may take before
// it counts, and is logged, as an outage.
const publishTimeout = 10 * time.Second

// own works on the partition until ctx or the generation ends, or a commit
// fails. Two contexts go down from here: live ends with the ownership and stops
// fetching and retrying; work ends DrainTimeout later and is what the batch in
// hand runs under.
func (c *Consumer) own(ctx, gctx context.Context, p *partition) {
	live, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(gctx, cancel)()
	work, stop := drainable(live, c.cfg.DrainTimeout)
	defer stop()
	defer p.board.drop(p.place())
	err := p.baseline(live)
	for err == nil || errors.Is(err, errMoved) {
		err = p.read(live, work)
	}
	if p.finished = errors.Is(err, errReached); p.finished {
		return
	}
	if live.Err() == nil {
		p.outages.log.Warn("partition is given up, what is not committed comes again", "partition", p.id, "error", err)
		breathe(live) // or commits that always fail would make the group rejoin without a breath
	}
}

// drainable returns a context that outlives live by the budget.
func drainable(live context.Context, budget time.Duration) (context.Context, context.CancelFunc) {
	work, cancel := context.WithCancel(context.WithoutCancel(live))
	stop := context.AfterFunc(live, func() {
		timer := time.AfterFunc(budget, cancel)
		defer timer.Stop()
		<-work.Done()
	})
	return work, func() { stop(); cancel() }
}

// baseline commits the log's start for a group that has no position yet. Lag
// tools count only partitions with a commit: one said 6 where 160 were unread.
func (p *partition) baseline(live context.Context) error {
	if p.next >= 0 || p.reached() {
		return nil
	}
	start, err := p.bounds(live)
	if err != nil {
		return err
	}
	p.next = start.start
	return p.commit(p.next)
}

// read delivers batches until something ends the ownership, and says what. It
// returns errMoved when it wants to be called again, with a new reader.
func (p *partition) read(live, work context.Context) error {
	if p.reached() {
		return errReached
	}
	r := kafka.NewReader(kafka.ReaderConfig{
		Brokers: p.cfg.Brokers, Dialer: p.cfg.Dialer(), Topic: p.topic, Partition: p.id,
		MinBytes: 1, MaxBytes: 4 << 20, MaxWait: FetchWait, ReadBatchTimeout: 5 * time.Second,
		QueueCapacity: queueCapacity, ReadLagInterval: -1, MaxAttempts: 3,
		ReadBackoffMin: 20 * time.Millisecond, ReadBackoffMax: 500 * time.Millisecond,
		OffsetOutOfRangeError: true, // without it the reader would wait for ever, silently
	})
	defer func() { _ = r.Close() }()
	if err := r.SetOffset(p.next); err != nil {
		return err
	}
	for live.Err() == nil {
		batch := p.collect(live, r)
		if len(batch) > 0 {
			if err := p.deliver(live, work, batch); err != nil {
				return err
			}
		}
		if p.lost {
			return p.move(live)
		}
		if p.reached() {
			return errReached
		}
	}
	return live.Err()
}

// collect fetches a batch; empty means to look again.
func (p *partition) collect(live context.Context, r *kafka.Reader) []kafka.Message {
	m, ok := p.fetch(live, r)
	if !ok {
		return nil
	}
	p.outages.set("fetch", p.id, nil)
	batch := make([]kafka.Message, 0, p.cfg.MaxBatch)
	fill, cancel := context.WithTimeout(live, p.cfg.MaxWait)
	defer cancel()
	for ; ok; m, ok = p.fetch(fill, r) {
		if p.past(m.Offset) { // what lay before the bound is not there
			p.next = m.Offset
			break
		}
		if m.Offset != p.next {
			p.gap(live, m.Offset)
		}
		p.next = m.Offset + 1
		if batch = append(batch, m); len(batch) == p.cfg.MaxBatch {
			break
		}
	}
	if live.Err() != nil {
		return nil // not begun: whoever owns the partition next gets it
	}
	return batch
}

// fetch returns the next record, or false after an error or the end of ctx.
func (p *partition) fetch(ctx context.Context, r *kafka.Reader) (kafka.Message, bool) {
	m, err := r.FetchMessage(ctx)
	switch {
	case err == nil:
	case errors.Is(err, kafka.OffsetOutOfRange):
		p.lost = true
		return m, false
	case ctx.Err() != nil:
		return m, false
	default: // the reader tries again by itself
		p.metrics.retries.WithLabelValues("fetch").Inc()
		p.outages.set("fetch", p.id, err)
		return m, false
	}
	return m, true
}

// gap looks at why the record wanted was not the one fetched. Compaction and
// transactions leave harmless gaps; retention that has overtaken us does not.
func (p *partition) gap(live context.Context, got int64) {
	log, err := p.bounds(live)
	if err != nil || log.start <= p.next {
		return
	}
	p.metrics.skipped.Add(float64(got - p.next))
	p.outages.log.Error("records were deleted before they were read", "partition", p.id, "wanted", p.next, "got", got)
}

// move takes the position back to the log's start after a truncation or after
// the topic was made anew.
func (p *partition) move(live context.Context) error {
	log, err := p.bounds(live)
	if err != nil {
		return err
	}
	p.metrics.skipped.Inc()
	p.outages.log.Error("position is outside the log, going on from its start", "partition", p.id, "wanted", p.next, "start", log.start, "end", log.end)
	p.next, p.lost = log.start, false
	return errMoved
}

func (p *partition) bounds(live context.Context) (bounds, error) {
	var out bounds
	err := p.retry(live, "offsets", p.id, func() error {
		return p.cfg.withClient(func(client *kafka.Client) error {
			logs, err := logBounds(live, client, p.topic, p.id)
			out = logs[p.id]
			return err
		})
	})
	return out, err
}

// commit makes next the group's position. Its error ends the generation here;
// what was not committed is delivered again.
func (p *partition) commit(next int64) error {
	timer := prometheus.NewTimer(p.metrics.commitSeconds)
	defer timer.ObserveDuration()
	err := p.commits.commit(p.id, next)
	if err != nil {
		p.metrics.commitFailures.Inc()
		return fmt.Errorf("commit %s/%d at %d: %w", p.topic, p.id, next, err)
	}
	p.metrics.committed.Set(float64(p.cfg.Now().UnixMilli()) / 1000)
	return nil
}

// deliver takes one batch through decoding, handling, telling and committing.
func (p *partition) deliver(live, work context.Context, msgs []kafka.Message) error {
	timer := prometheus.NewTimer(p.metrics.batchSeconds)
	defer timer.ObserveDuration()
	defer p.inHand.begin(p.id, p.cfg.Now())()
	p.metrics.batchSize.Observe(float64(len(msgs)))

	last := msgs[len(msgs)-1]
	p.board.own(p.place(), Standing{Committed: msgs[0].Offset, End: last.HighWaterMark, Oldest: msgs[0].Time})
	b := batch{told: map[string]struct{}{}}
	var letters []letter
	for _, m := range msgs {
		if e, err := fromMessage(m, p.cfg.Topic); err != nil {
			letters = append(letters, letter{msg: m, class: "undecodable", err: err})
		} else {
			e, end := p.traced(e)
			b.msgs, b.events, b.ends = append(b.msgs, m), append(b.events, e), append(b.ends, end)
		}
	}
	if err := p.bury(live, work, letters...); err != nil {
		return err
	}
	if err := p.settle(live, work, b); err != nil {
		return err
	}
	fault.Point(fault.BeforeCommit)
	if err := p.commit(last.Offset + 1); err != nil {
		return err
	}
	fault.Point(fault.AfterCommit)
	// The next record is not fetched yet; it is not older than this one.
	p.board.own(p.place(), Standing{Committed: last.Offset + 1, End: last.HighWaterMark, Oldest: last.Time})
	return nil
}

func (p *partition) place() Place { return Place{Group: p.group, Topic: p.topic, Partition: p.id} }

// batch is a run of decoded records; msgs, events and ends stand side by side.
type batch struct {
	msgs     []kafka.Message
	events   []Event
	ends     []func(failed string) // end the steps of their traces
	attempts int                   // calls of the handler that had these records
	told     map[string]struct{}   // IDs of what a failed attempt has published
}

// settle has a batch handled, with those of other partitions if it may.
func (p *partition) settle(live, work context.Context, b batch) error {
	if p.cfg.Together && len(b.events) > 0 {
		err := p.together(live, work, &b)
		if err == nil {
			p.handled(work, b)
			return nil
		}
		rest, letters := b.without(Condemned(err))
		if err := p.bury(live, work, letters...); err != nil {
			return err
		}
		b = rest
	}
	return p.handle(live, work, b)
}

// handle runs the handler until it has no fault, without the records whose
// fault is permanent: those that it names are put aside, and for one that it
// does not name the batch is halved. An error means that the ownership has ended.
func (p *partition) handle(live, work context.Context, b batch) error {
	if len(b.events) == 0 {
		return nil
	}
	err := p.retry(live, "handle", p.id, func() error {
		b.attempts++
		next, err := p.handler(work, slices.Clone(b.events)) // a copy: handlers may sort
		fault.Point(fault.BeforeTelling)
		if unsaid := p.tell(live, work, b.told, next); unsaid != nil {
			return unsaid
		}
		if err != nil {
			for _, e := range next {
				b.told[e.ID()] = struct{}{}
			}
		}
		return err
	})
	switch {
	case err == nil:
		p.handled(work, b)
		return nil
	case !isPermanent(err):
		b.end("not handled here: " + err.Error())
		return err
	case len(b.events) == 1:
		b.end(err.Error())
		return p.bury(live, work, letter{msg: b.msgs[0], class: classOf(err), err: err, attempts: b.attempts})
	}
	if rest, letters := b.without(Condemned(err)); len(letters) > 0 {
		if err := p.bury(live, work, letters...); err != nil {
			return err
		}
		return p.handle(live, work, rest)
	}
	half := len(b.events) / 2
	first, second := b, b
	first.msgs, first.events, first.ends = b.msgs[:half], b.events[:half], b.ends[:half]
	second.msgs, second.events, second.ends = b.msgs[half:], b.events[half:], b.ends[half:]
	if err := p.handle(live, work, first); err != nil {
		return err
	}
	return p.handle(live, work, second)
}

// without parts a batch into the dead letters of condemned events, whose steps
// it ends, and the rest.
func (b batch) without(condemned map[Event]*PermanentError) (rest batch, letters []letter) {
	rest = b
	rest.msgs, rest.events, rest.ends = nil, nil, nil
	for i, e := range b.events {
		if err := condemned[e]; err != nil {
			b.ends[i](err.Error())
			letters = append(letters, letter{msg: b.msgs[i], class: classOf(err), err: err, attempts: b.attempts})
			continue
		}
		rest.msgs, rest.events, rest.ends = append(rest.msgs, b.msgs[i]), append(rest.events, e), append(rest.ends, b.ends[i])
	}
	return rest, letters
}

// handled counts, logs and ends the steps of what the handler is done with.
func (p *partition) handled(ctx context.Context, b batch) {
	p.metrics.messages.WithLabelValues("ok").Add(float64(len(b.events)))
	debug := p.outages.log.Enabled(ctx, slog.LevelDebug)
	for _, e := range b.events {
		p.metrics.endToEnd.Observe(p.cfg.Now().Sub(e.Time).Seconds())
		if debug {
			p.outages.log.DebugContext(ctx, "event handled", "event_id", e.ID(), "type", string(e.Type),
				"reservation_id", e.ReservationID, "product", e.ProductID, "trace_id", e.TraceID())
		}
	}
	b.end("")
}

// end ends the steps of a batch.
func (b batch) end(failed string) {
	for _, end := range b.ends {
		end(failed)
	}
}

// tell publishes what follows from a batch, without what it has told already.
// It repeats by itself: what has been decided is not decided again because
// Kafka was away.
func (p *partition) tell(live, work context.Context, told map[string]struct{}, next []Event) error {
	next = slices.DeleteFunc(slices.Clone(next), func(e Event) bool { _, ok := told[e.ID()]; return ok })
	if len(next) == 0 {
		return nil
	}
	err := p.retry(live, "publish", p.id, func() error {
		ctx, cancel := context.WithTimeout(work, publishTimeout)
		defer cancel()
		return p.publisher.Publish(ctx, next...)
	})
	if err == nil {
		for _, e := range next {
			p.metrics.followed.WithLabelValues(string(e.Type)).Inc()
		}
	}
	return err
}
