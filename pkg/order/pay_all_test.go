package order_test

import (
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
