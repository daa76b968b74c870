package lag

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/leadingpeers/seckill/internal/loop"
	"github.com/leadingpeers/seckill/internal/ops/kafkalog"
	"github.com/leadingpeers/seckill/pkg/events"
)

// PollerConfig says how a Poller works.
type PollerConfig struct {
	Every      time.Duration         // between two readings; default 5 s
	Now        func() time.Time      // required
	Registerer prometheus.Registerer // of the metrics. Required
	Log        *slog.Logger          // nil = none
}

// Poller keeps the lag metrics of all groups up to date, also of those whose
// workers are all dead. Several may run side by side: each tells the same, so
// queries take max by (group, topic, partition). Groups of replays are left
// out: each has a name of its own.
type Poller struct {
	cfg    events.ClientConfig
	now    func() time.Time
	board  *events.LagBoard
	prefix string // of the replays' groups
	loop   *loop.Loop
}

// NewPoller returns a poller that is not running yet.
func NewPoller(cfg events.ClientConfig, c PollerConfig) *Poller {
	if c.Every == 0 {
		c.Every = 5 * time.Second
	}
	return &Poller{
		cfg: cfg, now: c.Now, board: events.NewLagBoard(c.Registerer, c.Now), prefix: cfg.GroupName(Replays),
		loop: loop.New(loop.Config{Name: "lag", Every: c.Every, Timeout: 20 * time.Second, Log: c.Log, Registerer: c.Registerer}),
	}
}

// Run reads until ctx ends, and then returns nil. While the brokers are away
// the metrics stay as they were; seckill_loop_steps_total{loop="lag"} tells.
func (p *Poller) Run(ctx context.Context) error {
	kafka := kafkalog.Open(p.cfg)
	defer kafka.Close()
	reader := NewReader(kafka, p.now)
	return p.loop.Run(ctx, func(ctx context.Context) (bool, error) {
		reading, err := reader.Read(ctx, "")
		if err != nil {
			return false, err
		}
		rows := map[events.Place]events.Standing{}
		for _, row := range reading.Rows {
			if !strings.HasPrefix(row.Group, p.prefix) {
				rows[row.Place] = row.Standing
			}
		}
		p.board.Show(rows, reading.Logs)
		return false, nil
	})
}
