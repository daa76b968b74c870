// Package proc runs our own binaries as child processes, for the demo, the dev
// mode and the end-to-end tests: it starts them, learns the addresses they
// listen on, kills them as hard as a crash does and starts them again.
package proc

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// Spec says what to run.
type Spec struct {
	Name string    // for messages
	Path string    // the binary
	Args []string  // its arguments
	Env  []string  // its whole environment, NAME=value
	Logs io.Writer // gets every line the child writes to standard error; nil = dropped
}

// Process is one running child.
type Process struct {
	Name string
	API  string // address of its HTTP API, empty when it has none
	Ops  string // address of its probes and metrics

	cmd    *exec.Cmd
	stdin  io.Closer
	exited chan struct{}
	err    error // of Wait; read after exited is closed
}

// line is what a child says when it is up, and what it says when it fails.
type line struct {
	Msg string `json:"msg"`
	API string `json:"api"`
	Ops string `json:"ops"`
}

// Start runs spec and returns when the child has said that it listens. The
// child holds a pipe from us as its standard input, which ends when we die:
// with --until-stdin-closes it does not outlive us.
//
// On error nothing is left running.
func Start(ctx context.Context, spec Spec) (*Process, error) {
	cmd := exec.Command(spec.Path, spec.Args...) //nolint:noctx // it outlives ctx, which only bounds the start
	cmd.Env = spec.Env
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", spec.Name, err)
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", spec.Name, err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", spec.Name, err)
	}
	p := &Process{Name: spec.Name, cmd: cmd, stdin: stdin, exited: make(chan struct{})}
	up, last := make(chan line, 1), &tail{}
	read := make(chan struct{})
	go func() {
		defer close(read)
		follow(stderr, spec.Logs, up, last)
	}()
	go func() {
		<-read // Wait closes the pipe; what is in it is read first
		p.err = cmd.Wait()
		close(p.exited)
	}()
	select {
	case l := <-up:
		p.API, p.Ops = l.API, l.Ops
		return p, nil
	case <-p.exited:
		return nil, fmt.Errorf("start %s: it ended: %w: %s", spec.Name, errors.Join(p.err), last)
	case <-ctx.Done():
		p.Kill()
		return nil, fmt.Errorf("start %s: not listening yet: %w: %s", spec.Name, ctx.Err(), last)
	}
}

// follow copies the child's log and reports the line that says it listens.
func follow(r io.Reader, logs io.Writer, up chan<- line, last *tail) {
	in := bufio.NewScanner(r)
	in.Buffer(make([]byte, 0, 64<<10), 1<<20)
	for in.Scan() {
		last.set(in.Text())
		if logs != nil {
			_, _ = fmt.Fprintln(logs, in.Text())
		}
		var l line
		if json.Unmarshal(in.Bytes(), &l) == nil && l.Msg == "listening" {
			select {
			case up <- l:
			default:
			}
		}
	}
	_, _ = io.Copy(io.Discard, r) // an over-long line must not block the child
}

// tail keeps the last line of a log.
type tail struct {
	mu   sync.Mutex
	text string
}

func (t *tail) set(s string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = s
}

// String returns the line.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text
}

// PID is the child's process ID.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Exited is closed when the child has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Kill ends the child as a crash does, with SIGKILL, and waits until it is gone.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	_ = p.stdin.Close()
	<-p.exited
}

// Stop asks the child to drain, with SIGTERM, and kills it when it takes
// longer than limit. It returns what the child's end was.
func (p *Process) Stop(limit time.Duration) error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-p.exited:
		return p.err
	case <-t.C:
		p.Kill()
		return fmt.Errorf("%s did not drain within %s and was killed", p.Name, limit)
	}
}
