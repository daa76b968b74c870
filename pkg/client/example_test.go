package client_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/leadingpeers/seckill/api"
	"github.com/leadingpeers/seckill/pkg/client"
)

// operator is a client with an operator's key, checkout one with a service's.
// Theirs is the gateway that the tests start; yours is https://seckill.example.
func operator() *client.ClientWithResponses { return as(adminKey) }

func checkout() *client.ClientWithResponses { return as(serviceKey) }

func as(key string) *client.ClientWithResponses {
	c, err := client.New(client.Config{Server: server, Key: key})
	if err != nil {
		panic(err)
	}
	return c
}

// onSale puts a few phones on sale.
func onSale(ctx context.Context, units int64) (activityID, productID string) {
	c := operator()
	activity, err := c.CreateActivityWithResponse(ctx, api.ActivityCreate{
		Name: "Double Eleven", StartsAt: api.Millis{Time: time.Now().Add(-time.Second)}, EndsAt: api.Millis{Time: time.Now().Add(time.Hour)}, PayWindowSeconds: 900,
	})
	if err != nil {
		panic(err)
	}
	activityID = activity.JSON201.ID
	product, err := c.AddProductWithResponse(ctx, activityID, api.ProductCreate{
		Name: "Phone 17", PriceCents: 499900, Currency: "CNY", Total: units, PerOrder: 1, PerUser: 1,
	})
	if err != nil {
		panic(err)
	}
	if _, err := c.PublishActivityWithResponse(ctx, activityID, api.Publish{Preload: true}); err != nil {
		panic(err)
	}
	// On a very busy machine the list that buyers see may be late.
	anybody := as("")
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		_, err := anybody.GetProductWithResponse(ctx, activityID, product.JSON201.ID, nil)
		if err == nil {
			return activityID, product.JSON201.ID
		}
		if time.Now().After(end) {
			panic(err)
		}
	}
}

// From the reservation to the paid order.
func Example() {
	ctx := context.Background()
	activity, product := onSale(ctx, 10)
	c, err := client.New(client.Config{Server: server, Key: serviceKey})
	if err != nil {
		fmt.Println(err)
		return
	}

	// Reserve. The Idempotency-Key names the purchase: keep it with the cart.
	user, cart := "u-88", "cart-4711"
	reserved, err := c.CreateReservationWithResponse(ctx, activity, product,
		&api.CreateReservationParams{IdempotencyKey: &cart}, api.ReservationCreate{UserID: user, Quantity: 1})
	if err != nil {
		fmt.Println(err)
		return
	}

	// Wait until the ledger has decided and the order is written.
	id, wait := reserved.JSON202.ReservationID, "20s"
	got, err := c.GetReservationWithResponse(ctx, activity, product, id, &api.GetReservationParams{UserID: &user, Wait: &wait})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(got.JSON200.State, *got.JSON200.AmountCents, got.JSON200.Currency)

	// Tell that the buyer has paid.
	if _, err := c.RecordPaymentWithResponse(ctx, api.Payment{
		ReservationID: id, PaymentRef: "pay-" + id, AmountCents: *got.JSON200.AmountCents, Currency: got.JSON200.Currency, Outcome: api.PaymentOutcomeSucceeded,
	}); err != nil {
		fmt.Println(err)
		return
	}
	for got.JSON200.State == api.ReservationStateAwaitingPayment {
		time.Sleep(50 * time.Millisecond)
		if got, err = c.GetReservationWithResponse(ctx, activity, product, id, &api.GetReservationParams{UserID: &user}); err != nil {
			fmt.Println(err)
			return
		}
	}
	fmt.Println(got.JSON200.State)
	// Output:
	// awaiting_payment 499900 CNY
	// paid
}

// A draft goes online when nothing is in the way; otherwise everything that is
// comes back at once.
func ExampleClientWithResponses_PublishActivityWithResponse() {
	ctx, c := context.Background(), operator()
	activity, err := c.CreateActivityWithResponse(ctx, api.ActivityCreate{
		Name: "Double Eleven", StartsAt: api.Millis{Time: time.Now()}, EndsAt: api.Millis{Time: time.Now().Add(time.Hour)}, PayWindowSeconds: 900,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	id := activity.JSON201.ID
	_, err = c.PublishActivityWithResponse(ctx, id, api.Publish{})
	fmt.Println(client.CodeOf(err))

	if _, err := c.AddProductWithResponse(ctx, id, api.ProductCreate{
		Name: "Phone 17", PriceCents: 499900, Currency: "CNY", Total: 1000, PerOrder: 1, PerUser: 1,
	}); err != nil {
		fmt.Println(err)
		return
	}
	published, err := c.PublishActivityWithResponse(ctx, id, api.Publish{Preload: true}) // loads the product into Redis as well
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(published.JSON200.State)
	// Output:
	// not_publishable
	// online
}

// The same key is the same purchase, however often it is sent; a refusal is an
// error with a code.
func ExampleClientWithResponses_CreateReservationWithResponse() {
	ctx, c := context.Background(), checkout()
	activity, product := onSale(ctx, 1)
	var first string
	for _, buyer := range []struct{ user, cart string }{
		{"u-88", "cart-4711"},
		{"u-88", "cart-4711"}, // a double click, or a retry after a time-out
		{"u-89", "cart-4712"},
	} {
		got, err := c.CreateReservationWithResponse(ctx, activity, product,
			&api.CreateReservationParams{IdempotencyKey: &buyer.cart}, api.ReservationCreate{UserID: buyer.user, Quantity: 1})
		switch {
		case client.CodeOf(err) == "sold_out":
			fmt.Println(buyer.cart, "is too late")
		case err != nil:
			fmt.Println(err)
		case first == "":
			first = got.JSON202.ReservationID
			fmt.Println(buyer.cart, "has a phone")
		default:
			fmt.Println(buyer.cart, "has the same one:", got.JSON202.ReservationID == first)
		}
	}
	// Output:
	// cart-4711 has a phone
	// cart-4711 has the same one: true
	// cart-4712 is too late
}

// A reservation that is not paid can be given up; its units go back.
func ExampleClientWithResponses_CancelReservationWithResponse() {
	ctx, c := context.Background(), checkout()
	activity, product := onSale(ctx, 1)
	user, cart, wait := "u-88", "cart-4711", "20s"
	reserved, err := c.CreateReservationWithResponse(ctx, activity, product,
		&api.CreateReservationParams{IdempotencyKey: &cart}, api.ReservationCreate{UserID: user, Quantity: 1})
	if err != nil {
		fmt.Println(err)
		return
	}
	id := reserved.JSON202.ReservationID
	if _, err := c.GetReservationWithResponse(ctx, activity, product, id, &api.GetReservationParams{UserID: &user, Wait: &wait}); err != nil {
		fmt.Println(err)
		return
	}
	cancelled, err := c.CancelReservationWithResponse(ctx, activity, product, id, api.ReservationCancel{UserID: user})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(cancelled.JSON200.State, cancelled.JSON200.Reason)
	// Output:
	// released cancelled
}

// A purchase token lets a buyer's own device reserve: it needs no key, no user
// and no Idempotency-Key, and makes one reservation.
func ExampleClientWithResponses_IssueTokenWithResponse() {
	ctx := context.Background()
	activity, product := onSale(ctx, 10)
	issued, err := checkout().IssueTokenWithResponse(ctx, api.TokenCreate{ActivityID: activity, ProductID: product, UserID: "u-88", TTLSeconds: 120})
	if err != nil {
		fmt.Println(err)
		return
	}

	device := as(issued.JSON201.Token)
	for range 2 {
		got, err := device.CreateReservationWithResponse(ctx, activity, product, nil, api.ReservationCreate{Quantity: 1})
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(got.JSON202.UserID, got.JSON202.ReservationID == issued.JSON201.ReservationID)
	}
	_, other := onSale(ctx, 10)
	_, err = device.CreateReservationWithResponse(ctx, activity, other, nil, api.ReservationCreate{Quantity: 1})
	fmt.Println(client.CodeOf(err))
	// Output:
	// u-88 true
	// u-88 true
	// token_mismatch
}

// A page that shows the buyer each state follows the stream.
func ExampleClientWithResponses_WatchReservation() {
	ctx, c := context.Background(), checkout()
	activity, product := onSale(ctx, 1)
	user, cart := "u-88", "cart-4711"
	reserved, err := c.CreateReservationWithResponse(ctx, activity, product,
		&api.CreateReservationParams{IdempotencyKey: &cart}, api.ReservationCreate{UserID: user, Quantity: 1})
	if err != nil {
		fmt.Println(err)
		return
	}
	stream, err := c.WatchReservation(ctx, activity, product, reserved.JSON202.ReservationID, &api.WatchReservationParams{UserID: &user})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = stream.Body.Close() }()
	for lines := bufio.NewScanner(stream.Body); lines.Scan(); {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue // the event's name, or a sign of life
		}
		var now api.Reservation
		if err := json.Unmarshal([]byte(data), &now); err != nil {
			fmt.Println(err)
			return
		}
		if now.State != api.ReservationStateQueued { // often it is over before anybody looks
			fmt.Println(now.State)
			return
		}
	}
	// Output:
	// awaiting_payment
}

// A problem has a stable code, and may say several things at once.
func ExampleError() {
	ctx, c := context.Background(), operator()
	activity, err := c.CreateActivityWithResponse(ctx, api.ActivityCreate{
		Name: "Yesterday", StartsAt: api.Millis{Time: time.Now().Add(-2 * time.Hour)}, EndsAt: api.Millis{Time: time.Now().Add(-time.Hour)}, PayWindowSeconds: 900,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = c.PublishActivityWithResponse(ctx, activity.JSON201.ID, api.Publish{})
	if problem, ok := errors.AsType[*client.Error](err); ok {
		fmt.Println(problem.Code, problem.Status, "retryable:", problem.Retryable)
		for _, p := range problem.Problems {
			fmt.Println(p.Field)
		}
	}
	// Output:
	// not_publishable 409 retryable: false
	// ends_at
	// products
}
