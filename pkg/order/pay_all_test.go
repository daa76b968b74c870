package order_test

import (
	"errors"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/leadingpeers/seckill/internal/testservers"
	"github.com/leadingpeers/seckill/pkg/order"
)

func TestPayAll(t *testing.T) {
	good := func(n int, ref string) order.Payment {
		return order.Payment{ReservationID: rid(n), Ref: ref, AmountCents: 1998}
	}
	for _, tt := range []struct {
		name     string
		payments []order.Payment
		paid     []string // by exactly the payment given
		why      string
	}{
		{"none", nil, nil, "an empty batch is no statement"},
		{"two that wait", []order.Payment{good(1, "a"), good(2, "b")}, []string{rid(1), rid(2)}, "the ordinary case"},
		{"paid before by the same", []order.Payment{good(3, "before")}, []string{rid(3)}, "a repeated payment gets the same answer"},
		{"paid before by another", []order.Payment{good(3, "other"), good(1, "a")}, []string{rid(1)}, "its money is due back; its neighbour is paid"},
		{"cancelled", []order.Payment{good(4, "late"), good(1, "a")}, []string{rid(1)}, "nothing is resurrected"},
		{"no such order", []order.Payment{good(99, "a"), good(1, "b")}, []string{rid(1)}, "Pay says what to do about it"},
		{"wrong amount", []order.Payment{{ReservationID: rid(1), Ref: "a", AmountCents: 1}, good(2, "b")}, []string{rid(2)}, "less money is no payment"},
		{"reference of another order", []order.Payment{good(1, "before"), good(2, "b")}, nil, "one bad reference undoes the statement: Pay finds it alone"},
		{"one reference for two orders", []order.Payment{good(1, "a"), good(2, "a")}, nil, "which of them it pays is not ours to guess"},
		{"the same order twice", []order.Payment{good(1, "a"), good(1, "b")}, []string{rid(1)}, "the first counts, the second is for Pay"},
		{"not valid", []order.Payment{good(1, "with space"), good(2, "b")}, []string{rid(2)}, "never reaches the statement"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			db := testservers.MySQL(t)
			s := order.NewStore(db)
			place(t, s, 4)
			if _, err := s.Pay(t.Context(), good(3, "before")); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Cancel(t.Context(), rid(4), "test", note); err != nil {
				t.Fatal(err)
			}
			got, err := s.PayAll(t.Context(), tt.payments)
			if err != nil {
				t.Fatalf("%v: %s", err, tt.why)
			}
			if diff := cmp.Diff(tt.paid, slices.Sorted(maps.Keys(got))); diff != "" {
				t.Errorf("paid (-want +got): %s\n%s", tt.why, diff)
			}
			again, err := s.PayAll(t.Context(), tt.payments)
			if diff := cmp.Diff(got, again, cmpopts.EquateEmpty()); err != nil || diff != "" {
				t.Errorf("the topic is read again, and the answer is another (-was +is): %v\n%s", err, diff)
			}
			wantPaid := map[string]bool{rid(3): true}
			for _, id := range tt.paid {
				wantPaid[id] = true
			}
			if n := count(t, db, "SELECT COUNT(*) FROM orders WHERE state = 'paid'"); n != int64(len(wantPaid)) {
				t.Errorf("%d orders are paid, want %d: %s", n, len(wantPaid), tt.why)
			}
		})
	}
}

// What a payment is to an order that has ended is read, and is what Pay says.
func TestEnded(t *testing.T) {
	pay := func(n int, ref string, cents int64) order.Payment {
		return order.Payment{ReservationID: rid(n), Ref: ref, AmountCents: cents}
	}
	db := testservers.MySQL(t)
	s := order.NewStore(db)
	place(t, s, 4)
	if _, err := s.Pay(t.Context(), pay(3, "before", 1998)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Cancel(t.Context(), rid(4), "test", note); err != nil {
		t.Fatal(err)
	}
	var all []order.Payment
	for _, tt := range []struct {
		payment order.Payment
		ended   bool
		err     error
		why     string
	}{
		{pay(3, "before", 1998), true, nil, "the same payment again gets the same answer"},
		{pay(3, "other", 1998), true, order.ErrPaid, "its money is due back"},
		{pay(3, "before", 1), true, order.ErrAmount, "it has paid, but not this"},
		{pay(4, "late", 1998), true, order.ErrTooLate, "its money is due back"},
		{pay(4, "late", 1), true, order.ErrTooLate, "due back whatever was paid"},
		{pay(4, "before", 1998), true, order.ErrRefUsed, "that money has paid another order"},
		{pay(1, "a", 1998), false, nil, "it waits: Pay pays it"},
		{pay(2, "before", 1998), false, order.ErrRefUsed, "it waits: only the statement that pays is sure of the reference"},
		{pay(99, "a", 1998), false, order.ErrNotFound, "it may yet be placed"},
		{pay(3, "with space", 1998), false, order.ErrInvalid, "no reference that could have paid"},
	} {
		all = append(all, tt.payment)
		got, err := s.Ended(t.Context(), all)
		if err != nil {
			t.Fatal(err)
		}
		out, ok := got[tt.payment]
		if ok != tt.ended || ok && !errors.Is(out.Err, tt.err) {
			t.Errorf("%+v: %+v, %t, want %t with %v: %s", tt.payment, out, ok, tt.ended, tt.err, tt.why)
		}
		o, err := s.Pay(t.Context(), tt.payment)
		if !errors.Is(err, tt.err) || tt.ended && o != out.Order {
			t.Errorf("%+v: Pay says %+v %v, Ended %+v: %s", tt.payment, o, err, out, tt.why)
		}
	}
	if got, err := s.Ended(t.Context(), nil); got != nil || err != nil {
		t.Errorf("of none %v %v", got, err)
	}
}
