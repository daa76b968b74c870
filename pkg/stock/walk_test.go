package stock

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// walkOperations is how many requests a walk makes at least.
const walkOperations = 60_000

// A random walk through reserve, apply, reap, configure, preload and flush,
// beside a model in Go. After every step the replies are the model's and
//
//	total = surplus + pending + deducted
//
// holds in Redis. SECKILL_TEST_SEED repeats a walk.
func TestWalk(t *testing.T) {
	seed := rand.Uint64()
	if text := os.Getenv("SECKILL_TEST_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("SECKILL_TEST_SEED=%d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	s := newShop(t, CacheConfig{})
	operations, kinds := 0, map[string]int{}
	for round := 0; operations < walkOperations; round++ {
		w := newWalk(s, r, kinds, round)
		for range 80 {
			operations += w.step()
			w.check()
			if t.Failed() {
				t.Fatalf("stop in round %d after %d operations", round, operations)
			}
		}
	}
	t.Logf("%d operations: %v", operations, kinds)
	for _, kind := range []string{
		"+", "replay", "c", "s", "a", "t", "n", "x", "reaped", "loaded", "loaded already", "configured", "restocked", "flushed",
		string(SoldOut), string(OverUserLimit), string(OverOrderLimit), string(NotOnSale), string(NotLoaded), string(TooManyAttempts), string(IDReused),
	} {
		if kinds[kind] == 0 {
			t.Errorf("the walk never came to %q", kind)
		}
	}
}

// walk is one product, in Redis and in the model.
type walk struct {
	shop
	r     *rand.Rand
	kinds map[string]int // how often what was seen

	total    int64
	restocks int64
	loaded   bool
	terms    Terms
	surplus  int64
	records  map[string]*Reservation // by ID
	order    []string                // IDs as they came
	open     []string
}

func newWalk(s shop, r *rand.Rand, kinds map[string]int, round int) *walk {
	s.product = fmt.Sprintf("walk-%d", round)
	w := &walk{shop: s, r: r, kinds: kinds, total: 20 + r.Int64N(1000), records: map[string]*Reservation{}}
	w.terms = w.someTerms()
	return w
}

func (w *walk) someTerms() Terms {
	t := w.shop.terms()
	t.Total, t.Restocks = w.total, w.restocks
	t.PerOrder, t.PerUser = 1+w.r.Int64N(6), 1+w.r.Int64N(12)
	if w.r.IntN(3) == 0 {
		t.PerUser = 1000 // then the bound of the field comes first
	}
	if w.r.IntN(8) == 0 {
		t.OnSale = false
	}
	if w.r.IntN(12) == 0 {
		t.EndsAt = t.StartsAt.Add(time.Minute)
	}
	return t
}

// step makes one call and returns how many operations it was.
func (w *walk) step() int {
	if !w.loaded && w.r.IntN(3) == 0 {
		return w.preload()
	}
	switch n := w.r.IntN(100); {
	case n < 55:
		return w.reserve()
	case n < 85:
		return w.apply()
	case n < 92:
		return w.reap()
	case n < 95:
		return w.configure()
	case n < 99:
		return w.preload()
	default:
		return w.flush()
	}
}

// some returns a request: new, or in known of 10 cases of a known ID or nearly so.
func (w *walk) some(known int) ask {
	a := ask{
		user: fmt.Sprintf("user%d", w.r.IntN(12)), id: randomID(w.r),
		quantity: strconv.Itoa(1 + w.r.IntN(6)), state: "CR"[w.r.IntN(2):][:1],
	}
	if w.r.IntN(3) == 0 {
		a.user = "user0" // comes more often than the bound allows
	}
	if len(w.order) > 0 && w.r.IntN(10) < known {
		known := w.records[w.order[w.r.IntN(len(w.order))]]
		a.user, a.id = known.UserID, known.ID
		if w.r.IntN(6) > 0 {
			a.quantity = strconv.FormatInt(known.Quantity, 10)
		}
	}
	if w.r.IntN(15) == 0 {
		a.quantity = hostile()[w.r.IntN(len(hostile()))]
	}
	return a
}

// asks returns a batch, with some requests more than once.
func (w *walk) asks(known int) []ask {
	asks := make([]ask, 1+w.r.IntN(40))
	for i := range asks {
		asks[i] = w.some(known)
		if i > 0 && w.r.IntN(6) == 0 {
			state := asks[i].state
			asks[i] = asks[w.r.IntN(i)]
			asks[i].state = state
		}
	}
	return asks
}

func (w *walk) reserve() int {
	asks := w.asks(3)
	for i, got := range w.rawReserve(asks...) {
		if want := w.expectReserve(asks[i]); !strings.HasPrefix(got+",", want+",") {
			w.Errorf("reserve %+v: row %q, the model says %q", asks[i], got, want)
		}
	}
	return len(asks)
}

// expectReserve is the model's reserve. A record's time is not modelled.
func (w *walk) expectReserve(a ask) string {
	saw := func(kind string) string { w.kinds[kind]++; return kind }
	if !w.loaded {
		return saw(string(NotLoaded))
	}
	if known, ok := w.records[a.id]; ok && known.UserID == a.user {
		if a.quantity != strconv.FormatInt(known.Quantity, 10) {
			return saw(string(IDReused))
		}
		saw("replay")
		letter, _ := known.State.letter()
		return a.quantity + "," + letter
	}
	quantity, good := valid(a.quantity)
	now := time.Now()
	units, size := w.held(a.user)
	switch {
	case !w.terms.OnSale || now.Before(w.terms.StartsAt) || !now.Before(w.terms.EndsAt):
		return saw(string(NotOnSale))
	case !good || quantity > w.terms.PerOrder:
		return saw(string(OverOrderLimit))
	case quantity > w.surplus:
		return saw(string(SoldOut))
	case units+quantity > w.terms.PerUser:
		return saw(string(OverUserLimit))
	case size >= 1440:
		return saw(string(TooManyAttempts))
	}
	w.surplus -= quantity
	w.record(a, quantity, Pending)
	w.open = append(w.open, a.user)
	return saw("+")
}

// valid is a quantity as the scripts should take it.
func valid(text string) (int64, bool) {
	n, err := strconv.ParseInt(text, 10, 64)
	return n, err == nil && n >= 1 && n <= MaxQuantity && strconv.FormatInt(n, 10) == text
}

// held is what a buyer holds, and the length of their records.
func (w *walk) held(user string) (units int64, size int) {
	for _, r := range w.records {
		if r.UserID == user {
			size += len(";,,P,") + len(r.ID) + len(strconv.FormatInt(r.Quantity, 10)) + len(then)
			if r.State == Pending || r.State == Deducted {
				units += r.Quantity
			}
		}
	}
	return units, size
}

func (w *walk) record(a ask, quantity int64, state State) {
	w.records[a.id] = &Reservation{
		ID: a.id, ProductID: w.product, UserID: a.user, Quantity: quantity, State: state, At: time.UnixMilli(1700000000000),
	}
	w.order = append(w.order, a.id)
}

func (w *walk) apply() int {
	asks := w.asks(9)
	for i, got := range w.rawApply(asks...) {
		if want := w.expectApply(asks[i]); string(got) != want {
			w.Errorf("apply %+v: %q, the model says %q", asks[i], got, want)
		}
	}
	return len(asks)
}

// expectApply is the model's apply.
func (w *walk) expectApply(a ask) string {
	saw := func(kind string) string { w.kinds[kind]++; return kind }
	quantity, good := valid(a.quantity)
	to := map[string]State{"C": Deducted, "R": RolledBack}[a.state]
	known := w.records[a.id]
	switch {
	case !w.loaded:
		return saw("n")
	case !good:
		return saw("x")
	case known == nil && to == Deducted:
		w.surplus -= quantity
		w.record(a, quantity, Deducted)
		return saw("a")
	case known == nil:
		w.record(a, quantity, RolledBack)
		return saw("t")
	case known.State == RolledBack || known.State == to:
		return saw("s")
	case to == Deducted:
		w.surplus += known.Quantity - quantity
		known.Quantity, known.State = quantity, Deducted
	default:
		w.surplus += known.Quantity
		known.State = RolledBack
	}
	return saw("c")
}

// reap asks for all that is pending or, with a great age, for nothing.
func (w *walk) reap() int {
	age, limit := time.Duration(0), 1+w.r.IntN(30)
	if w.r.IntN(4) == 0 {
		age = time.Hour
	}
	rs, err := w.Reap(w.Context(), w.product, age, limit)
	if !w.loaded {
		if !errors.Is(err, NotLoaded) {
			w.Errorf("reap: %v, %v; want not loaded", rs, err)
		}
		return 1
	}
	var got, want, stay, turn []string
	for _, r := range rs {
		got = append(got, r.ID)
		if m := w.records[r.ID]; m == nil || m.UserID != r.UserID || m.Quantity != r.Quantity || r.State != Pending {
			w.Errorf("reap: %+v, the model has %+v", r, m)
		}
	}
	limit = min(limit, len(w.open))
	seen := map[string]bool{}
	for _, user := range w.open[:limit] {
		pending := w.pendingOf(user)
		switch {
		case seen[user] || len(pending) == 0:
		case age > 0:
			stay = append(stay, user)
		default:
			want, turn = append(want, pending...), append(turn, user)
		}
		seen[user] = true
	}
	if age == 0 {
		w.kinds["reaped"] += len(want)
	}
	w.open = slices.Concat(stay, w.open[limit:], turn)
	slices.Sort(got)
	slices.Sort(want)
	if err != nil || !slices.Equal(got, want) {
		w.Errorf("reap older than %v: %v, %v; the model says %v", age, got, err, want)
	}
	return 1
}

func (w *walk) pendingOf(user string) (ids []string) {
	for _, id := range w.order {
		if r := w.records[id]; r.UserID == user && r.State == Pending {
			ids = append(ids, id)
		}
	}
	return ids
}

func (w *walk) configure() int {
	stale := w.someTerms() // with the total before
	if delta := w.r.Int64N(20) - 5; w.loaded && w.r.IntN(2) == 0 && w.surplus+delta >= 0 {
		w.total, w.surplus = w.total+delta, w.surplus+delta
		w.restocks++
		w.kinds["restocked"]++
	}
	terms := w.someTerms()
	err := w.Configure(w.Context(), terms)
	if !w.loaded {
		if !errors.Is(err, NotLoaded) {
			w.Errorf("configure: %v, want not loaded", err)
		}
		return 1
	}
	w.kinds["configured"]++
	w.terms = terms
	if err != nil {
		w.Errorf("configure: %v", err)
	}
	if w.r.IntN(2) == 0 { // a stalled one comes late: its terms count, its total does not
		w.terms = stale
		if err := w.Configure(w.Context(), stale); err != nil {
			w.Errorf("configure late: %v", err)
		}
	}
	return 1
}

// preload loads what a ledger would have: what is pending is nobody's there.
func (w *walk) preload() int {
	rows, available, terms := []Reservation{}, w.total, w.someTerms()
	for _, id := range w.order {
		if r := *w.records[id]; r.State != Pending {
			if r.State == Deducted {
				available -= r.Quantity
			} else if w.r.IntN(2) == 0 {
				r.State = Refused
			}
			rows = append(rows, r)
		}
	}
	if available < 0 {
		return 0 // the walk adopts more than a ledger would ever deduct
	}
	slices.SortStableFunc(rows, func(a, b Reservation) int { return strings.Compare(a.UserID, b.UserID) })
	loaded, err := w.Preload(w.Context(), terms, available, each(rows))
	if err != nil || loaded == w.loaded {
		w.Errorf("preload: %v, %v; it was loaded before: %v", loaded, err, w.loaded)
	}
	if !loaded {
		w.kinds["loaded already"]++
		return 1
	}
	w.kinds["loaded"]++
	w.loaded, w.terms, w.surplus = true, terms, available
	return 1
}

// flush loses what Redis has, as an operator or a crash does.
func (w *walk) flush() int {
	err := w.Flush(w.Context(), w.product, false)
	if now := time.Now(); len(w.open) > 0 || w.loaded && w.terms.OnSale && now.Before(w.terms.EndsAt) {
		if !errors.Is(err, ErrInUse) {
			w.Errorf("flush: %v, want in use", err)
		}
		err = w.Flush(w.Context(), w.product, true)
	}
	if err != nil {
		w.Errorf("flush: %v", err)
	}
	w.kinds["flushed"]++
	w.loaded, w.open = false, nil
	maps.DeleteFunc(w.records, func(_ string, r *Reservation) bool { return r.State == Pending })
	w.order = slices.DeleteFunc(w.order, func(id string) bool { return w.records[id] == nil })
	return 1
}

// check compares Redis with the model, to the unit and to the record.
func (w *walk) check() {
	got, err := w.Counts(w.Context(), w.product)
	if !w.loaded {
		if !errors.Is(err, NotLoaded) {
			w.Errorf("counts: %+v, %v; want not loaded", got, err)
		}
		return
	}
	want := Counts{Surplus: w.surplus, Reservations: len(w.records), Open: len(w.open)}
	buyers := map[string]bool{}
	for _, r := range w.records {
		buyers[r.UserID] = true
		switch r.State {
		case Pending:
			want.Pending += r.Quantity
		case Deducted:
			want.Deducted += r.Quantity
		case Refused, RolledBack:
			want.RolledBack++
		}
	}
	want.Buyers = len(buyers)
	if err != nil || got != want {
		w.Errorf("counts %+v, %v; the model has %+v", got, err, want)
	}
	if got.Surplus+got.Pending+got.Deducted != w.total {
		w.Errorf("surplus %d + pending %d + deducted %d is not %d", got.Surplus, got.Pending, got.Deducted, w.total)
	}
	if open := w.openList(); !slices.Equal(open, w.open) {
		w.Errorf("open %v, the model has %v", open, w.open)
	}
}
