// Package app assembles the processes: it reads their configuration, opens
// Redis, Kafka and MySQL, runs the services until they are told to stop, and
// serves health and metrics beside them. It is the only room that opens
// connections; it decides nothing about stock.
package app

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/providers/posflag"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"

	"github.com/leadingpeers/seckill/internal/gateway/web"
	"github.com/leadingpeers/seckill/internal/keys"
	"github.com/leadingpeers/seckill/pkg/token"
)

// Config is what a process can be told. Every field has one name in three
// places, here in order of strength: the flag --reap-after, the variable
// SECKILL_REAP_AFTER, the key reap-after of the YAML file named by --config or
// SECKILL_CONFIG. SECKILL_<NAME>_FILE reads the value from a file, for secrets.
type Config struct {
	Redis        string `koanf:"redis"`
	RedisCluster bool   `koanf:"redis-cluster"`
	Kafka        string `koanf:"kafka"`
	KafkaTLS     bool   `koanf:"kafka-tls"`
	KafkaUser    string `koanf:"kafka-user"`
	KafkaPass    string `koanf:"kafka-password"`
	MySQL        string `koanf:"mysql"`
	MySQLConns   int    `koanf:"mysql-conns"`
	Prefix       string `koanf:"prefix"`

	Listen      string        `koanf:"listen"`
	AdminListen string        `koanf:"admin-listen"`
	LogLevel    string        `koanf:"log-level"`
	OTLP        string        `koanf:"otlp-endpoint"`
	TraceShare  float64       `koanf:"trace-share"`
	DrainDelay  time.Duration `koanf:"drain-delay"`
	DrainLimit  time.Duration `koanf:"drain-limit"`

	Keys           []string      `koanf:"keys"`
	IDKey          string        `koanf:"id-key"`
	TokenKeys      []string      `koanf:"token-keys"`
	PublishTimeout time.Duration `koanf:"publish-timeout"`
	MaxInFlight    int           `koanf:"max-in-flight"`
	MaxWaiting     int           `koanf:"max-waiting"`
	GCPercent      int           `koanf:"gc-percent"`
	MemoryLimitMB  int           `koanf:"memory-limit-mb"`

	SessionTimeout time.Duration `koanf:"session-timeout"`

	ReapAfter   time.Duration `koanf:"reap-after"`
	ReapEvery   time.Duration `koanf:"reap-every"`
	HealEvery   time.Duration `koanf:"heal-every"`
	AuditEvery  time.Duration `koanf:"audit-every"`
	ExpireEvery time.Duration `koanf:"expire-every"`
	RelayEvery  time.Duration `koanf:"relay-every"`
	SweepEvery  time.Duration `koanf:"sweep-every"`
	SweepAfter  time.Duration `koanf:"sweep-after"`
	BooksEvery  time.Duration `koanf:"books-every"`

	log *slog.Logger // of the process; nil = none
}

// Flags adds the flags of a role to fs. Each role shows only what it uses; a
// variable or a key in the file that another role uses is allowed and ignored,
// so that all processes can share one file.
func Flags(fs *pflag.FlagSet, role Role) {
	fs.String("config", "", "YAML `file` with any of these settings, by their flag names (SECKILL_CONFIG)")
	fs.String("redis", "127.0.0.1:6379", "Redis `addresses`: host:port, several by comma for a cluster, or redis:// and rediss:// URLs")
	fs.Bool("redis-cluster", false, "the one Redis address given is a node of a cluster")
	fs.String("kafka", "127.0.0.1:9092", "Kafka `brokers`, host:port by comma")
	fs.Bool("kafka-tls", false, "speak TLS to Kafka, with the system's certificate authorities")
	fs.String("kafka-user", "", "SASL/SCRAM-SHA-512 `user`; empty = no authentication")
	fs.String("kafka-password", "", "its password; set SECKILL_KAFKA_PASSWORD or SECKILL_KAFKA_PASSWORD_FILE instead of this flag")
	fs.String("mysql", "root@tcp(127.0.0.1:3306)/seckill", "MySQL or MariaDB data source `name`, user:password@tcp(host:port)/schema; prefer SECKILL_MYSQL_FILE when it holds a password")
	fs.Int("mysql-conns", 16, "most connections to MySQL")
	fs.String("prefix", "seckill", "`word` before every Redis key, topic and consumer group of this installation")
	fs.String("admin-listen", "127.0.0.1:9090", "`address` of /livez, /readyz, /metrics and /debug/pprof; keep it private")
	fs.String("log-level", "info", "debug, info, warn or error; logs are JSON lines on standard error")
	fs.Duration("drain-delay", 0, "after SIGTERM, how long /readyz answers 503 before anything else stops, so that load balancers notice")
	fs.Duration("drain-limit", 20*time.Second, "after SIGTERM, how long work in flight may take before the process gives up on it")
	if role != "" {
		traceFlags(fs)
	}
	switch role {
	case RoleGateway:
		gatewayFlags(fs)
	case RoleStockWorker:
		workerFlags(fs)
		fs.Duration("reap-after", 5*time.Second, "publish a reservation again when it has been pending in Redis for this long")
		fs.Duration("reap-every", time.Second, "how often to look for such reservations")
		fs.Duration("heal-every", time.Second, "how often to look for products missing in Redis, and for a restarted Redis")
		fs.Duration("audit-every", time.Minute, "how often to check the ledger's equation, and how long Redis may differ from the ledger before the product is stopped")
	case RoleSettleWorker:
		workerFlags(fs)
		fs.Duration("expire-every", 500*time.Millisecond, "how often to cancel orders past their payment deadline")
		fs.Duration("relay-every", 100*time.Millisecond, "how often to look for new events in the outbox")
		fs.Duration("sweep-every", time.Minute, "how often to look for deductions without an order and cancelled orders still deducted")
		fs.Duration("sweep-after", time.Minute, "how old such a row must be before its event is published again")
		fs.Duration("books-every", 10*time.Second, "how often to measure the books of what is on sale, for the metrics seckill_books_*")
	}
}

func traceFlags(fs *pflag.FlagSet) {
	fs.String("otlp-endpoint", "", "base `URL` of a collector that takes traces by OTLP over HTTP, such as http://127.0.0.1:4318; empty = none are sent")
	fs.Float64("trace-share", 0, "share of the traces that begin here that is sent, 0 to 1; those that the caller has sampled are sent in any case")
}

func workerFlags(fs *pflag.FlagSet) {
	// With 10 s the last partition went on after 11.0 to 12.2 s: a heartbeat, the joining and the first fetch come on
	// top. 8 s keep the promised 12 on a busy machine, too.
	fs.Duration("session-timeout", 8*time.Second, "how long a killed worker keeps its partitions; a real broker wants at least 6s")
}

func gatewayFlags(fs *pflag.FlagSet) {
	fs.String("listen", "127.0.0.1:8080", "`address` of the HTTP API")
	fs.StringSlice("keys", nil, "API keys as `role:id:secret`, by comma; role is service, viewer, operator or admin, a secret has at least 16 characters; callers send sk_<id>_<secret>; prefer SECKILL_KEYS_FILE")
	fs.StringSlice("token-keys", nil, "one or two keys of purchase tokens as `id:secret`, by comma; the first makes tokens, all are taken; a secret has at least 16 characters; prefer SECKILL_TOKEN_KEYS_FILE")
	fs.String("id-key", "", "secret of at least 16 characters from which reservation IDs are made; the same on every gateway, never changed during a sale; prefer SECKILL_ID_KEY_FILE")
	fs.Duration("publish-timeout", 2*time.Second, "how long a buyer waits for Kafka's acknowledgement before the answer is 503")
	fs.Int("max-in-flight", 4096, "requests served at once; more are answered 503 at once")
	fs.Int("max-waiting", 8192, "long polls at once, beside max-in-flight")
	fs.Int("gc-percent", 250, "Go's GOGC: more = less CPU and more memory; 100 is Go's own default; 0 = leave it to GOGC")
	fs.Int("memory-limit-mb", 1024, "Go's GOMEMLIMIT: near it memory is collected more often, whatever gc-percent says; 0 = leave it to GOMEMLIMIT")
}

// Load reads the configuration: the flags given, then SECKILL_* variables,
// then the file, then the defaults of fs. environ is a list of NAME=value.
//
// It returns an error that names the setting when a value cannot be read or is
// not allowed, or when a name is unknown.
func Load(fs *pflag.FlagSet, environ []string) (Config, error) {
	k := koanf.New(".")
	vars, err := variables(environ)
	if err != nil {
		return Config{}, err
	}
	path, _ := fs.GetString("config")
	if path == "" {
		path = vars["config"]
	}
	delete(vars, "config")
	if path != "" {
		if err := k.Load(file.Provider(path), yaml.Parser()); err != nil {
			return Config{}, fmt.Errorf("read the configuration file %s: %w", path, err)
		}
	}
	if err := k.Load(env.Provider(".", env.Opt{EnvironFunc: func() []string { return pairs(vars) }}), nil); err != nil {
		return Config{}, fmt.Errorf("read the SECKILL_* variables: %w", err)
	}
	if err := k.Load(posflag.Provider(known(fs), ".", k), nil); err != nil {
		return Config{}, fmt.Errorf("read the flags: %w", err)
	}
	var cfg Config
	err = k.UnmarshalWithConf("", &cfg, koanf.UnmarshalConf{DecoderConfig: &mapstructure.DecoderConfig{
		Result: &cfg, WeaklyTypedInput: true, ErrorUnused: true,
		DecodeHook: mapstructure.ComposeDecodeHookFunc(
			mapstructure.StringToTimeDurationHookFunc(), mapstructure.StringToSliceHookFunc(",")),
	}})
	if err != nil {
		return Config{}, fmt.Errorf("configuration: %w", err)
	}
	return cfg, cfg.validate()
}

// known is fs with only the flags that are settings: a command may have others.
func known(fs *pflag.FlagSet) *pflag.FlagSet {
	names := settings()
	out := pflag.NewFlagSet("", pflag.ContinueOnError)
	fs.VisitAll(func(f *pflag.Flag) {
		if slices.Contains(names, f.Name) {
			out.AddFlag(f)
		}
	})
	return out
}

// settings lists the names of every setting, of all roles.
func settings() []string {
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	for _, role := range []Role{RoleGateway, RoleStockWorker, RoleSettleWorker} {
		one := pflag.NewFlagSet("", pflag.ContinueOnError)
		Flags(one, role)
		fs.AddFlagSet(one)
	}
	var names []string
	fs.VisitAll(func(f *pflag.Flag) {
		if f.Name != "config" {
			names = append(names, f.Name)
		}
	})
	return names
}

// variables picks the SECKILL_* settings out of environ, by flag name. Those of
// the commands that call a gateway, of the local servers' script and of the
// tests are not settings.
func variables(environ []string) (map[string]string, error) {
	vars := map[string]string{}
	names := append(settings(), "config")
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		key, ours := strings.CutPrefix(name, "SECKILL_")
		if !ours || key == "SERVER" || key == "KEY" || strings.HasPrefix(key, "TEST_") || strings.HasPrefix(key, "SERVERS_") {
			continue
		}
		key = strings.ToLower(strings.ReplaceAll(key, "_", "-"))
		if base, isFile := strings.CutSuffix(key, "-file"); isFile {
			text, err := os.ReadFile(value)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			key, value = base, strings.TrimSpace(string(text))
		}
		if !slices.Contains(names, key) {
			return nil, fmt.Errorf("unknown variable %s: no setting is called %q; --help lists them", name, key)
		}
		vars[key] = value
	}
	return vars, nil
}

func pairs(vars map[string]string) []string {
	var out []string
	for k, v := range vars {
		out = append(out, k+"="+v)
	}
	return out
}

// validate checks what the types do not. Values of secrets are not shown.
func (c Config) validate() error {
	var errs []error
	check := func(ok bool, name, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf("setting %s: "+format, append([]any{name}, args...)...))
		}
	}
	check(prefixPattern.MatchString(c.Prefix), "prefix", "%q: want 1 to 20 of a-z, 0-9 and inner hyphens", c.Prefix)
	check(c.Redis != "", "redis", "is empty: want host:port")
	check(c.Kafka != "", "kafka", "is empty: want host:port")
	check(c.MySQLConns >= 2 && c.MySQLConns <= 1000, "mysql-conns", "%d: want 2 to 1000", c.MySQLConns)
	check(slices.Contains([]string{"debug", "info", "warn", "error"}, c.LogLevel), "log-level", "%q: want debug, info, warn or error", c.LogLevel)
	check(c.TraceShare >= 0 && c.TraceShare <= 1, "trace-share", "%v: want 0 to 1", c.TraceShare)
	check(c.GCPercent >= 0, "gc-percent", "%d: want 0 or more", c.GCPercent)
	check(c.MemoryLimitMB >= 0, "memory-limit-mb", "%d: want 1 or more, or 0 for none", c.MemoryLimitMB)
	for name, d := range map[string]time.Duration{
		"drain-limit": c.DrainLimit, "publish-timeout": c.PublishTimeout, "session-timeout": c.SessionTimeout, "reap-after": c.ReapAfter, "reap-every": c.ReapEvery,
		"heal-every": c.HealEvery, "audit-every": c.AuditEvery, "expire-every": c.ExpireEvery, "relay-every": c.RelayEvery, "sweep-every": c.SweepEvery, "sweep-after": c.SweepAfter, "books-every": c.BooksEvery,
	} {
		check(d >= 0, name, "%s: want a positive duration such as 500ms or 5s", d)
	}
	_, keysErr := c.apiKeys()
	_, tokensErr := c.tokenRing()
	return errors.Join(append(errs, keysErr, tokensErr)...)
}

// requireSecrets reports the settings without which a gateway must not start.
func (c Config) requireSecrets() error {
	if len(c.IDKey) < 16 {
		return errors.New("setting id-key: is missing or shorter than 16 characters; make one with: openssl rand -hex 32")
	}
	return nil
}

// apiKeys are the keys that may call, without their secrets.
func (c Config) apiKeys() ([]web.Key, error) {
	var out []web.Key
	for i, entry := range c.Keys {
		part := strings.SplitN(entry, ":", 3)
		if len(part) != 3 || !slices.Contains(keys.Roles(), keys.Role(part[0])) || len(part[2]) < 16 {
			return nil, fmt.Errorf("setting keys: entry %d: want role:id:secret with role service, viewer, operator or admin and a secret of at least 16 characters", i+1)
		}
		out = append(out, web.Key{Role: web.Role(part[0]), ID: part[1], Hash: sha256.Sum256([]byte(part[2]))})
	}
	return out, nil
}

// tokenRing are the keys of purchase tokens; nil without any.
func (c Config) tokenRing() (*token.Ring, error) {
	if len(c.TokenKeys) == 0 {
		return nil, nil //nolint:nilnil // no ring means no tokens
	}
	var out []token.Key
	for _, entry := range c.TokenKeys {
		id, secret, _ := strings.Cut(entry, ":")
		out = append(out, token.Key{ID: id, Secret: []byte(secret)})
	}
	ring, err := token.NewRing(out)
	if err != nil {
		return nil, fmt.Errorf("setting token-keys: %w", err)
	}
	return ring, nil
}
