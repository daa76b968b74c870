package settleworker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/leadingpeers/seckill/internal/loop"
	"github.com/leadingpeers/seckill/internal/onway"
	"github.com/leadingpeers/seckill/pkg/events"
	"github.com/leadingpeers/seckill/pkg/order"
)

// Publisher writes events to Kafka; nil means that all of them are written.
// *events.Publisher is one.
type Publisher interface {
	Publish(ctx context.Context, evs ...events.Event) error
}

// Overdue cancels orders that were not paid in time. *order.Store is one.
type Overdue interface {
	Expire(ctx context.Context, limit int, announce func(order.Order) []order.Message) (n int, err error)
}

// ExpirerConfig says how often and how much is expired. The zero value is good.
type ExpirerConfig struct {
	Every      time.Duration         // pause when nothing is due; default 250 ms
	Batch      int                   // most orders in one transaction, to order.MaxBatch; default 200
	Log        *slog.Logger          // default: none
	Registerer prometheus.Registerer // of seckill_expired_total and the loop's metrics; nil = none
}

// Expirer cancels the orders whose time to pay is over, by the database's
// clock. The events of a cancellation go into the outbox in its transaction.
// Several copies share the work.
type Expirer struct {
	orders  Overdue
	batch   int
	loop    *loop.Loop
	expired prometheus.Counter
}

// NewExpirer returns an Expirer that is not running yet.
func NewExpirer(orders Overdue, cfg ExpirerConfig) *Expirer {
	x := &Expirer{
		orders: orders,
		batch:  min(cmp.Or(cfg.Batch, 200), order.MaxBatch),
		loop: loop.New(loop.Config{
			Name: "expirer", Every: cmp.Or(cfg.Every, 250*time.Millisecond), Log: cfg.Log, Registerer: cfg.Registerer,
		}),
		expired: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "seckill_expired_total",
			Help: "Orders cancelled because nobody paid them in time.",
		}),
	}
	register(cfg.Registerer, x.expired)
	return x
}

// Run expires orders until ctx ends, and then returns nil.
func (x *Expirer) Run(ctx context.Context) error { return x.loop.Run(ctx, x.Step) }

// Step expires one batch and reports whether it was a full one. Run calls it;
// by itself it is for tests and for operators.
func (x *Expirer) Step(ctx context.Context) (more bool, err error) {
	n, err := x.orders.Expire(ctx, x.batch, announce)
	x.expired.Add(float64(n))
	if err != nil {
		return false, fmt.Errorf("expire up to %d orders: %w", x.batch, err)
	}
	return n >= x.batch, nil
}

// Outbox hands out messages that wait for their publication and deletes them
// when publish has returned nil. *order.Store is one.
type Outbox interface {
	Relay(ctx context.Context, limit int, publish func(context.Context, []order.Message) error) (n int, err error)
	OutboxAge(ctx context.Context) (pending int64, oldest time.Time, err error)
}

// RelayConfig says how often and how much is relayed. The zero value is good,
// but for Now.
type RelayConfig struct {
	Every      time.Duration         // pause when the outbox is empty; default 100 ms
	Batch      int                   // most messages in one transaction, to order.MaxBatch; default 200
	Timeout    time.Duration         // longest that one transaction waits for Kafka with its rows locked; default 10 s
	AgeEvery   time.Duration         // how often the outbox is measured; default 5 s
	Now        func() time.Time      // clock for the age of the oldest message; required
	Log        *slog.Logger          // default: none
	Registerer prometheus.Registerer // of seckill_relayed_total, seckill_outbox_* and the loops' metrics; nil = none
}

// Relay publishes what waits in the outbox. A message is deleted only after
// Kafka has acked it, so it may be published twice and is never lost. Several
// copies share the work.
type Relay struct {
	outbox    Outbox
	publisher Publisher
	cfg       RelayConfig
	relay     *loop.Loop
	measure   *loop.Loop
	relayed   prometheus.Counter
	pending   prometheus.Gauge
	oldest    prometheus.Gauge
}

// NewRelay returns a Relay that is not running yet.
func NewRelay(outbox Outbox, publisher Publisher, cfg RelayConfig) *Relay {
	cfg.Batch = min(cmp.Or(cfg.Batch, 200), order.MaxBatch)
	labels := prometheus.Labels{"store": "orders"}
	r := &Relay{
		outbox: outbox, publisher: publisher, cfg: cfg,
		relay: loop.New(loop.Config{
			Name: "relay", Every: cmp.Or(cfg.Every, 100*time.Millisecond), Timeout: cmp.Or(cfg.Timeout, 10*time.Second),
			Log: cfg.Log, Registerer: cfg.Registerer,
		}),
		measure: loop.New(loop.Config{
			Name: "outbox_age", Every: cmp.Or(cfg.AgeEvery, 5*time.Second), Log: cfg.Log, Registerer: cfg.Registerer,
		}),
		relayed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "seckill_relayed_total", Help: "Messages published from the outbox.",
		}),
		pending: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "seckill_outbox_pending", Help: "Messages that wait in the outbox.", ConstLabels: labels,
		}),
		oldest: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "seckill_outbox_oldest_seconds", Help: "Age of the oldest message in the outbox.", ConstLabels: labels,
		}),
	}
	register(cfg.Registerer, r.relayed, r.pending, r.oldest)
	return r
}

// Run relays until ctx ends, and then returns nil. Beside it runs the loop that
// measures the outbox, so that the figures go on when Kafka is away.
func (r *Relay) Run(ctx context.Context) error {
	measured := make(chan error, 1)
	go func() { measured <- r.measure.Run(ctx, r.age) }()
	return errors.Join(r.relay.Run(ctx, r.Step), <-measured)
}

// Step relays one batch and reports whether it was a full one. Run calls it; by
// itself it is for tests and for operators.
func (r *Relay) Step(ctx context.Context) (more bool, err error) {
	n, err := r.outbox.Relay(ctx, r.cfg.Batch, func(ctx context.Context, waiting []order.Message) error {
		evs := make([]events.Event, len(waiting))
		for i, m := range waiting {
			e, err := events.Decode(events.Type(m.Type), m.Body)
			if err != nil {
				return fmt.Errorf("decode message of type %.64q: %w", m.Type, err)
			}
			e.TraceParent = m.TraceParent
			evs[i] = e
		}
		return r.publisher.Publish(ctx, evs...)
	})
	if err != nil {
		return false, fmt.Errorf("relay up to %d messages: %w", r.cfg.Batch, err)
	}
	r.relayed.Add(float64(n))
	return n >= r.cfg.Batch, nil
}

func (r *Relay) age(ctx context.Context) (bool, error) {
	pending, oldest, err := r.outbox.OutboxAge(ctx)
	if err != nil {
		return false, fmt.Errorf("measure the outbox: %w", err)
	}
	r.pending.Set(float64(pending))
	r.oldest.Set(0)
	if pending > 0 {
		r.oldest.Set(r.cfg.Now().Sub(oldest).Seconds())
	}
	return false, nil
}

// Stuck finds reservations that should have moved on long ago. *order.Store is
// one.
type Stuck interface {
	Unsettled(ctx context.Context, olderThan time.Duration, limit int) ([]order.Order, error)
	Unreturned(ctx context.Context, olderThan time.Duration, limit int) ([]order.Order, error)
}

// SweeperConfig says how often and how much is swept. The zero value is good, but
// for the clock.
type SweeperConfig struct {
	Every      time.Duration         // pause between two rounds; default 1 min
	OlderThan  time.Duration         // how long a reservation may stand still before its event is published again; default 60 s
	Limit      int                   // most reservations of each kind in one round, to order.MaxStuck; default 5000
	Repeat     time.Duration         // how long this copy then leaves a reservation alone; default 2 × OlderThan
	Deductions onway.Queue           // of the group settle on the topic deductions, by reservation; nil = what stands still is taken to be on no way any more
	Rollbacks  onway.Queue           // of the group rollback on the topic rollbacks, by product; nil = the same
	Now        func() time.Time      // clock for Repeat; required
	Log        *slog.Logger          // default: none
	Registerer prometheus.Registerer // of seckill_swept_total and the loop's metrics; nil = none
}

// Sweeper publishes the deduction again of every reservation that has been
// deducted for long and has no order, and the rollback again of every
// cancelled order whose units are still deducted: Kafka has lost the event, or it
// lies among the dead letters. What a worker that is behind has still to read is
// not published again: see [onway.Marks]. Several copies side by side are harmless.
type Sweeper struct {
	orders    Stuck
	publisher Publisher
	cfg       SweeperConfig
	loop      *loop.Loop
	swept     *prometheus.CounterVec

	marks *onway.Marks // of reservations that stand still
}

// NewSweeper returns a Sweeper that is not running yet.
func NewSweeper(orders Stuck, publisher Publisher, cfg SweeperConfig) *Sweeper {
	cfg.OlderThan = cmp.Or(cfg.OlderThan, time.Minute)
	cfg.Limit = cmp.Or(cfg.Limit, 5000)
	cfg.Repeat = cmp.Or(cfg.Repeat, 2*cfg.OlderThan)
	s := &Sweeper{
		orders: orders, publisher: publisher, cfg: cfg, marks: onway.NewMarks(cfg.Repeat, cfg.Now),
		loop: loop.New(loop.Config{
			Name: "sweeper", Every: cmp.Or(cfg.Every, time.Minute), Log: cfg.Log, Registerer: cfg.Registerer,
		}),
		swept: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "seckill_swept_total",
			Help: "Reservations whose event was published again because nothing came of it, by kind (unsettled, unreturned).",
		}, []string{"kind"}),
	}
	register(cfg.Registerer, s.swept)
	for _, kind := range []string{"unsettled", "unreturned"} {
		s.swept.WithLabelValues(kind) // increase() does not see the step from nothing to the first one
	}
	return s
}

// Run sweeps until ctx ends, and then returns nil.
func (s *Sweeper) Run(ctx context.Context) error { return s.loop.Run(ctx, s.Step) }

// Step sweeps once; it never has more to do. Run calls it; by itself it is for
// tests and for operators.
func (s *Sweeper) Step(ctx context.Context) (more bool, err error) {
	s.marks.Forget()
	return false, errors.Join(
		s.again(ctx, "unsettled", s.orders.Unsettled, s.cfg.Deductions.Once(ctx)),
		s.again(ctx, "unreturned", s.orders.Unreturned, s.cfg.Rollbacks.Once(ctx)),
	)
}

// again publishes the event of each reservation that find returns and that is on
// no way any more: the rollback of a cancelled order, the deduction of an order
// that is not there.
func (s *Sweeper) again(ctx context.Context, kind string, find func(context.Context, time.Duration, int) ([]order.Order, error), queue func() (onway.Of, error)) error {
	stuck, err := find(ctx, s.cfg.OlderThan, s.cfg.Limit)
	if err != nil {
		return fmt.Errorf("find %s reservations: %w", kind, err)
	}
	stuck = slices.DeleteFunc(stuck, func(o order.Order) bool { return s.marks.Rests(o.ReservationID) })
	if len(stuck) == 0 {
		return nil
	}
	of, err := queue() // after the ledger was asked
	if err != nil {
		return fmt.Errorf("how far %d %s reservations are handled: %w", len(stuck), kind, err)
	}
	evs := make([]events.Event, 0, len(stuck))
	for _, o := range stuck {
		if e := untold(o); s.marks.Passed(o.ReservationID, of(e.Key())) {
			evs = append(evs, e)
		}
	}
	for part := range slices.Chunk(evs, order.MaxBatch) {
		if err := s.publisher.Publish(ctx, part...); err != nil {
			return fmt.Errorf("publish %d %s reservations again: %w", len(part), kind, err)
		}
		for _, e := range part {
			s.marks.Published(e.ReservationID)
		}
		s.swept.WithLabelValues(kind).Add(float64(len(part)))
	}
	return nil
}

// untold is the event that should have been heard long ago.
func untold(o order.Order) events.Event {
	if o.State == order.Cancelled {
		return back(o)
	}
	return events.Event{
		Type:          events.StockDeducted,
		Time:          o.CreatedAt,
		ReservationID: o.ReservationID,
		ActivityID:    o.ActivityID,
		ProductID:     o.ProductID,
		UserID:        o.UserID,
		Quantity:      o.Quantity,
	}
}

func register(to prometheus.Registerer, what ...prometheus.Collector) {
	if to != nil {
		to.MustRegister(what...)
	}
}
