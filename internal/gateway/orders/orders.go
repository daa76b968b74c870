// Package orders is the part of the gateway that shows what was bought and how
// a reservation came there, and takes the payments of checkouts that do not
// speak Kafka. It changes nothing itself: a payment is an event.
package orders

import (
	"context"
	"encoding/csv"
	"errors"
	"iter"
	"net/http"
	"strconv"
	"time"

	"github.com/leadingpeers/seckill/api"
	"github.com/leadingpeers/seckill/internal/gateway/problem"
	"github.com/leadingpeers/seckill/internal/gateway/web"
	"github.com/leadingpeers/seckill/pkg/catalog"
	"github.com/leadingpeers/seckill/pkg/events"
	"github.com/leadingpeers/seckill/pkg/order"
	"github.com/leadingpeers/seckill/pkg/stock"
)

// Store knows what was bought. *order.Store is one.
type Store interface {
	Find(ctx context.Context, reservationID string) (order.Order, error)
	Get(ctx context.Context, id string) (order.Order, error)
	List(ctx context.Context, f order.Filter, after string, limit int) ([]order.Order, error)
	Each(ctx context.Context, f order.Filter) iter.Seq2[order.Order, error]
}

// Ledger knows every reservation that was decided. *stock.Ledger is one.
type Ledger interface {
	Entry(ctx context.Context, id string) (stock.Entry, error)
}

// Products knows what is sold. *catalog.Store is one.
type Products interface {
	Product(ctx context.Context, id string) (catalog.Product, error)
}

// Publisher hands events on; nil means that all are safe.
type Publisher interface {
	Publish(ctx context.Context, evs ...events.Event) error
}

// SearchFunc reads the events of one reservation out of the topics, as
// events.Search does.
type SearchFunc func(ctx context.Context, q events.Query) (found []events.Record, complete bool, err error)

// Config is what an Orders needs; every field but Search is required.
type Config struct {
	Orders         Store
	Ledger         Ledger
	Products       Products
	Publisher      Publisher
	Search         SearchFunc // nil = timelines have no events of topics, and say so
	StoreTimeout   time.Duration
	PublishTimeout time.Duration
	ExportTimeout  time.Duration // how long the whole of an export may take
	Now            func() time.Time
}

// Orders serves the routes of orders, payments and timelines.
type Orders struct{ cfg Config }

// New makes an Orders.
func New(cfg Config) *Orders { return &Orders{cfg: cfg} }

// Routes lists the operations and who may use them.
func (o *Orders) Routes() []web.Route {
	viewers := web.Viewers()
	return []web.Route{
		{Name: "ListOrders", Method: "GET", Path: "/v1/orders", Roles: viewers, Handle: o.list},
		{Name: "ExportOrders", Method: "GET", Path: "/v1/orders/export", Roles: viewers, Handle: o.export},
		{Name: "GetOrder", Method: "GET", Path: "/v1/orders/{order}", Roles: viewers, Handle: o.get},
		{Name: "RecordPayment", Method: "POST", Path: "/v1/payments", Roles: []web.Role{web.Service}, Handle: o.pay},
		{Name: "GetTimeline", Method: "GET", Path: "/v1/reservations/{reservation}/timeline", Roles: viewers, Handle: o.timeline},
	}
}

func body(o order.Order) api.Order {
	return api.Order{
		ID: o.ID, ReservationID: o.ReservationID, ActivityID: o.ActivityID, ProductID: o.ProductID, UserID: o.UserID,
		Quantity: o.Quantity, AmountCents: o.AmountCents, Currency: o.Currency, State: api.OrderState(o.State), Reason: o.Reason,
		PaymentRef: o.PaymentRef, PayDeadline: api.Millis{Time: o.PayDeadline},
		CreatedAt: api.Millis{Time: o.CreatedAt}, UpdatedAt: api.Millis{Time: o.UpdatedAt},
	}
}

// filter reads which orders are asked for.
func filter(r *http.Request) (f order.Filter, err error) {
	values, err := web.Query(r, "activity_id", "product_id", "user_id", "state")
	if err != nil {
		return f, err
	}
	f = order.Filter{ActivityID: values[0], ProductID: values[1], UserID: values[2], State: order.State(values[3])}
	for i, name := range []string{"activity_id", "product_id"} {
		if values[i] != "" && !stock.ValidProductID(values[i]) {
			return f, problem.New(problem.InvalidField, "%s is %.70q: want 1 to 36 characters of a-z, 0-9 and inner hyphens.", name, values[i])
		}
	}
	if f.UserID != "" && !stock.ValidUserID(f.UserID) {
		return f, problem.New(problem.InvalidField, "user_id is %.70q: want 1 to 64 printable ASCII characters without spaces.", f.UserID)
	}
	switch f.State {
	case "", order.AwaitingPayment, order.Paid, order.Cancelled:
		return f, nil
	}
	return f, problem.New(problem.InvalidField, "state is %.20q: want awaiting_payment, paid or cancelled.", f.State)
}

func (o *Orders) list(w http.ResponseWriter, r *http.Request) error {
	f, err := filter(r)
	if err != nil {
		return err
	}
	after, limit, err := web.Page(r)
	if err != nil {
		return err
	}
	ctx, cancel := web.Within(r.Context(), o.cfg.StoreTimeout)
	defer cancel()
	found, err := o.cfg.Orders.List(ctx, f, after, limit+1) // one more tells whether there is another page
	if err != nil {
		return problem.Fault(problem.DatabaseUnavailable, err)
	}
	page := api.OrderList{Orders: []api.Order{}}
	if len(found) > limit {
		found = found[:limit]
		page.NextPageToken = web.NextPage(found[limit-1].ID)
	}
	for _, one := range found {
		page.Orders = append(page.Orders, body(one))
	}
	return web.WriteJSON(w, http.StatusOK, page)
}

func (o *Orders) get(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := web.Within(r.Context(), o.cfg.StoreTimeout)
	defer cancel()
	found, err := o.cfg.Orders.Get(ctx, r.PathValue("order"))
	switch {
	case errors.Is(err, order.ErrNotFound):
		return problem.Of(problem.OrderNotFound)
	case err != nil:
		return problem.Fault(problem.DatabaseUnavailable, err)
	}
	return web.WriteJSON(w, http.StatusOK, body(found))
}

// export streams all orders as CSV. When they cannot be read to their end the
// connection is cut, so that nobody takes a part for the whole.
func (o *Orders) export(w http.ResponseWriter, r *http.Request) error {
	f, err := filter(r)
	if err != nil {
		return err
	}
	until := o.cfg.Now().Add(o.cfg.ExportTimeout)
	web.Extend(w, until)
	ctx, cancel := context.WithTimeout(r.Context(), o.cfg.ExportTimeout)
	defer cancel()
	out, begun := csv.NewWriter(w), false
	begin := func() {
		begun = true
		h := w.Header()
		h.Set("Content-Type", "text/csv")
		h.Set("Content-Disposition", `attachment; filename="orders.csv"`)
		h.Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusOK)
		_ = out.Write([]string{
			"id", "reservation_id", "activity_id", "product_id", "user_id", "quantity", "amount_cents", "currency",
			"state", "reason", "payment_ref", "pay_deadline", "created_at", "updated_at",
		})
	}
	for one, err := range o.cfg.Orders.Each(ctx, f) {
		switch {
		case err != nil && !begun:
			return problem.Fault(problem.DatabaseUnavailable, err)
		case err != nil:
			panic(http.ErrAbortHandler)
		case !begun:
			begin()
		}
		_ = out.Write(line(one)) // out keeps the first error; a caller who has gone ends ctx
	}
	if !begun {
		begin()
	}
	out.Flush()
	return nil
}

// line is an order as a line of CSV. A text that a spreadsheet would take for a
// formula gets a quote before it: users and payment references are other
// people's words.
func line(o order.Order) []string {
	stamp := func(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }
	return []string{
		o.ID, o.ReservationID, o.ActivityID, o.ProductID, harmless(o.UserID), strconv.FormatInt(o.Quantity, 10),
		strconv.FormatInt(o.AmountCents, 10), o.Currency, string(o.State), o.Reason, harmless(o.PaymentRef),
		stamp(o.PayDeadline), stamp(o.CreatedAt), stamp(o.UpdatedAt),
	}
}

func harmless(text string) string {
	if text != "" {
		switch text[0] {
		case '=', '+', '-', '@':
			return "'" + text
		}
	}
	return text
}
