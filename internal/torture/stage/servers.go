package stage

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// ports are what a run listens on, counted from its base port.
type ports struct{ base int }

func (p ports) redis() int           { return p.base }
func (p ports) replica() int         { return p.base + 1 }
func (p ports) mysql() int           { return p.base + 2 }
func (p ports) replication() int     { return p.base + 3 } // the proxy between the two Redis servers
func (p ports) kafka(node int) int   { return p.base + 10*node }
func (p ports) broker(node int) int  { return p.base + 40 + 10*node } // the proxy before kafka(node)
func (p ports) gateway(n int) int    { return p.base + 80 + n }
func (p ports) door(n int) int       { return p.base + 85 + n } // the proxy before gateway(n)
func (p ports) toRedis(proc int) int { return p.base + 90 + proc }
func (p ports) toMySQL(proc int) int { return p.base + 100 + proc }

// script runs deploy/local/servers for this run's own set of servers.
func (s *Stage) script(ctx context.Context, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(s.cfg.Root, "deploy/local/servers"), args...)
	cmd.Env = append(os.Environ(),
		"SECKILL_SERVERS_DATA="+s.cfg.Dir,
		"SECKILL_SERVERS_REDIS_PORT="+strconv.Itoa(s.ports.redis()),
		"SECKILL_SERVERS_MYSQL_PORT="+strconv.Itoa(s.ports.mysql()),
		"SECKILL_SERVERS_KAFKA_PORT="+strconv.Itoa(s.ports.kafka(1)),
		"SECKILL_SERVERS_KAFKA_ADVERTISED_PORT="+strconv.Itoa(s.ports.broker(1)))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("servers %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// Brokers lists the names of the Kafka servers.
func (s *Stage) Brokers() []string {
	var names []string
	for i := range s.cfg.Brokers {
		names = append(names, fmt.Sprint("kafka", i+1))
	}
	return names
}

// KillServer ends mysql or a broker as a crash does; StartServer starts it
// again on its data and waits until it is ready.
func (s *Stage) KillServer(ctx context.Context, names ...string) error {
	return s.script(ctx, append([]string{"kill"}, names...)...)
}

// StartServer undoes KillServer and PauseServer. Brokers that were killed
// together are started together: one of three does not get ready alone. Kafka
// gives up when it has not become a broker within a minute, as after a crash on
// a busy machine; it is started again, as systemd would.
func (s *Stage) StartServer(ctx context.Context, names ...string) (err error) {
	for range 3 {
		if err = s.script(ctx, append([]string{"start"}, names...)...); err == nil {
			return nil
		}
	}
	return err
}

// PauseServer freezes mysql or a broker; ContinueServer lets it go on.
func (s *Stage) PauseServer(ctx context.Context, name string) error {
	return s.script(ctx, "pause", name)
}

// ContinueServer undoes PauseServer.
func (s *Stage) ContinueServer(ctx context.Context, name string) error {
	return s.script(ctx, "cont", name)
}
