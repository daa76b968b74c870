package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"
)

// span is what a collector keeps of one.
type span struct {
	Service  string
	TraceID  string `json:"traceId"`
	SpanID   string `json:"spanId"`
	ParentID string `json:"parentSpanId"`
	Name     string `json:"name"`
	Start    string `json:"startTimeUnixNano"`
}

// collector takes OTLP over HTTP in its JSON form.
type collector struct {
	mu    sync.Mutex
	spans []span
}

func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	type attribute struct {
		Key   string
		Value struct{ StringValue string }
	}
	var body struct {
		ResourceSpans []struct {
			Resource   struct{ Attributes []attribute }
			ScopeSpans []struct{ Spans []span }
		}
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil || r.URL.Path != "/v1/traces" {
		http.Error(w, fmt.Sprint(r.URL.Path, err), http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, rs := range body.ResourceSpans {
		at := slices.IndexFunc(rs.Resource.Attributes, func(a attribute) bool { return a.Key == "service.name" })
		for _, scope := range rs.ScopeSpans {
			for _, s := range scope.Spans {
				if at >= 0 {
					s.Service = rs.Resource.Attributes[at].Value.StringValue
				}
				c.spans = append(c.spans, s)
			}
		}
	}
}

// find returns the span of a service with this name, under this parent.
func (c *collector) find(trace, service, name, parent string) (span, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.spans {
		if s.TraceID == trace && s.Service == service && s.Name == name && s.ParentID == parent {
			return s, nil
		}
	}
	return span{}, fmt.Errorf("no span %s of %s under %s among %+v", name, service, parent, c.spans)
}

// TestOneTraceSpansAllProcesses buys and gives up under a caller's trace: the
// collector gets one chain over HTTP, Kafka and the outbox, each step the child
// of what caused it.
func TestOneTraceSpansAllProcesses(t *testing.T) {
	got := &collector{}
	srv := httptest.NewServer(got)
	defer srv.Close()
	c := startCluster(t, sharedServers(t), "SECKILL_OTLP_ENDPOINT="+srv.URL, "SECKILL_LOG_LEVEL=debug")
	activity, products := c.openSale(t, 1, 10, 600)

	const trace, caller = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	call := func(path string, body any) (answer struct {
		ReservationID string `json:"reservation_id"`
	},
	) {
		t.Helper()
		text, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.gateways()[0]+"/v1/activities/"+activity+"/products/"+products[0]+path, bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range map[string]string{
			"Authorization": "Bearer " + c.serviceKey, "Content-Type": "application/json", "Idempotency-Key": "the-only-one",
			"Traceparent": "00-" + trace + "-" + caller + "-01",
		} {
			req.Header.Set(name, value)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || resp.StatusCode >= 300 {
			t.Fatalf("POST %s: status %d, %v", path, resp.StatusCode, err)
		}
		return answer
	}
	reserved := call("/reservations", map[string]any{"user_id": "ann", "quantity": 1})
	eventually(t, time.Minute, func() error {
		o, err := c.stores.Orders.Find(t.Context(), reserved.ReservationID)
		if err == nil && o.ID == "" {
			err = errors.New("no order yet")
		}
		return err
	})
	call("/reservations/"+reserved.ReservationID+"/cancel", map[string]any{"user_id": "ann"})

	topic := func(name string) string { return "process " + c.cfg.Prefix + "." + name }
	var parent string
	chain := func(service, name string) {
		t.Helper()
		var s span
		eventually(t, time.Minute, func() (err error) {
			s, err = got.find(trace, "seckill-"+service, name, parent)
			return err
		})
		parent = s.SpanID
	}
	parent = caller
	chain("gateway", "CreateReservation")
	chain("stock-worker", topic("reservations"))
	chain("settle-worker", topic("deductions"))
	parent = caller
	chain("gateway", "CancelReservation")
	chain("stock-worker", topic("rollbacks")) // through the outbox

	eventually(t, time.Minute, func() error { return c.everyChangeIsLoggedOnce(t, reserved.ReservationID, trace) })
}

// everyChangeIsLoggedOnce looks for one line at debug for each change of state
// of the reservation, by the process that made it.
func (c *cluster) everyChangeIsLoggedOnce(t *testing.T, reservation, trace string) error {
	t.Helper()
	got := map[string]int{}
	for _, l := range c.logs.lines(t) {
		if l["reservation_id"] == reservation {
			got[fmt.Sprintf("%s: %s: %s %s", l["service"], l["level"], l["msg"], l["type"])]++
			if l["trace_id"] != trace {
				t.Errorf("another trace in %v", l)
			}
		}
	}
	for _, want := range []string{
		"gateway: DEBUG: event published seckill.reservation.created.v1",
		"stock-worker: DEBUG: event handled seckill.reservation.created.v1",
		"stock-worker: DEBUG: event published seckill.stock.deducted.v1",
		"settle-worker: DEBUG: event handled seckill.stock.deducted.v1",
		"settle-worker: DEBUG: event published seckill.order.created.v1",
		"settle-worker: DEBUG: event published seckill.order.cancelled.v1",
		"settle-worker: DEBUG: event published seckill.stock.rollback.v1",
		"stock-worker: DEBUG: event handled seckill.stock.rollback.v1",
	} {
		if got[want] != 1 {
			return fmt.Errorf("%d lines %q among %v", got[want], want, got)
		}
		delete(got, want)
	}
	if len(got) > 0 {
		return fmt.Errorf("more lines: %v", got)
	}
	return nil
}
