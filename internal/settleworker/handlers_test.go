package settleworker_test

import (
	"context"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/leadingpeers/seckill/internal/settleworker"
	"github.com/leadingpeers/seckill/pkg/catalog"
	"github.com/leadingpeers/seckill/pkg/events"
	"github.com/leadingpeers/seckill/pkg/order"
	"github.com/leadingpeers/seckill/pkg/stock"
)

var (
	errAway = errors.New("away")
	when    = time.Date(2030, 1, 2, 3, 4, 5, 6e6, time.UTC)
	later   = when.Add(time.Minute)
)

// id returns the nth reservation ID.
func id(n int) string {
	b := make([]byte, 16)
	binary.BigEndian.PutUint64(b[8:], uint64(n))
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b))
}

// deducted is the event of reservation n: two units of product p for user u.
func deducted(n int) events.Event {
	return events.Event{
		Type: events.StockDeducted, Time: when, TraceParent: fmt.Sprint("trace", n),
		ReservationID: id(n), ActivityID: "forged", ProductID: "p", UserID: "u", Quantity: 2,
	}
}

// stands is the order of reservation n in a state.
func stands(n int, s order.State) order.Order {
	o := order.Order{
		ID: fmt.Sprint("order", n), ReservationID: id(n), ActivityID: "sale", ProductID: "p", UserID: "u", Quantity: 2,
		AmountCents: 198, Currency: "CNY", State: s, PayDeadline: later, CreatedAt: when, UpdatedAt: later,
	}
	switch s {
	case order.AwaitingPayment:
	case order.Paid:
		o.PaymentRef = fmt.Sprint("ref", n)
	case order.Cancelled:
		o.Reason = order.ReasonTimeout
	}
	return o
}

// told is the event of the order of reservation n.
func told(n int, t events.Type) events.Event {
	e := events.Event{
		Type: t, Time: later, TraceParent: fmt.Sprint("trace", n),
		ReservationID: id(n), ActivityID: "sale", ProductID: "p", UserID: "u", Quantity: 2,
		OrderID: fmt.Sprint("order", n), AmountCents: 198, Currency: "CNY",
	}
	switch t { //nolint:exhaustive // the three facts about an order
	case events.OrderCreated:
		e.Time, e.PayDeadline = when, later
	case events.OrderPaid:
		e.PaymentRef = fmt.Sprint("ref", n)
	case events.OrderCancelled:
		e.Reason = order.ReasonTimeout
	}
	return e
}

// fakeCatalogue sells p for 99 cents, and dear for as much as can be counted.
type fakeCatalogue struct{ err error }

func (c fakeCatalogue) Offers(_ context.Context, ids []string) (map[string]catalog.Offer, error) {
	known := map[string]catalog.Offer{
		"p":    {ActivityID: "sale", PriceCents: 99, Currency: "CNY", PayWindow: time.Minute},
		"dear": {ActivityID: "sale", PriceCents: math.MaxInt64, Currency: "CNY", PayWindow: time.Minute},
	}
	found := make(map[string]catalog.Offer)
	for _, id := range ids {
		if offer, ok := known[id]; ok {
			found[id] = offer
		}
	}
	return found, c.err
}

// fakePlacer answers as it is told.
type fakePlacer struct {
	stand []order.Order
	err   error
	asked [][]order.Order
}

func (p *fakePlacer) Place(_ context.Context, orders []order.Order) ([]order.Order, error) {
	p.asked = append(p.asked, orders)
	return p.stand, p.err
}

func TestSettle(t *testing.T) {
	asked := func(n int) order.Order {
		return order.Order{
			ReservationID: id(n), ActivityID: "sale", ProductID: "p", UserID: "u", Quantity: 2,
			AmountCents: 198, Currency: "CNY", PayWindow: time.Minute,
		}
	}
	with := func(change func(*events.Event)) []events.Event {
		e := deducted(2)
		change(&e)
		return []events.Event{deducted(1), e}
	}
	tests := []struct {
		name    string
		batch   []events.Event
		stand   []order.Order
		place   error
		catalog error
		asked   [][]order.Order
		next    []events.Event
		err     error
		dead    bool
		why     string
	}{
		{name: "empty", next: []events.Event{}, why: "nothing in, nothing out"},
		{
			name: "new", batch: []events.Event{deducted(1), deducted(2)}, asked: [][]order.Order{{asked(1), asked(2)}},
			stand: []order.Order{stands(1, order.AwaitingPayment), stands(2, order.AwaitingPayment)},
			next:  []events.Event{told(1, events.OrderCreated), told(2, events.OrderCreated)},
			why:   "price, currency, window and activity are the catalogue's, not the event's",
		},
		{
			name: "seen before", batch: []events.Event{deducted(1), deducted(2), deducted(3)}, asked: [][]order.Order{{asked(1), asked(2), asked(3)}},
			stand: []order.Order{stands(1, order.AwaitingPayment), stands(2, order.Paid), stands(3, order.Cancelled)},
			next:  []events.Event{told(1, events.OrderCreated), told(2, events.OrderPaid), told(3, events.OrderCancelled)},
			why:   "the event may never have been written: told again, as the order stands now",
		},
		{
			name: "orders away", batch: []events.Event{deducted(1)}, asked: [][]order.Order{{asked(1)}}, place: errAway,
			next: []events.Event{}, err: errAway, why: "an outage is waited out",
		},
		{
			name: "no such order", batch: []events.Event{deducted(1)}, asked: [][]order.Order{{asked(1)}}, place: order.ErrInvalid,
			next: []events.Event{}, err: order.ErrInvalid, dead: true, why: "what the table cannot hold it will not hold tomorrow",
		},
		{name: "catalogue away", batch: []events.Event{deducted(1)}, catalog: errAway, next: []events.Event{}, err: errAway, why: "no order without a price"},
		{name: "unknown product", batch: with(func(e *events.Event) { e.ProductID = "nope" }), next: []events.Event{}, dead: true, why: "no repetition finds a price"},
		{name: "beyond counting", batch: with(func(e *events.Event) { e.ProductID = "dear" }), next: []events.Event{}, dead: true, why: "an overflow would be a negative price"},
		{name: "another type", batch: with(func(e *events.Event) { e.Type = events.StockRollback }), next: []events.Event{}, dead: true, why: "not a deduction"},
		{name: "no ID", batch: with(func(e *events.Event) { e.ReservationID = "" }), next: []events.Event{}, dead: true, why: "not a reservation"},
		{
			name: "two of another type", batch: append(with(func(e *events.Event) { e.Type = events.StockRollback }), events.Event{Type: events.OrderPaid}),
			next: []events.Event{}, dead: true, why: "all are named at once",
		},
		{
			name: "two unknown products", batch: append(with(func(e *events.Event) { e.ProductID = "nope" }), with(func(e *events.Event) { e.ProductID = "dear" })[1]),
			next: []events.Event{}, dead: true, why: "all are named at once",
		},
		{name: "no units", batch: with(func(e *events.Event) { e.Quantity = 0 }), next: []events.Event{}, dead: true, why: "not a reservation, and nothing to divide by"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			orders := &fakePlacer{stand: tt.stand, err: tt.place}
			next, err := settleworker.Settle(fakeCatalogue{tt.catalog}, orders)(t.Context(), tt.batch)
			if diff := cmp.Diff(tt.next, next); diff != "" {
				t.Errorf("next (-want +got): %s\n%s", tt.why, diff)
			}
			if diff := cmp.Diff(tt.asked, orders.asked); diff != "" {
				t.Errorf("placed (-want +got): %s\n%s", tt.why, diff)
			}
			checkError(t, err, tt.err, tt.dead, tt.why)
			var named []events.Event
			if tt.dead && tt.place == nil {
				named = tt.batch[1:]
			}
			checkNamed(t, err, tt.why, named...)
		})
	}
}

// checkNamed checks whose permanent fault an error is.
func checkNamed(t *testing.T, err error, why string, want ...events.Event) {
	t.Helper()
	got := events.Condemned(err)
	for _, e := range want {
		if got[e] == nil {
			t.Errorf("error %v does not name %+v: %s", err, e, why)
		}
	}
	if len(got) != len(want) {
		t.Errorf("error %v names %d events, want %d: %s", err, len(got), len(want), why)
	}
}

func checkError(t *testing.T, got, want error, dead bool, why string) {
	t.Helper()
	if (got != nil) != (want != nil || dead) || want != nil && !errors.Is(got, want) {
		t.Errorf("error %v, want %v: %s", got, want, why)
	}
	var permanent *events.PermanentError
	if errors.As(got, &permanent) != dead {
		t.Errorf("error %v permanent: want %t: %s", got, dead, why)
	}
}

// fakeCloser answers by reservation and notes what it was asked.
type fakeCloser struct {
	ended map[order.Payment]order.Outcome
	away  error // of Ended
	stand map[string]order.Order
	quick map[string]order.Order // what PayAll pays; Pay says why not the others
	errs  map[string]error
	mu    sync.Mutex
	asked []string
}

func (c *fakeCloser) PayAll(_ context.Context, ps []order.Payment) (map[string]order.Order, error) {
	paid := map[string]order.Order{}
	for _, p := range ps {
		if o, ok := c.quick[p.ReservationID]; ok {
			paid[p.ReservationID] = o
		}
	}
	return paid, nil
}

func (c *fakeCloser) Ended(context.Context, []order.Payment) (map[order.Payment]order.Outcome, error) {
	return c.ended, c.away
}

func (c *fakeCloser) Pay(_ context.Context, p order.Payment) (order.Order, error) {
	c.note("pay %s %s %d", p.ReservationID[24:], p.Ref, p.AmountCents)
	return c.stand[p.ReservationID], c.errs[p.ReservationID]
}

func (c *fakeCloser) Cancel(_ context.Context, reservationID, reason string, announce func(order.Order) []order.Message) (order.Order, error) {
	c.note("cancel %s %s", reservationID[24:], reason)
	if c.errs[reservationID] == nil {
		for _, m := range announce(stands(1, order.Cancelled)) {
			c.note("outbox %s %s", m.Type, m.TraceParent)
		}
	}
	return c.stand[reservationID], c.errs[reservationID]
}

func (c *fakeCloser) note(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = append(c.asked, fmt.Sprintf(format, args...))
}

// fakeLedger knows one reservation, or fails.
type fakeLedger struct {
	state stock.State
	err   error
}

func (l fakeLedger) Find(_ context.Context, id string) (stock.Reservation, error) {
	return stock.Reservation{ID: id, State: l.state}, l.err
}

// money is the event of a payment for reservation n.
func money(n int, t events.Type) events.Event {
	return events.Event{
		Type: t, Time: later, TraceParent: fmt.Sprint("trace", n), ReservationID: id(n),
		PaymentRef: fmt.Sprint("ref", n), AmountCents: 198, Currency: "CNY",
	}
}

func TestPayment(t *testing.T) {
	refund := func(n int, reason string) events.Event {
		e := told(n, events.OrderRefundDue)
		e.PaymentRef, e.Reason = fmt.Sprint("ref", n), reason
		return e
	}
	yes, no := events.PaymentSucceeded, events.PaymentFailed
	type orders = map[string]order.Order
	type errs = map[string]error
	type ended = map[order.Payment]order.Outcome
	known := func(n int, s order.State, err error) ended {
		return ended{{ReservationID: id(n), Ref: fmt.Sprint("ref", n), AmountCents: 198}: {Order: stands(n, s), Err: err}}
	}
	tests := []struct {
		name   string
		batch  []events.Event
		stand  orders
		errs   errs
		ended  ended
		away   error // of what has ended
		ledger fakeLedger
		next   []events.Event
		asked  []string
		err    error
		dead   bool
		why    string
	}{
		{name: "empty", next: []events.Event{}, why: "nothing in, nothing out"},
		{
			name: "paid", batch: []events.Event{money(1, yes)}, stand: orders{id(1): stands(1, order.Paid)},
			next: []events.Event{told(1, events.OrderPaid)}, asked: []string{"pay ae ref1 198"}, why: "the ordinary course",
		},
		{
			name: "too late", batch: []events.Event{money(1, yes)}, stand: orders{id(1): stands(1, order.Cancelled)}, errs: errs{id(1): order.ErrTooLate},
			next: []events.Event{refund(1, "too_late")}, asked: []string{"pay ae ref1 198"}, why: "nothing is resurrected: the money goes back",
		},
		{
			name: "paid before", batch: []events.Event{money(1, yes)}, stand: orders{id(1): stands(1, order.Paid)}, errs: errs{id(1): order.ErrPaid},
			next: []events.Event{refund(1, "already_paid")}, asked: []string{"pay ae ref1 198"}, why: "paid twice by the buyer: one of them goes back",
		},
		{
			name: "wrong amount", batch: []events.Event{money(1, yes)}, errs: errs{id(1): order.ErrAmount},
			next: []events.Event{}, asked: []string{"pay ae ref1 198"}, err: order.ErrAmount, dead: true, why: "checkout and we disagree: for a human",
		},
		{
			name: "reference used", batch: []events.Event{money(1, yes)}, errs: errs{id(1): order.ErrRefUsed},
			next: []events.Event{}, asked: []string{"pay ae ref1 198"}, err: order.ErrRefUsed, dead: true, why: "one payment pays one order",
		},
		{
			name: "hostile reference", batch: []events.Event{money(1, yes)}, errs: errs{id(1): order.ErrInvalid},
			next: []events.Event{}, asked: []string{"pay ae ref1 198"}, err: order.ErrInvalid, dead: true, why: "no repetition makes it a reference",
		},
		{
			name: "order not there yet", batch: []events.Event{money(1, yes)}, errs: errs{id(1): order.ErrNotFound}, ledger: fakeLedger{state: stock.Deducted},
			next: []events.Event{}, asked: []string{"pay ae ref1 198"}, err: order.ErrNotFound, why: "the deduction is under way: wait for it",
		},
		{
			name: "never an order", batch: []events.Event{money(1, yes)}, errs: errs{id(1): order.ErrNotFound}, ledger: fakeLedger{state: stock.Refused},
			next: []events.Event{}, asked: []string{"pay ae ref1 198"}, err: order.ErrNotFound, dead: true, why: "a refused reservation is never paid",
		},
		{
			name: "unknown", batch: []events.Event{money(1, yes)}, errs: errs{id(1): order.ErrNotFound}, ledger: fakeLedger{err: stock.ErrNotFound},
			next: []events.Event{}, asked: []string{"pay ae ref1 198"}, err: order.ErrNotFound, dead: true, why: "nobody has reserved this",
		},
		{
			name: "ledger away", batch: []events.Event{money(1, yes)}, errs: errs{id(1): order.ErrNotFound}, ledger: fakeLedger{err: errAway},
			next: []events.Event{}, asked: []string{"pay ae ref1 198"}, err: errAway, why: "an outage decides nothing",
		},
		{
			name: "failed", batch: []events.Event{money(1, no)},
			next: []events.Event{}, asked: []string{"cancel ae payment_failed", "outbox seckill.order.cancelled.v1 trace1", "outbox seckill.stock.rollback.v1 trace1"},
			why: "the outbox tells of it, in the transaction of the cancellation",
		},
		{
			name: "failed after paid", batch: []events.Event{money(1, no)}, errs: errs{id(1): order.ErrPaid},
			next: []events.Event{}, asked: []string{"cancel ae payment_failed"}, why: "paid is final",
		},
		{
			name: "failed, order not there yet", batch: []events.Event{money(1, no)}, errs: errs{id(1): order.ErrNotFound}, ledger: fakeLedger{state: stock.Deducted},
			next: []events.Event{}, asked: []string{"cancel ae payment_failed"}, err: order.ErrNotFound, why: "else the units would be held until the time-out",
		},
		{
			name: "one away", batch: []events.Event{money(1, yes), money(2, yes)}, stand: orders{id(2): stands(2, order.Paid)}, errs: errs{id(1): errAway},
			next: []events.Event{told(2, events.OrderPaid)}, asked: []string{"pay ae ref1 198", "pay ai ref2 198"}, err: errAway,
			why: "what is done is told before what is missing is retried",
		},
		{
			name: "in order", batch: []events.Event{money(1, yes), money(1, no), money(1, yes), money(1, no)},
			stand: orders{id(1): stands(1, order.Paid)}, errs: errs{id(1): order.ErrPaid},
			next: []events.Event{refund(1, "already_paid"), refund(1, "already_paid")}, why: "the events of one reservation are handled one after the other",
			asked: []string{"pay ae ref1 198", "cancel ae payment_failed", "pay ae ref1 198", "cancel ae payment_failed"},
		},
		{
			name: "ended: paid by it", batch: []events.Event{money(1, yes), money(1, yes)}, ended: known(1, order.Paid, nil),
			next: []events.Event{told(1, events.OrderPaid), told(1, events.OrderPaid)}, why: "what has ended is read with all others, and takes no transaction of its own",
		},
		{
			name: "ended: too late", batch: []events.Event{money(1, yes)}, ended: known(1, order.Cancelled, order.ErrTooLate),
			next: []events.Event{refund(1, "too_late")}, why: "the money goes back, again",
		},
		{
			name: "ended: paid by another", batch: []events.Event{money(1, yes)}, ended: known(1, order.Paid, order.ErrPaid),
			next: []events.Event{refund(1, "already_paid")}, why: "the money goes back, again",
		},
		{
			name: "ended: reference used", batch: []events.Event{money(1, yes)}, ended: known(1, order.Cancelled, order.ErrRefUsed),
			next: []events.Event{}, err: order.ErrRefUsed, dead: true, why: "one payment pays one order",
		},
		{
			name: "ended: another's outcome", batch: []events.Event{money(2, yes)}, stand: orders{id(2): stands(2, order.Paid)}, ended: known(1, order.Cancelled, order.ErrTooLate),
			next: []events.Event{told(2, events.OrderPaid)}, asked: []string{"pay ai ref2 198"}, why: "an outcome is of one payment",
		},
		{
			name: "what has ended cannot be read", batch: []events.Event{money(1, yes)}, away: errAway,
			next: []events.Event{}, err: errAway, why: "an outage decides nothing, and nothing is asked of a database that is away",
		},
		{name: "another type", batch: []events.Event{money(1, events.OrderPaid)}, next: []events.Event{}, dead: true, why: "not a payment"},
		{name: "no ID", batch: []events.Event{{Type: yes}}, next: []events.Event{}, dead: true, why: "not a reservation"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			closer := &fakeCloser{stand: tt.stand, errs: tt.errs, ended: tt.ended, away: tt.away}
			next, err := settleworker.Payment(closer, tt.ledger)(t.Context(), tt.batch)
			if diff := cmp.Diff(tt.next, next); diff != "" {
				t.Errorf("next (-want +got): %s\n%s", tt.why, diff)
			}
			if len(tt.batch) > 1 && tt.batch[0].ReservationID != tt.batch[1].ReservationID {
				slices.Sort(closer.asked) // different reservations go side by side
			}
			if diff := cmp.Diff(tt.asked, closer.asked); diff != "" {
				t.Errorf("asked (-want +got): %s\n%s", tt.why, diff)
			}
			checkError(t, err, tt.err, tt.dead, tt.why)
			var named []events.Event
			if tt.dead {
				named = tt.batch
			}
			checkNamed(t, err, tt.why, named...)
		})
	}
}

func TestPaymentsOfABatchArePaidTogether(t *testing.T) {
	yes, no := events.PaymentSucceeded, events.PaymentFailed
	closer := &fakeCloser{
		quick: map[string]order.Order{id(1): stands(1, order.Paid), id(2): stands(2, order.Paid)},
		stand: map[string]order.Order{id(2): stands(2, order.Paid), id(3): stands(3, order.Paid)},
	}
	batch := []events.Event{money(1, yes), money(2, no), money(2, yes), money(3, yes)}
	next, err := settleworker.Payment(closer, fakeLedger{})(t.Context(), batch)
	if err != nil {
		t.Fatal(err)
	}
	want := []events.Event{told(1, events.OrderPaid), told(2, events.OrderPaid), told(3, events.OrderPaid)}
	if diff := cmp.Diff(want, next); diff != "" {
		t.Errorf("next (-want +got):\n%s", diff)
	}
	slices.Sort(closer.asked)
	for _, asked := range closer.asked {
		if strings.HasPrefix(asked, "pay "+id(1)[24:]) {
			t.Errorf("%q: it was paid together with the others", asked)
		}
	}
	if len(closer.asked) < 3 {
		t.Errorf("asked %q: the events of reservation 2 must keep their order, and 3 must be asked for alone", closer.asked)
	}
}
