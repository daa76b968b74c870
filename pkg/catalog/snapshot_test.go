package catalog

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// shelf counts the loads and answers as it is told.
type shelf struct {
	loads atomic.Int64
	takes time.Duration
	mu    sync.Mutex
	err   error
}

func (s *shelf) load(ctx context.Context) ([]Listing, error) {
	n := s.loads.Add(1)
	select {
	case <-time.After(s.takes):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return nil, s.err
	}
	p := Product{ID: "p", Version: n}
	return []Listing{{Activity: Activity{ID: "a"}, Products: []Product{p, {ID: "q"}}}, {Activity: Activity{ID: "b"}}}, nil
}

func (s *shelf) setErr(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func newTestSnapshot(s *shelf, maxAge time.Duration) *Snapshot {
	return &Snapshot{load: s.load, maxAge: maxAge, now: time.Now}
}

func TestSnapshotLoadsOncePerMaxAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shelf := &shelf{takes: 10 * time.Millisecond}
		s := newTestSnapshot(shelf, time.Second)
		start := time.Now()
		var wg sync.WaitGroup
		for caller := range 64 {
			wg.Go(func() {
				for time.Since(start) < 10*time.Second {
					v, err := s.Get(t.Context())
					if err != nil || v.Err != nil {
						t.Errorf("caller %d: %v", caller, err)
						return
					}
					if age := time.Since(v.At); age > time.Second+shelf.takes {
						t.Errorf("caller %d was served a view %s old", caller, age)
						return
					}
					time.Sleep(time.Duration(1+caller) * time.Millisecond)
				}
			})
		}
		wg.Wait()
		// At least 0.9 s and at most 1 s and a little from one load to the next.
		if n := shelf.loads.Load(); n < 10 || n > 12 {
			t.Errorf("%d loads in ten seconds", n)
		}
	})
}

func TestSnapshotServesWhatItHasWhileMySQLIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shelf := &shelf{takes: 10 * time.Millisecond}
		s := newTestSnapshot(shelf, time.Second)
		away := errors.New("away")
		fresh, err := s.Get(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		shelf.setErr(away)
		time.Sleep(2 * time.Second)
		before := shelf.loads.Load()
		start := time.Now()
		for time.Since(start) < 5*time.Second {
			asked := time.Now()
			v, err := s.Get(t.Context())
			if err != nil || !errors.Is(v.Err, away) || !v.At.Equal(fresh.At) {
				t.Fatalf("while away: %+v, %v", v, err)
			}
			if waited := time.Since(asked); waited > 0 && asked != start {
				t.Fatalf("waited %s for what was known to be away", waited)
			}
			time.Sleep(20 * time.Millisecond)
		}
		if n := shelf.loads.Load() - before; n < 5 || n > 6 {
			t.Errorf("%d loads in five seconds while away", n)
		}
		if fresh.Err != nil {
			t.Error("a view that was handed out has changed")
		}
		shelf.setErr(nil)
		time.Sleep(time.Second)
		for range 2 { // the first of them starts the load that succeeds
			if _, err := s.Get(t.Context()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(shelf.takes)
			synctest.Wait()
		}
		v, err := s.Get(t.Context())
		if p, _, _ := v.Product("p"); err != nil || v.Err != nil || p.Version != shelf.loads.Load() {
			t.Errorf("when it is back: %+v, %v", v, err)
		}
	})
}

func TestSnapshotWithoutAnyView(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		away := errors.New("away")
		shelf := &shelf{takes: 10 * time.Millisecond, err: away}
		s := newTestSnapshot(shelf, time.Second)
		for range 3 {
			if v, err := s.Get(t.Context()); v != nil || !errors.Is(err, away) {
				t.Errorf("never loaded: %v, %v", v, err)
			}
		}
		if n := shelf.loads.Load(); n != 1 {
			t.Errorf("%d loads, want 1", n)
		}
		shelf.setErr(nil)
		time.Sleep(time.Second)
		if v, err := s.Get(t.Context()); err != nil || v.Err != nil {
			t.Errorf("a second later: %v, %v", v, err)
		}
	})
}

// A caller that gives up gets its own error, and does not spoil the load for
// the others; a load that hangs is given up.
func TestSnapshotCallersComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shelf := &shelf{takes: 100 * time.Millisecond}
		s := newTestSnapshot(shelf, time.Second)
		hasty, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if _, err := s.Get(hasty); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("hasty: %v", err)
		}
		if _, err := s.Get(t.Context()); err != nil || shelf.loads.Load() != 1 {
			t.Errorf("patient: %v after %d loads", err, shelf.loads.Load())
		}
		shelf.takes = time.Hour
		time.Sleep(time.Second)
		start := time.Now()
		var wg sync.WaitGroup
		wg.Go(func() { // comes while the load hangs, when the next one would be due
			time.Sleep(2 * time.Second)
			if _, err := s.Get(t.Context()); err != nil || shelf.loads.Load() != 2 {
				t.Errorf("beside a load that hangs: %v after %d loads", err, shelf.loads.Load())
			}
		})
		v, err := s.Get(t.Context())
		wg.Wait()
		if err != nil || !errors.Is(v.Err, context.DeadlineExceeded) || time.Since(start) != loadTimeout {
			t.Errorf("a load that hangs: %+v, %v after %s", v, err, time.Since(start))
		}
	})
}

func TestView(t *testing.T) {
	s := newTestSnapshot(&shelf{}, time.Second)
	v, err := s.Get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct{ product, want, why string }{
		{"p", "p a true", "the first"},
		{"q", "q a true", "the second"},
		{"a", "  false", "an activity is no product"},
	}
	for _, tt := range tests {
		p, a, ok := v.Product(tt.product)
		if got := fmt.Sprint(p.ID, " ", a.ID, " ", ok); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.why, got, tt.want)
		}
	}
	if l, ok := v.Listing("a"); !ok || len(l.Products) != 2 {
		t.Errorf("listing: %+v, %v", l, ok)
	}
	if _, ok := v.Listing("p"); ok {
		t.Error("a product is no activity")
	}
	if len(v.Listings()) != 2 {
		t.Errorf("listings: %+v", v.Listings())
	}
}

func TestCurrentIsWhatGetWouldNotWaitFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shelf := &shelf{takes: 10 * time.Millisecond}
		s := newTestSnapshot(shelf, time.Second)
		if s.Current() != nil {
			t.Error("a view before anything was read")
		}
		v, err := s.Get(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Current(); got != v {
			t.Errorf("got %p, want the view %p that was just read", got, v)
		}
		time.Sleep(time.Second)
		if s.Current() != nil {
			t.Error("a view that is too old")
		}
		shelf.setErr(errors.New("away"))
		if _, err := s.Get(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if s.Current() != nil {
			t.Error("a view while MySQL is away: Get has its error to tell")
		}
	})
}
