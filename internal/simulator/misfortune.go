package simulator

import (
	"fmt"
	"strconv"
	"time"

	"github.com/leadingpeers/seckill/internal/simulator/memory"
	"github.com/leadingpeers/seckill/pkg/catalog"
	"github.com/leadingpeers/seckill/pkg/events"
	"github.com/leadingpeers/seckill/pkg/stock"
)

// misfortune is something that the plan has for this run and that nobody asked
// for.
func (s *Simulator) misfortune() {
	p := &s.plan
	switch n := s.n(16); {
	case n < 3 && p.kills:
		s.killSome()
	case n < 6 && p.losses:
		s.loseMemory()
	case n == 6 && p.forgets:
		s.forget()
	case n == 7 && p.rewinds:
		s.rewind()
	case n == 8 && p.disorder:
		s.disorder()
	case n < 11 && p.outages:
		s.outage()
	case n < 13 && p.operator:
		s.operate()
	case n < 15 && p.hostile:
		s.forge()
	case n == 15 && p.kills:
		s.rebalance()
		s.breakLocks()
	}
}

// killSome kills a process; another of its kind gets its partitions.
func (s *Simulator) killSome() {
	p := s.procs[s.n(processes)]
	s.count("kill")
	s.say("kill %s", p.name)
	s.kill(p)
	if p.busy = [3]bool{}; p.healer != nil || p.sweeper != nil {
		s.begin(p)
	}
	for _, part := range s.kafka.Partitions() {
		if p.index != gateway && s.ownerOf(part) == p.index {
			part.Rebalance(1 - part.Owner)
		}
	}
}

// rebalance takes a partition from its owner, who may be in the middle of a batch.
func (s *Simulator) rebalance() {
	parts := s.kafka.Partitions()
	p := parts[s.n(len(parts))]
	s.count("rebalance")
	s.say("%s goes to another member", p.Topic)
	p.Rebalance(1 - p.Owner)
}

// loseMemory lets Redis lose its last second, one product, or everything.
func (s *Simulator) loseMemory() {
	s.world.lossy = true
	switch s.n(4) {
	case 0, 1:
		s.count("Redis restarts")
		s.say("Redis restarts as of %s ago", s.clock.Sub(s.synced))
		s.redis.Restart()
	case 2:
		s.count("FLUSHALL")
		s.say("FLUSHALL")
		s.redis.FlushAll()
	case 3:
		product := s.products[s.n(len(s.products))]
		s.count("DEL")
		s.say("DEL %s", product)
		s.redis.Flush(product)
	}
	s.touch()
}

// forget lets Kafka lose a record that nobody has read.
func (s *Simulator) forget() {
	for _, p := range s.kafka.Partitions() {
		ours := p.Topic == events.Reservations || p.Topic == events.Rollbacks || p.Topic == events.Deductions
		if !ours || p.Waiting() == 0 || s.one(3) {
			continue
		}
		if e, ok := p.Lose(s.n(p.Waiting())); ok {
			s.count("Kafka forgets")
			s.say("Kafka forgets %s", e.ID())
			if e.Type == events.ReservationCreated {
				s.world.forgot = true
				s.unheard(e.ReservationID)
			}
			return
		}
	}
}

func (s *Simulator) unheard(id string) {
	for i := range s.world.asked {
		if s.world.asked[i].want.ID == id {
			s.world.asked[i].unheard = true
		}
	}
}

// rewind takes a group's position back, to the beginning or a little.
func (s *Simulator) rewind() {
	parts := s.kafka.Partitions()
	p := parts[s.n(len(parts))]
	to := 0
	if p.Position() > 0 && s.one(2) {
		to = s.n(p.Position())
	}
	s.count("rewind")
	s.say("%s from %d again", p.Topic, to)
	p.Rebalance(p.Owner)
	p.Rewind(to)
}

// disorder doubles a record or lets two change places.
func (s *Simulator) disorder() {
	parts := s.kafka.Partitions()
	p := parts[s.n(len(parts))]
	switch {
	case p.Len() > 0 && s.one(2):
		s.count("double")
		p.Double(s.n(p.Len()))
	case p.Waiting() > 1:
		if p.Swap(s.n(p.Waiting()), s.n(p.Waiting())) {
			s.count("reorder")
		}
	}
}

// outage takes a server away, or brings it back.
func (s *Simulator) outage() {
	to := server(s.n(int(servers)))
	if s.down[to] = !s.down[to]; s.down[to] {
		s.count("outage")
		if to == mysql {
			s.breakLocks()
		}
		s.say("%s is away", to)
	} else {
		s.say("%s is back", to)
	}
}

// breakLocks ends the sessions that hold the lock of a stock row. Their owners
// learn of it when they commit.
func (s *Simulator) breakLocks() {
	if len(s.locks) > 0 {
		s.count("lock lost")
		s.say("MySQL ends the sessions that hold locks")
		clear(s.locks)
	}
}

// operate lets an operator do something to a product that sells.
func (s *Simulator) operate() {
	product := s.products[s.n(len(s.products))]
	s.count("operator")
	switch s.n(5) {
	case 0, 1:
		s.restock(product)
	case 2:
		s.world.touched = true
		s.tell(events.Event{Type: [2]events.Type{events.ChannelSoldOut, events.ChannelResumed}[s.n(2)], Channel: "source"})
	case 3:
		s.world.touched = true
		s.mysql.SetState([2]catalog.ActivityState{catalog.Online, catalog.Paused}[s.n(2)])
	case 4:
		s.start(s.procs[gateway], "load "+product, func() {
			_, err := s.newShelf().Load(forever(), s.terms(product))
			s.sayErr("load", err)
		}, nil)
	}
}

// terms are those of a product in the catalogue, as the gateway makes them.
func (s *Simulator) terms(product string) stock.Terms {
	l := s.mysql.OnSale()[0]
	for _, p := range l.Products {
		if p.ID == product {
			return stock.Terms{
				ProductID: p.ID, PerOrder: p.PerOrder, PerUser: p.PerUser, OnSale: l.Activity.State == catalog.Online && !p.SoldOut,
				StartsAt: l.Activity.StartsAt, EndsAt: l.Activity.EndsAt, Total: p.Total, Restocks: p.Restocks,
			}
		}
	}
	panic("no product " + product)
}

// restock changes a total: MySQL first, then Redis, which may not hear of it.
func (s *Simulator) restock(product string) {
	s.world.ops++
	op, delta := "op-"+strconv.Itoa(s.world.ops), int64(s.n(6)-2)
	s.world.touched = s.world.touched || delta < 0
	s.start(s.procs[gateway], fmt.Sprintf("restock %s by %d", product, delta), func() {
		var no error
		err := s.transact(product, "restock", func() {
			_, no = s.mysql.Restock(product, op, delta)
			s.touch()
		})
		var terms stock.Terms
		if firstOf(err, no, s.cross(mysql, "read the product", func() { terms = s.terms(product) })) == nil {
			s.sayErr("configure", cacheWire{s}.Configure(forever(), terms))
		}
	}, nil)
}

// forge writes events that nobody of ours would write: rollbacks of what is
// sold or was never heard of, records that no repetition can cure.
func (s *Simulator) forge() {
	w := &s.world
	if len(w.asked) == 0 {
		return
	}
	w.forged = true
	r := w.asked[s.n(len(w.asked))].want
	e := events.Event{
		Type: events.StockRollback, Time: s.clock.Add(-time.Hour), ReservationID: r.ID, ActivityID: "sale",
		ProductID: r.ProductID, UserID: r.UserID, Quantity: r.Quantity, Reason: "forged",
	}
	if s.one(3) {
		e.Quantity = 2
	}
	if s.one(4) { // a record on the wrong topic, which the Consumer would not even decode
		e.Type, e.ProductID = events.StockDeducted, "unknown"
	}
	s.count("forgery")
	s.say("somebody forges %s", e.ID())
	s.kafka.Append(memory.Record{Event: e, Hostile: true})
}
