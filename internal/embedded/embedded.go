// Package embedded starts servers inside this process that stand in for Redis,
// Kafka and MySQL: for the demo, for development and for fast tests. They
// speak the real protocols on loopback ports, so the real clients, and other
// processes too, work with them unchanged.
//
//   - Redis is miniredis. It keeps nothing when it is closed: what it holds is
//     a function of the ledger and is loaded again from there, and what was
//     pending comes back through Kafka.
//   - Kafka is kfake. It keeps its topics, records and offsets in a directory.
//   - MySQL is SQLite behind MySQL's wire, for the project's own statements
//     (package dialect) and tables. Its transactions run one after the other,
//     so it cannot show deadlocks or waits for a row.
//
// They are not for production: they listen without a password, on loopback
// only, and survive a kill of the process but not of the machine.
package embedded

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
)

// Config says where the servers keep their data, and which are not needed.
type Config struct {
	// Dir is the directory, made if it is missing. What is in it is continued.
	// Empty means a temporary one that Close removes.
	Dir string
	// NoRedis, NoKafka and NoMySQL leave that one out: somebody has a real one.
	NoRedis, NoKafka, NoMySQL bool
}

// Servers are the stand-ins, and how to reach them; empty for one left out.
type Servers struct {
	RedisAddr    string   // host:port
	KafkaBrokers []string // host:port each
	MySQLDSN     string   // for go-sql-driver, the schema's name in it; it has its tables

	close []io.Closer // in the order of their start
}

// Start starts the servers on ports that the system chooses. They run until
// Close, whatever becomes of ctx, so that clients can be closed before them. A
// directory serves one process at a time. On an error nothing is left running.
func Start(ctx context.Context, cfg Config) (_ *Servers, err error) {
	s := &Servers{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	dir := cfg.Dir
	if dir == "" {
		if dir, err = os.MkdirTemp("", "seckill-"); err != nil {
			return nil, err
		}
		s.close = append(s.close, remove(dir))
	}
	if !cfg.NoRedis {
		r, err := StartRedis(ctx)
		if err != nil {
			return nil, err
		}
		s.RedisAddr, s.close = r.Addr(), append(s.close, r)
	}
	if !cfg.NoKafka {
		k, err := StartKafka(ctx, filepath.Join(dir, "kafka"))
		if err != nil {
			return nil, err
		}
		s.KafkaBrokers, s.close = k.Brokers(), append(s.close, k)
	}
	if !cfg.NoMySQL {
		m, err := StartMySQL(ctx, filepath.Join(dir, "seckill.db"))
		if err != nil {
			return nil, err
		}
		s.MySQLDSN, s.close = m.DSN(), append(s.close, m)
	}
	return s, nil
}

// Close stops the servers, the last started first. Repeating is harmless.
func (s *Servers) Close() error {
	var errs []error
	for i := len(s.close) - 1; i >= 0; i-- {
		errs = append(errs, s.close[i].Close())
	}
	s.close = nil
	return errors.Join(errs...)
}

// remove is a directory that is removed when it is closed.
type remove string

// Close removes the directory.
func (dir remove) Close() error { return os.RemoveAll(string(dir)) }

// claim takes path for this process until it is closed, or until the process
// dies: two servers that write the same files would ruin them. The lock is
// SQLite's, which works the same on every system.
func claim(ctx context.Context, path string) (io.Closer, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	db, err := sql.Open("sqlite", sqliteDSN(path+".lock", nil))
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1) // one connection holds the lock, and is never given back
	if _, err := db.ExecContext(ctx, "BEGIN EXCLUSIVE"); err != nil {
		return nil, errors.Join(fmt.Errorf("claim %s, which another process may be using: %w", path, err), db.Close())
	}
	return db, nil
}

// sqliteDSN names a SQLite file, whatever is in its path.
func sqliteDSN(path string, parameters url.Values) string {
	return (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: filepath.ToSlash(path)}).EscapedPath(), RawQuery: parameters.Encode()}).String()
}
