package stock

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/leadingpeers/seckill/lua"
)

const then = "1700000000000" // when the records that the tables start from were made

// put writes fields of the product's hash, as a test wants them.
func (s shop) put(fields map[string]string) {
	s.Helper()
	if err := s.client.HSet(s.Context(), s.keys.product(s.product), fields).Err(); err != nil {
		s.Fatal(err)
	}
}

// get reads the product's hash.
func (s shop) get() map[string]string {
	s.Helper()
	fields, err := s.client.HGetAll(s.Context(), s.keys.product(s.product)).Result()
	if err != nil {
		s.Fatal(err)
	}
	return fields
}

// openList reads the product's open list.
func (s shop) openList() []string {
	s.Helper()
	users, err := s.client.LRange(s.Context(), s.keys.open(s.product), 0, -1).Result()
	if err != nil {
		s.Fatal(err)
	}
	return users
}

// onSale is a product's terms as a hash has them.
func onSale(surplus string) map[string]string {
	return map[string]string{
		"surplus": surplus, "per_order": "5", "per_user": "10", "state": "1", "starts_at": "0", "ends_at": "99999999999999",
	}
}

// with returns fields with some of them set, or left out when the value is "-".
func with(fields map[string]string, changes ...string) map[string]string {
	for i := 0; i < len(changes); i += 2 {
		fields[changes[i]] = changes[i+1]
		if changes[i+1] == "-" {
			delete(fields, changes[i])
		}
	}
	return fields
}

func TestReserveScript(t *testing.T) {
	full := "0" // a buyer's field with 32 records
	for i := range 32 {
		full += ";" + id(100+i) + ",1,R," + then
	}
	ann := func(quantity string) []ask { return []ask{{user: "ann", id: id(1), quantity: quantity}} }
	for _, tt := range []struct {
		why     string
		fields  map[string]string
		asks    []ask
		rows    []string
		surplus string
	}{
		{"units are there: taken", onSale("3"), ann("2"), []string{"+"}, "1"},
		{"the last units can be had", onSale("2"), ann("2"), []string{"+"}, "0"},
		{"one unit short: not a part of it", onSale("1"), ann("2"), []string{"sold_out"}, "1"},
		{"a surplus below 0, after an adoption", onSale("-2"), ann("1"), []string{"sold_out"}, "-2"},
		{"more than an order may have", onSale("100"), ann("6"), []string{"over_order_limit"}, "100"},
		{"the limit of an order itself", onSale("100"), ann("5"), []string{"+"}, "95"},
		{"the buyer's limit counts what is held", with(onSale("100"), "u:ann", "8;"+id(7)+",8,C,"+then), ann("3"), []string{"over_user_limit"}, "100"},
		{"up to the buyer's limit", with(onSale("100"), "u:ann", "8;"+id(7)+",8,C,"+then), ann("2"), []string{"+"}, "98"},
		{"what was rolled back is not held", with(onSale("100"), "u:ann", "0;"+id(7)+",9,R,"+then), ann("5"), []string{"+"}, "95"},
		{"closed", with(onSale("9"), "state", "0"), ann("1"), []string{"not_on_sale"}, "9"},
		{"before the window", with(onSale("9"), "starts_at", "99999999999998"), ann("1"), []string{"not_on_sale"}, "9"},
		{"after the window", with(onSale("9"), "ends_at", "1700000000000"), ann("1"), []string{"not_on_sale"}, "9"},
		{"no hash at all", nil, ann("1"), []string{"not_loaded"}, ""},
		{"a hash that is not whole sells nothing", with(onSale("9"), "per_user", "-"), ann("1"), []string{"not_loaded"}, "9"},
		{"a surplus that is no number sells nothing", onSale("abc"), ann("1"), []string{"not_loaded"}, "abc"},
		{"nan is a number to Redis's Lua, and no quantity is more", onSale("nan"), ann("1"), []string{"not_loaded"}, "nan"},
		{"32 records are the most", with(onSale("9"), "u:ann", full), ann("1"), []string{"too_many_attempts"}, "9"},
		{"31 are not", with(onSale("9"), "u:ann", full[:strings.LastIndex(full, ";")]), ann("1"), []string{"+"}, "8"},
		{"a known ID: the answer on record", with(onSale("9"), "u:ann", "2;"+id(1)+",2,P,"+then), ann("2"), []string{"2,P," + then}, "9"},
		{"on record as deducted", with(onSale("9"), "u:ann", "2;"+id(7)+",1,P,5;"+id(1)+",2,C,"+then+";"+id(8)+",1,P,6"), ann("2"), []string{"2,C," + then}, "9"},
		{"on record as rolled back: it does not reserve again", with(onSale("9"), "u:ann", "0;"+id(1)+",2,R,"+then), ann("2"), []string{"2,R," + then}, "9"},
		{"the record comes before sold out, or the last unit's buyer would be told no", with(onSale("0"), "u:ann", "2;"+id(1)+",2,P,"+then), ann("2"), []string{"2,P," + then}, "0"},
		{"and before the end of the sale", with(onSale("9"), "state", "0", "u:ann", "2;"+id(1)+",2,P,"+then), ann("2"), []string{"2,P," + then}, "9"},
		{"and before a full field", with(onSale("9"), "u:ann", full), []ask{{"ann", id(100), "1", ""}}, []string{"1,R," + then}, "9"},
		{"a known ID with another quantity", with(onSale("9"), "u:ann", "2;"+id(1)+",2,P,"+then), ann("3"), []string{"id_reused"}, "9"},
		{"with one that begins the same", with(onSale("9"), "u:ann", "2;"+id(1)+",22,P,"+then), ann("2"), []string{"id_reused"}, "9"},
		{"with one that runs on into the record", with(onSale("9"), "u:ann", "2;"+id(1)+",2,P,"+then), ann("2,P"), []string{"id_reused"}, "9"},
		{"with one that is no quantity", with(onSale("9"), "u:ann", "2;"+id(1)+",2,P,"+then), ann(""), []string{"id_reused"}, "9"},
		{"the ID of another buyer is not known here", with(onSale("9"), "u:bob", "2;"+id(1)+",2,P,"+then), ann("2"), []string{"+"}, "7"},
		{"a part of a known ID is another ID", with(onSale("9"), "u:ann", "2;"+id(1)+",2,P,"+then), []ask{{"ann", id(1)[1:], "2", ""}}, []string{"+"}, "7"},
		{"a number that stands in a record is no ID", with(onSale("9"), "u:ann", "2;"+id(1)+",2,P,"+then), []ask{{"ann", "2", "2", ""}}, []string{"+"}, "7"},
		{"an ID is no pattern", with(onSale("9"), "u:ann", "2;"+id(1)+",2,P,"+then), []ask{{"ann", ".*", "2", ""}}, []string{"+"}, "7"},
		{
			"a batch sees its own earlier requests: stock", onSale("3"),
			[]ask{{"ann", id(1), "2", ""}, {"bob", id(2), "2", ""}, {"eve", id(3), "1", ""}},
			[]string{"+", "sold_out", "+"},
			"0",
		},
		{
			"a batch sees its own earlier requests: the buyer's limit", with(onSale("99"), "per_user", "3"),
			[]ask{{"ann", id(1), "2", ""}, {"ann", id(2), "2", ""}, {"bob", id(3), "2", ""}, {"ann", id(4), "1", ""}},
			[]string{"+", "over_user_limit", "+", "+"},
			"94",
		},
		{
			"a batch with a refusal of each kind moves only what it says", with(onSale("3"), "u:bob", "1;"+id(9)+",1,C,"+then, "u:max", "9;"+id(8)+",9,C,"+then),
			[]ask{{"ann", id(1), "6", ""}, {"bob", id(9), "1", ""}, {"bob", id(9), "2", ""}, {"max", id(5), "2", ""}, {"ann", id(6), "4", ""}, {"ann", id(7), "3", ""}},
			[]string{"over_order_limit", "1,C," + then, "id_reused", "over_user_limit", "sold_out", "+"},
			"0",
		},
	} {
		t.Run(tt.why, func(t *testing.T) {
			s := newShop(t, CacheConfig{})
			if tt.fields != nil {
				s.put(tt.fields)
			}
			before := s.get()
			if got := s.rawReserve(tt.asks...); !slices.Equal(got, tt.rows) {
				t.Errorf("rows %q, want %q", got, tt.rows)
			}
			after := s.get()
			if after["surplus"] != tt.surplus {
				t.Errorf("surplus %q, want %q", after["surplus"], tt.surplus)
			}
			var winners []string
			for i, a := range tt.asks {
				if tt.rows[i] == "+" {
					winners = append(winners, a.user)
				}
			}
			if got := s.openList(); !slices.Equal(got, winners) {
				t.Errorf("open %q, want %q", got, winners)
			}
			if winners == nil && !cmp.Equal(before, after) {
				t.Errorf("a refusal changed the hash: %s", cmp.Diff(before, after))
			}
		})
	}
}

// A retry in the same batch as the first try, which a busy gateway makes.
func TestReserveScriptSameIDTwiceInOneBatch(t *testing.T) {
	s := newShop(t, CacheConfig{})
	s.put(onSale("5"))
	got := s.rawReserve(ask{"ann", id(1), "2", ""}, ask{"ann", id(1), "2", ""}, ask{"ann", id(1), "3", ""})
	if got[0] != "+" || !strings.HasPrefix(got[1], "2,P,") || got[2] != "id_reused" {
		t.Errorf("rows %q, want +, the record, id_reused", got)
	}
	s.units(3, 2, 0)
}

func TestReserveScriptRecord(t *testing.T) {
	s := newShop(t, CacheConfig{})
	s.put(onSale("5"))
	from := time.Now().Add(-time.Minute)
	s.rawReserve(ask{"ann", id(1), "2", ""}, ask{"ann", id(2), "1", ""})
	units, rs, err := readField(s.product, "ann", s.get()["u:ann"])
	if err != nil || units != 3 || len(rs) != 2 {
		t.Fatalf("field %q: %d units, %v, %v", s.get()["u:ann"], units, rs, err)
	}
	for i, r := range rs {
		if r.ID != id(i+1) || r.State != Pending || r.At.Before(from) || r.At.After(from.Add(2*time.Minute)) {
			t.Errorf("record %d is %+v", i, r)
		}
	}
}

func TestApplyScript(t *testing.T) {
	pending := func() map[string]string { return with(onSale("8"), "u:ann", "2;"+id(1)+",2,P,"+then) }
	deducted := func() map[string]string { return with(onSale("8"), "u:ann", "2;"+id(1)+",2,C,"+then) }
	rolledBack := func() map[string]string { return with(onSale("10"), "u:ann", "0;"+id(1)+",2,R,"+then) }
	ann := func(quantity, state string) []ask { return []ask{{"ann", id(1), quantity, state}} }
	for _, tt := range []struct {
		why      string
		fields   map[string]string
		asks     []ask
		outcomes string
		surplus  string
		field    string // of ann; "now" stands for the time of the call
	}{
		{"confirm what is pending", pending(), ann("2", "C"), "c", "8", "2;" + id(1) + ",2,C," + then},
		{"confirm twice", deducted(), ann("2", "C"), "s", "8", "2;" + id(1) + ",2,C," + then},
		{"a late confirmation does not undo a rollback", rolledBack(), ann("2", "C"), "s", "10", "0;" + id(1) + ",2,R," + then},
		{"roll back what is pending", pending(), ann("2", "R"), "c", "10", "0;" + id(1) + ",2,R," + then},
		{"roll back what is deducted", deducted(), ann("2", "R"), "c", "10", "0;" + id(1) + ",2,R," + then},
		{"roll back twice: the units go back once", rolledBack(), ann("2", "R"), "s", "10", "0;" + id(1) + ",2,R," + then},
		{"a rollback gives back what was taken, not what it claims", deducted(), ann("900", "R"), "c", "10", "0;" + id(1) + ",2,R," + then},
		{"Redis lost the ID, and a retry took more: the ledger's row counts", pending(), ann("1", "C"), "c", "9", "1;" + id(1) + ",1,C," + then},
		{"or less", pending(), ann("4", "C"), "c", "6", "4;" + id(1) + ",4,C," + then},
		{"a deduction that Redis lost is adopted", onSale("8"), ann("2", "C"), "a", "6", "2;" + id(1) + ",2,C,now"},
		{"even below 0", onSale("1"), ann("2", "C"), "a", "-1", "2;" + id(1) + ",2,C,now"},
		{"even above the limits", with(onSale("8"), "per_user", "1", "per_order", "1"), ann("2", "C"), "a", "6", "2;" + id(1) + ",2,C,now"},
		{"even when the sale is over", with(onSale("8"), "state", "0"), ann("2", "C"), "a", "6", "2;" + id(1) + ",2,C,now"},
		{"a rollback of nothing leaves a tombstone and no units", onSale("8"), ann("2", "R"), "t", "8", "0;" + id(1) + ",2,R,now"},
		{"beside the buyer's other records", with(onSale("8"), "u:ann", "2;"+id(7)+",2,P,"+then), ann("3", "C"), "a", "5", "5;" + id(7) + ",2,P," + then + ";" + id(1) + ",3,C,now"},
		{"the record in the middle", with(onSale("8"), "u:ann", "6;"+id(7)+",2,P,1;"+id(1)+",3,P,2;"+id(8)+",1,C,3"), ann("3", "R"), "c", "11", "3;" + id(7) + ",2,P,1;" + id(1) + ",3,R,2;" + id(8) + ",1,C,3"},
		{"not loaded", nil, ann("2", "C"), "n", "", ""},
		{"no quantity", pending(), ann("0.5", "C"), "x", "8", "2;" + id(1) + ",2,P," + then},
		{"no state", pending(), ann("2", "P"), "x", "8", "2;" + id(1) + ",2,P," + then},
		{
			"the same three times in one batch, the rollback last", pending(),
			[]ask{{"ann", id(1), "2", "C"}, {"ann", id(1), "2", "C"}, {"ann", id(1), "2", "R"}, {"ann", id(1), "2", "R"}, {"ann", id(1), "2", "C"}},
			"cscss", "10", "0;" + id(1) + ",2,R," + then,
		},
		{
			"an unknown one twice in one batch", onSale("8"),
			[]ask{{"ann", id(1), "2", "C"}, {"ann", id(1), "2", "C"}, {"ann", id(1), "2", "R"}},
			"asc", "8", "0;" + id(1) + ",2,R,now",
		},
		{
			"the rollback before the confirmation, in one batch", onSale("8"),
			[]ask{{"ann", id(1), "2", "R"}, {"ann", id(1), "2", "C"}},
			"ts", "8", "0;" + id(1) + ",2,R,now",
		},
		{
			"two of one buyer and one of another, mixed", with(onSale("8"), "u:ann", "3;"+id(1)+",1,P,1;"+id(2)+",2,P,2"),
			[]ask{{"ann", id(2), "2", "R"}, {"bob", id(3), "4", "C"}, {"ann", id(1), "1", "C"}},
			"cac", "6", "1;" + id(1) + ",1,C,1;" + id(2) + ",2,R,2",
		},
	} {
		t.Run(tt.why, func(t *testing.T) {
			s := newShop(t, CacheConfig{})
			if tt.fields != nil {
				s.put(tt.fields)
			}
			if got := s.rawApply(tt.asks...); got != tt.outcomes {
				t.Errorf("outcomes %q, want %q", got, tt.outcomes)
			}
			after := s.get()
			if after["surplus"] != tt.surplus {
				t.Errorf("surplus %q, want %q", after["surplus"], tt.surplus)
			}
			got := after["u:ann"]
			if strings.HasSuffix(tt.field, "now") {
				got = got[:max(0, len(got)-len(then))] + "now"
			}
			if got != tt.field {
				t.Errorf("field %q, want %q", got, tt.field)
			}
		})
	}
}

// Whatever was said before, a buyer with more records than may be reserved is
// still told the ledger's word.
func TestApplyScriptPastTheBound(t *testing.T) {
	s := newShop(t, CacheConfig{})
	s.put(with(onSale("1000"), "per_user", "1000"))
	for i := range 200 {
		s.rawApply(ask{"ann", id(i), "3", "C"})
	}
	if got := s.rawReserve(ask{"ann", id(999), "1", ""}); got[0] != "too_many_attempts" {
		t.Errorf("row %q", got)
	}
	s.units(400, 0, 600)
	for i := range 200 {
		if got := s.rawApply(ask{"ann", id(i), "3", "R"}, ask{"ann", id(i), "3", "R"}); got != "cs" {
			t.Fatalf("outcomes %q of rollback %d, want cs", got, i)
		}
	}
	s.units(1000, 0, 0)
}

func TestReapScript(t *testing.T) {
	now := time.Now().UnixMilli()
	ms := func(age time.Duration) string { return strconv.FormatInt(now-age.Milliseconds(), 10) }
	old, fresh := ms(time.Hour), ms(-time.Hour) // an hour of slack for the clocks
	rec := func(n int, state, at string) string { return ";" + id(n) + ",1," + state + "," + at }
	for _, tt := range []struct {
		why    string
		fields map[string]string
		open   []string
		limit  string
		found  []string // IDs
		after  []string
	}{
		{"nothing open", nil, nil, "9", nil, nil},
		{"old and pending: found, and turned to the end", map[string]string{"u:ann": "1" + rec(1, "P", old), "u:bob": "1" + rec(2, "P", fresh)}, []string{"ann", "bob"}, "9", []string{id(1)}, []string{"bob", "ann"}},
		{"young: stays where it is", map[string]string{"u:ann": "1" + rec(1, "P", fresh)}, []string{"ann"}, "9", nil, []string{"ann"}},
		{"settled: dropped", map[string]string{"u:ann": "1" + rec(1, "C", old), "u:bob": "0" + rec(2, "R", old)}, []string{"ann", "bob"}, "9", nil, nil},
		{"a buyer whom Redis does not know: dropped", nil, []string{"ann"}, "9", nil, nil},
		{"several of one buyer: all that are old", map[string]string{"u:ann": "4" + rec(1, "P", old) + rec(2, "C", old) + rec(3, "P", fresh) + rec(4, "P", old)}, []string{"ann"}, "9", []string{id(1), id(4)}, []string{"ann"}},
		{"a buyer in the list three times: once is enough", map[string]string{"u:ann": "1" + rec(1, "P", old), "u:bob": "1" + rec(2, "P", fresh)}, []string{"ann", "ann", "bob", "ann", "bob"}, "9", []string{id(1)}, []string{"bob", "ann"}},
		{"a young head does not hide an old one behind it", map[string]string{"u:ann": "1" + rec(1, "P", fresh), "u:bob": "1" + rec(2, "P", old)}, []string{"ann", "bob"}, "9", []string{id(2)}, []string{"ann", "bob"}},
		{"the order of young ones is kept", map[string]string{"u:ann": "1" + rec(1, "P", fresh), "u:bob": "1" + rec(2, "C", old), "u:eve": "1" + rec(3, "P", fresh)}, []string{"ann", "bob", "eve"}, "9", nil, []string{"ann", "eve"}},
		{"no more than the limit is looked at", map[string]string{"u:ann": "1" + rec(1, "P", old), "u:bob": "1" + rec(2, "P", old), "u:eve": "1" + rec(3, "P", old)}, []string{"ann", "bob", "eve"}, "2", []string{id(1), id(2)}, []string{"eve", "ann", "bob"}},
		{"a second entry behind the limit stays: it is dropped when its turn comes", map[string]string{"u:ann": "1" + rec(1, "P", old)}, []string{"ann", "ann"}, "1", []string{id(1)}, []string{"ann", "ann"}},
	} {
		t.Run(tt.why, func(t *testing.T) {
			s := newShop(t, CacheConfig{})
			fields := onSale("9")
			for name, value := range tt.fields {
				fields[name] = value
			}
			s.put(fields)
			for _, user := range tt.open {
				s.client.RPush(t.Context(), s.keys.open(s.product), user)
			}
			before := s.get()
			reply, err := s.eval(lua.Reap, []string{s.keys.product(s.product), s.keys.open(s.product)}, "60000", tt.limit)
			if err != nil {
				t.Fatal(err)
			}
			var found []string
			for i, element := range reply.([]any) {
				if i%4 == 1 {
					found = append(found, element.(string))
				}
			}
			if !slices.Equal(found, tt.found) {
				t.Errorf("found %q, want %q", found, tt.found)
			}
			if got := s.openList(); !slices.Equal(got, tt.after) {
				t.Errorf("open %q, want %q", got, tt.after)
			}
			if diff := cmp.Diff(before, s.get()); diff != "" {
				t.Errorf("reap changed the hash: %s", diff)
			}
		})
	}
}

func TestPreloadScript(t *testing.T) {
	publish := []string{"publish", "1", "7", "5", "10", "1", "0", "99", "9", "0", "a1"}
	field := []string{"u:ann", "1;" + id(1) + ",1,C," + then}
	for _, tt := range []struct {
		why       string
		exists    bool     // the product is there already
		temporary []string // field, value
		argv      []string
		reply     string
		loaded    bool
		left      bool // the temporary hash
	}{
		{"a chunk goes into the temporary hash", false, nil, append([]string{"fill", "60000"}, field...), "filled", false, true},
		{"a chunk for a product that is there: the loader can stop", true, field, append([]string{"fill", "60000"}, field...), "exists", false, false},
		{"the last call makes it the product", false, field, publish, "loaded", true, false},
		{"a product nobody has reserved yet", false, nil, append([]string{"publish", "0"}, publish[2:]...), "loaded", true, false},
		{"the other loader was faster", true, field, publish, "exists", false, false},
		{"the temporary hash has expired: half a product would sell units twice", false, nil, publish, "lost", false, false},
		{"a field has come twice", false, field, append([]string{"publish", "2"}, publish[2:]...), "lost", false, false},
	} {
		t.Run(tt.why, func(t *testing.T) {
			s := newShop(t, CacheConfig{})
			temporary := s.keys.load(s.product, "x")
			if tt.exists {
				s.put(onSale("3"))
			}
			if tt.temporary != nil {
				s.client.HSet(t.Context(), temporary, tt.temporary)
				s.client.PExpire(t.Context(), temporary, time.Minute)
			}
			before := s.get()
			reply, err := s.eval(lua.Preload, []string{s.keys.product(s.product), temporary}, tt.argv...)
			if err != nil || reply != tt.reply {
				t.Errorf("reply %v, %v; want %s", reply, err, tt.reply)
			}
			ttl := s.client.PTTL(t.Context(), temporary).Val()
			if left := ttl != -2; left != tt.left {
				t.Errorf("temporary hash left: %v, want %v", left, tt.left)
			} else if left && (ttl <= 0 || ttl > time.Minute) {
				t.Errorf("the temporary hash lives for %v: it would outlive a dead loader", ttl)
			}
			after := s.get()
			if tt.loaded {
				if after["surplus"] != "7" || after["ends_at"] != "99" || after["total"] != "9" || after["restocks"] != "0" || after["load"] != "a1" || len(after) != termFields+len(tt.temporary)/2 {
					t.Errorf("loaded %v", after)
				}
				if ttl := s.client.PTTL(t.Context(), s.keys.product(s.product)).Val(); ttl != -1 {
					t.Errorf("a loaded product expires in %v", ttl)
				}
			} else if !cmp.Equal(before, after) {
				t.Errorf("the product changed: %s", cmp.Diff(before, after))
			}
		})
	}
}

func TestConfigureScript(t *testing.T) {
	s := newShop(t, CacheConfig{})
	argv := []string{"2", "4", "0", "11", "22", "12", "1"}
	keys := []string{s.keys.product(s.product)}
	if reply, err := s.eval(lua.Configure, keys, argv...); reply != "not_loaded" || err != nil || len(s.get()) != 0 {
		t.Errorf("not loaded: reply %v, %v, hash %v", reply, err, s.get())
	}
	s.put(with(onSale("9"), "u:ann", "1;"+id(1)+",1,C,"+then))
	if reply, err := s.eval(lua.Configure, keys, argv...); reply != "ok" || err != nil {
		t.Errorf("loaded: reply %v, %v", reply, err)
	}
	want := map[string]string{
		"surplus": "9", "per_order": "2", "per_user": "4", "state": "0", "starts_at": "11", "ends_at": "22",
		"u:ann": "1;" + id(1) + ",1,C," + then,
	}
	if diff := cmp.Diff(want, s.get()); diff != "" {
		t.Errorf("loaded by hand, without a total to follow: %s", diff)
	}
	s.put(with(onSale("9"), "total", "10", "restocks", "0"))
	for _, why := range []string{"two more", "told again"} {
		if reply, err := s.eval(lua.Configure, keys, argv...); reply != "ok" || err != nil || s.get()["surplus"] != "11" || s.get()["total"] != "12" {
			t.Errorf("%s: reply %v, %v, hash %v", why, reply, err, s.get())
		}
	}
}
