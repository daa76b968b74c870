package orders

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/leadingpeers/seckill/api"
	"github.com/leadingpeers/seckill/internal/gateway/problem"
	"github.com/leadingpeers/seckill/internal/gateway/web"
	"github.com/leadingpeers/seckill/pkg/events"
	"github.com/leadingpeers/seckill/pkg/order"
	"github.com/leadingpeers/seckill/pkg/stock"
)

const (
	// searchTime bounds the reading of the topics: a person waits for it.
	searchTime = 8 * time.Second
	// early is how long before its row in the ledger a reservation may have been
	// made: a worker may have been down.
	early = time.Hour
	// recent is how far back the topics are read for one that no store has.
	recent = time.Hour
)

// timeline shows all that is known of a reservation: the ledger's row, the
// order, and every event. The topics are read beside the stores, in the
// partitions where the reservation's events can be.
func (o *Orders) timeline(w http.ResponseWriter, r *http.Request) error {
	id := r.PathValue("reservation")
	if !stock.ValidID(id) {
		return problem.Of(problem.ReservationNotFound)
	}
	web.Extend(w, o.cfg.Now().Add(searchTime+o.cfg.StoreTimeout))
	row, found, err := o.stored(r.Context(), id)
	if err != nil {
		return problem.Fault(problem.DatabaseUnavailable, err)
	}
	q := events.Query{
		Topics:        []events.Topic{events.Reservations, events.Deductions, events.Rollbacks, events.Orders, events.Payments},
		ReservationID: id, ProductID: row.ProductID, Since: o.cfg.Now().Add(-recent),
	}
	if !row.At.IsZero() {
		q.Since = row.At.Add(-early)
	}
	body := api.Timeline{ReservationID: id, Events: slices.Concat(ofRow(row), ofOrder(found))}
	records, complete := o.search(r.Context(), q)
	body.Complete = complete
	for _, record := range records {
		body.Events = append(body.Events, ofRecord(record))
	}
	if len(body.Events) == 0 {
		return problem.New(problem.ReservationNotFound, "Neither the ledger nor the topics of the last hour have such a reservation.")
	}
	slices.SortStableFunc(body.Events, func(a, b api.TimelineEvent) int { return cmp.Or(a.At.Compare(b.At.Time), later(a)-later(b)) })
	return web.WriteJSON(w, http.StatusOK, body)
}

// later puts the event of a topic behind the row that it tells of: both have
// the same millisecond often enough.
func later(e api.TimelineEvent) int {
	if e.Source == "topic" {
		return 1
	}
	return 0
}

// stored is what MySQL has of a reservation; what is not there is empty.
func (o *Orders) stored(ctx context.Context, id string) (row stock.Entry, found order.Order, err error) {
	ctx, cancel := context.WithTimeout(ctx, o.cfg.StoreTimeout)
	defer cancel()
	row, err = o.cfg.Ledger.Entry(ctx, id)
	if err != nil && !errors.Is(err, stock.ErrNotFound) {
		return row, found, err
	}
	found, err = o.cfg.Orders.Find(ctx, id)
	if errors.Is(err, order.ErrNotFound) {
		err = nil
	}
	return row, found, err
}

// search reads the topics. When they do not answer in time the timeline is
// shown without them, and says that it is not complete.
func (o *Orders) search(ctx context.Context, q events.Query) ([]events.Record, bool) {
	if o.cfg.Search == nil {
		return nil, false
	}
	ctx, cancel := context.WithTimeout(ctx, searchTime)
	defer cancel()
	records, complete, err := o.cfg.Search(ctx, q)
	return records, complete && err == nil
}

// ofRow tells when the ledger took the units, or refused them, and when they
// went back. A row that was rolled back at once never held any: it is the
// tombstone of a rollback that came first.
func ofRow(e stock.Entry) []api.TimelineEvent {
	if e.ID == "" {
		return nil
	}
	one := func(at time.Time, state stock.State, detail string) api.TimelineEvent {
		return api.TimelineEvent{At: api.Millis{Time: at}, Source: "ledger", Type: string(state), Detail: detail}
	}
	if e.State == stock.RolledBack && e.UpdatedAt.After(e.At) {
		return []api.TimelineEvent{one(e.At, stock.Deducted, units(e.Quantity, e.ProductID)), one(e.UpdatedAt, e.State, e.Reason)}
	}
	return []api.TimelineEvent{one(e.At, e.State, cmp.Or(e.Reason, units(e.Quantity, e.ProductID)))}
}

// ofOrder tells when the order was written and when it was closed.
func ofOrder(o order.Order) []api.TimelineEvent {
	if o.ID == "" {
		return nil
	}
	list := []api.TimelineEvent{{
		At: api.Millis{Time: o.CreatedAt}, Source: "order", Type: string(order.AwaitingPayment),
		Detail: fmt.Sprintf("order %s of %d %s, to be paid by %s", o.ID, o.AmountCents, o.Currency, o.PayDeadline.UTC().Format(time.RFC3339)),
	}}
	if o.State != order.AwaitingPayment {
		list = append(list, api.TimelineEvent{At: api.Millis{Time: o.UpdatedAt}, Source: "order", Type: string(o.State), Detail: cmp.Or(o.Reason, o.PaymentRef)})
	}
	return list
}

// ofRecord shows an event where it stands in its topic.
func ofRecord(r events.Record) api.TimelineEvent {
	e := r.Event
	detail := cmp.Or(e.Reason, e.PaymentRef)
	if detail == "" && e.Quantity > 0 {
		detail = units(e.Quantity, e.ProductID) + " for " + e.UserID
	}
	return api.TimelineEvent{
		At: api.Millis{Time: r.WrittenAt}, Source: "topic", Type: string(e.Type), Detail: detail,
		Topic: r.TopicName, Partition: new(r.Partition), Offset: new(r.Offset),
	}
}

func units(n int64, productID string) string {
	if n == 1 {
		return "1 unit of " + productID
	}
	return fmt.Sprintf("%d units of %s", n, productID)
}
