package stock

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"slices"

	"github.com/leadingpeers/seckill/internal/audit"
	"github.com/leadingpeers/seckill/internal/fault"
	"github.com/leadingpeers/seckill/internal/mysql"
)

// The errors of [Ledger.Restock] and [Ledger.SetState]. Nothing has changed
// when one is returned.
var (
	ErrNotEnough = errors.New("fewer units are available than are to be taken away")
	ErrOpReused  = errors.New("the operation's ID stands for another change")
	ErrClosed    = errors.New("the product was stopped after a violation of its books")
)

// maxTotal is the most units that a product may have: the scripts take nine
// digits.
const maxTotal = 999_999_999

var opPattern = regexp.MustCompile(`^[!-~]{1,64}$`)

// Restock adds delta units to a product, or takes units away that nobody has,
// once for each opID: repeating it changes nothing and says so. Tell Redis
// afterwards, with [Cache.Configure]; a healer does so, too.
//
// Errors: [ErrNotFound], [ErrNotEnough], [ErrOpReused], [ErrInvalid] for an ID
// of another form than 1 to 64 visible ASCII characters, a delta of 0 or a
// total over 999,999,999. After any other error it may have happened, and
// repeating finds out.
func (l *Ledger) Restock(ctx context.Context, productID, opID string, delta int64) (replayed bool, err error) {
	if !opPattern.MatchString(opID) || delta == 0 || delta > maxTotal || delta < -maxTotal {
		return false, fmt.Errorf("restock %.40q by %d under %.70q: %w", productID, delta, opID, ErrInvalid)
	}
	err = mysql.InTx(ctx, l.db, func(tx *sql.Tx) error {
		stock, err := lockStock(ctx, tx, productID)
		if err != nil {
			return err
		}
		if replayed, err = restocked(ctx, tx, productID, opID, delta); err != nil || replayed {
			return err
		}
		switch {
		case stock.available+delta < 0:
			return fmt.Errorf("%w: %d are", ErrNotEnough, stock.available)
		case stock.total+delta > maxTotal:
			return fmt.Errorf("%w: the total would be %d", ErrInvalid, stock.total+delta)
		}
		if _, err := tx.ExecContext(ctx, fault.Without(fault.RestockOnce, sqlAddRestock, "INSERT", "REPLACE"), productID, opID, delta); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, sqlRestock, delta, delta, productID); err != nil {
			return err
		}
		return audit.Append(ctx, tx, audit.Entry{
			Action: "RestockProduct", Entity: "product/" + productID,
			Before: map[string]any{"total": stock.total}, After: map[string]any{"total": stock.total + delta, "op_id": opID},
		})
	})
	if err != nil {
		return false, fmt.Errorf("restock %.40q by %d: %w", productID, delta, err)
	}
	return replayed, nil
}

// Restocked reports whether an operation has happened. [ErrOpReused] when it
// was one of another number of units. Nothing changes.
func (l *Ledger) Restocked(ctx context.Context, productID, opID string, delta int64) (bool, error) {
	done, err := restocked(ctx, l.db, productID, opID, delta)
	if err != nil {
		return false, fmt.Errorf("look for restock %.40q: %w", opID, err)
	}
	return done, nil
}

func restocked(ctx context.Context, q rower, productID, opID string, delta int64) (bool, error) {
	var before int64
	err := q.QueryRowContext(ctx, sqlRestocked, productID, opID).Scan(&before)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return false, nil
	case err != nil:
		return false, err
	case fault.Off(fault.RestockOnce):
		return false, nil
	case before != delta:
		return false, fmt.Errorf("%w: %d units", ErrOpReused, before)
	}
	return true, nil
}

// SetSoldOut says of products whether their source has none left: nothing more
// is deducted of them then. It returns those that were not so before. Products
// that were stopped after a violation stay stopped. Tell Redis afterwards, with
// [Cache.Configure]; a healer does so, too. Each product has a transaction of
// its own, and repeating is harmless.
//
// Errors: [ErrNotFound]; [ErrClosed] when the only product is stopped. After
// an error those that are returned have changed, and perhaps one more.
func (l *Ledger) SetSoldOut(ctx context.Context, productIDs []string, soldOut bool) (changed []string, err error) {
	to, action := stockOpen, "ResumeProduct"
	if soldOut {
		to, action = stockSoldOut, "SellOutProduct"
	}
	for _, id := range slices.Compact(slices.Sorted(slices.Values(productIDs))) {
		var did bool
		err := mysql.InTx(ctx, l.db, func(tx *sql.Tx) error {
			stock, err := lockStock(ctx, tx, id)
			if did = false; err != nil || stock.state == to {
				return err
			}
			if stock.state == stockClosed {
				return ErrClosed
			}
			if _, err := tx.ExecContext(ctx, sqlSetStock, to, id); err != nil {
				return err
			}
			did = true
			return audit.Append(ctx, tx, audit.Entry{
				Action: action, Entity: "product/" + id, Before: map[string]any{"stock": stock.state}, After: map[string]any{"stock": to},
			})
		})
		if errors.Is(err, ErrClosed) && len(productIDs) > 1 {
			continue
		}
		if err != nil {
			return changed, fmt.Errorf("%s %s: %w", action, id, err)
		}
		if did {
			changed = append(changed, id)
		}
	}
	return changed, nil
}
