package stock

import (
	"context"
	"net"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"
)

// proxy stands between a client and Redis, to do what networks do.
type proxy struct {
	addr   string
	server string
	lose   atomic.Bool // the next reply is lost and its connection breaks

	mu   sync.RWMutex // held for writing: requests wait
	held atomic.Int32 // requests that wait
	wait sync.WaitGroup
}

// newProxy starts a proxy in front of server.
func newProxy(t testing.TB, server string) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{addr: listener.Addr().String(), server: server}
	p.wait.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			p.wait.Go(func() { p.serve(client) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		p.wait.Wait() // the shop's clean-up has closed the client by now
	})
	return p
}

// serve carries one connection's requests and replies.
func (p *proxy) serve(client net.Conn) {
	server, err := net.Dial("tcp", p.server)
	if err != nil {
		_ = client.Close()
		return
	}
	end := func() { _ = client.Close(); _ = server.Close() }
	p.wait.Go(func() {
		defer end()
		carry(server, client, func() bool { return !p.lose.CompareAndSwap(true, false) })
	})
	defer end()
	carry(client, server, func() bool {
		p.held.Add(1)
		defer p.held.Add(-1)
		p.mu.RLock()
		defer p.mu.RUnlock()
		return true
	})
}

// carry copies from one end to the other for as long as each piece may pass.
func carry(from, to net.Conn, pass func() bool) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil || !pass() {
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// redisChild is a Redis of a test's own, which it may kill.
type redisChild struct {
	testing.TB
	port int
	args []string
	cmd  *exec.Cmd
}

// startRedis starts a Redis with further arguments.
func startRedis(t testing.TB, args ...string) *redisChild {
	t.Helper()
	c := &redisChild{TB: t, port: freePort(t), args: args}
	c.start()
	t.Cleanup(c.kill)
	return c
}

func (c *redisChild) addr() string { return "127.0.0.1:" + strconv.Itoa(c.port) }

// start starts it, again too, and waits until it answers.
func (c *redisChild) start() {
	c.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		c.Fatalf("this test kills a Redis of its own, so redis-server must be on the PATH: %v", err)
	}
	args := append([]string{"--port", strconv.Itoa(c.port), "--bind", "127.0.0.1", "--save", "", "--dir", c.TempDir()}, c.args...)
	c.cmd = exec.Command(path, args...)
	if err := c.cmd.Start(); err != nil {
		c.Fatal(err)
	}
	client := redis.NewClient(&redis.Options{Addr: c.addr()})
	defer func() { _ = client.Close() }()
	eventually(c, "redis-server answers", func() bool { return client.Ping(context.Background()).Err() == nil })
}

// kill ends it as a crash does.
func (c *redisChild) kill() {
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
}

func freePort(t testing.TB) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().(*net.TCPAddr).Port
}
