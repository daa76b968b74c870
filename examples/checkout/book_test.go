package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/leadingpeers/seckill/pkg/events"
)

const id = "aaaaaaaaaaaaaaaaaaaaaaaaaa"

func event(t events.Type, change func(*events.Event)) events.Event {
	e := events.Event{
		Type: t, ReservationID: id, ProductID: "phone", UserID: "u-88", Quantity: 1, OrderID: "o-1", AmountCents: 499900, Currency: "CNY",
	}
	if change != nil {
		change(&e)
	}
	return e
}

func paidBy(ref string) func(*events.Event) {
	return func(e *events.Event) { e.PaymentRef = ref }
}

func open(t *testing.T, path string) *book {
	t.Helper()
	b, err := openBook(path, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.close)
	return b
}

func TestBook(t *testing.T) {
	created := event(events.OrderCreated, nil)
	paid := event(events.OrderPaid, paidBy("pay-1"))
	cancelled := event(events.OrderCancelled, func(e *events.Event) { e.Reason = "payment_timeout" })
	due := event(events.OrderRefundDue, paidBy("pay-2"))
	for _, tt := range []struct {
		why     string
		events  []events.Event
		state   string
		refunds int
	}{
		{"an order waits", []events.Event{created}, "awaiting_payment", 0},
		{"it is paid", []events.Event{created, paid}, "paid", 0},
		{"the first event comes last", []events.Event{paid, created}, "paid", 0},
		{"it is told twice", []events.Event{created, cancelled, created}, "cancelled", 0},
		{"money too late", []events.Event{created, cancelled, due}, "cancelled", 1},
		{"the refund is told again", []events.Event{created, cancelled, due, due}, "cancelled", 1},
		{"another payment", []events.Event{paid, due, event(events.OrderRefundDue, paidBy("pay-3"))}, "paid", 2},
	} {
		t.Run(tt.why, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "journal")
			b := open(t, path)
			for _, e := range tt.events {
				if next, err := b.handle(t.Context(), []events.Event{e}); err != nil || len(next) > 0 {
					t.Fatalf("%v, then %v", err, next)
				}
			}
			got, ok := b.find(id)
			if !ok || got.State != tt.state || len(got.Refunds) != tt.refunds {
				t.Errorf("%+v, want %s and %d refunds", got, tt.state, tt.refunds)
			}
			again, _ := open(t, path).find(id)
			if diff := cmp.Diff(got, again); diff != "" {
				t.Errorf("the journal remembers otherwise (-before +after a restart):\n%s", diff)
			}
		})
	}
}

func TestJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	b := open(t, path)
	if _, err := b.handle(t.Context(), []events.Event{event(events.OrderCreated, nil)}); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		why, text string
		ok        bool
	}{
		{"a crash in the middle of a line", string(whole) + string(whole[:20]), true},
		{"two lines that say the same", string(whole) + string(whole), true},
		{"something else", "hello\n", false},
		{"an event that is none", `{"type":"seckill.order.paid.v1","body":{}}` + "\n", false},
	} {
		t.Run(tt.why, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "journal")
			if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			b, err := openBook(path, slog.New(slog.DiscardHandler))
			if (err == nil) != tt.ok {
				t.Fatalf("error %v, want ok %v", err, tt.ok)
			}
			if !tt.ok {
				return
			}
			if _, err := b.handle(t.Context(), []events.Event{event(events.OrderPaid, paidBy("pay-1"))}); err != nil {
				t.Fatal(err)
			}
			b.close()
			if got, _ := open(t, path).find(id); got.State != "paid" {
				t.Errorf("%+v, want it paid: what was written after the cut must be read again", got)
			}
		})
	}
}
