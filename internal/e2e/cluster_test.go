// Package e2e runs the real binaries, two copies of each, against real
// servers, and breaks them in the middle of a sale.
package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leadingpeers/seckill/internal/app"
	"github.com/leadingpeers/seckill/internal/crowd"
	"github.com/leadingpeers/seckill/internal/ops"
	"github.com/leadingpeers/seckill/internal/proc"
	"github.com/leadingpeers/seckill/internal/testservers"
	"github.com/leadingpeers/seckill/pkg/events"
)

// cluster is two copies of each process over one set of servers.
type cluster struct {
	cfg        app.Config
	stores     *app.Stores
	serviceKey string
	adminKey   string
	logs       *logFile

	env   []string
	bin   string
	procs map[string]*proc.Process
}

var roles = []string{"gateway-1", "gateway-2", "stock-worker-1", "stock-worker-2", "settle-worker-1", "settle-worker-2"}

// workDir holds the binaries of a test run.
var workDir string

func TestMain(m *testing.M) {
	var err error
	if workDir, err = os.MkdirTemp("", "seckill-e2e-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	status := m.Run()
	_ = os.RemoveAll(workDir)
	os.Exit(status)
}

// binaries builds the three commands and the example of a checkout once per test run, and returns where they
// are.
var binaries = sync.OnceValues(func() (string, error) {
	dir := workDir
	out, err := exec.Command("go", "build", "-o", dir, "../../cmd/gateway", "../../cmd/stock-worker", "../../cmd/settle-worker", "../../examples/checkout").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w: %s", err, out)
	}
	return dir, nil
})

// sharedServers are those of all tests, with a schema and a prefix of this one's own.
func sharedServers(t *testing.T) app.Config {
	t.Helper()
	return app.Config{Redis: testservers.Redis(t), Kafka: strings.Join(testservers.Kafka(t), ","), MySQL: testservers.MySQLDSN(t), Prefix: testservers.Prefix(t)}
}

// startCluster prepares topics and starts every process. settings are given to
// all of them as variables.
func startCluster(t *testing.T, cfg app.Config, settings ...string) *cluster {
	t.Helper()
	bin, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	cfg.MySQLConns = 8
	c := &cluster{cfg: cfg, serviceKey: "sk_checkout_" + rand.Text(), adminKey: "sk_operator_" + rand.Text(), bin: bin, procs: map[string]*proc.Process{}, logs: newLogFile(t)}
	if c.stores, err = app.Open(t.Context(), cfg, "e2e", nil); err != nil {
		t.Fatal(err)
	}
	if err := events.Apply(t.Context(), c.stores.Kafka, events.Overrides{}); err != nil {
		t.Fatal(err)
	}
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "SECKILL_") {
			c.env = append(c.env, e)
		}
	}
	c.env = append(c.env,
		"SECKILL_REDIS="+cfg.Redis, "SECKILL_KAFKA="+cfg.Kafka, "SECKILL_MYSQL="+cfg.MySQL, "SECKILL_PREFIX="+cfg.Prefix,
		"SECKILL_KEYS=service:checkout:"+secret(c.serviceKey)+",admin:operator:"+secret(c.adminKey), "SECKILL_ID_KEY="+rand.Text(),
		"SECKILL_ADMIN_LISTEN=127.0.0.1:0", "SECKILL_LISTEN=127.0.0.1:0", "SECKILL_SWEEP_EVERY=2s", "SECKILL_SWEEP_AFTER=10s")
	c.env = append(c.env, settings...)
	t.Cleanup(func() {
		for _, p := range c.procs {
			p.Kill()
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = c.stores.Close(ctx)
	})
	for _, name := range roles {
		c.start(t, name)
	}
	return c
}

func (c *cluster) start(t *testing.T, name string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	role := name[:strings.LastIndex(name, "-")]
	p, err := proc.Start(ctx, proc.Spec{Name: name, Path: filepath.Join(c.bin, role), Args: []string{"--until-stdin-closes"}, Env: c.env, Logs: c.logs})
	if err != nil {
		t.Fatal(err)
	}
	c.procs[name] = p
}

func (c *cluster) gateways() []string {
	return []string{"http://" + c.procs["gateway-1"].API, "http://" + c.procs["gateway-2"].API}
}

// post calls an operator's route and fails the test unless it is accepted. It
// may be called beside the test's own goroutine.
func (c *cluster) post(t *testing.T, path string, body any) {
	t.Helper()
	c.postTo(t, c.gateways()[0], path, body)
}

func (c *cluster) postTo(t *testing.T, gateway, path string, body any) []byte {
	t.Helper()
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			t.Error(err)
			return nil
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, gateway+path, bytes.NewReader(text))
	if err != nil {
		t.Error(err)
		return nil
	}
	req.Header.Set("Authorization", "Bearer "+c.adminKey)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Errorf("POST %s: %v", path, err)
		return nil
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(resp.Body)
	if resp.StatusCode >= 300 {
		t.Errorf("POST %s: status %d: %s", path, resp.StatusCode, answer)
	}
	return answer
}

// openSale puts products on sale, units each, and returns their IDs.
func (c *cluster) openSale(t *testing.T, products int, units int64, payWindow int) (activity string, ids []string) {
	t.Helper()
	activity = c.cfg.Prefix + "-sale"
	now := time.Now().UTC()
	c.post(t, "/v1/activities", map[string]any{
		"id": activity, "name": "e2e", "starts_at": now.Add(-time.Second), "ends_at": now.Add(time.Hour), "pay_window_seconds": payWindow,
	})
	for i := range products {
		id := fmt.Sprintf("%s-p%d", c.cfg.Prefix, i)
		ids = append(ids, id)
		c.post(t, "/v1/activities/"+activity+"/products", map[string]any{
			"id": id, "name": id, "price_cents": 100 + i, "currency": "CNY", "total": units, "per_order": 2, "per_user": 2,
		})
	}
	c.post(t, "/v1/activities/"+activity+"/publish", map[string]any{"preload": true})
	return activity, ids
}

// sale is a crowd let loose on a cluster, with the checkout that serves it.
type sale struct {
	c        *cluster
	buyers   *crowd.Crowd
	products []string
	done     chan struct{}
}

func (c *cluster) startSale(t *testing.T, activity string, products []string, buyers, rate int) *sale {
	t.Helper()
	checkout := &crowd.Checkout{Gateways: c.gateways(), Key: c.serviceKey, Cancel: 0.06, Abandon: 0.04, Now: time.Now}
	consumer := events.NewConsumer(events.ConsumerConfig{ClientConfig: c.stores.Kafka, Group: "checkout", Topic: events.Orders}, checkout.Handle, c.stores.Publisher)
	ctx, cancel := context.WithCancel(context.Background())
	closed := make(chan error, 1)
	go func() { closed <- consumer.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-closed })
	s := &sale{c: c, products: products, done: make(chan struct{}), buyers: crowd.New(crowd.Config{
		Gateways: c.gateways(), Key: c.serviceKey, Activity: activity, Products: products,
		Buyers: buyers, Rate: rate, Callers: 64, DoubleClick: 0.05, Patience: 2 * time.Minute, Seed: 7,
	})}
	go func() { defer close(s.done); s.buyers.Run(ctx) }()
	return s
}

// served waits until n buyers have their answer.
func (s *sale) served(t *testing.T, n int64) {
	t.Helper()
	eventually(t, 3*time.Minute, func() error {
		if got := s.buyers.Served.Load(); got < n {
			return fmt.Errorf("%d of %d buyers served", got, n)
		}
		return nil
	})
}

// settle waits until every promise has its end and the stores agree.
func (s *sale) settle(t *testing.T, limit time.Duration) []ops.Account {
	t.Helper()
	<-s.done
	tally := s.buyers.Tally()
	ids := make([]string, len(tally.Accepted))
	seen := map[string]string{}
	for i, a := range tally.Accepted {
		ids[i] = a.ReservationID
		if other, again := seen[a.ReservationID]; again {
			t.Errorf("%s was promised to %s and to %s", a.ReservationID, other, a.UserID)
		}
		seen[a.ReservationID] = a.UserID
	}
	for _, text := range tally.Unexpected {
		t.Errorf("unexpected answer: %s", text)
	}
	if n := s.buyers.GaveUp.Load(); n > 0 {
		t.Errorf("%d buyers never got an answer", n)
	}
	var accounts []ops.Account
	books := s.c.stores.Books()
	eventually(t, limit, func() error {
		fates, err := books.Fates(t.Context(), ids)
		if err != nil {
			return err
		}
		if len(fates.Lost) > 0 || len(fates.Wrong) > 0 {
			return fmt.Errorf("%d promises without an end (first %v), %d contradictions %v", len(fates.Lost), first(fates.Lost), len(fates.Wrong), first(fates.Wrong))
		}
		if accounts, err = books.Accounts(t.Context(), s.products); err != nil {
			return err
		}
		for _, a := range accounts {
			if diff := a.Differences(); len(diff) > 0 || a.Open > 0 || a.Awaiting > 0 {
				return fmt.Errorf("differences %v, open %d, awaiting %d", diff, a.Open, a.Awaiting)
			}
		}
		return nil
	})
	var total, paid, oversold, leaked int64
	for _, a := range accounts {
		total, paid, oversold, leaked = total+a.Total, paid+a.Paid, oversold+a.Oversold(), leaked+a.Leaked()
	}
	if oversold != 0 || leaked != 0 {
		t.Errorf("oversold %d, leaked %d", oversold, leaked)
	}
	t.Logf("%d requests, %d accepted, refused %v, waits %d; %d of %d units paid", s.buyers.Requests.Load(), len(ids), tally.Refused, s.buyers.Waits.Load(), paid, total)
	return accounts
}

// rows is every row that a replay must not change: the reservations and the
// orders with their states and times, and the counts.
func (c *cluster) rows(t *testing.T) string {
	t.Helper()
	var out strings.Builder
	for _, q := range []string{
		"SELECT COUNT(*), COALESCE(SUM(CRC32(CONCAT_WS('|', HEX(reservation_id), product_id, user_id, quantity, state, reason, created_at, updated_at))), 0) FROM reservations",
		"SELECT COUNT(*), COALESCE(SUM(CRC32(CONCAT_WS('|', id, HEX(reservation_id), state, reason, payment_ref, pay_deadline, created_at, updated_at))), 0) FROM orders",
		"SELECT COUNT(*), COALESCE(SUM(CRC32(CONCAT_WS('|', product_id, total, available, state))), 0) FROM stock",
	} {
		var n, sum sql.NullString
		if err := c.stores.DB.QueryRowContext(t.Context(), q).Scan(&n, &sum); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "%s rows, checksum %s\n", n.String, sum.String)
	}
	return out.String()
}

// eventually repeats f until it returns nil, and fails the test with its last
// error after limit.
func eventually(t *testing.T, limit time.Duration, f func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %v", limit, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func first(s []string) []string { return s[:min(3, len(s))] }

// logFile collects what the processes log and shows the end of it when the
// test fails.
type logFile struct {
	mu sync.Mutex
	f  *os.File
}

func newLogFile(t *testing.T) *logFile {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "processes.log"))
	if err != nil {
		t.Fatal(err)
	}
	l := &logFile{f: f}
	t.Cleanup(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if text, err := os.ReadFile(f.Name()); err == nil && t.Failed() {
			t.Logf("the processes' logs end with:\n%s", text[max(0, len(text)-8000):])
		}
		_ = f.Close()
	})
	return l
}

// Write appends one line.
func (l *logFile) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.f.Write(b)
}

// lines are the lines so far; each must be a JSON object.
func (l *logFile) lines(t *testing.T) (out []map[string]any) {
	t.Helper()
	l.mu.Lock()
	text, err := os.ReadFile(l.f.Name())
	l.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var object map[string]any
		if err := json.Unmarshal([]byte(line), &object); err != nil {
			t.Errorf("no JSON line: %s", line)
			continue
		}
		out = append(out, object)
	}
	return out
}

// secret is the part of a key that the server is told.
func secret(key string) string { return key[strings.LastIndex(key, "_")+1:] }
