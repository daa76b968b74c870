package stock

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/leadingpeers/seckill/internal/fault"
)

// healChunk is how many rows of the ledger are applied at once.
const healChunk = 2000

// healAfterLoad is how far back Load heals: longer than most decisions of the
// ledger and the telling of them lie apart. Workers that keep the product right
// see by [Cache.Loaded] that it was loaded anew, and heal the rest.
const healAfterLoad = 10 * time.Minute

// Fillable is Redis as [Load] and [Heal] fill it. *Cache is one.
type Fillable interface {
	Preload(ctx context.Context, terms Terms, available int64, rows iter.Seq2[Reservation, error]) (loaded bool, err error)
	Apply(ctx context.Context, rs []Reservation) (Applied, error)
}

// Source is the ledger as [Load] and [Heal] read it. *Ledger is one.
type Source interface {
	Snapshot(ctx context.Context, productID string, use func(units Units, rows iter.Seq2[Reservation, error]) error) error
	Changed(ctx context.Context, productID string, within time.Duration) iter.Seq2[Reservation, error]
}

// Load puts a product into Redis from the ledger, under terms, and then heals
// it. The product's stock row is locked while its reservations stream over, so
// that no decision falls between them; new decisions wait that long.
//
// loaded is false when the product was in Redis already. It is healed even so:
// an earlier Load may have put it there and not have heard of it.
//
// It returns [ErrNotFound] for a product that the ledger does not have, and the
// errors of [Cache.Preload] and [Heal]; with an error of the healing, or of
// letting the lock go, loaded is still true. Several at once and repeating are harmless.
func Load(ctx context.Context, c Fillable, l Source, terms Terms) (loaded bool, err error) {
	err = l.Snapshot(ctx, terms.ProductID, func(units Units, rows iter.Seq2[Reservation, error]) error {
		terms.Total, terms.Restocks = units.Total, units.Restocks // those that belong to the available ones
		done, err := c.Preload(ctx, terms, units.Available, rows)
		loaded = loaded || done // the ledger may call again, to find the product there
		return err
	})
	if err != nil && !loaded {
		return false, fmt.Errorf("load: %w", err)
	}
	fault.Point(fault.AfterLoad)
	// With an error the product is there, and the lock may have been lost
	// before: what was decided meanwhile found no product to apply to.
	_, unhealed := Heal(ctx, c, l, terms.ProductID, healAfterLoad)
	if err := errors.Join(err, unhealed); err != nil {
		return loaded, fmt.Errorf("load: %w", err)
	}
	return loaded, nil
}

// Heal applies to Redis what the ledger has decided about a product within the
// time before now, tombstones included; 0 means ever. It may run at any time
// and beside anything. A product that is not loaded is skipped, which the
// counts show.
//
// On an error the counts say what is known to be applied; repeating is harmless.
func Heal(ctx context.Context, c Fillable, l Source, productID string, within time.Duration) (Applied, error) {
	var total Applied
	apply := func(rows []Reservation) error {
		done, err := c.Apply(ctx, rows)
		total.Changed += done.Changed
		total.Same += done.Same
		total.Adopted += done.Adopted
		total.Tombstones += done.Tombstones
		total.NotLoaded += done.NotLoaded
		return err
	}
	if fault.Off(fault.Heal) {
		return total, nil
	}
	var rows []Reservation
	for r, err := range l.Changed(ctx, productID, within) {
		if err == nil {
			if rows = append(rows, r); len(rows) < healChunk {
				continue
			}
			err = apply(rows)
			rows = rows[:0]
			fault.Point(fault.InHeal)
		}
		if err != nil {
			return total, fmt.Errorf("heal %s: %w", productID, err)
		}
	}
	if err := apply(rows); err != nil {
		return total, fmt.Errorf("heal %s: %w", productID, err)
	}
	return total, nil
}
