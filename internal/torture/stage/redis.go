package stage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

// Redis is two servers, a master and its replica. They change places when the
// master fails. The clients' links lead to the master.
type Redis struct {
	dirs    [2]string
	ports   [2]int
	clients [2]*redis.Client
	fsync   string
	links   []*Link // of the clients
	repl    *Link   // of the replication
	logs    *os.File

	mu     sync.Mutex
	cmds   [2]*exec.Cmd
	master int
	sizes  []size // of the master's AOF, lately
	held   int64  // units that were not surplus when it was killed
	lost   int64  // units that Redis had promised and has lost, in all
}

// Lost is how many units, over all products, Redis had given away and did not
// know of any more when it was back.
func (r *Redis) Lost() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lost
}

// taken sums what the surpluses lack of the totals. The master takes no writes
// for a moment when pause is set, so that nothing comes in between.
func (r *Redis) taken(ctx context.Context, pause bool) int64 {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	client := r.Master()
	if pause {
		_ = client.Do(ctx, "CLIENT", "PAUSE", 2000, "WRITE").Err()
	}
	var sum int64
	keys := client.Scan(ctx, 0, Prefix+":{*}", 1000).Iterator()
	for keys.Next(ctx) {
		n, err := client.HMGet(ctx, keys.Val(), "total", "surplus").Result()
		if err != nil || n[0] == nil || n[1] == nil {
			continue
		}
		var total, surplus int64
		_, _ = fmt.Sscan(fmt.Sprint(n[0], " ", n[1]), &total, &surplus)
		sum += total - surplus
	}
	return sum
}

// noteLoss compares with what was taken when the master was killed.
func (r *Redis) noteLoss(ctx context.Context) {
	now := r.taken(ctx, false)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lost += max(0, r.held-now)
}

// size is how long the AOF was at a moment.
type size struct {
	at   time.Time
	file string
	n    int64
}

// Master is a client of the master, past all proxies.
func (r *Redis) Master() *redis.Client {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.clients[r.master]
}

func (r *Redis) start(ctx context.Context, i int) error {
	if err := os.MkdirAll(r.dirs[i], 0o755); err != nil {
		return err
	}
	cmd := exec.Command("redis-server", "--port", fmt.Sprint(r.ports[i]), "--bind", "127.0.0.1", "--dir", r.dirs[i],
		"--save", "", "--appendonly", "yes", "--appendfsync", r.fsync, "--maxmemory-policy", "noeviction", "--repl-diskless-sync-delay", "0", "--repl-timeout", "10")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stdout, cmd.Stderr = r.logs, r.logs
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start redis-server: %w", err)
	}
	r.mu.Lock()
	r.cmds[i] = cmd
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		err := r.clients[i].Ping(ctx).Err()
		if err == nil || ctx.Err() != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// kill ends a server and waits until it is gone.
func (r *Redis) kill(i int) {
	r.mu.Lock()
	cmd := r.cmds[i]
	r.cmds[i] = nil
	r.mu.Unlock()
	if cmd != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

// Kill ends the master as a crash does. With lose above 0 the end of its AOF is
// cut off as far as it was written in that time: what a power cut takes. Start
// starts it again. It returns how many bytes were lost.
func (r *Redis) Kill(lose time.Duration) (lost int64, err error) {
	held := r.taken(context.Background(), true)
	r.mu.Lock()
	i := r.master
	r.held = held
	r.mu.Unlock()
	at := time.Now().Add(-lose)
	r.kill(i)
	if lose <= 0 {
		return 0, nil
	}
	file, now, err := aof(r.dirs[i])
	if err != nil {
		return 0, err
	}
	r.mu.Lock()
	keep := now
	for _, s := range r.sizes {
		if s.at.After(at) && s.file == file {
			keep = min(keep, s.n)
		}
	}
	r.mu.Unlock()
	return now - keep, os.Truncate(file, keep)
}

// Start starts the master again, on what its disk has.
func (r *Redis) Start(ctx context.Context) error {
	r.mu.Lock()
	i := r.master
	r.mu.Unlock()
	if err := r.start(ctx, i); err != nil {
		return err
	}
	r.noteLoss(ctx)
	return nil
}

// Signal sends a signal to the master's process.
func (r *Redis) Signal(sig syscall.Signal) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cmds[r.master] == nil {
		return errors.New("the master does not run")
	}
	return r.cmds[r.master].Process.Signal(sig)
}

// Failover kills the master and makes the replica the master, with what it has
// got by then; the old one comes back as its replica.
func (r *Redis) Failover(ctx context.Context) error {
	r.mu.Lock()
	old := r.master
	next := 1 - old
	r.mu.Unlock()
	held := r.taken(ctx, true)
	r.kill(old)
	if err := r.clients[next].ReplicaOf(ctx, "NO", "ONE").Err(); err != nil {
		return fmt.Errorf("promote the replica: %w", err)
	}
	r.mu.Lock()
	r.master, r.sizes, r.held = next, nil, held
	r.mu.Unlock()
	r.noteLoss(ctx)
	for _, l := range r.links {
		if err := l.renew(r.ports[next]); err != nil {
			return err
		}
	}
	if err := r.start(ctx, old); err != nil {
		return err
	}
	return r.follow(ctx)
}

// follow makes the other server the master's replica.
func (r *Redis) follow(ctx context.Context) error {
	r.mu.Lock()
	master := r.master
	r.mu.Unlock()
	if err := r.repl.renew(r.ports[master]); err != nil {
		return err
	}
	if err := r.clients[1-master].ReplicaOf(ctx, "127.0.0.1", fmt.Sprint(r.repl.from)).Err(); err != nil {
		return fmt.Errorf("make a replica: %w", err)
	}
	return nil
}

// Synced waits until the replica has all that the master has.
func (r *Redis) Synced(ctx context.Context) error {
	for {
		role, err := r.Master().Do(ctx, "WAIT", "1", "200").Int()
		if err == nil && role >= 1 {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// watch notes the length of the master's AOF, so that its last moments can be
// taken away.
func (r *Redis) watch(ctx context.Context) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			r.mu.Lock()
			if file, n, err := aof(r.dirs[r.master]); err == nil {
				r.sizes = append(r.sizes, size{now, file, n})
				if len(r.sizes) > 200 {
					r.sizes = r.sizes[100:]
				}
			}
			r.mu.Unlock()
		}
	}
}

// aof is the file that is appended to, and its length.
func aof(dir string) (file string, n int64, err error) {
	files, _ := filepath.Glob(filepath.Join(dir, "appendonlydir", "*.incr.aof"))
	if len(files) == 0 {
		return "", 0, errors.New("no AOF in " + dir)
	}
	for _, f := range files { // the one with the highest number is the longest name, then the last
		if len(f) > len(file) || len(f) == len(file) && f > file {
			file = f
		}
	}
	info, err := os.Stat(file)
	if err != nil {
		return "", 0, err
	}
	return file, info.Size(), nil
}

func (r *Redis) close() {
	for i := range r.cmds {
		r.kill(i)
		if r.clients[i] != nil {
			_ = r.clients[i].Close()
		}
	}
}
