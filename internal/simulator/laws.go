package simulator

import (
	"fmt"

	"github.com/leadingpeers/seckill/pkg/catalog"
	"github.com/leadingpeers/seckill/pkg/events"
	"github.com/leadingpeers/seckill/pkg/order"
	"github.com/leadingpeers/seckill/pkg/stock"
)

// touch notes that a store has changed, so that the laws are checked.
func (s *Simulator) touch() { s.world.dirty = true }

// told notes what the topic of orders says.
func (s *Simulator) told(e events.Event) {
	if e.Topic() != events.Orders {
		return
	}
	w := &s.world
	for i := range w.payments {
		if w.payments[i].ref == e.PaymentRef && (e.Type == events.OrderPaid || e.Type == events.OrderRefundDue) {
			w.payments[i].answered = true
		}
	}
	i := 0
	for i < len(w.facts) && w.facts[i].reservation != e.ReservationID {
		i++
	}
	if i == len(w.facts) {
		w.facts = append(w.facts, fact{reservation: e.ReservationID})
	}
	f := &w.facts[i]
	f.created = f.created || e.Type == events.OrderCreated
	f.paid = f.paid || e.Type == events.OrderPaid
	f.cancelled = f.cancelled || e.Type == events.OrderCancelled
}

// check checks what must hold at every instant, when something has changed.
func (s *Simulator) check() {
	s.effects++
	if !s.world.dirty || s.violation != "" {
		return
	}
	s.world.dirty = false
	s.checkLedger()
	s.checkOrders()
	s.checkRedis()
}

// checkLedger checks S1, S2, S3, S5 and S6 of the ledger.
func (s *Simulator) checkLedger() {
	rows := s.mysql.Rows()
	s.mysql.Products(func(p *catalog.Product) {
		deducted := int64(0)
		for i := range rows {
			if rows[i].ProductID == p.ID && rows[i].State == stock.Deducted {
				deducted += rows[i].Quantity
			}
		}
		if p.Available < 0 || p.Available+deducted != p.Total {
			s.violate(fmt.Sprintf("S1: %s: %d available + %d deducted, total %d", p.ID, p.Available, deducted, p.Total))
		}
		for _, user := range s.names.users {
			if held := s.held(p.ID, user); held > p.PerUser {
				s.violate(fmt.Sprintf("S2: %s holds %d of %s, the limit is %d", user, held, p.ID, p.PerUser))
			}
		}
	})
	for i := range rows {
		for j := range rows[:i] {
			if rows[i].ID == rows[j].ID {
				s.violate("S3: two rows of " + rows[i].ID[:4])
			}
		}
		s.checkState(i, rows[i].Reservation)
	}
}

// held is what the ledger has a buyer hold.
func (s *Simulator) held(product, user string) (units int64) {
	for _, r := range s.mysql.Rows() {
		if r.UserID == user && r.ProductID == product && r.State == stock.Deducted {
			units += r.Quantity
		}
	}
	return units
}

// checkState compares a row with what it was when last seen.
func (s *Simulator) checkState(i int, row stock.Reservation) {
	w := &s.world
	if i == len(w.states) {
		w.states = append(w.states, row.State)
		return
	}
	was := w.states[i]
	w.states[i] = row.State
	if was == row.State {
		return
	}
	if was != stock.Deducted {
		s.violate(fmt.Sprintf("S6: %s was %s and is %s", row.ID[:4], was, row.State))
	}
	if o := s.orderOf(row.ID); row.State == stock.RolledBack && (o == nil || o.State != order.Cancelled) {
		s.violate(fmt.Sprintf("S5: %s is rolled back and its order is not cancelled", row.ID[:4]))
	}
}

func (s *Simulator) orderOf(reservation string) *order.Order {
	orders := s.mysql.Orders()
	for i := range orders {
		if orders[i].ReservationID == reservation {
			return &orders[i]
		}
	}
	return nil
}

func (s *Simulator) rowOf(id string) *stock.Reservation {
	rows := s.mysql.Rows()
	for i := range rows {
		if rows[i].ID == id {
			return &rows[i].Reservation
		}
	}
	return nil
}

// checkOrders checks S3, S4 and S6 of the orders.
func (s *Simulator) checkOrders() {
	w := &s.world
	for i, o := range s.mysql.Orders() {
		if o.State == order.Paid {
			if r := s.rowOf(o.ReservationID); r == nil || r.State != stock.Deducted {
				s.violate(fmt.Sprintf("S4: %s is paid and not deducted", o.ReservationID[:4]))
			}
		}
		for _, other := range s.mysql.Orders()[:i] {
			if other.ReservationID == o.ReservationID {
				s.violate("S3: two orders of " + o.ReservationID[:4])
			}
		}
		if i == len(w.orders) {
			w.orders = append(w.orders, o.State)
		}
		if was := w.orders[i]; was != o.State && was != order.AwaitingPayment {
			s.violate(fmt.Sprintf("S6: the order of %s was %s and is %s", o.ReservationID[:4], was, o.State))
		}
		w.orders[i] = o.State
	}
}

// checkRedis checks that Redis adds up by itself.
func (s *Simulator) checkRedis() {
	for _, p := range s.products {
		c, err := s.redis.Counts(p)
		if err != nil {
			continue
		}
		if total := s.redis.Total(p); c.Surplus+c.Pending+c.Deducted != total || c.Broken > 0 {
			s.violate(fmt.Sprintf("S1: %s in Redis: surplus %d + pending %d + deducted %d, total %d; %d broken fields",
				p, c.Surplus, c.Pending, c.Deducted, total, c.Broken))
		}
		if c.Surplus < 0 && !s.world.lossy && !s.world.touched {
			s.violate(fmt.Sprintf("S1: %s: surplus %d though Redis has lost nothing", p, c.Surplus))
		}
	}
}
