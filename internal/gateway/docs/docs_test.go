package docs_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/leadingpeers/seckill/internal/contract"
	"github.com/leadingpeers/seckill/internal/gateway/docs"
	"github.com/leadingpeers/seckill/internal/gateway/web"
)

func TestThePageAndAllItAsksFor(t *testing.T) {
	mux, err := web.New(web.Config{InFlight: web.NewSlots(4), AnswerIn: time.Minute, Now: time.Now, Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry()}, docs.Routes())
	if err != nil {
		t.Fatal(err)
	}
	h := contract.Handler(t, mux, nil)
	get := func(path string) *httptest.ResponseRecorder {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "http://localhost"+path, http.NoBody))
		return rec
	}
	page := get("/docs")
	if page.Code != http.StatusOK || !strings.Contains(page.Header().Get("Content-Security-Policy"), "default-src 'self'") {
		t.Fatalf("GET /docs: %d, policy %q", page.Code, page.Header().Get("Content-Security-Policy"))
	}
	assets := regexp.MustCompile(`(?:src|href)="([^"]+)"`).FindAllStringSubmatch(page.Body.String(), -1)
	if len(assets) < 3 {
		t.Fatalf("the page asks for %v, want its style and scripts", assets)
	}
	for _, a := range assets {
		if !strings.HasPrefix(a[1], "/docs/") {
			t.Errorf("the page asks for %s, which is not in this binary", a[1])
		} else if got := get(a[1]); got.Code != http.StatusOK {
			t.Errorf("GET %s: %d", a[1], got.Code)
		}
	}
	if text := get("/openapi.yaml"); text.Code != http.StatusOK || !strings.HasPrefix(text.Body.String(), "openapi: 3.") {
		t.Errorf("GET /openapi.yaml: %d %.40q", text.Code, text.Body)
	}
	if got := get("/docs/none.js"); got.Code != http.StatusNotFound {
		t.Errorf("GET /docs/none.js: %d, want 404", got.Code)
	}
}
