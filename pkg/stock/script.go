package stock

import (
	"context"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/leadingpeers/seckill/internal/fault"
	"github.com/leadingpeers/seckill/lua"
)

// script is one Lua script, called by its hash.
type script struct {
	text    string
	hash    string // SHA-1 of text, the name that EVALSHA knows it by
	seconds prometheus.Observer
}

// scripts are all that a cache calls.
type scripts struct{ reserve, apply, reap, preload, configure, balance *script }

func newScripts(m *metrics) scripts {
	load := func(name, text string) *script {
		return &script{text: text, hash: redis.NewScript(text).Hash(), seconds: m.seconds.WithLabelValues(name)}
	}
	return scripts{
		reserve:   load("reserve", fault.Without(fault.RecordedAnswer, lua.Reserve, "  if comma then\n", "  if false then\n")),
		apply:     load("apply", fault.Without(fault.Adopt, lua.Apply, "state == 'C' and quantity or 0", "0")),
		reap:      load("reap", lua.Reap),
		preload:   load("preload", lua.Preload),
		configure: load("configure", lua.Configure),
		balance:   load("balance", lua.Balance),
	}
}

// start appends the head of a call of s to args: what comes before ARGV.
func (s *script) start(args []any, keys ...string) []any {
	args = append(args, "evalsha", s.hash, len(keys))
	for _, key := range keys {
		args = append(args, key)
	}
	return args
}

// run makes the calls in one write to Redis and returns when every one has its
// reply or its error, in its command. A server that does not know the script
// gets its text, and only what was refused for that is called again.
//
// go-redis repeats a call by itself when the connection breaks or the server is
// loading. That is left on: a repeated reserve finds the answer on record under
// its ID, the other scripts change nothing the second time. Its price is that
// the last error says nothing about earlier tries (a dial error may follow a
// try that was carried out), so every fault of a call is an ErrUnknown.
func (c *Cache) run(ctx context.Context, s *script, calls [][]any) []*redis.Cmd {
	measured := c.stopwatch(s.seconds)
	cmds := c.send(ctx, calls)
	var again [][]any
	var at []int
	for i, cmd := range cmds {
		if redis.HasErrorPrefix(cmd.Err(), "NOSCRIPT") {
			call := append([]any{"eval", s.text}, calls[i][2:]...)
			again, at = append(again, call), append(at, i)
		}
	}
	if len(again) > 0 {
		for i, cmd := range c.send(ctx, again) {
			cmds[at[i]] = cmd
		}
	}
	measured()
	return cmds
}

// send writes the calls at once and reads all replies.
func (c *Cache) send(ctx context.Context, calls [][]any) []*redis.Cmd {
	pipe := c.client.Pipeline()
	cmds := make([]*redis.Cmd, len(calls))
	for i, call := range calls {
		cmds[i] = pipe.Do(ctx, call...)
	}
	_, _ = pipe.Exec(ctx) // each command holds its own error
	return cmds
}

// call makes one call of s and returns its reply: a string or a list of them.
func (c *Cache) call(ctx context.Context, s *script, keys []string, argv ...any) (any, error) {
	args := append(s.start(nil, keys...), argv...)
	reply, err := c.run(ctx, s, [][]any{args})[0].Result()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	return reply, nil
}

// stopwatch returns a function that observes the seconds since this call. It
// does nothing in a cache without a clock.
func (c *Cache) stopwatch(seconds prometheus.Observer) func() {
	if c.cfg.Now == nil {
		return func() {}
	}
	start := c.cfg.Now()
	return func() { seconds.Observe(c.cfg.Now().Sub(start).Seconds()) }
}
