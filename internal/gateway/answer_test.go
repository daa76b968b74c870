package gateway

import (
	"encoding/json"
	"testing"

	"github.com/leadingpeers/seckill/api"
)

// A reservation that is put together by hand must read as encoding/json
// writes it.
func FuzzQueued(f *testing.F) {
	f.Add("a", "p", "u", int64(1))
	f.Add("a", "p", `"<&>\`+"\x00\u2028\xff", int64(-1))
	f.Fuzz(func(t *testing.T, activity, product, user string, n int64) {
		r := api.Reservation{
			ActivityID: activity, ProductID: product, UserID: user, Quantity: n, PriceCents: n, Currency: user,
			ReservationID: product, State: api.ReservationStateQueued,
		}
		want, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if got := appendQueued(nil, r); string(got) != string(want) {
			t.Errorf("%s, want %s", got, want)
		}
	})
}
