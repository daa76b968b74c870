package stock_test

import (
	"database/sql"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/leadingpeers/seckill/internal/mysql"
	"github.com/leadingpeers/seckill/internal/testservers"
	"github.com/leadingpeers/seckill/pkg/stock"
)

// ledgerID returns the n-th reservation ID.
func ledgerID(n int) string {
	var raw [16]byte
	binary.BigEndian.PutUint64(raw[8:], uint64(n))
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(raw[:]))
}

// wish returns reservation n of product p for a buyer, undecided.
func wish(n int, user string, quantity int64) stock.Reservation {
	return stock.Reservation{ID: ledgerID(n), ActivityID: "act", ProductID: "p", UserID: user, Quantity: quantity, State: stock.Pending}
}

// row returns reservation n as a ledger that decided it would.
func row(n int, user string, quantity int64, state stock.State, reason string) stock.Reservation {
	r := wish(n, user, quantity)
	r.State, r.Reason = state, reason
	return r
}

func ledgerExec(t testing.TB, db *sql.DB, query string, args ...any) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatal(err)
	}
}

// putOnSale makes a stock row.
func putOnSale(t testing.TB, db *sql.DB, product string, total, perUser int64) {
	t.Helper()
	ledgerExec(t, db, "INSERT INTO stock (product_id, total, available, per_user) VALUES (?, ?, ?, ?)", product, total, total, perUser)
}

// putOrder gives reservation n an order in some state.
func putOrder(t testing.TB, db *sql.DB, n int, state, reason string) {
	t.Helper()
	ledgerExec(t, db, "INSERT INTO orders (id, reservation_id, activity_id, product_id, user_id, quantity, amount_cents, currency, state, reason, pay_deadline, created_at, updated_at)"+
		" VALUES (?, ?, 'act', 'p', 'u', 1, 1, 'CNY', ?, ?, NOW(3), NOW(3), NOW(3))", fmt.Sprint("order-", n), mysql.ID(ledgerID(n)), state, reason)
}

// balanced fails the test unless the product's books balance, and returns what
// is available.
func balanced(t testing.TB, l *stock.Ledger, product string) int64 {
	t.Helper()
	s, err := l.Stock(t.Context(), product)
	if err != nil {
		t.Fatal(err)
	}
	if s.Available < 0 || s.Available+s.Deducted != s.Total {
		t.Fatalf("the books of %s do not balance: %+v", product, s)
	}
	return s.Available
}

func TestDeduct(t *testing.T) {
	db := testservers.MySQL(t)
	l := stock.NewLedger(db)
	putOnSale(t, db, "p", 10, 3)
	steps := []struct {
		why       string
		before    func()
		batch     []stock.Reservation
		want      []stock.Reservation
		available int64
	}{
		{
			why:       "it fits; the second would be a fourth unit of its buyer, inside one batch",
			batch:     []stock.Reservation{wish(1, "ann", 2), wish(2, "ann", 2), wish(3, "bob", 3)},
			want:      []stock.Reservation{row(1, "ann", 2, stock.Deducted, ""), row(2, "ann", 2, stock.Refused, "over_user_limit"), row(3, "bob", 3, stock.Deducted, "")},
			available: 5,
		}, {
			why:       "seen before, deducted and refused: answered as recorded, though the refused one would still not fit",
			batch:     []stock.Reservation{wish(2, "ann", 2), wish(1, "ann", 2)},
			want:      []stock.Reservation{row(2, "ann", 2, stock.Refused, "over_user_limit"), row(1, "ann", 2, stock.Deducted, "")},
			available: 5,
		}, {
			why:       "seen before with another buyer and quantity: the ledger's row wins",
			batch:     []stock.Reservation{wish(1, "eve", 1)},
			want:      []stock.Reservation{row(1, "ann", 2, stock.Deducted, "")},
			available: 5,
		}, {
			why:       "the same ID twice in a batch is decided once",
			batch:     []stock.Reservation{wish(4, "cid", 1), wish(4, "cid", 1), wish(4, "eve", 3)},
			want:      []stock.Reservation{row(4, "cid", 1, stock.Deducted, "")},
			available: 4,
		}, {
			why:       "the limit holds across batches: one more fits, then not another",
			batch:     []stock.Reservation{wish(5, "ann", 1), wish(6, "ann", 1)},
			want:      []stock.Reservation{row(5, "ann", 1, stock.Deducted, ""), row(6, "ann", 1, stock.Refused, "over_user_limit")},
			available: 3,
		}, {
			why:       "sold out in the middle; a smaller one behind it still fits",
			batch:     []stock.Reservation{wish(7, "dan", 2), wish(8, "fay", 2), wish(9, "gus", 1), wish(10, "hal", 1)},
			want:      []stock.Reservation{row(7, "dan", 2, stock.Deducted, ""), row(8, "fay", 2, stock.Refused, "sold_out"), row(9, "gus", 1, stock.Deducted, ""), row(10, "hal", 1, stock.Refused, "sold_out")},
			available: 0,
		}, {
			why:       "rolled back: the rollback gives units, and a late deduction takes none",
			before:    func() { rollBackOne(t, db, l, 3) },
			batch:     []stock.Reservation{wish(3, "bob", 3)},
			want:      []stock.Reservation{hasOrder(row(3, "bob", 3, stock.RolledBack, "payment_timeout"))},
			available: 3,
		}, {
			why:       "seen before, and of one there is an order by now",
			before:    func() { putOrder(t, db, 4, "awaiting_payment", "") },
			batch:     []stock.Reservation{wish(1, "ann", 2), wish(4, "cid", 1)},
			want:      []stock.Reservation{row(1, "ann", 2, stock.Deducted, ""), hasOrder(row(4, "cid", 1, stock.Deducted, ""))},
			available: 3,
		}, {
			why:       "and its buyer may buy again",
			batch:     []stock.Reservation{wish(11, "bob", 1)},
			want:      []stock.Reservation{row(11, "bob", 1, stock.Deducted, "")},
			available: 2,
		}, {
			why:       "the source channel has none left: refused, though units are there; what is known stays",
			before:    func() { ledgerExec(t, db, "UPDATE stock SET state = 'sold_out' WHERE product_id = 'p'") },
			batch:     []stock.Reservation{wish(12, "ivy", 1), wish(11, "bob", 1)},
			want:      []stock.Reservation{row(12, "ivy", 1, stock.Refused, "sold_out"), row(11, "bob", 1, stock.Deducted, "")},
			available: 2,
		}, {
			why:       "the product was stopped",
			before:    func() { ledgerExec(t, db, "UPDATE stock SET state = 'closed' WHERE product_id = 'p'") },
			batch:     []stock.Reservation{wish(13, "ivy", 1)},
			want:      []stock.Reservation{row(13, "ivy", 1, stock.Refused, "not_on_sale")},
			available: 2,
		}, {
			why:       "open again",
			before:    func() { ledgerExec(t, db, "UPDATE stock SET state = 'open' WHERE product_id = 'p'") },
			batch:     []stock.Reservation{wish(14, "ivy", 2)},
			want:      []stock.Reservation{row(14, "ivy", 2, stock.Deducted, "")},
			available: 0,
		}, {
			why: "nothing to do",
		},
	}
	for _, tt := range steps {
		if tt.before != nil {
			tt.before()
		}
		for range 2 { // the second time everything is seen before
			got, err := l.Deduct(t.Context(), "p", tt.batch)
			if err != nil {
				t.Fatalf("%s: %v", tt.why, err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Fatalf("%s (-want +got):\n%s", tt.why, diff)
			}
			if got := balanced(t, l, "p"); got != tt.available {
				t.Fatalf("%s: %d available, want %d", tt.why, got, tt.available)
			}
		}
	}
}

// hasOrder is r as Deduct returns it when its order is there.
func hasOrder(r stock.Reservation) stock.Reservation {
	r.Settled = true
	return r
}

// rollBackOne cancels reservation n's order and rolls it back.
func rollBackOne(t *testing.T, db *sql.DB, l *stock.Ledger, n int) {
	t.Helper()
	putOrder(t, db, n, "cancelled", "payment_timeout")
	got, err := l.Rollback(t.Context(), "p", []stock.Reservation{wish(n, "event-says", 99)})
	if err != nil || got[0].State != stock.RolledBack {
		t.Fatalf("roll back %d: %+v, %v", n, got, err)
	}
}

// TestDeductAgain: while a topic is read again, what was decided before is
// answered from its rows: without the lock, for which the stock row would have
// to be there.
func TestDeductAgain(t *testing.T) {
	db := testservers.MySQL(t)
	l := stock.NewLedger(db)
	putOnSale(t, db, "p", 10, 3)
	putOnSale(t, db, "q", 10, 3)
	batch := func() []stock.Reservation { return []stock.Reservation{wish(1, "ann", 2), wish(2, "bob", 1)} }
	first, err := l.Deduct(t.Context(), "p", batch())
	if err != nil {
		t.Fatal(err)
	}
	same := func(why string, batch []stock.Reservation, want ...stock.Reservation) {
		t.Helper()
		got, err := l.Deduct(t.Context(), batch[0].ProductID, batch)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s (-want +got): %v\n%s", why, err, diff)
		}
	}
	same("the first repetition", batch(), first...)
	three := []stock.Reservation{wish(3, "cid", 1), wish(1, "ann", 2), wish(3, "cid", 1)}
	same("a new one among old ones", three, row(3, "cid", 1, stock.Deducted, ""), first[0])
	if got := balanced(t, l, "p"); got != 6 {
		t.Errorf("%d available, want 6", got)
	}
	stolen := wish(1, "eve", 1)
	stolen.ProductID = "q"
	same("an ID of another product", []stock.Reservation{stolen}, first[0])
	same("and it is as before", batch(), first...)
	stolen.ProductID = "nowhere"
	if _, err := l.Deduct(t.Context(), "nowhere", []stock.Reservation{stolen}); !errors.Is(err, stock.ErrNotFound) {
		t.Errorf("an ID of another product, of one that there is not: %v, want ErrNotFound", err)
	}
	same("the hint is gone and comes back", batch(), first...)
	ledgerExec(t, db, "DELETE FROM stock WHERE product_id = 'p'")
	same("the stock row has gone", batch(), first...)
	putOrder(t, db, 2, "awaiting_payment", "")
	same("there is an order of one", batch(), first[0], hasOrder(first[1]))
	if _, err := l.Deduct(t.Context(), "p", append(batch(), wish(4, "dan", 1))); !errors.Is(err, stock.ErrNotFound) {
		t.Errorf("a new one needs it: %v, want ErrNotFound", err)
	}
}

func TestRollback(t *testing.T) {
	db := testservers.MySQL(t)
	l := stock.NewLedger(db)
	putOnSale(t, db, "p", 10, 9)
	_, err := l.Deduct(t.Context(), "p", []stock.Reservation{wish(1, "ann", 2), wish(2, "bob", 3), wish(3, "cid", 1), wish(4, "dan", 1), wish(5, "eve", 9), wish(6, "fay", 1)})
	if err != nil {
		t.Fatal(err)
	}
	putOrder(t, db, 1, "cancelled", "payment_timeout")
	putOrder(t, db, 2, "awaiting_payment", "")
	putOrder(t, db, 3, "paid", "")
	putOrder(t, db, 6, "cancelled", "payment_failed")
	wishFor := func(n int, reason string) stock.Reservation {
		r := wish(n, "event-says", 7) // never believed of a row that is there
		r.Reason = reason
		return r
	}
	steps := []struct {
		why       string
		batch     []stock.Reservation
		want      []stock.Reservation
		err       error
		forged    []string // named by the error
		available int64
	}{
		{
			why: "its order awaits payment", batch: []stock.Reservation{wishFor(2, "forged")},
			err: stock.ErrNotCancelled, forged: []string{wishFor(2, "").ID}, available: 2,
		}, {
			why: "its order is paid: forged", batch: []stock.Reservation{wishFor(3, "forged")},
			err: stock.ErrNotCancelled, forged: []string{wishFor(3, "").ID}, available: 2,
		}, {
			why: "it has no order yet", batch: []stock.Reservation{wishFor(4, "forged")},
			err: stock.ErrNotCancelled, forged: []string{wishFor(4, "").ID}, available: 2,
		}, {
			why:   "one bad one, and nothing changes for the good ones and the unknown either",
			batch: []stock.Reservation{wishFor(1, "x"), wishFor(20, "x"), wishFor(3, "forged"), wishFor(2, "forged"), wishFor(3, "forged")},
			err:   stock.ErrNotCancelled, forged: []string{wishFor(2, "").ID, wishFor(3, "").ID}, available: 2,
		}, {
			why:       "two orders are cancelled, each for its reason; user and quantity are the ledger's",
			batch:     []stock.Reservation{wishFor(6, "x"), wishFor(1, "x"), wishFor(6, "x")},
			want:      []stock.Reservation{row(6, "fay", 1, stock.RolledBack, "payment_failed"), row(1, "ann", 2, stock.RolledBack, "payment_timeout")},
			available: 5,
		}, {
			why:       "twice gives no more units",
			batch:     []stock.Reservation{wishFor(1, "y")},
			want:      []stock.Reservation{row(1, "ann", 2, stock.RolledBack, "payment_timeout")},
			available: 5,
		}, {
			why:       "a refused one stays refused",
			batch:     []stock.Reservation{wishFor(5, "y")},
			want:      []stock.Reservation{row(5, "eve", 9, stock.Refused, "sold_out")},
			available: 5,
		}, {
			why:       "unknown: a tombstone with what the event says, and no unit",
			batch:     []stock.Reservation{wishFor(20, "payment_timeout"), wishFor(20, "x"), wishFor(21, "很 strange\n, and longer than a column is wide")},
			want:      []stock.Reservation{row(20, "event-says", 7, stock.RolledBack, "payment_timeout"), row(21, "event-says", 7, stock.RolledBack, " strange, and longer than a colu")},
			available: 5,
		}, {
			why: "nothing to do", available: 5,
		},
	}
	for _, tt := range steps {
		got, err := l.Rollback(t.Context(), "p", tt.batch)
		if !errors.Is(err, tt.err) {
			t.Fatalf("%s: got %v, want %v", tt.why, err, tt.err)
		}
		var forged []string
		if named, ok := errors.AsType[*stock.NotCancelledError](err); ok {
			forged = named.IDs
		}
		if diff := cmp.Diff(tt.forged, forged); diff != "" {
			t.Fatalf("%s: %v names (-want +got):\n%s", tt.why, err, diff)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Fatalf("%s (-want +got):\n%s", tt.why, diff)
		}
		if got := balanced(t, l, "p"); got != tt.available {
			t.Fatalf("%s: %d available, want %d", tt.why, got, tt.available)
		}
		if tt.err != nil {
			if known, err := l.FindAll(t.Context(), []string{ledgerID(20)}); err != nil || len(known) != 0 {
				t.Errorf("%s: a tombstone was left (%v)", tt.why, err)
			}
		}
	}
	late, err := l.Deduct(t.Context(), "p", []stock.Reservation{wish(20, "gus", 1)})
	if err != nil || late[0].State != stock.RolledBack || balanced(t, l, "p") != 5 {
		t.Errorf("a deduction after its tombstone: %+v, %v", late, err)
	}
}

// TestRollbackAgain: what no rollback changes any more is answered from its row,
// without the lock, for which the stock row would have to be there.
func TestRollbackAgain(t *testing.T) {
	db := testservers.MySQL(t)
	l := stock.NewLedger(db)
	putOnSale(t, db, "p", 3, 3)
	if _, err := l.Deduct(t.Context(), "p", []stock.Reservation{wish(1, "ann", 1), wish(2, "bob", 1), wish(3, "cid", 3)}); err != nil {
		t.Fatal(err)
	}
	rollBackOne(t, db, l, 1)
	if _, err := l.Rollback(t.Context(), "p", []stock.Reservation{wish(1, "ann", 1)}); err != nil {
		t.Fatal(err) // the first repetition
	}
	ledgerExec(t, db, "DELETE FROM stock WHERE product_id = 'p'")
	got, err := l.Rollback(t.Context(), "p", []stock.Reservation{wish(3, "cid", 3), wish(1, "ann", 1)})
	want := []stock.Reservation{row(3, "cid", 3, stock.Refused, "sold_out"), row(1, "ann", 1, stock.RolledBack, "payment_timeout")}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("both had ended (-want +got): %v\n%s", err, diff)
	}
	for why, other := range map[string]stock.Reservation{"deducted": wish(2, "bob", 1), "unknown": wish(4, "dan", 1)} {
		if _, err := l.Rollback(t.Context(), "p", []stock.Reservation{wish(1, "ann", 1), other}); !errors.Is(err, stock.ErrNotFound) {
			t.Errorf("%s: %v, want ErrNotFound: it needs the stock row", why, err)
		}
	}
}

func TestLedgerRefusesBatches(t *testing.T) {
	db := testservers.MySQL(t)
	l := stock.NewLedger(db)
	putOnSale(t, db, "p", 1000, 1000)
	long := make([]stock.Reservation, stock.MaxBatch+1)
	for i := range long {
		long[i] = wish(i, "ann", 1)
	}
	other := wish(2, "ann", 1)
	other.ProductID = "q"
	wide := wish(2, "ann", 1)
	wide.ID = wide.ID[:25] + "b"
	tests := []struct {
		why     string
		product string
		batch   []stock.Reservation
		err     error
	}{
		{"a product without stock row", "q", []stock.Reservation{other}, stock.ErrNotFound},
		{"one too many", "p", long, stock.ErrInvalid},
		{"of another product", "p", []stock.Reservation{wish(1, "ann", 1), other}, stock.ErrInvalid},
		{"no quantity", "p", []stock.Reservation{wish(1, "ann", 1), wish(2, "ann", 0)}, stock.ErrInvalid},
		{"a negative quantity", "p", []stock.Reservation{wish(1, "ann", -5)}, stock.ErrInvalid},
		{"a user with a space", "p", []stock.Reservation{wish(1, "a nn", 1)}, stock.ErrInvalid},
		{"an ID of more than 128 bits would share its row with another", "p", []stock.Reservation{wide}, stock.ErrInvalid},
	}
	for _, tt := range tests {
		if got, err := l.Deduct(t.Context(), tt.product, tt.batch); !errors.Is(err, tt.err) || got != nil {
			t.Errorf("deduct, %s: got %v, want %v", tt.why, err, tt.err)
		}
		if got, err := l.Rollback(t.Context(), tt.product, tt.batch); !errors.Is(err, tt.err) || got != nil {
			t.Errorf("roll back, %s: got %v, want %v", tt.why, err, tt.err)
		}
	}
	for r, err := range l.Changed(t.Context(), "p", 0) {
		t.Errorf("a row was left: %+v, %v", r, err)
	}
	if got, err := l.Deduct(t.Context(), "p", long[:stock.MaxBatch]); err != nil || len(got) != stock.MaxBatch || balanced(t, l, "p") != 500 {
		t.Errorf("a full batch: %d rows, %v", len(got), err)
	}
}

// An ID that the ledger knows under another product is a forgery: neither
// product's units move.
func TestAnIDBelongsToOneProduct(t *testing.T) {
	db := testservers.MySQL(t)
	l := stock.NewLedger(db)
	putOnSale(t, db, "p", 5, 5)
	putOnSale(t, db, "q", 5, 5)
	if _, err := l.Deduct(t.Context(), "p", []stock.Reservation{wish(1, "ann", 2)}); err != nil {
		t.Fatal(err)
	}
	putOrder(t, db, 1, "cancelled", "payment_timeout")
	forged := wish(1, "ann", 2)
	forged.ProductID = "q"
	for name, call := range map[string]func() ([]stock.Reservation, error){
		"deduct":    func() ([]stock.Reservation, error) { return l.Deduct(t.Context(), "q", []stock.Reservation{forged}) },
		"roll back": func() ([]stock.Reservation, error) { return l.Rollback(t.Context(), "q", []stock.Reservation{forged}) },
	} {
		got, err := call()
		want := row(1, "ann", 2, stock.Deducted, "")
		want.Settled = name == "deduct"
		if diff := cmp.Diff([]stock.Reservation{want}, got); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", name, err, diff)
		}
		if p, q := balanced(t, l, "p"), balanced(t, l, "q"); p != 3 || q != 5 {
			t.Errorf("%s: %d and %d available, want 3 and 5", name, p, q)
		}
	}
}

// A count that no sequence of transactions can reach stops the process rather
// than being made worse.
func TestLedgerPanicsOnBooksThatCannotBe(t *testing.T) {
	db := testservers.MySQL(t)
	l := stock.NewLedger(db)
	putOnSale(t, db, "p", 5, 5)
	ledgerExec(t, db, "INSERT INTO reservations (reservation_id, product_id, user_id, quantity, state, created_at, updated_at) VALUES (?, 'p', 'ann', 2, 'deducted', NOW(3), NOW(3))", mysql.ID(ledgerID(1)))
	putOrder(t, db, 1, "cancelled", "payment_timeout")
	func() {
		defer func() {
			text := fmt.Sprint(recover())
			if !strings.Contains(text, "2 units returned to 5 available of 5") {
				t.Errorf("panic %q: want the numbers", text)
			}
		}()
		_, err := l.Rollback(t.Context(), "p", []stock.Reservation{wish(1, "ann", 2)})
		t.Errorf("no panic, error %v", err)
	}()
	if r, err := l.Find(t.Context(), ledgerID(1)); err != nil || r.State != stock.Deducted {
		t.Errorf("the panic has left %+v, %v", r, err)
	}
}

func TestLedgerOldest(t *testing.T) {
	db := testservers.MySQL(t)
	l := stock.NewLedger(db)
	if at, err := l.Oldest(t.Context()); err != nil || !at.IsZero() {
		t.Errorf("the oldest of nothing: %v, %v, want the zero time", at, err)
	}
	putOnSale(t, db, "p", 10, 4)
	if _, err := l.Deduct(t.Context(), "p", []stock.Reservation{wish(1, "bob", 2), wish(2, "ann", 1), wish(3, "ann", 4)}); err != nil {
		t.Fatal(err)
	}
	for n, day := range map[int]string{1: "2026-11-03 10:00:00", 2: "2026-11-02 10:00:00", 3: "2026-11-01 10:00:00"} { // the refused one is the oldest
		ledgerExec(t, db, "UPDATE reservations SET created_at = ? WHERE reservation_id = ?", day, mysql.ID(ledgerID(n)))
	}
	if at, err := l.Oldest(t.Context()); err != nil || !at.Equal(time.Date(2026, 11, 1, 10, 0, 0, 0, time.UTC)) || at.Location() != time.UTC {
		t.Errorf("the oldest: %v, %v, want that of November 1, UTC", at, err)
	}
}

func TestLedgerReads(t *testing.T) {
	db := testservers.MySQL(t)
	l := stock.NewLedger(db)
	putOnSale(t, db, "p", 10, 4)
	putOnSale(t, db, "q", 10, 4)
	other := wish(9, "zoe", 1)
	other.ProductID = "q"
	if _, err := l.Deduct(t.Context(), "q", []stock.Reservation{other}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Deduct(t.Context(), "p", []stock.Reservation{wish(1, "bob", 2), wish(2, "ann", 1), wish(3, "ann", 4)}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Rollback(t.Context(), "p", []stock.Reservation{wish(4, "cid", 1)}); err != nil {
		t.Fatal(err)
	}
	ledgerExec(t, db, "UPDATE reservations SET updated_at = TIMESTAMPADD(SECOND, -3600, NOW(3)) WHERE reservation_id = ?", mysql.ID(ledgerID(1)))

	states := func(within time.Duration) map[string]stock.State {
		got := make(map[string]stock.State)
		for r, err := range l.Changed(t.Context(), "p", within) {
			if err != nil {
				t.Fatal(err)
			}
			if r.At.IsZero() || r.At.Location() != time.UTC {
				t.Errorf("%s was first seen at %v", r.ID, r.At)
			}
			got[r.ID] = r.State
		}
		return got
	}
	all := map[string]stock.State{ledgerID(1): stock.Deducted, ledgerID(2): stock.Deducted, ledgerID(3): stock.Refused, ledgerID(4): stock.RolledBack}
	if diff := cmp.Diff(all, states(0)); diff != "" {
		t.Errorf("all (-want +got):\n%s", diff)
	}
	delete(all, ledgerID(1))
	if diff := cmp.Diff(all, states(10*time.Minute)); diff != "" {
		t.Errorf("of the last ten minutes (-want +got):\n%s", diff)
	}
	for range 40 { // each gives its connection back, or the pool of 16 runs dry
		for range l.Changed(t.Context(), "p", 0) {
			break
		}
	}

	ids := []string{"no ID", ledgerID(77)}
	for n := range 1200 { // more than one statement takes
		ids = append(ids, ledgerID(n))
	}
	found, err := l.FindAll(t.Context(), ids)
	if err != nil || len(found) != 5 || found[ledgerID(9)].ProductID != "q" || found[ledgerID(3)].Reason != "over_user_limit" {
		t.Errorf("found %+v, %v", found, err)
	}
	if _, err := l.Find(t.Context(), ledgerID(77)); !errors.Is(err, stock.ErrNotFound) {
		t.Errorf("find an unknown one: %v", err)
	}
	s, err := l.Stock(t.Context(), "p")
	if want := (stock.Stock{ProductID: "p", Total: 10, Available: 7, Deducted: 3, PerUser: 4, State: "open"}); err != nil || s != want {
		t.Errorf("stock %+v, %v; want %+v", s, err, want)
	}
	if _, err := l.Stock(t.Context(), "unknown"); !errors.Is(err, stock.ErrNotFound) {
		t.Errorf("stock of an unknown product: %v", err)
	}
	ledgerExec(t, db, "UPDATE stock SET state = 'sold_out' WHERE product_id = 'q'")
	if s, err := l.Stock(t.Context(), "q"); err != nil || !s.SoldOut {
		t.Errorf("stock of a channel that has none left: %+v, %v", s, err)
	}
}
