package stockworker_test

import (
	"context"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/leadingpeers/seckill/internal/stockworker"
	"github.com/leadingpeers/seckill/pkg/events"
	"github.com/leadingpeers/seckill/pkg/stock"
)

var (
	errAway = errors.New("away")
	when    = time.Date(2030, 1, 2, 3, 4, 5, 6e6, time.UTC)
)

// id returns the nth reservation ID.
func id(n int) string {
	b := make([]byte, 16)
	binary.BigEndian.PutUint64(b[8:], uint64(n))
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b))
}

// created is the event of reservation n: two units for user u of a product.
func created(n int, productID string) events.Event {
	return events.Event{
		Type: events.ReservationCreated, Time: when, TraceParent: "trace" + id(n)[20:],
		ReservationID: id(n), ActivityID: "sale", ProductID: productID, UserID: "u", Quantity: 2,
	}
}

// returned is the same as a rollback.
func returned(n int, productID string) events.Event {
	e := created(n, productID)
	e.Type = events.StockRollback
	return e
}

// row is reservation n as the ledger has it.
func row(n int, productID string, s stock.State, reason string) stock.Reservation {
	return stock.Reservation{ID: id(n), ProductID: productID, UserID: "u", Quantity: 2, State: s, Reason: reason, At: when}
}

// hasOrder is r as the ledger has it when its order is there.
func hasOrder(r stock.Reservation) stock.Reservation {
	r.Settled = true
	return r
}

// fakeLedger answers from a script by product.
type fakeLedger struct {
	rows  map[string][]stock.Reservation
	errs  map[string]error
	mu    sync.Mutex
	calls []int // reservations in each call
}

func (l *fakeLedger) Deduct(_ context.Context, productID string, rs []stock.Reservation) ([]stock.Reservation, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls = append(l.calls, len(rs))
	return l.rows[productID], l.errs[productID]
}

func (l *fakeLedger) Rollback(ctx context.Context, productID string, rs []stock.Reservation) ([]stock.Reservation, error) {
	return l.Deduct(ctx, productID, rs)
}

// fakeCache notes what it was told.
type fakeCache struct {
	err     error
	applied []string // ID and state
}

func (c *fakeCache) Apply(_ context.Context, rs []stock.Reservation) (stock.Applied, error) {
	for _, r := range rs {
		c.applied = append(c.applied, r.ID[24:]+" "+string(r.State))
	}
	return stock.Applied{}, c.err
}

type handlerTest struct {
	name    string
	batch   []events.Event
	rows    map[string][]stock.Reservation
	errs    map[string]error
	redis   error
	next    []events.Event
	applied []string
	err     error    // wanted with errors.Is
	dead    bool     // whether the error is permanent
	blamed  []string // whose fault it is
	calls   int      // of the ledger
	why     string
}

func (tt handlerTest) run(t *testing.T, handler func(stockworker.Applier, *fakeLedger) events.Handler) {
	ledger := &fakeLedger{rows: tt.rows, errs: tt.errs}
	cache := &fakeCache{err: tt.redis}
	next, err := handler(cache, ledger)(t.Context(), tt.batch)
	if diff := cmp.Diff(tt.next, next); diff != "" {
		t.Errorf("next (-want +got): %s\n%s", tt.why, diff)
	}
	if diff := cmp.Diff(tt.applied, cache.applied); diff != "" {
		t.Errorf("told Redis (-want +got): %s\n%s", tt.why, diff)
	}
	if (err != nil) != (tt.err != nil || tt.dead) || tt.err != nil && !errors.Is(err, tt.err) {
		t.Errorf("error %v, want %v: %s", err, tt.err, tt.why)
	}
	var permanent *events.PermanentError
	if errors.As(err, &permanent) != tt.dead {
		t.Errorf("error %v permanent: want %t: %s", err, tt.dead, tt.why)
	}
	var blamed []string
	for e := range events.Condemned(err) {
		blamed = append(blamed, e.ReservationID[min(24, len(e.ReservationID)):])
	}
	slices.Sort(blamed)
	if diff := cmp.Diff(tt.blamed, blamed); diff != "" {
		t.Errorf("named (-want +got): %s\n%s", tt.why, diff)
	}
	if len(ledger.calls) != tt.calls {
		t.Errorf("%d transactions, want %d: %s", len(ledger.calls), tt.calls, tt.why)
	}
}

func TestDeduct(t *testing.T) {
	deducted := func(n int, productID string) events.Event {
		e := created(n, productID)
		e.Type, e.Time = events.StockDeducted, time.Time{} // the Publisher puts it in
		return e
	}
	refused := func(n int, productID, reason string) events.Event {
		e := returned(n, productID)
		e.Reason, e.Time = reason, time.Time{}
		return e
	}
	other := row(1, "p", stock.Deducted, "")
	other.UserID, other.Quantity = "v", 1
	otherEvent := deducted(1, "p")
	otherEvent.UserID, otherEvent.Quantity = "v", 1
	bad := func(change func(*events.Event)) []events.Event {
		e := created(2, "p")
		change(&e)
		return []events.Event{created(1, "p"), e}
	}
	type ledger = map[string][]stock.Reservation
	tests := []handlerTest{
		{name: "empty", why: "nothing in, nothing out"},
		{
			name: "deducted", batch: []events.Event{created(1, "p")}, rows: ledger{"p": {row(1, "p", stock.Deducted, "")}},
			next: []events.Event{deducted(1, "p")}, applied: []string{"ae deducted"}, calls: 1,
			why: "identity, activity and trace go on to the next room",
		},
		{
			name: "refused", batch: []events.Event{created(1, "p")}, rows: ledger{"p": {row(1, "p", stock.Refused, "sold_out")}},
			next: []events.Event{refused(1, "p", "sold_out")}, applied: []string{"ae refused"}, calls: 1,
			why: "Redis said yes and the ledger no: the rollback tells everybody else, but Kafka may lose it",
		},
		{
			name: "tombstone", batch: []events.Event{created(1, "p")}, rows: ledger{"p": {row(1, "p", stock.RolledBack, "")}},
			applied: []string{"ae rolled_back"}, calls: 1,
			why: "the rollback came first; Redis may have seen the reservation after it, and hears of it here",
		},
		{
			name: "read again", batch: []events.Event{created(1, "p"), created(2, "p"), created(3, "p")},
			rows: ledger{"p": {hasOrder(row(1, "p", stock.Deducted, "")), row(2, "p", stock.Deducted, ""), row(3, "p", stock.Refused, "sold_out")}},
			next: []events.Event{deducted(2, "p"), refused(3, "p", "sold_out")}, applied: []string{"ae deducted", "ai deducted", "am refused"}, calls: 1,
			why: "an order shows that its deduction was written; of the others nobody knows, and Redis may have forgotten any",
		},
		{
			name: "products", batch: []events.Event{created(2, "q"), created(1, "p"), created(3, "q")},
			rows: ledger{"p": {row(1, "p", stock.Deducted, "")}, "q": {row(2, "q", stock.Deducted, ""), row(3, "q", stock.Refused, "sold_out")}},
			next: []events.Event{deducted(1, "p"), deducted(2, "q"), refused(3, "q", "sold_out")}, applied: []string{"ae deducted", "ai deducted", "am refused"}, calls: 2,
			why: "one transaction for each product, in the order of products",
		},
		{
			name: "the ledger wins", batch: []events.Event{created(1, "p")}, rows: ledger{"p": {other}},
			next: []events.Event{otherEvent}, applied: []string{"ae deducted"}, calls: 1,
			why: "user and quantity are the ledger's, whatever a forged event says",
		},
		{
			name: "unknown product", batch: []events.Event{created(1, "p"), created(2, "nope")},
			rows: ledger{"p": {row(1, "p", stock.Deducted, "")}}, errs: map[string]error{"nope": stock.ErrNotFound},
			next: []events.Event{deducted(1, "p")}, applied: []string{"ae deducted"}, err: stock.ErrNotFound, dead: true, blamed: []string{"ai"}, calls: 2,
			why: "a dead letter does not hide what was decided beside it",
		},
		{
			name: "ledger away for one", batch: []events.Event{created(1, "p"), created(2, "q")},
			rows: ledger{"q": {row(2, "q", stock.Deducted, "")}}, errs: map[string]error{"p": errAway},
			next: []events.Event{deducted(2, "q")}, applied: []string{"ai deducted"}, err: errAway, calls: 2,
			why: "what is decided is told before what is missing is retried",
		},
		{
			name: "Redis away", batch: []events.Event{created(1, "p")}, rows: ledger{"p": {row(1, "p", stock.Deducted, "")}}, redis: errAway,
			next: []events.Event{deducted(1, "p")}, applied: []string{"ae deducted"}, err: errAway, calls: 1,
			why: "the deduction is true without Redis; the batch is not committed before Redis knows",
		},
		{
			name: "another type", batch: bad(func(e *events.Event) { e.Type = events.OrderPaid }), dead: true, blamed: []string{"ai"},
			why: "somebody writes to the wrong topic; nothing is done before the record is put aside",
		},
		{name: "no ID", batch: bad(func(e *events.Event) { e.ReservationID = "" }), dead: true, blamed: []string{""}, why: "not a reservation"},
		{name: "hostile user", batch: bad(func(e *events.Event) { e.UserID = "a b\n" }), dead: true, blamed: []string{"ai"}, why: "would break a record in Redis"},
		{name: "no units", batch: bad(func(e *events.Event) { e.Quantity = 0 }), dead: true, blamed: []string{"ai"}, why: "not a reservation"},
		{name: "negative units", batch: bad(func(e *events.Event) { e.Quantity = -5 }), dead: true, blamed: []string{"ai"}, why: "would add stock"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.run(t, func(c stockworker.Applier, l *fakeLedger) events.Handler { return stockworker.Deduct(c, l) })
		})
	}
}

func TestRollback(t *testing.T) {
	type ledger = map[string][]stock.Reservation
	tests := []handlerTest{
		{name: "empty", why: "nothing in, nothing out"},
		{
			name: "rolled back", batch: []events.Event{returned(1, "p")}, rows: ledger{"p": {row(1, "p", stock.RolledBack, "")}},
			applied: []string{"ae rolled_back"}, calls: 1, why: "first the ledger, then Redis; nothing follows",
		},
		{
			name: "refused", batch: []events.Event{returned(1, "p")}, rows: ledger{"p": {row(1, "p", stock.Refused, "sold_out")}},
			applied: []string{"ae refused"}, calls: 1, why: "the ledger never took the units, Redis did",
		},
		{
			name: "forged", batch: []events.Event{returned(1, "p"), returned(2, "q")},
			rows: ledger{"q": {row(2, "q", stock.RolledBack, "")}}, errs: map[string]error{"p": &stock.NotCancelledError{IDs: []string{id(1)}}},
			applied: []string{"ai rolled_back"}, err: stock.ErrNotCancelled, dead: true, blamed: []string{"ae"}, calls: 2,
			why: "a rollback of an order that is not cancelled is nobody's right; the other product is served",
		},
		{
			name: "unknown product", batch: []events.Event{returned(1, "nope")}, errs: map[string]error{"nope": stock.ErrNotFound},
			err: stock.ErrNotFound, dead: true, blamed: []string{"ae"}, calls: 1, why: "no repetition makes the product appear",
		},
		{
			name: "ledger away", batch: []events.Event{returned(1, "p")}, errs: map[string]error{"p": errAway},
			err: errAway, calls: 1, why: "an outage is waited out, never dead-lettered",
		},
		{
			name: "Redis away", batch: []events.Event{returned(1, "p")}, rows: ledger{"p": {row(1, "p", stock.RolledBack, "")}}, redis: errAway,
			applied: []string{"ae rolled_back"}, err: errAway, calls: 1, why: "the units must come back to the buyers",
		},
		{name: "another type", batch: []events.Event{created(1, "p")}, dead: true, blamed: []string{"ae"}, why: "a reservation is not a rollback"},
		{
			name: "two of another type", batch: []events.Event{created(1, "p"), returned(2, "p"), created(3, "p")}, dead: true, blamed: []string{"ae", "am"},
			why: "all are named at once",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.run(t, func(c stockworker.Applier, l *fakeLedger) events.Handler { return stockworker.Rollback(c, l) })
		})
	}
}

// TestDeductKeepsWithinABatch sends more of one product than a transaction
// takes, as a Consumer with a larger batch would.
func TestDeductKeepsWithinABatch(t *testing.T) {
	var batch []events.Event
	for n := range 2*stock.MaxBatch + 1 {
		batch = append(batch, created(n, "p"))
	}
	ledger := &fakeLedger{}
	if _, err := stockworker.Deduct(&fakeCache{}, ledger)(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	if want := []int{stock.MaxBatch, stock.MaxBatch, 1}; !slices.Equal(ledger.calls, want) {
		t.Errorf("transactions of %v reservations, want %v", ledger.calls, want)
	}
}
