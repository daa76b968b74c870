package simulator

import (
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/leadingpeers/seckill/internal/simulator/memory"
	"github.com/leadingpeers/seckill/pkg/events"
	"github.com/leadingpeers/seckill/pkg/order"
	"github.com/leadingpeers/seckill/pkg/stock"
)

// step is one decision of the scheduler: somebody's next effect, something new,
// or a fault.
func (s *Simulator) step() {
	s.pass(time.Duration(1+s.n(20)) * time.Millisecond)
	if len(s.late) > 0 && s.one(12) {
		s.arriveLate(s.n(len(s.late)))
	}
	if len(s.tasks) > 0 && (len(s.tasks) > 10 || s.n(10) < 6) {
		s.run(s.n(len(s.tasks)))
		s.check()
		return
	}
	switch n := s.n(40); {
	case n < 9:
		s.buy()
	case n < 22:
		s.consumeSome()
	case n < 29:
		s.serve()
	case n < 33:
		s.checkout()
	case n < 35:
		s.wait()
	default:
		s.misfortune()
	}
	s.check()
}

// pass lets time go by. What Redis holds is durable after a second.
func (s *Simulator) pass(d time.Duration) {
	if d >= time.Second || s.clock.Sub(s.synced) > time.Second || s.one(30) {
		s.redis.Sync()
		s.synced = s.clock
	}
	s.clock = s.clock.Add(d)
}

// wait lets a longer time go by.
func (s *Simulator) wait() {
	d := [...]time.Duration{time.Second, 6 * time.Second, 70 * time.Second, 16 * time.Minute}[s.n(4)]
	s.say("%s pass", d)
	s.pass(d)
}

// arriveLate lets what was delayed arrive.
func (s *Simulator) arriveLate(i int) {
	l := s.late[i]
	s.late = slices.Delete(s.late, i, i+1)
	s.say("late comes: %s", l.what)
	l.effect()
}

// serve starts a background service of a worker.
func (s *Simulator) serve() {
	p := s.procs[s.n(gateway)]
	if p.index == stockB && p.healer == nil {
		return // this run has one stock-worker that heals and reaps
	}
	svc := s.service(p)
	if p.busy[svc.flag] {
		return
	}
	p.busy[svc.flag] = true
	s.start(p, svc.name, func() {
		_, err := svc.step(forever())
		s.sayErr(svc.name, err)
	}, func() { p.busy[svc.flag] = false })
}

// buy lets a buyer ask for a reservation, a new one or one they know of.
func (s *Simulator) buy() {
	w := &s.world
	i := len(w.asked)
	if i > 0 && (i == s.plan.reservations || s.one(3)) {
		i = s.n(i)
	} else {
		w.asked = append(w.asked, asked{want: stock.Reservation{
			ID: s.names.reservations[i], ActivityID: "sale", ProductID: s.products[s.n(len(s.products))],
			UserID: s.names.users[s.n(len(s.names.users))], Quantity: int64(1 + s.n(5)/3),
		}})
	}
	want := w.asked[i].want
	s.start(s.procs[gateway], "reserve", func() {
		for range 1 + s.n(3) { // the buyer's client tries again, or gives up
			if s.reserve(want) {
				s.say("  202 for %s", want.ID[:4])
				w.asked[i].accepted = true
				return
			}
		}
	}, nil)
}

// reserve is gateway.reserve: 202 is true.
func (s *Simulator) reserve(want stock.Reservation) bool {
	got, _, err := cacheWire{s}.Reserve(want)
	var no stock.Refusal
	switch {
	case errors.As(err, &no):
		s.say("  %s is refused: %s", want.ID[:4], no)
		return false
	case err != nil:
		return false
	case got.State != stock.Pending:
		return true
	}
	err = logWire{s}.Publish(forever(), events.Event{
		Type: events.ReservationCreated, Time: got.At, ReservationID: got.ID, ActivityID: got.ActivityID,
		ProductID: got.ProductID, UserID: got.UserID, Quantity: got.Quantity,
	})
	return err == nil || s.mutant == memory.AckFirst
}

// checkout plays the buyers and their money: they pay, twice, late, too little,
// not at all; they cancel.
func (s *Simulator) checkout() {
	orders := s.mysql.Orders()
	if len(orders) == 0 {
		return
	}
	o := orders[s.n(len(orders))]
	switch n := s.n(8); {
	case n < 4:
		s.pay(o)
	case n == 4:
		s.tell(events.Event{Type: events.PaymentFailed, ReservationID: o.ReservationID})
	case n == 5 && s.plan.hostile:
		s.world.forged = true
		s.count("wrong amount")
		s.kafka.Append(memory.Record{Hostile: true, Event: events.Event{
			Type: events.PaymentSucceeded, Time: s.clock, ReservationID: o.ReservationID, PaymentRef: "short", AmountCents: 1, Currency: "CNY",
		}})
	case n == 6:
		s.start(s.procs[gateway], "cancel", func() {
			_, err := orderWire{s}.Cancel(forever(), o.ReservationID, "cancelled", announcement)
			s.sayErr("cancel", err)
		}, nil)
	}
}

// pay tells of a payment under a new reference.
func (s *Simulator) pay(o order.Order) {
	s.world.refs++
	ref := "ref-" + strconv.Itoa(s.world.refs)
	s.world.payments = append(s.world.payments, payment{ref: ref, reservation: o.ReservationID})
	s.tell(events.Event{Type: events.PaymentSucceeded, ReservationID: o.ReservationID, PaymentRef: ref, AmountCents: o.AmountCents, Currency: o.Currency})
}

// tell writes an event of the checkout, which keeps it until Kafka has it.
func (s *Simulator) tell(e events.Event) {
	e.Time = s.clock
	s.say("the checkout tells %s", e.ID())
	s.kafka.Append(memory.Record{Event: e})
}

// announcement is what gateway.announceCancelled makes.
func announcement(o order.Order) []order.Message {
	e := events.Event{
		Type: events.OrderCancelled, ReservationID: o.ReservationID, ActivityID: o.ActivityID, ProductID: o.ProductID,
		UserID: o.UserID, Quantity: o.Quantity, Reason: o.Reason, OrderID: o.ID, AmountCents: o.AmountCents, Currency: o.Currency,
	}
	back := e
	back.Type, back.OrderID, back.AmountCents, back.Currency = events.StockRollback, "", 0, ""
	var out []order.Message
	for _, e := range []events.Event{e, back} {
		body, err := events.Encode(e)
		if err != nil {
			panic(err)
		}
		out = append(out, order.Message{Type: string(e.Type), Body: body})
	}
	return out
}

func (s *Simulator) sayErr(what string, err error) {
	if err != nil {
		s.say("  %s: %v", what, err)
	}
}

func (s *Simulator) sayRows(what string, rows []stock.Reservation) {
	if s.verbose() {
		for _, r := range rows {
			s.say("    %s %s of %s: %d %s %s", what, r.ID[:4], r.UserID, r.Quantity, r.State, r.Reason)
		}
	}
}
