package gateway

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/leadingpeers/seckill/api"
	"github.com/leadingpeers/seckill/internal/gateway/problem"
	"github.com/leadingpeers/seckill/internal/gateway/web"
	"github.com/leadingpeers/seckill/pkg/catalog"
	"github.com/leadingpeers/seckill/pkg/events"
	"github.com/leadingpeers/seckill/pkg/order"
	"github.com/leadingpeers/seckill/pkg/stock"
)

const (
	maxWait   = 20 * time.Second       // longest long poll
	firstLook = 20 * time.Millisecond  // a long poll looks again after this, then twice as long,
	lastLook  = 500 * time.Millisecond // and so on up to this
)

// wantedReservation is what a reservation is found by: somebody else's is not
// there.
type wantedReservation struct {
	id, userID string
	product    catalog.Product
}

// matches reports whether what was found under the ID is what was asked for.
func (w wantedReservation) matches(productID, userID string) bool {
	return productID == w.product.ID && userID == w.userID
}

// getReservation shows a reservation, after waiting for up to ?wait= while it
// is queued.
func (g *Gateway) getReservation(w http.ResponseWriter, r *http.Request) error {
	values, err := web.Query(r, "user_id", "wait")
	if err != nil {
		return err
	}
	wait, err := parseWait(values[1])
	if err != nil {
		return err
	}
	want, got, err := g.firstSight(r, values[0])
	if err != nil {
		return err
	}
	if got.State == api.ReservationStateQueued && wait > 0 {
		if !g.waiting.Take() {
			return problem.Of(problem.TooManyWaiting)
		}
		defer g.waiting.Give()
		web.Extend(w, g.cfg.Now().Add(wait))
		got = g.await(r.Context(), want, got, wait)
	}
	if got.State == api.ReservationStateQueued {
		w.Header().Set("Retry-After", "1")
	}
	return web.WriteJSON(w, http.StatusOK, got)
}

// firstSight is the part of getReservation that counts as a request in flight.
func (g *Gateway) firstSight(r *http.Request, userID string) (wantedReservation, api.Reservation, error) {
	if !g.busy.Take() {
		return wantedReservation{}, api.Reservation{}, problem.Of(problem.Overloaded)
	}
	defer g.busy.Give()
	return g.see(r, userID)
}

// see finds the reservation that the path and the user ask for.
func (g *Gateway) see(r *http.Request, userID string) (wantedReservation, api.Reservation, error) {
	want, err := g.want(r, userID)
	if err != nil {
		return want, api.Reservation{}, err
	}
	ctx, cancel := web.Within(r.Context(), g.cfg.StoreTimeout)
	defer cancel()
	got, err := g.lookup(ctx, want)
	return want, got, err
}

// want reads which reservation the path and the user ask for.
func (g *Gateway) want(r *http.Request, userID string) (wantedReservation, error) {
	userID, err := userOf(r, userID)
	want := wantedReservation{id: r.PathValue("reservation"), userID: userID}
	switch {
	case err != nil:
		return want, err
	case !stock.ValidUserID(userID):
		return want, problem.New(problem.InvalidField, "user_id is %.70q: want 1 to 64 printable ASCII characters without spaces.", userID)
	case !stock.ValidID(want.id):
		return want, problem.Of(problem.ReservationNotFound)
	}
	want.product, err = g.catalogue.Ever(r)
	return want, err
}

func parseWait(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	wait, err := time.ParseDuration(text)
	if err != nil || wait < 0 {
		return 0, problem.New(problem.InvalidField, "wait is %.20q: want a time such as 20s or 500ms.", text)
	}
	return min(wait, maxWait), nil
}

// lookup asks Redis, then the orders, then the ledger. While Redis says
// pending, MySQL is left alone. ctx says how long it may take.
func (g *Gateway) lookup(ctx context.Context, want wantedReservation) (api.Reservation, error) {
	cached, missing := g.inCache(ctx, want)
	if missing == nil && cached.State == stock.Pending {
		return reservationBodyOf(cached, want.product), nil
	}
	o, err := g.cfg.Orders.Find(ctx, want.id)
	switch {
	case err == nil && want.matches(o.ProductID, o.UserID):
		return orderBodyOf(o, want.product), nil
	case err == nil:
		return api.Reservation{}, problem.Of(problem.ReservationNotFound)
	case !errors.Is(err, order.ErrNotFound):
		return api.Reservation{}, problem.Fault(problem.DatabaseUnavailable, err)
	case missing == nil && cached.State == stock.Deducted:
		return reservationBodyOf(cached, want.product), nil
	}
	row, err := g.cfg.Ledger.Find(ctx, want.id)
	switch {
	case err == nil && want.matches(row.ProductID, row.UserID):
		return reservationBodyOf(row, want.product), nil
	case err == nil:
		return api.Reservation{}, problem.Of(problem.ReservationNotFound)
	case !errors.Is(err, stock.ErrNotFound):
		return api.Reservation{}, problem.Fault(problem.DatabaseUnavailable, err)
	case missing == nil: // a tombstone that only Redis has
		return reservationBodyOf(cached, want.product), nil
	}
	return api.Reservation{}, missing
}

// inCache asks Redis. What is not there may be in MySQL; the error is what to
// answer if it is not: not found when Redis knows all that is pending, or
// else, when Redis is away or empty, that we cannot tell.
func (g *Gateway) inCache(ctx context.Context, want wantedReservation) (stock.Reservation, error) {
	ctx, cancel := context.WithTimeout(ctx, g.cfg.CacheTimeout)
	defer cancel()
	got, err := g.cfg.Cache.Find(ctx, want.product.ID, want.userID, want.id)
	switch {
	case err == nil:
		return got, nil
	case errors.Is(err, stock.ErrNotFound):
		return got, problem.Of(problem.ReservationNotFound)
	default:
		return got, problem.Fault(problem.CacheUnavailable, err)
	}
}

// await looks again until the reservation is no longer queued, wait is over,
// the caller has gone, or the gateway drains. It never makes less of what is
// known: an error on the way leaves the reservation queued.
func (g *Gateway) await(ctx context.Context, want wantedReservation, got api.Reservation, wait time.Duration) api.Reservation {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for pause := firstLook; ; pause = min(2*pause, lastLook) {
		timer := time.NewTimer(pause/2 + rand.N(pause)) // spread out, or all who wait ask at once
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return got
		case <-g.drained:
			timer.Stop()
			return got
		}
		if next, err := g.lookAgain(ctx, want); err == nil && next.State != api.ReservationStateQueued {
			return next
		}
	}
}

// lookAgain is lookup for whoever waits: that may take longer than a request.
func (g *Gateway) lookAgain(ctx context.Context, want wantedReservation) (api.Reservation, error) {
	ctx, cancel := context.WithTimeout(ctx, g.cfg.StoreTimeout)
	defer cancel()
	return g.lookup(ctx, want)
}

// cancelReason is why an order was cancelled here.
const cancelReason = "cancelled"

// cancel gives an unpaid order up. The order and the events that announce it
// and return its units change in one transaction; repeating it is harmless.
func (g *Gateway) cancel(w http.ResponseWriter, r *http.Request) error {
	var userID string
	if err := web.Decode(r, web.MaxBuyerBody, web.Field{Name: "user_id", Into: &userID, Optional: true}); err != nil {
		return err
	}
	want, got, err := g.see(r, userID)
	switch {
	case err != nil:
		return err
	case got.State == api.ReservationStateReleased:
		return web.WriteJSON(w, http.StatusOK, got)
	case got.OrderID == "":
		return problem.Of(problem.OrderNotReady)
	}
	ctx, cancel := web.Within(r.Context(), g.cfg.StoreTimeout)
	defer cancel()
	o, err := g.cfg.Orders.Cancel(ctx, want.id, cancelReason, announceCancelled(web.TraceParent(r)))
	switch {
	case errors.Is(err, order.ErrPaid):
		return problem.Of(problem.OrderPaid)
	case err != nil:
		return problem.Fault(problem.DatabaseUnavailable, err)
	}
	return web.WriteJSON(w, http.StatusOK, orderBodyOf(o, want.product))
}

// announceCancelled makes the events of a cancelled order: the fact, and the
// return of its units.
func announceCancelled(trace string) func(order.Order) []order.Message {
	return func(o order.Order) []order.Message {
		cancelled := events.Event{
			Type:          events.OrderCancelled,
			TraceParent:   trace,
			ReservationID: o.ReservationID,
			ActivityID:    o.ActivityID,
			ProductID:     o.ProductID,
			UserID:        o.UserID,
			Quantity:      o.Quantity,
			Reason:        o.Reason,
			OrderID:       o.ID,
			AmountCents:   o.AmountCents,
			Currency:      o.Currency,
		}
		rollback := events.Event{
			Type:          events.StockRollback,
			TraceParent:   trace,
			ReservationID: o.ReservationID,
			ActivityID:    o.ActivityID,
			ProductID:     o.ProductID,
			UserID:        o.UserID,
			Quantity:      o.Quantity,
			Reason:        o.Reason,
		}
		return []order.Message{message(cancelled), message(rollback)}
	}
}

// message puts an event into the outbox. An event of an order that MySQL holds
// always encodes; if one does not, the panic takes the transaction back.
func message(e events.Event) order.Message {
	body, err := events.Encode(e)
	if err != nil {
		panic(err)
	}
	return order.Message{Type: string(e.Type), Body: body, TraceParent: e.TraceParent}
}

// deduct publishes the event of a reservation that is still pending again, so
// that it is decided now: by itself that happens some seconds later. One that
// is decided stays as it is.
func (g *Gateway) deduct(w http.ResponseWriter, r *http.Request) error {
	var userID string
	if err := web.Decode(r, web.MaxAdminBody, web.Field{Name: "user_id", Into: &userID}); err != nil {
		return err
	}
	want, got, err := g.see(r, userID)
	if err != nil {
		return err
	}
	ctx, cancel := web.Within(r.Context(), g.cfg.CacheTimeout)
	defer cancel()
	cached, err := g.cfg.Cache.Find(ctx, want.product.ID, want.userID, want.id)
	if err == nil && cached.State == stock.Pending {
		cached.ActivityID = want.product.ActivityID
		if err := g.publish(r, cached); err != nil { //nolint:contextcheck // see limit
			return err
		}
	}
	return web.WriteJSON(w, http.StatusAccepted, got)
}
