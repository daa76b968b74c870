package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/leadingpeers/seckill/internal/app"
	"github.com/leadingpeers/seckill/internal/embedded"
	"github.com/leadingpeers/seckill/internal/mysql"
	"github.com/leadingpeers/seckill/internal/proc"
	"github.com/leadingpeers/seckill/pkg/events"
)

// servers says which real servers to use; what is empty is stood in for.
type servers struct {
	redis, kafka, mysql, prefix, data string
}

func (s *servers) flags(fs *pflag.FlagSet) {
	fs.StringVar(&s.redis, "redis", "", "use this Redis, host:port, instead of the embedded stand-in")
	fs.StringVar(&s.kafka, "kafka", "", "use these Kafka `brokers`, host:port by comma, instead of the embedded stand-in")
	fs.StringVar(&s.mysql, "mysql", "", "use this MySQL or MariaDB, user:password@tcp(host:port)/schema, instead of the embedded stand-in")
	fs.StringVar(&s.prefix, "prefix", "seckill", "`word` before every Redis key, topic and consumer group")
}

// stack is the whole system on one machine: the servers, and each of our
// processes as a real child process.
type stack struct {
	cfg        app.Config // how to reach the stores
	stores     *app.Stores
	gateway    string // base URL of its API
	serviceKey string
	adminKey   string

	exe      string
	env      []string
	logs     io.Writer
	embedded *embedded.Servers
	procs    map[string]*proc.Process
	specs    map[string]proc.Spec
}

// start brings up what s does not name, prepares it, and runs the processes.
// extra are settings for all of them, as NAME=value. On error nothing is left
// running.
func (s servers) start(ctx context.Context, listen string, logs io.Writer, extra ...string) (_ *stack, err error) {
	st := &stack{
		logs: logs, procs: map[string]*proc.Process{}, specs: map[string]proc.Spec{},
		serviceKey: "sk_checkout_" + rand.Text(), adminKey: "sk_operator_" + rand.Text(),
	}
	defer func() {
		if err != nil {
			st.stop(ctx)
		}
	}()
	if st.exe, err = os.Executable(); err != nil {
		return nil, err
	}
	st.cfg = app.Config{Redis: s.redis, Kafka: s.kafka, MySQL: s.mysql, Prefix: s.prefix, MySQLConns: 16}
	if err := st.standIn(ctx, s.data); err != nil {
		return nil, err
	}
	if st.stores, err = app.Open(ctx, st.cfg, "seckill", nil); err != nil {
		return nil, err
	}
	if s.mysql != "" {
		if err := mysql.Migrate(ctx, st.stores.DB, app.NewLogger(logs, "warn")); err != nil {
			return nil, err
		}
	}
	if err := events.Apply(ctx, st.stores.Kafka, events.Overrides{}); err != nil {
		return nil, err
	}
	idKey, err := st.idKey(s.data)
	if err != nil {
		return nil, err
	}
	st.env = append(plainEnviron(),
		"SECKILL_REDIS="+st.cfg.Redis, "SECKILL_KAFKA="+st.cfg.Kafka, "SECKILL_MYSQL="+st.cfg.MySQL, "SECKILL_PREFIX="+st.cfg.Prefix,
		"SECKILL_KEYS=service:checkout:"+secret(st.serviceKey)+",admin:operator:"+secret(st.adminKey),
		"SECKILL_TOKEN_KEYS=dev:"+rand.Text(),
		"SECKILL_ID_KEY="+idKey, "SECKILL_ADMIN_LISTEN=127.0.0.1:0", "SECKILL_LISTEN="+listen)
	st.env = append(st.env, extra...)
	for _, name := range []string{"gateway-1", "stock-worker-1", "stock-worker-2", "settle-worker-1", "settle-worker-2"} {
		if err := st.run(ctx, name); err != nil {
			return nil, err
		}
	}
	st.gateway = "http://" + st.procs["gateway-1"].API
	return st, nil
}

// standIn starts the embedded servers for what the configuration leaves open.
func (st *stack) standIn(ctx context.Context, dir string) (err error) {
	st.embedded, err = embedded.Start(ctx, embedded.Config{
		Dir: dir, NoRedis: st.cfg.Redis != "", NoKafka: st.cfg.Kafka != "", NoMySQL: st.cfg.MySQL != "",
	})
	if err != nil {
		return err
	}
	st.cfg.Redis = cmp.Or(st.cfg.Redis, st.embedded.RedisAddr)
	st.cfg.Kafka = cmp.Or(st.cfg.Kafka, strings.Join(st.embedded.KafkaBrokers, ","))
	st.cfg.MySQL = cmp.Or(st.cfg.MySQL, st.embedded.MySQLDSN)
	return nil
}

// idKey is the secret behind the reservation IDs: kept beside the data it made
// IDs for, since another key would make other IDs for the same requests.
func (st *stack) idKey(dir string) (string, error) {
	if dir == "" {
		return rand.Text(), nil
	}
	path := filepath.Join(dir, "id-key")
	if key, err := os.ReadFile(path); err == nil {
		return string(key), nil
	}
	key := rand.Text()
	return key, os.WriteFile(path, []byte(key), 0o600)
}

// run starts the process called name, again with the same settings when it was
// started before.
func (st *stack) run(ctx context.Context, name string) error {
	role := name[:strings.LastIndex(name, "-")]
	spec, again := st.specs[name]
	if !again {
		spec = proc.Spec{Name: name, Path: st.exe, Args: []string{role, "--until-stdin-closes"}, Env: st.env, Logs: st.logs}
		st.specs[name] = spec
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	p, err := proc.Start(ctx, spec)
	if err != nil {
		return err
	}
	st.procs[name] = p
	return nil
}

// stop drains the processes and then closes the servers under them.
func (st *stack) stop(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second)
	defer cancel()
	var done []chan error
	for _, p := range st.procs {
		ch := make(chan error, 1)
		go func() { ch <- p.Stop(10 * time.Second) }()
		done = append(done, ch)
	}
	for _, ch := range done {
		if err := <-ch; err != nil {
			_, _ = fmt.Fprintln(st.logs, err)
		}
	}
	if st.stores != nil {
		if err := st.stores.Close(ctx); err != nil {
			_, _ = fmt.Fprintln(st.logs, err)
		}
	}
	if st.embedded != nil {
		if err := st.embedded.Close(); err != nil {
			_, _ = fmt.Fprintln(st.logs, err)
		}
	}
}

// wait returns nil when ctx ends, and an error when a process ends by itself.
func (st *stack) wait(ctx context.Context) error {
	ended := make(chan string, len(st.procs))
	for name, p := range st.procs {
		go func() { <-p.Exited(); ended <- name }()
	}
	select {
	case <-ctx.Done():
		return nil
	case name := <-ended:
		return fmt.Errorf("%s ended by itself; its log says why", name)
	}
}

// statusError is an answer of the API that is not a success.
type statusError struct {
	status int
	path   string
	answer string
}

// Error shows the answer as it came.
func (e statusError) Error() string {
	return fmt.Sprintf("POST %s: status %d: %s", e.path, e.status, e.answer)
}

// post calls an operator's route of the gateway.
func (st *stack) post(ctx context.Context, path string, body map[string]any) error {
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			return err
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, st.gateway+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+st.adminKey)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		return statusError{resp.StatusCode, path, string(answer)}
	}
	return nil
}

// plainEnviron is our environment without settings meant for somebody else.
func plainEnviron() []string {
	var out []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "SECKILL_") {
			out = append(out, e)
		}
	}
	return out
}

// secret is the part of a key that the server is told.
func secret(key string) string { return key[strings.LastIndex(key, "_")+1:] }
