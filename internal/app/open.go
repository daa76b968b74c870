package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/segmentio/kafka-go/sasl/scram"

	"github.com/leadingpeers/seckill/pkg/events"
)

var prefixPattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?$`)

// openRedis makes a client; it dials when it is first used. Time-outs are
// short: a buyer waits behind them.
func (c Config) openRedis() (redis.UniversalClient, error) {
	opt := redis.UniversalOptions{
		DialTimeout:           time.Second,
		ReadTimeout:           2 * time.Second,
		WriteTimeout:          2 * time.Second,
		DialerRetries:         1,
		ContextTimeoutEnabled: true, // whoever has no time to wait for Redis still has some to ask MySQL
		MaxRetries:            1,    // repeating a script is harmless: every reservation carries its ID
		IsClusterMode:         c.RedisCluster,
	}
	for addr := range strings.SplitSeq(c.Redis, ",") {
		if !strings.Contains(addr, "://") {
			opt.Addrs = append(opt.Addrs, addr)
			continue
		}
		one, err := redis.ParseURL(addr)
		if err != nil {
			return nil, errors.New("setting redis: not a redis:// or rediss:// URL")
		}
		opt.Addrs = append(opt.Addrs, one.Addr)
		opt.Username, opt.Password, opt.DB, opt.TLSConfig = one.Username, one.Password, one.DB, one.TLSConfig
	}
	return redis.NewUniversalClient(&opt), nil
}

// KafkaConfig is how every client of this process reaches Kafka.
func (c Config) KafkaConfig(id string) (events.ClientConfig, error) {
	out := events.ClientConfig{Brokers: strings.Split(c.Kafka, ","), Prefix: c.Prefix, ClientID: c.Prefix + "-" + id}
	if c.KafkaTLS {
		out.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if c.KafkaUser != "" {
		mechanism, err := scram.Mechanism(scram.SHA512, c.KafkaUser, c.KafkaPass)
		if err != nil {
			return out, fmt.Errorf("setting kafka-user: %w", err)
		}
		out.SASL = mechanism
	}
	return out, nil
}

// quietRedis puts what go-redis would print beside our JSON lines into the log,
// at debug: whoever meets the error tells of it, once.
func quietRedis(log *slog.Logger) { redis.SetLogger(redisLog{log}) }

type redisLog struct{ log *slog.Logger }

// Printf is called by go-redis.
func (l redisLog) Printf(ctx context.Context, format string, v ...any) {
	l.log.DebugContext(ctx, "redis client", "text", fmt.Sprintf(format, v...))
}
