package order

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/leadingpeers/seckill/internal/fault"
	"github.com/leadingpeers/seckill/internal/mysql"
)

// Expire cancels up to limit orders (at most [MaxBatch]) whose deadline has
// passed by the database's clock, the oldest first, with [ReasonTimeout], and
// puts the messages that announce makes of each into the outbox, in one
// transaction. It returns how many it cancelled; fewer than limit means that
// none is due that another copy does not have in hand: several copies side by
// side each take other orders.
//
// announce may be called more than once for an order and must do nothing but
// make messages. [ErrInvalid] is of such a message, and nothing has changed.
// After any other error some orders may be cancelled with their messages;
// repeating is harmless.
func (s *Store) Expire(ctx context.Context, limit int, announce func(Order) []Message) (int, error) {
	var n int
	err := mysql.InTx(ctx, s.db, func(tx *sql.Tx) error {
		due, err := selectIDs(ctx, tx, sqlDue, min(limit, MaxBatch))
		n = len(due)
		if err != nil || n == 0 {
			return err
		}
		args := append([]any{ReasonTimeout}, idArgs(due)...)
		if _, err := tx.ExecContext(ctx, mysql.In(sqlExpire, n), args...); err != nil {
			return err
		}
		expired, err := find(ctx, tx, due)
		if err != nil {
			return err
		}
		var messages []Message
		for _, id := range due {
			messages = append(messages, announce(expired[id])...)
		}
		err = enqueue(ctx, tx, messages)
		fault.Point(fault.InCancellation)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("expire orders: %w", err)
	}
	return n, nil
}

// enqueue puts messages into the outbox.
func enqueue(ctx context.Context, tx *sql.Tx, messages []Message) error {
	for i, m := range messages {
		if err := m.validate(); err != nil {
			return fmt.Errorf("message %d: %w: %w", i, ErrInvalid, err)
		}
	}
	// Each part stays below the smallest max_allowed_packet in use, 4 MiB,
	// also when every byte of the bodies has to be escaped.
	for len(messages) > 0 {
		n, size := 0, 0
		for n < min(len(messages), MaxBatch) && size+len(messages[n].Body) <= maxPart {
			size += len(messages[n].Body)
			n++
		}
		args := make([]any, 0, 3*n)
		for _, m := range messages[:n] {
			args = append(args, m.Type, m.Body, m.TraceParent)
		}
		if _, err := tx.ExecContext(ctx, mysql.Values(sqlEnqueue, n), args...); err != nil {
			return fmt.Errorf("write %d messages: %w", n, err)
		}
		messages = messages[n:]
	}
	return nil
}

const maxPart = 1 << 20 // bytes of bodies in one statement

// Relay takes up to limit messages (at most [MaxBatch]) from the outbox, the
// oldest first, hands them to publish, and deletes them when it returns nil.
// It returns how many it relayed. Several copies side by side each take other
// messages, so messages may be published in another order than they were
// written.
//
// After an error of publish, or of the database, the messages stay; some or all
// may have been published and will be again. publish must return in good time:
// a transaction stays open for it.
func (s *Store) Relay(ctx context.Context, limit int, publish func(context.Context, []Message) error) (int, error) {
	var n int
	err := mysql.InTx(ctx, s.db, func(tx *sql.Tx) error {
		messages, ids, err := lockMessages(ctx, tx, min(limit, MaxBatch))
		n = len(messages)
		if err != nil || n == 0 {
			return err
		}
		if err := publish(ctx, messages); err != nil {
			return fmt.Errorf("publish: %w", err)
		}
		fault.Point(fault.AfterRelay)
		_, err = tx.ExecContext(ctx, mysql.In(sqlRelayed, n), ids...)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("relay the outbox: %w", err)
	}
	return n, nil
}

// lockMessages locks the oldest messages that no other copy has in hand.
func lockMessages(ctx context.Context, tx *sql.Tx, limit int) (messages []Message, ids []any, err error) {
	rows, err := tx.QueryContext(ctx, sqlOutbox, limit)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var id int64
		var m Message
		if err := rows.Scan(&id, &m.Type, &m.Body, &m.TraceParent); err != nil {
			return nil, nil, err
		}
		ids = append(ids, id)
		messages = append(messages, m)
	}
	return messages, ids, rows.Err()
}

// OutboxAge returns how many messages wait in the outbox and since when the
// oldest does, by the database's clock; the zero time when none does.
func (s *Store) OutboxAge(ctx context.Context) (pending int64, oldest time.Time, err error) {
	if err := s.db.QueryRowContext(ctx, sqlOutboxCount).Scan(&pending); err != nil {
		return 0, time.Time{}, fmt.Errorf("count the outbox: %w", err)
	}
	err = s.db.QueryRowContext(ctx, sqlOutboxOldest).Scan(&oldest)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return 0, time.Time{}, fmt.Errorf("read the oldest of the outbox: %w", err)
	}
	return pending, oldest, nil
}

var wordPattern = regexp.MustCompile(`^[!-~]{0,64}$`)

// validate reports what the columns could not hold.
func (m Message) validate() error {
	switch {
	case m.Type == "" || !wordPattern.MatchString(m.Type):
		return fmt.Errorf("type %.70q: want 1 to 64 printable ASCII characters", m.Type)
	case !wordPattern.MatchString(m.TraceParent):
		return fmt.Errorf("trace parent %.70q: want at most 64 printable ASCII characters", m.TraceParent)
	case len(m.Body) > MaxBody:
		return fmt.Errorf("body of %d bytes: want at most %d", len(m.Body), MaxBody)
	}
	return nil
}
