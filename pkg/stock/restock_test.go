package stock_test

import (
	"errors"
	"testing"

	"github.com/leadingpeers/seckill/internal/audit"
	"github.com/leadingpeers/seckill/internal/testservers"
	"github.com/leadingpeers/seckill/pkg/stock"
)

func TestLedgerRestock(t *testing.T) {
	db := testservers.MySQL(t)
	l := stock.NewLedger(db)
	putOnSale(t, db, "p", 10, 10)
	if _, err := l.Deduct(t.Context(), "p", []stock.Reservation{wish(1, "ann", 4)}); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		product, op string
		delta       int64
		err         error
		replayed    bool
		total, left int64
		why         string
	}{
		{"p", "truck-1", 5, nil, false, 15, 11, "five more"},
		{"p", "truck-1", 5, nil, true, 15, 11, "the same truck arrives once"},
		{"p", "truck-1", 6, stock.ErrOpReused, false, 15, 11, "one truck is one load"},
		{"p", "back-1", -11, nil, false, 4, 0, "all that nobody has"},
		{"p", "back-2", -1, stock.ErrNotEnough, false, 4, 0, "sold units stay sold"},
		{"p", "zero", 0, stock.ErrInvalid, false, 4, 0, "nothing to do is a slip"},
		{"p", "", 1, stock.ErrInvalid, false, 4, 0, "no name"},
		{"p", "a b", 1, stock.ErrInvalid, false, 4, 0, "a space"},
		{"p", "much", 999_999_999, stock.ErrInvalid, false, 4, 0, "over nine digits in all"},
		{"unknown", "truck-1", 5, stock.ErrNotFound, false, 4, 0, "no such product"},
		{"p", "truck-2", 3, nil, false, 7, 3, "and on it goes"},
	} {
		replayed, err := l.Restock(t.Context(), tt.product, tt.op, tt.delta)
		if !errors.Is(err, tt.err) || replayed != tt.replayed {
			t.Errorf("%s: replayed %v, %v, want %v, %v", tt.why, replayed, err, tt.replayed, tt.err)
		}
		s, err := l.Stock(t.Context(), "p")
		if err != nil || s.Total != tt.total || s.Available != tt.left || s.Available+s.Deducted != s.Total {
			t.Errorf("%s: stock %+v, %v, want %d of %d", tt.why, s, err, tt.left, tt.total)
		}
	}
	trail, err := audit.NewTrail(db).List(t.Context(), audit.Filter{Entity: "product/p", Limit: 10})
	if err != nil || len(trail) != 3 {
		t.Errorf("%d entries in the audit trail, %v, want one for each restock that happened", len(trail), err)
	}
}

func TestLedgerSoldOut(t *testing.T) {
	db := testservers.MySQL(t)
	l := stock.NewLedger(db)
	for _, p := range []string{"p", "q", "stopped"} {
		putOnSale(t, db, p, 10, 10)
	}
	if _, err := db.ExecContext(t.Context(), "UPDATE stock SET state = 'closed' WHERE product_id = 'stopped'"); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		products []string
		soldOut  bool
		changed  int
		err      error
		why      string
	}{
		{[]string{"p"}, true, 1, nil, "the source is empty"},
		{[]string{"p", "q", "p"}, true, 1, nil, "q follows, p was so"},
		{[]string{"stopped"}, false, 0, stock.ErrClosed, "only an operator who has seen the books may open it"},
		{[]string{"p", "q", "stopped"}, false, 2, nil, "the stopped one is left alone"},
		{[]string{"unknown"}, true, 0, stock.ErrNotFound, "no such product"},
		{nil, true, 0, nil, "none"},
	} {
		changed, err := l.SetSoldOut(t.Context(), tt.products, tt.soldOut)
		if len(changed) != tt.changed || !errors.Is(err, tt.err) {
			t.Errorf("%s: %v, %v, want %d changed, %v", tt.why, changed, err, tt.changed, tt.err)
		}
	}
	if _, err := l.SetSoldOut(t.Context(), []string{"p"}, true); err != nil {
		t.Fatal(err)
	}
	got, err := l.Deduct(t.Context(), "p", []stock.Reservation{wish(1, "ann", 1)})
	if err != nil || got[0].State != stock.Refused || got[0].Reason != string(stock.SoldOut) {
		t.Errorf("%+v, %v: nothing is deducted while the source has none", got, err)
	}
}
