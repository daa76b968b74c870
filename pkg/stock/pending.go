package stock

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// Waiting is what of a product is taken in Redis and not decided yet.
type Waiting struct {
	Surplus      int64         // units that may still be reserved
	Units        int64         // units pending
	Reservations int64         // reservations pending
	Oldest       time.Duration // age of the oldest of them by Redis's clock, 0 without any
}

// Waiting reads a product's pending reservations. Unlike [Cache.Counts] it looks
// only at the buyers of the open list, so its cost is what is under way, not
// what was ever sold. It is read in many steps: in a product that sells, the
// surplus and the units are of slightly different moments.
//
// It returns [NotLoaded] when the product is not in Redis, else a fault.
func (c *Cache) Waiting(ctx context.Context, productID string) (Waiting, error) {
	var w Waiting
	surplus, err := c.Surplus(ctx, productID)
	if err != nil {
		return Waiting{}, err
	}
	w.Surplus = surplus
	buyers, err := c.client.LRange(ctx, c.keys.open(productID), 0, -1).Result()
	if err != nil {
		return Waiting{}, fmt.Errorf("open list of %s: %w", productID, err)
	}
	var oldest time.Time
	seen := make(map[string]bool, len(buyers))
	for len(buyers) > 0 {
		n := min(MaxBatch, len(buyers))
		first, err := c.waitingOf(ctx, productID, buyers[:n], seen, &w)
		if err != nil {
			return Waiting{}, fmt.Errorf("pending of %s: %w", productID, err)
		}
		if !first.IsZero() && (oldest.IsZero() || first.Before(oldest)) {
			oldest = first
		}
		buyers = buyers[n:]
	}
	if oldest.IsZero() {
		return w, nil
	}
	now, err := c.now(ctx, productID)
	if err != nil {
		return Waiting{}, fmt.Errorf("clock of %s: %w", productID, err)
	}
	w.Oldest = max(0, now.Sub(oldest))
	return w, nil
}

// waitingOf adds what the buyers have pending, each once, and returns the time
// of the oldest.
func (c *Cache) waitingOf(ctx context.Context, productID string, buyers []string, seen map[string]bool, w *Waiting) (oldest time.Time, err error) {
	var users, fields []string
	for _, b := range buyers {
		if !seen[b] {
			seen[b] = true
			users, fields = append(users, b), append(fields, userPrefix+b)
		}
	}
	if len(fields) == 0 {
		return time.Time{}, nil
	}
	values, err := c.client.HMGet(ctx, c.keys.product(productID), fields...).Result()
	if err != nil {
		return time.Time{}, err
	}
	for i, v := range values {
		value, there := v.(string)
		if !there {
			continue
		}
		_, rs, err := readField(productID, users[i], value)
		if err != nil {
			return time.Time{}, err
		}
		for _, r := range rs {
			if r.State != Pending {
				continue
			}
			w.Units += r.Quantity
			w.Reservations++
			if oldest.IsZero() || r.At.Before(oldest) {
				oldest = r.At
			}
		}
	}
	return oldest, nil
}

// now is the clock of the server that holds the product.
func (c *Cache) now(ctx context.Context, productID string) (time.Time, error) {
	if cluster, ok := c.client.(*redis.ClusterClient); ok {
		master, err := cluster.MasterForKey(ctx, c.keys.product(productID))
		if err != nil {
			return time.Time{}, err
		}
		return master.Time(ctx).Result()
	}
	return c.client.Time(ctx).Result()
}
