package stage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
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
	ended  [2]chan struct{} // closed when the command is over
	master int
	sizes  []size           // of the master's AOF, lately
	held   map[string]int64 // units by reservation, when it was killed
	lost   int64            // units that Redis had promised and has lost, in all
}

// Lost is how many units, over all products, Redis had given away and did not
// know of any more when it was back.
func (r *Redis) Lost() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lost
}

// holdings are the units of every reservation that Redis knows of, by its ID; 0
// of those that it has given back. The master takes no writes for a moment when
// pause is set, so that nothing comes in between.
func (r *Redis) holdings(ctx context.Context, pause bool) map[string]int64 {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	client := r.Master()
	if pause {
		_ = client.Do(ctx, "CLIENT", "PAUSE", 2000, "WRITE").Err()
	}
	held := map[string]int64{}
	keys := client.ScanType(ctx, 0, Prefix+":{*}", 1000, "hash").Iterator()
	for keys.Next(ctx) {
		fields, _ := client.HGetAll(ctx, keys.Val()).Result()
		for name, value := range fields {
			if !strings.HasPrefix(name, "u:") {
				continue
			}
			_, records, _ := strings.Cut(value, ";") // units;id,quantity,letter,ms;…
			for record := range strings.SplitSeq(records, ";") {
				part := strings.Split(record, ",")
				if len(part) != 4 {
					continue
				}
				held[part[0]] = 0
				if part[2] != "R" {
					held[part[0]], _ = strconv.ParseInt(part[1], 10, 64)
				}
			}
		}
	}
	return held
}

// noteLoss compares with what was held when the master was killed.
func (r *Redis) noteLoss(ctx context.Context) {
	now := r.holdings(ctx, false)
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, units := range r.held {
		if _, ok := now[id]; !ok {
			r.lost += units
		}
	}
	r.held = nil
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

// start starts a server and waits until it answers. One that cannot read its own
// AOF, because the disk was full while it wrote, begins empty: what an operator
// does at last.
func (r *Redis) start(ctx context.Context, i int) error {
	err := r.launch(ctx, i)
	if !errors.Is(err, errUnreadable) {
		return err
	}
	r.kill(i)
	if err := os.RemoveAll(filepath.Join(r.dirs[i], "appendonlydir")); err != nil {
		return err
	}
	return r.launch(ctx, i)
}

var errUnreadable = errors.New("redis-server ended while it started: see cache.log")

func (r *Redis) launch(ctx context.Context, i int) error {
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
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	r.mu.Lock()
	r.cmds[i], r.ended[i] = cmd, ended
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		err := r.clients[i].Ping(ctx).Err()
		if err == nil || ctx.Err() != nil {
			return err
		}
		select {
		case <-ended:
			return errUnreadable
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// kill ends a server and waits until it is gone.
func (r *Redis) kill(i int) {
	r.mu.Lock()
	cmd, ended := r.cmds[i], r.ended[i]
	r.cmds[i] = nil
	r.mu.Unlock()
	if cmd != nil {
		_ = cmd.Process.Kill()
		<-ended
	}
}

// Kill ends the master as a crash does. With lose above 0 the end of its AOF is
// cut off as far as it was written in that time: what a power cut takes, unless
// every write was on disk before it was answered (appendfsync always). Start
// starts it again. It returns how many bytes were lost.
func (r *Redis) Kill(lose time.Duration) (lost int64, err error) {
	at := time.Now().Add(-lose)
	held := r.holdings(context.Background(), true)
	r.mu.Lock()
	i := r.master
	r.held = held
	r.mu.Unlock()
	r.kill(i)
	if lose <= 0 || r.fsync == "always" {
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
	held := r.holdings(ctx, true)
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
				if len(r.sizes) > 1000 { // 20 s
					r.sizes = r.sizes[500:]
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
