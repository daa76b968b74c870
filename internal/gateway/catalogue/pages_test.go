package catalogue

import (
	"errors"
	"fmt"
	"testing"

	"github.com/leadingpeers/seckill/pkg/catalog"
)

func TestPagesAreMadeOncePerView(t *testing.T) {
	var p pages
	made := 0
	count := func() (any, error) { made++; return made, nil }
	first, second := &catalog.View{}, &catalog.View{}
	for _, c := range []struct {
		why  string
		view *catalog.View
		key  string
		want int
	}{
		{"the first time", first, "a", 1},
		{"again", first, "a", 1},
		{"another page", first, "b", 2},
		{"a newer view", second, "a", 3},
		{"again", second, "a", 3},
	} {
		if _, err := p.of(c.view, c.key, count); err != nil || made != c.want {
			t.Errorf("%s: made %d times, want %d: %v", c.why, made, c.want, err)
		}
	}
	if _, err := p.of(second, "c", func() (any, error) { return nil, errors.New("gone") }); err == nil {
		t.Error("an error was hidden")
	}
	if _, err := p.of(second, "c", count); err != nil || made != 4 {
		t.Errorf("after an error it was not made: %v", err)
	}
}

// Whoever invents pages must not fill the memory.
func TestPagesAreBounded(t *testing.T) {
	var p pages
	view, made := &catalog.View{}, 0
	for range 2 {
		for i := range maxPages + 50 {
			if _, err := p.of(view, fmt.Sprint(i), func() (any, error) { made++; return i, nil }); err != nil {
				t.Fatal(err)
			}
		}
	}
	if made != maxPages+100 {
		t.Errorf("made %d, want %d: those over the limit each time", made, maxPages+100)
	}
}
