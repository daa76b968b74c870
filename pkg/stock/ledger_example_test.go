package stock_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/leadingpeers/seckill/pkg/stock"
)

// A worker decides a batch of one product. A refusal is an answer, not an
// error; and because the answers are the ledger's, the same batch may be
// decided again after any fault.
func ExampleLedger_Deduct() {
	decide := func(ctx context.Context, ledger *stock.Ledger, batch []stock.Reservation) error {
		rows, err := ledger.Deduct(ctx, batch[0].ProductID, batch)
		if errors.Is(err, stock.ErrNotFound) || errors.Is(err, stock.ErrInvalid) {
			return fmt.Errorf("no repetition cures this: %w", err)
		}
		for _, r := range rows {
			switch r.State {
			case stock.Deducted: // the units are the buyer's: an order may follow
			case stock.Refused, stock.RolledBack: // give them back to the cache, with r.Reason
			case stock.Pending: // never: the ledger has decided
			}
		}
		return err
	}
	_ = decide
}
