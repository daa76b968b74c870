package stock

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/leadingpeers/seckill/internal/mysql"
	"github.com/leadingpeers/seckill/lua"
)

// FuzzReservation looks for an identity that passes the gate and is not safe
// behind it: as an ID of MySQL, or between the separators of a record in Redis.
func FuzzReservation(f *testing.F) {
	f.Add("aaaaaaaaaaaaaaaaaaaaaaaaaa", "phone", "u-88", int64(1))
	f.Fuzz(func(t *testing.T, id, product, user string, quantity int64) {
		r := Reservation{ID: id, ProductID: product, UserID: user, Quantity: quantity}
		if mysql.ID(id).Valid() != ValidID(id) {
			t.Fatalf("ID %q: MySQL takes it: %v, the gate: %v", id, mysql.ID(id).Valid(), ValidID(id))
		}
		if r.Validate() != nil {
			return
		}
		for _, text := range []string{id, product, user} {
			for i := range len(text) {
				if text[i] <= ' ' || text[i] > '~' {
					t.Fatalf("%q passes", text)
				}
			}
		}
		if quantity < 1 || quantity > MaxQuantity || len(user) > 64 || len(product) > 36 {
			t.Fatalf("%+v passes", r)
		}
	})
}

// FuzzField reads what Redis has of a buyer, which anybody with access to Redis
// may have written.
func FuzzField(f *testing.F) {
	f.Add("2;aaaaaaaaaaaaaaaaaaaaaaaaaa,2,P,1700000000000;")
	f.Fuzz(func(t *testing.T, value string) {
		_, rs, err := readField("phone", "u-88", value)
		if err != nil {
			return
		}
		for _, r := range rs {
			if r.State == "" || r.ProductID != "phone" || r.UserID != "u-88" {
				t.Fatalf("%q holds %+v", value, r)
			}
		}
	})
}

// FuzzScripts calls the scripts with arguments that nobody has checked, but for
// fields and IDs, of which they say that the caller has (FuzzReservation). A
// script refuses in its own words and changes nothing, or the product's account
// adds up afterwards.
func FuzzScripts(f *testing.F) {
	for _, seed := range []struct {
		script uint8
		rest   string
	}{
		{0, "1\x002\x001"},
		{0, "0\x00-1\x001e1\x001.5\x00 1\x000x1\x00999999999\x001000000000\x00nan"},
		{1, "2\x00C\x001\x00R\x002\x00C"},
		{1, "999999999\x00C\x00999999999\x00C\x00999999999\x00C\x001\x00P"},
		{1, "x\x00C\x00-1\x00R\x001.5\x00C"},
		{2, "0\x0010"},
		{2, "99999999999999999999\x00500"},
		{3, "fill\x0060000\x00u:bob\x001;x,1,C,5"},
		{3, "publish\x000\x003\x005\x0010\x001\x000\x009\x003\x000\x00a1"},
		{4, "5\x0010\x001\x000\x009\x0012\x001"},
		{4, "5\x0010\x001\x000\x009\x000\x001"},                // fewer than are sold: surplus below 0
		{4, "5\x0010\x001\x000\x009\x009007199254740993\x001"}, // the first whole number that Lua has not got
		{5, "5"},
		{6, "publish\x000\x003\x005\x0010\x001\x000\x009\x003\x000\x00a1"},
		{6, "publish\x000\x00340282366920938463463374607431768211456\x005\x0010\x001\x000\x009\x003\x000\x00a1"},
	} {
		f.Add(seed.script, seed.rest, false)
		f.Add(seed.script, seed.rest, true)
	}
	whole := newShop(f, CacheConfig{})
	f.Fuzz(func(t *testing.T, script uint8, rest string, odd bool) {
		s := whole
		s.TB = t
		call := fuzzedCalls[int(script)%len(fuzzedCalls)]
		args := strings.Split(rest, "\x00")
		args = call.argv(args[:min(len(args), 40)])
		if odd {
			args = append(args, "one too many")
		}
		product, open, load := s.keys.product(s.product), s.keys.open(s.product), s.keys.load(s.product, "1")
		if err := s.client.Del(t.Context(), product, open, load).Err(); err != nil {
			t.Fatal(err)
		}
		if !call.absent {
			s.put(with(onSale("5"), "total", "8", "restocks", "0",
				"u:ann", "3;"+id(1)+",2,P,"+then+";"+id(2)+",1,C,"+then, "u:eve", "0;"+id(9)+",1,R,"+then))
			if err := s.client.RPush(t.Context(), open, "gone", "ann").Err(); err != nil {
				t.Fatal(err)
			}
		}
		before, waiting := s.get(), s.openList()
		second := open
		if call.name == "preload" {
			second = load
		}
		reply, err := s.eval(call.text, []string{product, second}, args...)
		after := s.get()
		if err != nil && (!strings.HasPrefix(err.Error(), "ERR "+call.name+" ") || !cmp.Equal(before, after) || !slices.Equal(waiting, s.openList())) {
			t.Fatalf("%s %q: %v; changed: %s", call.name, args, err, cmp.Diff(before, after))
		}
		if err == nil && odd && args[0] != "fill" { // of which one more may be a value
			t.Fatalf("%s %q: %v", call.name, args, reply)
		}
		if err == nil && call.reads && !cmp.Equal(before, after) {
			t.Fatalf("%s %q: %v, and changed: %s", call.name, args, reply, cmp.Diff(before, after))
		}
		if len(after) > 0 {
			s.addsUp(after, !call.absent) // what is published is for the caller to add up
		}
	})
}

// fuzzedCalls are the scripts, and how FuzzScripts calls each of them: of
// reserve and apply the quantities and states are anything, of the others all.
var fuzzedCalls = []struct {
	name, text string
	reads      bool // never changes the product
	absent     bool // of a product that is not here
	argv       func(args []string) []string
}{
	{name: "reserve", text: lua.Reserve, argv: func(args []string) []string {
		var asks []ask
		for i, quantity := range args {
			asks = append(asks, ask{user: fuzzedBuyers[i%3], id: id(1 + i%4), quantity: quantity})
		}
		return argv(asks, 3)
	}},
	{name: "apply", text: lua.Apply, argv: func(args []string) []string {
		var asks []ask
		for i := 0; i+1 < len(args); i += 2 {
			asks = append(asks, ask{user: fuzzedBuyers[i/2%3], id: id(1 + i/2%4), quantity: args[i], state: args[i+1]})
		}
		return argv(asks, 4)
	}},
	{name: "reap", text: lua.Reap, reads: true, argv: asTheyAre},
	{name: "preload", text: lua.Preload, reads: true, argv: asTheyAre},
	{name: "configure", text: lua.Configure, argv: asTheyAre},
	{name: "balance", text: lua.Balance, reads: true, argv: asTheyAre},
	{name: "preload", text: lua.Preload, absent: true, argv: asTheyAre},
}

// fuzzedBuyers take turns; with the IDs, which do so in fours, each has each.
var fuzzedBuyers = []string{"ann", "bob", "eve"}

func asTheyAre(args []string) []string { return args }

// addsUp fails the test unless the product's numbers are numbers and every buyer
// with something pending is in the open list, and, when asked for, its units make
// up the total.
func (s shop) addsUp(product map[string]string, units bool) {
	s.Helper()
	counts, open := s.counts(), s.openList()
	number := map[string]int64{}
	for _, name := range []string{"total", "per_order", "per_user", "starts_at", "ends_at"} {
		n, err := strconv.ParseInt(product[name], 10, 64)
		if err != nil {
			s.Fatalf("%s: %v", name, err)
		}
		number[name] = n
	}
	for field, value := range product {
		user, isBuyer := strings.CutPrefix(field, userPrefix)
		if isBuyer && strings.Contains(value, ",P,") && !slices.Contains(open, user) {
			s.Fatalf("%s has something pending and is not in open %q", user, open)
		}
	}
	if sum := counts.Surplus + counts.Pending + counts.Deducted; units && sum != number["total"] {
		s.Fatalf("surplus %d, pending %d, deducted %d of %d", counts.Surplus, counts.Pending, counts.Deducted, number["total"])
	}
}
