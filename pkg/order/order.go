// Package order is what was bought: [Order] and the [Store] that keeps orders
// and the outbox in MySQL.
//
// An order is placed once per reservation and leaves awaiting_payment once, by
// a compare-and-set. The package does not know the stock it pays for.
package order

import "time"

// State says whether an order is paid for.
type State string

// The states of an order. Paid and Cancelled are final.
const (
	AwaitingPayment State = "awaiting_payment"
	Paid            State = "paid"
	Cancelled       State = "cancelled"
)

// Order is one buyer's purchase of some units of one product.
type Order struct {
	ID            string // UUIDv7
	ReservationID string // 26 characters of base32; at most one order each
	ActivityID    string
	ProductID     string
	UserID        string
	Quantity      int64
	AmountCents   int64  // for all units together
	Currency      string // ISO 4217
	State         State
	Reason        string        // why it was cancelled
	PaymentRef    string        // of the payment that paid it; unique over all orders
	PayWindow     time.Duration // in: how long after its creation it may be paid
	PayDeadline   time.Time     // out: by the database's clock
	CreatedAt     time.Time
	UpdatedAt     time.Time
}

// Message is an event that waits in the outbox for its publication. The store
// does not read it.
type Message struct {
	Type        string // at most 64 characters
	Body        []byte // at most 64 KiB
	TraceParent string // at most 64 characters, or empty
}
