package catalog

import (
	"context"
	"database/sql"
	"time"
)

const (
	activityColumns = "a.id, a.name, a.state, a.starts_at, a.ends_at, a.pay_window_s, a.version, a.created_at, a.updated_at"

	productColumns = "p.id, p.activity_id, p.name, p.image_url, p.channel, p.price_cents, p.currency, s.total, p.per_order, s.per_user, s.state <> 'open', s.available, s.restocks, p.version, p.created_at, p.updated_at"
)

// The statements of the store. Each stands here once; the one with a list is
// written for one element and widened by mysql.In.
const (
	sqlCreateActivity = "INSERT INTO activities (id, name, state, starts_at, ends_at, pay_window_s, created_at, updated_at) VALUES (?, ?, 'draft', ?, ?, ?, NOW(3), NOW(3))"

	sqlActivity = "SELECT " + activityColumns + " FROM activities a WHERE a.id = ?"

	sqlLockActivity = sqlActivity + " FOR UPDATE"

	sqlActivities = "SELECT " + activityColumns + " FROM activities a ORDER BY a.starts_at DESC, a.id"

	sqlActivityPage = "SELECT " + activityColumns + " FROM activities a WHERE a.id > ? AND a.ends_at > ? AND a.starts_at < ? ORDER BY a.id LIMIT ?"

	sqlActivityPageOf = "SELECT " + activityColumns + " FROM activities a WHERE a.id > ? AND a.ends_at > ? AND a.starts_at < ? AND a.state = ? ORDER BY a.id LIMIT ?"

	sqlOver = "SELECT COUNT(*) FROM activities WHERE id = ? AND ends_at <= NOW(3)"

	sqlUpdateActivity = "UPDATE activities SET name = ?, starts_at = ?, ends_at = ?, pay_window_s = ?, version = version + 1, updated_at = NOW(3) WHERE id = ?"

	sqlDeleteActivity = "DELETE FROM activities WHERE id = ?"

	sqlLockProduct = "SELECT " + productColumns + " FROM products p JOIN stock s ON s.product_id = p.id WHERE p.id = ? FOR UPDATE"

	sqlUpdateProduct = "UPDATE products SET name = ?, image_url = ?, channel = ?, price_cents = ?, currency = ?, per_order = ?, version = version + 1, updated_at = NOW(3) WHERE id = ?"

	sqlUpdateLimit = "UPDATE stock SET per_user = ? WHERE product_id = ?"

	sqlUpdateTotal = "UPDATE stock SET total = ?, available = ?, restocks = restocks + 1 WHERE product_id = ?"

	sqlDeleteProduct = "DELETE FROM products WHERE id = ?"

	sqlDeleteStock = "DELETE FROM stock WHERE product_id = ?"

	// The lock of the stock row keeps reservations from coming meanwhile.
	sqlReserved = "SELECT COUNT(*) FROM reservations WHERE product_id = ?"

	sqlSetState = "UPDATE activities SET state = ?, version = version + 1, updated_at = NOW(3) WHERE id = ?"

	sqlSetOnline = "UPDATE activities SET state = 'online', version = version + 1, updated_at = NOW(3) WHERE id = ? AND ends_at > NOW(3)"

	sqlCountProducts = "SELECT COUNT(*) FROM products WHERE activity_id = ?"

	sqlAddProduct = "INSERT INTO products (id, activity_id, name, image_url, channel, price_cents, currency, per_order, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, NOW(3), NOW(3))"

	sqlAddStock = "INSERT INTO stock (product_id, total, available, per_user) VALUES (?, ?, ?, ?)"

	sqlProduct = "SELECT " + productColumns + " FROM products p JOIN stock s ON s.product_id = p.id WHERE p.id = ?"

	sqlProducts = "SELECT " + productColumns + " FROM products p JOIN stock s ON s.product_id = p.id WHERE p.activity_id = ? ORDER BY p.id"

	// An activity that is online, paused or ended has been published, so it
	// has products. One statement reads one snapshot.
	sqlOnSale = "SELECT " + activityColumns + ", " + productColumns + " FROM activities a JOIN products p ON p.activity_id = a.id JOIN stock s ON s.product_id = p.id" +
		" WHERE a.state IN ('online', 'paused') OR (a.state = 'ended' AND a.updated_at > TIMESTAMPADD(SECOND, -3600, NOW(3))) ORDER BY a.id, p.id"

	sqlOffers = "SELECT p.id, p.activity_id, p.price_cents, p.currency, a.pay_window_s FROM products p JOIN activities a ON a.id = p.activity_id WHERE p.id IN (?)"
)

// queryer is a *sql.DB or a *sql.Tx.
type queryer interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// fields are the targets of activityColumns.
func (a *Activity) fields() []any {
	return []any{&a.ID, &a.Name, &a.State, &a.StartsAt, &a.EndsAt, (*seconds)(&a.PayWindow), &a.Version, &a.CreatedAt, &a.UpdatedAt}
}

// fields are the targets of productColumns.
func (p *Product) fields() []any {
	return []any{
		&p.ID, &p.ActivityID, &p.Name, &p.ImageURL, &p.Channel, &p.PriceCents, &p.Currency, &p.Total,
		&p.PerOrder, &p.PerUser, &p.SoldOut, &p.Available, &p.Restocks, &p.Version, &p.CreatedAt, &p.UpdatedAt,
	}
}

func activity(ctx context.Context, q queryer, query, id string) (Activity, error) {
	found, err := activities(ctx, q, query, id)
	if err != nil {
		return Activity{}, err
	}
	if len(found) == 0 {
		return Activity{}, ErrNotFound
	}
	return found[0], nil
}

func activities(ctx context.Context, q queryer, query string, args ...any) ([]Activity, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var out []Activity
	for rows.Next() {
		var a Activity
		if err := rows.Scan(a.fields()...); err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, rows.Err()
}

func products(ctx context.Context, q queryer, query string, args ...any) ([]Product, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var out []Product
	for rows.Next() {
		var p Product
		if err := rows.Scan(p.fields()...); err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, rows.Err()
}

// insertProduct writes a product and its stock row.
func insertProduct(ctx context.Context, tx *sql.Tx, p Product) error {
	_, err := tx.ExecContext(ctx, sqlAddProduct, p.ID, p.ActivityID, p.Name, p.ImageURL, p.Channel, p.PriceCents, p.Currency, p.PerOrder)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, sqlAddStock, p.ID, p.Total, p.Total, p.PerUser)
	return err
}

// seconds is a duration that is a whole number of seconds in the database.
type seconds time.Duration

// Scan implements sql.Scanner.
func (s *seconds) Scan(src any) error {
	var n sql.NullInt64
	if err := n.Scan(src); err != nil {
		return err
	}
	*s = seconds(n.Int64) * seconds(time.Second)
	return nil
}
