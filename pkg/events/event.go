// Package events is the language of the processes: [Event] and its CloudEvents
// form, [Publisher], [Consumer], dead letters and the topics.
//
// Every event may arrive twice, late or out of order, and none is lost: a
// batch is committed only after everything that follows from it has been
// written. The package does not know what an event means; its readers do.
package events

import "time"

// Type names what happened: a fact, in the past tense, with its version.
type Type string

// The types. Changes to a type only add optional fields; anything else is a
// new type on a new topic.
const (
	ReservationCreated Type = "seckill.reservation.created.v1" // gateway, reaper: units were taken in Redis
	StockDeducted      Type = "seckill.stock.deducted.v1"      // stock-worker, sweeper: the ledger has taken them
	StockRollback      Type = "seckill.stock.rollback.v1"      // stock-worker, settle-worker: they must go back
	OrderCreated       Type = "seckill.order.created.v1"       // settle-worker: the order awaits payment
	OrderPaid          Type = "seckill.order.paid.v1"          // settle-worker
	OrderCancelled     Type = "seckill.order.cancelled.v1"     // settle-worker, gateway
	OrderRefundDue     Type = "seckill.order.refund_due.v1"    // settle-worker: money came for an order that cannot take it
	PaymentSucceeded   Type = "seckill.payment.succeeded.v1"   // checkout: the buyer has paid
	PaymentFailed      Type = "seckill.payment.failed.v1"      // checkout: the buyer will not pay; final
	ChannelSoldOut     Type = "seckill.channel.sold_out.v1"    // whoever keeps the source: it has nothing left
	ChannelResumed     Type = "seckill.channel.resumed.v1"     // and it has again
)

// Event is one fact about one reservation, or about a channel. The fields that a type does not
// need stay zero and are left out of its JSON.
type Event struct {
	Type        Type      `json:"-"` // ce_type
	Time        time.Time `json:"-"` // ce_time, UTC; when the fact was established
	Source      string    `json:"-"` // ce_source; filled in by the Publisher
	TraceParent string    `json:"-"` // W3C trace context, carried through every hop

	ReservationID string    `json:"reservation_id,omitempty"`
	Channel       string    `json:"channel,omitempty"` // a source of stock, of events about it
	ActivityID    string    `json:"activity_id,omitempty"`
	ProductID     string    `json:"product_id,omitempty"`
	UserID        string    `json:"user_id,omitempty"`
	Quantity      int64     `json:"quantity,omitempty"` // units
	Reason        string    `json:"reason,omitempty"`   // of a rollback, a cancellation or a refund
	OrderID       string    `json:"order_id,omitempty"`
	AmountCents   int64     `json:"amount_cents,omitempty"` // in hundredths of Currency
	Currency      string    `json:"currency,omitempty"`     // ISO 4217
	PaymentRef    string    `json:"payment_ref,omitempty"`  // the payment provider's own reference
	PayDeadline   time.Time `json:"pay_deadline,omitzero"`  // UTC
}
