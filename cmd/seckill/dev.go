package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/leadingpeers/seckill/internal/app"
)

func devCommand() *cobra.Command {
	var s servers
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run the whole stack on this machine until Ctrl-C, with a sale to try it on",
		Long: `Runs the gateway, two stock workers and two settle workers on embedded
stand-ins for Redis, Kafka and MySQL, or on the servers you name. Everything
listens on loopback only.`,
		Args: cobra.NoArgs,
	}
	fs := cmd.Flags()
	s.flags(fs)
	fs.StringVar(&s.data, "data", "", "keep the stand-ins' data in this `folder` over restarts; without it everything is gone at the end")
	port := fs.Int("port", 8080, "port of the HTTP API, 0 = any")
	quiet := fs.Bool("quiet", false, "do not show the processes' logs")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := portFree(cmd.Context(), *port); err != nil {
			return err
		}
		if s.data != "" {
			if err := os.MkdirAll(s.data, 0o700); err != nil {
				return err
			}
		}
		logs := cmd.ErrOrStderr()
		if *quiet {
			logs = io.Discard
		}
		st, err := s.start(cmd.Context(), net.JoinHostPort("127.0.0.1", strconv.Itoa(*port)), logs)
		if err != nil {
			return err
		}
		defer st.stop(cmd.Context())
		if err := offer(cmd.Context(), st); err != nil {
			return fmt.Errorf("open the demo sale: %w", err)
		}
		banner(cmd.OutOrStdout(), s, st)
		return st.wait(cmd.Context())
	}
	return cmd
}

// portFree fails with advice when somebody listens on the port already.
func portFree(ctx context.Context, port int) error {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return fmt.Errorf("port %d is in use: stop what listens there or choose another, for example --port %d: %w", port, port+1, err)
	}
	return ln.Close()
}

// offer puts a product on sale to try things on, unless an earlier run on the
// same data has done so.
func offer(ctx context.Context, st *stack) error {
	now := time.Now().UTC()
	for _, call := range []struct {
		path string
		body map[string]any
	}{
		{"/v1/activities", map[string]any{
			"id": "demo", "name": "Try me", "starts_at": now, "ends_at": now.Add(30 * 24 * time.Hour), "pay_window_seconds": 900,
		}},
		{"/v1/activities/demo/products", map[string]any{
			"id": "phone", "name": "Phone", "price_cents": 499_900, "currency": "CNY", "total": 100, "per_order": 2, "per_user": 2,
		}},
		{"/v1/activities/demo/publish", map[string]any{"preload": true}},
	} {
		err := st.post(ctx, call.path, call.body)
		if status := (statusError{}); errors.As(err, &status) && status.status == http.StatusConflict {
			continue // it is there already
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// banner says where everything is and what to try first.
func banner(w io.Writer, s servers, st *stack) {
	where := func(real, used string) string {
		if real == "" {
			return used + "  (embedded stand-in)"
		}
		return real
	}
	_, _ = fmt.Fprintf(w, `seckill %s · dev mode · Ctrl-C stops it

API          %s/v1
Docs         %s/docs
Metrics      http://%s/metrics (gateway)
Service key  %s
Admin key    %s
Redis        %s
Kafka        %s
MySQL        %s
`, app.Version(), st.gateway, st.gateway, st.procs["gateway-1"].Ops, st.serviceKey, st.adminKey,
		where(s.redis, st.cfg.Redis), where(s.kafka, st.cfg.Kafka), where(s.mysql, st.cfg.MySQL))
	if s.data == "" {
		_, _ = fmt.Fprintln(w, "Data         gone at the end; --data DIR keeps it")
	} else {
		_, _ = fmt.Fprintln(w, "Data        ", s.data)
	}
	_, _ = fmt.Fprintf(w, `
Buy a phone:

  curl -i %[1]s/v1/activities/demo/products/phone/reservations \
    -H 'Authorization: Bearer %[2]s' -H 'Content-Type: application/json' \
    -H 'Idempotency-Key: my-first-try' -d '{"user_id":"me","quantity":1}'

Run sales from another terminal (docs/start/tutorial.md shows all of it):

  export SECKILL_SERVER=%[1]s SECKILL_KEY=%[3]s
  seckill stock get demo phone

`, st.gateway, st.serviceKey, st.adminKey)
}
