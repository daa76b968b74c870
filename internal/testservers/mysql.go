package testservers

import (
	"context"
	"database/sql"
	"strings"
	"testing"

	"github.com/leadingpeers/seckill/internal/mysql"
)

// MySQL returns a pool of up to 16 connections to a schema that only this test
// has, with all tables in it and no rows. When the test ends the pool is closed
// and the schema dropped.
func MySQL(t testing.TB) *sql.DB {
	t.Helper()
	return open(t, MySQLDSN(t), 16)
}

// MySQLDSN makes a schema as [MySQL] does and returns its DSN, for a test that
// starts processes of its own.
func MySQLDSN(t testing.TB) string {
	t.Helper()
	if embeddedChosen() {
		return embeddedMySQL(t)
	}
	server := named(t, mysqlVariable)
	schema := "t_" + random(10)
	admin := open(t, server, 1)
	execute(t, admin, "CREATE DATABASE "+schema)
	t.Cleanup(func() { execute(t, admin, "DROP DATABASE "+schema) })
	dsn := withSchema(server, schema)
	migrate(t, dsn)
	return dsn
}

// withSchema puts the schema's name between a DSN's address and its parameters.
func withSchema(dsn, schema string) string {
	address, parameters, found := strings.Cut(dsn, "?")
	if found {
		parameters = "?" + parameters
	}
	return address + schema + parameters
}

func migrate(t testing.TB, dsn string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	db, err := mysql.Open(ctx, mysql.Config{DSN: dsn, MaxOpen: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if err := mysql.Migrate(ctx, db, nil); err != nil {
		t.Fatal(err)
	}
}

// open returns a pool that is closed when the test ends.
func open(t testing.TB, dsn string, connections int) *sql.DB {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	db, err := mysql.Open(ctx, mysql.Config{DSN: dsn, MaxOpen: connections})
	if err != nil {
		t.Fatalf("open the server of %s: %v", mysqlVariable, err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// execute runs one statement outside the test's own context, which has ended
// when a clean-up runs.
func execute(t testing.TB, db *sql.DB, statement string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := db.ExecContext(ctx, statement); err != nil {
		t.Errorf("%s: %v", statement, err)
	}
}
