package catalog

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// loadTimeout bounds one load of a Snapshot, however long its callers may wait.
const loadTimeout = 5 * time.Second

// View is what was on sale at one instant. It never changes and may be shared.
type View struct {
	At  time.Time // when it was read, by the snapshot's clock
	Err error     // not nil: why the last attempt to read a newer one came to nothing

	listings   []Listing
	activities map[string]int  // activity ID → index in listings
	products   map[string]slot // product ID → its place
}

// slot is the place of a product in the listings.
type slot struct{ listing, product int }

func newView(at time.Time, listings []Listing) *View {
	v := &View{At: at, listings: listings, activities: make(map[string]int), products: make(map[string]slot)}
	for i, l := range listings {
		v.activities[l.Activity.ID] = i
		for j, p := range l.Products {
			v.products[p.ID] = slot{i, j}
		}
	}
	return v
}

// Listings returns everything that [Store.OnSale] returned. It must not be
// changed.
func (v *View) Listings() []Listing { return v.listings }

// Listing returns an activity with its products, which must not be changed.
func (v *View) Listing(activityID string) (Listing, bool) {
	i, ok := v.activities[activityID]
	if !ok {
		return Listing{}, false
	}
	return v.listings[i], true
}

// Product returns a product with its activity.
func (v *View) Product(productID string) (Product, Activity, bool) {
	at, ok := v.products[productID]
	if !ok {
		return Product{}, Activity{}, false
	}
	l := v.listings[at.listing]
	return l.Products[at.product], l.Activity, true
}

// Snapshot is the catalogue as a gateway reads it on every request: from
// memory, at most maxAge old while MySQL answers. It is safe for concurrent
// use.
type Snapshot struct {
	load   func(context.Context) ([]Listing, error)
	maxAge time.Duration
	now    func() time.Time

	mu      sync.Mutex
	view    *View         // the last that was read, or nil
	err     error         // of the last load
	next    time.Time     // no load before
	loading chan struct{} // closed at the end of the load under way, or nil
}

// NewSnapshot returns a snapshot of what store has on sale. It reads when it
// is asked and starts nothing. maxAge must be more than 0; 1 s is usual. now
// is the clock.
func NewSnapshot(store *Store, maxAge time.Duration, now func() time.Time) *Snapshot {
	return &Snapshot{load: store.OnSale, maxAge: maxAge, now: now}
}

// Current returns the view that [Snapshot.Get] would return without a wait, or
// nil when Get has something to do.
func (s *Snapshot) Current() *View {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.loading != nil || s.err != nil || !s.now().Before(s.next) {
		return nil
	}
	return s.view
}

// Get returns the view. When it is older than maxAge, one caller's call starts
// a load for all, and they wait for it, or until their ctx ends. There is at
// most one load per maxAge (less up to a tenth, so that gateways which started
// together drift apart), whether it succeeds or not.
//
// While MySQL is away the last view goes on being served, without a wait once
// a load has come to nothing; its Err says why, and its At how old it is. An
// error is returned only when there has never been a view, or ctx ended.
func (s *Snapshot) Get(ctx context.Context) (*View, error) {
	s.mu.Lock()
	if s.loading == nil && !s.now().Before(s.next) {
		s.start(ctx)
	}
	view, err, loading := s.view, s.err, s.loading
	s.mu.Unlock()
	if loading == nil || (view != nil && err != nil) {
		return answer(view, err)
	}
	select {
	case <-loading:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return answer(s.view, s.err)
}

func answer(view *View, err error) (*View, error) {
	if view == nil {
		return nil, err
	}
	return view, nil
}

// start loads in the background, so that no caller's end takes the load from
// the others. The mutex is held.
func (s *Snapshot) start(ctx context.Context) {
	s.loading = make(chan struct{})
	s.next = s.now().Add(s.maxAge - time.Duration(rand.Int64N(int64(s.maxAge)/10+1)))
	go func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), loadTimeout)
		defer cancel()
		at := s.now() // before the read: a view is never younger than it says
		listings, err := s.load(ctx)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.err = err
		if err == nil {
			s.view = newView(at, listings)
		} else if s.view != nil {
			stale := *s.view
			stale.Err = err
			s.view = &stale
		}
		close(s.loading)
		s.loading = nil
	}()
}
