// Package audit writes down who changed what: one row for each change of the
// catalogue, the stock and the keys, in the transaction of the change itself,
// chained by hash so that a row that was altered or taken out is noticed.
//
// It does not decide who may change anything.
package audit

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"
)

// System is the actor of a change that no key asked for.
const System = "system"

// Actor is on whose behalf something is changed.
type Actor struct {
	KeyID     string // of the API key; empty means System
	RequestID string // the trace ID of the request, or empty
}

type actorKey struct{}

// Key is what a context of one's own making is asked for its [Actor] by.
func Key() any { return actorKey{} }

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

// The statements. The first one makes the head, or moves it on; either way its
// row is locked until the transaction ends, which puts all writers in order.
const (
	sqlMoveHead = "INSERT INTO audit_head (one, id, at, hash) VALUES (1, 1, NOW(3), ?) ON DUPLICATE KEY UPDATE id = id + 1, at = NOW(3)"
	sqlHead     = "SELECT id, at, hash FROM audit_head WHERE one = 1"
	sqlAppend   = "INSERT INTO audit (id, at, actor, request_id, action, entity, before_doc, after_doc, prev_hash, hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
	sqlSetHead  = "UPDATE audit_head SET hash = ? WHERE one = 1"
	columns     = "SELECT id, at, actor, request_id, action, entity, before_doc, after_doc, prev_hash, hash FROM audit "
	sqlList     = columns + "WHERE id < ? ORDER BY id DESC LIMIT ?"
	sqlOfEntity = columns + "WHERE entity = ? AND id < ? ORDER BY id DESC LIMIT ?"
	sqlOfActor  = columns + "WHERE actor = ? AND id < ? ORDER BY id DESC LIMIT ?"
	sqlOfBoth   = columns + "WHERE entity = ? AND actor = ? AND id < ? ORDER BY id DESC LIMIT ?"
	sqlChain    = columns + "WHERE id > ? ORDER BY id LIMIT ?"
)

// Append writes an entry in tx, for the actor of ctx. Call it last in the
// transaction: it locks the head of the chain until tx ends. On an error tx
// must be rolled back.
func Append(ctx context.Context, tx *sql.Tx, e Entry) error {
	r, err := record(From(ctx), e)
	if err == nil {
		err = r.append(ctx, tx)
	}
	if err != nil {
		return fmt.Errorf("audit %s of %s: %w", e.Action, e.Entity, err)
	}
	return nil
}

// record is e as it is written.
func record(by Actor, e Entry) (r Record, err error) {
	r = Record{Actor: by.KeyID, RequestID: by.RequestID, Action: e.Action, Entity: e.Entity}
	if r.Before, err = document(e.Before); err != nil {
		return r, err
	}
	r.After, err = document(e.After)
	return r, err
}

// document is v as JSON; empty for nothing.
func document(v any) ([]byte, error) {
	if v == nil {
		return []byte{}, nil
	}
	return json.Marshal(v)
}

func (r Record) append(ctx context.Context, tx *sql.Tx) error {
	var first [sha256.Size]byte // the hash before the first entry
	if _, err := tx.ExecContext(ctx, sqlMoveHead, first[:]); err != nil {
		return err
	}
	if err := tx.QueryRowContext(ctx, sqlHead).Scan(&r.ID, &r.At, &r.prev); err != nil {
		return err
	}
	r.Hash = r.sum()
	_, err := tx.ExecContext(ctx, sqlAppend, r.ID, r.At, r.Actor, r.RequestID, r.Action, r.Entity, r.Before, r.After, r.prev, r.Hash)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, sqlSetHead, r.Hash)
	return err
}

// Record is an entry as it stands in the trail.
type Record struct {
	ID        int64     // 1, 2, 3, … without a gap
	At        time.Time // by the database's clock, UTC
	Actor     string    // the key's ID, or System
	RequestID string
	Action    string
	Entity    string
	Before    []byte // JSON, or empty
	After     []byte // JSON, or empty
	Hash      []byte // SHA-256 over all of this and the hash before

	prev []byte
}

// sum is SHA-256 over the hash before and each column, in the table's order,
// each behind its length in eight bytes: so no two entries have one text.
func (r Record) sum() []byte {
	h := sha256.New()
	for _, part := range [][]byte{
		r.prev, []byte(strconv.FormatInt(r.ID, 10)), []byte(r.At.UTC().Format(time.RFC3339Nano)), []byte(r.Actor), []byte(r.RequestID),
		[]byte(r.Action), []byte(r.Entity), r.Before, r.After,
	} {
		var length [8]byte
		binary.BigEndian.PutUint64(length[:], uint64(len(part)))
		_, _ = h.Write(length[:]) // a hash never fails
		_, _ = h.Write(part)
	}
	return h.Sum(nil)
}

// Trail reads the audit trail.
type Trail struct{ db *sql.DB }

// NewTrail returns the trail in db, which must come from mysql.Open and have
// the tables of mysql.Migrate.
func NewTrail(db *sql.DB) *Trail { return &Trail{db: db} }

// Filter chooses entries; what is empty does not matter.
type Filter struct {
	Entity, Actor string
	Before        int64 // only IDs below this; 0 = all
	Limit         int   // 1 to 1000
}

// List returns entries, the latest first.
func (t *Trail) List(ctx context.Context, f Filter) ([]Record, error) {
	if f.Before <= 0 {
		f.Before = math.MaxInt64
	}
	f.Limit = min(max(f.Limit, 1), maxPage)
	switch {
	case f.Entity != "" && f.Actor != "":
		return t.read(ctx, sqlOfBoth, f.Entity, f.Actor, f.Before, f.Limit)
	case f.Entity != "":
		return t.read(ctx, sqlOfEntity, f.Entity, f.Before, f.Limit)
	case f.Actor != "":
		return t.read(ctx, sqlOfActor, f.Actor, f.Before, f.Limit)
	}
	return t.read(ctx, sqlList, f.Before, f.Limit)
}

const maxPage = 1000

func (t *Trail) read(ctx context.Context, query string, args ...any) (out []Record, err error) {
	rows, err := t.db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("read the audit trail: %w", err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var r Record
		if err := rows.Scan(&r.ID, &r.At, &r.Actor, &r.RequestID, &r.Action, &r.Entity, &r.Before, &r.After, &r.prev, &r.Hash); err != nil {
			return nil, fmt.Errorf("read the audit trail: %w", err)
		}
		out = append(out, r)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read the audit trail: %w", err)
	}
	return out, nil
}

// Verdict says whether the trail is the one that was written.
type Verdict struct {
	Entries int64  // how many were checked
	Broken  int64  // the first entry that is not as it was written; 0 = none
	Problem string // what is wrong with it
}

// Verify reads the whole trail and recomputes its chain. It finds an entry
// that was altered, put in or taken out, also at the end. Somebody who can
// write to the tables and recomputes every later hash and the head is not
// found: keep the latest hash elsewhere, too.
func (t *Trail) Verify(ctx context.Context) (v Verdict, err error) {
	prev := make([]byte, sha256.Size)
	var head []byte
	var last int64
	err = t.db.QueryRowContext(ctx, sqlHead).Scan(&last, new(time.Time), &head)
	if errors.Is(err, sql.ErrNoRows) {
		head, err = prev, nil
	}
	if err != nil {
		return v, fmt.Errorf("read the head of the audit trail: %w", err)
	}
	for {
		page, err := t.read(ctx, sqlChain, v.Entries, maxPage)
		if err != nil {
			return v, err
		}
		for _, r := range page {
			if v.Problem = r.flaw(v.Entries+1, prev); v.Problem != "" {
				v.Broken = v.Entries + 1
				return v, nil
			}
			v.Entries, prev = r.ID, r.Hash
			if r.ID == last && !bytes.Equal(prev, head) {
				return Verdict{Entries: last, Broken: last, Problem: "it is not the last one that was written"}, nil
			}
		}
		if len(page) < maxPage {
			break
		}
	}
	if v.Entries < last {
		v.Broken, v.Problem = v.Entries+1, "it is missing"
	}
	return v, nil
}

// flaw says what is wrong with r as the entry with this ID after prev.
func (r Record) flaw(id int64, prev []byte) string {
	switch {
	case r.ID != id:
		return "it is missing"
	case !bytes.Equal(r.prev, prev):
		return "it does not follow the entry before it"
	case !bytes.Equal(r.Hash, r.sum()):
		return "it was altered"
	}
	return ""
}
