package events

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go"
)

// Handler decides what follows from a batch: events of one partition, in its
// order (of several partitions with ConsumerConfig.Together), at most MaxBatch of
// them. The batch is the handler's own to keep or
// to change.
//
// next is published even when err is not nil, each event of it once per batch:
// what has been decided is told before what is missing is tried again. An err
// made by [Permanent] says that no retry can cure it, and so does an event in
// next that [Event.Validate] refuses; any other is a fault, and the whole batch
// comes again. [PermanentOf] says whose fault it is; all others come again.
// Handlers of several partitions run side by side.
type Handler func(ctx context.Context, batch []Event) (next []Event, err error)

// ConsumerConfig says how a Consumer works.
type ConsumerConfig struct {
	ClientConfig
	Group string // name of the group without the prefix, for example "deduct". Required
	Topic Topic  // what it reads. Required

	// MaxBatch is the most events in one call of the handler. Default 500.
	MaxBatch int
	// MaxWait is how long a batch waits for more after its first event. Longer
	// makes larger batches at low rates, and each event later. Default 5 ms.
	MaxWait time.Duration
	// Together lets one call of the handler have the batches of several
	// partitions, up to MaxBatch events, each partition's in its order: where a
	// key spreads events over all partitions a transaction for each of them would
	// be small. Two calls are then under way at most. Default: a call for each.
	Together bool
	// DrainTimeout is how long a batch in hand may take after the partition is
	// taken away or ctx has ended. It must stay below SessionTimeout, or the
	// broker refuses the commit and the batch is delivered again. Default 7 s.
	DrainTimeout time.Duration
	// RetryMax is the longest pause between two attempts of the same batch; the
	// first pause is 50 ms. Default 5 s. Joining is tried every second at least.
	RetryMax time.Duration
	// SessionTimeout is how long a dead member keeps its partitions. Brokers
	// want 6 s or more. Default 10 s.
	SessionTimeout time.Duration
	// HeartbeatInterval bounds how late a member learns of a rebalance. Default
	// 500 ms.
	HeartbeatInterval time.Duration
	// RebalanceTimeout is how long a rebalance waits for members that drain. It
	// must exceed DrainTimeout and HeartbeatInterval. Default: SessionTimeout and
	// 2 s.
	RebalanceTimeout time.Duration
	// Until bounds what is read: by partition, the offset before which to stop.
	// Run returns when each of them is reached; a partition without one is left
	// alone. nil = read for ever.
	Until map[int]int64
	// Refused is told of a record that no retry can cure and why, instead of its
	// becoming a dead letter: a replay meets records that are dead letters
	// already. nil = they become dead letters. Called from several goroutines.
	Refused func(m kafka.Message, err error)
	// Now is the clock of end-to-end times and dead letters. Default: the
	// Publisher's.
	Now func() time.Time
	// Registerer gets the metrics seckill_kafka_consumer_*, _retries_total and
	// _dead_letters_total. nil = none.
	Registerer prometheus.Registerer
	// Tracer follows the events that belong to a trace. nil = none.
	Tracer Tracer
	// Log gets a line when an outage begins, when it ends, and for every dead
	// letter; at debug also one for every event handled. nil = none.
	Log *slog.Logger
}

func (c ConsumerConfig) withDefaults() ConsumerConfig {
	c.ClientConfig = c.ClientConfig.withDefaults()
	c.MaxBatch = or(c.MaxBatch, 500)
	c.MaxWait = or(c.MaxWait, 5*time.Millisecond)
	c.DrainTimeout = or(c.DrainTimeout, 7*time.Second)
	c.RetryMax = or(c.RetryMax, 5*time.Second)
	c.SessionTimeout = or(c.SessionTimeout, 10*time.Second)
	c.HeartbeatInterval = or(c.HeartbeatInterval, 500*time.Millisecond)
	c.RebalanceTimeout = or(c.RebalanceTimeout, c.SessionTimeout+2*time.Second)
	c.Log = or(c.Log, slog.New(slog.DiscardHandler))
	return c
}

// Consumer reads one topic as a member of a group. Its contract:
//
// A batch is committed only after everything that follows from it has been
// written. An event may be handled twice and is never lost: a member that dies,
// a rebalance, a commit that fails all mean that what was not committed is
// delivered again. So handlers must be idempotent.
//
// A fault is retried in place for as long as the member owns the partition; an
// outage blocks the partition and never makes a dead letter. A record with a
// permanent fault, named by the handler or found by halving the batch until it
// is alone, goes to the group's dead-letter topic with its key, value, headers
// and time, and only after its acknowledgement does the batch go on. Bytes that
// are no event of this topic go there at once.
//
// A group that is new starts at the oldest record, and commits that position
// at once, so that its lag can be seen. A panic of the handler is not caught:
// the process must go down with the batch uncommitted.
type Consumer struct {
	cfg       ConsumerConfig
	topic     string // with the prefix
	group     string
	handler   Handler
	publisher *Publisher
	metrics   consumerMetrics
	board     *LagBoard
	outages   outages
	inHand    inHand
	table     table
}

// NewConsumer makes a Consumer that publishes what follows, and dead letters,
// through p. It panics when a required field of cfg is missing.
func NewConsumer(cfg ConsumerConfig, h Handler, p *Publisher) *Consumer {
	if len(cfg.Brokers) == 0 || cfg.Group == "" || cfg.Topic == "" || h == nil || p == nil {
		panic("events: NewConsumer needs Brokers, Group, Topic, a handler and a publisher")
	}
	cfg = cfg.withDefaults()
	if cfg.Now == nil {
		cfg.Now = p.cfg.Now
	}
	group, topic := cfg.GroupName(cfg.Group), cfg.TopicName(cfg.Topic)
	c := &Consumer{
		cfg: cfg, topic: topic, group: group, handler: h, publisher: p,
		board:   NewLagBoard(cfg.Registerer, cfg.Now),
		outages: outages{log: cfg.Log.With("group", group, "topic", topic), failing: map[outage]struct{}{}},
	}
	c.metrics = newConsumerMetrics(cfg.Registerer, group, topic, func() float64 { return c.inHand.oldest(c.cfg.Now()).Seconds() })
	return c
}

// Run reads until ctx ends, then finishes the batches in hand, commits them,
// leaves the group and returns nil. It waits for brokers, for the topic and
// for the group's coordinator for as long as it takes. It returns an error only
// for settings that cannot work. One Run at a time.
func (c *Consumer) Run(ctx context.Context) error {
	ctx, finish := context.WithCancel(ctx)
	defer finish()
	goal := &goal{left: maps.Clone(c.cfg.Until), finish: finish}
	dialer := c.cfg.Dialer()
	dialer.ClientID = ownName(dialer.ClientID)
	for c.awaitTopic(ctx) == nil {
		if err := c.belong(ctx, dialer, goal); err != nil {
			return err
		}
		breathe(ctx)
		if c.awaitTopic(ctx) == nil {
			c.leaveOld(ctx, dialer.ClientID)
		}
	}
	return nil // ctx has ended
}

// belong is a member of the group until ctx ends or joining fails, and returns
// an error only for settings that cannot work.
func (c *Consumer) belong(ctx context.Context, dialer *kafka.Dialer, goal *goal) error {
	group, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID: c.group, Brokers: c.cfg.Brokers, Topics: []string{c.topic}, Dialer: dialer,
		HeartbeatInterval: c.cfg.HeartbeatInterval, SessionTimeout: c.cfg.SessionTimeout,
		RebalanceTimeout: c.cfg.RebalanceTimeout, JoinGroupBackoff: never,
		StartOffset: kafka.FirstOffset, WatchPartitionChanges: true, PartitionWatchInterval: 10 * time.Second,
		GroupBalancers: []kafka.GroupBalancer{kafka.RangeGroupBalancer{}},
	})
	if err != nil {
		return fmt.Errorf("join group %s: %w", c.group, err)
	}
	defer func() { _ = group.Close() }()
	defer c.metrics.assigned.Set(0)
	var owned sync.WaitGroup
	defer owned.Wait() // first: the group is left, and heartbeats end, when all is committed
	for c.awaitTopic(ctx) == nil {
		gen, err := group.Next(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, kafka.RebalanceInProgress):
			continue
		case err != nil: // no coordinator yet, brokers away
			c.metrics.retries.WithLabelValues("join").Inc()
			c.outages.set("join", 0, err)
			return nil
		}
		c.outages.set("join", 0, nil)
		c.metrics.rebalances.Inc()
		ours := gen.Assignments[c.topic]
		c.metrics.assigned.Set(float64(len(ours)))
		c.outages.keep(func(id int) bool {
			return slices.ContainsFunc(ours, func(a kafka.PartitionAssignment) bool { return a.ID == id })
		})
		positions := &commits{gen: gen, topic: c.topic}
		for _, a := range ours {
			owned.Add(1)
			gen.Start(func(gctx context.Context) {
				p := &partition{Consumer: c, commits: positions, id: a.ID, next: a.Offset}
				c.own(ctx, gctx, p)
				owned.Done()
				if p.finished {
					goal.reach(a.ID)
				}
				if p.finished || ctx.Err() != nil {
					<-gctx.Done() // returning sooner would make the group join again
				}
			})
		}
	}
	return nil
}

// goal is what is left to do of a bounded consumption.
type goal struct {
	mu     sync.Mutex
	left   map[int]int64
	finish context.CancelFunc
}

func (g *goal) reach(partition int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.left, partition)
	if len(g.left) == 0 {
		g.finish()
	}
}

// awaitTopic returns nil when the topic exists. A group that is joined without
// it goes round in circles.
func (c *Consumer) awaitTopic(ctx context.Context) error {
	return c.retry(ctx, "topic", 0, func() error {
		return c.cfg.withClient(func(client *kafka.Client) error {
			_, err := partitions(ctx, client, c.topic)
			return err
		})
	})
}

// retry runs op until it returns nil or a permanent error, or until live ends.
func (c *Consumer) retry(live context.Context, stage string, partition int, op func() error) error {
	longest := c.cfg.RetryMax
	if ofGroup(stage) {
		longest = min(longest, joinRetryMax)
	}
	pause := backoff.NewExponentialBackOff(backoff.WithInitialInterval(50*time.Millisecond),
		backoff.WithMaxInterval(longest), backoff.WithMaxElapsedTime(0)) // its default gives up after 15 minutes
	err := backoff.RetryNotify(func() error {
		err := op()
		if isPermanent(err) {
			return backoff.Permanent(err)
		}
		return err
	}, backoff.WithContext(pause, live), func(err error, _ time.Duration) {
		c.metrics.retries.WithLabelValues(stage).Inc()
		c.outages.set(stage, partition, err)
	})
	if err == nil || isPermanent(err) {
		c.outages.set(stage, partition, nil)
	}
	return err
}

// outage is something that does not work at present.
type outage struct {
	stage     string
	partition int
}

// ofGroup reports whether a stage belongs to no partition.
func ofGroup(stage string) bool { return stage == "topic" || stage == "leave" || stage == "join" }

// outages logs when a stage begins to fail in any partition and when it works
// again in all: two lines for an outage, however long and wide.
type outages struct {
	log     *slog.Logger
	mu      sync.Mutex
	failing map[outage]struct{}
}

// set records that the stage fails with err, or works when err is nil.
func (o *outages) set(stage string, partition int, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	before := o.count(stage)
	if err != nil {
		o.failing[outage{stage, partition}] = struct{}{}
	} else {
		delete(o.failing, outage{stage, partition})
	}
	switch after := o.count(stage); {
	case before == 0 && after > 0:
		o.log.Warn("stage fails, retrying until it works", "stage", stage, "partition", partition, "error", err)
	case before > 0 && after == 0:
		o.log.Info("stage works again", "stage", stage)
	}
}

func (o *outages) count(stage string) int {
	n := 0
	for f := range o.failing {
		if f.stage == stage {
			n++
		}
	}
	return n
}

// keep forgets what fails in partitions that are not ours any more.
func (o *outages) keep(ours func(partition int) bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for f := range o.failing {
		if !ofGroup(f.stage) && !ours(f.partition) {
			delete(o.failing, f)
		}
	}
}
