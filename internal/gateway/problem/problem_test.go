package problem_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/leadingpeers/seckill/internal/gateway/problem"
	"github.com/leadingpeers/seckill/pkg/stock"
)

func TestKindsAreFitToBeAContract(t *testing.T) {
	word := regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`)
	seen := map[problem.Code]bool{}
	for _, k := range problem.Kinds() {
		switch {
		case !word.MatchString(string(k.Code)):
			t.Errorf("%q is not lower snake_case", k.Code)
		case seen[k.Code]:
			t.Errorf("%s is there twice", k.Code)
		case k.Status < 400 || k.Status > 599:
			t.Errorf("%s has status %d", k.Code, k.Status)
		case k.Title == "" || !strings.HasSuffix(k.Detail, "."):
			t.Errorf("%s needs a title and a sentence of detail", k.Code)
		case k.Status == 503 && k.Retry == 0:
			t.Errorf("%s is 503 but never says when to come back", k.Code)
		}
		seen[k.Code] = true
	}
}

func TestFromFindsTheAnswer(t *testing.T) {
	broken := errors.New("connection refused")
	tests := []struct {
		err  error
		want problem.Code
		why  string
	}{
		{stock.SoldOut, "sold_out", "a refusal keeps its word"},
		{stock.OverUserLimit, "over_user_limit", "a refusal keeps its word"},
		{stock.OverOrderLimit, "over_order_limit", "a refusal keeps its word"},
		{stock.NotOnSale, "not_on_sale", "a refusal keeps its word"},
		{stock.NotLoaded, "not_loaded", "a refusal keeps its word"},
		{stock.TooManyAttempts, "too_many_attempts", "a refusal keeps its word"},
		{stock.IDReused, "idempotency_key_reused", "the caller knows its key, not our ID"},
		{fmt.Errorf("reserve: %w", stock.SoldOut), "sold_out", "wrapped"},
		{problem.Fault(problem.CacheUnavailable, stock.SoldOut), "sold_out", "a refusal is an answer, not a fault"},
		{problem.Fault(problem.CacheUnavailable, broken), "cache_unavailable", "a fault keeps the code of its place"},
		{fmt.Errorf("outer: %w", problem.Of(problem.OrderPaid)), "order_paid", "wrapped"},
		{broken, "internal", "nobody has foreseen it"},
	}
	table := problem.NewTable()
	for _, tt := range tests {
		got := problem.From(tt.err)
		if got.Code != tt.want {
			t.Errorf("From(%v) = %s, want %s: %s", tt.err, got.Code, tt.want, tt.why)
		}
		if table[got.Code].Status == 0 {
			t.Errorf("%s is not in the table", got.Code)
		}
	}
	for _, r := range stock.Refusals() {
		if problem.From(r).Code == problem.Internal {
			t.Errorf("the refusal %s has no code", r)
		}
	}
}

func TestWrite(t *testing.T) {
	table := problem.NewTable()
	for _, k := range problem.Kinds() {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodPost, "/v1/"+strings.Repeat("a", 500), nil)
		table.Write(w, r, &problem.Problem{Code: k.Code, Cause: errors.New("dial 10.0.0.7")}, "4bf92f3577b34da6a3ce929d0e0e4736")
		var got struct {
			Type, Title, Detail, Instance, Code string
			Status                              int
			Retryable                           bool
			RetryAfterMS                        int64  `json:"retry_after_ms"`
			TraceID                             string `json:"trace_id"`
		}
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		after, _ := strconv.ParseInt(w.Header().Get("Retry-After"), 10, 64)
		switch {
		case w.Code != k.Status || got.Status != k.Status || got.Code != string(k.Code) || got.Detail != k.Detail || got.Title != k.Title:
			t.Errorf("%s: answered %d %+v", k.Code, w.Code, got)
		case w.Header().Get("Content-Type") != "application/problem+json" || w.Header().Get("Cache-Control") != "no-store":
			t.Errorf("%s: headers %v", k.Code, w.Header())
		case got.Retryable != (k.Retry > 0) || got.Retryable != (after > 0) || got.Retryable != (got.RetryAfterMS > 0):
			t.Errorf("%s: retryable %v, Retry-After %d, retry_after_ms %d", k.Code, got.Retryable, after, got.RetryAfterMS)
		case got.Retryable && (after*1000 < got.RetryAfterMS || got.RetryAfterMS < k.Retry.Milliseconds()):
			t.Errorf("%s: Retry-After %d s is before retry_after_ms %d", k.Code, after, got.RetryAfterMS)
		case len(got.Instance) > 256 || got.TraceID != "4bf92f3577b34da6a3ce929d0e0e4736":
			t.Errorf("%s: instance %q trace %q", k.Code, got.Instance, got.TraceID)
		case strings.Contains(w.Body.String(), "10.0.0.7"):
			t.Errorf("%s: shows its cause", k.Code)
		}
	}
}
