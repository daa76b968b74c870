// Package gateway is the HTTP door: a buyer's request becomes units taken in
// Redis and an event in Kafka, and 202 is answered only after Kafka has
// acknowledged that event. Operators run the catalogue through the same door.
//
// Nothing is decided here. Redis admits and MySQL decides; the gateway keeps
// no state of a sale, so any number of copies work side by side and a request
// may be repeated at any of them.
//
// There is no local sold-out flag. A flag can only refuse, and whoever asks
// for the last unit again must see their own hold before anything else is
// checked; only Redis can tell such a retry from a new request.
package gateway

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/leadingpeers/seckill/internal/audit"
	"github.com/leadingpeers/seckill/internal/gateway/access"
	"github.com/leadingpeers/seckill/internal/gateway/catalogue"
	"github.com/leadingpeers/seckill/internal/gateway/docs"
	"github.com/leadingpeers/seckill/internal/gateway/orders"
	"github.com/leadingpeers/seckill/internal/gateway/stockops"
	"github.com/leadingpeers/seckill/internal/gateway/web"
	"github.com/leadingpeers/seckill/internal/keys"
	"github.com/leadingpeers/seckill/pkg/events"
	"github.com/leadingpeers/seckill/pkg/order"
	"github.com/leadingpeers/seckill/pkg/stock"
	"github.com/leadingpeers/seckill/pkg/token"
)

// Cache is the hot count. *stock.Cache is one.
type Cache interface {
	catalogue.Cache
	stockops.Cache
	Reserve(ctx context.Context, r stock.Reservation) (got stock.Reservation, replayed bool, err error)
	Find(ctx context.Context, productID, userID, id string) (stock.Reservation, error)
	OfUser(ctx context.Context, productID, userID string) ([]stock.Reservation, error)
}

// Ledger knows every reservation that was decided. *stock.Ledger is one.
type Ledger interface {
	stockops.Ledger
	orders.Ledger
	Find(ctx context.Context, id string) (stock.Reservation, error)
	OfUser(ctx context.Context, productID, userID string) ([]stock.Reservation, error)
}

// Orders knows what was bought. *order.Store is one.
type Orders interface {
	orders.Store
	FindAll(ctx context.Context, reservationIDs []string) (map[string]order.Order, error)
	Cancel(ctx context.Context, reservationID, reason string, announce func(order.Order) []order.Message) (order.Order, error)
}

// Publisher hands events on; nil means that all are safe. *events.Publisher is
// one.
type Publisher interface {
	Publish(ctx context.Context, evs ...events.Event) error
}

// Config is what a gateway needs. All fields without a default are required.
type Config struct {
	Cache     Cache
	Ledger    Ledger
	Orders    Orders
	Publisher Publisher
	Snapshot  catalogue.Snapshot
	Catalog   catalogue.Catalog
	Load      catalogue.LoadFunc
	Search    orders.SearchFunc // reads topics, for timelines; nil = they have none of them
	Heal      stockops.HealFunc

	Keys     []web.Key    // of the configuration, beside those of the store
	KeyStore *keys.Store  // who may call
	Trail    *audit.Trail // of what is changed
	Tokens   *token.Ring  // checks purchase tokens, and issues them; nil = none
	IDKey    []byte       // makes reservation IDs; at least 16 bytes, the same on every gateway, never changed during a sale

	SnapshotAge    time.Duration // how old Snapshot may be, on any gateway; a change of state answers after it; default 1 s
	CacheTimeout   time.Duration // how long a request waits for Redis; default 800 ms
	PublishTimeout time.Duration // and for Kafka; default 2 s
	StoreTimeout   time.Duration // and for MySQL; default 2 s
	AnswerIn       time.Duration // how long a request with a key or token waits for all of them together; default PublishTimeout + 0.5 s, so that the answer is there within 3 s
	AdminTimeout   time.Duration // and for a change of the catalogue with its loading of Redis; default 60 s
	MaxInFlight    int           // requests served at once, long polls not counted; more are answered 503; default 4096
	MaxWaiting     int           // long polls at once; more are answered 429; default 8192

	Now        func() time.Time // required; for metrics and connection deadlines, never for a decision
	Log        *slog.Logger     // panics, and one fault a second; default: discarded
	Registerer prometheus.Registerer
	Tracer     web.Tracer // nil = none
}

// Gateway serves the API. It is an http.Handler; make one with New.
type Gateway struct {
	cfg            Config
	catalogue      *catalogue.Catalogue
	mux            *web.Mux
	base32         *base32.Encoding
	macs           sync.Pool // of *keyed
	busy           *web.Slots
	waiting        *web.Slots
	cacheSeconds   prometheus.Observer // seconds of a reservation in Redis
	publishSeconds prometheus.Observer // and until Kafka's acknowledgement
	cacheLimit     limit
	publishLimit   limit
	admitted       prometheus.Counter
	drained        chan struct{}
	drain          func() // closes drained, once
}

// New makes a gateway. It returns an error that names the field when cfg is
// not usable.
func New(cfg Config) (*Gateway, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	stages := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "seckill_gateway_reserve_stage_seconds", Buckets: web.Buckets(),
		Help: "Time of a reservation in Redis (cache) and until Kafka's acknowledgement (publish).",
	}, []string{"stage"})
	g := &Gateway{
		cfg:            cfg,
		base32:         base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding),
		macs:           sync.Pool{New: func() any { return &keyed{Hash: hmac.New(sha256.New, cfg.IDKey)} }},
		busy:           web.NewSlots(cfg.MaxInFlight),
		waiting:        web.NewSlots(cfg.MaxWaiting),
		cacheSeconds:   stages.WithLabelValues("cache"),
		publishSeconds: stages.WithLabelValues("publish"),
		cacheLimit:     limit{after: cfg.CacheTimeout},
		publishLimit:   limit{after: cfg.PublishTimeout},
		drained:        make(chan struct{}),
		admitted: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "seckill_gateway_admitted_total",
			Help: "Reservations asked for that came as far as Redis: by a known caller, well-formed, of a product on sale.",
		}),
	}
	g.drain = sync.OnceFunc(func() { close(g.drained) })
	waiting := g.waiting.Gauge("seckill_gateway_waiting_requests", "Long polls that wait.")
	if err := web.Register(cfg.Registerer, stages, waiting, g.admitted); err != nil {
		return nil, err
	}
	g.catalogue = catalogue.New(catalogue.Config{
		Catalog: cfg.Catalog, Snapshot: cfg.Snapshot, Cache: cfg.Cache, Load: cfg.Load,
		SnapshotAge: cfg.SnapshotAge, StoreTimeout: cfg.StoreTimeout, AdminTimeout: cfg.AdminTimeout, Now: cfg.Now,
	})
	var err error
	g.mux, err = web.New(web.Config{
		Keys: cfg.Keys, KeyStore: cfg.KeyStore, Tokens: cfg.Tokens, InFlight: g.busy, AnswerIn: cfg.AnswerIn, Now: cfg.Now, Log: cfg.Log, Registerer: cfg.Registerer, Tracer: cfg.Tracer,
	}, g.Routes())
	return g, err
}

// Routes lists the operations and who may use them.
func (g *Gateway) Routes() []web.Route {
	const (
		reservations = catalogue.OneProduct + "/reservations"
		reservation  = reservations + "/{reservation}"
	)
	buyers := []web.Role{web.Service, web.Buyer}
	all := append(buyers, web.Viewers()...)
	routes := slices.Concat(docs.Routes(), g.catalogue.Routes(), g.access().Routes(), g.stockops().Routes(), g.orders().Routes())
	return append(routes,
		web.Route{Name: "CreateReservation", Method: "POST", Path: reservations, Roles: buyers, Handle: g.reserve},
		web.Route{Name: "GetReservation", Method: "GET", Path: reservation, Roles: all, Polls: true, Handle: g.getReservation},
		web.Route{Name: "ListReservations", Method: "GET", Path: reservations, Roles: append([]web.Role{web.Service}, web.Viewers()...), Handle: g.listReservations},
		web.Route{Name: "WatchReservation", Method: "GET", Path: reservation + "/events", Roles: all, Polls: true, Handle: g.watch},
		web.Route{Name: "FindReservation", Method: "GET", Path: "/v1/reservations/{reservation}", Roles: web.Viewers(), Handle: g.findReservation},
		web.Route{Name: "DeductReservation", Method: "POST", Path: reservation + "/deduct", Roles: web.Operators(), Handle: g.deduct},
		web.Route{Name: "CancelReservation", Method: "POST", Path: reservation + "/cancel", Roles: buyers, Handle: g.cancel},
	)
}

// stockops serves the units of the products.
func (g *Gateway) stockops() *stockops.StockOps {
	return stockops.New(stockops.Config{
		Ledger: g.cfg.Ledger, Cache: g.cfg.Cache, Catalog: g.cfg.Catalog, Load: g.cfg.Load, Heal: g.cfg.Heal,
		Timeout: g.cfg.AdminTimeout, Now: g.cfg.Now,
	})
}

// orders serves what was bought, and the way of a reservation to there.
func (g *Gateway) orders() *orders.Orders {
	return orders.New(orders.Config{
		Orders: g.cfg.Orders, Ledger: g.cfg.Ledger, Products: g.cfg.Catalog, Publisher: g.cfg.Publisher, Search: g.cfg.Search,
		StoreTimeout: g.cfg.StoreTimeout, PublishTimeout: g.cfg.PublishTimeout, ExportTimeout: g.cfg.AdminTimeout, Now: g.cfg.Now,
	})
}

// access serves tokens, keys and the audit trail.
func (g *Gateway) access() *access.Access {
	return access.New(access.Config{
		Keys: g.cfg.KeyStore, Trail: g.cfg.Trail, Tokens: g.cfg.Tokens, Product: g.catalogue.Named,
		Timeout: g.cfg.StoreTimeout, Now: g.cfg.Now,
	})
}

// ServeHTTP answers one request.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) { g.mux.ServeHTTP(w, r) }

// Server returns an http.Server for g with the limits of package web. Its
// Shutdown also ends the long polls: each answers at once with what it knows,
// so that a drain takes no longer than the requests in flight.
func (g *Gateway) Server() *http.Server {
	server := web.Server(g, g.cfg.Log)
	server.RegisterOnShutdown(g.drain)
	return server
}

// complete fills in the defaults and reports what is missing.
func (c *Config) complete() error {
	for _, need := range []struct {
		name string
		ok   bool
	}{
		{"Cache", c.Cache != nil},
		{"Ledger", c.Ledger != nil},
		{"Orders", c.Orders != nil},
		{"Publisher", c.Publisher != nil},
		{"Snapshot", c.Snapshot != nil},
		{"Catalog", c.Catalog != nil},
		{"Load", c.Load != nil},
		{"Heal", c.Heal != nil},
		{"Now", c.Now != nil},
		{"KeyStore", c.KeyStore != nil},
		{"Trail", c.Trail != nil},
		{"IDKey (at least 16 bytes)", len(c.IDKey) >= 16},
	} {
		if !need.ok {
			return errors.New("gateway: Config needs " + need.name)
		}
	}
	c.CacheTimeout = orDefault(c.CacheTimeout, 800*time.Millisecond)
	c.SnapshotAge = orDefault(c.SnapshotAge, time.Second)
	c.PublishTimeout = orDefault(c.PublishTimeout, 2*time.Second)
	c.StoreTimeout = orDefault(c.StoreTimeout, 2*time.Second)
	c.AnswerIn = orDefault(c.AnswerIn, c.PublishTimeout+500*time.Millisecond)
	c.AdminTimeout = orDefault(c.AdminTimeout, time.Minute)
	c.MaxInFlight = orDefault(c.MaxInFlight, 4096)
	c.MaxWaiting = orDefault(c.MaxWaiting, 8192)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

func orDefault[T int | time.Duration](v, standard T) T {
	if v <= 0 {
		return standard
	}
	return v
}
