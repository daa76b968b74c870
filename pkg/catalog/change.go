package catalog

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"github.com/leadingpeers/seckill/internal/audit"
	"github.com/leadingpeers/seckill/internal/mysql"
)

// LockedError says which fields may not change in the activity's state. It is
// an [ErrOnline] while the activity is online, and else an [ErrTransition].
// Nothing has changed when it is returned.
type LockedError struct {
	State  ActivityState
	Fields []string // as the HTTP API names them
}

// Error names the fields.
func (e *LockedError) Error() string {
	return fmt.Sprintf("while the activity is %s these cannot change: %s", e.State, strings.Join(e.Fields, ", "))
}

// Unwrap returns the error that it is a case of.
func (e *LockedError) Unwrap() error {
	if e.State == Online {
		return ErrOnline
	}
	return ErrTransition
}

// ActivityChange is what to change of an activity; nil stays.
type ActivityChange struct {
	Name             *string
	StartsAt, EndsAt *time.Time
	PayWindow        *time.Duration
}

// ProductChange is what to change of a product; nil stays.
type ProductChange struct {
	Name, ImageURL, Channel, Currency    *string
	PriceCents, Total, PerOrder, PerUser *int64
}

// set changes *to to *from if there is one, and notes the field.
func set[T comparable](to *T, from *T, field string, changed *[]string) {
	if from != nil && *from != *to {
		*to = *from
		*changed = append(*changed, field)
	}
}

func (c ActivityChange) apply(a *Activity) (changed []string) {
	set(&a.Name, c.Name, "name", &changed)
	if c.StartsAt != nil && !c.StartsAt.Equal(a.StartsAt) {
		a.StartsAt, changed = *c.StartsAt, append(changed, "starts_at")
	}
	if c.EndsAt != nil && !c.EndsAt.Equal(a.EndsAt) {
		a.EndsAt, changed = *c.EndsAt, append(changed, "ends_at")
	}
	set(&a.PayWindow, c.PayWindow, "pay_window_seconds", &changed)
	return changed
}

func (c ProductChange) apply(p *Product) (changed []string) {
	set(&p.Name, c.Name, "name", &changed)
	set(&p.ImageURL, c.ImageURL, "image_url", &changed)
	set(&p.Channel, c.Channel, "channel", &changed)
	set(&p.PriceCents, c.PriceCents, "price_cents", &changed)
	set(&p.Currency, c.Currency, "currency", &changed)
	set(&p.Total, c.Total, "total", &changed)
	set(&p.PerOrder, c.PerOrder, "per_order", &changed)
	set(&p.PerUser, c.PerUser, "per_user", &changed)
	return changed
}

// UpdateActivity changes an activity that has this version, and returns it as
// it stands. While it is online only its name may change, once it has ended
// nothing may. A change that changes nothing leaves the version as it is.
//
// Errors: [*InvalidError], [ErrNotFound], [ErrVersion], [*LockedError]. After
// any other error it may have changed; reading it finds out.
func (s *Store) UpdateActivity(ctx context.Context, id string, version int64, c ActivityChange) (a Activity, err error) {
	err = mysql.InTx(ctx, s.db, func(tx *sql.Tx) error {
		before, err := activity(ctx, tx, sqlLockActivity, id)
		if err != nil {
			return err
		}
		a = before
		if before.Version != version {
			return fmt.Errorf("%w: %d", ErrVersion, before.Version)
		}
		changed := c.apply(&a)
		if err := before.allows(changed); err != nil || len(changed) == 0 {
			return err
		}
		if err := a.validate(); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, sqlUpdateActivity, a.Name, a.StartsAt.UTC(), a.EndsAt.UTC(), int64(a.PayWindow/time.Second), id)
		if err != nil {
			return err
		}
		if a, err = activity(ctx, tx, sqlActivity, id); err != nil {
			return err
		}
		return audit.Append(ctx, tx, audit.Entry{Action: "UpdateActivity", Entity: a.entity(), Before: before.document(), After: a.document()})
	})
	if err != nil {
		return Activity{}, fmt.Errorf("update activity %.40q: %w", id, err)
	}
	return a, nil
}

// allows reports which of the changed fields a's state keeps as they are.
func (a Activity) allows(changed []string) error {
	var locked []string
	for _, field := range changed {
		if a.State == Ended || a.State == Online && field != "name" {
			locked = append(locked, field)
		}
	}
	if len(locked) == 0 {
		return nil
	}
	return &LockedError{State: a.State, Fields: locked}
}

// UpdateProduct changes a product that has this version, of an activity that
// is a draft or paused, and returns it as it stands. Its total may change only
// in a draft: then all of it is available. A change that changes nothing
// leaves the version as it is.
//
// Errors: [*InvalidError], [ErrNotFound], [ErrVersion], [*LockedError]. After
// any other error it may have changed; reading it finds out.
func (s *Store) UpdateProduct(ctx context.Context, id string, version int64, c ProductChange) (p Product, err error) {
	err = mysql.InTx(ctx, s.db, func(tx *sql.Tx) error {
		a, before, err := lockProduct(ctx, tx, id, version)
		if err != nil {
			return err
		}
		p = before
		changed := c.apply(&p)
		if err := a.allowsProduct(changed); err != nil || len(changed) == 0 {
			return err
		}
		if err := p.validate(); err != nil {
			return err
		}
		if err := writeProduct(ctx, tx, before, p); err != nil {
			return err
		}
		if p, err = product(ctx, tx, sqlProduct, id); err != nil {
			return err
		}
		return audit.Append(ctx, tx, audit.Entry{Action: "UpdateProduct", Entity: p.entity(), Before: before.document(), After: p.document()})
	})
	if err != nil {
		return Product{}, fmt.Errorf("update product %.40q: %w", id, err)
	}
	return p, nil
}

// allowsProduct reports which of a product's changed fields the state of its
// activity keeps as they are.
func (a Activity) allowsProduct(changed []string) error {
	var locked []string
	for _, field := range changed {
		if a.State == Online || a.State == Ended || a.State == Paused && field == "total" {
			locked = append(locked, field)
		}
	}
	if len(locked) == 0 {
		return nil
	}
	return &LockedError{State: a.State, Fields: locked}
}

// lockProduct locks a product and its activity, in the order in which others
// do: first the activity.
func lockProduct(ctx context.Context, tx *sql.Tx, id string, version int64) (Activity, Product, error) {
	p, err := product(ctx, tx, sqlProduct, id)
	if err != nil {
		return Activity{}, Product{}, err
	}
	a, err := activity(ctx, tx, sqlLockActivity, p.ActivityID)
	if err != nil {
		return Activity{}, Product{}, err
	}
	if p, err = product(ctx, tx, sqlLockProduct, id); err != nil {
		return Activity{}, Product{}, err
	}
	if p.Version != version {
		return Activity{}, Product{}, fmt.Errorf("%w: %d", ErrVersion, p.Version)
	}
	return a, p, nil
}

func product(ctx context.Context, q queryer, query, id string) (Product, error) {
	found, err := products(ctx, q, query, id)
	if err == nil && len(found) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return Product{}, err
	}
	return found[0], nil
}

// writeProduct writes what differs between before and p.
func writeProduct(ctx context.Context, tx *sql.Tx, before, p Product) error {
	if _, err := tx.ExecContext(ctx, sqlUpdateProduct, p.Name, p.ImageURL, p.Channel, p.PriceCents, p.Currency, p.PerOrder, p.ID); err != nil {
		return err
	}
	if p.PerUser != before.PerUser {
		if _, err := tx.ExecContext(ctx, sqlUpdateLimit, p.PerUser, p.ID); err != nil {
			return err
		}
	}
	if p.Total == before.Total {
		return nil
	}
	_, err := tx.ExecContext(ctx, sqlUpdateTotal, p.Total, p.Total, p.ID)
	return err
}

// DeleteProduct deletes a product that has this version, of which nothing was
// ever reserved, with its stock row. Its activity must be a draft or paused.
// Take it out of Redis first and afterwards.
//
// Errors: [ErrNotFound], [ErrVersion], [ErrOnline], [ErrTransition] when the
// activity has ended, [ErrReserved]. After any other error it may be gone.
func (s *Store) DeleteProduct(ctx context.Context, id string, version int64) error {
	err := mysql.InTx(ctx, s.db, func(tx *sql.Tx) error {
		a, p, err := lockProduct(ctx, tx, id, version)
		switch {
		case err != nil:
			return err
		case a.State == Online:
			return ErrOnline
		case a.State == Ended:
			return ErrTransition
		}
		if err := removeProduct(ctx, tx, p); err != nil {
			return err
		}
		return audit.Append(ctx, tx, audit.Entry{Action: "DeleteProduct", Entity: p.entity(), Before: p.document()})
	})
	if err != nil {
		return fmt.Errorf("delete product %.40q: %w", id, err)
	}
	return nil
}

// removeProduct takes a product away whose stock row is locked or about to be.
func removeProduct(ctx context.Context, tx *sql.Tx, p Product) error {
	if _, err := product(ctx, tx, sqlLockProduct, p.ID); err != nil {
		return err
	}
	var n int64
	if err := tx.QueryRowContext(ctx, sqlReserved, p.ID).Scan(&n); err != nil {
		return err
	}
	if n > 0 {
		return fmt.Errorf("product %s: %w", p.ID, ErrReserved)
	}
	if _, err := tx.ExecContext(ctx, sqlDeleteStock, p.ID); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, sqlDeleteProduct, p.ID)
	return err
}

// DeleteActivity deletes a draft, or an activity that has ended, of which
// nothing was ever reserved, with its products. Take those out of Redis first
// and afterwards.
//
// Errors: [ErrNotFound], [ErrVersion], [ErrOnline] while it is online or
// paused, [ErrReserved]. After any other error it may be gone.
func (s *Store) DeleteActivity(ctx context.Context, id string, version int64) error {
	err := mysql.InTx(ctx, s.db, func(tx *sql.Tx) error {
		a, err := activity(ctx, tx, sqlLockActivity, id)
		switch {
		case err != nil:
			return err
		case a.Version != version:
			return fmt.Errorf("%w: %d", ErrVersion, a.Version)
		case a.State == Online || a.State == Paused:
			return ErrOnline
		}
		found, err := products(ctx, tx, sqlProducts, id)
		if err != nil {
			return err
		}
		for _, p := range found {
			if err := removeProduct(ctx, tx, p); err != nil {
				return err
			}
		}
		if _, err := tx.ExecContext(ctx, sqlDeleteActivity, id); err != nil {
			return err
		}
		return audit.Append(ctx, tx, audit.Entry{Action: "DeleteActivity", Entity: a.entity(), Before: a.document()})
	})
	if err != nil {
		return fmt.Errorf("delete activity %.40q: %w", id, err)
	}
	return nil
}

// Filter chooses activities; what is zero does not matter.
type Filter struct {
	State    ActivityState
	From, To time.Time // that end after From and start before To
	After    string    // only IDs behind this one
	Limit    int       // 1 to 1000
}

const maxPage = 1000

// List returns activities, ordered by ID.
func (s *Store) List(ctx context.Context, f Filter) ([]Activity, error) {
	if f.From.IsZero() {
		f.From = time.Date(1000, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	if f.To.IsZero() {
		f.To = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	}
	query, args := sqlActivityPage, []any{f.After, f.From.UTC(), f.To.UTC()}
	if f.State != "" {
		query, args = sqlActivityPageOf, append(args, string(f.State))
	}
	found, err := activities(ctx, s.db, query, append(args, min(max(f.Limit, 1), maxPage))...)
	if err != nil {
		return nil, fmt.Errorf("list activities: %w", err)
	}
	return found, nil
}

// Over reports whether an activity's window has closed by the database's
// clock.
func (s *Store) Over(ctx context.Context, id string) (bool, error) {
	var n int64
	if err := s.db.QueryRowContext(ctx, sqlOver, id).Scan(&n); err != nil {
		return false, fmt.Errorf("is activity %.40q over: %w", id, err)
	}
	return n > 0, nil
}

func (a Activity) entity() string { return "activity/" + a.ID }

func (p Product) entity() string { return "product/" + p.ID }

// document is what the audit trail keeps of an activity.
func (a Activity) document() any {
	return map[string]any{
		"name": a.Name, "state": a.State, "starts_at": a.StartsAt, "ends_at": a.EndsAt,
		"pay_window_seconds": int64(a.PayWindow / time.Second),
	}
}

// document is what the audit trail keeps of a product.
func (p Product) document() any {
	return map[string]any{
		"activity_id": p.ActivityID, "name": p.Name, "image_url": p.ImageURL, "channel": p.Channel, "price_cents": p.PriceCents,
		"currency": p.Currency, "total": p.Total, "per_order": p.PerOrder, "per_user": p.PerUser,
	}
}

// moved names the operation that takes a from its state to another.
func (a Activity) moved(to ActivityState) string {
	switch {
	case to == Paused:
		return "PauseActivity"
	case to == Ended:
		return "EndActivity"
	case a.State == Paused:
		return "ResumeActivity"
	}
	return "PublishActivity"
}
