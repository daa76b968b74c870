package events_test

import (
	"fmt"

	"github.com/leadingpeers/seckill/pkg/events"
)

// A checkout back end tells that a buyer has paid. With a Publisher it would
// hand the event to Publish; the outbox keeps it in this form.
func ExampleEncode() {
	paid := events.Event{
		Type:          events.PaymentSucceeded,
		ReservationID: "abcdefghijklmnopqrstuvwx27",
		PaymentRef:    "pay-1",
		AmountCents:   199800,
		Currency:      "EUR",
	}
	body, err := events.Encode(paid)
	fmt.Println(string(body), err)
	fmt.Println(paid.ID())
	// Output:
	// {"reservation_id":"abcdefghijklmnopqrstuvwx27","amount_cents":199800,"currency":"EUR","payment_ref":"pay-1"} <nil>
	// abcdefghijklmnopqrstuvwx27.payment.succeeded.v1.pay-1
}

func ExampleDecode() {
	_, err := events.Decode(events.PaymentSucceeded, []byte(`{"reservation_id":"abcdefghijklmnopqrstuvwx27","amount_cents":"1998.00"}`))
	fmt.Println(err)
	e, err := events.Decode(events.PaymentFailed, []byte(`{"reservation_id":"abcdefghijklmnopqrstuvwx27","unknown":"is allowed"}`))
	fmt.Println(e.Topic(), e.Key(), err)
	// Output:
	// decode seckill.payment.succeeded.v1: json: cannot unmarshal string into Go struct field Event.amount_cents of type int64
	// payments abcdefghijklmnopqrstuvwx27 <nil>
}
