package replay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/leadingpeers/seckill/internal/ops/kafkalog"
	"github.com/leadingpeers/seckill/pkg/events"
)

// HeaderReplay marks a record that was republished, with the plan's ID.
const HeaderReplay = "x-seckill-replay-id"

// reset moves the groups' own offsets back.
func (d Desk) reset(ctx context.Context, p *Plan) error {
	for _, g := range p.groups() {
		at := kafkalog.Offsets{}
		var full string
		for _, r := range p.Ranges {
			if r.Group == g {
				full = d.full(r)
				at.Set(d.Kafka.Config().TopicName(r.Topic), r.Partition, r.From)
			}
		}
		if err := d.Kafka.Commit(ctx, full, at); err != nil {
			return fmt.Errorf("move the offsets of group %s: %w", full, err)
		}
	}
	return nil
}

// positions are where a plan's own group stands, in each range; where it has
// not begun, at its beginning.
func (d Desk) positions(ctx context.Context, p *Plan) (at, missing kafkalog.Offsets, err error) {
	committed, err := d.Kafka.Committed(ctx, d.Kafka.Config().GroupName(p.own()))
	if err != nil {
		return nil, nil, err
	}
	at, missing = kafkalog.Offsets{}, kafkalog.Offsets{}
	for _, r := range p.Ranges {
		topic := d.Kafka.Config().TopicName(r.Topic)
		next := committed.Get(topic, r.Partition)
		if next < r.From {
			next = r.From
			missing.Set(topic, r.Partition, next)
		}
		at.Set(topic, r.Partition, next)
	}
	return at, missing, nil
}

// isolate runs the handlers, one topic after another as events flow, each over
// its partitions side by side, under the delivery contract of events.Consumer.
func (d Desk) isolate(ctx context.Context, p *Plan, s *State, limit limiter) error {
	_, missing, err := d.positions(ctx, p)
	if err != nil {
		return err
	}
	if len(missing) > 0 { // not when it goes on: a member that was killed may still be counted in
		if err := d.Kafka.Commit(ctx, d.Kafka.Config().GroupName(p.own()), missing); err != nil {
			return fmt.Errorf("begin at the plan's offsets: %w", err)
		}
	}
	for _, group := range p.groups() {
		until := map[int]int64{}
		var topic events.Topic
		for _, r := range p.Ranges {
			if r.Group == group {
				topic, until[r.Partition] = r.Topic, r.To
			}
		}
		var mu sync.Mutex
		consumer := events.NewConsumer(events.ConsumerConfig{
			ClientConfig: d.Kafka.Config(), Group: p.own(), Topic: topic, Until: until, MaxBatch: limit.batch, Now: d.Now, Log: d.Log,
			SessionTimeout: 6 * time.Second, DrainTimeout: 4 * time.Second, // after a kill, going on waits for the dead member to be forgotten
			Refused: func(m kafka.Message, err error) {
				mu.Lock()
				defer mu.Unlock()
				s.refuse(topic, m, err)
			},
		}, p.only(limit, d.Handlers[group]), d.Publisher)
		if err := consumer.Run(ctx); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// only hands a handler the events of the plan, at its rate.
func (p *Plan) only(limit limiter, handle events.Handler) events.Handler {
	return func(ctx context.Context, batch []events.Event) ([]events.Event, error) {
		batch = slices.DeleteFunc(batch, func(e events.Event) bool { return !p.chooses(e) })
		if len(batch) == 0 {
			return nil, nil
		}
		if err := limit.WaitN(ctx, len(batch)); err != nil {
			return nil, err
		}
		return handle(ctx, batch)
	}
}

// refuse counts a record that nobody takes.
func (s *State) refuse(topic events.Topic, m kafka.Message, err error) {
	s.Refused++
	if len(s.Sample) < sampleSize {
		s.Sample = append(s.Sample, fmt.Sprintf("%s/%d %d: %v", topic, m.Partition, m.Offset, err))
	}
}

// republish writes the records of the ranges to their topics again, one range
// after another, and stops when their readers make dead letters of them.
func (d Desk) republish(ctx context.Context, p *Plan, s *State, limit limiter) error {
	at, _, err := d.positions(ctx, p)
	if err != nil {
		return err
	}
	w := writer{desk: d, plan: p, state: s, limit: limit}
	for _, r := range p.Ranges {
		if err := w.rewrite(ctx, r, at.Get(d.Kafka.Config().TopicName(r.Topic), r.Partition)); err != nil {
			return err
		}
	}
	return nil
}

// writer republishes ranges.
type writer struct {
	desk   Desk
	plan   *Plan
	state  *State
	limit  limiter
	looked time.Time // at the dead letters, last
}

// rewrite republishes a range from an offset on.
func (w *writer) rewrite(ctx context.Context, r Range, next int64) error {
	var batch []kafka.Message
	topic := w.desk.Kafka.Config().TopicName(r.Topic)
	for m, err := range w.desk.Kafka.Records(ctx, kafkalog.Stretch{Topic: topic, Partition: r.Partition, From: next, To: r.To}) {
		if err != nil {
			return err
		}
		e, err := events.Read(m, r.Topic)
		switch {
		case err != nil && w.plan.Reservation == "":
			w.state.refuse(r.Topic, m, err)
		case err == nil && w.plan.chooses(e):
			batch = append(batch, m)
		}
		if len(batch) == w.limit.batch {
			if err := w.flush(ctx, r, batch, m.Offset+1); err != nil {
				return err
			}
			batch = batch[:0]
		}
	}
	return w.flush(ctx, r, batch, r.To)
}

// flush writes a batch, and only when that is acknowledged how far it went.
func (w *writer) flush(ctx context.Context, r Range, batch []kafka.Message, next int64) error {
	if err := w.harm(ctx); err != nil {
		return err
	}
	if len(batch) > 0 {
		if err := w.limit.WaitN(ctx, len(batch)); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		sending, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute) // what is begun is finished
		defer cancel()
		if err := w.desk.Publisher.Republish(sending, r.Topic, map[string]string{HeaderReplay: w.plan.ID}, batch...); err != nil {
			return err
		}
	}
	at := kafkalog.Offsets{}
	at.Set(w.desk.Kafka.Config().TopicName(r.Topic), r.Partition, next)
	return w.desk.Kafka.Commit(context.WithoutCancel(ctx), w.desk.Kafka.Config().GroupName(w.plan.own()), at)
}

// errHarm says that a replay was ended because its events became dead letters.
var errHarm = errors.New("new dead letters")

// harm looks, once a second, whether the groups have dead letters that they
// had not when the replay began.
func (w *writer) harm(ctx context.Context) error {
	now := w.desk.Now()
	if now.Sub(w.looked) < time.Second {
		return nil
	}
	w.looked = now
	for group, before := range w.state.Dead {
		n, err := w.desk.deadLetters(ctx, group)
		if err != nil {
			return err
		}
		if n > before {
			return fmt.Errorf("%w: group %s has %d more since the replay began; look at them with seckill topics tail %s, and run the plan again to go on",
				errHarm, group, n-before, events.DeadLetterTopic(group))
		}
	}
	return nil
}
