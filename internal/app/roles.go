package app

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/leadingpeers/seckill/internal/audit"
	"github.com/leadingpeers/seckill/internal/gateway"
	"github.com/leadingpeers/seckill/internal/gateway/web"
	"github.com/leadingpeers/seckill/internal/keys"
	"github.com/leadingpeers/seckill/internal/onway"
	"github.com/leadingpeers/seckill/internal/ops/lag"
	"github.com/leadingpeers/seckill/internal/settleworker"
	"github.com/leadingpeers/seckill/internal/stockworker"
	"github.com/leadingpeers/seckill/internal/watch"
	"github.com/leadingpeers/seckill/pkg/catalog"
	"github.com/leadingpeers/seckill/pkg/events"
	"github.com/leadingpeers/seckill/pkg/stock"
)

// snapshotAge is how old the catalogue may be that buyers are answered from.
const snapshotAge = time.Second

// gateway adds the HTTP API to the process.
func (p *process) gateway(ctx context.Context) error {
	if err := p.cfg.requireSecrets(); err != nil {
		return err
	}
	p.cfg.tuneMemory()
	fixed, err := p.cfg.apiKeys()
	if err != nil {
		return err
	}
	tokens, err := p.cfg.tokenRing()
	if err != nil {
		return err
	}
	s := p.stores
	snapshot := catalog.NewSnapshot(s.Catalog, snapshotAge, time.Now)
	g, err := gateway.New(gateway.Config{
		Cache: s.Cache, Ledger: s.Ledger, Orders: s.Orders, Publisher: s.Publisher, Snapshot: snapshot, Catalog: s.Catalog,
		Load: func(ctx context.Context, terms stock.Terms) (bool, error) {
			return stock.Load(ctx, s.Cache, s.Ledger, terms)
		},
		Search: func(ctx context.Context, q events.Query) ([]events.Record, bool, error) {
			return events.Search(ctx, s.Kafka, q)
		},
		Heal: func(ctx context.Context, productID string) error {
			_, err := stock.Heal(ctx, s.Cache, s.Ledger, productID, 0)
			return err
		},
		Keys: fixed, KeyStore: keys.NewStore(s.DB), Trail: audit.NewTrail(s.DB), Tokens: tokens, IDKey: []byte(p.cfg.IDKey), PublishTimeout: p.cfg.PublishTimeout,
		MaxInFlight: p.cfg.MaxInFlight, MaxWaiting: p.cfg.MaxWaiting,
		Now: time.Now, Log: p.log, Registerer: p.reg, Tracer: p.httpTracer(),
	})
	if err != nil {
		return err
	}
	// MySQL may be away while a sale goes on: buyers need only the snapshot.
	p.admin.checks[2] = check{"catalogue", func(ctx context.Context) error {
		_, err := snapshot.Get(ctx)
		return err
	}}
	server := g.Server()
	addr, failed, err := serve(ctx, p.cfg.Listen, server)
	if err != nil {
		return fmt.Errorf("setting listen: %w", err)
	}
	p.api = addr.String()
	p.services = append(p.services, func(ctx context.Context) error {
		select {
		case <-ctx.Done():
		case err := <-failed:
			return err
		}
		return drain(ctx, server, p.cfg.DrainLimit)
	})
	return nil
}

// tuneMemory trades memory for CPU: a gateway lives on short-lived objects, and
// collecting them took a third of its handlers' time. What GOGC and GOMEMLIMIT
// have set stays, unless GOGC says what Go does anyway.
func (c Config) tuneMemory() {
	const goDefault = 100
	if was := debug.SetGCPercent(-1); was == goDefault && c.GCPercent > 0 {
		debug.SetGCPercent(c.GCPercent)
	} else {
		debug.SetGCPercent(was)
	}
	if unlimited := debug.SetMemoryLimit(-1) == math.MaxInt64; unlimited && c.MemoryLimitMB > 0 {
		debug.SetMemoryLimit(int64(c.MemoryLimitMB) << 20)
	}
}

// drain stops accepting and waits for the requests in flight.
func drain(ctx context.Context, server *http.Server, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		return errors.Join(fmt.Errorf("drain the HTTP API: %w", err), server.Close())
	}
	return nil
}

// stockWorker adds the consumers and the background services that keep the
// ledger and Redis.
func (p *process) stockWorker() error {
	s := p.stores
	handlers := s.Handlers()
	p.consume("deduct", events.Reservations, handlers["deduct"])
	p.consume("rollback", events.Rollbacks, handlers["rollback"])
	p.consume("channel", events.Channels, handlers["channel"])
	reaper := stockworker.NewReaper(s.Catalog, s.Cache, s.Publisher, stockworker.ReaperConfig{
		Every: p.cfg.ReapEvery, OlderThan: p.cfg.ReapAfter, Queue: onway.Topic(s.Kafka, "deduct", events.Reservations),
		Now: time.Now, Log: p.log, Registerer: p.reg,
	})
	shelf := stockworker.NewShelf(s.Cache, s.Ledger)
	healer := stockworker.NewHealer(s.Catalog, shelf, stockworker.HealerConfig{
		Every: p.cfg.HealEvery, Now: time.Now, Log: p.log, Registerer: p.reg,
	})
	auditor := stockworker.NewAuditor(s.Catalog, s.Ledger, shelf, stockworker.AuditorConfig{
		Every: p.cfg.AuditEvery, DriftEvery: p.cfg.AuditEvery / 12, DriftFor: p.cfg.AuditEvery, Log: p.log, Registerer: p.reg,
	})
	p.services = append(p.services, reaper.Run, healer.Run, auditor.Run, p.lagPoller())
	return nil
}

// settleWorker adds the consumers and the background services that keep the
// orders.
func (p *process) settleWorker() error {
	s := p.stores
	handlers := s.Handlers()
	p.consume("settle", events.Deductions, handlers["settle"])
	p.consume("payment", events.Payments, handlers["payment"])
	expirer := settleworker.NewExpirer(s.Orders, settleworker.ExpirerConfig{Every: p.cfg.ExpireEvery, Log: p.log, Registerer: p.reg})
	relay := settleworker.NewRelay(s.Orders, s.Publisher, settleworker.RelayConfig{
		Every: p.cfg.RelayEvery, Now: time.Now, Log: p.log, Registerer: p.reg,
	})
	sweeper := settleworker.NewSweeper(s.Orders, s.Publisher, settleworker.SweeperConfig{
		Every: p.cfg.SweepEvery, OlderThan: p.cfg.SweepAfter, Now: time.Now,
		Deductions: onway.Topic(s.Kafka, "settle", events.Deductions), Rollbacks: onway.Topic(s.Kafka, "rollback", events.Rollbacks),
		Log: p.log, Registerer: p.reg,
	})
	books := watch.New(watch.Stores{Catalogue: s.Catalog, Cache: s.Cache, Ledger: s.Ledger, Orders: s.Orders}, watch.Config{
		Every: p.cfg.BooksEvery, Now: time.Now, Log: p.log, Registerer: p.reg,
	})
	p.services = append(p.services, expirer.Run, relay.Run, sweeper.Run, books.Run, p.lagPoller())
	return nil
}

// Handlers are what each consumer group does with its events, by the group's
// name: in its worker, and in a replay.
func (s *Stores) Handlers() map[string]events.Handler {
	return map[string]events.Handler{
		"deduct":   stockworker.Deduct(s.Cache, s.Ledger),
		"rollback": stockworker.Rollback(s.Cache, s.Ledger),
		"channel":  stockworker.Channel(s.Catalog, s.Ledger),
		"settle":   settleworker.Settle(s.Catalog, s.Orders),
		"payment":  settleworker.Payment(s.Orders, s.Ledger),
	}
}

// lagPoller is in both kinds of worker, so that the lag of the one is seen when
// all of its copies are dead.
func (p *process) lagPoller() service {
	return lag.NewPoller(p.stores.Kafka, lag.PollerConfig{Now: time.Now, Registerer: p.reg, Log: p.log}).Run
}

// consume adds a consumer group's member.
func (p *process) consume(group string, topic events.Topic, handle events.Handler) {
	consumer := events.NewConsumer(events.ConsumerConfig{
		ClientConfig: p.stores.Kafka, Group: group, Topic: topic, Now: time.Now,
		Together:       spread(topic),
		SessionTimeout: p.cfg.SessionTimeout, DrainTimeout: p.cfg.SessionTimeout * 7 / 10,
		Log: p.log, Registerer: p.reg, Tracer: p.eventTracer(),
	}, handle, p.stores.Publisher)
	p.services = append(p.services, consumer.Run)
}

// spread reports whether a sale's events are spread over all partitions of the
// topic, because they are keyed by reservation. Where they are keyed by product,
// different products' transactions do not wait for each other.
func spread(topic events.Topic) bool { return topic == events.Deductions || topic == events.Payments }

// httpTracer and eventTracer are the tracer, or a nil that is one to its user.
func (p *process) httpTracer() web.Tracer {
	if p.tracer == nil {
		return nil
	}
	return p.tracer
}

func (p *process) eventTracer() events.Tracer {
	if p.tracer == nil {
		return nil
	}
	return p.tracer
}
