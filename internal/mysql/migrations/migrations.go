// Package migrations holds the steps of the schema, and nothing else: they are
// run by package mysql, and read by the embedded stand-in for its own tables.
package migrations

import "embed"

// Files are goose's migrations, NNNNN_name.sql.
//
//go:embed *.sql
var Files embed.FS
