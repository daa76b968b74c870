package load

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strconv"
	"sync"
	"time"
)

// How long a caller waits for an answer. The gateways promise buyers one in three
// seconds, and operators one in admin-timeout, 60 s: resuming an activity loads
// every product of it. The proxies before them may add to that.
const (
	BuyersPatience    = 8 * time.Second
	OperatorsPatience = 70 * time.Second
)

// Prompt is how long it may take until a gateway has answered, whatever dies
// behind it.
const Prompt = 3 * time.Second

// Answer is what came back.
type Answer struct {
	Status     int           `json:"-"`
	RetryAfter time.Duration `json:"-"`
	Replayed   bool          `json:"-"`

	ReservationID string `json:"reservation_id"`
	UserID        string `json:"user_id"`
	ProductID     string `json:"product_id"`
	Quantity      int64  `json:"quantity"`
	State         string `json:"state"`
	Code          string `json:"code"`
	Detail        string `json:"detail"`
	Text          []byte `json:"-"`
}

// Line is a way to the gateways with one key.
type Line struct {
	Gateways []string
	Key      string
	Client   *http.Client

	mu    sync.Mutex
	waits []Wait
}

// Wait is a request that came to nothing: the answer was 503, or there was none
// for longer than [Prompt].
type Wait struct {
	From, To time.Time // from when there was a connection for it
	Status   int       // 0 = none
	What     string    // was asked, of whom, and the answer's code
}

// Waits returns all of them so far.
func (l *Line) Waits() []Wait {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.waits)
}

func (l *Line) waited(from time.Time, status int, what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waits = append(l.waits, Wait{from, time.Now(), status, what})
}

// NewLine makes a line for that many callers at once, each of whom waits that long
// for an answer.
func NewLine(gateways []string, key string, callers int, patience time.Duration) *Line {
	transport := &http.Transport{MaxIdleConnsPerHost: callers, MaxConnsPerHost: 4 * callers, IdleConnTimeout: 30 * time.Second}
	return &Line{Gateways: gateways, Key: key, Client: &http.Client{Timeout: patience, Transport: transport}}
}

// Ask is one request.
type Ask struct {
	Method, Path string
	Body         []byte
	Key          string // idempotency key, if any
}

// Send makes one request at the given gateway. An error means that no whole
// answer came: what was asked for may have happened.
func (l *Line) Send(ctx context.Context, gateway int, ask Ask) (Answer, error) {
	var a Answer
	req, err := http.NewRequestWithContext(ctx, ask.Method, l.Gateways[gateway%len(l.Gateways)]+ask.Path, bytes.NewReader(ask.Body))
	if err != nil {
		return a, err
	}
	req.Header.Set("Authorization", "Bearer "+l.Key)
	if len(ask.Body) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	if ask.Key != "" {
		req.Header.Set("Idempotency-Key", ask.Key)
	}
	// A buyer has his own connection; ours may wait for one of the few that all
	// share, and that is not the gateway's doing.
	var start time.Time
	req = req.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { start = time.Now() }}))
	what := fmt.Sprintf("gateway %d: %s %s", gateway%len(l.Gateways)+1, ask.Method, ask.Path)
	resp, err := l.Client.Do(req)
	if err == nil {
		a.Text, err = io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		_ = resp.Body.Close()
	}
	if err != nil {
		if !start.IsZero() && time.Since(start) > Prompt {
			l.waited(start, 0, what)
		}
		return a, err
	}
	if len(a.Text) > 0 {
		if err := json.Unmarshal(a.Text, &a); err != nil && resp.StatusCode < 300 {
			return a, err
		}
	}
	if resp.StatusCode == http.StatusServiceUnavailable {
		l.waited(start, resp.StatusCode, what+": "+a.Code)
	}
	a.Status, a.Replayed = resp.StatusCode, resp.Header.Get("Idempotent-Replayed") != ""
	if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil {
		a.RetryAfter = time.Duration(seconds) * time.Second
	}
	return a, nil
}

// Insist repeats a request at one gateway and the other until there is an
// answer that is final, or ctx ends.
func (l *Line) Insist(ctx context.Context, ask Ask) (Answer, error) {
	for n := 0; ; n++ {
		a, err := l.Send(ctx, n, ask)
		if err == nil && a.Status < 500 {
			return a, nil
		}
		if err == nil {
			err = errors.New(a.Code)
		}
		select {
		case <-ctx.Done():
			return a, err
		case <-time.After(min(200*time.Millisecond*time.Duration(n+1), 2*time.Second)):
		}
	}
}

// Counts counts things by name.
type Counts struct {
	mu sync.Mutex
	n  map[string]int64
}

// Add adds one.
func (c *Counts) Add(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = map[string]int64{}
	}
	c.n[name]++
}

// All returns a copy.
func (c *Counts) All() map[string]int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make(map[string]int64, len(c.n))
	for k, v := range c.n {
		out[k] = v
	}
	return out
}
