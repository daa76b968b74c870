package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/leadingpeers/seckill/api"
	"github.com/leadingpeers/seckill/pkg/client"
	"github.com/leadingpeers/seckill/pkg/events"
)

// shop is the back end that the shop's own pages talk to.
type shop struct {
	gateway           *client.ClientWithResponses
	payments          *events.Publisher
	books             *book
	activity, product string
}

func (s *shop) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /purchases", s.buy)
	mux.HandleFunc("GET /purchases/{reservation}", s.show)
	mux.HandleFunc("POST /payments", s.payment)
	return mux
}

const (
	maxBody     = 4 << 10         // bytes of a request
	answerLimit = 8 * time.Second // how long seckill may take
)

// problem is an answer that is not what was asked for.
type problem struct {
	Code   string `json:"code"`
	Detail string `json:"detail"`
}

// buy reserves for a user. The cart is the Idempotency-Key: however often the
// page sends it, it is bought once.
func (s *shop) buy(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Cart     string `json:"cart"`
		UserID   string `json:"user_id"` // in a real shop: from the session, never from the page
		Quantity int64  `json:"quantity"`
	}
	if !read(w, r, &body) {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), answerLimit)
	defer cancel()
	got, err := s.gateway.CreateReservationWithResponse(ctx, s.activity, s.product,
		&api.CreateReservationParams{IdempotencyKey: &body.Cart}, api.ReservationCreate{UserID: body.UserID, Quantity: body.Quantity})
	if err != nil {
		fail(w, err)
		return
	}
	write(w, http.StatusAccepted, s.known(*got.JSON202))
}

// show tells what became of a purchase. Until its order is known only the
// gateway can say: the reservation may be queued, or given back already.
func (s *shop) show(w http.ResponseWriter, r *http.Request) {
	id, user := r.PathValue("reservation"), r.URL.Query().Get("user_id")
	if p, ok := s.books.find(id); ok {
		if p.UserID != user {
			write(w, http.StatusNotFound, problem{"not_found", "This user has no such purchase."})
			return
		}
		write(w, http.StatusOK, p)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), answerLimit)
	defer cancel()
	got, err := s.gateway.GetReservationWithResponse(ctx, s.activity, s.product, id, &api.GetReservationParams{UserID: &user})
	if err != nil {
		fail(w, err)
		return
	}
	write(w, http.StatusOK, s.known(*got.JSON200))
}

// known is what the books say of a reservation, or else the gateway.
func (s *shop) known(r api.Reservation) purchase {
	if p, ok := s.books.find(r.ReservationID); ok {
		return p
	}
	p := purchase{
		ReservationID: r.ReservationID, State: string(r.State), Reason: r.Reason, UserID: r.UserID, Quantity: r.Quantity,
		OrderID: r.OrderID, AmountCents: r.PriceCents * r.Quantity, Currency: r.Currency, PayDeadline: r.PayDeadline.Time,
	}
	if r.AmountCents != nil {
		p.AmountCents = *r.AmountCents
	}
	return p
}

// payment is the payment provider's webhook. It answers when the event is safe
// in Kafka; the provider sends it again otherwise, which is harmless. A real
// one checks the provider's signature first.
func (s *shop) payment(w http.ResponseWriter, r *http.Request) {
	var body struct {
		ReservationID string `json:"reservation_id"`
		PaymentRef    string `json:"payment_ref"`
		AmountCents   int64  `json:"amount_cents"`
		Currency      string `json:"currency"`
		Outcome       string `json:"outcome"`
	}
	if !read(w, r, &body) {
		return
	}
	e := events.Event{
		Type: events.PaymentSucceeded, ReservationID: body.ReservationID, PaymentRef: body.PaymentRef,
		AmountCents: body.AmountCents, Currency: body.Currency,
	}
	switch body.Outcome {
	case "succeeded":
	case "failed": // for good; an attempt that may be repeated is not told
		e.Type = events.PaymentFailed
	default:
		write(w, http.StatusBadRequest, problem{"invalid_field", "outcome: want succeeded or failed."})
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), answerLimit)
	defer cancel()
	if err := s.payments.Publish(ctx, e); err != nil {
		fail(w, err)
		return
	}
	w.WriteHeader(http.StatusAccepted)
}

// read decodes a request, and answers it when it is no good.
func read(w http.ResponseWriter, r *http.Request, into any) bool {
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(into)
	if err != nil {
		write(w, http.StatusBadRequest, problem{"invalid_json", err.Error()})
	}
	return err == nil
}

func write(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the caller may have gone
}

// fail answers with what seckill refused, or with 503: then nobody knows, and
// sending the same request again finds out.
func fail(w http.ResponseWriter, err error) {
	if refused, ok := errors.AsType[*client.Error](err); ok {
		write(w, refused.Status, problem{refused.Code, refused.Detail})
		return
	}
	if malformed, ok := errors.AsType[*events.PermanentError](err); ok {
		write(w, http.StatusBadRequest, problem{"invalid_field", malformed.Error()})
		return
	}
	write(w, http.StatusServiceUnavailable, problem{"unavailable", err.Error()})
}
