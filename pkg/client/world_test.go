package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/leadingpeers/seckill/internal/app"
	"github.com/leadingpeers/seckill/internal/embedded"
	"github.com/leadingpeers/seckill/pkg/events"
)

// What the examples need: a gateway with its workers, on stand-ins.
const (
	adminKey   = "sk_operator_fedcba9876543210"
	serviceKey = "sk_checkout_0123456789abcdef"
)

var server string // the gateway's address, http://host:port

func TestMain(m *testing.M) {
	world, err := start()
	if err != nil {
		fmt.Fprintln(os.Stderr, "start the gateway for the examples:", err)
		os.Exit(1)
	}
	status := m.Run()
	if err := world.stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = 1
	}
	os.Exit(status)
}

// world is one copy of each process and the servers under them.
type world struct {
	servers *embedded.Servers
	cancel  context.CancelFunc
	running sync.WaitGroup
	failed  chan error
	log     lines
}

func start() (_ *world, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	w := &world{cancel: cancel, failed: make(chan error, 3), log: lines{api: make(chan string, 3)}}
	if w.servers, err = embedded.Start(ctx, embedded.Config{}); err != nil {
		cancel()
		return nil, err
	}
	environ := []string{
		"SECKILL_REDIS=" + w.servers.RedisAddr, "SECKILL_KAFKA=" + strings.Join(w.servers.KafkaBrokers, ","), "SECKILL_MYSQL=" + w.servers.MySQLDSN,
		"SECKILL_LISTEN=127.0.0.1:0", "SECKILL_ADMIN_LISTEN=127.0.0.1:0", "SECKILL_ID_KEY=an ID key for examples", "SECKILL_TOKEN_KEYS=k1:a secret for examples",
		"SECKILL_KEYS=service:checkout:0123456789abcdef,admin:operator:fedcba9876543210",
	}
	// Topics before processes, or each waits for them in its own rhythm.
	if err := events.Apply(ctx, events.ClientConfig{Brokers: w.servers.KafkaBrokers}, events.Overrides{Partitions: 2}); err != nil {
		return nil, errors.Join(err, w.stop())
	}
	for _, role := range []app.Role{app.RoleStockWorker, app.RoleSettleWorker, app.RoleGateway} {
		fs := pflag.NewFlagSet("", pflag.ContinueOnError)
		app.Flags(fs, role)
		cfg, err := app.Load(fs, environ)
		if err != nil {
			return nil, errors.Join(err, w.stop())
		}
		w.running.Go(func() {
			if err := app.Run(ctx, role, cfg, slog.New(slog.NewJSONHandler(&w.log, nil))); err != nil {
				w.failed <- fmt.Errorf("%s: %w", role, err)
			}
		})
	}
	select {
	case address := <-w.log.api:
		server = "http://" + address
		return w, nil
	case err = <-w.failed:
	case <-time.After(30 * time.Second):
		err = errors.New("the gateway does not listen")
	}
	return nil, errors.Join(err, w.stop())
}

func (w *world) stop() error {
	w.cancel()
	w.running.Wait()
	err := w.servers.Close()
	select {
	case failed := <-w.failed:
		return errors.Join(failed, err, errors.New(w.log.text()))
	default:
		return err
	}
}

// lines takes the processes' log, and the gateway's address out of it.
type lines struct {
	api chan string

	mu   sync.Mutex
	kept []string
}

// Write takes one line.
func (l *lines) Write(line []byte) (int, error) {
	var said struct{ Msg, API string }
	if json.Unmarshal(line, &said) == nil && said.Msg == "listening" && said.API != "" {
		l.api <- said.API
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kept = append(l.kept, string(line))
	return len(line), nil
}

func (l *lines) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(slices.Clone(l.kept), "")
}
