// Package stage sets up everything that a torture run hurts: Redis with a
// replica, MariaDB, Kafka, two copies of each of our processes as children, and
// a proxy on every way between them. It hurts nothing by itself and judges
// nothing.
package stage

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/leadingpeers/seckill/internal/mysql"
	"github.com/leadingpeers/seckill/pkg/events"
)

// Prefix is before every key, topic and group of a run.
const Prefix = "torture"

const schema = "torture"

// Config says what to set up. Every field but Bin is required.
type Config struct {
	Root    string   // of the module
	Dir     string   // for data, logs and binaries; emptied first
	Bin     string   // binaries built with -tags faults; empty = they are built
	Port    int      // the first of 120 ports
	Brokers int      // 1 or 3
	Fsync   string   // of Redis: everysec or always
	Env     []string // settings of our processes
	Log     io.Writer
	Exited  func(Exit) // told when a process has ended by itself
}

// Stage is what a run plays on.
type Stage struct {
	Processes []*Process
	Doors     []*Link // from the buyers to the gateways
	ToKafka   []*Link // from everybody to the brokers
	Redis     *Redis
	DB        *sql.DB // MySQL, past all proxies

	cfg     Config
	ports   ports
	links   *links
	mounted []string
	quit    context.CancelFunc
	wait    sync.WaitGroup
}

// Up sets everything up. Whatever it returns, Down takes it away again.
func Up(ctx context.Context, cfg Config) (*Stage, error) {
	s := &Stage{cfg: cfg, ports: ports{cfg.Port}, links: newLinks()}
	for _, do := range []func(context.Context) error{s.clear, s.build, s.servers, s.startRedis, s.prepare, s.startProcesses} {
		if err := do(ctx); err != nil {
			return s, err
		}
	}
	return s, nil
}

// Log writes a line for whoever looks on.
func (s *Stage) Log(format string, args ...any) { _, _ = fmt.Fprintf(s.cfg.Log, format+"\n", args...) }

// clear takes away what an earlier run has left.
func (s *Stage) clear(ctx context.Context) error {
	if _, err := os.Stat(s.cfg.Dir); err == nil {
		if err := s.script(ctx, "wipe"); err != nil {
			return err
		}
		for _, dir := range s.small() {
			_ = syscall.Unmount(dir, 0)
		}
		if err := os.RemoveAll(s.cfg.Dir); err != nil {
			return fmt.Errorf("empty %s: %w", s.cfg.Dir, err)
		}
	}
	return os.MkdirAll(filepath.Join(s.cfg.Dir, "bin"), 0o755)
}

func (s *Stage) bin() string {
	if s.cfg.Bin != "" {
		return s.cfg.Bin
	}
	return filepath.Join(s.cfg.Dir, "bin")
}

// small are the folders that get a disk of their own, where that is allowed.
func (s *Stage) small() []string {
	return []string{filepath.Join(s.cfg.Dir, "redis-1"), filepath.Join(s.cfg.Dir, "redis-2")}
}

// build makes the binaries, with the fault points in them.
func (s *Stage) build(ctx context.Context) error {
	if s.cfg.Bin != "" {
		return nil
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-tags", "faults", "-o", s.bin(), "./cmd/gateway", "./cmd/stock-worker", "./cmd/settle-worker")
	cmd.Dir = s.cfg.Root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w: %s", err, out)
	}
	return nil
}

// servers opens the ways to the brokers, which are told them, and starts MySQL
// and Kafka.
func (s *Stage) servers(ctx context.Context) error {
	for i := range s.cfg.Brokers {
		link, err := s.links.add(fmt.Sprint("kafka", i+1), s.ports.broker(i+1), s.ports.kafka(i+1))
		if err != nil {
			return err
		}
		s.ToKafka = append(s.ToKafka, link)
	}
	if err := s.script(ctx, "up", "--brokers", fmt.Sprint(s.cfg.Brokers)); err != nil {
		return err
	}
	return s.script(ctx, "stop", "redis") // ours are children: their logs get cut, and they change places
}

// Kafka is the brokers' addresses, through their proxies.
func (s *Stage) Kafka() string {
	var out []string
	for i := range s.cfg.Brokers {
		out = append(out, loopback(s.ports.broker(i+1)))
	}
	return strings.Join(out, ",")
}

// KafkaConfig is how a part of the run itself reaches Kafka.
func (s *Stage) KafkaConfig(id string) events.ClientConfig {
	return events.ClientConfig{Brokers: strings.Split(s.Kafka(), ","), Prefix: Prefix, ClientID: Prefix + "-" + id}
}

// Gateways are the addresses of the doors.
func (s *Stage) Gateways() []string {
	return []string{"http://" + loopback(s.ports.door(1)), "http://" + loopback(s.ports.door(2))}
}

func (s *Stage) startRedis(ctx context.Context) error {
	logs, err := os.Create(filepath.Join(s.cfg.Dir, "cache.log"))
	if err != nil {
		return err
	}
	s.Redis = &Redis{ports: [2]int{s.ports.redis(), s.ports.replica()}, fsync: s.cfg.Fsync, logs: logs}
	for i, dir := range s.small() {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=512m") == nil { // not without root
			s.mounted = append(s.mounted, dir)
		}
		s.Redis.dirs[i] = dir
		s.Redis.clients[i] = redis.NewClient(&redis.Options{Addr: loopback(s.Redis.ports[i]), MaxRetries: -1, DialTimeout: time.Second})
		if err := s.Redis.start(ctx, i); err != nil {
			return err
		}
	}
	if s.Redis.repl, err = s.links.add("replica→master", s.ports.replication(), s.ports.redis()); err != nil {
		return err
	}
	return s.Redis.follow(ctx)
}

// prepare makes schema and topics.
func (s *Stage) prepare(ctx context.Context) (err error) {
	dsn := fmt.Sprintf("root@tcp(%s)/", loopback(s.ports.mysql()))
	root, err := mysql.Open(ctx, mysql.Config{DSN: dsn + "seckill"})
	if err != nil {
		return err
	}
	_, err = root.ExecContext(ctx, "CREATE DATABASE IF NOT EXISTS "+schema)
	if err = errors.Join(err, root.Close()); err != nil {
		return err
	}
	if s.DB, err = mysql.Open(ctx, mysql.Config{DSN: dsn + schema, MaxOpen: 8}); err != nil {
		return err
	}
	if err := mysql.Migrate(ctx, s.DB, slog.New(slog.DiscardHandler)); err != nil {
		return err
	}
	for {
		err := events.Apply(ctx, s.KafkaConfig("setup"), events.Overrides{})
		if err == nil || ctx.Err() != nil {
			return err
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// startProcesses starts our own binaries, and whoever looks after them.
func (s *Stage) startProcesses(ctx context.Context) error {
	if err := s.addProcesses(); err != nil {
		return err
	}
	for _, p := range s.Processes {
		if err := p.Start(ctx); err != nil {
			return err
		}
	}
	background, quit := context.WithCancel(context.WithoutCancel(ctx))
	s.quit = quit
	s.wait.Go(func() { s.supervise(background, s.cfg.Exited) })
	s.wait.Go(func() { s.Redis.watch(background) })
	return nil
}

// Named finds processes by their role.
func (s *Stage) Named(role string) (out []*Process) {
	for _, p := range s.Processes {
		if p.Role == role {
			out = append(out, p)
		}
	}
	return out
}

// SmallDisk is the folder of the master's data if it is on a disk of its own.
func (s *Stage) SmallDisk() (dir string, ok bool) {
	s.Redis.mu.Lock()
	defer s.Redis.mu.Unlock()
	return s.Redis.dirs[s.Redis.master], len(s.mounted) == 2
}

// Down takes everything away but the logs.
func (s *Stage) Down(ctx context.Context) error {
	if s.quit != nil {
		s.quit()
	}
	s.wait.Wait()
	for _, p := range s.Processes {
		p.Kill()
	}
	if s.DB != nil {
		_ = s.DB.Close()
	}
	if s.Redis != nil {
		s.Redis.close()
	}
	s.links.close()
	err := s.script(ctx, "wipe")
	for _, dir := range s.mounted {
		err = errors.Join(err, syscall.Unmount(dir, 0))
	}
	return err
}
