package memory_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/leadingpeers/seckill/internal/simulator/memory"
	"github.com/leadingpeers/seckill/internal/testservers"
	"github.com/leadingpeers/seckill/pkg/catalog"
	"github.com/leadingpeers/seckill/pkg/order"
	"github.com/leadingpeers/seckill/pkg/stock"
)

// books is a real database beside one in memory, and what a draw chooses from.
type books struct {
	*testing.T
	db        *sql.DB
	ledger    *stock.Ledger
	orders    *order.Store
	catalogue *catalog.Store
	model     *memory.MySQL
	ids       []string
	saw       map[string]int
}

// The transactions on a server and the MySQL of the simulator are given the
// same calls, drawn at random; each answer and all tables must be the same.
func TestMySQLIsTheStores(t *testing.T) {
	few(t, 25)
	db := testservers.MySQL(t)
	b := &books{
		T: t, db: db, ledger: stock.NewLedger(db), orders: order.NewStore(db), catalogue: catalog.NewStore(db),
		model: memory.NewMySQL(time.Now, memory.None), saw: map[string]int{},
	}
	b.open()
	round := 0
	untilAllIsSeen(t, b.saw, []string{
		"deducted ", "refused sold_out", "refused over_user_limit", "rolled_back cancelled", "rolled_back forged",
		"not cancelled", "not cancelled together", "placed", "paid", "paid together", "too late", "paid by another", "wrong amount", "reference used", "no order",
		"cancelled", "cancelled after paid", "expired", "relayed", "unsettled", "unreturned", "restocked", "not enough", "op reused", "sold out", "resumed",
		"ended: <nil>", "ended: " + order.ErrTooLate.Error(), "ended: " + order.ErrPaid.Error(), "ended: " + order.ErrAmount.Error(), "ended: " + order.ErrRefUsed.Error(),
	}, func(rt *rapid.T) {
		round++
		b.ids = ids(round, 10)
		b.begin()
		rt.Repeat(map[string]func(*rapid.T){
			"deduct": b.deduct, "deduct again": b.deduct, "roll back": b.rollback, "place": b.place, "place again": b.place, "pay": b.pay, "pay all": b.payAll, "ended": b.ended,
			"cancel": b.cancel, "cancel again": b.cancel, "pay again": b.pay, "expire": b.expire, "relay": b.relay, "sweep": b.sweep, "restock": b.restock, "sold out": b.soldOut,
			"look up": b.lookUp, "": b.agree,
		})
	})
}

func (b *books) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// open puts an activity on sale.
func (b *books) open() {
	now := time.Now().Truncate(time.Second).UTC()
	_, err := b.catalogue.CreateActivity(b.Context(), catalog.Activity{ID: "sale", Name: "Sale", StartsAt: now.Add(-time.Hour), EndsAt: now.Add(time.Hour), PayWindow: time.Minute})
	b.must(err)
	for _, id := range []string{"p", "q"} {
		_, err := b.catalogue.AddProduct(b.Context(), catalog.Product{ID: id, ActivityID: "sale", Name: id, PriceCents: 100, Currency: "CNY", Total: 8, PerOrder: 2, PerUser: 3})
		b.must(err)
	}
	_, err = b.catalogue.SetState(b.Context(), "sale", catalog.Online)
	b.must(err)
}

// begin takes both back to the first day of the sale.
func (b *books) begin() {
	for _, query := range []string{
		"DELETE FROM orders", "DELETE FROM outbox", "DELETE FROM reservations", "DELETE FROM restocks",
		"UPDATE stock SET total = 8, available = 8, restocks = 0, state = 'open'",
	} {
		_, err := b.db.ExecContext(b.Context(), query)
		b.must(err)
	}
	listings, err := b.catalogue.OnSale(b.Context())
	b.must(err)
	b.model.Reset(memory.None, listings[0].Activity, listings[0].Products...)
}

// wish is a reservation: always the same one of an ID, but for the product.
func (b *books) wish(rt *rapid.T) stock.Reservation {
	n := rapid.IntRange(0, len(b.ids)-1).Draw(rt, "id")
	return stock.Reservation{ID: b.ids[n], ActivityID: "sale", UserID: fmt.Sprint("user", n%3), Quantity: int64(1 + n%2)}
}

func (b *books) batch(rt *rapid.T) (product string, rs []stock.Reservation) {
	product = rapid.SampledFrom([]string{"p", "p", "p", "q"}).Draw(rt, "product")
	for range rapid.IntRange(1, 5).Draw(rt, "reservations") {
		r := b.wish(rt)
		r.ProductID = product
		rs = append(rs, r)
	}
	return product, rs
}

func (b *books) deduct(rt *rapid.T) {
	product, rs := b.batch(rt)
	got, err := b.ledger.Deduct(b.Context(), product, rs)
	say, no := b.model.Deduct(product, rs)
	if diff := cmp.Diff(say, got); diff != "" || err != nil || no != nil {
		rt.Fatalf("deduct %+v: %v %v (-model +MySQL)\n%s", rs, err, no, diff)
	}
	for _, r := range got {
		b.saw[string(r.State)+" "+r.Reason]++
	}
}

// forged are the reservations that must not be rolled back.
func forged(err error) []string {
	if e, ok := errors.AsType[*stock.NotCancelledError](err); ok {
		return e.IDs
	}
	return nil
}

func (b *books) rollback(rt *rapid.T) {
	product, rs := b.batch(rt)
	for i := range rs {
		rs[i].Reason = "forged"
	}
	if due := b.model.Unreturned(0, 1); len(due) > 0 && rapid.Bool().Draw(rt, "of a cancelled order") {
		product, rs = due[0].ProductID, []stock.Reservation{{ID: due[0].ReservationID, ProductID: due[0].ProductID, UserID: "other", Quantity: 1}}
	}
	got, err := b.ledger.Rollback(b.Context(), product, rs)
	say, no := b.model.Rollback(product, rs)
	diff := cmp.Diff(say, got) + cmp.Diff(forged(no), forged(err))
	if diff != "" || (err == nil) != (no == nil) {
		rt.Fatalf("roll back %+v: %v %v (-model +MySQL)\n%s", rs, err, no, diff)
	}
	if n := len(forged(no)); n > 0 {
		b.saw["not cancelled"]++
		b.saw["not cancelled together"] += n - 1
	}
	for _, r := range got {
		b.saw[string(r.State)+" "+r.Reason]++
	}
}

// like compares orders without what only one side can know.
func like() cmp.Option {
	return cmpopts.IgnoreFields(order.Order{}, "ID", "CreatedAt", "UpdatedAt", "PayDeadline")
}

// place places orders of what is deducted, as the handler does.
func (b *books) place(rt *rapid.T) {
	var in []order.Order
	for _, row := range b.model.Rows() {
		if row.State == stock.Deducted && rapid.IntRange(0, 1).Draw(rt, "this one") == 0 {
			in = append(in, order.Order{
				ReservationID: row.ID, ActivityID: "sale", ProductID: row.ProductID, UserID: row.UserID, Quantity: row.Quantity,
				AmountCents: 100 * row.Quantity, Currency: "CNY",
				PayWindow: rapid.SampledFrom([]time.Duration{time.Millisecond, time.Hour, time.Hour}).Draw(rt, "window"),
			})
		}
	}
	if len(in) == 0 {
		rt.Skip("nothing is deducted")
	}
	got, err := b.orders.Place(b.Context(), in)
	b.model.Insert(in)
	say, no := b.model.Placed(in)
	if diff := cmp.Diff(say, got, like()); diff != "" || err != nil || no != nil {
		rt.Fatalf("place %+v: %v %v (-model +MySQL)\n%s", in, err, no, diff)
	}
	b.saw["placed"] += len(in)
}

// payment draws one: right or wrong, new or known.
func (b *books) payment(rt *rapid.T) order.Payment {
	r := b.wish(rt)
	if orders := b.model.Orders(); len(orders) > 0 && rapid.IntRange(0, 3).Draw(rt, "of an order") > 0 {
		o := rapid.SampledFrom(orders).Draw(rt, "order")
		r.ID, r.Quantity = o.ReservationID, o.Quantity
	}
	return order.Payment{
		ReservationID: r.ID, Ref: fmt.Sprint(r.ID[18:], rapid.SampledFrom([]string{"a", "a", "b"}).Draw(rt, "reference")),
		AmountCents: 100 * (r.Quantity + int64(rapid.IntRange(0, 3).Draw(rt, "amount")/3)),
	}
}

// mayShare is a payment whose reference may be that of others.
func (b *books) mayShare(rt *rapid.T) order.Payment {
	p := b.payment(rt)
	if rapid.Bool().Draw(rt, "shared reference") {
		p.Ref = "shared" + b.ids[0]
	}
	return p
}

func (b *books) pay(rt *rapid.T) {
	p := b.mayShare(rt)
	got, err := b.orders.Pay(b.Context(), p)
	changed, no := b.model.SetPaid(p)
	say := order.Order{}
	if no == nil {
		say, _, no = b.model.PaidBy(p, changed)
	}
	for what, sentinel := range map[string]error{
		"too late": order.ErrTooLate, "paid by another": order.ErrPaid, "wrong amount": order.ErrAmount,
		"reference used": order.ErrRefUsed, "no order": order.ErrNotFound,
	} {
		if errors.Is(err, sentinel) != errors.Is(no, sentinel) {
			rt.Fatalf("pay %+v: MySQL %v, model %v", p, err, no)
		}
		if errors.Is(err, sentinel) {
			b.saw[what]++
		}
	}
	if diff := cmp.Diff(say, got, like()); diff != "" || (err == nil) != (no == nil) {
		rt.Fatalf("pay %+v: %v %v (-model +MySQL)\n%s", p, err, no, diff)
	}
	if err == nil {
		b.saw["paid"]++
	}
}

func (b *books) payAll(rt *rapid.T) {
	var ps []order.Payment
	for range rapid.IntRange(1, 4).Draw(rt, "payments") {
		if p := b.payment(rt); !slices.ContainsFunc(ps, func(q order.Payment) bool { return q.ReservationID == p.ReservationID }) {
			ps = append(ps, p)
		}
	}
	got, err := b.orders.PayAll(b.Context(), ps)
	var say map[string]order.Order
	if b.model.SetAllPaid(ps) {
		say = b.model.AllPaid(ps)
	}
	if diff := cmp.Diff(say, got, like(), cmpopts.EquateEmpty()); diff != "" || err != nil {
		rt.Fatalf("pay all %+v: %v (-model +MySQL)\n%s", ps, err, diff)
	}
	b.saw["paid together"] += len(got)
}

// note is an announcement of an order.
func note(o order.Order) []order.Message {
	return []order.Message{{Type: "cancelled", Body: []byte(o.ReservationID + " " + o.Reason)}, {Type: "rollback", Body: []byte(o.ReservationID)}}
}

func (b *books) ended(rt *rapid.T) {
	var ps []order.Payment
	for range rapid.IntRange(1, 4).Draw(rt, "payments") {
		ps = append(ps, b.mayShare(rt))
	}
	got, err := b.orders.Ended(b.Context(), ps)
	say := b.model.Ended(ps)
	same := cmp.Comparer(func(a, b error) bool { return errors.Is(a, b) || errors.Is(b, a) })
	if diff := cmp.Diff(say, got, like(), same); diff != "" || err != nil {
		rt.Fatalf("ended %+v: %v (-model +MySQL)\n%s", ps, err, diff)
	}
	for _, o := range got {
		b.saw["ended: "+fmt.Sprint(o.Err)]++
	}
}

func (b *books) cancel(rt *rapid.T) {
	id := b.wish(rt).ID
	got, err := b.orders.Cancel(b.Context(), id, "cancelled", note)
	say, _, no := b.model.Cancel(id, "cancelled", note)
	if diff := cmp.Diff(say, got, like()); diff != "" || errors.Is(err, order.ErrPaid) != errors.Is(no, order.ErrPaid) ||
		errors.Is(err, order.ErrNotFound) != errors.Is(no, order.ErrNotFound) {
		rt.Fatalf("cancel %s: %v %v (-model +MySQL)\n%s", id, err, no, diff)
	}
	if err == nil {
		b.saw["cancelled"]++
	} else if errors.Is(err, order.ErrPaid) {
		b.saw["cancelled after paid"]++
	}
}

// expire waits until the orders that have a millisecond to be paid are due by
// the database's clock and by the model's, which placed them a moment later.
func (b *books) expire(rt *rapid.T) {
	for waiting := 1; waiting > 0; {
		b.must(b.db.QueryRowContext(b.Context(),
			"SELECT COUNT(*) FROM orders WHERE state = 'awaiting_payment' AND pay_deadline > NOW(3) AND pay_deadline < TIMESTAMPADD(SECOND, 60, NOW(3))").Scan(&waiting))
		for _, o := range b.model.Orders() {
			if left := time.Until(o.PayDeadline); o.State == order.AwaitingPayment && left > 0 && left < time.Minute {
				waiting++
			}
		}
	}
	got, err := b.orders.Expire(b.Context(), order.MaxBatch, note)
	say, _ := b.model.Expire(order.MaxBatch, note)
	if err != nil || got != say {
		rt.Fatalf("expire: MySQL %d %v, model %d", got, err, say)
	}
	b.saw["expired"] += got
}

// relay publishes the outbox, or fails to.
func (b *books) relay(rt *rapid.T) {
	works := rapid.IntRange(0, 2).Draw(rt, "works") > 0
	away := errors.New("away")
	var bodies []string
	n, err := b.orders.Relay(b.Context(), order.MaxBatch, func(_ context.Context, ms []order.Message) error {
		for _, m := range ms {
			bodies = append(bodies, m.Type+" "+string(m.Body))
		}
		if !works {
			return away
		}
		return nil
	})
	var say []string
	for _, m := range b.model.Take(7, order.MaxBatch) {
		say = append(say, m.Type+" "+string(m.Body))
	}
	if works {
		b.model.Relayed(7)
	} else {
		b.model.Release(7)
	}
	slices.Sort(bodies) // orders that were due in one millisecond have no order
	slices.Sort(say)
	if diff := cmp.Diff(say, bodies); diff != "" || (err != nil) == (works || len(say) == 0) || works && n != len(say) {
		rt.Fatalf("relay: %d %v (-model +MySQL)\n%s", n, err, diff)
	}
	b.saw["relayed"] += n
}

// sweep looks for what is older than nothing or than an hour.
func (b *books) sweep(rt *rapid.T) {
	age := rapid.SampledFrom([]time.Duration{-time.Second, time.Hour}).Draw(rt, "age")
	unsettled, err := b.orders.Unsettled(b.Context(), age, order.MaxBatch)
	b.must(err)
	unreturned, err := b.orders.Unreturned(b.Context(), age, order.MaxBatch)
	b.must(err)
	byID := cmpopts.SortSlices(func(a, b order.Order) int { return strings.Compare(a.ReservationID, b.ReservationID) })
	if diff := cmp.Diff(b.model.Unsettled(age, order.MaxBatch), unsettled, like(), byID, cmpopts.EquateEmpty()); diff != "" {
		rt.Fatalf("unsettled (-model +MySQL)\n%s", diff)
	}
	if diff := cmp.Diff(b.model.Unreturned(age, order.MaxBatch), unreturned, like(), byID, cmpopts.EquateEmpty()); diff != "" {
		rt.Fatalf("unreturned (-model +MySQL)\n%s", diff)
	}
	b.saw["unsettled"] += len(unsettled)
	b.saw["unreturned"] += len(unreturned)
}

func (b *books) restock(rt *rapid.T) {
	product := rapid.SampledFrom([]string{"p", "q"}).Draw(rt, "product")
	op, delta := fmt.Sprint("op", rapid.IntRange(0, 4).Draw(rt, "op")), int64(rapid.SampledFrom([]int{-6, -3, 1, 2}).Draw(rt, "delta"))
	got, err := b.ledger.Restock(b.Context(), product, op, delta)
	say, no := b.model.Restock(product, op, delta)
	if got != say || !errors.Is(err, no) {
		rt.Fatalf("restock %s by %d (%s): MySQL %v %v, model %v %v", product, delta, op, got, err, say, no)
	}
	switch {
	case errors.Is(no, stock.ErrNotEnough):
		b.saw["not enough"]++
	case errors.Is(no, stock.ErrOpReused):
		b.saw["op reused"]++
	case no == nil && !got:
		b.saw["restocked"]++
	}
}

func (b *books) soldOut(rt *rapid.T) {
	out := rapid.IntRange(0, 3).Draw(rt, "sold out") == 0
	got, err := b.ledger.SetSoldOut(b.Context(), []string{"p"}, out)
	say, no := b.model.SetSoldOut([]string{"p"}, out)
	if diff := cmp.Diff(say, got); diff != "" || err != nil || no != nil {
		rt.Fatalf("set sold out %v: %v (-model +MySQL)\n%s", out, err, diff)
	}
	b.saw[map[bool]string{true: "sold out", false: "resumed"}[out]] += len(got)
}

// lookUp compares what is only read.
func (b *books) lookUp(rt *rapid.T) {
	id := b.wish(rt).ID
	got, err := b.ledger.Find(b.Context(), id)
	say, no := b.model.Find(id)
	got.At, say.At = time.Time{}, time.Time{}
	if got != say || errors.Is(err, stock.ErrNotFound) != (no != nil) {
		rt.Fatalf("find %s: MySQL %+v %v, model %+v %v", id, got, err, say, no)
	}
	offers, err := b.catalogue.Offers(b.Context(), []string{"p", "unknown"})
	if diff := cmp.Diff(b.model.Offers([]string{"p", "unknown"}), offers); diff != "" || err != nil {
		rt.Fatalf("offers: %v (-model +MySQL)\n%s", err, diff)
	}
	listings, err := b.catalogue.OnSale(b.Context())
	if diff := cmp.Diff(b.model.OnSale(), listings, cmpopts.IgnoreFields(catalog.Product{}, "Available")); diff != "" || err != nil {
		rt.Fatalf("on sale: %v (-model +MySQL)\n%s", err, diff)
	}
}

// agree compares the tables: the stock rows, every reservation as a load reads
// them, and every order.
func (b *books) agree(rt *rapid.T) {
	var reservations []string
	for _, p := range []string{"p", "q"} {
		var got []stock.Reservation
		var units stock.Units
		err := b.ledger.Snapshot(b.Context(), p, func(u stock.Units, rows iter.Seq2[stock.Reservation, error]) error {
			units, got = u, nil
			for r, err := range rows {
				if err != nil {
					return err
				}
				got = append(got, r)
			}
			return nil
		})
		say, rows, no := b.model.Snapshot(p)
		byUser := cmpopts.SortSlices(func(a, b stock.Reservation) int { return strings.Compare(a.UserID+a.ID, b.UserID+b.ID) })
		diff := cmp.Diff(rows, got, byUser, cmpopts.IgnoreFields(stock.Reservation{}, "At"), cmpopts.EquateEmpty())
		if err != nil || no != nil || units != say || diff != "" {
			rt.Fatalf("%s: MySQL %+v %v, model %+v %v (-model +MySQL)\n%s", p, units, err, say, no, diff)
		}
		for _, r := range got {
			reservations = append(reservations, r.ID)
		}
	}
	orders, err := b.orders.FindAll(b.Context(), reservations)
	say := make(map[string]order.Order)
	for _, o := range b.model.Orders() {
		say[o.ReservationID] = o
	}
	if diff := cmp.Diff(say, orders, like(), cmpopts.EquateEmpty()); err != nil || diff != "" {
		rt.Fatalf("orders: %v (-model +MySQL)\n%s", err, diff)
	}
}
