package order_test

import (
	"context"
	"database/sql"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"

	"github.com/leadingpeers/seckill/internal/testservers"
	"github.com/leadingpeers/seckill/pkg/order"
)

// rid returns the n-th reservation ID.
func rid(n int) string {
	var raw [16]byte
	binary.BigEndian.PutUint64(raw[8:], uint64(n))
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(raw[:]))
}

// sample returns a valid order of reservation n.
func sample(n int) order.Order {
	return order.Order{
		ReservationID: rid(n), ActivityID: "act", ProductID: "p", UserID: "user-1", Quantity: 2,
		AmountCents: 1998, Currency: "CNY", PayWindow: 15 * time.Minute,
	}
}

// note is an announcement with the order's reservation as its body.
func note(o order.Order) []order.Message {
	return []order.Message{{Type: "cancelled", Body: []byte(o.ReservationID + " " + o.Reason), TraceParent: "trace"}}
}

// place places orders 1 to n.
func place(t *testing.T, s *order.Store, n int) []order.Order {
	t.Helper()
	in := make([]order.Order, n)
	for i := range in {
		in[i] = sample(i + 1)
	}
	out, err := s.Place(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func exec(t *testing.T, db *sql.DB, query string, args ...any) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatal(err)
	}
}

func count(t *testing.T, db *sql.DB, query string) int64 {
	t.Helper()
	var n int64
	if err := db.QueryRowContext(t.Context(), query).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// outbox returns the bodies that wait, oldest first.
func outbox(t *testing.T, s *order.Store) []string {
	t.Helper()
	var bodies []string
	stop := errors.New("only looking")
	_, err := s.Relay(t.Context(), order.MaxBatch, func(_ context.Context, ms []order.Message) error {
		for _, m := range ms {
			bodies = append(bodies, string(m.Body))
		}
		return stop
	})
	if err != nil && !errors.Is(err, stop) {
		t.Fatal(err)
	}
	return bodies
}

func TestPlaceOncePerReservation(t *testing.T) {
	db := testservers.MySQL(t)
	s := order.NewStore(db)
	first, err := s.Place(t.Context(), []order.Order{sample(3), sample(1), sample(3)})
	if err != nil {
		t.Fatal(err)
	}
	if len(first) != 3 || first[0].ReservationID != rid(3) || first[1].ReservationID != rid(1) || first[2] != first[0] {
		t.Fatalf("not one order per input, in input order: %+v", first)
	}
	want := sample(3)
	want.State = order.AwaitingPayment
	if diff := cmp.Diff(want, first[0], cmpopts.IgnoreFields(order.Order{}, "ID", "PayDeadline", "CreatedAt", "UpdatedAt")); diff != "" {
		t.Errorf("as placed (-want +got):\n%s", diff)
	}
	if u, err := uuid.Parse(first[0].ID); err != nil || u.Version() != 7 {
		t.Errorf("ID %q is not a UUIDv7", first[0].ID)
	}
	if got := first[0].PayDeadline.Sub(first[0].CreatedAt); got != 15*time.Minute {
		t.Errorf("deadline %s after the creation", got)
	}
	var now time.Time
	if err := db.QueryRowContext(t.Context(), "SELECT created_at FROM orders WHERE id = ?", first[0].ID).Scan(&now); err != nil || !now.Equal(first[0].CreatedAt) {
		t.Errorf("created %v, the row says %v (%v)", first[0].CreatedAt, now, err)
	}

	fresh := []order.Order{sample(5), sample(4)}
	fresh[0].State, fresh[0].Reason, fresh[0].PaymentRef, fresh[1].PayWindow = order.Paid, "not ours to say", "nor this", time.Minute
	placed, err := s.Place(t.Context(), fresh)
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range placed {
		stands, err := s.Find(t.Context(), fresh[i].ReservationID)
		if diff := cmp.Diff(stands, o); err != nil || diff != "" {
			t.Errorf("all new: placed as it stands (-stands +got): %v\n%s", err, diff)
		}
	}

	other := sample(1)
	other.UserID, other.Quantity, other.PayWindow = "somebody-else", 9, time.Minute
	again, err := s.Place(t.Context(), []order.Order{other, sample(2)})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first[1], again[0]); diff != "" {
		t.Errorf("an order that was there has changed (-was +is):\n%s", diff)
	}
	once, err := s.Place(t.Context(), []order.Order{sample(6), other, sample(7), sample(2), sample(6)})
	if err != nil {
		t.Fatal(err)
	}
	for i, n := range []int{6, 1, 7, 2, 6} {
		stands, err := s.Find(t.Context(), rid(n))
		if diff := cmp.Diff(stands, once[i]); err != nil || diff != "" {
			t.Errorf("a topic that is read again, with new ones between: not as it stands (-stands +got): %v\n%s", err, diff)
		}
	}
	if n := count(t, db, "SELECT COUNT(*) FROM orders"); n != 7 {
		t.Errorf("%d orders, want 7", n)
	}
	if none, err := s.Place(t.Context(), nil); none != nil || err != nil {
		t.Errorf("placing nothing: %v, %v", none, err)
	}
}

func TestPlaceRefusesWhatTheTableCannotHold(t *testing.T) {
	db := testservers.MySQL(t)
	s := order.NewStore(db)
	tests := []struct {
		why  string
		edit func(*order.Order)
	}{
		{"no reservation", func(o *order.Order) { o.ReservationID = "" }},
		{"more than 128 bits", func(o *order.Order) { o.ReservationID = rid(1)[:25] + "b" }},
		{"no activity", func(o *order.Order) { o.ActivityID = "" }},
		{"product too long", func(o *order.Order) { o.ProductID = strings.Repeat("x", 37) }},
		{"user not ASCII", func(o *order.Order) { o.UserID = "用户" }},
		{"no quantity", func(o *order.Order) { o.Quantity = 0 }},
		{"negative amount", func(o *order.Order) { o.AmountCents = -1 }},
		{"currency in small letters", func(o *order.Order) { o.Currency = "cny" }},
		{"no pay window", func(o *order.Order) { o.PayWindow = 0 }},
		{"half a millisecond", func(o *order.Order) { o.PayWindow = time.Second + time.Microsecond }},
		{"pay window too long", func(o *order.Order) { o.PayWindow = order.MaxPayWindow + time.Second }},
	}
	for _, tt := range tests {
		bad := sample(2)
		tt.edit(&bad)
		if _, err := s.Place(t.Context(), []order.Order{sample(1), bad}); !errors.Is(err, order.ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", tt.why, err)
		}
	}
	if _, err := s.Place(t.Context(), make([]order.Order, order.MaxBatch+1)); !errors.Is(err, order.ErrInvalid) {
		t.Errorf("too many: got %v, want ErrInvalid", err)
	}
	if n := count(t, db, "SELECT COUNT(*) FROM orders"); n != 0 {
		t.Errorf("%d orders were placed beside a bad one", n)
	}
}

func TestPay(t *testing.T) {
	s := order.NewStore(testservers.MySQL(t))
	place(t, s, 4)
	if _, err := s.Cancel(t.Context(), rid(3), "cancelled_by_user", note); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		n      int
		ref    string
		amount int64
		err    error
		state  order.State
		why    string
	}{
		{1, "ref-1", 1997, order.ErrAmount, order.AwaitingPayment, "one cent short"},
		{1, "ref-1", 1998, nil, order.Paid, "paid"},
		{1, "ref-1", 1998, nil, order.Paid, "the same news again"},
		{1, "ref-1", 1999, order.ErrAmount, order.Paid, "the same reference with another amount contradicts itself"},
		{1, "ref-2", 1998, order.ErrPaid, order.Paid, "a second payment is due back"},
		{2, "ref-1", 1998, order.ErrRefUsed, "", "a reference pays one order"},
		{2, "ref-1", 1, order.ErrRefUsed, "", "whatever the amount"},
		{3, "ref-3", 1998, order.ErrTooLate, order.Cancelled, "nothing is resurrected, the money is due back"},
		{3, "ref-1", 1998, order.ErrRefUsed, "", "the money of a used reference is not due back"},
		{9, "ref-9", 1998, order.ErrNotFound, "", "no such order"},
		{4, "", 1998, order.ErrInvalid, "", "no reference"},
		{4, strings.Repeat("r", 65), 1998, order.ErrInvalid, "", "a reference the column cannot hold"},
		{4, "ref-4", -1998, order.ErrInvalid, "", "a negative amount"},
		{4, "ref-2", 1998, nil, order.Paid, "a reference that was refused elsewhere is free"},
	}
	for _, tt := range tests {
		got, err := s.Pay(t.Context(), order.Payment{ReservationID: rid(tt.n), Ref: tt.ref, AmountCents: tt.amount})
		if !errors.Is(err, tt.err) || got.State != tt.state {
			t.Errorf("%s: got %q, %v; want %q, %v", tt.why, got.State, err, tt.state, tt.err)
		}
		if err == nil && got.PaymentRef != tt.ref {
			t.Errorf("%s: paid by %q, want %q", tt.why, got.PaymentRef, tt.ref)
		}
	}
	for n, want := range []order.State{1: order.Paid, 2: order.AwaitingPayment, 3: order.Cancelled, 4: order.Paid} {
		if n == 0 {
			continue
		}
		if got, err := s.Find(t.Context(), rid(n)); err != nil || got.State != want {
			t.Errorf("order %d at the end: %q, %v; want %q", n, got.State, err, want)
		}
	}
}

func TestCancel(t *testing.T) {
	s := order.NewStore(testservers.MySQL(t))
	place(t, s, 3)
	if _, err := s.Pay(t.Context(), order.Payment{ReservationID: rid(2), Ref: "r", AmountCents: 1998}); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		id, reason string
		err        error
		state      order.State
		outbox     []string
		why        string
	}{
		{rid(1), "payment_failed", nil, order.Cancelled, []string{rid(1) + " payment_failed"}, "cancelled, and said so"},
		{rid(1), "another", nil, order.Cancelled, []string{rid(1) + " payment_failed"}, "again: the first reason stays, nothing is written"},
		{rid(2), "payment_failed", order.ErrPaid, order.Paid, []string{rid(1) + " payment_failed"}, "a paid order stays paid"},
		{rid(9), "payment_failed", order.ErrNotFound, "", []string{rid(1) + " payment_failed"}, "no such order"},
		{"no-id", "payment_failed", order.ErrInvalid, "", []string{rid(1) + " payment_failed"}, "no ID"},
		{rid(3), "", order.ErrInvalid, "", []string{rid(1) + " payment_failed"}, "no reason"},
		{rid(3), strings.Repeat("x", 33), order.ErrInvalid, "", []string{rid(1) + " payment_failed"}, "a reason the column cannot hold"},
	}
	for _, tt := range tests {
		got, err := s.Cancel(t.Context(), tt.id, tt.reason, note)
		if !errors.Is(err, tt.err) || got.State != tt.state {
			t.Errorf("%s: got %q, %v; want %q, %v", tt.why, got.State, err, tt.state, tt.err)
		}
		if diff := cmp.Diff(tt.outbox, outbox(t, s)); diff != "" {
			t.Errorf("%s: outbox (-want +got):\n%s", tt.why, diff)
		}
	}
	if got, err := s.Find(t.Context(), rid(1)); err != nil || got.Reason != "payment_failed" {
		t.Errorf("reason %q, %v", got.Reason, err)
	}
}

func TestCancelAndItsMessageAreOne(t *testing.T) {
	s := order.NewStore(testservers.MySQL(t))
	place(t, s, 1)
	tests := []struct {
		m   order.Message
		why string
	}{
		{order.Message{Type: "", Body: []byte("x")}, "no type"},
		{order.Message{Type: strings.Repeat("t", 65)}, "a type the column cannot hold"},
		{order.Message{Type: "t", TraceParent: "a b"}, "a trace with a space"},
		{order.Message{Type: "t", Body: make([]byte, order.MaxBody+1)}, "a body one byte too long"},
	}
	for _, tt := range tests {
		_, err := s.Cancel(t.Context(), rid(1), "why", func(order.Order) []order.Message { return []order.Message{{Type: "fine"}, tt.m} })
		if !errors.Is(err, order.ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", tt.why, err)
		}
		if got, err := s.Find(t.Context(), rid(1)); err != nil || got.State != order.AwaitingPayment {
			t.Fatalf("%s: the order is %q without its message (%v)", tt.why, got.State, err)
		}
	}
	big := make([]byte, order.MaxBody) // hostile bytes, each of which must be escaped
	many := make([]order.Message, 150) // 20 MB with the escapes: more than MariaDB takes in one packet
	for i := range many {
		many[i] = order.Message{Type: "t", Body: big}
	}
	if _, err := s.Cancel(t.Context(), rid(1), "why", func(order.Order) []order.Message { return many }); err != nil {
		t.Fatal(err)
	}
	got := outbox(t, s)
	if len(got) != len(many) {
		t.Fatalf("%d messages, want %d", len(got), len(many))
	}
	for i, body := range got {
		if body != string(big) {
			t.Errorf("body %d came back with %d bytes, changed", i, len(body))
		}
	}
}

// A payment, a cancellation and two expirers meet at the same order: one wins,
// and the outbox has a message exactly when it was not the payment.
func TestPayCancelExpireRace(t *testing.T) {
	db := testservers.MySQL(t)
	s := order.NewStore(db)
	const n = 60
	place(t, s, n)
	exec(t, db, "UPDATE orders SET pay_deadline = TIMESTAMPADD(SECOND, -1, NOW(3))")

	var wg sync.WaitGroup
	var paid atomic.Int64
	for i := 1; i <= n; i++ {
		wg.Go(func() {
			_, err := s.Pay(t.Context(), order.Payment{ReservationID: rid(i), Ref: rid(i), AmountCents: 1998})
			if err == nil {
				paid.Add(1)
			} else if !errors.Is(err, order.ErrTooLate) {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if _, err := s.Cancel(t.Context(), rid(i), "cancelled_by_user", note); err != nil && !errors.Is(err, order.ErrPaid) {
				t.Error(err)
			}
		})
		if i%20 == 0 {
			wg.Go(func() {
				if _, err := s.Expire(t.Context(), 15, note); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	c, err := s.Counts(t.Context(), "p")
	if err != nil {
		t.Fatal(err)
	}
	told := make(map[string]int)
	for _, body := range outbox(t, s) {
		told[strings.Fields(body)[0]]++
	}
	t.Logf("paid %d, cancelled %d", c.Paid.Orders, c.Cancelled.Orders)
	if c.Awaiting.Orders != 0 || c.Paid.Orders != paid.Load() || c.Cancelled.Orders != n-paid.Load() || int64(len(told)) != c.Cancelled.Orders {
		t.Errorf("%+v with %d told paid and %d messages", c, paid.Load(), len(told))
	}
	for id, times := range told {
		o, err := s.Find(t.Context(), id)
		if err != nil || o.State != order.Cancelled || times != 1 {
			t.Errorf("order of %s is %q (%v) and was announced %d times", id, o.State, err, times)
		}
	}
}

func TestExpire(t *testing.T) {
	db := testservers.MySQL(t)
	s := order.NewStore(db)
	place(t, s, 5)
	if _, err := s.Pay(t.Context(), order.Payment{ReservationID: rid(5), Ref: "r", AmountCents: 1998}); err != nil {
		t.Fatal(err)
	}
	// 2 is the oldest due, then 1; 4 is not due; 5 is due but paid.
	exec(t, db, "UPDATE orders SET pay_deadline = TIMESTAMPADD(SECOND, -10, NOW(3))")
	exec(t, db, "UPDATE orders SET pay_deadline = TIMESTAMPADD(SECOND, -20, NOW(3)) WHERE id = ?", idOf(t, s, 1))
	exec(t, db, "UPDATE orders SET pay_deadline = TIMESTAMPADD(SECOND, -30, NOW(3)) WHERE id = ?", idOf(t, s, 2))
	exec(t, db, "UPDATE orders SET pay_deadline = TIMESTAMPADD(SECOND, 60, NOW(3)) WHERE id = ?", idOf(t, s, 4))
	steps := []struct {
		limit, want int
		why         string
	}{
		{2, 2, "the limit, the oldest first"},
		{2, 1, "what is left"},
		{2, 0, "none is due"},
	}
	for _, tt := range steps {
		if n, err := s.Expire(t.Context(), tt.limit, note); n != tt.want || err != nil {
			t.Errorf("%s: got %d, %v; want %d", tt.why, n, err, tt.want)
		}
	}
	want := []string{rid(2) + " payment_timeout", rid(1) + " payment_timeout", rid(3) + " payment_timeout"}
	if diff := cmp.Diff(want, outbox(t, s)); diff != "" {
		t.Errorf("outbox (-want +got):\n%s", diff)
	}
	place(t, s, 6)
	exec(t, db, "UPDATE orders SET pay_deadline = TIMESTAMPADD(SECOND, -1, NOW(3)) WHERE id = ?", idOf(t, s, 6))
	bad := func(order.Order) []order.Message { return []order.Message{{}} }
	if n, err := s.Expire(t.Context(), 10, bad); n != 0 || !errors.Is(err, order.ErrInvalid) {
		t.Errorf("with a bad message: got %d, %v", n, err)
	}
	if o, err := s.Find(t.Context(), rid(6)); err != nil || o.State != order.AwaitingPayment {
		t.Errorf("expired without its message: %q, %v", o.State, err)
	}
}

func idOf(t *testing.T, s *order.Store, n int) string {
	t.Helper()
	o, err := s.Find(t.Context(), rid(n))
	if err != nil {
		t.Fatal(err)
	}
	return o.ID
}

// Workers that are handed the same deductions place them at the same time.
func TestPlaceRaced(t *testing.T) {
	db := testservers.MySQL(t)
	s := order.NewStore(db)
	const n, workers = 300, 8
	results := make([][]order.Order, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			in := make([]order.Order, n)
			for i := range in {
				in[i] = sample(1 + (i*7+w*31)%n) // 7 and 300 have no common divisor: all of them, each in its own order
			}
			out, err := s.Place(t.Context(), in)
			if err != nil {
				t.Error(err)
			}
			results[w] = out
		})
	}
	wg.Wait()
	if got := count(t, db, "SELECT COUNT(*) FROM orders"); got != n {
		t.Errorf("%d orders, want %d", got, n)
	}
	ids := make(map[string]string)
	for _, out := range results {
		for _, o := range out {
			if known, ok := ids[o.ReservationID]; ok && known != o.ID {
				t.Errorf("reservation %s has orders %s and %s", o.ReservationID, known, o.ID)
			}
			ids[o.ReservationID] = o.ID
		}
	}
}
