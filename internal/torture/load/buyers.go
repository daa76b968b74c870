package load

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Sale is what the buyers know.
type Sale struct {
	Activity string
	Products []string // the first is wanted most
}

func (s Sale) path(product string) string {
	return "/v1/activities/" + s.Activity + "/products/" + product
}

// Buyers are many users who want few units.
type Buyers struct {
	Line    *Line
	Sale    Sale
	Journal *Journal
	Callers int
	Rate    int // requests a second, about
	Users   int
	Seed    uint64

	Requests, Accepted, Replayed, Unanswered, NotFound atomic.Int64
	Answers                                            Counts // by status and code
	Unexpected                                         Counts // what should never be answered
	Units                                              atomic.Int64

	mu     sync.Mutex
	recent []wish // lately tried, accepted or not
	held   []wish // lately accepted
}

// wish is one attempt to buy, which may be repeated.
type wish struct {
	product, user, key string
	quantity           int64
	id                 string // once accepted
}

// Run lets all of them loose until ctx ends.
func (b *Buyers) Run(ctx context.Context) {
	var all sync.WaitGroup
	for i := range b.Callers {
		rng := rand.New(rand.NewPCG(b.Seed, uint64(i)))
		zipf := rand.NewZipf(rng, 1.2, 2, uint64(len(b.Sale.Products)-1))
		all.Go(func() {
			for ctx.Err() == nil {
				b.step(ctx, rng, zipf)
				mean := time.Second * time.Duration(b.Callers) / time.Duration(b.Rate)
				select {
				case <-ctx.Done():
				case <-time.After(rand.N(2 * mean)):
				}
			}
		})
	}
	all.Wait()
}

func (b *Buyers) step(ctx context.Context, rng *rand.Rand, zipf *rand.Zipf) {
	switch n := rng.IntN(1000); {
	case n < 10:
		b.hostile(ctx, rng)
	case n < 80:
		if w, ok := pick(rng, b, &b.recent, kept); ok {
			b.buy(ctx, rng, w)
		}
	case n < 110: // has forgotten the key, or wants more: mostly somebody who asked just now
		if w, ok := pick(rng, b, &b.recent, 500); ok {
			w.key, w.id = newKey(rng), ""
			b.buy(ctx, rng, w)
		}
	case n < 120:
		if w, ok := pick(rng, b, &b.held, kept); ok {
			b.merge(ctx, rng, w)
		}
	case n < 180:
		if w, ok := pick(rng, b, &b.held, kept); ok {
			b.look(ctx, rng, w)
		}
	default:
		b.buy(ctx, rng, wish{
			product: b.Sale.Products[zipf.Uint64()], user: fmt.Sprint("user-", rng.IntN(b.Users)),
			key: newKey(rng), quantity: 1 + rng.Int64N(3),
		})
	}
}

func newKey(rng *rand.Rand) string { return fmt.Sprintf("key-%016x", rng.Uint64()) }

// kept is how many wishes a list of lately things has at most.
const kept = 2000

// pick takes one of the last so many of a list.
func pick(rng *rand.Rand, b *Buyers, from *[]wish, last int) (wish, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(*from) == 0 {
		return wish{}, false
	}
	return (*from)[len(*from)-1-rng.IntN(min(len(*from), last))], true
}

// keep appends to a list of lately things, which stays short.
func (b *Buyers) keep(list *[]wish, w wish) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if *list = append(*list, w); len(*list) > kept {
		*list = append([]wish{}, (*list)[kept/2:]...)
	}
}

// buy tries up to four times, with the same key.
func (b *Buyers) buy(ctx context.Context, rng *rand.Rand, w wish) {
	b.keep(&b.recent, w)
	body := fmt.Appendf(nil, `{"user_id":%q,"quantity":%d}`, w.user, w.quantity)
	for try := range 4 {
		b.Requests.Add(1)
		a, err := b.Line.Send(ctx, rng.IntN(2)+try, Ask{"POST", b.Sale.path(w.product) + "/reservations", body, w.key})
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			b.Unanswered.Add(1)
		} else if b.answered(w, a) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(min(a.RetryAfter, time.Second)/2 + rand.N(500*time.Millisecond)):
		}
	}
}

// answered books an answer and reports whether it is final.
func (b *Buyers) answered(w wish, a Answer) bool {
	b.Answers.Add(strings.TrimSpace(fmt.Sprint(a.Status, " ", a.Code)))
	switch {
	case a.Status == 202:
		b.accepted(w, a)
		return true
	case a.Status == 503:
		if a.RetryAfter <= 0 {
			b.Unexpected.Add("503 without Retry-After: " + a.Code)
		}
		return false
	case a.Status == 409 || a.Status == 422 || a.Status == 429:
		return true // a refusal
	}
	b.Unexpected.Add(fmt.Sprintf("%d %s to an honest request: %.200s", a.Status, a.Code, a.Text))
	return true
}

func (b *Buyers) accepted(w wish, a Answer) {
	if a.ReservationID == "" || a.UserID != w.user || a.ProductID != w.product || a.Quantity != w.quantity {
		b.Unexpected.Add(fmt.Sprintf("202 for something else than %+v: %.300s", w, a.Text))
		return
	}
	if a.Replayed {
		b.Replayed.Add(1)
	}
	fresh, err := b.Journal.Add(Promise{ID: a.ReservationID, Product: w.product, User: w.user, Quantity: w.quantity, Key: w.key, At: time.Now()})
	if err != nil {
		b.Unexpected.Add(err.Error())
		return
	}
	if fresh {
		b.Accepted.Add(1)
		b.Units.Add(w.quantity)
		w.id = a.ReservationID
		b.keep(&b.held, w)
	}
}

// merge asks for another quantity under a key that was used: the answer must
// never be yes.
func (b *Buyers) merge(ctx context.Context, rng *rand.Rand, w wish) {
	b.Requests.Add(1)
	body := fmt.Appendf(nil, `{"user_id":%q,"quantity":%d}`, w.user, w.quantity%3+1)
	a, err := b.Line.Send(ctx, rng.IntN(2), Ask{"POST", b.Sale.path(w.product) + "/reservations", body, w.key})
	if err == nil {
		b.Answers.Add(strings.TrimSpace(fmt.Sprint("other quantity: ", a.Status, " ", a.Code)))
		// Redis may have lost the first one: then this one is new to it, and the
		// ledger still has the first. The buyer is told the first.
		if a.Status == 202 {
			b.Answers.Add("other quantity accepted after a loss")
		}
	}
}

// look asks what has become of a promise.
func (b *Buyers) look(ctx context.Context, rng *rand.Rand, w wish) {
	b.Requests.Add(1)
	a, err := b.Line.Send(ctx, rng.IntN(2), Ask{Method: "GET", Path: b.Sale.path(w.product) + "/reservations/" + w.id + "?user_id=" + url.QueryEscape(w.user)})
	if err == nil && a.Status == 404 {
		b.NotFound.Add(1)
	}
}

// hostile sends what nobody should, and expects a plain no.
func (b *Buyers) hostile(ctx context.Context, rng *rand.Rand) {
	product := b.Sale.Products[rng.IntN(len(b.Sale.Products))]
	bodies := []string{
		``, `{`, `[]`, `null`, `{"user_id":"u"}`, `{"user_id":"u","quantity":0}`, `{"user_id":"u","quantity":-1}`, `{"user_id":"u","quantity":1e18}`,
		`{"user_id":"u","quantity":"1"}`, `{"user_id":"u v","quantity":1}`, `{"user_id":"","quantity":1}`, `{"user_id":"u","quantity":1,"quantity":2}`,
		`{"user_id":"u;x,1,C,1","quantity":1.5}`, `{"user_id":"u","quantity":1,"price_cents":0}`, `{"user_id":"` + strings.Repeat("u", 5000) + `","quantity":1}`,
	}
	paths := []string{b.Sale.path(product), b.Sale.path("..%2f" + product), b.Sale.path("no-such"), "/v1/activities/x/products/" + product}
	keys := []string{"", "short", "key-\x7f", strings.Repeat("k", 4000), "key-of-a-hostile-buyer"}
	body, path, key := one(rng, bodies), one(rng, paths), one(rng, keys)
	if json.Valid([]byte(body)) && path == b.Sale.path(product) && rng.IntN(2) == 0 {
		body = `{"user_id":"u","quantity":999999999}`
	}
	b.Requests.Add(1)
	a, err := b.Line.Send(ctx, rng.IntN(2), Ask{"POST", path + "/reservations", []byte(body), key})
	if err != nil {
		return
	}
	b.Answers.Add(fmt.Sprint("hostile: ", a.Status))
	if a.Status < 400 || a.Status >= 500 && a.Status != 503 {
		b.Unexpected.Add(fmt.Sprintf("%d to the hostile request %.60q of %q: %.200s", a.Status, body, path, a.Text))
	}
}

func one[T any](rng *rand.Rand, of []T) T { return of[rng.IntN(len(of))] }
