package stock_test

import (
	"errors"
	"testing"
	"time"

	"github.com/leadingpeers/seckill/internal/testservers"
	"github.com/leadingpeers/seckill/pkg/stock"
)

func TestCloseAndReopen(t *testing.T) {
	db := testservers.MySQL(t)
	l := stock.NewLedger(db)
	putOnSale(t, db, "p", 10, 10)
	if _, err := l.Deduct(t.Context(), "p", []stock.Reservation{wish(1, "ann", 3)}); err != nil {
		t.Fatal(err)
	}
	is := func(why, state string, changed, want bool, err, wantErr error) {
		t.Helper()
		if !errors.Is(err, wantErr) || changed != want {
			t.Errorf("%s: changed %t, error %v; want %t, %v", why, changed, err, want, wantErr)
		}
		if s, err := l.Stock(t.Context(), "p"); err != nil || s.State != state {
			t.Errorf("%s: state %q, want %q (%v)", why, s.State, state, err)
		}
	}
	changed, err := l.Reopen(t.Context(), "p")
	is("it was never stopped", "open", changed, false, err, nil)
	ledgerExec(t, db, "UPDATE stock SET available = available - 2 WHERE product_id = 'p'")
	if s, err := l.Stock(t.Context(), "p"); err != nil || s.Balanced() {
		t.Errorf("two units are missing and the books balance: %+v, %v", s, err)
	}
	changed, err = l.Close(t.Context(), "p", map[string]any{"missing": 2})
	is("stopped", "closed", changed, true, err, nil)
	changed, err = l.Close(t.Context(), "p", nil)
	is("twice", "closed", changed, false, err, nil)
	rows, err := l.Deduct(t.Context(), "p", []stock.Reservation{wish(2, "bob", 1)})
	if err != nil || rows[0].State != stock.Refused || rows[0].Reason != string(stock.NotOnSale) {
		t.Errorf("a stopped product sells: %v, %v", rows, err)
	}
	changed, err = l.Reopen(t.Context(), "p")
	is("still wrong", "closed", changed, false, err, stock.ErrUnbalanced)
	ledgerExec(t, db, "UPDATE stock SET available = available + 2 WHERE product_id = 'p'")
	changed, err = l.Reopen(t.Context(), "p")
	is("put right", "open", changed, true, err, nil)
	_, err = l.Close(t.Context(), "unknown", nil)
	is("no such product", "open", false, false, err, stock.ErrNotFound)
	_, err = l.Reopen(t.Context(), "unknown")
	is("no such product", "open", false, false, err, stock.ErrNotFound)
	var entries int
	if err := db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM audit WHERE entity = 'product/p' AND action IN ('CloseProduct', 'ReopenProduct')").Scan(&entries); err != nil || entries != 2 {
		t.Errorf("%d entries in the audit trail, want 2 (%v)", entries, err)
	}
}

func TestMoving(t *testing.T) {
	db := testservers.MySQL(t)
	l := stock.NewLedger(db)
	putOnSale(t, db, "p", 10, 10)
	if m, err := l.Moving(t.Context(), "p", time.Minute); err != nil || m != (stock.Moving{Available: 10}) {
		t.Errorf("before the sale: %+v, %v", m, err)
	}
	if _, err := l.Deduct(t.Context(), "p", []stock.Reservation{wish(1, "ann", 3), wish(2, "bob", 2)}); err != nil {
		t.Fatal(err)
	}
	ledgerExec(t, db, "UPDATE reservations SET updated_at = TIMESTAMPADD(MINUTE, -2, NOW(3)) WHERE user_id = 'bob'")
	if m, err := l.Moving(t.Context(), "p", time.Minute); err != nil || m != (stock.Moving{Available: 5, Units: 3}) {
		t.Errorf("moving %+v, %v; want ann's 3 units: bob's are older", m, err)
	}
	if _, err := l.Moving(t.Context(), "unknown", time.Minute); !errors.Is(err, stock.ErrNotFound) {
		t.Errorf("no such product: %v", err)
	}
}
