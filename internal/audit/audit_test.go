package audit_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/leadingpeers/seckill/internal/audit"
	"github.com/leadingpeers/seckill/internal/mysql"
	"github.com/leadingpeers/seckill/internal/testservers"
)

// write appends an entry in a transaction of its own.
func write(ctx context.Context, db *sql.DB, entity string) error {
	return mysql.InTx(ctx, db, func(tx *sql.Tx) error {
		return audit.Append(ctx, tx, audit.Entry{Action: "UpdateProduct", Entity: entity, Before: map[string]int{"total": 1}, After: map[string]int{"total": 2}})
	})
}

func TestConcurrentWritersMakeOneChain(t *testing.T) {
	db := testservers.MySQL(t)
	const writers, each = 8, 10
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			ctx := audit.With(t.Context(), audit.Actor{KeyID: fmt.Sprintf("ops-%d", w), RequestID: "trace"})
			for i := range each {
				if err := write(ctx, db, fmt.Sprintf("product/%d", i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	trail := audit.NewTrail(db)
	if v, err := trail.Verify(t.Context()); err != nil || v.Entries != writers*each || v.Broken != 0 {
		t.Errorf("verdict %+v, %v, want %d entries and none broken", v, err, writers*each)
	}
	for _, tt := range []struct {
		filter audit.Filter
		want   int
		why    string
	}{
		{audit.Filter{Limit: 1000}, writers * each, "all"},
		{audit.Filter{Limit: 7}, 7, "a page"},
		{audit.Filter{Limit: 1000, Before: 5}, 4, "what comes before"},
		{audit.Filter{Limit: 1000, Entity: "product/3"}, writers, "of one entity"},
		{audit.Filter{Limit: 1000, Actor: "ops-3"}, each, "by one actor"},
		{audit.Filter{Limit: 1000, Actor: "ops-3", Entity: "product/3"}, 1, "both"},
		{audit.Filter{Limit: 1000, Actor: "nobody"}, 0, "none"},
	} {
		got, err := trail.List(t.Context(), tt.filter)
		if err != nil || len(got) != tt.want {
			t.Errorf("%s: %d entries, %v, want %d", tt.why, len(got), err, tt.want)
		}
		for i, r := range got {
			if i > 0 && r.ID >= got[i-1].ID {
				t.Errorf("%s: entry %d after %d, want the latest first", tt.why, r.ID, got[i-1].ID)
			}
		}
	}
}

func TestARolledBackChangeLeavesNoEntry(t *testing.T) {
	db := testservers.MySQL(t)
	failed := fmt.Errorf("no")
	err := mysql.InTx(t.Context(), db, func(tx *sql.Tx) error {
		if err := audit.Append(t.Context(), tx, audit.Entry{Action: "a", Entity: "b"}); err != nil {
			return err
		}
		return failed
	})
	if !errors.Is(err, failed) {
		t.Fatal(err)
	}
	if err := write(t.Context(), db, "product/phone"); err != nil {
		t.Fatal(err)
	}
	got, err := audit.NewTrail(db).List(t.Context(), audit.Filter{Limit: 10})
	if err != nil || len(got) != 1 || got[0].ID != 1 || got[0].Actor != audit.System {
		t.Errorf("entries %+v, %v, want the second change alone, as entry 1 by the system", got, err)
	}
}

func TestVerifyFindsWhatWasDoneToTheTrail(t *testing.T) {
	for _, tt := range []struct {
		name, statement string
		broken          int64
		why             string
	}{
		{"nothing", "UPDATE audit SET actor = actor WHERE id = 3", 0, "it is as it was written"},
		{"the actor", "UPDATE audit SET actor = 'somebody' WHERE id = 3", 3, "the hash covers it"},
		{"the document", "UPDATE audit SET after_doc = before_doc WHERE id = 3", 3, "the hash covers it"},
		{"the time", "UPDATE audit SET at = '2020-01-01 00:00:00' WHERE id = 3", 3, "the hash covers it"},
		{"taken out of the middle", "DELETE FROM audit WHERE id = 3", 3, "there is a gap"},
		{"taken off the end", "DELETE FROM audit WHERE id = 5", 5, "the head knows the last one"},
		{"all gone", "DELETE FROM audit WHERE id > 0", 1, "the head knows the last one"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			db := testservers.MySQL(t)
			for i := range 5 {
				if err := write(t.Context(), db, fmt.Sprintf("product/%d", i)); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := db.ExecContext(t.Context(), tt.statement); err != nil {
				t.Fatal(err)
			}
			v, err := audit.NewTrail(db).Verify(t.Context())
			if err != nil || v.Broken != tt.broken || (v.Problem == "") != (tt.broken == 0) {
				t.Errorf("verdict %+v, %v, want entry %d broken: %s", v, err, tt.broken, tt.why)
			}
		})
	}
}
