package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/segmentio/kafka-go"

	"github.com/leadingpeers/seckill/internal/proc"
	"github.com/leadingpeers/seckill/internal/testservers"
	"github.com/leadingpeers/seckill/pkg/events"
	"github.com/leadingpeers/seckill/pkg/order"
)

// TestCheckoutSellsEverything sells 1,000 units through examples/checkout.
// The first 1,000 buyers pay in time, fail to, never do, too late, twice, or a
// wrong amount; somebody pays for reservations that nobody has made; the
// checkout is killed and started again. What comes back is sold again, until
// the last unit is paid. Then every unit and every cent is counted.
func TestCheckoutSellsEverything(t *testing.T) {
	testservers.Real(t)
	c := startCluster(t, sharedServers(t))
	const units = 1000
	activity, products := c.openSale(t, 1, units, 15)
	f := &shopfront{t: t, c: c, activity: activity, product: products[0], journal: filepath.Join(t.TempDir(), "checkout.jsonl")}
	f.start()
	for i := range 20 {
		f.pay(payment{ReservationID: "nobody" + strings.Repeat("a", 18) + string(rune('a'+i)) + "a", Ref: fmt.Sprintf("ghost-%d", i), Amount: 100})
	}
	sold := f.sellAll(units)
	f.lateOnes.Wait()
	if t.Failed() {
		return
	}
	t.Logf("%d units sold to %d buyers, %d payments", sold, f.buyers.Load(), len(f.made))
	f.settled(units)
	f.checkMoney()
	f.checkDeadLetters()
}

// payment is one call of the webhook.
type payment struct {
	ReservationID string `json:"reservation_id"`
	Ref           string `json:"payment_ref"`
	Amount        int64  `json:"amount_cents"`
	Currency      string `json:"currency"`
	Outcome       string `json:"outcome"`
}

// shopPurchase is what the checkout says of a reservation.
type shopPurchase struct {
	ReservationID string `json:"reservation_id"`
	State         string `json:"state"`
	AmountCents   int64  `json:"amount_cents"`
	PaymentRef    string `json:"payment_ref"`
	Refunds       []struct {
		PaymentRef  string `json:"payment_ref"`
		AmountCents int64  `json:"amount_cents"`
		Reason      string `json:"reason"`
	} `json:"refunds"`
	Code string `json:"code"`
}

// shopfront is the example's process and the crowd in front of it.
type shopfront struct {
	t                          *testing.T
	c                          *cluster
	activity, product, journal string

	address  atomic.Value // of the process that runs
	buyers   atomic.Int64
	done     atomic.Bool // every unit is paid
	lateOnes sync.WaitGroup

	mu    sync.Mutex
	users map[string]string // by reservation
	made  []payment
	odd   map[string]bool // references of wrong amounts that went back
}

// start runs the checkout; it may have been killed before.
func (f *shopfront) start() {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), 30*time.Second)
	defer cancel()
	p, err := proc.Start(ctx, proc.Spec{
		Name: "checkout", Path: filepath.Join(f.c.bin, "checkout"), Env: append(f.c.env, "SECKILL_KEY="+f.c.serviceKey), Logs: f.c.logs,
		Args: []string{
			"--listen=127.0.0.1:0", "--gateway=" + f.c.gateways()[0], "--kafka=" + f.c.cfg.Kafka, "--prefix=" + f.c.cfg.Prefix,
			"--activity=" + f.activity, "--product=" + f.product, "--journal=" + f.journal,
		},
	})
	if err != nil {
		f.t.Fatal(err)
	}
	f.c.procs["checkout"] = p
	f.address.Store("http://" + p.API)
}

// call asks the checkout until it gives an answer that is final.
func (f *shopfront) call(method, path string, body any) (status int, p shopPurchase) {
	text, err := json.Marshal(body)
	if err != nil {
		f.t.Error(err)
		return 0, p
	}
	last := ""
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline) && f.t.Context().Err() == nil; time.Sleep(50 * time.Millisecond) {
		req, err := http.NewRequestWithContext(f.t.Context(), method, f.address.Load().(string)+path, bytes.NewReader(text))
		if err != nil {
			f.t.Error(err)
			return 0, p
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			last = err.Error()
			continue // it was killed
		}
		answer, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		p = shopPurchase{}
		if err == nil && len(answer) > 0 {
			err = json.Unmarshal(answer, &p)
		}
		if err != nil || resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests {
			last = fmt.Sprintf("%d %v %s", resp.StatusCode, err, answer)
			continue
		}
		return resp.StatusCode, p
	}
	f.t.Errorf("%s %s: no answer: %s", method, path, last)
	return 0, p
}

// pay calls the webhook and remembers it.
func (f *shopfront) pay(p payment) {
	p.Currency = "CNY"
	if p.Outcome == "" {
		p.Outcome = "succeeded"
	}
	f.mu.Lock()
	f.made = append(f.made, p)
	f.mu.Unlock()
	if status, answer := f.call("POST", "/payments", p); status != http.StatusAccepted {
		f.t.Errorf("payment %+v: %d %s", p, status, answer.Code)
	}
}

// until asks for a purchase until it is in one of the states.
func (f *shopfront) until(id, user string, states ...string) (p shopPurchase) {
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline) && f.t.Context().Err() == nil; time.Sleep(100 * time.Millisecond) {
		_, p = f.call("GET", "/purchases/"+id+"?user_id="+user, nil)
		if slices.Contains(states, p.State) {
			return p
		}
	}
	f.t.Errorf("%s stays %q, want one of %v", id, p.State, states)
	return p
}

// sellAll lets buyers in until every unit is paid, and kills the checkout on
// the way. It returns how many units that were.
func (f *shopfront) sellAll(units int64) int64 {
	f.users = map[string]string{}
	var crowd sync.WaitGroup
	for range 32 {
		crowd.Go(func() {
			for !f.done.Load() && !f.t.Failed() {
				f.buyer(int(f.buyers.Add(1)))
			}
		})
	}
	killed := false
	var paid int64
	for deadline := time.Now().Add(4 * time.Minute); paid < units && time.Now().Before(deadline) && !f.t.Failed(); time.Sleep(200 * time.Millisecond) {
		counts, err := f.c.stores.Orders.Counts(f.t.Context(), f.product)
		if err != nil {
			f.t.Error(err)
		}
		paid = counts.Paid.Units
		if !killed && paid > units/4 {
			killed = true
			f.c.procs["checkout"].Kill()
			f.t.Logf("checkout killed after %d units", paid)
			f.start()
		}
	}
	f.done.Store(true)
	crowd.Wait()
	if paid != units {
		f.t.Errorf("%d of %d units are paid", paid, units)
	}
	return paid
}

// buyer is the n-th one: what they do depends on n.
func (f *shopfront) buyer(n int) {
	user := fmt.Sprintf("u-%d", n)
	var p shopPurchase
	for status := 0; status != http.StatusAccepted; {
		if status, p = f.call("POST", "/purchases", map[string]any{"cart": fmt.Sprintf("cart-%05d", n), "user_id": user, "quantity": 1}); status == http.StatusConflict {
			time.Sleep(200 * time.Millisecond) // something may come back
			if f.done.Load() {
				return
			}
		} else if status != http.StatusAccepted {
			f.t.Errorf("buyer %d: %d %s", n, status, p.Code)
			return
		}
	}
	f.mu.Lock()
	f.users[p.ReservationID] = user
	f.mu.Unlock()
	p = f.until(p.ReservationID, user, "awaiting_payment", "cancelled")
	good := payment{ReservationID: p.ReservationID, Ref: fmt.Sprintf("pay-%d", n), Amount: p.AmountCents}
	other := good
	other.Ref += "-b"
	fate := n % 10
	if n > 1000 {
		fate = 9
	}
	switch fate {
	case 0: // fails
		good.Outcome = "failed"
		f.pay(good)
	case 1: // never pays
	case 2: // too late
		f.lateOnes.Go(func() {
			f.until(p.ReservationID, user, "cancelled")
			f.pay(good)
		})
	case 3: // pays twice: the page, and the app
		f.pay(good)
		f.pay(good) // the provider repeats itself: nothing more happens
		f.pay(other)
	case 4: // a wrong amount, then the right one
		other.Amount++
		f.pay(other)
		f.pay(good)
	default:
		f.pay(good)
	}
}

// settled waits until the stores agree that every unit is paid.
func (f *shopfront) settled(units int64) {
	f.t.Helper()
	f.c.drained(f.t, time.Minute)
	books := f.c.stores.Books()
	ids := slices.Collect(maps.Keys(f.users))
	eventually(f.t, time.Minute, func() error {
		fates, err := books.Fates(f.t.Context(), ids)
		if err != nil {
			return err
		}
		if len(fates.Lost) > 0 || len(fates.Wrong) > 0 || fates.Paid != units {
			return fmt.Errorf("%d paid, without an end %v, contradictions %v", fates.Paid, first(fates.Lost), first(fates.Wrong))
		}
		accounts, err := books.Accounts(f.t.Context(), []string{f.product})
		if err != nil {
			return err
		}
		if a := accounts[0]; len(a.Differences()) > 0 || a.Open > 0 || a.Awaiting > 0 || a.Paid != units || a.Surplus != 0 || a.Oversold() != 0 || a.Leaked() != 0 {
			return fmt.Errorf("%+v, differences %v", a, a.Differences())
		}
		return nil
	})
}

// checkMoney compares every payment with what the order and the checkout say:
// it has paid the order, or it goes back, once.
func (f *shopfront) checkMoney() {
	f.t.Helper()
	price := int64(100) // of product 0
	type back struct {
		Ref    string
		Amount int64
		Reason string
	}
	want := map[string][]back{}
	reasons := map[string]int{}
	balance := int64(0)
	seen := map[string]bool{}
	for _, p := range f.made {
		if p.Outcome != "succeeded" || p.Amount != price || strings.HasPrefix(p.Ref, "ghost") || seen[p.Ref] {
			continue
		}
		seen[p.Ref] = true
		o, err := f.c.stores.Orders.Find(f.t.Context(), p.ReservationID)
		switch {
		case err != nil:
			f.t.Errorf("order of %s: %v", p.ReservationID, err)
		case o.State == order.Paid && o.PaymentRef == p.Ref:
			balance += p.Amount
		case o.State == order.Paid:
			want[p.ReservationID] = append(want[p.ReservationID], back{p.Ref, p.Amount, "already_paid"})
			reasons["already_paid"]++
		default:
			want[p.ReservationID] = append(want[p.ReservationID], back{p.Ref, p.Amount, "too_late"})
			reasons["too_late"]++
		}
	}
	if balance != price*1000 {
		f.t.Errorf("%d cents have paid for 1000 units at %d", balance, price)
	}
	if reasons["already_paid"] < 10 || reasons["too_late"] < 10 {
		f.t.Errorf("only %v had to go back: that proves little", reasons)
	}
	f.t.Logf("to give back: %v", reasons)
	eventually(f.t, time.Minute, func() error {
		f.odd = map[string]bool{}
		for id, user := range f.users {
			_, p := f.call("GET", "/purchases/"+id+"?user_id="+user, nil)
			var got []back
			for _, r := range p.Refunds {
				if r.AmountCents != price && !f.odd[r.PaymentRef] {
					// The right amount came in the same batch and was first to be booked.
					f.odd[r.PaymentRef] = true
					continue
				}
				got = append(got, back{r.PaymentRef, r.AmountCents, r.Reason})
			}
			slices.SortFunc(got, func(a, b back) int { return strings.Compare(a.Ref, b.Ref) })
			slices.SortFunc(want[id], func(a, b back) int { return strings.Compare(a.Ref, b.Ref) })
			if diff := cmp.Diff(want[id], got); diff != "" {
				return fmt.Errorf("%s, %s: refunds (-due +checkout):\n%s", id, p.State, diff)
			}
		}
		return nil
	})
}

// checkDeadLetters wants exactly the payments that nobody can book among the
// dead letters: those for reservations that are not there, and wrong amounts
// that did not go back. A wrong amount that went back may be there too: the
// webhook was tried again when the checkout was killed, so Kafka has it twice,
// and the right amount was booked between the two.
func (f *shopfront) checkDeadLetters() {
	f.t.Helper()
	want := map[string]bool{}
	for _, p := range f.made {
		if strings.HasPrefix(p.Ref, "ghost") || p.Amount != 100 && !f.odd[p.Ref] {
			want[p.Ref] = true
		}
	}
	eventually(f.t, time.Minute, func() error {
		got := map[string]bool{}
		for _, m := range f.c.records(f.t, events.DeadLetterTopic("payment")) {
			var p payment
			if err := json.Unmarshal(m.Value, &p); err != nil {
				return err
			}
			if !f.odd[p.Ref] {
				got[p.Ref] = true
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			return fmt.Errorf("dead letters (-expected +found):\n%s", diff)
		}
		return nil
	})
	f.t.Logf("%d payments among the dead letters", len(want))
}

// records reads a topic from its first record to its last.
func (c *cluster) records(t *testing.T, topic events.Topic) (all []kafka.Message) {
	t.Helper()
	lags, err := events.Lag(t.Context(), c.stores.Kafka, "nobody", topic)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lags {
		if l.End == 0 {
			continue
		}
		r := kafka.NewReader(kafka.ReaderConfig{Brokers: c.stores.Kafka.Brokers, Topic: c.stores.Kafka.TopicName(topic), Partition: l.Partition, MaxWait: 100 * time.Millisecond})
		for {
			m, err := r.ReadMessage(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, m)
			if m.Offset == l.End-1 {
				break
			}
		}
		_ = r.Close()
	}
	return all
}
