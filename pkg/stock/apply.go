package stock

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// Applied says what became of the reservations given to [Cache.Apply].
type Applied struct {
	Changed    int // pending became deducted or rolled back, or deducted became rolled back
	Same       int // Redis agreed already
	Adopted    int // deducted, and unknown to Redis: it had lost them
	Tombstones int // rolled back or refused, and unknown to Redis
	NotLoaded  int // the product is not in Redis: skipped
}

// outcome is a letter of the apply script's reply.
type outcome byte

const (
	changed   outcome = 'c'
	same      outcome = 's'
	adopted   outcome = 'a'
	tombstone outcome = 't'
	notLoaded outcome = 'n'
)

// count adds one outcome.
func (a *Applied) count(o outcome) error {
	switch o {
	case changed:
		a.Changed++
	case same:
		a.Same++
	case adopted:
		a.Adopted++
	case tombstone:
		a.Tombstones++
	case notLoaded:
		a.NotLoaded++
	default:
		return fmt.Errorf("apply replied %q", byte(o))
	}
	return nil
}

// applyWindow is how many script calls of one Apply travel in one write.
const applyWindow = 16

// Apply makes Redis agree with the ledger's rows rs, of any products and any
// number: [Deducted] takes the units for good, even of a reservation that Redis
// has lost; [Refused] and [RolledBack] give them back, or keep an ID that Redis
// does not know from ever reserving. It works outside the sale, too. Rows of a
// product that is not loaded are skipped: loading it brings them.
//
// The order of rows and calls does not matter, and repeating a call is harmless.
//
// A row that is not valid, or [Pending], is an error before anything is sent.
// Every other error is an [ErrUnknown]: some rows may have been applied, and
// the count says which are known to be.
func (c *Cache) Apply(ctx context.Context, rs []Reservation) (Applied, error) {
	calls, err := c.applyCalls(rs)
	if err != nil {
		return Applied{}, fmt.Errorf("apply: %w", err)
	}
	var total Applied
	for len(calls) > 0 {
		n := min(applyWindow, len(calls))
		for i, cmd := range c.run(ctx, c.scripts.apply, calls[:n]) {
			if errOne := c.countApplied(&total, cmd); errOne != nil && err == nil {
				err = fmt.Errorf("apply to %v: %w: %w", calls[i][3], ErrUnknown, errOne)
			}
		}
		if err != nil {
			return total, err
		}
		calls = calls[n:]
	}
	return total, nil
}

// applyCalls groups rs by product, in order, and makes the script calls.
func (c *Cache) applyCalls(rs []Reservation) ([][]any, error) {
	var products []string
	of := map[string][]*Reservation{}
	for i := range rs {
		r := &rs[i]
		if err := r.Validate(); err != nil {
			return nil, err
		}
		if letter, err := r.State.letter(); err != nil || letter == letterPending {
			return nil, fmt.Errorf("reservation %s: state %.20q is none of the ledger's", r.ID, string(r.State))
		}
		if of[r.ProductID] == nil {
			products = append(products, r.ProductID)
		}
		of[r.ProductID] = append(of[r.ProductID], r)
	}
	var calls [][]any
	for _, product := range products {
		for rows := of[product]; len(rows) > 0; {
			n := min(c.cfg.MaxBatch, len(rows))
			calls = append(calls, c.applyCall(product, rows[:n]))
			rows = rows[n:]
		}
	}
	return calls, nil
}

// applyCall is one script call for rows of one product.
func (c *Cache) applyCall(product string, rows []*Reservation) []any {
	n := len(rows)
	args := c.scripts.apply.start(make([]any, 0, 4+4*n), c.keys.product(product))
	argv := args[len(args) : len(args)+4*n]
	for i, r := range rows {
		letter, _ := r.State.letter() // checked by applyCalls
		argv[i], argv[n+i] = userPrefix+r.UserID, &r.ID
		argv[2*n+i], argv[3*n+i] = strconv.FormatInt(r.Quantity, 10), letter
	}
	return args[:len(args)+4*n]
}

// countApplied adds the reply of one script call to total.
func (c *Cache) countApplied(total *Applied, cmd *redis.Cmd) error {
	reply, err := cmd.Text()
	if err != nil {
		return err
	}
	for i := range len(reply) {
		o := outcome(reply[i])
		if err := total.count(o); err != nil {
			return err
		}
		c.metrics.applied[o].Inc()
	}
	return nil
}

// Reap returns the reservations of a product that have been pending for
// olderThan or longer, by Redis's clock, with the age of each in At. It looks at
// most at limit entries of the open list (1 to [MaxBatch]; more are cut to that)
// and turns those it returns to its end, so that repeated calls come to all. It
// decides nothing: announce what it returns again, and the ledger will.
//
// It returns [NotLoaded] when the product is not in Redis, else an [ErrUnknown]:
// some entries may have been turned to the end. No units move, and repeating is
// harmless.
func (c *Cache) Reap(ctx context.Context, productID string, olderThan time.Duration, limit int) ([]Reservation, error) {
	if !ValidProductID(productID) || olderThan < 0 || limit < 1 {
		return nil, fmt.Errorf("reap %.40q: want a product ID, an age from 0 and a limit from 1", productID)
	}
	keys := []string{c.keys.product(productID), c.keys.open(productID)}
	reply, err := c.call(ctx, c.scripts.reap, keys, olderThan.Milliseconds(), min(limit, MaxBatch))
	if err != nil {
		return nil, fmt.Errorf("reap %s: %w", productID, err)
	}
	if reply == string(NotLoaded) {
		return nil, NotLoaded
	}
	elements, _ := reply.([]any)
	rs := make([]Reservation, 0, len(elements)/4)
	for len(elements) >= 4 {
		user, _ := elements[0].(string)
		id, _ := elements[1].(string)
		r := Reservation{ID: id, ProductID: productID, UserID: user}
		if err := readAnswer(&r, fmt.Sprintf("%v,%s,%v", elements[2], letterPending, elements[3])); err != nil {
			return rs, fmt.Errorf("reap %s: %w", productID, err)
		}
		rs, elements = append(rs, r), elements[4:]
	}
	return rs, nil
}
