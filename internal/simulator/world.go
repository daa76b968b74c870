package simulator

import (
	"context"
	"time"

	"github.com/leadingpeers/seckill/internal/settleworker"
	"github.com/leadingpeers/seckill/internal/simulator/memory"
	"github.com/leadingpeers/seckill/internal/stockworker"
	"github.com/leadingpeers/seckill/pkg/catalog"
	"github.com/leadingpeers/seckill/pkg/events"
	"github.com/leadingpeers/seckill/pkg/order"
	"github.com/leadingpeers/seckill/pkg/stock"
)

// The processes of a run: two of each worker and one gateway.
const (
	stockA = iota
	stockB
	settleA
	settleB
	gateway
	processes
)

// process is one process. Killing it ends its tasks and makes it anew.
type process struct {
	name  string
	index int
	busy  [3]bool // which of its background services is in the middle of a step

	reaper *stockworker.Reaper
	healer *stockworker.Healer

	expirer *settleworker.Expirer
	relay   *settleworker.Relay
	sweeper *settleworker.Sweeper
}

func (s *Simulator) newProcess(i int) *process {
	p := &process{index: i, name: [processes]string{"stock-worker A", "stock-worker B", "settle-worker A", "settle-worker B", "gateway"}[i]}
	if i == settleA || i == settleB { // these remember nothing from one step to the next
		p.expirer = settleworker.NewExpirer(orderWire{s}, settleworker.ExpirerConfig{})
		p.relay = settleworker.NewRelay(orderWire{s}, logWire{s}, settleworker.RelayConfig{Now: s.now})
	}
	return p
}

func (s *Simulator) now() time.Time { return s.clock }

// begin gives a process the memory of a new one.
func (s *Simulator) begin(p *process) {
	p.busy = [3]bool{}
	if p.index == stockA || p.index == stockB {
		var log stockworker.Publisher = logWire{s}
		if s.mutant == memory.NoReaper {
			log = nowhere{}
		}
		p.reaper = stockworker.NewReaper(catalogueWire{s}, cacheWire{s}, log, stockworker.ReaperConfig{Parallel: 1, Queue: logWire{s}.queue(events.Reservations), Now: s.now})
		p.healer = stockworker.NewHealer(catalogueWire{s}, s.newShelf(), stockworker.HealerConfig{Parallel: 1, Now: s.now})
	}
	if p.index == settleA || p.index == settleB {
		p.sweeper = settleworker.NewSweeper(orderWire{s}, logWire{s}, settleworker.SweeperConfig{
			Repeat:     time.Nanosecond, // each step may publish, so that more of them do
			Deductions: logWire{s}.queue(events.Deductions), Rollbacks: logWire{s}.queue(events.Rollbacks), Now: s.now,
		})
	}
}

// nowhere is a Publisher that lies.
type nowhere struct{}

func (nowhere) Publish(context.Context, ...events.Event) error { return nil }

// service is a background service of a process: which of its busy flags it
// has, its name and its step.
type service struct {
	flag int
	name string
	step func(context.Context) (bool, error)
}

// service draws one of the services of a process.
func (s *Simulator) service(p *process) service {
	switch {
	case p.index > stockB:
	case s.one(2):
		return service{0, "healer", p.healer.Step}
	default:
		return service{1, "reaper", p.reaper.Step}
	}
	switch n := s.n(4); {
	case n == 0:
		return service{0, "expirer", p.expirer.Step}
	case n == 1 && s.mutant != memory.NoSweeper:
		return service{1, "sweeper", p.sweeper.Step}
	case s.mutant == memory.NoRelay:
		return service{0, "expirer", p.expirer.Step}
	}
	return service{2, "relay", p.relay.Step}
}

// plan is what a seed wants of a run.
type plan struct {
	steps, reservations int
	kills, losses       bool // of processes, of Redis's memory
	forgets, rewinds    bool // Kafka: records, offsets
	disorder, outages   bool
	operator, hostile   bool
}

// world is what is known of a run beside the stores, to judge it by.
type world struct {
	asked    []asked
	payments []payment
	dead     []string // records among the dead letters that should not be there
	states   []stock.State
	orders   []order.State
	facts    []fact
	ops      int
	refs     int

	lossy   bool // Redis has lost something
	touched bool // an operator has taken stock away
	forged  bool // somebody has forged events
	forgot  bool // Kafka has lost the event of a reservation
	dirty   bool
}

// asked is a reservation that a buyer has asked for.
type asked struct {
	want     stock.Reservation
	accepted bool // 202
	unheard  bool // Kafka has lost its event
}

// payment is money that a checkout has taken and told of.
type payment struct {
	ref, reservation string
	answered         bool
}

// fact is what the topic of orders says of a reservation.
type fact struct {
	reservation              string
	created, paid, cancelled bool
}

// reset makes everything new for the run of a seed.
func (s *Simulator) reset(seed uint64) {
	s.source.Seed(seed, 0x5ec1)
	s.clock = memory.UnixEpoch()
	s.synced = s.clock
	s.late, s.violation, s.ending = s.late[:0], "", false
	s.down = [servers]bool{}
	clear(s.locks)
	w := &s.world
	*w = world{
		asked: w.asked[:0], payments: w.payments[:0], dead: w.dead[:0], states: w.states[:0], orders: w.orders[:0], facts: w.facts[:0],
	}
	s.plan = plan{
		steps: 60 + s.n(140), reservations: 2 + s.n(9),
		kills: s.one(2), losses: s.one(2), forgets: s.one(4), rewinds: s.one(3),
		disorder: s.one(3), outages: s.one(3), operator: s.one(4), hostile: s.one(5),
	}
	s.budget, s.rate = s.n(9), 2+s.n(25)
	s.products = s.names.products[:1+s.n(4)/3]
	s.stock()
	s.begin(s.procs[stockA])
	if s.procs[stockB].healer = nil; s.one(3) {
		s.begin(s.procs[stockB])
	}
	s.begin(s.procs[settleA])
	s.begin(s.procs[settleB])
	s.kafka.Reset()
	for i, p := range s.kafka.Partitions() {
		p.Owner = i % 2
	}
	s.touch()
	s.say("seed %d: %+v", seed, s.plan)
	for _, p := range s.procs[:settleA] {
		if p.healer != nil { // all is well before the first fault, and it knows that
			s.heal(p)
		}
	}
}

// stock opens the sale.
func (s *Simulator) stock() {
	activity := catalog.Activity{
		ID: "sale", Name: "Sale", State: catalog.Online, PayWindow: 15 * time.Minute,
		StartsAt: s.clock.Add(-time.Hour), EndsAt: s.clock.Add(100 * time.Hour),
	}
	var products []catalog.Product
	for _, id := range s.products {
		products = append(products, catalog.Product{
			ID: id, ActivityID: "sale", Name: id, Channel: "source", PriceCents: 100, Currency: "CNY",
			Total: int64(1 + s.n(6)), PerOrder: 2, PerUser: int64(2 + s.n(2)),
		})
	}
	s.mysql.Reset(s.mutant, activity, products...)
	s.redis.Reset(s.mutant)
	if !s.one(4) { // else the healers warm it up
		for _, p := range products {
			s.redis.Preload(stock.Terms{
				ProductID: p.ID, PerOrder: p.PerOrder, PerUser: p.PerUser, OnSale: true,
				StartsAt: activity.StartsAt, EndsAt: activity.EndsAt, Total: p.Total,
			}, p.Total, nil)
		}
	}
	s.redis.Sync()
}
