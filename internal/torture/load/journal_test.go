package load

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// TestJournal: each promise is on disk once, and two that contradict each other
// are found.
func TestJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "promises")
	j, err := OpenJournal(path)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			n := i % 50 // each of them twice
			if _, err := j.Add(Promise{ID: fmt.Sprint(n), Product: "p", User: "u", Key: fmt.Sprint("k", n), Quantity: 1}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	text, err := os.ReadFile(path)
	if lines := bytes.Count(text, []byte("\n")); err != nil || lines != 50 {
		t.Errorf("%d lines on disk, want 50 (%v)", lines, err)
	}
	if promises, twice := j.Promises(); len(promises) != 50 || len(twice) != 0 {
		t.Errorf("%d promises, contradictions %v", len(promises), twice)
	}
	for _, bad := range []Promise{
		{ID: "other", Product: "p", User: "u", Key: "k1", Quantity: 1}, // one key, two reservations
		{ID: "2", Product: "p", User: "u", Key: "k2", Quantity: 2},     // another quantity
		{ID: "3", Product: "p", User: "v", Key: "k3", Quantity: 1},     // one reservation, two buyers
	} {
		if _, err := j.Add(bad); err != nil {
			t.Fatal(err)
		}
	}
	if _, twice := j.Promises(); len(twice) != 3 {
		t.Errorf("contradictions %v, want 3", twice)
	}
	if err := j.Close(); err != nil {
		t.Error(err)
	}
}
