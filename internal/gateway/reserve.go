package gateway

import (
	"context"
	"errors"
	"hash"
	"net/http"
	"net/url"

	"github.com/leadingpeers/seckill/api"
	"github.com/leadingpeers/seckill/internal/fault"
	"github.com/leadingpeers/seckill/internal/gateway/problem"
	"github.com/leadingpeers/seckill/internal/gateway/web"
	"github.com/leadingpeers/seckill/pkg/catalog"
	"github.com/leadingpeers/seckill/pkg/events"
	"github.com/leadingpeers/seckill/pkg/order"
	"github.com/leadingpeers/seckill/pkg/stock"
)

// reserveRequest is the body of reserve.
type reserveRequest struct {
	UserID   string
	Quantity int64
}

func (b *reserveRequest) fields() []web.Field {
	return []web.Field{{Name: "user_id", Into: &b.UserID, Optional: true}, {Name: "quantity", Into: &b.Quantity}}
}

// of reads the request of a service, which names the user and an
// Idempotency-Key, or of a buyer's device, whose token says all but the
// quantity. It returns the ID that the reservation has.
func (b *reserveRequest) of(r *http.Request, g *Gateway) (id string, err error) {
	caller, key := web.Caller(r), ""
	if caller.Role != web.Buyer {
		if key, err = web.IdempotencyKey(r.Header); err != nil {
			return "", err
		}
	}
	if err := web.Decode(r, web.MaxBuyerBody, b.fields()...); err != nil {
		return "", err
	}
	if b.UserID, err = userOf(r, b.UserID); err != nil {
		return "", err
	}
	if err := b.validate(); err != nil {
		return "", err
	}
	if caller.Role == web.Buyer {
		return caller.ReservationID, nil
	}
	return g.reservationID(b.UserID, r.PathValue("product"), key), nil
}

// userOf is whose reservation a request is about: a token says it, everybody
// else has to.
func userOf(r *http.Request, named string) (string, error) {
	caller := web.Caller(r)
	switch {
	case caller.Role == web.Buyer && named != "" && named != caller.Claims.UserID:
		return "", problem.Of(problem.TokenMismatch)
	case caller.Role == web.Buyer:
		return caller.Claims.UserID, nil
	case named == "":
		return "", problem.New(problem.MissingField, "user_id is required.")
	}
	return named, nil
}

func (b *reserveRequest) validate() error {
	switch {
	case !stock.ValidUserID(b.UserID):
		return problem.New(problem.InvalidField, "user_id is %.70q: want 1 to 64 printable ASCII characters without spaces.", b.UserID)
	case b.Quantity < 1 || b.Quantity > stock.MaxQuantity:
		return problem.New(problem.InvalidField, "quantity is %d: want 1 to %d.", b.Quantity, stock.MaxQuantity)
	}
	return nil
}

// reserve takes units for a user and answers 202 once Kafka has the event. A
// retry, by the same Idempotency-Key, takes nothing: it answers 202 again with
// what has become of the reservation, and publishes its event again while it
// is not decided, because nobody knows whether the first one was written.
//
// After 503 the units may be taken and the event may be on its way: both are
// found again by the retry, or by the reaper if nobody retries.
func (g *Gateway) reserve(w http.ResponseWriter, r *http.Request) error {
	var body reserveRequest
	id, err := body.of(r, g)
	if err != nil {
		return err
	}
	product, err := g.catalogue.OnSale(r)
	if err != nil {
		return err
	}
	if web.Caller(r).Expired {
		if err := g.madeInTime(r.Context(), product.ID, body.UserID, id); err != nil {
			return err
		}
	}
	g.admitted.Inc()
	got, replayed, err := g.take(r, stock.Reservation{ //nolint:contextcheck // see limit
		ID:         id,
		ActivityID: product.ActivityID,
		ProductID:  product.ID,
		UserID:     body.UserID,
		Quantity:   body.Quantity,
	})
	if err != nil {
		return err
	}
	answer := reservationBodyOf(got, product)
	if got.State != stock.Pending {
		ctx, cancel := web.Within(r.Context(), g.cfg.StoreTimeout)
		defer cancel()
		if answer, err = g.lookup(ctx, wantedReservation{id: got.ID, userID: got.UserID, product: product}); err != nil {
			return err
		}
	}
	if replayed {
		w.Header().Set("Idempotent-Replayed", "true")
	}
	return writeAccepted(w, r.URL.EscapedPath()+"/"+got.ID+"?user_id="+url.QueryEscape(got.UserID), answer)
}

// madeInTime lets an expired token pass to the reservation that it has made: a
// retry must see its own units. It makes none any more.
func (g *Gateway) madeInTime(ctx context.Context, productID, userID, id string) error {
	ctx, cancel := web.Within(ctx, g.cfg.CacheTimeout)
	defer cancel()
	_, err := g.cfg.Cache.Find(ctx, productID, userID, id)
	switch {
	case errors.Is(err, stock.ErrNotFound) || errors.Is(err, stock.NotLoaded):
		return problem.Of(problem.TokenExpired)
	case err != nil:
		return problem.Fault(problem.CacheUnavailable, err)
	}
	return nil
}

// take reserves in Redis and, while the reservation is not decided, publishes
// its event.
func (g *Gateway) take(r *http.Request, want stock.Reservation) (got stock.Reservation, replayed bool, err error) {
	start := g.cfg.Now()
	got, replayed, err = g.cfg.Cache.Reserve(g.cacheLimit.context(web.Left(r, start)), want)
	g.cacheSeconds.Observe(g.cfg.Now().Sub(start).Seconds())
	switch {
	case errors.Is(err, stock.ErrBusy):
		return got, false, problem.Of(problem.Overloaded)
	case err != nil:
		return got, false, problem.Fault(problem.CacheUnavailable, err)
	}
	fault.Point(fault.AfterLua)
	got.ActivityID = want.ActivityID // Redis does not keep it
	if got.State == stock.Pending {
		err = g.publish(r, got)
	}
	return got, replayed, err
}

// publish hands the reservation on to the workers; nil means that Kafka has it.
func (g *Gateway) publish(r *http.Request, taken stock.Reservation) error {
	if fault.Off(fault.AckBefore202) {
		return nil
	}
	start := g.cfg.Now()
	err := g.cfg.Publisher.Publish(g.publishLimit.context(web.Left(r, start)), created(taken, web.TraceParent(r)))
	g.publishSeconds.Observe(g.cfg.Now().Sub(start).Seconds())
	if err != nil {
		return problem.Fault(problem.EventsUnavailable, err)
	}
	fault.Point(fault.AfterAck)
	return nil
}

// created is the event of a reservation that Redis holds.
func created(r stock.Reservation, trace string) events.Event {
	return events.Event{
		Type:          events.ReservationCreated,
		Time:          r.At,
		TraceParent:   trace,
		ReservationID: r.ID,
		ActivityID:    r.ActivityID,
		ProductID:     r.ProductID,
		UserID:        r.UserID,
		Quantity:      r.Quantity,
	}
}

// keyed is an HMAC that is used again and again: half of its work is the key.
type keyed struct {
	hash.Hash
	text []byte
}

// reservationID is 26 characters of base32 over 16 bytes of
// HMAC-SHA256(IDKey, user NUL product NUL key). None of the three can contain
// NUL, so no two requests share an ID by accident, and nobody without the key
// can make one.
func (g *Gateway) reservationID(userID, productID, key string) string {
	mac := g.macs.Get().(*keyed)
	defer g.macs.Put(mac)
	mac.text = append(append(append(mac.text[:0], userID...), 0), productID...)
	mac.text = append(append(mac.text, 0), key...)
	mac.Reset()
	mac.Write(mac.text)
	mac.text = mac.Sum(mac.text[:0])
	return g.base32.EncodeToString(mac.text[:16])
}

// reservationBodyOf shows a reservation that has no order.
func reservationBodyOf(r stock.Reservation, p catalog.Product) api.Reservation {
	body := api.Reservation{
		ReservationID: r.ID, ActivityID: p.ActivityID, ProductID: p.ID, UserID: r.UserID, Quantity: r.Quantity,
		State: api.ReservationStateQueued, PriceCents: p.PriceCents, Currency: p.Currency,
	}
	switch r.State {
	case stock.Pending, stock.Deducted: // deducted without an order: it is being written
	case stock.Refused, stock.RolledBack:
		body.State, body.Reason = api.ReservationStateReleased, r.Reason
	}
	return body
}

// orderBodyOf shows a reservation through its order.
func orderBodyOf(o order.Order, p catalog.Product) api.Reservation {
	body := api.Reservation{
		ReservationID: o.ReservationID, ActivityID: o.ActivityID, ProductID: o.ProductID, UserID: o.UserID, Quantity: o.Quantity,
		PriceCents: p.PriceCents, Currency: o.Currency,
		OrderID: o.ID, AmountCents: &o.AmountCents, PayDeadline: api.Millis{Time: o.PayDeadline},
	}
	switch o.State {
	case order.AwaitingPayment:
		body.State = api.ReservationStateAwaitingPayment
	case order.Paid:
		body.State = api.ReservationStatePaid
	case order.Cancelled:
		body.State, body.Reason = api.ReservationStateReleased, o.Reason
	}
	return body
}
