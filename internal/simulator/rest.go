package simulator

import (
	"fmt"
	"time"

	"github.com/leadingpeers/seckill/internal/simulator/memory"
	"github.com/leadingpeers/seckill/pkg/catalog"
	"github.com/leadingpeers/seckill/pkg/events"
	"github.com/leadingpeers/seckill/pkg/order"
	"github.com/leadingpeers/seckill/pkg/stock"
)

// calm ends all faults: the servers are back, what is on its way arrives, what
// has begun comes to its end, in any order.
func (s *Simulator) calm() {
	s.say("the faults are over")
	s.down, s.budget, s.ending = [servers]bool{}, 0, true
	for len(s.late) > 0 {
		s.arriveLate(s.n(len(s.late)))
		s.check()
	}
	for len(s.tasks) > 0 {
		s.run(s.n(len(s.tasks)))
		s.check()
	}
	for i := range s.world.asked {
		if a := &s.world.asked[i]; a.unheard && s.rowOf(a.want.ID) == nil {
			if _, err := s.redis.Find(a.want.ProductID, a.want.UserID, a.want.ID); err != nil {
				a.accepted = false // Kafka and Redis have both forgotten: nobody can know
			}
		}
	}
	s.mysql.SetState(catalog.Online)
	s.tell(events.Event{Type: events.ChannelResumed, Channel: "source"})
}

// rest lets time pass without faults and checks, at their times, the laws of
// liveness and of rest.
func (s *Simulator) rest() {
	since := s.clock
	for _, after := range []time.Duration{0, time.Second, 7 * time.Second, 18 * time.Second, 29 * time.Second} {
		s.until(since.Add(after), false)
	}
	s.checkAccepted()
	s.until(since.Add(75*time.Second), true)
	s.until(since.Add(140*time.Second), true)
	s.checkDrift()
	s.until(since.Add(140*time.Second+15*time.Minute), false)
	s.until(s.clock.Add(2*time.Second), false)
	s.checkEnds()
	s.checkTold()
	s.checkAgreement()
	s.checkSelling()
}

// until lets time pass up to an instant, at which every service has its turn,
// the Sweeper only once a minute.
func (s *Simulator) until(at time.Time, sweep bool) {
	if s.violation != "" {
		return
	}
	s.clock = at
	s.redis.Sync()
	if s.verbose() {
		s.say("quiet at %s", at.Sub(memory.UnixEpoch()))
	}
	for _, p := range s.procs[:settleA] {
		if p.healer != nil {
			s.heal(p)
		}
	}
	s.drain()
	_, err := s.procs[stockA].reaper.Step(forever())
	s.sayErr("reaper", err)
	if sweep && s.mutant != memory.NoSweeper {
		_, err := s.procs[settleB].sweeper.Step(forever())
		s.sayErr("sweeper", err)
	}
	s.drain()
	s.check()
}

func (s *Simulator) heal(p *process) {
	_, err := p.healer.Step(forever())
	s.sayErr("healer", err)
}

// drain handles everything that is under way, and what follows from it.
func (s *Simulator) drain() {
	settle := s.procs[settleA]
	_, err := settle.expirer.Step(forever())
	s.sayErr("expirer", err)
	for range 20 {
		busy := false
		if s.mutant != memory.NoRelay && s.mysql.Outbox() > 0 {
			_, err = settle.relay.Step(forever())
			s.sayErr("relay", err)
		}
		for _, p := range s.kafka.Partitions() {
			if p.Waiting() > 0 {
				busy = s.deliver(&delivery{part: p, gen: p.Gen}) || busy
				s.check()
			}
		}
		if !busy || s.violation != "" {
			return
		}
	}
}

// checkAccepted checks L1: whoever was accepted is in the ledger.
func (s *Simulator) checkAccepted() {
	for i := range s.world.asked {
		if a := &s.world.asked[i]; a.accepted && s.rowOf(a.want.ID) == nil {
			s.violate(fmt.Sprintf("L1: %s was accepted and is not in the ledger 29 s after the last fault", a.want.ID[:4]))
		}
	}
}

// checkDrift checks L5: surplus + pending = available.
func (s *Simulator) checkDrift() {
	s.mysql.Products(func(p *catalog.Product) {
		c, err := s.redis.Counts(p.ID)
		if drift := c.Surplus + c.Pending - p.Available; err != nil || drift != 0 {
			s.violate(fmt.Sprintf("L5: the drift of %s is %d 140 s after the last fault (%v)", p.ID, drift, err))
		}
	})
}

// checkEnds checks L3, S7 and S9: everything is paid or released.
func (s *Simulator) checkEnds() {
	w := &s.world
	for i := range w.asked {
		a := &w.asked[i]
		row, o := s.rowOf(a.want.ID), s.orderOf(a.want.ID)
		switch {
		case row == nil && !a.accepted:
		case row == nil:
			s.violate(fmt.Sprintf("S7: %s was accepted and is nowhere", a.want.ID[:4]))
		case row.State == stock.Deducted && o != nil && o.State == order.Paid:
		case row.State == stock.RolledBack && o != nil && o.State == order.Cancelled:
		case row.State == stock.RolledBack && o == nil && w.forged:
		case row.State == stock.Refused && o == nil:
			if a.accepted && !w.lossy && !w.touched && !w.forged {
				s.violate(fmt.Sprintf("S9: %s was accepted and is refused (%s) though Redis has lost nothing", a.want.ID[:4], row.Reason))
			}
		default:
			s.violate(fmt.Sprintf("S7: %s ends as %s with the order %+v", a.want.ID[:4], row.State, o))
		}
	}
}

// checkTold checks that the checkout has heard how each order ended and what
// became of its money, and that no honest record is among the dead letters.
func (s *Simulator) checkTold() {
	w := &s.world
	for _, o := range s.mysql.Orders() {
		f := fact{}
		for _, known := range w.facts {
			if known.reservation == o.ReservationID {
				f = known
			}
		}
		if o.State == order.Paid && !f.paid || o.State == order.Cancelled && !f.cancelled {
			s.violate(fmt.Sprintf("T1: nobody has told that the order of %s is %s", o.ReservationID[:4], o.State))
		}
	}
	for _, p := range w.payments {
		if !p.answered {
			s.violate(fmt.Sprintf("T2: the payment %s of %s has neither paid nor is it due back", p.ref, p.reservation[:4]))
		}
	}
	if len(w.dead) > 0 {
		s.violate("T3: among the dead letters is " + w.dead[0])
	}
	if n := s.mysql.Outbox(); n > 0 {
		s.violate(fmt.Sprintf("T4: %d messages wait in the outbox", n))
	}
}

// checkAgreement checks S8: Redis is a function of the ledger.
func (s *Simulator) checkAgreement() {
	s.mysql.Products(func(p *catalog.Product) {
		c, err := s.redis.Counts(p.ID)
		if err != nil || c.Surplus != p.Available || c.Pending != 0 || c.Open != 0 {
			s.violate(fmt.Sprintf("S8: %s in Redis: %+v, %v; the ledger has %d available", p.ID, c, err, p.Available))
		}
		rows := 0
		for _, r := range s.mysql.Rows() {
			if r.ProductID != p.ID {
				continue
			}
			rows++
			want := stock.RolledBack
			if r.State == stock.Deducted {
				want = stock.Deducted
			}
			if got, err := s.redis.Find(p.ID, r.UserID, r.ID); err != nil || got.State != want {
				s.violate(fmt.Sprintf("S8: %s is %s in the ledger and %q in Redis (%v)", r.ID[:4], r.State, got.State, err))
			}
		}
		if c.Reservations != rows {
			s.violate(fmt.Sprintf("S8: %d reservations of %s in Redis, %d in the ledger", c.Reservations, p.ID, rows))
		}
	})
}

// checkSelling checks L4: what is left can be bought.
func (s *Simulator) checkSelling() {
	s.mysql.Products(func(p *catalog.Product) {
		if p.Available == 0 || s.violation != "" {
			return
		}
		_, _, err := s.redis.Reserve(stock.Reservation{ID: s.names.reservations[len(s.names.reservations)-1], ProductID: p.ID, UserID: "last", Quantity: 1})
		if err != nil {
			s.violate(fmt.Sprintf("L4: %d of %s are left and cannot be bought: %v", p.Available, p.ID, err))
		}
	})
}
