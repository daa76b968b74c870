package orders

import (
	"context"
	"errors"
	"net/http"
	"regexp"

	"github.com/leadingpeers/seckill/api"
	"github.com/leadingpeers/seckill/internal/gateway/problem"
	"github.com/leadingpeers/seckill/internal/gateway/web"
	"github.com/leadingpeers/seckill/pkg/events"
	"github.com/leadingpeers/seckill/pkg/order"
	"github.com/leadingpeers/seckill/pkg/stock"
)

var (
	refPattern      = regexp.MustCompile(`^[!-~]{1,64}$`)
	currencyPattern = regexp.MustCompile(`^[A-Z]{3}$`)
)

// pay publishes the payment event that the checkout has no Kafka for, and
// answers when it is safe.
func (o *Orders) pay(w http.ResponseWriter, r *http.Request) error {
	body, err := payment(r)
	if err != nil {
		return err
	}
	if err := o.concerns(r, body); err != nil {
		return err
	}
	e := events.Event{
		Type: events.PaymentFailed, TraceParent: web.TraceParent(r), ReservationID: body.ReservationID,
		PaymentRef: body.PaymentRef, AmountCents: body.AmountCents, Currency: body.Currency,
	}
	if body.Outcome == api.PaymentOutcomeSucceeded {
		e.Type = events.PaymentSucceeded
	}
	ctx, cancel := web.Within(r.Context(), o.cfg.PublishTimeout)
	defer cancel()
	if err := o.cfg.Publisher.Publish(ctx, e); err != nil {
		return problem.Fault(problem.EventsUnavailable, err)
	}
	return web.WriteJSON(w, http.StatusAccepted, body)
}

// payment reads the body.
func payment(r *http.Request) (api.Payment, error) {
	var body api.Payment
	var outcome string
	err := web.Decode(r, web.MaxBuyerBody,
		web.Field{Name: "reservation_id", Into: &body.ReservationID}, web.Field{Name: "payment_ref", Into: &body.PaymentRef},
		web.Field{Name: "amount_cents", Into: &body.AmountCents}, web.Field{Name: "currency", Into: &body.Currency},
		web.Field{Name: "outcome", Into: &outcome})
	body.Outcome = api.PaymentOutcome(outcome)
	switch {
	case err != nil:
		return body, err
	case !stock.ValidID(body.ReservationID):
		return body, problem.New(problem.InvalidField, "reservation_id is %.40q: want 26 characters of a-z and 2-7.", body.ReservationID)
	case !refPattern.MatchString(body.PaymentRef):
		return body, problem.New(problem.InvalidField, "payment_ref is %.70q: want 1 to 64 visible ASCII characters.", body.PaymentRef)
	case body.AmountCents < 0:
		return body, problem.New(problem.InvalidField, "amount_cents is %d: want 0 or more.", body.AmountCents)
	case !currencyPattern.MatchString(body.Currency):
		return body, problem.New(problem.InvalidField, "currency is %.10q: want three capital letters, as in ISO 4217.", body.Currency)
	case !body.Outcome.Valid():
		return body, problem.New(problem.InvalidField, "outcome is %.20q: want succeeded or failed.", outcome)
	}
	return body, nil
}

// concerns reports what is wrong with a payment of a reservation: that it is
// not the caller's business, or not what its order costs. While the order is
// being written only the first can be told; the settle worker tells the second.
func (o *Orders) concerns(r *http.Request, p api.Payment) error {
	ctx, cancel := web.Within(r.Context(), o.cfg.StoreTimeout)
	defer cancel()
	found, err := o.cfg.Orders.Find(ctx, p.ReservationID)
	switch {
	case errors.Is(err, order.ErrNotFound):
		return o.reserved(ctx, r, p.ReservationID)
	case err != nil:
		return problem.Fault(problem.DatabaseUnavailable, err)
	case !web.Caller(r).MayActFor(found.ActivityID):
		return problem.Of(problem.ReservationNotFound)
	case p.Outcome == api.PaymentOutcomeSucceeded && (p.AmountCents != found.AmountCents || p.Currency != found.Currency):
		return problem.New(problem.AmountMismatch, "The payment is %d %s, the order is %d %s.", p.AmountCents, p.Currency, found.AmountCents, found.Currency)
	}
	return nil
}

// reserved reports whether the ledger has a reservation that the caller may pay.
func (o *Orders) reserved(ctx context.Context, r *http.Request, id string) error {
	row, err := o.cfg.Ledger.Entry(ctx, id)
	if errors.Is(err, stock.ErrNotFound) {
		return problem.Of(problem.ReservationNotFound)
	}
	if err != nil {
		return problem.Fault(problem.DatabaseUnavailable, err)
	}
	p, err := o.cfg.Products.Product(ctx, row.ProductID)
	if err != nil {
		return problem.Fault(problem.DatabaseUnavailable, err)
	}
	if row.State != stock.Deducted || !web.Caller(r).MayActFor(p.ActivityID) {
		return problem.Of(problem.ReservationNotFound)
	}
	return nil
}
