package stock

import (
	"testing"

	"github.com/leadingpeers/seckill/internal/mysql"
)

// FuzzReservation looks for an identity that passes the gate and is not safe
// behind it: as an ID of MySQL, or between the separators of a record in Redis.
func FuzzReservation(f *testing.F) {
	f.Add("aaaaaaaaaaaaaaaaaaaaaaaaaa", "phone", "u-88", int64(1))
	f.Fuzz(func(t *testing.T, id, product, user string, quantity int64) {
		r := Reservation{ID: id, ProductID: product, UserID: user, Quantity: quantity}
		if mysql.ID(id).Valid() != ValidID(id) {
			t.Fatalf("ID %q: MySQL takes it: %v, the gate: %v", id, mysql.ID(id).Valid(), ValidID(id))
		}
		if r.Validate() != nil {
			return
		}
		for _, text := range []string{id, product, user} {
			for i := range len(text) {
				if text[i] <= ' ' || text[i] > '~' {
					t.Fatalf("%q passes", text)
				}
			}
		}
		if quantity < 1 || quantity > MaxQuantity || len(user) > 64 || len(product) > 36 {
			t.Fatalf("%+v passes", r)
		}
	})
}

// FuzzField reads what Redis has of a buyer, which anybody with access to Redis
// may have written.
func FuzzField(f *testing.F) {
	f.Add("2;aaaaaaaaaaaaaaaaaaaaaaaaaa,2,P,1700000000000;")
	f.Fuzz(func(t *testing.T, value string) {
		_, rs, err := readField("phone", "u-88", value)
		if err != nil {
			return
		}
		for _, r := range rs {
			if r.State == "" || r.ProductID != "phone" || r.UserID != "u-88" {
				t.Fatalf("%q holds %+v", value, r)
			}
		}
	})
}
