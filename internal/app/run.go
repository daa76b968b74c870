package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/leadingpeers/seckill/internal/trace"
)

// service is a part of a process that runs until its context ends and then
// finishes what it has begun.
type service func(ctx context.Context) error

// process is one running copy of a role.
type process struct {
	role   Role
	cfg    Config
	log    *slog.Logger
	reg    *prometheus.Registry
	stores *Stores
	tracer *trace.Tracer // nil = none
	admin  admin
	api    string // address of the API, empty when there is none

	services []service
}

// Run runs one copy of a role until ctx ends, then drains: the probes answer
// "draining" for cfg.DrainDelay, the services finish what they have begun
// within cfg.DrainLimit, and the connections are closed.
//
// It returns nil after a clean drain, and the first error of a part that ended
// by itself. Nothing is lost when it does not return at all: that is what the
// protocol is for.
func Run(ctx context.Context, role Role, cfg Config, log *slog.Logger) (err error) {
	p, err := open(ctx, role, cfg, log)
	if err != nil {
		return err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), cfg.DrainLimit)
		defer cancel()
		err = errors.Join(err, p.stores.Close(closing), p.tracer.Close(closing))
	}()
	if err := p.assemble(ctx); err != nil {
		return err
	}
	return p.run(ctx)
}

// open makes a process with its connections and without its services.
func open(ctx context.Context, role Role, cfg Config, log *slog.Logger) (*process, error) {
	p := &process{role: role, cfg: cfg, log: log, reg: prometheus.NewRegistry(), admin: admin{limit: 2 * time.Second}}
	p.reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), buildInfo(role))
	quietRedis(log)
	p.cfg.log = log
	var err error
	p.tracer, err = trace.New(trace.Config{
		Endpoint: cfg.OTLP, Share: cfg.TraceShare, Service: "seckill-" + string(role), Version: Version(), Serves: role == RoleGateway, Log: log,
	})
	if err != nil {
		return nil, err
	}
	if p.stores, err = Open(ctx, p.cfg, string(role), p.reg); err != nil {
		return nil, err
	}
	p.reg.MustRegister(collectors.NewDBStatsCollector(p.stores.DB, "seckill"))
	p.admin.checks = []check{
		{"redis", p.stores.Cache.Ping},
		{"kafka", p.stores.Publisher.Ping},
		{"mysql", p.stores.DB.PingContext},
	}
	return p, nil
}

func (p *process) assemble(ctx context.Context) error {
	switch p.role {
	case RoleGateway:
		return p.gateway(ctx)
	case RoleStockWorker:
		return p.stockWorker()
	case RoleSettleWorker:
		return p.settleWorker()
	default:
		return fmt.Errorf("no role %q", p.role)
	}
}

// run serves the probes and runs the services until one fails or ctx ends.
func (p *process) run(ctx context.Context) error {
	probes := &http.Server{Handler: p.admin.handler(p.reg), ReadHeaderTimeout: 2 * time.Second}
	addr, failed, err := serve(ctx, p.cfg.AdminListen, probes)
	if err != nil {
		return fmt.Errorf("setting admin-listen: %w", err)
	}
	defer func() { _ = probes.Close() }()

	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	ended := make(chan error, len(p.services))
	for _, s := range p.services {
		go func() { ended <- s(running) }()
	}
	p.log.Info("listening", "ops", addr.String(), "api", p.api, "version", Version())

	left := len(p.services)
	select {
	case <-ctx.Done():
	case err = <-failed:
	case err = <-ended:
		left--
		err = cmpErr(err, errors.New("a service ended by itself"))
	}
	p.admin.draining.Store(true)
	p.log.Info("draining", "delay", p.cfg.DrainDelay.String(), "limit", p.cfg.DrainLimit.String())
	if err == nil {
		time.Sleep(p.cfg.DrainDelay)
	}
	stop()
	limit := time.NewTimer(p.cfg.DrainLimit)
	defer limit.Stop()
	for ; left > 0; left-- {
		select {
		case e := <-ended:
			err = errors.Join(err, e)
		case <-limit.C:
			return errors.Join(err, fmt.Errorf("drain: %d services had not finished after %s; what they had begun will be done again elsewhere", left, p.cfg.DrainLimit))
		}
	}
	p.log.Info("stopped")
	return err
}

func cmpErr(err, otherwise error) error {
	if err != nil {
		return err
	}
	return otherwise
}

// buildInfo is 1, and its labels say which build of which process answers.
func buildInfo(role Role) prometheus.Collector {
	g := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "seckill_build_info",
		Help:        "1; the labels say which process this is, of which version, built with which Go.",
		ConstLabels: prometheus.Labels{"service": string(role), "version": Version(), "go_version": runtime.Version()},
	})
	g.Set(1)
	return g
}
