package replay

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/leadingpeers/seckill/internal/ops/kafkalog"
	"github.com/leadingpeers/seckill/pkg/events"
	"github.com/leadingpeers/seckill/pkg/order"
	"github.com/leadingpeers/seckill/pkg/stock"
)

const sampleSize = 10

// survey reads the records of a plan's ranges and fills in what they are.
type survey struct {
	desk     Desk
	since    time.Time // what the ledger remembers
	products map[string]struct{}
	plan     *Plan
}

// survey finds out what the ledger remembers.
func (d Desk) survey(ctx context.Context, w Want) (*survey, error) {
	s := &survey{desk: d, products: map[string]struct{}{}}
	if !w.LedgerComplete {
		oldest, err := d.Books.Ledger.Oldest(ctx)
		if err != nil {
			return nil, err
		}
		s.since = oldest
	}
	if w.LedgerKeeps > 0 {
		if kept := d.Now().Add(-w.LedgerKeeps); kept.After(s.since) {
			s.since = kept
		}
	}
	return s, nil
}

func (s *survey) all(ctx context.Context, p *Plan) error {
	s.plan, p.Expect.LedgerSince = p, s.since.UTC()
	for i := range p.Ranges {
		if err := s.one(ctx, &p.Ranges[i]); err != nil {
			return err
		}
	}
	for id := range s.products {
		p.Products = append(p.Products, id)
	}
	slices.Sort(p.Products)
	return nil
}

// one reads a range.
func (s *survey) one(ctx context.Context, r *Range) error {
	var batch []events.Event
	topic := s.desk.Kafka.Config().TopicName(r.Topic)
	for m, err := range s.desk.Kafka.Records(ctx, kafkalog.Stretch{Topic: topic, Partition: r.Partition, From: r.From, To: r.To}) {
		if err != nil {
			return err
		}
		e, err := events.Read(m, r.Topic)
		if err != nil {
			if s.plan.Reservation == "" {
				s.plan.Expect.NoEvents++
			}
			continue
		}
		if !s.plan.chooses(e) {
			continue
		}
		r.note(m, e)
		if batch = append(batch, e); len(batch) == order.MaxBatch {
			if err := s.look(ctx, *r, batch); err != nil {
				return err
			}
			batch = batch[:0]
		}
	}
	if s.plan.Reservation != "" && r.Last != nil { // nothing else need be read again
		r.From, r.To = r.First.Offset, r.Last.Offset+1
	}
	return s.look(ctx, *r, batch)
}

// chooses reports whether an event is of the plan.
func (p *Plan) chooses(e events.Event) bool {
	return p.Reservation == "" || e.ReservationID == p.Reservation
}

// note counts an event of the range.
func (r *Range) note(m kafka.Message, e events.Event) {
	mark := &Mark{Offset: m.Offset, At: e.Time, Type: e.Type, Reservation: e.ReservationID}
	if r.First == nil {
		r.First = mark
	}
	r.Last = mark
	r.Events++
}

// look asks the stores what has become of the events' reservations.
func (s *survey) look(ctx context.Context, r Range, batch []events.Event) error {
	var ids []string
	for _, e := range batch {
		ids = append(ids, e.ReservationID)
		if e.ProductID != "" {
			s.products[e.ProductID] = struct{}{}
		}
	}
	if len(ids) == 0 {
		return nil
	}
	x := &s.plan.Expect
	x.Events += int64(len(ids))
	if !s.desk.ours(r) || r.Topic == events.Channels {
		x.Unknown += int64(len(ids))
		return nil
	}
	rows, err := s.desk.Books.Ledger.FindAll(ctx, ids)
	if err != nil {
		return fmt.Errorf("look up %d reservations: %w", len(ids), err)
	}
	orders, err := s.desk.Books.Orders.FindAll(ctx, ids)
	if err != nil {
		return fmt.Errorf("look up the orders of %d reservations: %w", len(ids), err)
	}
	for _, e := range batch {
		if settled(r.Topic, rows[e.ReservationID].State, orders[e.ReservationID].State) {
			x.Settled++
			continue
		}
		x.Unsettled++
		if len(x.Sample) < sampleSize {
			x.Sample = append(x.Sample, e.ReservationID)
		}
		if e.Time.Before(s.since) {
			x.Forgotten++
		}
	}
	return nil
}

// settled reports whether the step that reads the topic has been done for a
// reservation; an absent row or order has the empty state.
func settled(topic events.Topic, row stock.State, o order.State) bool {
	switch topic {
	case events.Reservations:
		return row != ""
	case events.Rollbacks:
		return row == stock.RolledBack || row == stock.Refused
	case events.Deductions:
		return o != ""
	case events.Payments:
		return o == order.Paid || o == order.Cancelled
	case events.Orders, events.Channels:
	}
	return false
}
