package stock

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/leadingpeers/seckill/internal/mysql"
)

// Stock is a product's count in the ledger, in units. Available + Deducted =
// Total, or the books are wrong.
type Stock struct {
	ProductID string
	Total     int64  // put on sale
	Available int64  // not taken
	Deducted  int64  // Σ quantity of the deducted reservations
	PerUser   int64  // most units one buyer may hold
	State     string // open, sold_out (the source channel has none left) or closed (stopped after a violation)
	SoldOut   bool   // the source channel has none left, or the product was stopped: nothing is deducted
}

// Stock returns the product's count, all numbers as of one instant. It reads
// every deducted reservation's quantity from an index: for reconciliation, not
// for the hot path. [ErrNotFound] for a product without a stock row.
func (l *Ledger) Stock(ctx context.Context, productID string) (Stock, error) {
	s, err := readStock(ctx, l.db, productID)
	if err != nil {
		return Stock{}, fmt.Errorf("read stock %s: %w", productID, err)
	}
	return s, nil
}

// rower is a *sql.DB or a *sql.Tx.
type rower interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func readStock(ctx context.Context, q rower, productID string) (Stock, error) {
	s := Stock{ProductID: productID}
	err := q.QueryRowContext(ctx, sqlStock, productID).Scan(&s.Total, &s.Available, &s.PerUser, &s.State, &s.Deducted)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNotFound
	}
	s.SoldOut = s.State != stockOpen
	return s, err
}

// Moving is how many units of a product the ledger has available, and how many
// are in reservations that it wrote or changed within the time before now, by
// MySQL's clock: those that Redis may not have been told yet.
type Moving struct{ Available, Units int64 }

// Moving reads both as of one instant. [ErrNotFound] for a product without a
// stock row.
func (l *Ledger) Moving(ctx context.Context, productID string, within time.Duration) (Moving, error) {
	var m Moving
	err := l.db.QueryRowContext(ctx, sqlMoving, -within.Microseconds(), productID).Scan(&m.Available, &m.Units)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNotFound
	}
	if err != nil {
		return Moving{}, fmt.Errorf("read what moves of %s: %w", productID, err)
	}
	return m, nil
}

// Units are a product's count as its stock row has it.
type Units struct {
	Total     int64 // put on sale
	Available int64 // not taken
	Restocks  int64 // how often Total has changed
}

// Snapshot calls use with the units of the product and with its
// reservations of every state, ordered by user, both as of one instant: the
// stock row is locked until use returns, so no Deduct or Rollback comes in
// between, and they wait. The rows are read when use ranges over them, one at
// a time from the wire; use may leave them alone, or stop early. A fault while
// reading is the pair's error and ends the rows.
//
// Nothing is changed. use may be called again when the server gives up on the
// lock. [ErrNotFound] for a product without a stock row; an error of use is
// returned as it is, behind the verb.
func (l *Ledger) Snapshot(ctx context.Context, productID string, use func(units Units, rows iter.Seq2[Reservation, error]) error) error {
	err := mysql.InTx(ctx, l.db, func(tx *sql.Tx) error {
		var units Units
		err := tx.QueryRowContext(ctx, sqlAvailable, productID).Scan(&units.Total, &units.Available, &units.Restocks)
		if errors.Is(err, sql.ErrNoRows) {
			return ErrNotFound
		}
		if err != nil {
			return fmt.Errorf("lock the stock row: %w", err)
		}
		return use(units, stream(ctx, tx, sqlAllByUser, productID))
	})
	if err != nil {
		return fmt.Errorf("snapshot %s: %w", productID, err)
	}
	return nil
}

// Changed returns the product's reservations that were written or changed
// within the time before now, by MySQL's clock, tombstones included; 0 means
// all. In no order, one at a time from the wire, over one connection that is
// held while the caller ranges. A fault is the pair's error and ends the rows.
func (l *Ledger) Changed(ctx context.Context, productID string, within time.Duration) iter.Seq2[Reservation, error] {
	if within <= 0 {
		return stream(ctx, l.db, sqlAllOfProduct, productID)
	}
	return stream(ctx, l.db, sqlChanged, productID, -within.Microseconds())
}

// Find returns the reservation. [ErrNotFound] when the ledger has none of this
// ID.
func (l *Ledger) Find(ctx context.Context, id string) (Reservation, error) {
	found, err := l.FindAll(ctx, []string{id})
	if err != nil {
		return Reservation{}, err
	}
	r, ok := found[id]
	if !ok {
		return Reservation{}, fmt.Errorf("find reservation %.40q: %w", id, ErrNotFound)
	}
	return r, nil
}

// FindAll returns those of the reservations that the ledger has, by ID. What
// is not an ID has no reservation. Any number of IDs.
func (l *Ledger) FindAll(ctx context.Context, ids []string) (map[string]Reservation, error) {
	out := make(map[string]Reservation, len(ids))
	valid := slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return !mysql.ID(id).Valid() })
	for part := range slices.Chunk(valid, MaxBatch) {
		for r, err := range stream(ctx, l.db, mysql.In(sqlFind, len(part)), idArgs(part)...) {
			if err != nil {
				return nil, fmt.Errorf("find %d reservations: %w", len(ids), err)
			}
			out[r.ID] = r
		}
	}
	return out, nil
}

// Entry is a reservation with the time of its last change.
type Entry struct {
	Reservation
	UpdatedAt time.Time
}

// Entry returns the ledger's entry of a reservation, or [ErrNotFound].
func (l *Ledger) Entry(ctx context.Context, id string) (Entry, error) {
	if !mysql.ID(id).Valid() {
		return Entry{}, fmt.Errorf("entry of %.40q: %w", id, ErrNotFound)
	}
	var e Entry
	err := l.db.QueryRowContext(ctx, sqlEntry, mysql.ID(id)).Scan((*mysql.ID)(&e.ID), &e.ProductID, &e.UserID, &e.Quantity, &e.State, &e.Reason, &e.At, &e.UpdatedAt)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNotFound
	}
	if err != nil {
		return Entry{}, fmt.Errorf("entry of %s: %w", id, err)
	}
	return e, nil
}

// OfUser returns the reservations of one buyer of a product that the ledger
// has, of every state, the oldest 500 first; none for an unknown one.
func (l *Ledger) OfUser(ctx context.Context, productID, userID string) ([]Reservation, error) {
	var out []Reservation
	for r, err := range stream(ctx, l.db, sqlOfUser, productID, userID) {
		if err != nil {
			return nil, fmt.Errorf("reservations of %s: %w", userID, err)
		}
		out = append(out, r)
	}
	return out, nil
}

// queryer is a *sql.DB or a *sql.Tx.
type queryer interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// stream runs query when it is ranged over, and yields its rows.
func stream(ctx context.Context, q queryer, query string, args ...any) iter.Seq2[Reservation, error] {
	return func(yield func(Reservation, error) bool) {
		rows, err := q.QueryContext(ctx, query, args...)
		if err != nil {
			yield(Reservation{}, fmt.Errorf("read reservations: %w", err))
			return
		}
		defer func() { _ = rows.Close() }()
		for rows.Next() {
			var r Reservation
			if err := rows.Scan((*mysql.ID)(&r.ID), &r.ProductID, &r.UserID, &r.Quantity, &r.State, &r.Reason, &r.At); err != nil {
				yield(Reservation{}, fmt.Errorf("read reservations: %w", err))
				return
			}
			if !yield(r, nil) {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(Reservation{}, fmt.Errorf("read reservations: %w", err))
		}
	}
}
