package stage

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/leadingpeers/seckill/internal/proc"
)

// Process is one of our own binaries, which ends and starts again.
type Process struct {
	Name string // gateway-1
	Role string // gateway
	ToRedis,
	ToMySQL *Link

	path string
	args []string
	env  []string
	logs *os.File

	mu      sync.Mutex
	running *proc.Process
	wanted  bool // it should be running
	armed   bool // it may end by itself, at a fault point
}

// Ops is the address of its probes and metrics, empty while it does not run.
func (p *Process) Ops() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running == nil {
		return ""
	}
	return p.running.Ops
}

// Start starts it, unless it runs. extra are variables for this life of it.
func (p *Process) Start(ctx context.Context, extra ...string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wanted = true
	if p.running != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	running, err := proc.Start(ctx, proc.Spec{
		Name: p.Name, Path: p.path, Args: append([]string{"--until-stdin-closes"}, p.args...),
		Env: append(append([]string{}, p.env...), extra...), Logs: p.logs,
	})
	p.running, p.armed = running, len(extra) > 0
	return err
}

// Disarm starts it again as usual if it is still to end at a fault point.
func (p *Process) Disarm(ctx context.Context) error {
	p.mu.Lock()
	armed := p.armed && p.running != nil
	p.mu.Unlock()
	if armed {
		p.Kill()
	}
	return p.Start(ctx)
}

// Kill ends it as a crash does.
func (p *Process) Kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wanted = false
	if p.running != nil {
		p.running.Kill()
		p.running = nil
	}
}

// Stop asks it to drain.
func (p *Process) Stop(limit time.Duration) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wanted = false
	if p.running == nil {
		return nil
	}
	err := p.running.Stop(limit)
	p.running = nil
	return err
}

// Signal sends a signal to it, if it runs.
func (p *Process) Signal(sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running == nil {
		return nil
	}
	return syscall.Kill(p.running.PID(), sig)
}

// ended reports whether it has ended by itself, and forgets about it then.
func (p *Process) ended() (yes, armed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running == nil || !p.wanted {
		return false, false
	}
	select {
	case <-p.running.Exited():
		p.running = nil
		return true, p.armed
	default:
		return false, false
	}
}

// Exit is the end of a process that nobody had ended.
type Exit struct {
	Name  string
	Armed bool // at a fault point, as it was told
}

// supervise starts again what has ended by itself, until ctx ends, and tells of
// it.
func (s *Stage) supervise(ctx context.Context, tell func(Exit)) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, p := range s.Processes {
			if yes, armed := p.ended(); yes {
				tell(Exit{p.Name, armed})
				if err := p.Start(ctx); err != nil && ctx.Err() == nil {
					s.Log("%v", err)
				}
			}
		}
	}
}

// addProcesses makes two of each role, with their links.
func (s *Stage) addProcesses() error {
	logs, err := os.Create(filepath.Join(s.cfg.Dir, "processes.log"))
	if err != nil {
		return err
	}
	n := 0
	for _, role := range []string{"gateway", "stock-worker", "settle-worker"} {
		for copy := 1; copy <= 2; copy++ {
			p := &Process{Name: fmt.Sprint(role, "-", copy), Role: role, path: filepath.Join(s.bin(), role), logs: logs}
			if p.ToRedis, err = s.links.add(p.Name+"→redis", s.ports.toRedis(n), s.ports.redis()); err != nil {
				return err
			}
			if p.ToMySQL, err = s.links.add(p.Name+"→mysql", s.ports.toMySQL(n), s.ports.mysql()); err != nil {
				return err
			}
			p.env = append(append([]string{}, s.cfg.Env...),
				"PATH="+os.Getenv("PATH"),
				"SECKILL_REDIS="+loopback(s.ports.toRedis(n)), "SECKILL_KAFKA="+s.Kafka(),
				fmt.Sprintf("SECKILL_MYSQL=root@tcp(%s)/%s", loopback(s.ports.toMySQL(n)), schema),
				"SECKILL_ADMIN_LISTEN=127.0.0.1:0", "SECKILL_PREFIX="+Prefix, "SECKILL_MYSQL_CONNS=8")
			if role == "gateway" {
				p.args = []string{"--listen", loopback(s.ports.gateway(copy))}
				door, err := s.links.add("buyers→"+p.Name, s.ports.door(copy), s.ports.gateway(copy))
				if err != nil {
					return err
				}
				s.Doors = append(s.Doors, door)
			}
			s.Processes = append(s.Processes, p)
			s.Redis.links = append(s.Redis.links, p.ToRedis)
			n++
		}
	}
	return nil
}
