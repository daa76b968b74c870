package stock

import (
	"context"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"

	"github.com/leadingpeers/seckill/internal/mysql"
)

// Now is Redis's clock.
func (c *Cache) Now(ctx context.Context) (time.Time, error) {
	now, err := c.client.Time(ctx).Result()
	if err != nil {
		return time.Time{}, fmt.Errorf("ask Redis for the time: %w", err)
	}
	return now.UTC(), nil
}

// OnShelf is a product in Redis without its buyers.
type OnShelf struct {
	Terms
	Surplus int64           // units that may still be reserved
	Open    map[string]bool // buyers in the open list: those whom the reaper sees
}

// OnShelf reads the terms, the surplus and the open list of a product, for
// reconciling. What of it is no number is 0.
//
// It returns [NotLoaded] when the product is not in Redis, else a fault.
func (c *Cache) OnShelf(ctx context.Context, productID string) (OnShelf, error) {
	key := c.keys.product(productID)
	values, err := c.client.HMGet(ctx, key, surplusField, "per_order", "per_user", stateField, startsAtField, endsAtField, "total", "restocks").Result()
	if err != nil {
		return OnShelf{}, fmt.Errorf("read %s in Redis: %w", productID, err)
	}
	if values[0] == nil {
		return OnShelf{}, NotLoaded
	}
	number := func(i int) int64 {
		text, _ := values[i].(string)
		n, _ := strconv.ParseInt(text, 10, 64)
		return n
	}
	buyers, err := c.client.LRange(ctx, c.keys.open(productID), 0, -1).Result()
	if err != nil {
		return OnShelf{}, fmt.Errorf("read the open list of %s: %w", productID, err)
	}
	out := OnShelf{
		Surplus: number(0), Open: make(map[string]bool, len(buyers)),
		Terms: Terms{
			ProductID: productID, PerOrder: number(1), PerUser: number(2), OnSale: values[3] == "1",
			StartsAt: time.UnixMilli(number(4)).UTC(), EndsAt: time.UnixMilli(number(5)).UTC(), Total: number(6), Restocks: number(7),
		},
	}
	for _, b := range buyers {
		out.Open[b] = true
	}
	return out, nil
}

// Buyer is one buyer's field of a product in Redis.
type Buyer struct {
	UserID       string
	Units        int64         // held, as the field counts them
	Reservations []Reservation // of every state; At is when Redis saw it first
	Problem      string        // why the field cannot be read; empty when it can
}

// Buyers yields what Redis holds of every buyer of a product, in no order and
// not as of one instant: it is read in many steps, beside whatever goes on. An
// error ends it. A product that is not in Redis has no buyers.
func (c *Cache) Buyers(ctx context.Context, productID string) iter.Seq2[Buyer, error] {
	return func(yield func(Buyer, error) bool) {
		scan := c.client.HScan(ctx, c.keys.product(productID), 0, userPrefix+"*", 1000).Iterator()
		for scan.Next(ctx) {
			b := Buyer{UserID: strings.TrimPrefix(scan.Val(), userPrefix)}
			if !scan.Next(ctx) {
				break
			}
			var err error
			if b.Units, b.Reservations, err = readField(productID, b.UserID, scan.Val()); err != nil {
				b.Problem = err.Error()
			}
			if !yield(b, nil) {
				return
			}
		}
		if err := scan.Err(); err != nil {
			yield(Buyer{}, fmt.Errorf("read the buyers of %s in Redis: %w", productID, err))
		}
	}
}

// Row is a reservation as the ledger has it, with its last change.
type Row struct {
	Reservation
	ChangedAt time.Time // by the database's clock
}

const sqlRows = "SELECT reservation_id, product_id, user_id, quantity, state, reason, created_at, updated_at FROM reservations WHERE product_id = ?"

// Rows yields every reservation of a product, in no order, one at a time from
// the wire, over one connection that is held while the caller ranges. A fault is
// the pair's error and ends the rows.
func (l *Ledger) Rows(ctx context.Context, productID string) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		rows, err := l.db.QueryContext(ctx, sqlRows, productID)
		if err != nil {
			yield(Row{}, fmt.Errorf("read the reservations of %s: %w", productID, err))
			return
		}
		defer func() { _ = rows.Close() }()
		for rows.Next() {
			var r Row
			err := rows.Scan((*mysql.ID)(&r.ID), &r.ProductID, &r.UserID, &r.Quantity, &r.State, &r.Reason, &r.At, &r.ChangedAt)
			if err != nil {
				yield(Row{}, fmt.Errorf("read the reservations of %s: %w", productID, err))
				return
			}
			if !yield(r, nil) {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(Row{}, fmt.Errorf("read the reservations of %s: %w", productID, err))
		}
	}
}

const sqlNow = "SELECT NOW(3)"

// Now is the database's clock.
func (l *Ledger) Now(ctx context.Context) (time.Time, error) {
	var now time.Time
	if err := l.db.QueryRowContext(ctx, sqlNow).Scan(&now); err != nil {
		return now, fmt.Errorf("ask MySQL for the time: %w", err)
	}
	return now, nil
}
