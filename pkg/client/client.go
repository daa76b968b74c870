// Package client calls the gateway's HTTP API from Go. Its operations and
// models are generated from api/openapi.yaml; New adds what every caller
// needs: the key, problems as errors, limits, and retries where they are safe.
//
// It does not decide anything about the sale: a refusal is an Error with its
// code.
package client

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/leadingpeers/seckill/api"
)

//go:generate go tool -modfile=../../tools/go.mod oapi-codegen --config client.yaml ../../api/openapi.yaml

// Config says whom to call, as whom.
type Config struct {
	// Server is the gateway's address: "https://seckill.example".
	Server string
	// Key is an API key, sk_<id>_<secret>, or a purchase token, st_<token>;
	// empty for what is public.
	Key string
	// HTTP makes the requests; default a client with a time-out of 30 s, which
	// is longer than any long poll. WatchReservation needs one without, or its
	// stream ends after that.
	HTTP *http.Client
	// Retries is how often a request that is safe to repeat is repeated, when
	// the gateway says that it may succeed later; default 3, below 0 never.
	Retries int
}

// Error is a problem that the gateway answered with. Match the Code, not the
// text.
type Error struct {
	api.Problem
}

// Error is the problem in one line.
func (e *Error) Error() string {
	text := fmt.Sprintf("%s: %s", e.Code, e.Detail)
	for _, p := range e.Problems {
		text += fmt.Sprintf("; %s %s", p.Field, p.Detail)
	}
	return text
}

// CodeOf is the code of the problem that err is or wraps, empty when the
// gateway was not reached or err is nil.
func CodeOf(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return ""
}

// New returns a client of the gateway. Each operation returns an *Error when
// the gateway answers with a problem: nothing has changed then, unless its
// status is 503, after which repeating the same request finds out. Any other
// error means the same as 503.
//
// Requests that read, and reservations (which are made once however often
// they are sent), are repeated by themselves.
func New(cfg Config) (*ClientWithResponses, error) {
	if !strings.HasPrefix(cfg.Server, "http://") && !strings.HasPrefix(cfg.Server, "https://") {
		return nil, fmt.Errorf("server %q: want an address such as http://localhost:8080", cfg.Server)
	}
	if cfg.HTTP == nil {
		cfg.HTTP = &http.Client{Timeout: 30 * time.Second}
	}
	if cfg.Retries == 0 {
		cfg.Retries = 3
	}
	return NewClientWithResponses(cfg.Server, WithHTTPClient(&doer{cfg: cfg}))
}

// doer is what New adds to the generated client.
type doer struct{ cfg Config }

const (
	maxProblem  = 1 << 20         // bytes of a problem that are read
	longestWait = 5 * time.Second // before a retry, whatever the gateway asks for
)

// Do sends the request, again if that is safe and the gateway asks for it, and
// turns a problem into an error.
func (d *doer) Do(r *http.Request) (*http.Response, error) {
	if d.cfg.Key != "" {
		r.Header.Set("Authorization", "Bearer "+d.cfg.Key)
	}
	for attempt := 0; ; attempt++ {
		answer, err := d.cfg.HTTP.Do(r)
		if err != nil {
			return nil, err
		}
		if answer.StatusCode < http.StatusBadRequest {
			return answer, nil
		}
		problem := read(answer)
		if !problem.Retryable || attempt >= d.cfg.Retries || !repeatable(r) || !rewind(r) {
			return nil, problem
		}
		wait := min(time.Duration(problem.RetryAfterMs)*time.Millisecond, longestWait)
		timer := time.NewTimer(wait/2 + rand.N(wait/2+1))
		select {
		case <-timer.C:
		case <-r.Context().Done():
			timer.Stop()
			return nil, errors.Join(problem, r.Context().Err())
		}
	}
}

// read takes the problem out of an answer and closes it. What is not a problem
// of ours comes from something in between.
func read(answer *http.Response) *Error {
	defer func() { _ = answer.Body.Close() }()
	text, _ := io.ReadAll(io.LimitReader(answer.Body, maxProblem)) // a half is worth as much as none
	var e Error
	if err := json.Unmarshal(text, &e.Problem); err != nil || e.Code == "" {
		e.Problem = api.Problem{
			Code: "http_" + http.StatusText(answer.StatusCode), Status: answer.StatusCode, Title: answer.Status,
			Detail: fmt.Sprintf("%s, without a problem of the gateway: %.200s", answer.Status, bytes.TrimSpace(text)),
		}
		e.Code = strings.ToLower(strings.ReplaceAll(e.Code, " ", "_"))
	}
	return &e
}

// repeatable reports whether sending r twice does what sending it once does.
func repeatable(r *http.Request) bool {
	return r.Method == http.MethodGet || r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/reservations")
}

// rewind makes the body of r readable again.
func rewind(r *http.Request) bool {
	if r.Body == nil || r.GetBody == nil {
		return r.Body == nil
	}
	body, err := r.GetBody()
	r.Body = body
	return err == nil
}
