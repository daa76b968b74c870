package stock

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/leadingpeers/seckill/lua"
)

// What the scripts that this project began with did when pushed, row by row,
// and what ours do. The seed's scripts took the stock field, the limit field
// and an increment; they knew no buyer and no ID.
func TestSeedTable(t *testing.T) {
	for _, tt := range []struct {
		why string
		try func(s shop)
	}{
		{"stock 3, buy 5, limit 5: was accepted, stock -2", func(s shop) {
			s.put(onSale("3"))
			s.wantRow("sold_out", ask{"ann", id(1), "5", ""})
			s.units(3, 0, 0)
		}},
		{"roll that 5 back: was refused for ever, units lost", func(s shop) {
			s.put(onSale("3"))
			s.rawApply(ask{"ann", id(1), "5", "C"}) // only the ledger can take the surplus below 0
			s.units(-2, 0, 5)
			s.rawApply(ask{"ann", id(1), "5", "R"})
			s.units(3, 0, 0)
		}},
		{"roll back twice: was 7, 10, 13", func(s shop) {
			s.put(onSale("10"))
			s.wantRow("+", ask{"ann", id(1), "3", ""})
			s.units(7, 3, 0)
			s.rawApply(ask{"ann", id(1), "3", "R"})
			s.units(10, 0, 0)
			s.rawApply(ask{"ann", id(1), "3", "R"})
			s.units(10, 0, 0)
		}},
		{"roll back 1,000,000 that nobody reserved: was stock 1,000,010", func(s shop) {
			s.put(onSale("10"))
			if got := s.rawApply(ask{"ann", id(1), "1000000", "R"}); got != "t" {
				s.Errorf("outcome %q, want a tombstone", got)
			}
			s.units(10, 0, 0)
		}},
		{"the limit field missing: was a run-time error", func(s shop) {
			s.put(with(onSale("10"), "per_order", "-"))
			s.wantRow("not_loaded", ask{"ann", id(1), "1", ""})
		}},
		{"the same user five times: was accepted every time", func(s shop) {
			s.put(with(onSale("10"), "per_user", "2"))
			for i, want := range []string{"+", "+", "over_user_limit", "over_user_limit", "over_user_limit"} {
				s.wantRow(want, ask{"ann", id(i), "1", ""})
			}
			s.units(8, 2, 0)
		}},
		{"-1 meant both no such product and sold out", func(s shop) {
			s.wantRow("not_loaded", ask{"ann", id(1), "1", ""})
			s.put(onSale("0"))
			s.wantRow("sold_out", ask{"ann", id(1), "1", ""})
		}},
		{"no ID, so a retry bought again", func(s shop) {
			s.put(onSale("10"))
			s.wantRow("+", ask{"ann", id(1), "3", ""})
			if got := s.rawReserve(ask{"ann", id(1), "3", ""}); !strings.HasPrefix(got[0], "3,P,") {
				s.Errorf("row %q, want the record", got)
			}
			s.units(7, 3, 0)
		}},
	} {
		t.Run(tt.why, func(t *testing.T) { tt.try(newShop(t, CacheConfig{})) })
	}
}

// wantRow reserves and compares the row.
func (s shop) wantRow(want string, a ask) {
	s.Helper()
	if got := s.rawReserve(a); got[0] != want {
		s.Errorf("row of %v is %q, want %q", a, got[0], want)
	}
}

// hostile are increments that moved units, or were an error, in the seed's
// scripts, and their relatives.
func hostile() []string {
	return []string{
		"0", "-0", "-5", "0.5", "5.0", "1e0", "1e300", "-1e300", "abc", "nan", "inf", "0x4", "0x", "", " ", " 1", "1 ", "+1",
		"01", "00", "1;", "1,P", "2,P", "2,", "1\n", "1\x00", "\x00", "１", "1_000", "1,0", "9999999999", "1000000000",
		"99999999999999999999999999999999", "%d", ".", "1" + strings.Repeat("0", 5000),
	}
}

func TestHostileQuantities(t *testing.T) {
	s := newShop(t, CacheConfig{})
	s.put(with(onSale("1000"), "per_order", "999999999999", "per_user", "999999999999",
		"u:bob", "3;"+id(7)+",2,P,"+then+";"+id(8)+",1,C,"+then))
	before := s.get()
	for _, quantity := range hostile() {
		for _, user := range []string{"ann", "bob"} {
			if got := s.rawReserve(ask{user, id(1), quantity, ""}); got[0] != "over_order_limit" {
				t.Errorf("reserve %.40q: %q, want over_order_limit", quantity, got)
			}
			for _, state := range []string{"C", "R"} {
				if got := s.rawApply(ask{user, id(1), quantity, state}); got != "x" {
					t.Errorf("apply %.40q %s to an unknown ID: %q, want x", quantity, state, got)
				}
			}
		}
		if got := s.rawReserve(ask{"bob", id(7), quantity, ""}); got[0] != "id_reused" {
			t.Errorf("reserve a known ID with %.40q: %q, want id_reused", quantity, got)
		}
		for _, state := range []string{"C", "R"} {
			if got := s.rawApply(ask{"bob", id(7), quantity, state}, ask{"bob", id(8), quantity, state}); got != "xx" {
				t.Errorf("apply %.40q %s to known IDs: %q, want xx", quantity, state, got)
			}
		}
		if diff := cmp.Diff(before, s.get()); diff != "" {
			t.Fatalf("%.40q changed the product: %s", quantity, diff)
		}
		if open := s.openList(); len(open) != 0 {
			t.Fatalf("%.40q opened %q", quantity, open)
		}
	}
	// In the middle of a batch it does not spoil its neighbours.
	var asks []ask
	for i, quantity := range hostile() {
		asks = append(asks, ask{"ann", id(100 + i), quantity, ""}, ask{"eve", id(200 + i), "1", ""})
	}
	rows := s.rawReserve(asks...)
	if n := len(slices.DeleteFunc(rows, func(row string) bool { return row != "+" })); n != min(32, len(hostile())) {
		t.Errorf("%d neighbours were reserved, want the 32 a buyer may have", n)
	}
	s.units(1000-32, 2+32, 1)
}

// A call that is not laid out as it should is an error, and no unit moves.
func TestHostileCalls(t *testing.T) {
	s := newShop(t, CacheConfig{})
	s.put(with(onSale("1000"), "u:ann", "3;"+id(7)+",2,P,"+then+";"+id(8)+",1,C,"+then))
	product, open, temporary := s.keys.product(s.product), s.keys.open(s.product), s.keys.load(s.product, "x")
	many := func(n int, arrays int) []string {
		asks := make([]ask, n)
		for i := range asks {
			asks[i] = ask{"bob", id(1000 + i), "1", "C"}
		}
		return argv(asks, arrays)
	}
	before := s.get()
	for _, tt := range []struct {
		why  string
		text string
		keys []string
		argv []string
	}{
		{"reserve: nothing asked", lua.Reserve, []string{product, open}, nil},
		{"reserve: an argument short", lua.Reserve, []string{product, open}, []string{"u:ann", id(1)}},
		{"reserve: one too many", lua.Reserve, []string{product, open}, []string{"u:ann", id(1), "1", "C"}},
		{"reserve: more than a script may unpack", lua.Reserve, []string{product, open}, many(501, 3)},
		{"apply: nothing asked", lua.Apply, []string{product}, nil},
		{"apply: an argument short", lua.Apply, []string{product}, []string{"u:ann", id(7), "2"}},
		{"apply: more than a script may unpack", lua.Apply, []string{product}, many(501, 4)},
		{"reap: no limit", lua.Reap, []string{product, open}, []string{"0"}},
		{"reap: limit 0", lua.Reap, []string{product, open}, []string{"0", "0"}},
		{"reap: a limit with a fraction", lua.Reap, []string{product, open}, []string{"0", "1.5"}},
		{"reap: too high a limit", lua.Reap, []string{product, open}, []string{"0", "501"}},
		{"reap: an age below 0 would return what is not pending yet", lua.Reap, []string{product, open}, []string{"-1", "9"}},
		{"preload: no such verb", lua.Preload, []string{product, temporary}, []string{"drop"}},
		{"preload: nothing to fill", lua.Preload, []string{product, temporary}, []string{"fill", "1000"}},
		{"preload: a field without its value", lua.Preload, []string{product, temporary}, []string{"fill", "1000", "u:ann"}},
		{"preload: a ttl that never ends", lua.Preload, []string{product, temporary}, []string{"fill", "0", "u:ann", "1"}},
		{"preload: a surplus below 0", lua.Preload, []string{product, temporary}, []string{"publish", "0", "-5", "1", "1", "1", "0", "9", "9", "0", "a1"}},
		{"preload: a term is missing", lua.Preload, []string{product, temporary}, []string{"publish", "0", "5", "1", "1", "1", "0", "9", "9"}},
		{"preload: nobody could tell the load from another", lua.Preload, []string{product, temporary}, []string{"publish", "0", "5", "1", "1", "1", "0", "9", "9", "0"}},
		{"preload: a name that is none", lua.Preload, []string{product, temporary}, []string{"publish", "0", "5", "1", "1", "1", "0", "9", "9", "0", "A-1"}},
		{"configure: a limit below 0", lua.Configure, []string{product}, []string{"-1", "1", "1", "0", "9", "9", "0"}},
		{"configure: a limit that is no number", lua.Configure, []string{product}, []string{"nan", "1", "1", "0", "9", "9", "0"}},
		{"configure: a term is missing", lua.Configure, []string{product}, []string{"1", "1", "1", "0", "9", "9"}},
	} {
		if reply, err := s.eval(tt.text, tt.keys, tt.argv...); err == nil {
			t.Errorf("%s: replied %v, want an error", tt.why, reply)
		}
		if diff := cmp.Diff(before, s.get()); diff != "" {
			t.Fatalf("%s: changed the product: %s", tt.why, diff)
		}
		if open := s.openList(); len(open) != 0 {
			t.Fatalf("%s: opened %q", tt.why, open)
		}
	}
	// The largest batches that are allowed.
	if got := len(s.rawReserve(slices.Repeat([]ask{{"bob", id(1), "1", ""}}, MaxBatch)...)); got != MaxBatch {
		t.Errorf("%d rows to %d requests", got, MaxBatch)
	}
	if got := s.rawApply(slices.Repeat([]ask{{"bob", id(1), "1", "R"}}, MaxBatch)...); got != "c"+strings.Repeat("s", MaxBatch-1) {
		t.Errorf("outcomes %.20q", got)
	}
}

// The Go side turns away what the scripts would not check.
func TestHostileReservations(t *testing.T) {
	s := newShop(t, CacheConfig{})
	s.load(10)
	good := Reservation{ID: id(1), ProductID: s.product, UserID: "ann", Quantity: 1, State: Deducted}
	for _, tt := range []struct {
		why   string
		spoil func(r *Reservation)
	}{
		{"quantity 0", func(r *Reservation) { r.Quantity = 0 }},
		{"quantity -5", func(r *Reservation) { r.Quantity = -5 }},
		{"ten digits", func(r *Reservation) { r.Quantity = MaxQuantity + 1 }},
		{"no ID", func(r *Reservation) { r.ID = "" }},
		{"an ID with a separator", func(r *Reservation) { r.ID = id(1)[:25] + ";" }},
		{"an ID with capitals", func(r *Reservation) { r.ID = strings.ToUpper(id(1)) }},
		{"no user", func(r *Reservation) { r.UserID = "" }},
		{"a user with a space", func(r *Reservation) { r.UserID = "a b" }},
		{"a user too long", func(r *Reservation) { r.UserID = strings.Repeat("a", 65) }},
		{"a product that leaves its hash tag", func(r *Reservation) { r.ProductID = "p1}:{p2" }},
	} {
		r := good
		tt.spoil(&r)
		if _, _, err := s.Reserve(t.Context(), r); err == nil {
			t.Errorf("%s: reserved", tt.why)
		}
		if _, err := s.Apply(t.Context(), []Reservation{good, r}); err == nil {
			t.Errorf("%s: applied", tt.why)
		}
		s.units(10, 0, 0)
	}
}
