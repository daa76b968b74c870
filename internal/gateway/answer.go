package gateway

import (
	"net/http"
	"strconv"

	"github.com/leadingpeers/seckill/api"
	"github.com/leadingpeers/seckill/internal/gateway/web"
	"github.com/leadingpeers/seckill/internal/plain"
)

// writeAccepted answers 202 with a reservation. Nearly all of them are queued
// and have no order; these are put together by hand, because that is what a
// gateway writes most.
func writeAccepted(w http.ResponseWriter, location string, r api.Reservation) error {
	w.Header()["Location"] = []string{location}
	if r.AmountCents != nil || r.OrderID != "" || r.Reason != "" || !r.PayDeadline.IsZero() {
		return web.WriteJSON(w, http.StatusAccepted, r)
	}
	web.WriteText(w, http.StatusAccepted, appendQueued(make([]byte, 0, 384), r))
	return nil
}

// appendQueued appends the JSON of a reservation that has no order.
func appendQueued(b []byte, r api.Reservation) []byte {
	text := func(name, value string) { b = plain.AppendText(append(b, name...), value) }
	number := func(name string, value int64) { b = strconv.AppendInt(append(b, name...), value, 10) }
	text(`{"activity_id":`, r.ActivityID)
	text(`,"currency":`, r.Currency)
	number(`,"price_cents":`, r.PriceCents)
	text(`,"product_id":`, r.ProductID)
	number(`,"quantity":`, r.Quantity)
	text(`,"reservation_id":`, r.ReservationID)
	text(`,"state":`, string(r.State))
	text(`,"user_id":`, r.UserID)
	return append(b, '}')
}
