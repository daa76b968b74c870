package stock

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

// Loaded says by which load each of the products came into Redis, in one round
// trip; one that is not there is missing. Every [Cache.Preload] that puts a
// product there has a name of its own.
func (c *Cache) Loaded(ctx context.Context, productIDs []string) (map[string]string, error) {
	loaded := make(map[string]string, len(productIDs))
	if len(productIDs) == 0 {
		return loaded, nil
	}
	there := make([]*redis.SliceCmd, len(productIDs))
	_, err := c.client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, id := range productIDs {
			there[i] = pipe.HMGet(ctx, c.keys.product(id), surplusField, loadField)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("which of %d products are loaded: %w", len(productIDs), err)
	}
	for i, id := range productIDs {
		switch values := there[i].Val(); {
		case values[0] == nil:
		case values[1] == nil:
			loaded[id] = "unnamed" // by a version that gave loads no names
		default:
			loaded[id] = fmt.Sprint(values[1])
		}
	}
	return loaded, nil
}

// Open says how many entries the open list of each product has, in one round
// trip: reservations not yet decided, and settled ones that nobody has dropped.
func (c *Cache) Open(ctx context.Context, productIDs []string) (map[string]int, error) {
	open := make(map[string]int, len(productIDs))
	if len(productIDs) == 0 {
		return open, nil
	}
	lengths := make([]*redis.IntCmd, len(productIDs))
	_, err := c.client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, id := range productIDs {
			lengths[i] = pipe.LLen(ctx, c.keys.open(id))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("lengths of %d open lists: %w", len(productIDs), err)
	}
	for i, id := range productIDs {
		open[id] = int(lengths[i].Val())
	}
	return open, nil
}

// Surplus returns the units of a product that may still be reserved. It is
// below 0 after Redis has lost reservations and adopted them again.
//
// It returns [NotLoaded] when the product is not in Redis, else a fault.
func (c *Cache) Surplus(ctx context.Context, productID string) (int64, error) {
	surplus, err := c.client.HGet(ctx, c.keys.product(productID), surplusField).Int64()
	if errors.Is(err, redis.Nil) {
		return 0, NotLoaded
	}
	if err != nil {
		return 0, fmt.Errorf("surplus of %s: %w", productID, err)
	}
	return surplus, nil
}

// balanceEntries is how many entries of the open list Balance looks at. With
// more, a product is too busy to be judged, and the script would hold Redis up.
const balanceEntries = 2000

// Balance is what Redis holds of a product that is not deducted, in units.
type Balance struct{ Surplus, Pending int64 }

// Balance reads both counts at one instant, from the open list: cheap enough
// for every few seconds. It returns [ErrBusy] while more than 2,000 reservations
// are open, [NotLoaded] when the product is not in Redis, else a fault.
func (c *Cache) Balance(ctx context.Context, productID string) (Balance, error) {
	reply, err := c.call(ctx, c.scripts.balance, []string{c.keys.product(productID), c.keys.open(productID)}, balanceEntries)
	if err != nil {
		return Balance{}, fmt.Errorf("balance of %s: %w", productID, err)
	}
	switch reply {
	case string(NotLoaded):
		return Balance{}, NotLoaded
	case "busy":
		return Balance{}, ErrBusy
	}
	var b Balance
	if _, err := fmt.Sscanf(fmt.Sprint(reply), "%d;%d", &b.Surplus, &b.Pending); err != nil {
		return Balance{}, fmt.Errorf("balance of %s: replied %.60q: %w", productID, reply, err)
	}
	return b, nil
}

// Counts is the account of one product in Redis.
type Counts struct {
	Surplus      int64 // units that may still be reserved
	Pending      int64 // units taken, not yet decided
	Deducted     int64 // units taken for good
	Reservations int   // records of every state
	RolledBack   int   // records among them that hold no units
	Buyers       int   // buyers with a record
	Broken       int   // buyers whose count is not the sum of their records: always 0
	Open         int   // entries of the open list
}

// Counts reads the whole account of a product, buyer by buyer: for reconciling
// and for tests, not for the hot path. It is read in many steps, so only a
// product at rest adds up exactly.
//
// It returns [NotLoaded] when the product is not in Redis, else a fault.
func (c *Cache) Counts(ctx context.Context, productID string) (Counts, error) {
	var counts Counts
	var err error
	if counts.Surplus, err = c.Surplus(ctx, productID); err != nil {
		return Counts{}, err
	}
	open, err := c.client.LLen(ctx, c.keys.open(productID)).Result()
	if err != nil {
		return Counts{}, fmt.Errorf("counts of %s: %w", productID, err)
	}
	counts.Open = int(open)
	// The hash only grows, and of such a hash HSCAN returns no field twice.
	scan := c.client.HScan(ctx, c.keys.product(productID), 0, userPrefix+"*", 1000).Iterator()
	for scan.Next(ctx) {
		user := strings.TrimPrefix(scan.Val(), userPrefix)
		if !scan.Next(ctx) {
			break
		}
		if err := counts.add(productID, user, scan.Val()); err != nil {
			return Counts{}, fmt.Errorf("counts of %s: %w", productID, err)
		}
	}
	if err := scan.Err(); err != nil {
		return Counts{}, fmt.Errorf("counts of %s: %w", productID, err)
	}
	return counts, nil
}

// add counts one buyer's field.
func (c *Counts) add(productID, userID, value string) error {
	units, rs, err := readField(productID, userID, value)
	if err != nil {
		return err
	}
	for _, r := range rs {
		switch r.State {
		case Pending:
			c.Pending += r.Quantity
			units -= r.Quantity
		case Deducted:
			c.Deducted += r.Quantity
			units -= r.Quantity
		case Refused, RolledBack:
			c.RolledBack++
		}
	}
	c.Reservations += len(rs)
	c.Buyers++
	if units != 0 {
		c.Broken++
	}
	return nil
}

// RunID names this life of Redis: it changes when a server has restarted, a
// replica has become master or the cluster has another set of masters, after
// which Redis may have lost what it had promised. It is empty for a server that
// does not tell.
func (c *Cache) RunID(ctx context.Context) (string, error) {
	var mu sync.Mutex // masters are asked side by side
	var ids []string
	ask := func(ctx context.Context, server redis.Cmdable) error {
		info, err := server.Info(ctx).Result()
		mu.Lock()
		defer mu.Unlock()
		for line := range strings.SplitSeq(info, "\r\n") {
			name, id, _ := strings.Cut(line, ":")
			if name == "run_id" || name == "master_replid" {
				ids = append(ids, id)
			}
		}
		return err
	}
	var err error
	if cluster, ok := c.client.(*redis.ClusterClient); ok {
		err = cluster.ForEachMaster(ctx, func(ctx context.Context, master *redis.Client) error { return ask(ctx, master) })
	} else {
		err = ask(ctx, c.client)
	}
	if err != nil {
		return "", fmt.Errorf("run ID of Redis: %w", err)
	}
	slices.Sort(ids)
	return strings.Join(ids, "."), nil
}
