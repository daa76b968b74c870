package stock

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/leadingpeers/seckill/internal/fault"
)

const (
	loadTTL   = time.Minute // between two calls of a loader; then what it has put into Redis goes
	loadChunk = 250         // buyers in one call
)

// maxCount is the largest number that the scripts take: fifteen digits, which
// Lua's numbers, doubles, hold exactly.
const maxCount = 999_999_999_999_999

// check reports what is wrong with t.
func (t Terms) check() error {
	switch {
	case !ValidProductID(t.ProductID):
		return fmt.Errorf("product ID %.40q: want 1 to 36 characters of a-z, 0-9 and inner hyphens", t.ProductID)
	case t.PerOrder < 1 || t.PerOrder > maxCount || t.PerUser < 1 || t.PerUser > maxCount:
		return fmt.Errorf("limits %d an order and %d a buyer: want 1 to %d", t.PerOrder, t.PerUser, int64(maxCount))
	case t.Total < 0 || t.Total > maxCount || t.Restocks < 0 || t.Restocks > maxCount:
		return fmt.Errorf("total %d after %d changes: want 0 to %d", t.Total, t.Restocks, int64(maxCount))
	case t.StartsAt.UnixMilli() < 0 || !t.StartsAt.Before(t.EndsAt) || t.EndsAt.UnixMilli() > maxCount:
		return fmt.Errorf("window %s to %s: want a start from 1970 on, before the end, and an end before the year 33658", t.StartsAt, t.EndsAt)
	}
	return nil
}

// argv is t as the scripts take it.
func (t Terms) argv() []any {
	state := "0"
	if t.OnSale {
		state = "1"
	}
	return []any{t.PerOrder, t.PerUser, state, t.StartsAt.UnixMilli(), t.EndsAt.UnixMilli(), t.Total, t.Restocks}
}

// Preload puts a product into Redis: its terms, the ledger's available units as
// surplus, and the ledger's rows of this product, ordered by buyer (bytewise).
// The rows are streamed. Hold the product's stock row locked meanwhile: see
// [Load], which does.
//
// loaded is false when the product was in Redis already, or another loader was
// faster; nothing has changed then, terms included. A product becomes visible
// whole or not at all, so several loaders at once and a load during a sale are
// harmless.
//
// A row or terms that are not valid, rows out of order and an error of rows are
// returned; nothing has changed but for a temporary hash that expires. An
// [ErrUnknown] means the same, except that the last call may have loaded the
// product. Repeating is harmless and finds out.
func (c *Cache) Preload(ctx context.Context, terms Terms, available int64, rows iter.Seq2[Reservation, error]) (loaded bool, err error) {
	if err := terms.check(); err != nil {
		return false, fmt.Errorf("preload: %w", err)
	}
	if available < 0 || available > maxCount {
		return false, fmt.Errorf("preload %s: %d units available: want 0 to %d", terms.ProductID, available, int64(maxCount))
	}
	nonce := strconv.FormatUint(rand.Uint64(), 36)
	p := preload{
		cache: c,
		terms: terms,
		keys:  []string{c.keys.product(terms.ProductID), c.keys.load(terms.ProductID, nonce)},
	}
	reply, err := p.fill(ctx, rows)
	fault.Point(fault.AfterFill)
	if err == nil && reply != "exists" {
		argv := append([]any{"publish", p.fields, available}, terms.argv()...)
		reply, err = c.call(ctx, c.scripts.preload, p.keys, append(argv, nonce)...)
	}
	switch {
	case err != nil:
		return false, fmt.Errorf("preload %s: %w", terms.ProductID, err)
	case reply == "loaded" || reply == "exists":
		return reply == "loaded", nil
	default:
		return false, fmt.Errorf("preload %s: the temporary hash was %v", terms.ProductID, reply)
	}
}

// preload is one load under way.
type preload struct {
	cache  *Cache
	terms  Terms
	keys   []string
	fields int   // sent
	chunk  []any // to send: field, value, ...
}

// fill sends the buyers' fields to the temporary hash. It returns the script's
// last reply, nil when there was no row.
func (p *preload) fill(ctx context.Context, rows iter.Seq2[Reservation, error]) (reply any, err error) {
	var buyer field
	for r, err := range rows {
		if err != nil {
			return nil, err
		}
		if err := r.Validate(); err != nil {
			return nil, err
		}
		if r.ProductID != p.terms.ProductID || r.UserID < buyer.userID {
			return nil, fmt.Errorf("reservation %s of %s for %s after one for %s: want this product's, ordered by buyer",
				r.ID, r.ProductID, r.UserID, buyer.userID)
		}
		if r.UserID != buyer.userID {
			if reply, err = p.add(ctx, &buyer, loadChunk); err != nil || reply == "exists" {
				return reply, err
			}
			buyer = field{userID: r.UserID}
		}
		if err := buyer.add(r); err != nil {
			return nil, err
		}
	}
	return p.add(ctx, &buyer, 1)
}

// add puts a buyer's field into the chunk and sends that once it holds enough fields.
func (p *preload) add(ctx context.Context, buyer *field, enough int) (reply any, err error) {
	if buyer.userID != "" {
		p.chunk = append(p.chunk, userPrefix+buyer.userID, buyer.value())
		p.fields++
	}
	if len(p.chunk) < 2*enough {
		return nil, nil
	}
	argv := append([]any{"fill", loadTTL.Milliseconds()}, p.chunk...)
	p.chunk = p.chunk[:0]
	return p.cache.call(ctx, p.cache.scripts.preload, p.keys, argv...)
}

// Configure sets the state, the window and the limits of a loaded product, all
// at once. When its total has changed since, the surplus changes by as much; it
// may fall below 0 then, and nothing sells until what is pending is decided.
// Totals may arrive in any order: the latest counts, once.
//
// It returns [NotLoaded] when the product is not in Redis, an error when terms
// are not valid, nothing having changed then; else an [ErrUnknown]. Repeating is
// harmless.
func (c *Cache) Configure(ctx context.Context, terms Terms) error {
	if err := terms.check(); err != nil {
		return fmt.Errorf("configure: %w", err)
	}
	reply, err := c.call(ctx, c.scripts.configure, []string{c.keys.product(terms.ProductID)}, terms.argv()...)
	if err != nil {
		return fmt.Errorf("configure %s: %w", terms.ProductID, err)
	}
	if reply == string(NotLoaded) {
		return NotLoaded
	}
	return nil
}

// Flush takes a product out of Redis. Reserve then answers [NotLoaded] until it
// is loaded again. With force it does so at any time: that is one more loss of
// Redis's memory, which the ledger survives, though buyers whose reservation
// was pending may be refused.
//
// Without force it returns [ErrInUse], nothing having changed, while the product
// is on sale by Redis's clock or its open list has entries, of which the reaper
// drops those that are settled. Other errors: it may be gone or not. A product
// that is not loaded is no error. Repeating is harmless.
func (c *Cache) Flush(ctx context.Context, productID string, force bool) error {
	if !ValidProductID(productID) {
		return fmt.Errorf("flush %.40q: want a product ID", productID)
	}
	product, open := c.keys.product(productID), c.keys.open(productID)
	var err error
	if force {
		err = c.client.Unlink(ctx, product, open).Err()
	} else {
		// Watched: what begins between the look and the deletion undoes the deletion.
		err = c.client.Watch(ctx, func(tx *redis.Tx) error { return c.flushIdle(ctx, tx, productID) }, product, open)
	}
	if errors.Is(err, redis.TxFailedErr) {
		err = ErrInUse
	}
	if err != nil {
		return fmt.Errorf("flush %s: %w", productID, err)
	}
	return nil
}

// flushIdle takes a product out of Redis unless it is in use.
func (c *Cache) flushIdle(ctx context.Context, tx *redis.Tx, productID string) error {
	product, open := c.keys.product(productID), c.keys.open(productID)
	entries, err := tx.LLen(ctx, open).Result()
	if err != nil {
		return err
	}
	var terms struct {
		State    string `redis:"state"`
		StartsAt int64  `redis:"starts_at"`
		EndsAt   int64  `redis:"ends_at"`
	}
	if err := tx.HMGet(ctx, product, stateField, startsAtField, endsAtField).Scan(&terms); err != nil {
		return err
	}
	now, err := tx.Time(ctx).Result()
	if err != nil {
		return err
	}
	onSale := terms.State == "1" && now.UnixMilli() >= terms.StartsAt && now.UnixMilli() < terms.EndsAt
	if onSale || entries > 0 {
		return ErrInUse
	}
	_, err = tx.TxPipelined(ctx, func(pipe redis.Pipeliner) error {
		return pipe.Unlink(ctx, product, open).Err()
	})
	return err
}
