package stock

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

const sqlOldest = "SELECT MIN(created_at) FROM reservations WHERE state = ?" // from the index by_state

// Oldest returns when the oldest reservation that the ledger still has was
// written: what happened before, the ledger may have forgotten. The zero time
// when it has none.
func (l *Ledger) Oldest(ctx context.Context) (oldest time.Time, err error) {
	for _, state := range []State{Deducted, Refused, RolledBack} {
		var at sql.NullTime
		if err := l.db.QueryRowContext(ctx, sqlOldest, state).Scan(&at); err != nil {
			return time.Time{}, fmt.Errorf("read the oldest reservation: %w", err)
		}
		if at.Valid && (oldest.IsZero() || at.Time.Before(oldest)) {
			oldest = at.Time
		}
	}
	return oldest, nil
}
