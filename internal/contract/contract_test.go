package contract_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/leadingpeers/seckill/internal/contract"
)

func TestTheContractIsValidAndItsExamplesFit(t *testing.T) {
	c, err := contract.Load()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Doc.Validate(context.Background(), openapi3.EnableExamplesValidation()); err != nil {
		t.Fatal(err)
	}
	for path, item := range c.Doc.Paths.Map() {
		for method, op := range item.Operations() {
			if op.OperationID == "" || op.Summary == "" || op.Extensions["x-roles"] == nil {
				t.Errorf("%s %s: an operation needs an operationId, a summary and x-roles", method, path)
			}
			for status, response := range op.Responses.Map() {
				for kind, content := range response.Value.Content {
					if content.Example == nil && len(content.Examples) == 0 {
						t.Errorf("%s: the answer %s (%s) has no example", op.OperationID, status, kind)
					}
				}
			}
		}
	}
}

// failures counts what a Handler finds wrong.
type failures struct {
	testing.TB
	count int
}

func (f *failures) Helper()               {}
func (f *failures) Errorf(string, ...any) { f.count++ }

func TestAHandlerThatLeavesTheContractFails(t *testing.T) {
	const activity = `{"id":"a","name":"A","state":"draft","starts_at":"2026-11-11T12:00:00.000Z","ends_at":"2026-11-11T12:30:00.000Z","pay_window_seconds":9,"version":1,"created_at":"2026-11-11T12:00:00.000Z","updated_at":"2026-11-11T12:00:00.000Z"}`
	for _, tt := range []struct {
		name, method, path string
		status             int
		kind, body         string
		wrong              bool
		why                string
	}{
		{"as described", "GET", "/v1/activities/a", 200, "application/json", activity, false, "nothing is wrong"},
		{"a field too many", "GET", "/v1/activities/a", 200, "application/json", `{"secret":1,` + activity[1:], true, "clients would begin to use it"},
		{"a field is missing", "GET", "/v1/activities/a", 200, "application/json", `{"id":"a"}`, true, "clients rely on it"},
		{"an unknown status", "GET", "/v1/activities/a", 418, "application/json", `{}`, true, "nobody has described it"},
		{"another type", "GET", "/v1/activities/a", 200, "text/html", "<p>", true, "clients cannot read it"},
		{"an unknown route", "GET", "/v2/x", 200, "application/json", `{}`, true, "it is served and not described"},
		{"an unknown route refused", "GET", "/v2/x", 404, "application/json", `{}`, false, "as it should be"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			found := &failures{TB: t}
			var seen contract.Coverage
			if !slices.Contains(missing(t, &seen), "GetActivity 200") {
				t.Fatal("what nobody has seen is not missing")
			}
			h := contract.Handler(found, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", tt.kind)
				w.WriteHeader(tt.status)
				_, _ = io.WriteString(w, tt.body)
			}), &seen)
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(tt.method, "http://localhost"+tt.path, http.NoBody))
			if noted := !slices.Contains(missing(t, &seen), fmt.Sprintf("GetActivity %d", tt.status)); tt.status == 200 && tt.path == "/v1/activities/a" && !noted {
				t.Error("the answer is not noted as seen")
			}
			if (found.count > 0) != tt.wrong {
				t.Errorf("%d failures, want some: %v, because %s", found.count, tt.wrong, tt.why)
			}
		})
	}
}

func missing(t *testing.T, seen *contract.Coverage) []string {
	t.Helper()
	list, err := seen.Missing()
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestEveryNameOfTheSeedIsAnOperation(t *testing.T) {
	c, err := contract.Load()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, item := range c.Doc.Paths.Map() {
		for _, op := range item.Operations() {
			if name, ok := op.Extensions["x-seed-name"].(string); ok {
				found[name] = true
			}
		}
	}
	for _, name := range []string{
		"CreateActivity", "UpdateActivity", "ListActivity", "DetailActivity", "DelActivity",
		"AddSeckillProduct", "UpdateSeckillproduct", "GetSeckillProducts", "DetailSeckillProduct", "DelSeckillProduct",
		"StockOpt", "PreLoadCache", "Flush",
	} {
		if !found[name] {
			t.Errorf("no operation has the x-seed-name %s", name)
		}
		delete(found, name)
	}
	for name := range found {
		t.Errorf("x-seed-name %s is not in the seed", name)
	}
}
