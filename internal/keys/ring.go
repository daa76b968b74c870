package keys

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Ring finds keys by ID, from memory: those of the configuration, and the
// valid ones of the store as they were at most maxAge ago. It is safe for
// concurrent use.
type Ring struct {
	fixed  map[string]Key
	store  *Store // nil = only the fixed ones
	maxAge time.Duration
	now    func() time.Time

	mu      sync.Mutex
	keys    map[string]Key // nil before the first load
	err     error          // of the last load
	loaded  time.Time      // when the load that gave keys began
	next    time.Time      // no load before, for what is known
	noted   time.Time      // when it was last written down which keys were used
	used    map[string]bool
	loading chan struct{} // closed at the end of the load under way, or nil
}

const (
	loadTimeout = 5 * time.Second
	noteEvery   = time.Minute
	patience    = 250 * time.Millisecond // for a load, when there are older keys
)

// NewRing makes a ring of fixed keys and those of store, which may be nil. It
// returns an error when a fixed key is not usable.
func NewRing(fixed []Key, store *Store, maxAge time.Duration, now func() time.Time) (*Ring, error) {
	r := &Ring{fixed: map[string]Key{}, store: store, maxAge: maxAge, now: now, used: map[string]bool{}}
	for _, k := range fixed {
		if err := k.Validate(); err != nil {
			return nil, fmt.Errorf("key %q: %w", k.ID, err)
		}
		if _, twice := r.fixed[k.ID]; twice {
			return nil, fmt.Errorf("key %q: is there twice", k.ID)
		}
		r.fixed[k.ID] = k
	}
	return r, nil
}

// Known is [Ring.Lookup] where that need not wait or load anything; found is
// false where it might.
func (r *Ring) Known(id string) (k Key, found bool) {
	if k, found = r.fixed[id]; found || r.store == nil {
		return k, found
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if k, found = r.keys[id]; !found || r.loading != nil || !r.now().Before(r.next) {
		return Key{}, false
	}
	r.used[id] = true
	return k, true
}

// Lookup finds a key by its ID. While MySQL is away the keys of the last load
// go on counting. An error is returned only when there has never been one, or
// ctx ended while it waited for the first.
func (r *Ring) Lookup(ctx context.Context, id string) (k Key, found bool, err error) {
	if k, found = r.fixed[id]; found || r.store == nil {
		return k, found, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	due := r.next
	if _, known := r.keys[id]; !known {
		due = due.Add(-r.maxAge * 4 / 5) // it may have been made a moment ago
	}
	if r.loading == nil && !r.now().Before(due) {
		r.load(ctx)
	}
	r.await(ctx, id)
	if r.keys == nil {
		if err := ctx.Err(); err != nil {
			return Key{}, false, err
		}
		return Key{}, false, r.err
	}
	if k, found = r.keys[id]; found {
		r.used[id] = true
	}
	return k, found, nil
}

// await waits for the load under way where what there is does not do: there is
// nothing yet, it does not have the ID, or nobody has asked for so long that
// the key may have been revoked since. Only for the first it waits until ctx
// ends: when MySQL hangs, the old keys must go on counting. The mutex is held,
// but not during the wait.
func (r *Ring) await(ctx context.Context, id string) {
	if r.keys != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, patience)
		defer cancel()
	}
	for r.loading != nil && ctx.Err() == nil {
		_, known := r.keys[id]
		idle := r.err == nil && r.now().Sub(r.loaded) > 2*r.maxAge
		if known && !idle {
			return
		}
		loading := r.loading
		r.mu.Unlock()
		select {
		case <-loading:
		case <-ctx.Done():
		}
		r.mu.Lock()
	}
}

// load reads the keys in the background, and writes down once a minute which
// were used. The mutex is held.
func (r *Ring) load(ctx context.Context) {
	now := r.now()
	r.next = now.Add(r.maxAge)
	r.loading = make(chan struct{})
	var used []string
	if now.Sub(r.noted) >= noteEvery {
		for id := range r.used {
			used = append(used, id)
		}
		r.noted, r.used = now, map[string]bool{}
	}
	go func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), loadTimeout)
		defer cancel()
		valid, err := r.store.Valid(ctx)
		if err == nil {
			_ = r.store.Used(ctx, used) // it is only a hint for people
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.err = err; err == nil {
			r.keys, r.loaded = make(map[string]Key, len(valid)), now
			for _, k := range valid {
				r.keys[k.ID] = k
			}
		}
		close(r.loading)
		r.loading = nil
	}()
}
