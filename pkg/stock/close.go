package stock

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/leadingpeers/seckill/internal/audit"
	"github.com/leadingpeers/seckill/internal/mysql"
)

// ErrUnbalanced is returned by [Ledger.Reopen] for a product whose books are
// still wrong. Nothing has changed.
var ErrUnbalanced = errors.New("available and deducted units are not the total")

// Balanced reports whether the ledger's own equation holds.
func (s Stock) Balanced() bool { return s.Available >= 0 && s.Available+s.Deducted == s.Total }

// Close stops a product because its books are wrong: nothing more is deducted
// of it until [Ledger.Reopen]. why stands in the audit trail. changed is false
// when it was stopped already. Tell Redis afterwards, with [Cache.Configure]; a
// healer does so, too. Repeating is harmless.
//
// Errors: [ErrNotFound], or a fault after which it may have happened.
func (l *Ledger) Close(ctx context.Context, productID string, why any) (changed bool, err error) {
	err = mysql.InTx(ctx, l.db, func(tx *sql.Tx) error {
		state, err := stateLocked(ctx, tx, productID)
		if changed = false; err != nil || state == stockClosed {
			return err
		}
		if _, err := tx.ExecContext(ctx, sqlSetStock, stockClosed, productID); err != nil {
			return err
		}
		changed = true
		return audit.Append(ctx, tx, audit.Entry{
			Action: "CloseProduct", Entity: "product/" + productID, Before: map[string]any{"stock": state},
			After: map[string]any{"stock": stockClosed, "found": why},
		})
	})
	if err != nil {
		return false, fmt.Errorf("close %.40q: %w", productID, err)
	}
	return changed, nil
}

// Reopen lets a product that was stopped after a violation sell again, once its
// books are right: they are checked under the lock. Any other product stays as
// it is. What Redis holds of it is in doubt and wants to be loaded anew.
//
// Errors: [ErrNotFound]; [ErrUnbalanced] with the numbers. Repeating is harmless.
func (l *Ledger) Reopen(ctx context.Context, productID string) (changed bool, err error) {
	err = mysql.InTx(ctx, l.db, func(tx *sql.Tx) error {
		state, err := stateLocked(ctx, tx, productID)
		if changed = false; err != nil || state != stockClosed {
			return err
		}
		s, err := readStock(ctx, tx, productID)
		if err != nil {
			return err
		}
		if !s.Balanced() {
			return fmt.Errorf("%w: %d and %d of %d", ErrUnbalanced, s.Available, s.Deducted, s.Total)
		}
		if _, err := tx.ExecContext(ctx, sqlSetStock, stockOpen, productID); err != nil {
			return err
		}
		changed = true
		return audit.Append(ctx, tx, audit.Entry{
			Action: "ReopenProduct", Entity: "product/" + productID,
			Before: map[string]any{"stock": state}, After: map[string]any{"stock": stockOpen},
		})
	})
	if err != nil {
		return false, fmt.Errorf("reopen %.40q: %w", productID, err)
	}
	return changed, nil
}

// stateLocked locks the stock row and returns its state. Unlike lockStock it
// takes any numbers: that they are wrong is why it is called.
func stateLocked(ctx context.Context, tx *sql.Tx, productID string) (string, error) {
	var total, available, perUser int64
	var state string
	err := tx.QueryRowContext(ctx, sqlLockStock, productID).Scan(&total, &available, &perUser, &state)
	if errors.Is(err, sql.ErrNoRows) {
		return "", ErrNotFound
	}
	if err != nil {
		return "", fmt.Errorf("lock the stock row: %w", err)
	}
	return state, nil
}
