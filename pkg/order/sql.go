package order

import (
	"context"
	"database/sql"

	"github.com/leadingpeers/seckill/internal/mysql"
)

// The statements of the store. Each stands here once; those with a list are
// written for one element and widened by mysql.In or mysql.Values.
const (
	sqlPlace = "INSERT INTO orders (id, reservation_id, activity_id, product_id, user_id, quantity, amount_cents, currency, pay_deadline, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, TIMESTAMPADD(MICROSECOND, ?, NOW(3)), NOW(3), NOW(3))"

	// keepPlaced makes sqlPlace leave the orders alone that are there already.
	keepPlaced = " ON DUPLICATE KEY UPDATE reservation_id = reservation_id"

	sqlPlacedAt = "SELECT created_at FROM orders WHERE reservation_id = ?"

	// sqlOrders is completed by a condition of list.go or of sqlFind.
	sqlOrders = "SELECT id, reservation_id, activity_id, product_id, user_id, quantity, amount_cents, currency, state, reason, COALESCE(payment_ref, ''), pay_deadline, created_at, updated_at FROM orders"

	sqlFind = sqlOrders + " WHERE reservation_id IN (?)"

	// ifAwaiting is the compare of the compare-and-set that ends an order.
	ifAwaiting = " AND state = 'awaiting_payment'"

	sqlPay = "UPDATE orders SET state = 'paid', payment_ref = ?, updated_at = NOW(3) WHERE reservation_id = ?" + ifAwaiting + " AND amount_cents = ?"

	// sqlPayAll is sqlPay for many; each %s stands for one sqlPayWhen per payment.
	sqlPayAll  = "UPDATE orders SET state = 'paid', payment_ref = CASE reservation_id%s END, updated_at = NOW(3) WHERE reservation_id IN (?)" + ifAwaiting + " AND amount_cents = CASE reservation_id%s END"
	sqlPayWhen = " WHEN ? THEN ?"

	sqlRefOwners = "SELECT payment_ref, reservation_id FROM orders WHERE payment_ref IN (?)"

	sqlCancel = "UPDATE orders SET state = 'cancelled', reason = ?, updated_at = NOW(3) WHERE reservation_id = ?" + ifAwaiting

	sqlDue = "SELECT reservation_id FROM orders WHERE state = 'awaiting_payment' AND pay_deadline <= NOW(3) ORDER BY pay_deadline LIMIT ? FOR UPDATE SKIP LOCKED"

	sqlExpire = "UPDATE orders SET state = 'cancelled', reason = ?, updated_at = NOW(3) WHERE state = 'awaiting_payment' AND reservation_id IN (?)"

	sqlEnqueue = "INSERT INTO outbox (type, body, trace, created_at) VALUES (?, ?, ?, NOW(3))"

	sqlOutbox = "SELECT id, type, body, trace FROM outbox ORDER BY id LIMIT ? FOR UPDATE SKIP LOCKED"

	sqlRelayed = "DELETE FROM outbox WHERE id IN (?)"

	sqlOutboxCount = "SELECT COUNT(*) FROM outbox"

	sqlOutboxOldest = "SELECT created_at FROM outbox ORDER BY id LIMIT 1"

	// Only IDs, so that the whole search stays within two indexes.
	sqlUnsettled = "SELECT r.reservation_id FROM reservations r LEFT JOIN orders o ON o.reservation_id = r.reservation_id WHERE r.state = 'deducted' AND r.created_at <= TIMESTAMPADD(MICROSECOND, ?, NOW(3)) AND o.id IS NULL ORDER BY r.created_at LIMIT ?"

	sqlReserved = "SELECT r.reservation_id, COALESCE(p.activity_id, ''), r.product_id, r.user_id, r.quantity, r.created_at FROM reservations r LEFT JOIN products p ON p.id = r.product_id WHERE r.reservation_id IN (?)"

	sqlUnreturned = "SELECT o.reservation_id FROM orders o JOIN reservations r ON r.reservation_id = o.reservation_id WHERE o.state = 'cancelled' AND o.updated_at <= TIMESTAMPADD(MICROSECOND, ?, NOW(3)) AND r.state = 'deducted' ORDER BY o.pay_deadline LIMIT ?"

	sqlCounts = "SELECT state, COUNT(*), SUM(quantity) FROM orders WHERE product_id = ? GROUP BY state"
)

// queryer is a *sql.DB or a *sql.Tx.
type queryer interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// find returns the orders of the reservations that have one, by reservation
// ID. At least one, and valid IDs only.
func find(ctx context.Context, q queryer, reservationIDs []string) (map[string]Order, error) {
	found, err := list(ctx, q, mysql.In(sqlFind, len(reservationIDs)), idArgs(reservationIDs)...)
	if err != nil {
		return nil, err
	}
	out := make(map[string]Order, len(found))
	for _, o := range found {
		out[o.ReservationID] = o
	}
	return out, nil
}

// list returns the orders that query, which begins with sqlOrders, selects, in
// its order.
func list(ctx context.Context, q queryer, query string, args ...any) ([]Order, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var out []Order
	for rows.Next() {
		var o Order
		err := rows.Scan(&o.ID, (*mysql.ID)(&o.ReservationID), &o.ActivityID, &o.ProductID, &o.UserID, &o.Quantity,
			&o.AmountCents, &o.Currency, &o.State, &o.Reason, &o.PaymentRef, &o.PayDeadline, &o.CreatedAt, &o.UpdatedAt)
		if err != nil {
			return nil, err
		}
		o.PayWindow = o.PayDeadline.Sub(o.CreatedAt)
		out = append(out, o)
	}
	return out, rows.Err()
}

// findOne returns the order of one reservation, or ErrNotFound.
func findOne(ctx context.Context, q queryer, reservationID string) (Order, error) {
	if !mysql.ID(reservationID).Valid() {
		return Order{}, ErrNotFound
	}
	found, err := find(ctx, q, []string{reservationID})
	if err != nil {
		return Order{}, err
	}
	o, ok := found[reservationID]
	if !ok {
		return Order{}, ErrNotFound
	}
	return o, nil
}

// reserved returns what the reservations say of the orders they should have,
// by reservation ID. At least one.
func reserved(ctx context.Context, q queryer, reservationIDs []string) (map[string]Order, error) {
	rows, err := q.QueryContext(ctx, mysql.In(sqlReserved, len(reservationIDs)), idArgs(reservationIDs)...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	out := make(map[string]Order, len(reservationIDs))
	for rows.Next() {
		var o Order
		err := rows.Scan((*mysql.ID)(&o.ReservationID), &o.ActivityID, &o.ProductID, &o.UserID, &o.Quantity, &o.CreatedAt)
		if err != nil {
			return nil, err
		}
		out[o.ReservationID] = o
	}
	return out, rows.Err()
}

// selectIDs returns the reservation IDs that query selects, in its order.
func selectIDs(ctx context.Context, q queryer, query string, args ...any) ([]string, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var ids []string
	for rows.Next() {
		var id mysql.ID
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		ids = append(ids, string(id))
	}
	return ids, rows.Err()
}

func idArgs(ids []string) []any {
	args := make([]any, len(ids))
	for i, id := range ids {
		args[i] = mysql.ID(id)
	}
	return args
}
