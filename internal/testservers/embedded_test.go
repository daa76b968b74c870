package testservers

import (
	"context"
	"testing"
)

func TestStandInRunsFromItsFirstUserToItsLast(t *testing.T) {
	var s standIn
	var starts, stops int
	start := func(context.Context) ([]string, func() error, error) {
		starts++
		return []string{"here"}, func() error { stops++; return nil }, nil
	}
	expect := func(t *testing.T, why string, wantStarts, wantStops int) {
		t.Helper()
		if starts != wantStarts || stops != wantStops {
			t.Errorf("%s: %d starts and %d stops, want %d and %d", why, starts, stops, wantStarts, wantStops)
		}
	}
	t.Run("a test", func(t *testing.T) {
		if got := s.use(t, start); len(got) != 1 || got[0] != "here" {
			t.Errorf("addresses %v, want the stand-in's", got)
		}
		t.Run("a second user", func(t *testing.T) { s.use(t, start) })
		expect(t, "the second has ended, the first has not", 1, 0)
	})
	expect(t, "nobody uses it", 1, 1)
	t.Run("a later test", func(t *testing.T) { s.use(t, start) })
	expect(t, "used again", 2, 2)
}
