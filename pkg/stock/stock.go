// Package stock counts the units of a product: [Cache] holds the hot count in
// Redis and admits buyers, [Ledger] holds the count in MySQL that decides.
//
// The equation that both keep, after every step of theirs:
//
//	total = surplus (Redis) + pending + deducted
//
// and at rest surplus = available, the ledger's own count. A reservation moves
// through these states and never backwards:
//
//	Redis    none ─Reserve→ pending ─Apply→ deducted ─Apply→ rolled back
//	         none ─Apply→ deducted (adopted)    none ─Apply→ rolled back (tombstone)
//	Ledger   none ─Deduct→ deducted ─Rollback→ rolled back
//	         none ─Deduct→ refused              none ─Rollback→ rolled back (tombstone)
//
// The package knows nothing of HTTP, of events or of orders.
package stock

import (
	"fmt"
	"strings"
	"time"
)

// State says how far a reservation has come.
type State string

// The states of a reservation. Pending exists only in Redis, Refused only in
// the ledger; Refused and RolledBack are final.
const (
	Pending    State = "pending"     // taken in Redis, not yet decided
	Deducted   State = "deducted"    // the ledger has taken the units for good
	Refused    State = "refused"     // the ledger said no after Redis had said yes
	RolledBack State = "rolled_back" // the units went back, or never were taken
)

// Reservation is some units of one product, taken for one buyer.
type Reservation struct {
	ID         string    // 26 characters of lower-case base32: a 128-bit MAC
	ActivityID string    // the sale it belongs to; the cache and the ledger do not keep it
	ProductID  string    // 1 to 36 characters, a-z 0-9 and inner hyphens
	UserID     string    // 1 to 64 printable ASCII characters without spaces
	Quantity   int64     // units, 1 to MaxQuantity
	State      State     // how far it has come
	Reason     string    // why it was refused or rolled back, else empty
	At         time.Time // when Redis (Cache) or MySQL (Ledger) first saw it, UTC
	Settled    bool      // only from Ledger.Deduct: it was there already, and so was its order
}

// Limits of one reservation.
const (
	MaxQuantity = 999_999_999 // units in one reservation; the scripts take at most nine digits
	MaxBatch    = 500         // reservations in one script call or one transaction: Lua's unpack has a limit
)

// Validate reports what is wrong with the identity or the quantity of r. It is
// the gate before every script and every statement: what passes it needs no
// escaping in a Redis key, a hash field or a record.
func (r Reservation) Validate() error {
	switch {
	case !ValidID(r.ID):
		return fmt.Errorf("reservation ID %.40q: want 26 characters of a-z and 2-7 that name 128 bits", r.ID)
	case !ValidProductID(r.ProductID):
		return fmt.Errorf("product ID %.40q: want 1 to 36 characters of a-z, 0-9 and inner hyphens", r.ProductID)
	case !ValidUserID(r.UserID):
		return fmt.Errorf("user ID %.70q: want 1 to 64 printable ASCII characters without spaces", r.UserID)
	case r.Quantity < 1 || r.Quantity > MaxQuantity:
		return fmt.Errorf("quantity %d: want 1 to %d", r.Quantity, MaxQuantity)
	}
	return nil
}

// ValidID reports whether id has the form of a reservation ID.
func ValidID(id string) bool {
	for i := range len(id) {
		if c := id[i]; (c < 'a' || c > 'z') && (c < '2' || c > '7') {
			return false
		}
	}
	// The last character carries three bits: with others two texts would be one ID.
	return len(id) == 26 && strings.IndexByte("aeimquy4", id[25]) >= 0
}

// ValidProductID reports whether id has the form of a product ID.
func ValidProductID(id string) bool {
	for i := range len(id) {
		if c := id[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && (c != '-' || i == 0 || i == len(id)-1) {
			return false
		}
	}
	return id != "" && len(id) <= 36
}

// ValidUserID reports whether id has the form of a user ID.
func ValidUserID(id string) bool {
	for i := range len(id) {
		if id[i] < '!' || id[i] > '~' {
			return false
		}
	}
	return id != "" && len(id) <= 64
}

// Terms are what a product is sold under: the part of the catalogue that Redis
// checks on every reservation.
type Terms struct {
	ProductID string
	PerOrder  int64     // most units in one reservation
	PerUser   int64     // most units one buyer may hold
	OnSale    bool      // the activity is online and the source channel has stock
	StartsAt  time.Time // the window, by Redis's clock: StartsAt <= now < EndsAt
	EndsAt    time.Time
	Total     int64 // units put on sale
	Restocks  int64 // how often Total has changed: of two, Redis keeps the one with more
}

// Refusal is a "no" in the ordinary course of a sale. The same word stands in
// the script's reply, the Go error, the "code" of the HTTP answer, the reason
// of the event and the label of the metric. Nothing has changed when it is
// returned. It is never retried and never logged, only counted.
type Refusal string

// The refusals.
const (
	SoldOut         Refusal = "sold_out"          // fewer units are left than were asked for
	OverUserLimit   Refusal = "over_user_limit"   // the buyer would hold more than per_user
	OverOrderLimit  Refusal = "over_order_limit"  // more than per_order in one reservation
	NotOnSale       Refusal = "not_on_sale"       // before, after or outside the sale
	NotLoaded       Refusal = "not_loaded"        // the product is not in Redis
	TooManyAttempts Refusal = "too_many_attempts" // about 32 reservations of one product by one user
	IDReused        Refusal = "id_reused"         // the ID is known with another quantity
)

// Refusals lists every refusal, for tables and metrics.
func Refusals() []Refusal {
	return []Refusal{SoldOut, OverUserLimit, OverOrderLimit, NotOnSale, NotLoaded, TooManyAttempts, IDReused}
}

// Error makes a Refusal an error.
func (r Refusal) Error() string { return string(r) }

// ErrUnknown marks a fault after which the change may have happened. Repeating
// the call with the same reservation ID is harmless and finds out.
var ErrUnknown = unknown{}

type unknown struct{}

func (unknown) Error() string { return "outcome unknown" }

// ErrNotFound is returned when no such reservation or product exists. Nothing
// has changed.
var ErrNotFound = notFound{}

type notFound struct{}

func (notFound) Error() string { return "not found" }
