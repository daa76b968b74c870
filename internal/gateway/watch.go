package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/leadingpeers/seckill/api"
	"github.com/leadingpeers/seckill/internal/gateway/problem"
	"github.com/leadingpeers/seckill/internal/gateway/web"
	"github.com/leadingpeers/seckill/pkg/order"
	"github.com/leadingpeers/seckill/pkg/stock"
)

const (
	heartbeat = 15 * time.Second // a comment keeps proxies from closing a silent stream
	slowLook  = 2 * time.Second  // a stream looks this seldom when it waits for a human
	longWatch = 30 * time.Minute // then it ends, and the browser comes back with Last-Event-ID
)

// listReservations shows what one user has reserved of a product: what Redis
// and the ledger have, and the orders of that.
func (g *Gateway) listReservations(w http.ResponseWriter, r *http.Request) error {
	values, err := web.Query(r, "user_id")
	if err != nil {
		return err
	}
	userID := values[0]
	switch {
	case userID == "":
		return problem.New(problem.MissingField, "user_id is required.")
	case !stock.ValidUserID(userID):
		return problem.New(problem.InvalidField, "user_id is %.70q: want 1 to 64 printable ASCII characters without spaces.", userID)
	}
	product, err := g.catalogue.Ever(r)
	if err != nil {
		return err
	}
	ctx, cancel := web.Within(r.Context(), g.cfg.StoreTimeout)
	defer cancel()
	cached, err := g.cfg.Cache.OfUser(ctx, product.ID, userID)
	if err != nil && !errors.Is(err, stock.NotLoaded) { // what is not loaded has nothing pending
		return problem.Fault(problem.CacheUnavailable, err)
	}
	rows, orders, err := g.decided(ctx, product.ID, userID)
	if err != nil {
		return problem.Fault(problem.DatabaseUnavailable, err)
	}
	body := api.ReservationList{Reservations: []api.Reservation{}}
	shown := map[string]bool{}
	for _, one := range append(rows, cached...) { // the ledger first: where both have it, it decides
		if shown[one.ID] {
			continue
		}
		shown[one.ID] = true
		if o, ok := orders[one.ID]; ok {
			body.Reservations = append(body.Reservations, orderBodyOf(o, product))
		} else {
			body.Reservations = append(body.Reservations, reservationBodyOf(one, product))
		}
	}
	return web.WriteJSON(w, http.StatusOK, body)
}

// decided is what MySQL has of one user: the ledger's rows, and their orders.
func (g *Gateway) decided(ctx context.Context, productID, userID string) ([]stock.Reservation, map[string]order.Order, error) {
	rows, err := g.cfg.Ledger.OfUser(ctx, productID, userID)
	if err != nil {
		return nil, nil, err
	}
	ids := make([]string, min(len(rows), order.MaxBatch))
	for i := range ids {
		ids[i] = rows[i].ID
	}
	orders, err := g.cfg.Orders.FindAll(ctx, ids)
	return rows, orders, err
}

// findReservation shows what the ledger and the orders have of an ID. Only
// operators may ask without saying whose it is.
func (g *Gateway) findReservation(w http.ResponseWriter, r *http.Request) error {
	id := r.PathValue("reservation")
	ctx, cancel := web.Within(r.Context(), g.cfg.StoreTimeout)
	defer cancel()
	row, err := g.cfg.Ledger.Find(ctx, id)
	switch {
	case errors.Is(err, stock.ErrNotFound):
		return problem.New(problem.ReservationNotFound, "The ledger has no such reservation. One that is pending is only in Redis: ask for it with its activity, product and user.")
	case err != nil:
		return problem.Fault(problem.DatabaseUnavailable, err)
	}
	product, err := g.cfg.Catalog.Product(ctx, row.ProductID)
	if err != nil {
		return problem.Fault(problem.DatabaseUnavailable, err)
	}
	o, err := g.cfg.Orders.Find(ctx, id)
	switch {
	case err == nil:
		return web.WriteJSON(w, http.StatusOK, orderBodyOf(o, product))
	case errors.Is(err, order.ErrNotFound):
		return web.WriteJSON(w, http.StatusOK, reservationBodyOf(row, product))
	}
	return problem.Fault(problem.DatabaseUnavailable, err)
}

// watch streams the states of a reservation as server-sent events until the
// final one. The ID of an event is the place of its state, so whoever comes
// back with Last-Event-ID is told nothing twice.
func (g *Gateway) watch(w http.ResponseWriter, r *http.Request) error {
	values, err := web.Query(r, "user_id")
	if err != nil {
		return err
	}
	last, err := lastEvent(r)
	if err != nil {
		return err
	}
	want, got, err := g.firstSight(r, values[0])
	if err != nil {
		return err
	}
	if !g.waiting.Take() {
		return problem.Of(problem.TooManyWaiting)
	}
	defer g.waiting.Give()
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx would keep the events to itself
	w.WriteHeader(http.StatusOK)
	ctx, cancel := context.WithTimeout(r.Context(), longWatch)
	defer cancel()
	g.stream(ctx, w, want, got, last)
	return nil
}

func lastEvent(r *http.Request) (int, error) {
	text := r.Header.Get("Last-Event-ID")
	if text == "" {
		return 0, nil
	}
	last, err := strconv.Atoi(text)
	if err != nil || last < 0 || last > place(api.ReservationStatePaid) {
		return 0, problem.New(problem.InvalidField, "Last-Event-ID is %.20q: want the id of an event of this stream.", text)
	}
	return last, nil
}

// place is where a state stands in the life of a reservation.
func place(s api.ReservationState) int {
	switch s {
	case api.ReservationStateAwaitingPayment:
		return 2
	case api.ReservationStatePaid, api.ReservationStateReleased:
		return 3
	case api.ReservationStateQueued:
	}
	return 1
}

// stream sends got and each state after it, as far as they come after last. It
// returns after the final one, when the caller has gone or ctx ends, or when
// the gateway drains. A look that fails is no news.
func (g *Gateway) stream(ctx context.Context, w http.ResponseWriter, want wantedReservation, got api.Reservation, last int) {
	conn := http.NewResponseController(w)
	send := func(text string) bool {
		web.Extend(w, g.cfg.Now())
		_, err := w.Write([]byte(text))
		return err == nil && conn.Flush() == nil
	}
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for pause := firstLook; ; pause = min(2*pause, slowest(got.State)) {
		if at := place(got.State); at > last {
			last, pause = at, firstLook
			if !send(event(at, got)) {
				return
			}
		}
		if place(got.State) == place(api.ReservationStatePaid) {
			return
		}
		timer := time.NewTimer(pause/2 + rand.N(pause))
		select {
		case <-beat.C:
			if !send(": still there\n\n") {
				return
			}
		case <-timer.C:
			if next, err := g.lookAgain(ctx, want); err == nil {
				got = next
			}
		case <-ctx.Done():
			return
		case <-g.drained:
			return
		}
		timer.Stop()
	}
}

// slowest is how seldom a stream looks: the next state of a queued reservation
// comes from a worker, and that of an unpaid one from a human.
func slowest(s api.ReservationState) time.Duration {
	if s == api.ReservationStateQueued {
		return lastLook
	}
	return slowLook
}

// event is one server-sent event. JSON has no line breaks of its own.
func event(id int, body api.Reservation) string {
	text, err := json.Marshal(body)
	if err != nil {
		panic(err) // texts and numbers always encode
	}
	return fmt.Sprintf("id: %d\nevent: state\ndata: %s\n\n", id, text)
}
