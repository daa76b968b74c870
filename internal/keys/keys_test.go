package keys_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leadingpeers/seckill/internal/audit"
	"github.com/leadingpeers/seckill/internal/keys"
	"github.com/leadingpeers/seckill/internal/testservers"
)

func secretOf(text string) string { return text[strings.LastIndex(text, "_")+1:] }

func TestCreateAndRevoke(t *testing.T) {
	db := testservers.MySQL(t)
	s := keys.NewStore(db)
	k, text, err := s.Create(t.Context(), keys.Key{ID: "shop", Role: keys.Service, Activities: []string{"sale", "other"}, Note: "店", ExpiresAt: time.Now().Add(time.Hour)})
	if err != nil || !strings.HasPrefix(text, "sk_shop_") || k.Hash != sha256.Sum256([]byte(secretOf(text))) || len(secretOf(text)) != 64 {
		t.Fatalf("%+v, %q, %v", k, text, err)
	}
	if _, _, err := s.Create(t.Context(), keys.Key{ID: "shop", Role: keys.Viewer}); !errors.Is(err, keys.ErrExists) {
		t.Errorf("the same ID again: %v, want %v", err, keys.ErrExists)
	}
	made, _, err := s.Create(t.Context(), keys.Key{Role: keys.Viewer})
	if err != nil || made.ID == "" {
		t.Errorf("without an ID: %+v, %v", made, err)
	}
	for range 2 { // repeating is harmless
		if k, err = s.Revoke(t.Context(), "shop"); err != nil || k.RevokedAt.IsZero() {
			t.Errorf("revoked %+v, %v", k, err)
		}
	}
	if _, err := s.Revoke(t.Context(), "nobody"); !errors.Is(err, keys.ErrNotFound) {
		t.Errorf("revoke an unknown key: %v", err)
	}
	all, err := s.List(t.Context())
	if err != nil || len(all) != 2 {
		t.Errorf("%d keys, %v, want 2", len(all), err)
	}
	valid, err := s.Valid(t.Context())
	if err != nil || len(valid) != 1 || valid[0].ID != made.ID {
		t.Errorf("valid %+v, %v, want only the one that is not revoked", valid, err)
	}
	trail, err := audit.NewTrail(db).List(t.Context(), audit.Filter{Entity: "key/shop", Limit: 10})
	if err != nil || len(trail) != 2 || strings.Contains(string(trail[0].After)+string(trail[1].After), secretOf(text)) {
		t.Errorf("%d entries in the audit trail, %v, want 2 without the secret", len(trail), err)
	}
}

func TestKeysThatAreNotAllowed(t *testing.T) {
	s := keys.NewStore(testservers.MySQL(t))
	for _, tt := range []struct {
		key   keys.Key
		field string
	}{
		{keys.Key{ID: "a_b", Role: keys.Viewer}, "id"},
		{keys.Key{ID: strings.Repeat("a", 33), Role: keys.Viewer}, "id"},
		{keys.Key{ID: "a", Role: "root"}, "role"},
		{keys.Key{ID: "a"}, "role"},
		{keys.Key{ID: "a", Role: keys.Viewer, Activities: []string{"sale"}}, "activities"},
		{keys.Key{ID: "a", Role: keys.Service, Activities: []string{"sale,other"}}, "activities"},
		{keys.Key{ID: "a", Role: keys.Service, Activities: make([]string, 21)}, "activities"},
		{keys.Key{ID: "a", Role: keys.Viewer, Note: "a\x00"}, "note"},
		{keys.Key{ID: "a", Role: keys.Viewer, Note: strings.Repeat("长", 121)}, "note"},
	} {
		_, _, err := s.Create(t.Context(), tt.key)
		if invalid, ok := errors.AsType[*keys.InvalidError](err); !ok || invalid.Field != tt.field {
			t.Errorf("%+v: %v, want field %s", tt.key, err, tt.field)
		}
	}
	if all, err := s.List(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("%d keys, %v, want none", len(all), err)
	}
}

func TestBootstrapMakesOneAdmin(t *testing.T) {
	s := keys.NewStore(testservers.MySQL(t))
	var mu sync.Mutex
	var made []string
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			text, err := s.Bootstrap(t.Context())
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
			}
			if text != "" {
				made = append(made, text)
			}
		})
	}
	wg.Wait()
	if len(made) != 1 {
		t.Errorf("%d first keys were shown, want 1", len(made))
	}
}

func TestRing(t *testing.T) {
	db := testservers.MySQL(t)
	s := keys.NewStore(db)
	if _, _, err := s.Create(t.Context(), keys.Key{ID: "shop", Role: keys.Service}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Create(t.Context(), keys.Key{ID: "late", Role: keys.Viewer, ExpiresAt: time.Now().Add(-time.Hour)}); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	now := time.Unix(1_000_000, 0)
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	pass := func(d time.Duration) { mu.Lock(); defer mu.Unlock(); now = now.Add(d) }
	r, err := keys.NewRing([]keys.Key{{ID: "fixed", Role: keys.Admin}}, s, time.Second, clock)
	if err != nil {
		t.Fatal(err)
	}
	lookup := func(id string) bool {
		t.Helper()
		_, found, err := r.Lookup(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	if !lookup("fixed") || !lookup("shop") || lookup("late") || lookup("nobody") {
		t.Error("want the fixed key and the valid one, not the expired one nor an unknown one")
	}
	if _, err := s.Revoke(t.Context(), "shop"); err != nil {
		t.Fatal(err)
	}
	if !lookup("shop") {
		t.Error("no load is due yet")
	}
	pass(2 * time.Minute)
	for deadline := time.Now().Add(10 * time.Second); lookup("shop"); {
		if time.Now().After(deadline) {
			t.Fatal("a revoked key is still found after a load was due")
		}
	}
	if all, err := s.List(t.Context()); err != nil || all[1].LastUsedAt.IsZero() {
		t.Errorf("keys %+v, %v, want it written down that shop was used", all, err)
	}
	_ = db.Close()
	pass(2 * time.Minute)
	if lookup("shop") || !lookup("fixed") {
		t.Error("without MySQL the last keys go on counting")
	}
}

// A load takes milliseconds; on a busy machine one look may be too early.
func TestRingAfterASilence(t *testing.T) {
	s := keys.NewStore(testservers.MySQL(t))
	now := time.Unix(1_000_000, 0)
	r, err := keys.NewRing(nil, s, time.Second, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	looksUntil := func(id string, want bool) (looks int) {
		t.Helper()
		for looks = 1; looks < 20; looks++ {
			if _, found, err := r.Lookup(t.Context(), id); err != nil || found == want {
				return looks
			}
		}
		return looks
	}
	if n := looksUntil("shop", false); n != 1 {
		t.Fatalf("a key that was never made is found")
	}
	if _, _, err := s.Create(t.Context(), keys.Key{ID: "shop", Role: keys.Service}); err != nil {
		t.Fatal(err)
	}
	now = now.Add(300 * time.Millisecond) // no load is due for what is known
	if n := looksUntil("shop", true); n > 5 {
		t.Errorf("a new key is not found at %d looks: its owner has just been shown it", n)
	}
	if _, err := s.Revoke(t.Context(), "shop"); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Hour)
	if n := looksUntil("shop", false); n > 5 {
		t.Errorf("a key that was revoked an hour ago is still found at %d looks", n)
	}
}

func TestARingThatHasNeverSeenTheStoreSaysSo(t *testing.T) {
	db := testservers.MySQL(t)
	_ = db.Close()
	r, err := keys.NewRing(nil, keys.NewStore(db), time.Second, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	if _, found, err := r.Lookup(context.Background(), "shop"); found || err == nil {
		t.Errorf("found %v, %v, want an error: the key may well be good", found, err)
	}
}
