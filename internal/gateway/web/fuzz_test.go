package web

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/leadingpeers/seckill/internal/gateway/problem"
)

// refused fails t unless err is a problem of the caller's own making.
func refused(t *testing.T, err error) {
	t.Helper()
	if status := problem.NewTable()[problem.From(err).Code].Status; status < 400 || status > 499 {
		t.Fatalf("status %d: %v", status, err)
	}
}

// FuzzPage reads page tokens and sizes as they come.
func FuzzPage(f *testing.F) {
	f.Add("page_size=10&page_token=" + NextPage("019a7f3e-0000-7000-8000-000000000000"))
	f.Fuzz(func(t *testing.T, query string) {
		r := &http.Request{URL: &url.URL{RawQuery: query}}
		after, size, err := Page(r)
		if err != nil {
			refused(t, err)
			return
		}
		if size < 1 || size > maxPage || len(after) > maxPageToken {
			t.Fatalf("%q: page of %d after %q", query, size, after)
		}
		r.URL.RawQuery = url.Values{"page_token": {NextPage(after)}}.Encode()
		again, _, err := Page(r)
		if err != nil || again != after {
			t.Fatalf("after %q comes %q: %v", after, again, err)
		}
	})
}

// FuzzHeaders reads the headers that carry a value of their own.
func FuzzHeaders(f *testing.F) {
	f.Add(`"7"`, "cart-4711", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	f.Fuzz(func(t *testing.T, match, key, trace string) {
		r := &http.Request{Header: http.Header{"If-Match": {match}, "Idempotency-Key": {key}, "Traceparent": {trace}}}
		version, err := IfMatch(r)
		if err != nil {
			refused(t, err)
		} else {
			r.Header["If-Match"] = []string{ETag(version)}
			if again, err := IfMatch(r); err != nil || again != version {
				t.Fatalf("%q is version %d, and its tag %d: %v", match, version, again, err)
			}
		}
		got, err := IdempotencyKey(r.Header)
		if err != nil {
			refused(t, err)
		} else if got != key || len(key) < 8 || len(key) > 128 || strings.ContainsFunc(key, unprintable) {
			t.Fatalf("%q is taken for the key %q", key, got)
		}
		startTrace(r.Header)
		if id := traceID(r); len(id) != 32 || strings.Trim(id, "0123456789abcdef") != "" {
			t.Fatalf("%q leads to the trace %q", trace, id)
		}
	})
}

// FuzzKey sends what might be an API key. Only the two that there are get in.
func FuzzKey(f *testing.F) {
	m, err := New(testConfig(slog.New(slog.DiscardHandler)), []Route{
		{Name: "any", Method: "GET", Path: "/any", Roles: []Role{Service, Admin}, Handle: ok},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add("Bearer sk_shop_" + secret)
	f.Fuzz(func(t *testing.T, sent string) {
		r := httptest.NewRequest(http.MethodGet, "/any", nil)
		r.Header["Authorization"] = []string{sent}
		w := httptest.NewRecorder()
		m.ServeHTTP(w, r)
		scheme, key, _ := strings.Cut(sent, " ")
		ours := strings.EqualFold(scheme, "bearer") && (key == "sk_shop_"+secret || key == "sk_ops-1_with_under_score")
		if (w.Code == http.StatusOK) != ours || !ours && w.Code != http.StatusUnauthorized {
			t.Fatalf("%q: status %d", sent, w.Code)
		}
		if !json.Valid(w.Body.Bytes()) {
			t.Fatalf("%q: answer %q", sent, w.Body)
		}
	})
}
