package events_test

import (
	"errors"
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

// A handler that finds several events of its batch impossible says so of each.
// The Consumer puts these among the dead letters, and has the others handled.
func ExamplePermanentOf() {
	batch := []events.Event{
		{Type: events.PaymentSucceeded, ReservationID: "abcdefghijklmnopqrstuvwx27", AmountCents: 100},
		{Type: events.PaymentSucceeded, ReservationID: "abcdefghijklmnopqrstuvwx37", AmountCents: 199800},
		{Type: events.PaymentSucceeded, ReservationID: "abcdefghijklmnopqrstuvwx47", AmountCents: 1},
	}
	var errs []error
	for _, e := range batch {
		if e.AmountCents != 199800 {
			errs = append(errs, events.PermanentOf(e, "invalid", fmt.Errorf("%d cents: want 199800", e.AmountCents)))
		}
	}
	condemned := events.Condemned(errors.Join(errs...))
	for _, e := range batch {
		if fault := condemned[e]; fault != nil {
			fmt.Println(e.ReservationID, fault.Class, fault)
		}
	}
	// Output:
	// abcdefghijklmnopqrstuvwx27 invalid 100 cents: want 199800
	// abcdefghijklmnopqrstuvwx47 invalid 1 cents: want 199800
}
