package stock_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/leadingpeers/seckill/internal/mysql"
	"github.com/leadingpeers/seckill/internal/testservers"
	"github.com/leadingpeers/seckill/pkg/stock"
)

// ledgerModel is what the ledger must do, in memory and one at a time.
type ledgerModel struct {
	total, available, perUser int64
	rows                      map[string]stock.Reservation
	orders                    map[string]string // reservation → state
}

func (m *ledgerModel) deduct(r stock.Reservation) stock.Reservation {
	if known, ok := m.rows[r.ID]; ok {
		_, known.Settled = m.orders[r.ID]
		return known
	}
	held := int64(0)
	for _, other := range m.rows {
		if other.UserID == r.UserID && other.State == stock.Deducted {
			held += other.Quantity
		}
	}
	r.State, r.Reason = stock.Deducted, ""
	switch {
	case r.Quantity > m.available:
		r.State, r.Reason = stock.Refused, "sold_out"
	case held+r.Quantity > m.perUser:
		r.State, r.Reason = stock.Refused, "over_user_limit"
	default:
		m.available -= r.Quantity
	}
	m.rows[r.ID] = r
	return r
}

// rollback returns the rows, or nil when the batch must be refused as a whole.
func (m *ledgerModel) rollback(batch []stock.Reservation) []stock.Reservation {
	for _, r := range batch {
		if m.rows[r.ID].State == stock.Deducted && m.orders[r.ID] != "cancelled" {
			return nil
		}
	}
	var out []stock.Reservation
	for _, r := range distinctWishes(batch) {
		known, ok := m.rows[r.ID]
		switch {
		case !ok:
			known = r
			known.State, known.Reason = stock.RolledBack, r.Reason
		case known.State == stock.Deducted:
			known.State, known.Reason = stock.RolledBack, "payment_timeout"
			m.available += known.Quantity
		}
		m.rows[r.ID] = known
		out = append(out, known)
	}
	return out
}

func distinctWishes(batch []stock.Reservation) []stock.Reservation {
	var out []stock.Reservation
	seen := make(map[string]bool)
	for _, r := range batch {
		if !seen[r.ID] {
			seen[r.ID] = true
			out = append(out, r)
		}
	}
	return out
}

// A random walk through deductions, rollbacks, payments and cancellations,
// beside a model in Go. After every step the answers are the model's and
// available + Σ deducted = total. SECKILL_TEST_SEED repeats a walk.
func TestLedgerWalk(t *testing.T) {
	const steps, idents, users = 700, 120, 12
	seed := rand.Uint64()
	if text := os.Getenv("SECKILL_TEST_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("SECKILL_TEST_SEED=%d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	db := testservers.MySQL(t)
	l := stock.NewLedger(db)
	m := &ledgerModel{total: 45, available: 45, perUser: 5, rows: make(map[string]stock.Reservation), orders: make(map[string]string)}
	putOnSale(t, db, "p", m.total, m.perUser)
	made := make(map[string]int)
	pick := func() []stock.Reservation {
		batch := make([]stock.Reservation, 1+rnd.IntN(6))
		for i := range batch {
			n := 1 + rnd.IntN(idents)
			batch[i] = wish(n, fmt.Sprint("user-", n%users), int64(1+n/users%4)) // an ID is always of the same wish
			batch[i].Reason = "from_the_event"
		}
		return batch
	}
	for range steps {
		batch := pick()
		switch rnd.IntN(5) {
		case 0, 1:
			var want []stock.Reservation
			for _, r := range distinctWishes(batch) {
				want = append(want, m.deduct(r))
			}
			got, err := l.Deduct(t.Context(), "p", batch)
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Fatalf("deduct: %v (-want +got):\n%s", err, diff)
			}
			made["deduct"]++
		case 2:
			want := m.rollback(batch)
			got, err := l.Rollback(t.Context(), "p", batch)
			if diff := cmp.Diff(want, got); diff != "" || errors.Is(err, stock.ErrNotCancelled) != (want == nil) {
				t.Fatalf("roll back: %v (-want +got):\n%s", err, diff)
			}
			made["rollback"]++
		default:
			for _, r := range batch {
				settleOne(t, db, m, r.ID, rnd.IntN(3), made)
			}
		}
		if got := balanced(t, l, "p"); got != m.available {
			t.Fatalf("%d available, the model has %d", got, m.available)
		}
	}
	n := 0
	for r, err := range l.Changed(t.Context(), "p", 0) {
		if err != nil {
			t.Fatal(err)
		}
		want := m.rows[r.ID]
		want.At, want.ActivityID = r.At, ""
		if diff := cmp.Diff(want, r); diff != "" {
			t.Errorf("row (-want +got):\n%s", diff)
		}
		made[string(r.State)+" "+r.Reason]++
		n++
	}
	if n != len(m.rows) {
		t.Errorf("%d rows, the model has %d", n, len(m.rows))
	}
	t.Log(made)
	for _, what := range []string{"deduct", "rollback", "paid", "cancelled", "deducted ", "refused sold_out", "refused over_user_limit", "rolled_back payment_timeout", "rolled_back from_the_event"} {
		if made[what] == 0 {
			t.Errorf("the walk never came to %q", what)
		}
	}
}

// settleOne moves a deducted reservation's order one step: placed, then paid
// or cancelled.
func settleOne(t *testing.T, db *sql.DB, m *ledgerModel, id string, choice int, made map[string]int) {
	t.Helper()
	row, ok := m.rows[id]
	switch {
	case !ok || row.State != stock.Deducted:
	case m.orders[id] == "":
		ledgerExec(t, db, "INSERT INTO orders (id, reservation_id, activity_id, product_id, user_id, quantity, amount_cents, currency, pay_deadline, created_at, updated_at)"+
			" VALUES (?, ?, 'act', 'p', ?, ?, 1, 'CNY', NOW(3), NOW(3), NOW(3))", id, mysql.ID(id), row.UserID, row.Quantity)
		m.orders[id] = "awaiting_payment"
	case m.orders[id] == "awaiting_payment" && choice == 0:
		ledgerExec(t, db, "UPDATE orders SET state = 'paid', updated_at = NOW(3) WHERE reservation_id = ? AND state = 'awaiting_payment'", mysql.ID(id))
		m.orders[id] = "paid"
		made["paid"]++
	case m.orders[id] == "awaiting_payment":
		ledgerExec(t, db, "UPDATE orders SET state = 'cancelled', reason = 'payment_timeout', updated_at = NOW(3) WHERE reservation_id = ? AND state = 'awaiting_payment'", mysql.ID(id))
		m.orders[id] = "cancelled"
		made["cancelled"]++
	}
}

// Sixteen workers are handed overlapping parts of one log, as after rebalances
// of which they have not heard; some go back and replay. Each answer must be
// what the ledger has at the end, and the ledger must have each reservation
// once.
func TestDeductRaced(t *testing.T) {
	db := testservers.MySQL(t)
	l := stock.NewLedger(db)
	const n, workers, perUser = 900, 16, 3
	putOnSale(t, db, "p", 500, perUser)
	log := make([]stock.Reservation, n)
	for i := range log {
		log[i] = wish(i+1, fmt.Sprint("user-", i%250), int64(1+i%2))
	}
	var mu sync.Mutex
	answers := make(map[string]stock.Reservation)
	check := func(got []stock.Reservation) {
		mu.Lock()
		defer mu.Unlock()
		for _, r := range got {
			if before, ok := answers[r.ID]; ok && before != r {
				t.Errorf("answered %+v, then %+v", before, r)
			}
			answers[r.ID] = r
		}
	}
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(w), 1))
			for at := w * 40 % n; at < n; {
				end := min(n, at+1+rnd.IntN(120))
				got, err := l.Deduct(t.Context(), "p", log[at:end])
				if err != nil {
					t.Error(err)
					return
				}
				check(got)
				if at = end; rnd.IntN(4) == 0 {
					at = max(0, at-150)
				}
			}
		})
	}
	wg.Wait()
	balanced(t, l, "p")
	held := make(map[string]int64)
	rows := 0
	for r, err := range l.Changed(t.Context(), "p", 0) {
		if err != nil {
			t.Fatal(err)
		}
		rows++
		r.At, r.ActivityID = time.Time{}, "act"
		if answers[r.ID] != r {
			t.Errorf("answered %+v, the ledger has %+v", answers[r.ID], r)
		}
		if r.State == stock.Deducted {
			held[r.UserID] += r.Quantity
		}
	}
	if rows != n || len(answers) != n {
		t.Errorf("%d rows and %d answers, want %d", rows, len(answers), n)
	}
	for user, units := range held {
		if units > perUser {
			t.Errorf("%s holds %d units, the limit is %d", user, units, perUser)
		}
	}
}

// Deductions and the rollbacks of the same reservations, by several copies of
// both workers at once: whoever comes first, each unit is counted once.
func TestDeductAgainstRollback(t *testing.T) {
	db := testservers.MySQL(t)
	l := stock.NewLedger(db)
	const n = 120
	putOnSale(t, db, "p", n, n)
	for i := 1; i <= n; i++ {
		putOrder(t, db, i, "cancelled", "payment_timeout")
	}
	var wg sync.WaitGroup
	for w := range 8 {
		call := l.Deduct
		if w%2 == 1 {
			call = l.Rollback
		}
		wg.Go(func() {
			for i := range n / 10 {
				batch := make([]stock.Reservation, 10)
				for j := range batch {
					batch[j] = wish(1+(i*10+j+w*30)%n, fmt.Sprint("user-", w), 1)
				}
				if _, err := call(t.Context(), "p", batch); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if got := balanced(t, l, "p"); got != n {
		t.Errorf("%d available, want %d: every reservation was rolled back", got, n)
	}
	for r, err := range l.Changed(t.Context(), "p", 0) {
		if err != nil || r.State != stock.RolledBack {
			t.Errorf("%+v, %v", r, err)
		}
	}
}

func TestSnapshotHoldsTheLock(t *testing.T) {
	testservers.Real(t) // asks the server who waits for a row lock
	db := testservers.MySQL(t)
	l := stock.NewLedger(db)
	putOnSale(t, db, "p", 10, 10)
	if _, err := l.Deduct(t.Context(), "p", []stock.Reservation{wish(1, "cid", 1), wish(2, "ann", 1), wish(3, "bob", 2)}); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	err := l.Snapshot(t.Context(), "p", func(units stock.Units, rows iter.Seq2[stock.Reservation, error]) error {
		go func() {
			_, err := l.Deduct(t.Context(), "p", []stock.Reservation{wish(4, "dan", 3)})
			done <- err
		}()
		waitForLockWait(t, db)
		select {
		case err := <-done:
			t.Errorf("a deduction came through (%v)", err)
		default:
		}
		var users []string
		for r, err := range rows {
			if err != nil {
				return err
			}
			users = append(users, r.UserID)
		}
		if got := fmt.Sprint(units.Available, users); got != "6 [ann bob cid]" {
			t.Errorf("snapshot: %s", got)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got := balanced(t, l, "p"); got != 3 {
		t.Errorf("%d available after the deduction that waited, want 3", got)
	}
}

// waitForLockWait returns when a session of this schema waits for a row lock.
func waitForLockWait(t *testing.T, db *sql.DB) {
	t.Helper()
	const query = "SELECT COUNT(*) FROM information_schema.innodb_trx t JOIN information_schema.processlist p ON p.id = t.trx_mysql_thread_id WHERE t.trx_state = 'LOCK WAIT' AND p.db = DATABASE()"
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	// InnoDB renews what innodb_trx shows only when nobody has asked for 100 ms.
	tick := time.NewTicker(150 * time.Millisecond)
	defer tick.Stop()
	for n := 0; n == 0; <-tick.C {
		if err := db.QueryRowContext(ctx, query).Scan(&n); err != nil {
			t.Fatalf("nobody waits for the lock: %v", err)
		}
	}
}

func TestSnapshotAnswers(t *testing.T) {
	db := testservers.MySQL(t)
	l := stock.NewLedger(db)
	putOnSale(t, db, "p", 10, 10)
	stop := errors.New("stop")
	tests := []struct {
		why, product string
		use          func(stock.Units, iter.Seq2[stock.Reservation, error]) error
		err          error
	}{
		{"no stock row", "unknown", func(stock.Units, iter.Seq2[stock.Reservation, error]) error { t.Error("used"); return nil }, stock.ErrNotFound},
		{"its own error comes back", "p", func(stock.Units, iter.Seq2[stock.Reservation, error]) error { return stop }, stop},
		{"the rows may be left alone", "p", func(stock.Units, iter.Seq2[stock.Reservation, error]) error { return nil }, nil},
	}
	for _, tt := range tests {
		if err := l.Snapshot(t.Context(), tt.product, tt.use); !errors.Is(err, tt.err) {
			t.Errorf("%s: got %v, want %v", tt.why, err, tt.err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	err := l.Snapshot(ctx, "p", func(_ stock.Units, rows iter.Seq2[stock.Reservation, error]) error {
		cancel()
		for _, err := range rows {
			return err
		}
		return nil
	})
	if err == nil {
		t.Error("a snapshot whose context ended is complete")
	}
	if _, err := l.Deduct(t.Context(), "p", []stock.Reservation{wish(1, "ann", 1)}); err != nil {
		t.Errorf("the lock was not let go: %v", err)
	}
}

// BenchmarkDeduct is one writer on one hot product: new reservations, each of
// another buyer. The figure to compare is reservations/s.
func BenchmarkDeduct(b *testing.B) {
	for _, size := range []int{1, 100, 500} {
		b.Run(fmt.Sprint("batch=", size), func(b *testing.B) {
			db := testservers.MySQL(b)
			l := stock.NewLedger(db)
			putOnSale(b, db, "p", stock.MaxQuantity, 2)
			n := 0
			batch := make([]stock.Reservation, size)
			for b.Loop() {
				for i := range batch {
					n++
					batch[i] = wish(n, fmt.Sprint("user-", n), 1)
				}
				if _, err := l.Deduct(b.Context(), "p", batch); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "reservations/s")
		})
	}
}

// BenchmarkDeductAgain is the same with 500 reservations that are all known, as
// when a topic is read again.
func BenchmarkDeductAgain(b *testing.B) {
	db := testservers.MySQL(b)
	l := stock.NewLedger(db)
	putOnSale(b, db, "p", stock.MaxQuantity, 2)
	batch := make([]stock.Reservation, stock.MaxBatch)
	for i := range batch {
		batch[i] = wish(i, fmt.Sprint("user-", i), 1)
	}
	deduct := func() {
		if got, err := l.Deduct(b.Context(), "p", batch); err != nil || len(got) != len(batch) {
			b.Fatalf("%d of %d: %v", len(got), len(batch), err)
		}
	}
	deduct()
	for b.Loop() {
		deduct()
	}
	b.ReportMetric(stock.MaxBatch*float64(b.N)/b.Elapsed().Seconds(), "reservations/s")
}
