package embedded

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"time"

	gomysql "github.com/go-mysql-org/go-mysql/mysql"

	"github.com/leadingpeers/seckill/internal/embedded/dialect"
)

// transactionState says in what transaction a session is.
type transactionState uint8

const (
	autocommit transactionState = iota
	reading                     // a transaction that does not write
	writing                     // one that may, and holds the writer's lock
)

// session is one client's connection. It holds the writer's lock in a
// transaction from its start to its end, and outside of one for each statement
// that writes; so SQLite never finds two writers.
type session struct {
	store    *store
	conn     *sql.Conn // from the first statement on
	state    transactionState
	lockWait time.Duration
	idle     *time.Timer // of a transaction: calls hangUp
	hangUp   func()      // closes the client's connection, at any time
	broken   bool        // no further statement must run
}

// run runs one statement. Its error is a *gomysql.MyError.
func (s *session) run(ctx context.Context, text string) (*gomysql.Result, error) {
	if s.idle != nil && !s.idle.Reset(s.store.idle) {
		s.broken = true
		return nil, errIdle // the connection is being closed
	}
	st, err := s.store.dialect.Translate(text)
	if err != nil {
		return nil, gomysql.NewError(gomysql.ER_PARSE_ERROR, err.Error())
	}
	if s.conn == nil {
		if s.conn, err = s.store.db.Conn(ctx); err != nil {
			return nil, s.failure(ctx, err, text)
		}
	}
	result, err := s.do(ctx, st)
	if err != nil {
		return nil, s.failure(ctx, err, text)
	}
	return result, nil
}

var (
	errLockWait = gomysql.NewDefaultError(gomysql.ER_LOCK_WAIT_TIMEOUT)
	errReadOnly = gomysql.NewDefaultError(gomysql.ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION)
	errIdle     = gomysql.NewError(gomysql.ER_UNKNOWN_ERROR, "the transaction was idle for too long")
	errNoTx     = gomysql.NewError(gomysql.ER_NOT_SUPPORTED_YET, "a savepoint outside of a transaction")
)

func (s *session) do(ctx context.Context, st dialect.Statement) (*gomysql.Result, error) {
	switch st.Kind {
	case dialect.Query:
		return s.query(ctx, st)
	case dialect.Exec:
		return s.exec(ctx, st)
	case dialect.Begin, dialect.BeginReadOnly:
		if err := s.finish(ctx, "COMMIT"); err != nil { // as MySQL does
			return nil, err
		}
		return new(gomysql.Result), s.begin(ctx, st.Kind)
	case dialect.Commit:
		return new(gomysql.Result), s.finish(ctx, "COMMIT")
	case dialect.Rollback:
		return new(gomysql.Result), s.finish(ctx, "ROLLBACK")
	case dialect.Savepoint:
		if s.state == autocommit {
			return nil, errNoTx
		}
		_, err := s.conn.ExecContext(ctx, st.SQL)
		return new(gomysql.Result), err
	case dialect.Set:
		if st.LockWait > 0 {
			s.lockWait = st.LockWait
		}
	}
	return new(gomysql.Result), nil
}

// query runs a statement that reads. Its rows are all read before the first is
// sent, so that a client which is slow to take them holds nothing up.
func (s *session) query(ctx context.Context, st dialect.Statement) (*gomysql.Result, error) {
	rows, err := s.conn.QueryContext(ctx, st.SQL, st.Args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	return encode(rows)
}

// exec runs a statement that writes.
func (s *session) exec(ctx context.Context, st dialect.Statement) (*gomysql.Result, error) {
	switch s.state {
	case reading:
		return nil, errReadOnly
	case autocommit:
		if !s.lock() {
			return nil, errLockWait
		}
		defer s.unlock()
	case writing:
	}
	res, err := s.conn.ExecContext(ctx, st.SQL, st.Args...)
	if err != nil {
		return nil, err
	}
	n, err := res.RowsAffected()
	if err != nil {
		return nil, err
	}
	out := &gomysql.Result{AffectedRows: uint64(n)}
	if st.Generated && n > 0 { // MySQL tells the first of several
		last, err := res.LastInsertId()
		if err != nil {
			return nil, err
		}
		out.InsertId = uint64(last - n + 1)
	}
	return out, nil
}

// begin starts a transaction.
func (s *session) begin(ctx context.Context, kind dialect.Kind) error {
	verb, state := "BEGIN", reading
	if kind == dialect.Begin {
		verb, state = "BEGIN IMMEDIATE", writing
		if !s.lock() {
			return errLockWait
		}
	}
	if _, err := s.conn.ExecContext(ctx, verb); err != nil {
		if state == writing {
			s.unlock()
		}
		return err
	}
	s.state = state
	s.idle = time.AfterFunc(s.store.idle, s.hangUp)
	return nil
}

// finish ends the transaction, if there is one. After an error it is undone.
func (s *session) finish(ctx context.Context, verb string) error {
	if s.state == autocommit {
		return nil
	}
	s.idle.Stop()
	s.idle = nil
	_, err := s.conn.ExecContext(ctx, verb)
	if err != nil {
		s.discard()
	}
	if s.state == writing {
		s.unlock()
	}
	s.state = autocommit
	return err
}

// end undoes what is open and gives the connection back.
func (s *session) end(ctx context.Context) {
	_ = s.finish(ctx, "ROLLBACK") // on an error the connection is discarded
	if s.conn != nil {
		_ = s.conn.Close() // ErrConnDone when it was discarded
	}
}

// discard closes SQLite's connection, which undoes what it has begun, and lets
// the client's connection end.
func (s *session) discard() {
	_ = s.conn.Raw(func(any) error { return driver.ErrBadConn })
	s.broken = true
}

// lock takes the writer's lock, in turn.
func (s *session) lock() bool {
	select {
	case s.store.writer <- struct{}{}:
		return true
	default:
	}
	timer := time.NewTimer(s.lockWait)
	defer timer.Stop()
	select {
	case s.store.writer <- struct{}{}:
		return true
	case <-timer.C:
		return false
	}
}

func (s *session) unlock() { <-s.store.writer }

// failure turns an error into one of MySQL's. After some, SQLite has undone
// the transaction behind our back: then the client must not go on in it.
func (s *session) failure(ctx context.Context, err error, text string) error {
	var ours *gomysql.MyError
	if errors.As(err, &ours) {
		return ours
	}
	wire, mine := translateError(err, text)
	if !mine {
		_ = s.finish(ctx, "ROLLBACK")
		s.broken = true
	}
	return wire
}
