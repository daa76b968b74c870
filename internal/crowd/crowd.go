// Package crowd simulates the buyers of a sale over real HTTP, and the
// checkout that takes their money over real Kafka, for the demo and the
// end-to-end tests. It believes only what it was told: its own list of every
// 202 is what the books are checked against afterwards.
package crowd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Config describes the crowd.
type Config struct {
	Gateways    []string      // base URLs, http://host:port; each buyer starts at one and turns to the next when it does not answer
	Key         string        // the service key of the checkout that sells for the buyers
	Activity    string        // what they buy from
	Products    []string      // what they buy; each buyer one product, the first the most wanted
	Buyers      int           // how many come
	Callers     int           // how many call at the same time
	Rate        int           // how many come in a second; 0 = as fast as the callers can
	DoubleClick float64       // share that sends every accepted request once more
	Patience    time.Duration // how long one buyer goes on trying while the answer is 503 or none
	Seed        uint64        // decides who buys what
}

// Accepted is one 202: what we promised a buyer.
type Accepted struct {
	ReservationID string
	ProductID     string
	UserID        string
	Quantity      int64
}

// Crowd counts what happens to its buyers. All counters may be read at any time.
type Crowd struct {
	cfg    Config
	client *http.Client

	Requests atomic.Int64 // sent, repetitions included
	Waits    atomic.Int64 // answers that said try again (503), and connections that broke
	Served   atomic.Int64 // buyers who have their final answer
	GaveUp   atomic.Int64 // buyers who ran out of patience

	mu         sync.Mutex
	accepted   []Accepted
	refused    map[string]int64 // by code
	unexpected []string         // answers that no buyer should see
	latency    []time.Duration  // of accepted requests
}

// New makes a crowd; Run lets it loose.
func New(cfg Config) *Crowd {
	return &Crowd{
		cfg:     cfg,
		refused: map[string]int64{},
		client: &http.Client{
			Timeout:   10 * time.Second,
			Transport: &http.Transport{MaxIdleConnsPerHost: cfg.Callers, MaxConnsPerHost: cfg.Callers},
		},
	}
}

// Run sends every buyer and returns when each has a final answer, has run out
// of patience, or ctx ends.
func (c *Crowd) Run(ctx context.Context) {
	defer c.client.CloseIdleConnections()
	var next atomic.Int64
	var wg sync.WaitGroup
	began := time.Now()
	for range c.cfg.Callers {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := next.Add(1) - 1
				if i >= int64(c.cfg.Buyers) {
					return
				}
				if c.cfg.Rate > 0 {
					pause(ctx, time.Until(began.Add(time.Duration(i)*time.Second/time.Duration(c.cfg.Rate))))
				}
				c.buyer(ctx, i)
				c.Served.Add(1)
			}
		})
	}
	wg.Wait()
}

// buyer is one buyer's whole visit. What a buyer wants depends only on the
// seed and the number, not on who calls when.
func (c *Crowd) buyer(ctx context.Context, i int64) {
	r := rand.New(rand.NewPCG(c.cfg.Seed, uint64(i)))
	want := Accepted{
		ProductID: c.cfg.Products[min(r.IntN(len(c.cfg.Products)), r.IntN(len(c.cfg.Products)))],
		UserID:    "buyer-" + strconv.FormatInt(i, 10),
		Quantity:  1,
	}
	if r.IntN(10) == 0 {
		want.Quantity = 2
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Patience)
	defer cancel()
	got, ok := c.insist(ctx, want, r)
	if !ok {
		return
	}
	c.mu.Lock()
	c.accepted = append(c.accepted, got)
	c.mu.Unlock()
	if r.Float64() < c.cfg.DoubleClick {
		again, ok := c.insist(ctx, want, r)
		if ok && again.ReservationID != got.ReservationID {
			c.note(fmt.Sprintf("%s got a second reservation %s after %s for the same key", want.UserID, again.ReservationID, got.ReservationID))
		}
	}
}

// insist repeats the same request, with the same key, until the answer is final.
func (c *Crowd) insist(ctx context.Context, want Accepted, r *rand.Rand) (Accepted, bool) {
	for try := r.IntN(len(c.cfg.Gateways)); ; try++ {
		began := time.Now()
		c.Requests.Add(1)
		status, answer, err := c.send(ctx, c.cfg.Gateways[try%len(c.cfg.Gateways)], want)
		switch {
		case err == nil && status == http.StatusAccepted:
			want.ReservationID = answer.ReservationID
			c.mu.Lock()
			c.latency = append(c.latency, time.Since(began))
			c.mu.Unlock()
			return want, true
		case err == nil && status < 500 && status != http.StatusTooManyRequests && !answer.Retryable:
			c.mu.Lock()
			c.refused[answer.Code]++
			c.mu.Unlock()
			if answer.Code == "" {
				c.note(fmt.Sprintf("status %d without a code", status))
			}
			return want, false
		case err == nil && status >= 500 && !answer.Retryable:
			c.note(fmt.Sprintf("status %d %s", status, answer.Code))
		}
		c.Waits.Add(1)
		pause(ctx, time.Duration(50+r.IntN(200))*time.Millisecond)
		if ctx.Err() != nil {
			c.GaveUp.Add(1)
			return want, false
		}
	}
}

// pause waits for d or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// answer is what the crowd reads of a response.
type answer struct {
	ReservationID string `json:"reservation_id"`
	State         string `json:"state"`
	Code          string `json:"code"`
	Retryable     bool   `json:"retryable"`
}

func (c *Crowd) send(ctx context.Context, gateway string, want Accepted) (int, answer, error) {
	body := fmt.Appendf(nil, `{"user_id":%q,"quantity":%d}`, want.UserID, want.Quantity)
	url := gateway + "/v1/activities/" + c.cfg.Activity + "/products/" + want.ProductID + "/reservations"
	req, err := post(ctx, c.cfg.Key, url, body)
	if err != nil {
		return 0, answer{}, err
	}
	req.Header.Set("Idempotency-Key", "visit-of-"+want.UserID)
	return call(c.client, req)
}

// post is a request with a JSON body.
func post(ctx context.Context, key, url string, body []byte) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+key)
	return req, nil
}

// call sends a request and reads the answer.
func call(client *http.Client, req *http.Request) (int, answer, error) {
	resp, err := client.Do(req)
	if err != nil {
		return 0, answer{}, err
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return 0, answer{}, err
	}
	var a answer
	if err := json.Unmarshal(text, &a); err != nil {
		return resp.StatusCode, a, fmt.Errorf("answer %d is not JSON: %.100q", resp.StatusCode, text)
	}
	return resp.StatusCode, a, nil
}

// note keeps the first few answers that should not have been given.
func (c *Crowd) note(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.unexpected) < 20 {
		c.unexpected = append(c.unexpected, text)
	}
}

// Tally is what came of a crowd so far.
type Tally struct {
	Accepted   []Accepted
	Refused    map[string]int64 // buyers, by the code of the refusal
	Unexpected []string         // answers that no buyer should see, at most 20
	Latency    []time.Duration  // of the accepted requests
}

// Tally returns a copy of what came of the crowd so far.
func (c *Crowd) Tally() Tally {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := Tally{Refused: map[string]int64{}}
	t.Accepted = append(t.Accepted, c.accepted...)
	t.Unexpected = append(t.Unexpected, c.unexpected...)
	t.Latency = append(t.Latency, c.latency...)
	for k, v := range c.refused {
		t.Refused[k] = v
	}
	return t
}

// Units is how many units have been accepted so far.
func (c *Crowd) Units() (reservations, units int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range c.accepted {
		units += a.Quantity
	}
	return int64(len(c.accepted)), units
}
