package order

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/leadingpeers/seckill/internal/fault"
	"github.com/leadingpeers/seckill/internal/mysql"
)

// Limits of one call and of one message.
const (
	MaxBatch     = 500      // orders or messages in one call
	MaxBody      = 64 << 10 // bytes of a Message's body
	MaxPayWindow = 24 * time.Hour
)

// ReasonTimeout is the reason of an order that [Store.Expire] has cancelled.
const ReasonTimeout = "payment_timeout"

// The errors that say what an order is, rather than that something broke.
// Nothing has changed when one is returned, and repeating does not help.
var (
	ErrNotFound = errors.New("no such order")
	ErrTooLate  = errors.New("the order is cancelled")
	ErrPaid     = errors.New("the order is paid")
	ErrAmount   = errors.New("the amount is not the order's")
	ErrRefUsed  = errors.New("the payment reference belongs to another order")
	ErrInvalid  = errors.New("invalid order, payment or message")
)

// Store keeps orders and the outbox. Every change of an order's state is a
// compare-and-set on awaiting_payment, so of a payment, a cancellation and a
// time-out that race exactly one wins. Any number of stores may work on one
// database. A Store is safe for concurrent use.
type Store struct {
	db        *sql.DB
	repeats   atomic.Bool // the last batch to place had orders that were there before
	paidTwice atomic.Bool // and the last to pay some that were paid before
}

// NewStore returns the store in db, which must come from mysql.Open and have
// the tables of mysql.Migrate.
func NewStore(db *sql.DB) *Store { return &Store{db: db} }

// Place writes an order awaiting payment for each reservation that has none,
// at most [MaxBatch], all or none of them. The store gives it its ID and, by
// the database's clock, its times and its deadline, PayWindow from now;
// PayWindow is a whole number of milliseconds up to [MaxPayWindow].
//
// It returns one order per input, in input order: if all are new as it has
// placed them, else as they stand. A reservation that had an order keeps it,
// whatever its state and whatever the input says.
// Repeating is harmless. [ErrInvalid] is permanent and nothing has changed;
// after any other error all were placed or none, and repeating finds out.
func (s *Store) Place(ctx context.Context, orders []Order) ([]Order, error) {
	if len(orders) == 0 {
		return nil, nil
	}
	if len(orders) > MaxBatch {
		return nil, fmt.Errorf("place orders: %w: %d orders, want at most %d", ErrInvalid, len(orders), MaxBatch)
	}
	for _, o := range orders {
		if err := o.validate(); err != nil {
			return nil, fmt.Errorf("place order for %.40q: %w: %w", o.ReservationID, ErrInvalid, err)
		}
	}
	placed, err := s.place(ctx, orders)
	if err != nil {
		return nil, fmt.Errorf("place %d orders: %w", len(orders), err)
	}
	return placed, nil
}

// place takes all orders for new, as nearly all are, unless the batch before
// has had some that were not: then a topic is read again, and it looks first.
func (s *Store) place(ctx context.Context, orders []Order) ([]Order, error) {
	if !s.repeats.Load() {
		return s.placeNew(ctx, orders)
	}
	before, err := find(ctx, s.db, reservationsOf(orders))
	if err != nil {
		return nil, err
	}
	s.repeats.Store(len(before) > 0)
	placed := make([]Order, len(orders))
	var missing []Order
	var at []int
	for i, o := range orders {
		if was, ok := before[o.ReservationID]; ok {
			placed[i] = was
		} else {
			missing, at = append(missing, o), append(at, i)
		}
	}
	if len(missing) == 0 {
		return placed, nil
	}
	fresh, err := s.placeNew(ctx, missing)
	for i, o := range fresh {
		placed[at[i]] = o
	}
	return placed, err
}

// placeNew takes all orders for new: then only the time is to be read of what
// it has written. If one is not, its key stops the statement, and nothing has
// happened.
func (s *Store) placeNew(ctx context.Context, orders []Order) ([]Order, error) {
	fresh := make([]Order, len(orders))
	for i, o := range orders {
		id, err := uuid.NewV7()
		if err != nil {
			return nil, fmt.Errorf("make an order ID: %w", err)
		}
		o.ID, o.State, o.Reason, o.PaymentRef = id.String(), AwaitingPayment, "", ""
		fresh[i] = o
	}
	err := s.insert(ctx, sqlPlace, fresh)
	if err == nil {
		return fresh, s.date(ctx, fresh)
	}
	if !mysql.IsDuplicate(err) {
		return nil, err
	}
	s.repeats.Store(true)
	if err := s.insert(ctx, sqlPlace+keepPlaced, fresh); err != nil {
		return nil, err
	}
	return s.standing(ctx, orders)
}

// insert writes the orders in one statement.
func (s *Store) insert(ctx context.Context, query string, orders []Order) error {
	// In the order of the unique key: two workers with the same reservations
	// then lock them one behind the other.
	sorted := slices.SortedFunc(slices.Values(orders), func(a, b Order) int {
		return strings.Compare(a.ReservationID, b.ReservationID)
	})
	args := make([]any, 0, 9*len(sorted))
	for _, o := range sorted {
		args = append(args, o.ID, mysql.ID(o.ReservationID), o.ActivityID, o.ProductID, o.UserID,
			o.Quantity, o.AmountCents, o.Currency, o.PayWindow.Microseconds())
	}
	query = mysql.Values(query, len(sorted))
	return mysql.Retry(ctx, func() error {
		_, err := s.db.ExecContext(ctx, query, args...)
		return err
	})
}

// date sets the times of orders that one statement has written: they all have
// that of the first.
func (s *Store) date(ctx context.Context, orders []Order) error {
	var at time.Time
	if err := s.db.QueryRowContext(ctx, sqlPlacedAt, mysql.ID(orders[0].ReservationID)).Scan(&at); err != nil {
		return fmt.Errorf("read the time of the order for %s: %w", orders[0].ReservationID, err)
	}
	for i := range orders {
		o := &orders[i]
		o.CreatedAt, o.UpdatedAt, o.PayDeadline = at, at, at.Add(o.PayWindow)
	}
	return nil
}

// standing returns the orders of the same reservations as the table has them.
func (s *Store) standing(ctx context.Context, orders []Order) ([]Order, error) {
	ids := reservationsOf(orders)
	placed, err := find(ctx, s.db, ids)
	if err != nil {
		return nil, err
	}
	out := make([]Order, len(orders))
	for i, id := range ids {
		o, ok := placed[id]
		if !ok {
			return nil, fmt.Errorf("the order for %s is gone", id)
		}
		out[i] = o
	}
	return out, nil
}

func reservationsOf(orders []Order) []string {
	ids := make([]string, len(orders))
	for i, o := range orders {
		ids[i] = o.ReservationID
	}
	return ids
}

// Find returns the order of a reservation, or [ErrNotFound].
func (s *Store) Find(ctx context.Context, reservationID string) (Order, error) {
	o, err := findOne(ctx, s.db, reservationID)
	if err != nil {
		return Order{}, fmt.Errorf("find order of %.40q: %w", reservationID, err)
	}
	return o, nil
}

// Payment is the news that a buyer has paid.
type Payment struct {
	ReservationID string // of the order that was paid
	Ref           string // the payment provider's own reference: 1 to 64 printable ASCII characters without spaces
	AmountCents   int64  // what was paid; must be the order's amount
}

func (p Payment) valid() bool {
	return mysql.ID(p.ReservationID).Valid() && refPattern.MatchString(p.Ref) && p.AmountCents >= 0
}

// Pay makes an order that awaits payment paid. A payment that comes after the
// deadline but before the order is cancelled counts. The same payment again
// answers the same with a nil error.
//
// It returns the order as it stands, also beside [ErrTooLate] (it is
// cancelled: the money is due back), [ErrPaid] (another payment has paid it:
// due back too) and [ErrAmount] (the amount is another than the order's). Else
// the order is zero: [ErrRefUsed], [ErrNotFound] (the order may yet be
// placed), [ErrInvalid]. In all of these nothing has changed. After any other
// error the order may be paid, and repeating finds out.
func (s *Store) Pay(ctx context.Context, p Payment) (Order, error) {
	o, err := s.pay(ctx, p)
	if err != nil {
		return o, fmt.Errorf("pay order of %.40q with %.70q: %w", p.ReservationID, p.Ref, err)
	}
	return o, nil
}

func (s *Store) pay(ctx context.Context, p Payment) (Order, error) {
	if !p.valid() {
		return Order{}, ErrInvalid
	}
	for {
		changed, err := s.setPaid(ctx, p)
		if err != nil {
			return Order{}, err
		}
		o, err := findOne(ctx, s.db, p.ReservationID)
		if err != nil {
			return Order{}, err
		}
		if !changed && o.State == AwaitingPayment && o.AmountCents == p.AmountCents {
			continue // it was placed between the two statements
		}
		if p.paid(o) {
			return o, nil
		}
		owners, err := s.refOwners(ctx, []string{p.Ref})
		if err != nil {
			return Order{}, err
		}
		return refuse(o, p, owners[p.Ref])
	}
}

// setPaid is the compare-and-set.
func (s *Store) setPaid(ctx context.Context, p Payment) (changed bool, err error) {
	err = mysql.Retry(ctx, func() error {
		res, err := s.db.ExecContext(ctx, fault.Without(fault.PayCAS, sqlPay, ifAwaiting, ""), p.Ref, mysql.ID(p.ReservationID), p.AmountCents)
		if err != nil {
			return err
		}
		n, err := res.RowsAffected()
		changed = n > 0
		return err
	})
	if mysql.IsDuplicate(err) {
		return false, ErrRefUsed
	}
	return changed, err
}

// paid is whether o is paid by exactly p.
func (p Payment) paid(o Order) bool {
	return o.State == Paid && o.PaymentRef == p.Ref && o.AmountCents == p.AmountCents
}

// refuse says why a payment did not pay o. A reference that has paid the order
// of another reservation, the owner, is said first: its money is not due back.
func refuse(o Order, p Payment, owner string) (Order, error) {
	switch {
	case owner != "" && owner != p.ReservationID:
		return Order{}, ErrRefUsed
	case o.State == Cancelled:
		return o, ErrTooLate
	case o.State == Paid && o.PaymentRef != p.Ref:
		return o, ErrPaid
	default:
		return o, ErrAmount
	}
}

// refOwners returns the reservations of the orders that those payments have
// paid, by reference.
func (s *Store) refOwners(ctx context.Context, refs []string) (map[string]string, error) {
	args := make([]any, len(refs))
	for i, ref := range refs {
		args[i] = ref
	}
	rows, err := s.db.QueryContext(ctx, mysql.In(sqlRefOwners, len(refs)), args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	out := make(map[string]string)
	for rows.Next() {
		var ref string
		var id mysql.ID
		if err := rows.Scan(&ref, &id); err != nil {
			return nil, err
		}
		out[ref] = string(id)
	}
	return out, rows.Err()
}

// Cancel makes an order that awaits payment cancelled and puts the messages
// that announce makes of it into the outbox, in one transaction. reason is 1
// to 32 of a-z, 0-9 and the underscore. announce may be called more than once
// and must do nothing but make messages.
//
// It returns the order as it stands. An order that was cancelled before
// answers the same with a nil error, and nothing is written. [ErrPaid] (with
// the order), [ErrNotFound] and [ErrInvalid]: nothing has changed. After any
// other error the order may be cancelled with its messages, and repeating
// finds out.
func (s *Store) Cancel(ctx context.Context, reservationID, reason string, announce func(Order) []Message) (Order, error) {
	if !mysql.ID(reservationID).Valid() || !reasonPattern.MatchString(reason) {
		return Order{}, fmt.Errorf("cancel order of %.40q for %.40q: %w", reservationID, reason, ErrInvalid)
	}
	var o Order
	err := mysql.InTx(ctx, s.db, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, fault.Without(fault.CancelCAS, sqlCancel, ifAwaiting, ""), reason, mysql.ID(reservationID))
		if err != nil {
			return err
		}
		n, err := res.RowsAffected()
		if err != nil {
			return err
		}
		o, err = findOne(ctx, tx, reservationID)
		switch {
		case err != nil:
			return err
		case n > 0:
			err := enqueue(ctx, tx, announce(o))
			fault.Point(fault.InCancellation)
			return err
		case o.State == Paid:
			return ErrPaid
		case o.State == AwaitingPayment:
			return ErrNotFound // it was placed between the two statements
		}
		return nil
	})
	if errors.Is(err, ErrPaid) {
		return o, fmt.Errorf("cancel order of %s: %w", reservationID, err)
	}
	if err != nil {
		return Order{}, fmt.Errorf("cancel order of %s: %w", reservationID, err)
	}
	return o, nil
}

var (
	currencyPattern = regexp.MustCompile(`^[A-Z]{3}$`)
	refPattern      = regexp.MustCompile(`^[!-~]{1,64}$`)
	reasonPattern   = regexp.MustCompile(`^[a-z0-9_]{1,32}$`)
	namePattern     = regexp.MustCompile(`^[!-~]{1,36}$`)
	userPattern     = regexp.MustCompile(`^[!-~]{1,64}$`)
)

// validate reports what the columns could not hold.
func (o Order) validate() error {
	switch {
	case !mysql.ID(o.ReservationID).Valid():
		return errors.New("reservation ID: want 128 bits in base32")
	case !namePattern.MatchString(o.ActivityID):
		return errors.New("activity ID: want 1 to 36 printable ASCII characters")
	case !namePattern.MatchString(o.ProductID):
		return errors.New("product ID: want 1 to 36 printable ASCII characters")
	case !userPattern.MatchString(o.UserID):
		return errors.New("user ID: want 1 to 64 printable ASCII characters")
	case o.Quantity < 1:
		return fmt.Errorf("quantity %d: want 1 or more", o.Quantity)
	case o.AmountCents < 0:
		return fmt.Errorf("amount %d: want 0 or more", o.AmountCents)
	case !currencyPattern.MatchString(o.Currency):
		return fmt.Errorf("currency %.10q: want three capital letters", o.Currency)
	case o.PayWindow < time.Millisecond || o.PayWindow > MaxPayWindow || o.PayWindow%time.Millisecond != 0:
		return fmt.Errorf("pay window %s: want whole milliseconds up to %s", o.PayWindow, MaxPayWindow)
	}
	return nil
}
