package embedded

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"
)

// expiryTick is how late, or how early, a key may expire. Each tick walks over
// all keys.
const expiryTick = 250 * time.Millisecond

// Redis is a stand-in for one Redis server.
type Redis struct {
	server *miniredis.Miniredis
	addr   string
	close  func()
}

// StartRedis starts an empty Redis. It keeps nothing, and a new one has
// another run_id: by that the workers know to load it from the ledger.
func StartRedis(ctx context.Context) (*Redis, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m := miniredis.NewMiniRedis()
	if err := m.Start(); err != nil {
		return nil, fmt.Errorf("start Redis stand-in: %w", err)
	}
	m.Server().SetPreHook(tellRunID(newRunID()))
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		expire(m, stop)
	}()
	r := &Redis{server: m, addr: m.Addr()}
	r.close = sync.OnceFunc(func() {
		close(stop)
		<-stopped
		m.Close()
	})
	return r, nil
}

// Addr returns the address, host:port.
func (r *Redis) Addr() string { return r.addr }

// Close stops the server and forgets all. Repeating is harmless. The error is
// always nil.
func (r *Redis) Close() error {
	r.close()
	return nil
}

// expire lets the keys' time pass, which in miniredis it does not by itself.
// (Its own ClockTTL walks over all keys at every command.)
func expire(m *miniredis.Miniredis, stop <-chan struct{}) {
	ticker := time.NewTicker(expiryTick)
	defer ticker.Stop()
	var last time.Time
	for {
		select {
		case <-stop:
			return
		case at := <-ticker.C:
			if !last.IsZero() {
				m.FastForward(at.Sub(last))
			}
			last = at
		}
	}
}

// tellRunID answers INFO with what names this life of the server, which
// miniredis does not tell. Its other sections are left to it.
func tellRunID(id string) server.Hook {
	return func(c *server.Peer, cmd string, args ...string) bool {
		if cmd != "INFO" || len(args) > 0 && args[0] != "server" && args[0] != "replication" {
			return false
		}
		c.WriteBulk("# Server\r\nredis_version:7.4.0\r\nredis_mode:standalone\r\nrun_id:" + id +
			"\r\n# Replication\r\nrole:master\r\nconnected_slaves:0\r\nmaster_replid:" + id + "\r\n")
		return true
	}
}

// newRunID returns 40 hexadecimal digits, as Redis does.
func newRunID() string {
	id := make([]byte, 20)
	_, _ = rand.Read(id) // never fails
	return hex.EncodeToString(id)
}
