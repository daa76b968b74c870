package stock

import "testing"

// TestConfigureFollowsTheTotal: Redis takes each change of the total once, the
// latest, in whatever order it hears of them.
func TestConfigureFollowsTheTotal(t *testing.T) {
	s := newShop(t, CacheConfig{})
	terms := s.terms()
	terms.Total, terms.Restocks = 10, 0
	if ok, err := s.Preload(t.Context(), terms, 8, each([]Reservation{row("ann", 1, 2, Deducted)})); !ok || err != nil {
		t.Fatal(ok, err)
	}
	for _, tt := range []struct {
		total, restocks, surplus int64
		why                      string
	}{
		{10, 0, 8, "nothing has changed"},
		{15, 1, 13, "five more"},
		{15, 1, 13, "told twice"},
		{3, 3, 1, "the second change is overtaken by the third"},
		{25, 2, 1, "and comes too late"},
		{1, 4, -1, "fewer than are pending or sold here: nothing sells until that is decided"},
		{30, 5, 28, "and again"},
	} {
		terms.Total, terms.Restocks = tt.total, tt.restocks
		if err := s.Configure(t.Context(), terms); err != nil {
			t.Fatalf("%s: %v", tt.why, err)
		}
		if got, err := s.Surplus(t.Context(), terms.ProductID); err != nil || got != tt.surplus {
			t.Errorf("%s: surplus %d, %v, want %d", tt.why, got, err, tt.surplus)
		}
	}
}
