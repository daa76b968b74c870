package judge

import (
	"testing"

	"github.com/leadingpeers/seckill/internal/torture/load"
)

// TestPromise: what the ledger and the orders may say of a promise, and what
// they must not.
func TestPromise(t *testing.T) {
	p := load.Promise{ID: "a", Product: "p", User: "u", Quantity: 2}
	is := func(state, order string) row {
		return row{product: "p", user: "u", quantity: 2, state: state, order: order}
	}
	tests := []struct {
		why     string
		row     row
		excused bool
		want    Verdict
		ended   bool
	}{
		{"paid", is("deducted", "paid"), false, Verdict{}, true},
		{"cancelled and given back", is("rolled_back", "cancelled"), false, Verdict{}, true},
		{"a rollback that came first", is("rolled_back", ""), false, Verdict{}, true},
		{"refused after a loss of Redis", is("refused", ""), true, Verdict{}, true},
		{"refused though nothing was lost", is("refused", ""), false, Verdict{Other: 1}, true},
		{"never heard of", row{}, false, Verdict{Lost: 1}, false},
		{"nobody has paid or cancelled", is("deducted", "awaiting_payment"), false, Verdict{Lost: 1}, false},
		{"no order", is("deducted", ""), false, Verdict{Lost: 1}, false},
		{"cancelled and the units kept", is("deducted", "cancelled"), false, Verdict{Lost: 1}, false},
		{"paid and given back", is("rolled_back", "paid"), false, Verdict{Lost: 1}, false},
		{"another quantity", row{product: "p", user: "u", quantity: 1, state: "deducted", order: "paid"}, false, Verdict{Lost: 1}, true},
		{"another buyer", row{product: "p", user: "v", quantity: 2, state: "deducted", order: "paid"}, false, Verdict{Lost: 1}, true},
	}
	for _, tt := range tests {
		s := State{Refused: map[string]int{}}
		s.promise(Case{Excused: func(string) bool { return tt.excused }}, p, tt.row)
		j := New(nil)
		j.Settle(s)
		if got, findings := j.Verdict(); got != tt.want {
			t.Errorf("%s: %+v, want %+v: %v", tt.why, got, tt.want, findings)
		}
		if ended := s.Unknown+s.Unended == 0; ended != tt.ended {
			t.Errorf("%s: ended %t, want %t", tt.why, ended, tt.ended)
		}
	}
}

// TestScraper adds up the lives of a process.
func TestScraper(t *testing.T) {
	s := NewScraper()
	for _, v := range []float64{0, 5, 7, 2, 3} { // it died after 7
		s.take("w1", "seckill_reaped_total", v)
	}
	s.take("w2", "seckill_reaped_total", 1)
	s.take("w2", `seckill_swept_total{kind="unsettled"}`, 4)
	s.take("w2", `seckill_swept_total{kind="unreturned"}`, 2)
	s.take("w1", "go_goroutines", 50)
	s.take("w1", "go_goroutines", 20)
	if a, b := s.Total("seckill_reaped_total"), s.Total("seckill_swept_total"); a != 11 || b != 6 {
		t.Errorf("reaped %d and swept %d, want 11 and 6", a, b)
	}
	if g := s.Growth(); g["peak_go_goroutines"] != 50 || g["end_go_goroutines"] != 20 {
		t.Errorf("%v, want a peak of 50 and 20 at the end", g)
	}
}
