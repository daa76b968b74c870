package mysql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	mysqldriver "github.com/go-sql-driver/mysql"
)

// The server's error numbers that are told apart. The two servers differ in
// the number of a failed CHECK.
const (
	erCheckread        = 1020 // a row changed since it was read (MariaDB, innodb_snapshot_isolation)
	erDuplicate        = 1062
	erLockWaitTimeout  = 1205
	erDeadlock         = 1213
	erCheckMySQL       = 3819
	erCheckMariaDB     = 4025
	attempts           = 5
	firstPause         = 5 * time.Millisecond
	pauseGrowth        = 3
	pauseJitterPercent = 50
)

// InTx runs f in one READ COMMITTED transaction: committed when f returns nil,
// rolled back when it returns an error or panics. db must come from Open.
//
// When the server gives up on the transaction (a deadlock, a lock that took
// too long, a row that changed: see IsTransient), everything is rolled back
// and f runs again, up to five times in all with a growing pause; so f must
// have no effect outside tx that may not happen twice.
//
// An error of f, or of BEGIN, means that nothing has changed. An error of
// COMMIT (its text says "commit") may mean either; the caller's statements
// must be such that repeating them is harmless.
func InTx(ctx context.Context, db *sql.DB, f func(tx *sql.Tx) error) error {
	return Retry(ctx, func() error { return once(ctx, db, f) })
}

func once(ctx context.Context, db *sql.DB, f func(tx *sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	// After a commit this does nothing; after an error the connection may be
	// gone, and with it the transaction.
	defer func() { _ = tx.Rollback() }()
	if err := f(tx); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// Retry runs f until it returns something else than a transient error (see
// IsTransient), at most five times, with a growing pause between. It is for
// one statement outside a transaction; InTx has it built in. It returns the
// last error of f, at once when ctx ends.
func Retry(ctx context.Context, f func() error) error {
	pause := firstPause
	for n := 1; ; n++ {
		err := f()
		if n == attempts || !IsTransient(err) {
			return err
		}
		jitter := rand.Int64N(int64(pause) * pauseJitterPercent / 100) // two that met must not meet again
		timer := time.NewTimer(pause + time.Duration(jitter))
		select {
		case <-ctx.Done():
			timer.Stop()
			return err
		case <-timer.C:
		}
		pause *= pauseGrowth
	}
}

// IsDuplicate reports whether err is the refusal of a row whose primary or
// unique key exists.
func IsDuplicate(err error) bool { return isNumber(err, erDuplicate) }

// IsTransient reports whether the server undid the statement for a reason that
// lies in other transactions: a deadlock (1213), a lock wait that took too
// long (1205), a row that changed since it was read (1020). The same again may
// succeed at once. A lost connection is not of this kind: what was under way
// may have been committed.
func IsTransient(err error) bool {
	return isNumber(err, erDeadlock, erLockWaitTimeout, erCheckread)
}

// IsCheck reports whether err is the refusal of a row that breaks a CHECK.
func IsCheck(err error) bool { return isNumber(err, erCheckMySQL, erCheckMariaDB) }

func isNumber(err error, numbers ...uint16) bool {
	var me *mysqldriver.MySQLError
	return errors.As(err, &me) && slices.Contains(numbers, me.Number)
}
