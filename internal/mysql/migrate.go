package mysql

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"time"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/leadingpeers/seckill/internal/mysql/migrations"
)

// How long Migrate waits for another copy that migrates: 5 minutes in all.
const (
	lockEvery = 250 * time.Millisecond
	lockTries = 5 * 60 * 4
)

// Migrate brings the tables of db's schema up to date and returns when they
// are. Any number of copies may call it at once: one works under a lock kept
// in the table goose_lock (renewed while it lives, free 30 s after it died),
// the others wait up to 5 minutes for it. It is harmless to repeat, and does
// nothing when there is nothing to do.
//
// On an error the migrations before the one it names have been applied; DDL
// is not transactional in MySQL, so a part of that one may have been too.
//
// A stand-in which brings its own schema is not migrated. A nil log discards.
func Migrate(ctx context.Context, db *sql.DB, log *slog.Logger) error {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	locker, err := lock.NewMySQLTableLocker(lock.WithTableLockTimeout(lockEvery, lockTries), lock.WithTableLogger(log))
	if err != nil {
		return fmt.Errorf("make the lock for migrations: %w", err)
	}
	provider, err := goose.NewProvider(goose.DialectMySQL, db, migrations.Files,
		goose.WithLocker(locker), goose.WithSlog(log), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("read the migrations: %w", err)
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}
