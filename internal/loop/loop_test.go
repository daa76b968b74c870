package loop_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/leadingpeers/seckill/internal/loop"
)

var errAway = errors.New("away")

// outcome is what a scripted step answers.
type outcome struct {
	more bool
	err  error
}

func TestRun(t *testing.T) {
	const every = 100 * time.Millisecond
	tests := []struct {
		name  string
		steps []outcome       // what the first steps answer; later ones: nothing to do
		want  []time.Duration // when the first steps ran
		lines int             // log lines
		why   string
	}{
		{
			"idle", nil,
			[]time.Duration{0, every, 2 * every},
			0,
			"an idle loop polls at its interval, the first time at once",
		},
		{
			"busy",
			[]outcome{{more: true}, {more: true}, {}},
			[]time.Duration{0, 0, 0, every},
			0,
			"a backlog is worked off without pauses",
		},
		{
			"fails",
			[]outcome{{err: errAway}, {err: errAway}, {}},
			[]time.Duration{0, every, 2 * every, 3 * every},
			2,
			"an outage costs two lines however many steps it lasts",
		},
		{
			"fails and says more",
			[]outcome{{more: true, err: errAway}, {}},
			[]time.Duration{0, every, 2 * every},
			2,
			"a failing step never spins",
		},
		{
			"fails twice",
			[]outcome{{err: errAway}, {}, {err: errAway}, {}},
			[]time.Duration{0, every, 2 * every, 3 * every, 4 * every},
			4,
			"a second outage is told again",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				var ran []time.Duration
				start := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				l := loop.New(loop.Config{Name: "test", Every: every, Log: slog.New(slog.NewTextHandler(&log, nil))})
				err := l.Run(ctx, func(context.Context) (bool, error) {
					ran = append(ran, time.Since(start))
					if len(ran) == len(tt.want) {
						cancel()
					}
					if len(ran) <= len(tt.steps) {
						return tt.steps[len(ran)-1].more, tt.steps[len(ran)-1].err
					}
					return false, nil
				})
				if err != nil || !slices.Equal(ran, tt.want) {
					t.Errorf("ran at %v, error %v; want %v: %s", ran, err, tt.want, tt.why)
				}
				if got := strings.Count(log.String(), "\n"); got != tt.lines {
					t.Errorf("%d log lines, want %d: %s\n%s", got, tt.lines, tt.why, log.String())
				}
			})
		})
	}
}

func TestStepIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		l := loop.New(loop.Config{Name: "test", Timeout: 3 * time.Second})
		ctx, cancel := context.WithCancel(t.Context())
		calls := 0
		if err := l.Run(ctx, func(ctx context.Context) (bool, error) {
			if calls++; calls == 2 {
				cancel()
				return false, nil
			}
			<-ctx.Done() // a server that never answers
			return false, ctx.Err()
		}); err != nil {
			t.Fatal(err)
		}
		if got := time.Since(start); got != 4*time.Second {
			t.Errorf("the second step came after %v, want the time-out of 3 s and the pause of 1 s", got)
		}
	})
}

func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		l := loop.New(loop.Config{Name: "a", Registerer: reg})
		loop.New(loop.Config{Name: "b", Registerer: reg}) // a second loop in the same process
		ctx, cancel := context.WithCancel(t.Context())
		calls := 0
		_ = l.Run(ctx, func(context.Context) (bool, error) {
			switch calls++; calls {
			case 1:
				return false, errAway
			case 4:
				cancel()
			}
			return false, nil
		})
		want := []string{"a failed 1", "a ok 2", "b failed 0", "b ok 0"}
		if got := steps(t, reg); !slices.Equal(got, want) {
			t.Errorf("steps counted: %q, want %q", got, want)
		}
	})
}

// steps reads seckill_loop_steps_total as "loop result count".
func steps(t *testing.T, reg prometheus.Gatherer) []string {
	t.Helper()
	families, err := reg.Gather()
	if err != nil || len(families) != 1 || families[0].GetName() != "seckill_loop_steps_total" {
		t.Fatalf("gathered %v, error %v; want seckill_loop_steps_total", families, err)
	}
	var out []string
	for _, m := range families[0].GetMetric() {
		out = append(out, fmt.Sprint(m.GetLabel()[0].GetValue(), " ", m.GetLabel()[1].GetValue(), " ", m.GetCounter().GetValue()))
	}
	return out
}
