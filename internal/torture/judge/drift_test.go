package judge

import (
	"fmt"
	"slices"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/leadingpeers/seckill/internal/testservers"
)

// TestDrift: units that are pending are still available in the ledger, and count.
func TestDrift(t *testing.T) {
	db := testservers.MySQL(t)
	client := redis.NewClient(&redis.Options{Addr: testservers.Redis(t)})
	defer func() { _ = client.Close() }()
	c := Case{Redis: client, Prefix: testservers.Prefix(t)}
	tests := []struct {
		id, why   string
		available int
		hash      []string
		drifts    bool
	}{
		{"even", "what is pending has not been taken in the ledger", 5, []string{"surplus", "3", "u:ann", "3;a,2,P,1;b,1,C,1"}, false},
		{"leaked", "a unit is in neither", 6, []string{"surplus", "3", "u:ann", "2;a,2,P,1"}, true},
		{"made", "a unit is in both", 4, []string{"surplus", "3", "u:ann", "2;a,2,P,1"}, true},
		{"released", "a tombstone holds nothing", 3, []string{"surplus", "3", "u:ann", "0;a,2,R,1"}, false},
		{"lost", "Redis has nothing of it", 3, nil, true},
	}
	for _, tt := range tests {
		if _, err := db.ExecContext(t.Context(), "INSERT INTO stock (product_id, total, available, per_user) VALUES (?, 10, ?, 9)", tt.id, tt.available); err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(tt.hash); i += 2 {
			if err := client.HSet(t.Context(), c.Prefix+":{"+tt.id+"}", tt.hash[i], tt.hash[i+1]).Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	var s State
	if err := New(db).products(t.Context(), c, &s, nil); err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		if got := slices.Contains(s.Drifting, tt.id); got != tt.drifts {
			t.Errorf("%s: drifts %t, want %t: %s", tt.id, got, tt.drifts, tt.why)
		}
	}
}

// TestMissing: only what the ledger has is not missing, whatever its state, in
// however many statements it is asked.
func TestMissing(t *testing.T) {
	db := testservers.MySQL(t)
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var ids, want []string
	for n := range 2*missingAtOnce + 10 {
		id := fmt.Sprintf("%032x", n+1)
		ids = append(ids, textID(id))
		if n%700 == 3 { // some in each statement
			want = append(want, textID(id))
			continue
		}
		state := []string{"deducted", "refused", "rolled_back"}[n%3]
		if _, err := tx.ExecContext(t.Context(), "INSERT INTO reservations (reservation_id, product_id, user_id, quantity, state, reason, created_at, updated_at) VALUES (?, 'p', 'u', 1, ?, '', NOW(3), NOW(3))", rawID(textID(id)), state); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	ids, want = append(ids, "no ID"), append(want, "no ID")
	got, err := New(db).Missing(t.Context(), ids)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("missing %v, %v, want %v", got, err, want)
	}
	if got, err := New(db).Missing(t.Context(), nil); err != nil || got != nil {
		t.Errorf("of none %v %v are missing", got, err)
	}
	_ = db.Close()
	if got, err := New(db).Missing(t.Context(), ids); err == nil {
		t.Errorf("%d missing and no error of a database that is closed", len(got))
	}
}
