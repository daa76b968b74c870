package testservers

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/leadingpeers/seckill/internal/embedded"
)

// The tests of one process that run at the same time share a stand-in, as they
// would share a real server.
var redisStandIn, kafkaStandIn standIn //nolint:gochecknoglobals // testing offers no other place for what several tests share

// standIn runs from the beginning of the first test that uses it to the end of
// the last one, so that a test binary leaves no process, file or goroutine.
type standIn struct {
	mu    sync.Mutex
	users int
	addrs []string
	stop  func() error
}

// use returns the addresses of the stand-in, which start has started if nobody
// else uses it, until t ends.
func (s *standIn) use(t testing.TB, start func(context.Context) ([]string, func() error, error)) []string {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users == 0 {
		var err error
		// Not the test's own context: the stand-in may outlive it.
		if s.addrs, s.stop, err = start(context.Background()); err != nil {
			t.Fatalf("start the stand-in: %v", err)
		}
	}
	s.users++
	t.Cleanup(func() { s.leave(t) })
	return s.addrs
}

func (s *standIn) leave(t testing.TB) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users--; s.users > 0 {
		return
	}
	if err := s.stop(); err != nil {
		t.Errorf("stop the stand-in: %v", err)
	}
}

func embeddedRedis(t testing.TB) string {
	t.Helper()
	return redisStandIn.use(t, func(ctx context.Context) ([]string, func() error, error) {
		server, err := embedded.StartRedis(ctx)
		if err != nil {
			return nil, nil, err
		}
		return []string{server.Addr()}, server.Close, nil
	})[0]
}

func embeddedKafka(t testing.TB) []string {
	t.Helper()
	return kafkaStandIn.use(t, func(ctx context.Context) ([]string, func() error, error) {
		dir, err := os.MkdirTemp("", "seckill-kafka-") //nolint:usetesting // it outlives the test that happened to be first
		if err != nil {
			return nil, nil, err
		}
		server, err := embedded.StartKafka(ctx, dir)
		if err != nil {
			return nil, nil, errors.Join(err, os.RemoveAll(dir))
		}
		return server.Brokers(), func() error { return errors.Join(server.Close(), os.RemoveAll(dir)) }, nil
	})
}

// embeddedMySQL starts one for each call: it brings its schema along and is up
// in milliseconds.
func embeddedMySQL(t testing.TB) string {
	t.Helper()
	server, err := embedded.StartMySQL(context.Background(), filepath.Join(t.TempDir(), "seckill.db"))
	if err != nil {
		t.Fatalf("start the stand-in: %v", err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Errorf("stop the stand-in: %v", err)
		}
	})
	return server.DSN()
}
