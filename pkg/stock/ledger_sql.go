package stock

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/leadingpeers/seckill/internal/fault"
	"github.com/leadingpeers/seckill/internal/mysql"
)

// The statements of the ledger. Each stands here once; those with a list are
// written for one element and widened by mysql.In or mysql.Values.
const (
	sqlLockStock = "SELECT total, available, per_user, state FROM stock WHERE product_id = ? FOR UPDATE"

	sqlRestocked = "SELECT delta FROM restocks WHERE product_id = ? AND op_id = ?"

	sqlAddRestock = "INSERT INTO restocks (product_id, op_id, delta, created_at) VALUES (?, ?, ?, NOW(3))"

	sqlRestock = "UPDATE stock SET total = total + ?, available = available + ?, restocks = restocks + 1 WHERE product_id = ?"

	sqlSetStock = "UPDATE stock SET state = ? WHERE product_id = ?"

	sqlMoveUnits = "UPDATE stock SET available = available + ? WHERE product_id = ?"

	sqlKnown = "SELECT reservation_id, product_id, user_id, quantity, state, reason, FALSE FROM reservations WHERE reservation_id IN (?)"

	sqlSettled = "SELECT reservation_id, product_id, user_id, quantity, state, reason, EXISTS (SELECT 1 FROM orders o WHERE o.reservation_id = r.reservation_id) FROM reservations r WHERE reservation_id IN (?)"

	sqlUnitsHeld = "SELECT user_id, SUM(quantity) FROM reservations WHERE product_id = ? AND state = 'deducted' AND user_id IN (?) GROUP BY user_id"

	sqlInsert = "INSERT INTO reservations (reservation_id, product_id, user_id, quantity, state, reason, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, NOW(3), NOW(3))"

	sqlMarkRolledBack = "UPDATE reservations SET state = 'rolled_back', reason = ?, updated_at = NOW(3) WHERE product_id = ? AND state = 'deducted' AND reservation_id IN (?)"

	sqlCancellations = "SELECT reservation_id, reason FROM orders WHERE state = 'cancelled' AND reservation_id IN (?)"

	sqlAvailable = "SELECT total, available, restocks FROM stock WHERE product_id = ? FOR UPDATE"

	sqlEntry = "SELECT reservation_id, product_id, user_id, quantity, state, reason, created_at, updated_at FROM reservations WHERE reservation_id = ?"

	sqlOfUser = "SELECT reservation_id, product_id, user_id, quantity, state, reason, created_at FROM reservations WHERE product_id = ? AND user_id = ? ORDER BY created_at, reservation_id LIMIT 500"

	sqlAllOfProduct = "SELECT reservation_id, product_id, user_id, quantity, state, reason, created_at FROM reservations WHERE product_id = ?"

	sqlAllByUser = "SELECT reservation_id, product_id, user_id, quantity, state, reason, created_at FROM reservations WHERE product_id = ? ORDER BY user_id"

	sqlChanged = "SELECT reservation_id, product_id, user_id, quantity, state, reason, created_at FROM reservations WHERE product_id = ? AND updated_at >= TIMESTAMPADD(MICROSECOND, ?, NOW(3))"

	sqlFind = "SELECT reservation_id, product_id, user_id, quantity, state, reason, created_at FROM reservations WHERE reservation_id IN (?)"

	// One statement reads one snapshot, so the two numbers belong together.
	sqlMoving = "SELECT s.available, COALESCE(SUM(r.quantity), 0) FROM stock s LEFT JOIN reservations r ON r.product_id = s.product_id AND r.updated_at >= TIMESTAMPADD(MICROSECOND, ?, NOW(3)) WHERE s.product_id = ? GROUP BY s.product_id, s.available"

	// One statement reads one snapshot, so the two counts belong together.
	sqlStock = "SELECT s.total, s.available, s.per_user, s.state, COALESCE(SUM(r.quantity), 0) FROM stock s LEFT JOIN reservations r ON r.product_id = s.product_id AND r.state = 'deducted' WHERE s.product_id = ? GROUP BY s.product_id, s.total, s.available, s.per_user, s.state"
)

// The states of a stock row.
const (
	stockOpen    = "open"
	stockSoldOut = "sold_out" // the source channel has none left
	stockClosed  = "closed"   // stopped after a violation
)

// stockRow is a product's stock row as its lock found it.
type stockRow struct {
	productID                 string
	total, available, perUser int64
	state                     string
}

// refuses returns why the product sells nothing at all, or "".
func (s stockRow) refuses() Refusal {
	switch s.state {
	case stockOpen:
		return ""
	case stockSoldOut:
		return SoldOut
	default: // stockClosed; a state that a later version has must not sell either
		return NotOnSale
	}
}

// lockStock takes the lock that every transition needs and checks what it
// finds: the CHECKs of the table hold these too, but a server may have been
// told not to enforce them.
func lockStock(ctx context.Context, tx *sql.Tx, productID string) (stockRow, error) {
	s := stockRow{productID: productID}
	err := tx.QueryRowContext(ctx, sqlLockStock, productID).Scan(&s.total, &s.available, &s.perUser, &s.state)
	if errors.Is(err, sql.ErrNoRows) {
		return s, ErrNotFound
	}
	if err != nil {
		return s, fmt.Errorf("lock the stock row: %w", err)
	}
	if s.available < 0 || s.available > s.total {
		panic(fmt.Sprintf("stock of %s: %d available of %d in total", productID, s.available, s.total))
	}
	return s, nil
}

// moveUnits adds n units, which may be negative, to what is available.
func moveUnits(ctx context.Context, tx *sql.Tx, productID string, n int64) error {
	if n == 0 {
		return nil
	}
	if _, err := tx.ExecContext(ctx, sqlMoveUnits, n, productID); err != nil {
		return fmt.Errorf("move %d units: %w", n, err)
	}
	return nil
}

// known returns the rows of those IDs that the ledger has.
func known(ctx context.Context, db queryer, ids []string) (map[string]Reservation, error) {
	return rowsOf(ctx, db, sqlKnown, ids)
}

// settled returns the same rows, and which of them have an order.
func settled(ctx context.Context, db queryer, ids []string) (map[string]Reservation, error) {
	return rowsOf(ctx, db, sqlSettled, ids)
}

func rowsOf(ctx context.Context, db queryer, statement string, ids []string) (map[string]Reservation, error) {
	if fault.Off(fault.SeenBefore) {
		return make(map[string]Reservation), nil
	}
	rows, err := db.QueryContext(ctx, mysql.In(statement, len(ids)), idArgs(ids)...)
	if err != nil {
		return nil, fmt.Errorf("read known reservations: %w", err)
	}
	defer func() { _ = rows.Close() }()
	out := make(map[string]Reservation)
	for rows.Next() {
		var r Reservation
		if err := rows.Scan((*mysql.ID)(&r.ID), &r.ProductID, &r.UserID, &r.Quantity, &r.State, &r.Reason, &r.Settled); err != nil {
			return nil, fmt.Errorf("read known reservations: %w", err)
		}
		out[r.ID] = r
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read known reservations: %w", err)
	}
	return out, nil
}

// unitsHeld returns how many units of the product each buyer among rs holds.
func unitsHeld(ctx context.Context, tx *sql.Tx, productID string, rs []Reservation) (map[string]int64, error) {
	held := make(map[string]int64, len(rs))
	args := []any{productID}
	for _, r := range rs {
		if _, ok := held[r.UserID]; !ok {
			held[r.UserID] = 0
			args = append(args, r.UserID)
		}
	}
	rows, err := tx.QueryContext(ctx, mysql.In(sqlUnitsHeld, len(held)), args...)
	if err != nil {
		return nil, fmt.Errorf("sum the buyers' units: %w", err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var user string
		var units int64
		if err := rows.Scan(&user, &units); err != nil {
			return nil, fmt.Errorf("sum the buyers' units: %w", err)
		}
		held[user] = units
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("sum the buyers' units: %w", err)
	}
	return held, nil
}

// insert writes new rows, all with the same time.
func insert(ctx context.Context, tx *sql.Tx, rs []Reservation) error {
	if len(rs) == 0 {
		return nil
	}
	args := make([]any, 0, 6*len(rs))
	for _, r := range rs {
		args = append(args, mysql.ID(r.ID), r.ProductID, r.UserID, r.Quantity, string(r.State), r.Reason)
	}
	if _, err := tx.ExecContext(ctx, mysql.Values(sqlInsert, len(rs)), args...); err != nil {
		return fmt.Errorf("insert %d reservations: %w", len(rs), err)
	}
	return nil
}

// cancellations returns the reasons of the orders that are cancelled. An order
// once cancelled stays so, so this needs no lock.
func cancellations(ctx context.Context, tx *sql.Tx, ids []string) (map[string]string, error) {
	rows, err := tx.QueryContext(ctx, mysql.In(sqlCancellations, len(ids)), idArgs(ids)...)
	if err != nil {
		return nil, fmt.Errorf("read cancelled orders: %w", err)
	}
	defer func() { _ = rows.Close() }()
	out := make(map[string]string)
	for rows.Next() {
		var id mysql.ID
		var reason string
		if err := rows.Scan(&id, &reason); err != nil {
			return nil, fmt.Errorf("read cancelled orders: %w", err)
		}
		out[string(id)] = reason
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read cancelled orders: %w", err)
	}
	return out, nil
}

// markRolledBack changes the state of deducted rows, all of which the caller
// has read under the stock row's lock.
func markRolledBack(ctx context.Context, tx *sql.Tx, productID, reason string, ids []string) error {
	args := append([]any{reason, productID}, idArgs(ids)...)
	res, err := tx.ExecContext(ctx, mysql.In(sqlMarkRolledBack, len(ids)), args...)
	if err != nil {
		return fmt.Errorf("mark %d reservations: %w", len(ids), err)
	}
	n, err := res.RowsAffected()
	if err != nil {
		return fmt.Errorf("mark %d reservations: %w", len(ids), err)
	}
	if n != int64(len(ids)) && !fault.Off(fault.RollbackOnce) {
		panic(fmt.Sprintf("reservations of %s: %d of %d still deducted under the stock row's lock", productID, n, len(ids)))
	}
	return nil
}

func idArgs(ids []string) []any {
	args := make([]any, len(ids))
	for i, id := range ids {
		args[i] = mysql.ID(id)
	}
	return args
}
