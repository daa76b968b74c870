package redrive

import (
	"context"
	"database/sql"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/segmentio/kafka-go"

	"github.com/leadingpeers/seckill/internal/audit"
	"github.com/leadingpeers/seckill/internal/stockworker"
	"github.com/leadingpeers/seckill/internal/testservers"
	"github.com/leadingpeers/seckill/pkg/events"
	"github.com/leadingpeers/seckill/pkg/stock"
)

const testPatience = 3 * time.Minute

// plant is a stock-worker's group deduct on servers of its own names, and a
// desk for its dead letters.
type plant struct {
	*testing.T
	*Desk
	db     *sql.DB
	ledger *stock.Ledger

	working bool
}

func newPlant(t *testing.T) *plant {
	t.Helper()
	cfg := events.ClientConfig{Brokers: testservers.Kafka(t), Prefix: testservers.Prefix(t)}
	ctx, cancel := context.WithTimeout(t.Context(), testPatience)
	defer cancel()
	if err := events.Apply(ctx, cfg, events.Overrides{Partitions: 2, Replication: 1}); err != nil {
		t.Fatal(err)
	}
	p := &plant{T: t, db: testservers.MySQL(t)}
	p.ledger = stock.NewLedger(p.db)
	p.Desk = &Desk{Kafka: cfg, DB: p.db, Now: time.Now, Publisher: events.NewPublisher(events.PublisherConfig{ClientConfig: cfg, Now: time.Now})}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), testPatience)
		defer cancel()
		_ = p.Publisher.Close(ctx)
	})
	return p
}

// work runs the real consumer with the real handler until the test ends.
func (p *plant) work() {
	client := redis.NewClient(&redis.Options{Addr: testservers.Redis(p.T)})
	cache := stock.NewCache(client, stock.CacheConfig{Prefix: p.Kafka.Prefix})
	consumer := events.NewConsumer(events.ConsumerConfig{ClientConfig: p.Kafka, Group: "deduct", Topic: events.Reservations, Now: time.Now}, stockworker.Deduct(cache, p.ledger), p.Publisher)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- consumer.Run(ctx) }()
	p.working = true
	p.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			p.Error(err)
		}
		cache.Close()
		_ = client.Close()
	})
}

// id is a reservation ID with the number n.
func id(n int) string {
	raw := make([]byte, 16)
	binary.BigEndian.PutUint64(raw, uint64(n)*2654435761)
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(raw))
}

func (p *plant) publish(evs ...events.Event) {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.Context(), testPatience)
	defer cancel()
	if err := p.Publisher.Publish(ctx, evs...); err != nil {
		p.Fatal(err)
	}
}

func created(n int, product, reservation string) events.Event {
	return events.Event{Type: events.ReservationCreated, ReservationID: reservation, ActivityID: "sale", ProductID: product, UserID: fmt.Sprint("u", n), Quantity: 1}
}

// garbage writes n records that are no events.
func (p *plant) garbage(n int) {
	p.Helper()
	w := &kafka.Writer{Addr: kafka.TCP(p.Kafka.Brokers...), Topic: p.Kafka.TopicName(events.Reservations), RequiredAcks: kafka.RequireAll, BatchTimeout: time.Millisecond}
	defer w.Close()
	var msgs []kafka.Message
	for i := range n {
		msgs = append(msgs, kafka.Message{Key: fmt.Append(nil, "k", i), Value: fmt.Append(nil, "not an event ", i)})
	}
	if err := w.WriteMessages(p.Context(), msgs...); err != nil {
		p.Fatal(err)
	}
}

// statuses counts the letters of the group by class and status.
func (p *plant) statuses() map[string]map[Status]int {
	p.Helper()
	out := map[string]map[Status]int{}
	for item, err := range p.List(p.Context(), "deduct", Filter{}) {
		if err != nil {
			p.Fatal(err)
		}
		if out[item.Class] == nil {
			out[item.Class] = map[Status]int{}
		}
		out[item.Class][item.Status]++
	}
	return out
}

func (p *plant) await(what string, done func() bool) {
	p.Helper()
	deadline, tick := time.After(testPatience), time.NewTicker(50*time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			p.Fatalf("not within %s: %s; letters: %v", testPatience, what, p.statuses())
		}
	}
}

func (p *plant) run(j Job) Report {
	p.Helper()
	j.Group = "deduct"
	if p.working {
		j.Wait = testPatience
	}
	r, err := p.Desk.Run(p.Context(), j)
	if err != nil {
		p.Fatalf("%+v: %v", j, err)
	}
	return r
}

// Real faults in the real consumer, 500 of them in three classes: each class is
// sent back by itself, what is cured is handled, what is not comes back until
// it is quarantined.
func TestFiveHundredLettersOfThreeClasses(t *testing.T) {
	p := newPlant(t)
	const unknown, invalid, undecodable = 250, 150, 100
	var evs []events.Event
	for i := range unknown {
		evs = append(evs, created(i, "p1", id(i)))
	}
	for i := range invalid { // its last character names more than 128 bits: an event, but no reservation
		evs = append(evs, created(i, "p2", id(1000 + i)[:25]+"b"))
	}
	p.publish(evs...)
	p.garbage(undecodable)
	p.work()
	p.await("500 dead letters", func() bool {
		s := p.statuses()
		return s["unknown_product"][Waiting] == unknown && s["invalid"][Waiting] == invalid && s["undecodable"][Waiting] == undecodable
	})

	dry := p.run(Job{Filter: Filter{Class: "unknown_product"}, DryRun: true})
	if dry.Before.Sum() != 500 || dry.Chosen.Sum() != unknown || dry.Done.Sum() != 0 {
		t.Errorf("a dry run: %+v, want 500 before, %d chosen and none done", dry, unknown)
	}
	if s := p.statuses(); s["unknown_product"][Waiting] != unknown {
		t.Errorf("a dry run changed the letters: %v", s)
	}

	if _, err := p.db.ExecContext(t.Context(), "INSERT INTO stock (product_id, total, available, per_user) VALUES ('p1', 1000, 1000, 5)"); err != nil {
		t.Fatal(err)
	}
	r := p.run(Job{Filter: Filter{Class: "unknown_product"}})
	if r.Done["unknown_product"] != unknown || r.Done.Sum() != unknown || r.After["unknown_product"] != 0 || r.After.Sum() != invalid+undecodable || r.Unhandled != 0 {
		t.Errorf("the cured class: %+v, want all %d done and none of them back", r, unknown)
	}
	if s, err := p.ledger.Stock(t.Context(), "p1"); err != nil || s.Deducted != unknown {
		t.Errorf("the ledger has deducted %+v, %v; want %d units", s, err, unknown)
	}

	for round := range 3 {
		r = p.run(Job{Filter: Filter{Class: "undecodable"}})
		if r.Done.Sum() != undecodable {
			t.Errorf("round %d of a class that nothing cures: %+v, want %d done", round, r, undecodable)
		}
	}
	if r.Quarantined != undecodable || r.After["undecodable"] != 0 {
		t.Errorf("after 3 redrives: %+v, want %d quarantined", r, undecodable)
	}
	if r = p.run(Job{Filter: Filter{Class: "undecodable"}}); r.Done.Sum() != 0 || r.After["invalid"] != invalid {
		t.Errorf("a quarantined letter was sent back, or others are not counted: %+v", r)
	}
	want := map[Status]int{Redriven: 3 * undecodable, Quarantined: undecodable}
	if s := p.statuses(); s["undecodable"][Redriven] != want[Redriven] || s["undecodable"][Quarantined] != want[Quarantined] || s["invalid"][Waiting] != invalid {
		t.Errorf("at the end %v, want %v undecodable, and the invalid ones waiting", s, want)
	}
	p.audited("RedriveDeadLetters", 8)
}

// audited counts the entries of the trail.
func (p *plant) audited(action string, want int) {
	p.Helper()
	entries, err := audit.NewTrail(p.db).List(p.Context(), audit.Filter{Entity: "dlq/deduct", Limit: 100})
	if err != nil {
		p.Fatal(err)
	}
	got := 0
	for _, e := range entries {
		if e.Action == action {
			got++
		}
	}
	if got != want {
		p.Errorf("%d entries of %s in the audit trail, want %d: each run that acts writes when it begins and when it ends", got, action, want)
	}
}

// letters makes n dead letters of one class without a worker.
func (p *plant) letters(n int) {
	p.Helper()
	var evs []events.Event
	for i := range n {
		evs = append(evs, created(i, "p1", id(i)))
	}
	p.publish(evs...)
	ctx, cancel := context.WithCancel(p.Context())
	consumer := events.NewConsumer(events.ConsumerConfig{ClientConfig: p.Kafka, Group: "deduct", Topic: events.Reservations, Now: time.Now},
		func(context.Context, []events.Event) ([]events.Event, error) {
			return nil, events.PermanentAs("unknown_product", errors.New("no such product"))
		}, p.Publisher)
	done := make(chan error, 1)
	go func() { done <- consumer.Run(ctx) }()
	p.await("the letters", func() bool { return p.statuses()["unknown_product"][Waiting] == n })
	cancel()
	if err := <-done; err != nil {
		p.Fatal(err)
	}
}

// sentBack lists the reservations of the redriven records, in no order.
func (p *plant) sentBack() []string {
	p.Helper()
	spans, err := events.Spans(p.Context(), p.Kafka, events.Reservations, time.Time{})
	if err != nil {
		p.Fatal(err)
	}
	seen := map[string]int{}
	var out []string
	for _, s := range spans {
		for r, err := range events.Scan(p.Context(), p.Kafka, events.Reservations, s) {
			if err != nil {
				p.Fatal(err)
			}
			if seen[r.Event.ReservationID]++; seen[r.Event.ReservationID] > 1 { // the first one is the original
				out = append(out, r.Event.ReservationID)
			}
		}
	}
	return out
}

func TestARunThatIsCutShortGoesOn(t *testing.T) {
	p := newPlant(t)
	p.letters(30)
	job := Job{Group: "deduct", Filter: Filter{Type: string(events.ReservationCreated)}}

	ctx, stop := context.WithCancel(t.Context())
	stop()
	r, err := p.Desk.Run(ctx, job)
	if err == nil || r.Done.Sum() != 0 {
		t.Errorf("told to end before the first letter: %+v, %v; want nothing done and the reason", r, err)
	}
	job.Max = 10
	if r, err = p.Desk.Run(t.Context(), job); err != nil || r.Done.Sum() != 10 || r.Stopped == "" || r.After.Sum() != 20 {
		t.Errorf("at most 10: %+v, %v; want 10 done and 20 left", r, err)
	}
	job.Max = 0
	job.Rate = 1000
	if r, err = p.Desk.Run(t.Context(), job); err != nil || r.Done.Sum() != 20 || r.After.Sum() != 0 {
		t.Errorf("the rest: %+v, %v; want 20 done and none left", r, err)
	}
	got := p.sentBack()
	slices.Sort(got)
	if n := len(slices.Compact(slices.Clone(got))); len(got) != 30 || n != 30 {
		t.Errorf("%d records for %d reservations were sent back, want each of 30 once", len(got), n)
	}
	lags, err := events.Lag(t.Context(), p.Kafka, strings.TrimPrefix(r.Progress, p.Kafka.Prefix+"."), events.DeadLetterTopic("deduct"))
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lags {
		if l.Lag != 0 {
			t.Errorf("the lag of the progress is %+v, want none: nothing is left to do", l)
		}
	}
}

// A signal in the middle finishes the batch in hand.
func TestASignalFinishesTheBatch(t *testing.T) {
	p := newPlant(t)
	p.letters(40)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	job := Job{Group: "deduct", Filter: Filter{Class: "unknown_product"}, Rate: 10}
	go func() {
		for t.Context().Err() == nil && len(p.sentBack()) == 0 { // each look takes its time
		}
		stop()
	}()
	r, err := p.Desk.Run(ctx, job)
	if err != nil || r.Stopped == "" || r.Done.Sum() == 0 || r.Done.Sum() == 40 {
		t.Fatalf("%+v, %v; want a part of the letters done, and no error", r, err)
	}
	if got := int64(len(p.sentBack())); got != r.Done.Sum() {
		t.Errorf("%d records were sent back, the report says %d", got, r.Done.Sum())
	}
	if s := p.statuses()["unknown_product"]; int64(s[Redriven]) != r.Done.Sum() || s[Waiting]+s[Redriven] != 40 {
		t.Errorf("letters are %v after %d of 40", s, r.Done.Sum())
	}
	p.audited("RedriveDeadLetters", 2)
}

func TestDropAndOneByID(t *testing.T) {
	p := newPlant(t)
	p.letters(6)
	var first Item
	for item, err := range p.List(t.Context(), "deduct", Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		first = item
		break
	}
	r := p.run(Job{Drop: true, Filter: Filter{IDs: []string{first.ID()}}})
	if r.Done.Sum() != 1 || r.After.Sum() != 5 {
		t.Errorf("drop one: %+v", r)
	}
	if got, err := p.Find(t.Context(), first.ID()); err != nil || got.Status != Dropped || string(got.Value) != string(first.Value) {
		t.Errorf("the dropped one: %+v, %v; want it there, whole, and dropped", got, err)
	}
	if len(p.sentBack()) != 0 {
		t.Error("a dropped letter was sent back")
	}
	if r = p.run(Job{Filter: Filter{Class: "unknown_product"}, Progress: "evening", Max: 1}); r.Done.Sum() != 1 {
		t.Errorf("under a name: %+v", r)
	}
	p.run(Job{Drop: true, Filter: Filter{Class: "unknown_product"}})
	if s := p.statuses()["unknown_product"]; s[Done]+s[Dropped] != 6 || s[Done] < 1 {
		t.Errorf("after a redrive of one and a drop of all: %v, want those that both have passed done, the others dropped", s)
	}
	_, err := p.Desk.Run(t.Context(), Job{Group: "deduct", Filter: Filter{Class: "undecodable"}, Progress: "evening"})
	if err == nil || !strings.Contains(err.Error(), "belongs to another filter") {
		t.Errorf("another filter under the same name: %v", err)
	}
	p.audited("DropDeadLetters", 4)
}

// Another run that moves the same progress is noticed before a batch is sent.
func TestTwoRunsOfOneProgress(t *testing.T) {
	p := newPlant(t)
	p.letters(5)
	job := Job{Group: "deduct", Filter: Filter{Class: "unknown_product"}}
	mine, err := p.begin(t.Context(), job)
	if err != nil {
		t.Fatal(err)
	}
	if r := p.run(job); r.Done.Sum() != 5 {
		t.Fatalf("the other run: %+v", r)
	}
	if err := mine.all(t.Context()); !errors.Is(err, ErrUnderWay) {
		t.Errorf("%v, want %v", err, ErrUnderWay)
	}
	if n := len(p.sentBack()); n != 5 {
		t.Errorf("%d records sent back, want 5", n)
	}
}

func TestALetterGoesOnlyWhereItCameFrom(t *testing.T) {
	cfg := events.ClientConfig{Prefix: "shop"}
	for _, c := range []struct {
		why    string
		letter events.Letter
		ok     bool
	}{
		{"its topic", events.Letter{OriginTopic: "shop.reservations"}, true},
		{"another installation's", events.Letter{OriginTopic: "other.reservations"}, false},
		{"no topic of events", events.Letter{OriginTopic: "shop.deduct.dlq"}, false},
		{"a topic that is none of ours", events.Letter{OriginTopic: "shop.salaries"}, false},
		{"no origin", events.Letter{}, false},
		{"its content is gone", events.Letter{OriginTopic: "shop.reservations", Truncated: true}, false},
	} {
		if _, err := c.letter.WayBack(cfg); (err == nil) != c.ok || (err != nil && !errors.Is(err, events.ErrNoWayBack)) {
			t.Errorf("%s: %v, want a way back: %t", c.why, err, c.ok)
		}
	}
}

func TestFilter(t *testing.T) {
	at := time.Date(2026, 11, 11, 20, 0, 0, 0, time.UTC)
	l := events.Letter{
		Group: "settle", Partition: 3, Offset: 17, Class: "invalid", Type: events.StockDeducted, FailedAt: at,
		Event: events.Event{ActivityID: "a", ProductID: "p", ReservationID: id(1)},
	}
	for _, c := range []struct {
		why    string
		filter Filter
		want   bool
	}{
		{"nothing asked", Filter{}, true},
		{"all of it", Filter{"invalid", string(events.StockDeducted), "a", "p", id(1), at, at.Add(1), []string{"settle/3/17"}}, true},
		{"another class", Filter{Class: "undecodable"}, false},
		{"another type", Filter{Type: "x"}, false},
		{"another activity", Filter{Activity: "b"}, false},
		{"another product", Filter{Product: "q"}, false},
		{"another reservation", Filter{Reservation: id(2)}, false},
		{"too early", Filter{Since: at.Add(1)}, false},
		{"too late", Filter{Until: at}, false},
		{"another letter", Filter{IDs: []string{"settle/3/18"}}, false},
	} {
		if got := c.filter.Matches(l); got != c.want {
			t.Errorf("%s: %t", c.why, got)
		}
	}
	for _, bad := range []string{"", "settle", "settle/3", "settle/3/17x", "nobody/1/2", "settle/3/ 17", "settle/-/1"} {
		if p, err := ParseID(bad); err == nil {
			t.Errorf("%q is %+v", bad, p)
		}
	}
	if p, err := ParseID(l.ID()); err != nil || p != (Place{"settle", 3, 17}) {
		t.Errorf("%+v, %v", p, err)
	}
}
