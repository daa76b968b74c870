package walk

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/leadingpeers/seckill/pkg/events"
	"github.com/leadingpeers/seckill/pkg/order"
	"github.com/leadingpeers/seckill/pkg/stock"
)

// walker goes at random through everything that may happen to a world.
type walker struct {
	*world
	rng      *rand.Rand
	losses   bool // Redis may lose its memory
	products []string

	next     int                          // the next reservation
	known    map[string]stock.Reservation // what buyers have asked for, by ID
	accepted map[string]bool              // what Redis and Kafka have both said yes to
	unheard  map[string]bool              // accepted, and Kafka has lost the event
	forgiven map[string]bool              // then Redis lost it, too: nobody can know
	final    map[string]string            // terminal states seen
	refs     int
	did      map[string]int
}

// TestRandomWalk takes many steps in one world for each seed: buyers, all
// handlers and all background services, with events doubled, reordered and lost
// and processes that die at every place. After each step the equation holds in
// both stores; at the end Redis and the ledger agree to the unit, and everyone
// who was accepted has paid or was let go.
func TestRandomWalk(t *testing.T) {
	tests := []struct {
		seed   uint64
		losses bool
		why    string
	}{
		{1, false, "without a loss in Redis nobody who was accepted is refused"},
		{2, false, "the same"},
		{3, true, "with losses of all of it, of one product and of its tail"},
		{4, true, "the same"},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("seed %d", tt.seed), func(t *testing.T) {
			t.Parallel()
			w := &walker{
				world: newWorld(t, map[string]int64{"p": 25, "q": 60}), rng: rand.New(rand.NewPCG(tt.seed, 0)), losses: tt.losses, products: []string{"p", "q"},
				known: make(map[string]stock.Reservation), accepted: make(map[string]bool), unheard: make(map[string]bool),
				forgiven: make(map[string]bool), final: make(map[string]string), did: make(map[string]int),
			}
			w.step(w.healer.Step)
			for n := range 400 {
				w.act()
				for _, p := range w.products {
					w.balanced(p)
				}
				if n%5 == 0 {
					w.lawful()
				}
			}
			w.settleDown()
			w.checkEnds()
			t.Logf("%d asked, %d accepted, did %v; %s", len(w.known), len(w.accepted), w.did, tt.why)
		})
	}
}

// chance is true once in n.
func (w *walker) chance(n int) bool { return w.rng.IntN(n) == 0 }

// act does one thing at random. Faults last for the one thing.
func (w *walker) act() {
	type kind struct {
		weight int
		name   string
		do     func()
	}
	acts := []kind{
		{30, "buy", func() {
			for range 1 + w.rng.IntN(5) {
				w.someoneBuys()
			}
		}},
		{25, "reservations", func() { w.deliver(events.Reservations) }},
		{15, "deductions", func() { w.deliver(events.Deductions) }},
		{15, "rollbacks", func() { w.deliver(events.Rollbacks) }},
		{10, "payments", func() { w.deliver(events.Payments) }},
		{10, "checkout", w.checkout},
		{5, "expire", func() { w.someDue(); w.stepWithFaults(w.expirer.Step) }},
		{10, "relay", func() { w.stepWithFaults(w.relay.Step) }},
		{5, "reap", func() { w.stepWithFaults(w.reaper.Step) }},
		{3, "sweep", func() { w.stepWithFaults(w.sweeper.Step) }},
		{3, "heal", func() { w.step(w.healer.Step) }},
		{5, "lose an event", w.loseEvent},
	}
	if w.losses {
		acts = append(acts, kind{2, "lose Redis", w.loseRedis})
	}
	total := 0
	for _, a := range acts {
		total += a.weight
	}
	n := w.rng.IntN(total)
	for _, a := range acts {
		if n -= a.weight; n < 0 {
			w.did[a.name]++
			a.do()
			w.fault, w.acks = nil, nil
			return
		}
	}
}

// someoneBuys reserves, anew or again; the gateway may die before Kafka knows.
func (w *walker) someoneBuys() {
	r := stock.Reservation{
		ID: id(w.next), ProductID: w.products[w.rng.IntN(2)], UserID: fmt.Sprint("user", w.rng.IntN(30)), Quantity: 1 + w.rng.Int64N(2),
	}
	if w.next > 0 && w.chance(5) {
		r = w.known[id(w.rng.IntN(w.next))]
	} else {
		w.known[r.ID] = r
		w.next++
	}
	e, err := w.buy(r)
	var no stock.Refusal
	if errors.As(err, &no) {
		return
	}
	w.must(err)
	if w.chance(8) {
		w.did["gateway dies"]++
		return
	}
	w.must(w.Publish(w.t.Context(), e)) // a retry publishes again
	w.accepted[r.ID] = true
}

// deliver handles some events of a topic in any order. They may come again, the
// process may die before it has published, and Redis may be away.
func (w *walker) deliver(topic events.Topic) {
	queue := w.queues[topic]
	w.rng.Shuffle(len(queue), func(i, j int) { queue[i], queue[j] = queue[j], queue[i] })
	n := min(len(queue), 1+w.rng.IntN(20))
	var batch []events.Event
	for i := range queue[:n] {
		batch = append(batch, queue[i].event)
		queue[i].tried = true
	}
	switch w.rng.IntN(6) {
	case 0:
		w.did["worker dies"]++
		_, _ = w.handlers[topic](w.t.Context(), batch) // what follows is lost, the batch stays
		return
	case 1:
		w.fault = w.sometimes
	}
	if err := w.handle(topic, batch); err != nil {
		w.did["worker waits"]++
		return // the batch stays
	}
	if w.chance(5) {
		w.did["delivered again"]++
		return
	}
	w.queues[topic] = slices.Delete(w.queues[topic], 0, n)
}

// sometimes is a fault that comes or not.
func (w *walker) sometimes() error {
	if w.chance(2) {
		return errCrash
	}
	return nil
}

// checkout plays the buyers: they pay, twice, not at all, or say that they will not.
func (w *walker) checkout() {
	for _, i := range w.queues[events.Orders] {
		e := i.event
		if e.Type != events.OrderCreated || w.chance(2) {
			continue
		}
		pay := events.Event{
			Type: events.PaymentSucceeded, Time: time.Now(), ReservationID: e.ReservationID,
			PaymentRef: fmt.Sprint("ref", w.refs), AmountCents: e.AmountCents, Currency: e.Currency,
		}
		w.refs++
		switch w.rng.IntN(5) {
		case 0:
			pay.Type = events.PaymentFailed
		case 1:
			w.must(w.Publish(w.t.Context(), pay))
			pay.PaymentRef += "twice"
		case 2:
			continue
		}
		w.must(w.Publish(w.t.Context(), pay))
	}
	w.queues[events.Orders] = nil
}

// someDue lets the time to pay of some orders pass.
func (w *walker) someDue() {
	_, err := w.db.ExecContext(w.t.Context(), "UPDATE orders SET pay_deadline = created_at WHERE user_id = ?", fmt.Sprint("user", w.rng.IntN(30)))
	w.must(err)
}

// stepWithFaults runs a background step; Kafka may write and not ack.
func (w *walker) stepWithFaults(step func(context.Context) (bool, error)) {
	if w.chance(4) {
		w.acks = w.sometimes
	}
	if _, err := step(w.t.Context()); err != nil && !errors.Is(err, errCrash) {
		w.t.Fatal(err)
	}
}

// loseEvent lets Kafka lose one event. A half-handled one stays: losing it as
// well would be two faults at once that nothing but an operator's heal cures.
func (w *walker) loseEvent() {
	topics := []events.Topic{events.Reservations, events.Deductions, events.Rollbacks, events.Payments}
	topic := topics[w.rng.IntN(len(topics))]
	queue := w.queues[topic]
	if len(queue) == 0 {
		return
	}
	i := w.rng.IntN(len(queue))
	if queue[i].tried {
		return
	}
	if e := queue[i].event; e.Type == events.ReservationCreated {
		w.unheard[e.ReservationID] = true
	}
	w.queues[topic] = slices.Delete(queue, i, i+1)
}

// loseRedis lets Redis lose all, one product, or its tail; the healer sees it
// after a while in which the workers go on.
func (w *walker) loseRedis() {
	var tails []backup
	switch w.rng.IntN(3) {
	case 0:
		w.lose("p")
		w.lose("q")
		w.run += "+"
	case 1:
		w.lose(w.products[w.rng.IntN(2)])
	case 2:
		for _, p := range w.products {
			tails = append(tails, w.backup(p))
		}
		for range 15 {
			w.actWithoutHealing()
		}
		for _, b := range tails {
			w.restore(b)
		}
	}
	for id := range w.unheard {
		if w.inLedger(w.known[id]) == "" {
			w.forgiven[id] = true
		}
	}
	for range 5 {
		w.actWithoutHealing()
	}
	w.step(w.healer.Step)
}

func (w *walker) actWithoutHealing() {
	switch w.rng.IntN(4) {
	case 0:
		w.someoneBuys()
	case 1:
		w.deliver(events.Reservations)
	case 2:
		w.deliver(events.Rollbacks)
	case 3:
		w.deliver(events.Deductions)
	}
	w.fault = nil
}

// lawful checks what must hold at every instant besides the equation: the limit
// of each buyer (S2), paid means deducted (S4), rolled back means cancelled or
// never ordered (S5).
func (w *walker) lawful() {
	w.t.Helper()
	for law, query := range map[string]string{
		"S2": `SELECT COUNT(*) FROM (SELECT 1 FROM reservations WHERE state = 'deducted' GROUP BY product_id, user_id HAVING SUM(quantity) > 4) AS over_limit`,
		"S4": `SELECT COUNT(*) FROM orders o LEFT JOIN reservations r ON r.reservation_id = o.reservation_id WHERE o.state = 'paid' AND COALESCE(r.state, '') <> 'deducted'`,
		"S5": `SELECT COUNT(*) FROM orders o JOIN reservations r ON r.reservation_id = o.reservation_id WHERE o.state <> 'cancelled' AND r.state <> 'deducted'`,
	} {
		var n int
		w.must(w.db.QueryRowContext(w.t.Context(), query).Scan(&n))
		if n > 0 {
			w.t.Fatalf("%s: %d times", law, n)
		}
	}
	w.finalStays()
}

// finalStays checks that nobody leaves a terminal state (S6).
func (w *walker) finalStays() {
	w.t.Helper()
	rows, err := w.db.QueryContext(w.t.Context(),
		"SELECT reservation_id, state FROM reservations WHERE state <> 'deducted' UNION ALL SELECT id, state FROM orders WHERE state <> 'awaiting_payment'")
	w.must(err)
	defer func() { _ = rows.Close() }()
	now := make(map[string]string)
	for rows.Next() {
		var id []byte
		var state string
		w.must(rows.Scan(&id, &state))
		now[string(id)] = state
	}
	w.must(rows.Err())
	for id, state := range w.final {
		if now[id] != state {
			w.t.Fatalf("S6: %x was %s and is %q", id, state, now[id])
		}
	}
	w.final = now
}

// settleDown ends all faults and lets everything come to rest: whoever has not
// paid runs out of time.
func (w *walker) settleDown() {
	w.t.Helper()
	w.step(w.healer.Step)
	for range 3 {
		for range 2 { // what is pending or stuck is a millisecond old by then
			w.drain()
			w.step(w.reaper.Step)
			w.step(w.sweeper.Step)
		}
		w.drain()
		w.due()
		w.drain()
	}
}

// checkEnds checks S7, S8 and S9.
func (w *walker) checkEnds() {
	w.t.Helper()
	for _, p := range w.products {
		c, s := w.balanced(p)
		w.atRest(p, s.Deducted)
		if s.Deducted == 0 || c.RolledBack == 0 {
			w.t.Errorf("%s: nothing sold or nothing returned, so nothing tried: %+v", p, c)
		}
	}
	for id := range w.accepted {
		r := w.known[id]
		inRedis, inLedger, o := w.inRedis(r), w.inLedger(r), w.ordered(r)
		switch {
		case inLedger == deducted && o == order.Paid && inRedis == deducted:
		case inLedger == rolledBack && o == order.Cancelled && inRedis == rolledBack:
		case inLedger == refused && o == "" && inRedis == rolledBack && w.losses:
		case inLedger == "" && o == "" && inRedis == "" && w.forgiven[id]:
		default:
			w.t.Errorf("S7: %s ends at %q, %q, %q (Redis, ledger, order)", id, inRedis, inLedger, o)
		}
	}
	if len(w.dead) > 0 {
		w.t.Errorf("dead letters: %v", w.dead)
	}
}
