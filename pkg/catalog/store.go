package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/leadingpeers/seckill/internal/audit"
	"github.com/leadingpeers/seckill/internal/mysql"
)

// The errors that say what the catalogue holds, rather than that something
// broke. Nothing has changed when one is returned.
var (
	ErrNotFound   = errors.New("no such activity or product")
	ErrExists     = errors.New("the ID is taken")
	ErrOnline     = errors.New("the activity is online: pause it first")
	ErrTransition = errors.New("the activity's state does not allow it")
	ErrVersion    = errors.New("it has another version")
	ErrReserved   = errors.New("something of it was reserved")
)

// MaxBatch is the most products that Offers takes in one call.
const MaxBatch = 500

// Store keeps activities and products. Any number of stores may work on one
// database. A Store is safe for concurrent use.
type Store struct{ db *sql.DB }

// NewStore returns the store in db, which must come from mysql.Open and have
// the tables of mysql.Migrate.
func NewStore(db *sql.DB) *Store { return &Store{db: db} }

// CreateActivity writes a new activity and returns it as it stands: a draft,
// with an ID if a had none, version 1, and its times by the database's clock.
// State, Version, CreatedAt and UpdatedAt of a are ignored.
//
// Errors: [*InvalidError], [ErrExists]. After any other error it may have been
// written; with an ID of the caller's, repeating finds out.
func (s *Store) CreateActivity(ctx context.Context, a Activity) (Activity, error) {
	id, err := idOrNew(a.ID)
	if err != nil {
		return Activity{}, err
	}
	a.ID = id
	if err := a.validate(); err != nil {
		return Activity{}, err
	}
	err = mysql.InTx(ctx, s.db, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, sqlCreateActivity, a.ID, a.Name, a.StartsAt.UTC(), a.EndsAt.UTC(), int64(a.PayWindow/time.Second))
		if err != nil {
			return err
		}
		if a, err = activity(ctx, tx, sqlActivity, id); err != nil {
			return err
		}
		return audit.Append(ctx, tx, audit.Entry{Action: "CreateActivity", Entity: a.entity(), After: a.document()})
	})
	if mysql.IsDuplicate(err) {
		err = ErrExists
	}
	if err != nil {
		return Activity{}, fmt.Errorf("create activity %s: %w", id, err)
	}
	return a, nil
}

// Activity returns one activity, or [ErrNotFound].
func (s *Store) Activity(ctx context.Context, id string) (Activity, error) {
	a, err := activity(ctx, s.db, sqlActivity, id)
	if err != nil {
		return Activity{}, fmt.Errorf("read activity %.40q: %w", id, err)
	}
	return a, nil
}

// Activities returns every activity, the latest start first.
func (s *Store) Activities(ctx context.Context) ([]Activity, error) {
	all, err := activities(ctx, s.db, sqlActivities)
	if err != nil {
		return nil, fmt.Errorf("read activities: %w", err)
	}
	return all, nil
}

// AddProduct writes a new product of an activity that is a draft or paused,
// together with its stock row, all of Total available, in one transaction. It
// returns the product as it stands, with an ID if p had none. SoldOut,
// Version, CreatedAt and UpdatedAt of p are ignored.
//
// Errors: [*InvalidError], [ErrNotFound] for the activity, [ErrOnline],
// [ErrTransition] when the activity has ended, [ErrExists]. After any other
// error it may have been written; with an ID of the caller's, repeating finds
// out.
func (s *Store) AddProduct(ctx context.Context, p Product) (Product, error) {
	id, err := idOrNew(p.ID)
	if err != nil {
		return Product{}, err
	}
	p.ID = id
	if err := p.validate(); err != nil {
		return Product{}, err
	}
	err = mysql.InTx(ctx, s.db, func(tx *sql.Tx) error {
		a, err := activity(ctx, tx, sqlLockActivity, p.ActivityID) // so that nobody publishes it meanwhile
		if err != nil {
			return err
		}
		switch a.State {
		case Online:
			return ErrOnline
		case Ended:
			return ErrTransition
		case Draft, Paused:
		}
		if err := insertProduct(ctx, tx, p); err != nil {
			return err
		}
		return audit.Append(ctx, tx, audit.Entry{Action: "AddProduct", Entity: p.entity(), After: p.document()})
	})
	if mysql.IsDuplicate(err) {
		err = ErrExists
	}
	if err != nil {
		return Product{}, fmt.Errorf("add product %s to activity %s: %w", p.ID, p.ActivityID, err)
	}
	return s.Product(ctx, p.ID)
}

// Product returns one product, or [ErrNotFound].
func (s *Store) Product(ctx context.Context, id string) (Product, error) {
	found, err := products(ctx, s.db, sqlProduct, id)
	if err == nil && len(found) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return Product{}, fmt.Errorf("read product %.40q: %w", id, err)
	}
	return found[0], nil
}

// Products returns the products of an activity, ordered by ID; none for an
// unknown activity.
func (s *Store) Products(ctx context.Context, activityID string) ([]Product, error) {
	found, err := products(ctx, s.db, sqlProducts, activityID)
	if err != nil {
		return nil, fmt.Errorf("read products of %.40q: %w", activityID, err)
	}
	return found, nil
}

// SetState moves an activity: draft → online → (paused ↔ online) → ended. It
// returns the activity as it stands. An activity that is in the state already
// is returned as it is. Going online needs at least one product, and an EndsAt
// that lies in the future by the database's clock.
//
// Errors: [ErrNotFound], [ErrTransition], [*InvalidError] with the field
// "products" or "ends_at". After any other error it may have moved, and
// repeating finds out.
func (s *Store) SetState(ctx context.Context, id string, to ActivityState) (Activity, error) {
	var a Activity
	err := mysql.InTx(ctx, s.db, func(tx *sql.Tx) error {
		var err error
		a, err = activity(ctx, tx, sqlLockActivity, id)
		if err != nil || a.State == to {
			return err
		}
		if !slices.Contains(a.State.next(), to) {
			return fmt.Errorf("%w: from %s to %.20q", ErrTransition, a.State, string(to))
		}
		if err := move(ctx, tx, id, to); err != nil {
			return err
		}
		before := a
		if a, err = activity(ctx, tx, sqlActivity, id); err != nil {
			return err
		}
		return audit.Append(ctx, tx, audit.Entry{Action: before.moved(to), Entity: a.entity(), Before: before.document(), After: a.document()})
	})
	if err != nil {
		return Activity{}, fmt.Errorf("set state of activity %.40q: %w", id, err)
	}
	return a, nil
}

// next returns the states that an activity may go to from s.
func (s ActivityState) next() []ActivityState {
	switch s {
	case Draft:
		return []ActivityState{Online}
	case Online:
		return []ActivityState{Paused, Ended}
	case Paused:
		return []ActivityState{Online, Ended}
	case Ended:
	}
	return nil
}

// move changes the state of a locked activity.
func move(ctx context.Context, tx *sql.Tx, id string, to ActivityState) error {
	if to != Online {
		_, err := tx.ExecContext(ctx, sqlSetState, string(to), id)
		return err
	}
	var n int64
	if err := tx.QueryRowContext(ctx, sqlCountProducts, id).Scan(&n); err != nil {
		return err
	}
	if n == 0 {
		return &InvalidError{Field: "products", Problem: "want at least one before the activity goes online"}
	}
	res, err := tx.ExecContext(ctx, sqlSetOnline, id)
	if err != nil {
		return err
	}
	if n, err = res.RowsAffected(); err != nil {
		return err
	}
	if n == 0 {
		return &InvalidError{Field: "ends_at", Problem: "want a time in the future before the activity goes online"}
	}
	return nil
}

// Listing is an activity with its products, ordered by ID.
type Listing struct {
	Activity Activity
	Products []Product
}

// OnSale returns what a gateway and a loader need to know: every activity that
// is online or paused, and those that ended less than an hour ago, with their
// products, all as of one instant, ordered by activity ID.
func (s *Store) OnSale(ctx context.Context) ([]Listing, error) {
	rows, err := s.db.QueryContext(ctx, sqlOnSale)
	if err != nil {
		return nil, fmt.Errorf("read what is on sale: %w", err)
	}
	defer func() { _ = rows.Close() }()
	var out []Listing
	for rows.Next() {
		var a Activity
		var p Product
		if err := rows.Scan(append(a.fields(), p.fields()...)...); err != nil {
			return nil, fmt.Errorf("read what is on sale: %w", err)
		}
		if len(out) == 0 || out[len(out)-1].Activity.ID != a.ID {
			out = append(out, Listing{Activity: a})
		}
		last := &out[len(out)-1]
		last.Products = append(last.Products, p)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read what is on sale: %w", err)
	}
	return out, nil
}

// Offer is what an order needs to know of its product.
type Offer struct {
	ActivityID string
	PriceCents int64  // of one unit
	Currency   string // ISO 4217
	PayWindow  time.Duration
}

// Offers returns the offers of those of the products that exist, by product
// ID, in whatever state their activity is. At most [MaxBatch] products.
func (s *Store) Offers(ctx context.Context, productIDs []string) (map[string]Offer, error) {
	if len(productIDs) > MaxBatch {
		return nil, fmt.Errorf("read offers of %d products: want at most %d", len(productIDs), MaxBatch)
	}
	out := make(map[string]Offer, len(productIDs))
	if len(productIDs) == 0 {
		return out, nil
	}
	args := make([]any, len(productIDs))
	for i, id := range productIDs {
		args[i] = id
	}
	rows, err := s.db.QueryContext(ctx, mysql.In(sqlOffers, len(args)), args...)
	if err != nil {
		return nil, fmt.Errorf("read offers of %d products: %w", len(args), err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var id string
		var o Offer
		if err := rows.Scan(&id, &o.ActivityID, &o.PriceCents, &o.Currency, (*seconds)(&o.PayWindow)); err != nil {
			return nil, fmt.Errorf("read offers of %d products: %w", len(args), err)
		}
		out[id] = o
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read offers of %d products: %w", len(args), err)
	}
	return out, nil
}

func idOrNew(id string) (string, error) {
	if id != "" {
		return id, nil
	}
	u, err := uuid.NewV7()
	if err != nil {
		return "", fmt.Errorf("make an ID: %w", err)
	}
	return u.String(), nil
}
