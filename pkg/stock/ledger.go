package stock

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/leadingpeers/seckill/internal/fault"
	"github.com/leadingpeers/seckill/internal/mysql"
)

// ErrNotCancelled is what a [NotCancelledError] is.
var ErrNotCancelled = errors.New("its order is not cancelled")

// NotCancelledError is returned by [Ledger.Rollback] for deducted reservations
// whose orders are not cancelled. Nothing has changed, and repeating will not
// help until they are: such an event was not born from a cancellation.
type NotCancelledError struct {
	IDs []string // all such reservations of the batch, sorted
}

// Error names the first of them.
func (e *NotCancelledError) Error() string {
	if n := len(e.IDs) - 1; n > 0 {
		return fmt.Sprintf("reservation %s and %d more: %v", e.IDs[0], n, ErrNotCancelled)
	}
	return fmt.Sprintf("reservation %s: %v", e.IDs[0], ErrNotCancelled)
}

// Unwrap returns [ErrNotCancelled].
func (*NotCancelledError) Unwrap() error { return ErrNotCancelled }

// ErrInvalid is returned by the ledger for a batch that no repetition can
// cure: too long, of another product, or with a malformed reservation. Nothing
// has changed.
var ErrInvalid = errors.New("invalid batch")

// reasonLimit is the width of the column that keeps a reason, in ASCII
// characters.
const reasonLimit = 32

// Ledger is the count of units in MySQL: the one to believe. Each transition
// of a reservation happens in a transaction that first locks the product's
// stock row, so transitions of one product happen one after the other, and a
// late worker finds the row that its successor has written. After each of them
//
//	available + Σ deducted = total
//
// (protocol.md, "MySQL"). Any number of ledgers may work on one database. A
// Ledger is safe for concurrent use.
type Ledger struct {
	db      *sql.DB
	repeats struct {
		deduct, rollBack atomic.Bool // the last such batch had reservations that it need not change
	}
}

// NewLedger returns the ledger in db, which must come from mysql.Open and have
// the tables of mysql.Migrate.
func NewLedger(db *sql.DB) *Ledger { return &Ledger{db: db} }

// Deduct decides reservations of one product, at most [MaxBatch], in the order
// given, in one transaction: Deducted when the units are there and the buyer
// stays within the product's limit, else Refused with a Refusal as its reason
// (sold_out, over_user_limit, or not_on_sale for a stopped product). A
// reservation that the ledger knows already, in whatever state, is not decided
// again.
//
// It returns one reservation per distinct ID, in input order, with the
// product, user, quantity, state and reason of the ledger's row, which win over
// the input's; Settled says whether a known one had an order; At is left zero
// and ActivityID is the input's. Repeating is harmless and answers the same
// until the reservation is settled or rolled back.
//
// Errors: [ErrNotFound] for a product without a stock row, [ErrInvalid]; both
// are permanent and nothing has changed. After any other error the batch was
// decided as a whole or not at all, and repeating finds out. A count that no
// sequence of these transactions can reach is a panic with the numbers.
func (l *Ledger) Deduct(ctx context.Context, productID string, rs []Reservation) ([]Reservation, error) {
	return l.transition(ctx, productID, rs, step{"deduct", &l.repeats.deduct, settled, func(State) bool { return true }, l.deductNew})
}

// deductNew takes all of want for new. Nearly always they are, and then looking
// for them is a fifth of the work. If one is not, its key stops the INSERT, and
// nothing has happened.
func (l *Ledger) deductNew(ctx context.Context, productID string, want []Reservation) (map[string]Reservation, error) {
	rows, err := l.change(ctx, productID, want, unread, deduct)
	if mysql.IsDuplicate(err) {
		l.repeats.deduct.Store(true)
		return l.change(ctx, productID, want, settled, deduct)
	}
	return rows, err
}

// Rollback gives the units of deducted reservations of one product back, at
// most [MaxBatch], in one transaction, and marks them RolledBack with the
// order's reason. It does so only when the reservation's order is cancelled,
// as the same transaction reads it; user and quantity are those of the
// ledger's row. An unknown reservation leaves a tombstone that moves no unit:
// a row that is RolledBack from the start, with the input's reason (its first
// 32 printable ASCII characters). A Deduct that comes later finds it. Refused
// and RolledBack rows stay as they are, and so does a row of another product.
//
// It returns one reservation per distinct ID like [Ledger.Deduct]. Repeating
// is harmless.
//
// Errors: a [NotCancelledError], [ErrNotFound] for a product without a stock
// row, [ErrInvalid]; all are permanent and nothing has changed for the whole
// batch. After any other error the batch was rolled back
// as a whole or not at all, and repeating finds out.
func (l *Ledger) Rollback(ctx context.Context, productID string, rs []Reservation) ([]Reservation, error) {
	return l.transition(ctx, productID, rs, step{"roll back", &l.repeats.rollBack, known, ended, l.rollBackAll})
}

// rollBackAll notes whether it has met rows that it leaves as they are.
func (l *Ledger) rollBackAll(ctx context.Context, productID string, want []Reservation) (map[string]Reservation, error) {
	look := func(ctx context.Context, db queryer, ids []string) (map[string]Reservation, error) {
		rows, err := known(ctx, db, ids)
		for _, r := range rows {
			if ended(r.State) {
				l.repeats.rollBack.Store(true)
			}
		}
		return rows, err
	}
	return l.change(ctx, productID, want, look, rollBack)
}

// ended is whether no rollback changes a row in that state any more.
func ended(s State) bool {
	return s == Refused || s == RolledBack && !fault.Off(fault.RollbackOnce)
}

// step is one of the ledger's transitions.
type step struct {
	verb    string
	repeats *atomic.Bool     // rows that it leaves are likely: a topic is read again, or the reaper publishes again
	look    look             // of the rows that it leaves
	leaves  func(State) bool // a row in that state as it is
	do      func(ctx context.Context, productID string, want []Reservation) (map[string]Reservation, error)
}

// transition is what Deduct and Rollback share: read what the step leaves as it
// is, do it to the rest, answer in input order. What stays is read without the
// lock. Whoever reads a row with it may tell of it late just as well, and a row
// never goes away; so a replay keeps nobody waiting, and costs one reading
// instead of one or two transactions.
func (l *Ledger) transition(ctx context.Context, productID string, rs []Reservation, s step) ([]Reservation, error) {
	want, err := distinct(productID, rs)
	rows := map[string]Reservation{}
	if err == nil && len(want) > 0 && s.repeats.Load() {
		rows, err = s.look(ctx, l.db, ids(want))
		// A row of another product must not hide that this one is unknown.
		maps.DeleteFunc(rows, func(_ string, r Reservation) bool { return r.ProductID != productID || !s.leaves(r.State) })
		s.repeats.Store(len(rows) > 0)
	}
	if rest := unknownOf(want, rows); err == nil && len(rest) > 0 {
		var changed map[string]Reservation
		changed, err = s.do(ctx, productID, rest)
		maps.Copy(rows, changed)
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", s.verb, productID, err)
	}
	for i, r := range want {
		want[i] = rows[r.ID]
		want[i].ActivityID = r.ActivityID // the ledger does not keep it
	}
	return want, nil
}

// decision decides want under the lock of stock and returns the rows that were
// not in the ledger before, or have changed.
type decision func(ctx context.Context, tx *sql.Tx, stock stockRow, want []Reservation, seen map[string]Reservation) ([]Reservation, error)

// look returns the rows of those IDs that the ledger has.
type look func(ctx context.Context, db queryer, ids []string) (map[string]Reservation, error)

// unread is the look that takes all for new.
func unread(context.Context, queryer, []string) (map[string]Reservation, error) {
	return make(map[string]Reservation), nil
}

// change is one transaction: lock the stock row, read what is known, decide. It
// returns the rows of want, each by its ID.
func (l *Ledger) change(ctx context.Context, productID string, want []Reservation, look look, decide decision) (rows map[string]Reservation, err error) {
	err = mysql.InTx(ctx, l.db, func(tx *sql.Tx) error {
		stock, err := lockStock(ctx, tx, productID)
		if err != nil {
			return err
		}
		rows, err = look(ctx, tx, ids(want))
		if err != nil {
			return err
		}
		changed, err := decide(ctx, tx, stock, want, rows)
		fault.Point(fault.InLedger)
		for _, r := range changed {
			rows[r.ID] = r
		}
		return err
	})
	return rows, err
}

// distinct returns the first reservation of each ID, in order, and refuses a
// batch that the tables could not hold.
func distinct(productID string, rs []Reservation) ([]Reservation, error) {
	if len(rs) > MaxBatch {
		return nil, fmt.Errorf("%w: %d reservations, want at most %d", ErrInvalid, len(rs), MaxBatch)
	}
	seen := make(map[string]bool, len(rs))
	var want []Reservation
	for _, r := range rs {
		if err := r.Validate(); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		if !mysql.ID(r.ID).Valid() {
			return nil, fmt.Errorf("%w: reservation ID %q has more than 128 bits", ErrInvalid, r.ID)
		}
		if r.ProductID != productID {
			return nil, fmt.Errorf("%w: reservation %s is of product %s", ErrInvalid, r.ID, r.ProductID)
		}
		if !seen[r.ID] {
			seen[r.ID] = true
			want = append(want, r)
		}
	}
	return want, nil
}

// deduct is the step of Deduct.
func deduct(ctx context.Context, tx *sql.Tx, stock stockRow, want []Reservation, seen map[string]Reservation) ([]Reservation, error) {
	fresh := unknownOf(want, seen)
	if len(fresh) == 0 {
		return nil, nil
	}
	held, err := unitsHeld(ctx, tx, stock.productID, fresh)
	if err != nil {
		return nil, err
	}
	taken := decide(stock, held, fresh)
	if taken > stock.available && !fault.Off(fault.StockGuard) {
		panic(fmt.Sprintf("stock of %s: %d units taken of %d available (total %d)",
			stock.productID, taken, stock.available, stock.total))
	}
	if err := insert(ctx, tx, fresh); err != nil {
		return nil, err
	}
	return fresh, moveUnits(ctx, tx, stock.productID, -taken)
}

// decide sets the state and reason of each reservation of fresh, in order, and
// returns the units they take. held has the units each buyer holds already; it
// is brought up to date.
func decide(stock stockRow, held map[string]int64, fresh []Reservation) (taken int64) {
	for i := range fresh {
		r := &fresh[i]
		reason := stock.refuses()
		switch {
		case reason != "":
		case r.Quantity > stock.available-taken && !fault.Off(fault.StockGuard):
			reason = SoldOut
		case r.Quantity > stock.perUser-held[r.UserID] && !fault.Off(fault.UserGuard):
			reason = OverUserLimit
		}
		if reason != "" {
			r.State, r.Reason = Refused, string(reason)
			continue
		}
		r.State, r.Reason = Deducted, ""
		held[r.UserID] += r.Quantity
		taken += r.Quantity
	}
	return taken
}

// rollBack is the step of Rollback.
func rollBack(ctx context.Context, tx *sql.Tx, stock stockRow, want []Reservation, seen map[string]Reservation) ([]Reservation, error) {
	changed, returned, err := giveBack(ctx, tx, stock.productID, seen)
	if err != nil {
		return nil, err
	}
	if stock.available+returned > stock.total {
		panic(fmt.Sprintf("stock of %s: %d units returned to %d available of %d in total",
			stock.productID, returned, stock.available, stock.total))
	}
	tombstones := unknownOf(want, seen)
	for i := range tombstones {
		r := &tombstones[i]
		r.State, r.Reason = RolledBack, tombstoneReason(r.Reason)
	}
	if err := insert(ctx, tx, tombstones); err != nil {
		return nil, err
	}
	return append(changed, tombstones...), moveUnits(ctx, tx, stock.productID, returned)
}

// tombstoneReason returns what the column holds of a reason that came with an
// event. A reason too long or strange must not stop a rollback for ever.
func tombstoneReason(reason string) string {
	ascii := strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return -1
		}
		return c
	}, reason)
	return ascii[:min(len(ascii), reasonLimit)]
}

// giveBack marks the deducted rows among seen as rolled back and returns them
// with the units they held. A row of another product than the locked one is
// left alone: its stock is not ours to change.
func giveBack(ctx context.Context, tx *sql.Tx, productID string, seen map[string]Reservation) (changed []Reservation, returned int64, err error) {
	for _, r := range seen {
		again := r.State == RolledBack && fault.Off(fault.RollbackOnce)
		if (r.State == Deducted || again) && r.ProductID == productID {
			changed = append(changed, r)
			returned += r.Quantity
		}
	}
	if len(changed) == 0 {
		return nil, 0, nil
	}
	reasons, err := cancellations(ctx, tx, ids(changed))
	if err != nil {
		return nil, 0, err
	}
	byReason := make(map[string][]string)
	var forged []string
	for i := range changed {
		r := &changed[i]
		reason, ok := reasons[r.ID]
		if !ok && !fault.Off(fault.CancelledOnly) {
			forged = append(forged, r.ID)
		}
		r.State, r.Reason = RolledBack, reason
		byReason[reason] = append(byReason[reason], r.ID)
	}
	if len(forged) > 0 {
		slices.Sort(forged)
		return nil, 0, &NotCancelledError{forged}
	}
	for _, reason := range slices.Sorted(maps.Keys(byReason)) {
		if err := markRolledBack(ctx, tx, productID, reason, byReason[reason]); err != nil {
			return nil, 0, err
		}
	}
	return changed, returned, nil
}

// unknownOf returns copies of those reservations of want that are not in seen,
// without what only a row may say.
func unknownOf(want []Reservation, seen map[string]Reservation) []Reservation {
	var fresh []Reservation
	for _, r := range want {
		if _, ok := seen[r.ID]; !ok {
			fresh = append(fresh, Reservation{ID: r.ID, ProductID: r.ProductID, UserID: r.UserID, Quantity: r.Quantity, Reason: r.Reason})
		}
	}
	return fresh
}

func ids(rs []Reservation) []string {
	out := make([]string, len(rs))
	for i, r := range rs {
		out[i] = r.ID
	}
	return out
}
