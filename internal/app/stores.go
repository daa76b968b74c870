package app

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/leadingpeers/seckill/internal/mysql"
	"github.com/leadingpeers/seckill/internal/ops"
	"github.com/leadingpeers/seckill/pkg/catalog"
	"github.com/leadingpeers/seckill/pkg/events"
	"github.com/leadingpeers/seckill/pkg/order"
	"github.com/leadingpeers/seckill/pkg/stock"
)

// Stores are the connections of one process and what is kept behind them.
type Stores struct {
	DB        *sql.DB
	Kafka     events.ClientConfig
	Cache     *stock.Cache
	Ledger    *stock.Ledger
	Catalog   *catalog.Store
	Orders    *order.Store
	Publisher *events.Publisher

	redis io.Closer
}

// Open prepares the connections that cfg names; id tells this process's
// clients apart in the servers' own lists. No server has to be there yet: each
// is dialled when it is first needed. The metrics go to reg; nil = none.
//
// It returns an error that names the setting when one cannot be used.
func Open(ctx context.Context, cfg Config, id string, reg prometheus.Registerer) (*Stores, error) {
	kafka, err := cfg.KafkaConfig(id)
	if err != nil {
		return nil, err
	}
	client, err := cfg.openRedis()
	if err != nil {
		return nil, err
	}
	db, err := mysql.Open(ctx, mysql.Config{DSN: cfg.MySQL, MaxOpen: cfg.MySQLConns})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("setting mysql: %w", err), client.Close())
	}
	return &Stores{
		DB:        db,
		Kafka:     kafka,
		Cache:     stock.NewCache(client, stock.CacheConfig{Prefix: cfg.Prefix, Registerer: reg, Now: time.Now}),
		Ledger:    stock.NewLedger(db),
		Catalog:   catalog.NewStore(db),
		Orders:    order.NewStore(db),
		Publisher: events.NewPublisher(events.PublisherConfig{ClientConfig: kafka, Now: time.Now, Registerer: reg, Log: cfg.log}),
		redis:     client,
	}, nil
}

// Books are the three accounts of the units.
func (s *Stores) Books() ops.Books {
	return ops.Books{Cache: s.Cache, Ledger: s.Ledger, Orders: s.Orders}
}

// Close waits until what was given to Kafka and Redis is answered, or ctx
// ends, and closes the connections.
func (s *Stores) Close(ctx context.Context) error {
	err := s.Publisher.Close(ctx)
	s.Cache.Close()
	return errors.Join(err, s.redis.Close(), s.DB.Close())
}
