// Package loop runs a background step again and again: at once when there is
// more to do, else after a pause. A step that fails is tried again after the
// same pause, for as long as the process lives; the log gets one line when the
// trouble begins and one when it is over.
//
// It keeps no schedule and needs no leader: the steps it runs are safe in
// several copies side by side. Consumers of Kafka do not use it; their retries
// belong to package events.
package loop

import (
	"cmp"
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Step does one round of work and reports whether it left more to do. Its
// context ends with the loop or after Config.Timeout.
type Step func(ctx context.Context) (more bool, err error)

// Config says how a step is repeated.
type Config struct {
	Name       string                // of the loop: in log lines and in the metrics' label loop
	Every      time.Duration         // pause between the end of one step and the start of the next; default 1 s
	Timeout    time.Duration         // longest that one step may take; default 30 s, negative = no limit
	Log        *slog.Logger          // default: none
	Registerer prometheus.Registerer // of the metrics; nil = none
}

// Loop repeats a step. It belongs to one goroutine.
type Loop struct {
	cfg    Config
	ok     prometheus.Counter
	failed prometheus.Counter
	streak int // failed steps since the last good one
}

// New returns a loop that is not running yet. It registers
// seckill_loop_steps_total{loop,result}; two loops of one name need two
// registerers.
func New(cfg Config) *Loop {
	cfg.Every = cmp.Or(cfg.Every, time.Second)
	cfg.Timeout = cmp.Or(cfg.Timeout, 30*time.Second)
	cfg.Log = cmp.Or(cfg.Log, slog.New(slog.DiscardHandler))
	steps := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name:        "seckill_loop_steps_total",
		Help:        "Steps of a background loop, by result (ok, failed).",
		ConstLabels: prometheus.Labels{"loop": cfg.Name},
	}, []string{"result"})
	if cfg.Registerer != nil {
		cfg.Registerer.MustRegister(steps)
	}
	return &Loop{cfg: cfg, ok: steps.WithLabelValues("ok"), failed: steps.WithLabelValues("failed")}
}

// Run calls step until ctx ends, and then returns nil. The first call comes at
// once. A step that was interrupted by the end of ctx is not a failure.
func (l *Loop) Run(ctx context.Context, step Step) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		more, err := l.once(ctx, step)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil && more:
			l.report(nil)
			timer.Reset(0)
		default:
			l.report(err)
			timer.Reset(l.cfg.Every)
		}
	}
}

func (l *Loop) once(ctx context.Context, step Step) (bool, error) {
	if l.cfg.Timeout < 0 {
		return step(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Timeout)
	defer cancel()
	return step(ctx)
}

// report counts every step and logs only the changes: an outage of an hour is
// two lines, not thousands.
func (l *Loop) report(err error) {
	if err == nil {
		l.ok.Inc()
		if l.streak > 0 {
			l.cfg.Log.Info("background loop works again", "loop", l.cfg.Name, "failed_steps", l.streak)
		}
		l.streak = 0
		return
	}
	l.failed.Inc()
	if l.streak == 0 {
		l.cfg.Log.Warn("background loop fails, trying on", "loop", l.cfg.Name, "error", err)
	}
	l.streak++
}
