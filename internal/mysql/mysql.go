// Package mysql opens the database, brings its tables up to date and runs
// transactions. It knows how the server is spoken to and nothing of what the
// tables mean.
//
// Every connection is READ COMMITTED: the ledger decides under a row lock it
// has taken, never by a plain read, and gap locks would only make deadlocks.
package mysql

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"maps"
	"time"

	mysqldriver "github.com/go-sql-driver/mysql"
)

// Config says how to reach the server. The zero value of each field but DSN
// means its default.
type Config struct {
	// DSN names the server and the schema as go-sql-driver writes it:
	// user:password@tcp(host:port)/schema?tls=true. Parameters that would
	// change what the statements mean are overruled, see Open. It may hold a
	// password and is never part of an error. Required.
	DSN string

	// MaxOpen is the most connections at once; as many are kept idle. More
	// do not help a hot product, whose transactions wait for one row.
	// Default 16. Migrate needs 3.
	MaxOpen int

	// DialTimeout bounds the making of one connection. Default 3 s.
	DialTimeout time.Duration

	// ReadTimeout bounds the wait for the next packet of an answer. It must
	// be longer than LockWait. Default 30 s.
	ReadTimeout time.Duration

	// WriteTimeout bounds the sending of one packet. Default 10 s.
	WriteTimeout time.Duration

	// LockWait is how long a statement waits for a row lock before the
	// server gives up with error 1205, in whole seconds. InTx then tries
	// again. Default 10 s.
	LockWait time.Duration

	// MaxAge is how long a connection is used before it is replaced, so that
	// after a failover the pool finds its new server. Default 5 min.
	MaxAge time.Duration
}

// Open makes a pool and tries it once: an error means that the server could
// not be reached or refused the caller, and no pool is left open.
//
// Whatever the DSN says, a session has: READ COMMITTED, strict mode
// (TRADITIONAL: a value that does not fit is an error, not cut off), utf8mb4,
// UTC as its time zone, DATETIME as time.Time, and affected rows counted as
// rows matched. Parameters are put into the text of a statement
// (interpolateParams), which saves a round trip each; several statements in
// one text and LOAD DATA LOCAL are off.
func Open(ctx context.Context, cfg Config) (*sql.DB, error) {
	dc, err := driverConfig(cfg)
	if err != nil {
		return nil, err
	}
	inner, err := mysqldriver.NewConnector(dc)
	if err != nil {
		return nil, errDSN
	}
	db := sql.OpenDB(connector{inner})
	size := cmp.Or(cfg.MaxOpen, 16)
	db.SetMaxOpenConns(size)
	db.SetMaxIdleConns(size)
	db.SetConnMaxLifetime(cmp.Or(cfg.MaxAge, 5*time.Minute))
	if err := db.PingContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("reach MySQL at %s: %w", dc.Addr, err), db.Close())
	}
	return db, nil
}

// errDSN does not repeat the driver's words: they may quote a part of the
// password when the DSN is torn in the wrong place.
var errDSN = errors.New("read MySQL DSN: want user:password@tcp(host:port)/schema?parameter=value")

func driverConfig(cfg Config) (*mysqldriver.Config, error) {
	dc, err := mysqldriver.ParseDSN(cfg.DSN)
	if err != nil || cfg.DSN == "" {
		return nil, errDSN
	}
	if err := dc.Apply(mysqldriver.Charset("utf8mb4", "")); err != nil {
		return nil, errDSN
	}
	dc.Loc = time.UTC
	dc.ParseTime = true
	dc.InterpolateParams = true
	dc.ClientFoundRows = true
	dc.MultiStatements = false
	dc.AllowAllFiles = false
	dc.ColumnsWithAlias = false
	dc.Timeout = cmp.Or(cfg.DialTimeout, dc.Timeout, 3*time.Second)
	dc.ReadTimeout = cmp.Or(cfg.ReadTimeout, dc.ReadTimeout, 30*time.Second)
	dc.WriteTimeout = cmp.Or(cfg.WriteTimeout, dc.WriteTimeout, 10*time.Second)
	dc.Logger = &mysqldriver.NopLogger{} // every error it would print is returned as well
	dc.Params = maps.Clone(dc.Params)
	if dc.Params == nil {
		dc.Params = make(map[string]string)
	}
	dc.Params["time_zone"] = "'+00:00'"
	dc.Params["sql_mode"] = "'TRADITIONAL'"
	lockWait := cmp.Or(cfg.LockWait, 10*time.Second)
	dc.Params["innodb_lock_wait_timeout"] = fmt.Sprint(max(1, int64(lockWait/time.Second)))
	return dc, nil
}

// sqlIsolation is not a driver parameter because the variable has two names:
// transaction_isolation in MySQL 8, tx_isolation in MariaDB before 11.1. Said
// once per connection it saves the round trip that sql.TxOptions would cost
// every transaction.
const sqlIsolation = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"

// connector makes every new connection READ COMMITTED before it is used.
type connector struct{ driver.Connector }

// Connect implements driver.Connector.
func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	execer, ok := conn.(driver.ExecerContext)
	if !ok {
		return nil, errors.Join(errors.New("set the isolation level: the driver takes no statement"), conn.Close())
	}
	if _, err := execer.ExecContext(ctx, sqlIsolation, nil); err != nil {
		return nil, errors.Join(fmt.Errorf("set the isolation level: %w", err), conn.Close())
	}
	return conn, nil
}
