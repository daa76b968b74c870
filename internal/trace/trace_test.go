package trace

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// collector takes OTLP over HTTP in JSON and keeps the spans.
type collector struct {
	mu      sync.Mutex
	bodies  []otlp
	kinds   []string
	answers int
}

func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var body otlp
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil || r.URL.Path != "/base/v1/traces" {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	c.bodies, c.kinds = append(c.bodies, body), append(c.kinds, r.Header.Get("Content-Type"))
	if c.answers != 0 {
		w.WriteHeader(c.answers)
	}
}

const (
	sampled   = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	unsampled = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
)

func TestSpansReachTheCollector(t *testing.T) {
	c := &collector{}
	srv := httptest.NewServer(c)
	defer srv.Close()
	tracer, err := New(Config{Endpoint: srv.URL + "/base", Service: "seckill-gateway", Version: "v1", Serves: true, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	first, endFirst := tracer.Step(sampled, "CreateReservation", "")
	second, endSecond := tracer.Step(first, "process seckill.reservations", "abc")
	endSecond("boom")
	endFirst("")
	_, end := tracer.Step(unsampled, "not followed", "")
	end("")
	_, end = tracer.Step("", "begins here, and the share is 0", "")
	end("")
	if err := tracer.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(c.bodies) != 1 || c.kinds[0] != "application/json" {
		t.Fatalf("%d messages of %v, want one of JSON", len(c.bodies), c.kinds)
	}
	resource := c.bodies[0].ResourceSpans[0]
	if a := resource.Resource.Attributes; len(a) != 2 || a[0].Key != "service.name" || a[0].Value.String != "seckill-gateway" {
		t.Errorf("resource %v", a)
	}
	spans := resource.ScopeSpans[0].Spans
	if len(spans) != 2 {
		t.Fatalf("%d spans, want the two that the caller has sampled: %+v", len(spans), spans)
	}
	inner, outer := spans[0], spans[1]
	const id = "0af7651916cd43dd8448eb211c80319c"
	if outer.TraceID != id || inner.TraceID != id || outer.ParentID != "b7ad6b7169203331" || inner.ParentID != outer.SpanID {
		t.Errorf("not one chain: %+v", spans)
	}
	if first != "00-"+id+"-"+outer.SpanID+"-01" || second != "00-"+id+"-"+inner.SpanID+"-01" {
		t.Errorf("contexts %s and %s are not those of the spans", first, second)
	}
	if inner.Status == nil || inner.Status.Code != 2 || inner.Status.Message != "boom" || outer.Status != nil {
		t.Errorf("states %v and %v, want only the inner one failed", inner.Status, outer.Status)
	}
	if inner.Attributes[0].Key != "seckill.reservation_id" || inner.Attributes[0].Value.String != "abc" || inner.Kind != 2 || inner.Start > inner.End || len(inner.End) != 19 {
		t.Errorf("span %+v", inner)
	}
}

// What is not sampled still has a context, so that the trace goes on.
func TestContextGoesOnWithoutSpans(t *testing.T) {
	tracer, err := New(Config{Endpoint: "http://127.0.0.1:1", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ parent, want, why string }{
		{unsampled, "00-0af7651916cd43dd8448eb211c80319c-", "the caller's trace"},
		{"", "00-", "a new one"},
		{"hello", "00-", "a new one where the caller sent nonsense"},
	} {
		own, end := tracer.Step(tt.parent, "x", "")
		end("")
		if !strings.HasPrefix(own, tt.want) || len(own) != 55 || !strings.HasSuffix(own, "-00") || own == tt.parent {
			t.Errorf("%q goes on as %q: want %s", tt.parent, own, tt.why)
		}
	}
	if err := tracer.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestACollectorThatRefusesIsOnlyLogged(t *testing.T) {
	srv := httptest.NewServer(&collector{answers: http.StatusTeapot})
	defer srv.Close()
	var log bytes.Buffer
	tracer, err := New(Config{Endpoint: srv.URL + "/base/", Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		t.Fatal(err)
	}
	_, end := tracer.Step(sampled, "x", "")
	end("")
	if err := tracer.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if !strings.Contains(log.String(), "spans are dropped") || !strings.Contains(log.String(), "418") {
		t.Errorf("log %q", log.String())
	}
}

func TestSettings(t *testing.T) {
	if tracer, err := New(Config{}); tracer != nil || err != nil {
		t.Errorf("without an endpoint: %v, %v, want no tracer", tracer, err)
	}
	var none *Tracer
	if err := none.Close(t.Context()); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"127.0.0.1:4318", "grpc://host:4317", "http://", "::"} {
		if _, err := New(Config{Endpoint: bad}); err == nil || !strings.Contains(err.Error(), "otlp-endpoint") {
			t.Errorf("%q: %v, want an error that names the setting", bad, err)
		}
	}
}
