package e2e

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/leadingpeers/seckill/internal/testservers"
)

// TestObservability sells under the eyes of a real Prometheus, with the rules
// as they are in deploy/prometheus: every rule is evaluated, every panel of
// every dashboard has an answer, every command of every runbook works, and when
// the stock workers stop, the alert fires within three minutes and ends when
// they are back.
func TestObservability(t *testing.T) {
	testservers.Real(t)
	c := startCluster(t, sharedServers(t), "SECKILL_BOOKS_EVERY=1s")
	p := startPrometheus(t, c)
	activity, products := c.openSale(t, 4, 100_000, 15)
	s := c.startSale(t, activity, products, 1_000_000, 150)
	s.served(t, 1_000)
	t.Run("rules", p.rulesWork)
	t.Run("panels", func(t *testing.T) {
		p.panelsHaveData(t, func(t *testing.T) { c.refused(t, activity, products[0]) })
	})
	t.Run("runbooks", func(t *testing.T) { c.runbooksWork(t, p, s, activity, products[0]) })
	t.Run("nothing is wrong", func(t *testing.T) {
		if firing := p.query(t, `ALERTS{alertstate="firing",alertname!~".+Burn.+"}`); len(firing) > 0 {
			t.Errorf("a healthy sale fires %v", firing)
		}
	})
	t.Run("a stalled consumer", func(t *testing.T) { c.stallFires(t, p) })
	t.Run("logs", func(t *testing.T) { c.logsAreAsDocumented(t, s.buyers.Requests.Load()) })
	t.Run("runbooks that change something", func(t *testing.T) { c.runbooksChange(t, p, s, activity, products[0]) })
}

// prometheus is a running one that scrapes a cluster.
type prometheus struct {
	base string
	dir  string
}

// startPrometheus starts Debian's Prometheus on a free port with the real rules.
func startPrometheus(t *testing.T, c *cluster) *prometheus {
	t.Helper()
	if _, err := exec.LookPath("prometheus"); err != nil {
		t.Fatalf("%v: deploy/local/install monitoring installs it", err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	_ = ln.Close()
	rules, err := filepath.Abs("../../deploy/prometheus/rules/*.yml")
	if err != nil {
		t.Fatal(err)
	}
	p := &prometheus{base: "http://" + addr, dir: t.TempDir()}
	config := "global: { scrape_interval: 5s, evaluation_interval: 15s }\nrule_files: ['" + rules + "']\nscrape_configs:\n"
	for _, job := range []string{"gateway", "stock-worker", "settle-worker"} {
		config += fmt.Sprintf("  - { job_name: seckill-%[1]s, file_sd_configs: [{ files: [%[2]s/%[1]s.json], refresh_interval: 2s }] }\n", job, p.dir)
	}
	p.targets(t, c)
	if err := os.WriteFile(p.dir+"/prometheus.yml", []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("prometheus", "--config.file="+p.dir+"/prometheus.yml", "--storage.tsdb.path="+p.dir+"/data", "--web.listen-address="+addr, "--log.level=warn")
	log := newLogFile(t)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	eventually(t, time.Minute, func() error { return p.get("/-/ready", nil, nil) })
	return p
}

// targets tells Prometheus where the processes are now.
func (p *prometheus) targets(t *testing.T, c *cluster) {
	t.Helper()
	byJob := map[string][]string{"gateway": {}, "stock-worker": {}, "settle-worker": {}}
	for name, proc := range c.procs {
		job := name[:strings.LastIndex(name, "-")]
		byJob[job] = append(byJob[job], proc.Ops)
	}
	for job, targets := range byJob {
		text, err := json.Marshal([]any{map[string]any{"targets": targets}})
		if err != nil {
			t.Fatal(err)
		}
		// Renamed into its place, or Prometheus may read half of it.
		if err := os.WriteFile(p.dir+"/next", text, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(p.dir+"/next", p.dir+"/"+job+".json"); err != nil {
			t.Fatal(err)
		}
	}
}

// get reads data of the API into out.
func (p *prometheus) get(path string, args url.Values, out any) error {
	resp, err := http.Get(p.base + path + "?" + args.Encode())
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK && out == nil {
		return nil
	}
	var answer struct {
		Error string
		Data  json.RawMessage
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return fmt.Errorf("status %d: %w", resp.StatusCode, err)
	}
	if answer.Error != "" {
		return errors.New(answer.Error)
	}
	return json.Unmarshal(answer.Data, out)
}

// sample is one series of a query's result.
type sample struct {
	Metric map[string]string
	Value  [2]any
}

func (s sample) number() float64 {
	text, _ := s.Value[1].(string)
	n, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return math.NaN()
	}
	return n
}

func (p *prometheus) ask(query string) ([]sample, error) {
	var out struct{ Result []sample }
	err := p.get("/api/v1/query", url.Values{"query": {query}}, &out)
	return out.Result, err
}

func (p *prometheus) query(t *testing.T, query string) []sample {
	t.Helper()
	out, err := p.ask(query)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return out
}

// rulesWork waits until every rule of every file is evaluated without an error.
func (p *prometheus) rulesWork(t *testing.T) {
	files, err := filepath.Glob("../../deploy/prometheus/rules/*.yml")
	if err != nil {
		t.Fatal(err)
	}
	want := 0
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		want += strings.Count(string(text), "- alert: ") + strings.Count(string(text), "- record: ")
	}
	eventually(t, 2*time.Minute, func() error {
		var got struct {
			Groups []struct {
				Rules []struct{ Name, Health, LastError string }
			}
		}
		if err := p.get("/api/v1/rules", nil, &got); err != nil {
			return err
		}
		n := 0
		for _, g := range got.Groups {
			for _, r := range g.Rules {
				n++
				if r.Health != "ok" {
					return fmt.Errorf("%s: health %s: %s", r.Name, r.Health, r.LastError)
				}
			}
		}
		if n != want {
			return fmt.Errorf("%d rules, want %d", n, want)
		}
		return nil
	})
}

// emptyInPeace says why a panel may be without data while nothing is wrong.
func emptyInPeace() map[string]string {
	return map[string]string{
		"Faults by code":   "a code has no series before its first fault",
		"Retries by stage": "a stage has no series before its first retry",
		"Skew":             "there is none without lag",
		"Alerts":           "none is pending or firing",
	}
}

// refused asks for more than an order may have.
func (c *cluster) refused(t *testing.T, activity, product string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost,
		c.gateways()[0]+"/v1/activities/"+activity+"/products/"+product+"/reservations", strings.NewReader(`{"user_id":"greedy","quantity":3}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+c.serviceKey)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", rand.Text())
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode < 400 || resp.StatusCode >= 500 {
		t.Fatalf("three where two are allowed: status %d", resp.StatusCode)
	}
}

// panelsHaveData asks every query of every panel, while the sale goes on, until
// each has had an answer with a number in it.
func (p *prometheus) panelsHaveData(t *testing.T, tooMany func(*testing.T)) {
	names, err := filepath.Glob("../../deploy/grafana/dashboards/*.json")
	if err != nil || len(names) == 0 {
		t.Fatalf("%d dashboards, %v", len(names), err)
	}
	type query struct{ board, panel, expr string }
	var open []query
	fill := strings.NewReplacer("$job", ".+", "$instance", ".+", "$activity", ".+", "$product", ".+", "$__rate_interval", "30s", "$__range", "2m")
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var board struct {
			Title  string
			Panels []struct {
				Title   string
				Targets []struct{ Expr string }
			}
		}
		if err := json.Unmarshal(text, &board); err != nil {
			t.Fatal(err)
		}
		for _, panel := range board.Panels {
			for _, target := range panel.Targets {
				open = append(open, query{board.Title, panel.Title, fill.Replace(target.Expr)})
			}
		}
	}
	all, empty := len(open), emptyInPeace()
	deadline := time.Now().Add(3 * time.Minute)
	for len(open) > 0 && time.Now().Before(deadline) {
		tooMany(t)
		open = slices.DeleteFunc(open, func(q query) bool {
			return empty[q.panel] == "" && slices.ContainsFunc(p.query(t, q.expr), func(s sample) bool {
				n := s.number()
				return !math.IsNaN(n) && !math.IsInf(n, 0)
			})
		})
		if !slices.ContainsFunc(open, func(q query) bool { return empty[q.panel] == "" }) {
			break
		}
		time.Sleep(time.Second)
	}
	for _, q := range open {
		if reason := empty[q.panel]; reason != "" {
			t.Logf("%s, %s: %d series: %s", q.board, q.panel, len(p.query(t, q.expr)), reason)
			continue
		}
		t.Errorf("%s, %s: no data under load: %s", q.board, q.panel, q.expr)
	}
	t.Logf("%d queries of %d boards", all, len(names))
}

// stallFires stops the stock workers in the middle of the sale and starts them
// again.
func (c *cluster) stallFires(t *testing.T, p *prometheus) {
	firing := func() ([]sample, error) {
		return p.ask(`ALERTS{alertname="SeckillConsumerStalled",alertstate="firing",group="` + c.cfg.Prefix + `.deduct"}`)
	}
	workers := []string{"stock-worker-1", "stock-worker-2"}
	began := time.Now()
	for _, name := range workers {
		if err := c.procs[name].Stop(20 * time.Second); err != nil {
			t.Fatal(err)
		}
		delete(c.procs, name)
	}
	p.targets(t, c)
	eventually(t, 3*time.Minute, func() error {
		got, err := firing()
		if err == nil && len(got) == 0 {
			err = errors.New("SeckillConsumerStalled does not fire")
		}
		return err
	})
	t.Logf("SeckillConsumerStalled fires %s after the workers were stopped", time.Since(began).Round(time.Second))
	began = time.Now()
	for _, name := range workers {
		c.start(t, name)
	}
	p.targets(t, c)
	eventually(t, 3*time.Minute, func() error {
		got, err := firing()
		if err == nil && len(got) > 0 {
			err = errors.New("SeckillConsumerStalled fires on")
		}
		return err
	})
	t.Logf("and is resolved %s after they were started", time.Since(began).Round(time.Second))
}

// runbooksWork runs the commands of the runbooks that only read.
func (c *cluster) runbooksWork(t *testing.T, p *prometheus, s *sale, activity, product string) {
	env := c.operator(t, p, s, activity, product)
	done := map[string]error{}
	for _, b := range runbooks(t) {
		if b.changes {
			continue
		}
		err, again := done[b.script]
		if !again {
			err = run(t.Context(), env, b.script)
			done[b.script] = err
		}
		if err != nil {
			t.Errorf("%s: %v\n%s", b.page, err, b.script)
		}
	}
	t.Logf("%d different blocks that read", len(done))
}

// runbooksChange runs the others, one after the other as they stand on their
// pages, while the sale goes on.
func (c *cluster) runbooksChange(t *testing.T, p *prometheus, s *sale, activity, product string) {
	env, ran := c.operator(t, p, s, activity, product), 0
	for _, b := range runbooks(t) {
		if !b.changes {
			continue
		}
		ran++
		if err := run(t.Context(), env, b.script); err != nil {
			t.Errorf("%s: %v\n%s", b.page, err, b.script)
		}
	}
	if ran == 0 {
		t.Error("no runbook changes anything")
	}
	sold, _ := s.buyers.Units()
	eventually(t, time.Minute, func() error {
		if now, _ := s.buyers.Units(); now <= sold {
			return fmt.Errorf("%d reservations were accepted before, and none since", sold)
		}
		return nil
	})
	t.Logf("%d blocks that change something", ran)
}

// operator is the environment in which the runbooks' commands find everything.
func (c *cluster) operator(t *testing.T, p *prometheus, s *sale, activity, product string) []string {
	t.Helper()
	accepted := s.buyers.Tally().Accepted
	if len(accepted) == 0 {
		t.Fatal("nobody has bought anything")
	}
	_, rest, _ := strings.Cut(c.cfg.MySQL, "tcp(")
	mysql, _, _ := strings.Cut(rest, ")")
	dir := t.TempDir()
	units := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { c.unit(t, w, r) }))
	t.Cleanup(units.Close)
	script := "#!/bin/sh\nexec curl -fsS -X POST \"" + units.URL + "/$1/$2\"\n"
	if err := os.WriteFile(filepath.Join(dir, "systemctl"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return append(slices.Clone(c.env),
		"SECKILL_SERVER="+c.gateways()[0], "SECKILL_KEY="+c.adminKey, "PROMETHEUS="+p.base, "ADMIN=http://"+c.procs["stock-worker-1"].Ops,
		"REDIS="+c.cfg.Redis, "MYSQL="+mysql, "ACTIVITY="+activity, "PRODUCT="+product, "RESERVATION="+accepted[0].ReservationID,
		"TMPDIR="+dir, "PATH="+dir+":"+filepath.Dir(buildTool(t))+":"+os.Getenv("PATH"))
}

// unit is systemctl: it stops and starts every copy of one of our processes,
// and the second gateway where the first is the operator's own door.
func (c *cluster) unit(t *testing.T, w http.ResponseWriter, r *http.Request) {
	verb, unit, _ := strings.Cut(strings.Trim(r.URL.Path, "/"), "/")
	role, ours := strings.CutPrefix(unit, "seckill@")
	copies := []string{role + "-1", role + "-2"}
	if role == "gateway" {
		copies = copies[1:]
	}
	if !ours || c.procs[copies[0]] == nil || !slices.Contains([]string{"stop", "start", "restart"}, verb) {
		http.Error(w, "no such unit or verb", http.StatusNotFound)
		return
	}
	for _, name := range copies {
		if verb != "start" {
			if err := c.procs[name].Stop(30 * time.Second); err != nil {
				t.Errorf("%s %s: %v", verb, name, err)
			}
		}
	}
	if verb == "stop" {
		return
	}
	for _, name := range copies {
		select {
		case <-c.procs[name].Exited():
			c.start(t, name)
		default: // it runs
		}
	}
}

// runbooks are the blocks of all pages, in their order.
func runbooks(t *testing.T) (out []block) {
	t.Helper()
	pages, err := filepath.Glob("../../docs/operating/runbooks/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatalf("%d runbooks, %v", len(pages), err)
	}
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range blocks(string(text)) {
			b.page = filepath.Base(page)
			out = append(out, b)
		}
	}
	return out
}

// block is what stands between two fences of a page.
type block struct {
	page    string
	script  string
	changes bool
}

func blocks(page string) (out []block) {
	for i, part := range strings.Split(page, "```") {
		kind, script, _ := strings.Cut(part, "\n")
		if i%2 == 1 && strings.HasPrefix(kind, "sh") {
			out = append(out, block{script: script, changes: kind == "sh changes"})
		}
	}
	return out
}

func run(ctx context.Context, env []string, script string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", script)
	cmd.Env = env
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out[max(0, len(out)-1000):])
	}
	return nil
}

// buildTool builds cmd/seckill for the runbooks.
func buildTool(t *testing.T) string {
	t.Helper()
	tool := filepath.Join(workDir, "tool", "seckill")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", tool, "../../cmd/seckill").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v: %s", err, out)
	}
	return tool
}

var fieldRow = regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\|")

// logsAreAsDocumented reads what the processes have logged so far.
func (c *cluster) logsAreAsDocumented(t *testing.T, requests int64) {
	reference, err := os.ReadFile("../../docs/reference/logs.md")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{"time": true, "level": true, "msg": true}
	for _, m := range fieldRow.FindAllStringSubmatch(string(reference), -1) {
		known[m[1]] = true
	}
	lines := c.logs.lines(t)
	for _, l := range lines {
		for field := range l {
			if !known[field] {
				t.Errorf("the field %s of %v is not in docs/reference/logs.md", field, l)
			}
		}
		if !strings.Contains(string(reference), fmt.Sprintf(" | %s | ", l["msg"])) {
			t.Errorf("the message %q is not in docs/reference/logs.md", l["msg"])
		}
	}
	if requests < 5_000 || int64(len(lines)) > requests/20 {
		t.Errorf("%d lines for %d requests: what is served is not logged", len(lines), requests)
	}
	t.Logf("%d lines for %d requests", len(lines), requests)
}
