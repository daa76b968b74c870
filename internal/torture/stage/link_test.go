package stage

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"testing"
	"time"
)

// listen opens a port as a process has that was stopped: its kernel takes
// connections and fills their buffers, and nobody reads.
func listen(t *testing.T) (l net.Listener, port int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l, l.Addr().(*net.TCPAddr).Port
}

// echo answers every connection with its own bytes.
func echo(t *testing.T) (port int) {
	t.Helper()
	l, port := listen(t)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); _ = c.Close() }()
		}
	}()
	return port
}

// A link whose server is stopped while a client writes can be hurt, cut and led
// elsewhere all the same: the process that waits for it is the one that will
// let the server go on.
func TestLinkToAStoppedServer(t *testing.T) {
	all := newLinks()
	_, silent := listen(t)
	free, port := listen(t)
	_ = free.Close()
	link, err := all.add("link", port, silent)
	if err != nil {
		t.Fatal(err)
	}
	defer all.close()
	client, err := net.Dial("tcp", loopback(port))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	for full := make([]byte, 1<<20); err == nil; { // until every buffer on the way is full
		_ = client.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
		_, err = client.Write(full)
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for _, kind := range []string{"latency", "bandwidth", "down"} {
		for range 2 {
			if err := link.Hurt(kind, rng); err != nil {
				t.Logf("%s: %v", kind, err) // it is there already
			}
		}
	}
	if err := link.renew(echo(t)); err != nil {
		t.Fatalf("led elsewhere: %v", err)
	}
	again, err := net.Dial("tcp", loopback(port))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = again.Close() }()
	_ = again.SetDeadline(time.Now().Add(10 * time.Second))
	got := make([]byte, 5)
	if _, err := again.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(again, got); err != nil || string(got) != "hello" {
		t.Errorf("through the healed link came %q, %v", got, err)
	}
}
