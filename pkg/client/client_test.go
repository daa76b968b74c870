package client_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/leadingpeers/seckill/api"
	"github.com/leadingpeers/seckill/pkg/client"
)

const (
	soldOut  = `{"type":"urn:seckill:problem:sold_out","title":"Sold out","status":409,"detail":"Fewer units are left.","instance":"/x","code":"sold_out","retryable":false,"trace_id":"0"}`
	busy     = `{"type":"urn:seckill:problem:overloaded","title":"Overloaded","status":503,"detail":"Full.","instance":"/x","code":"overloaded","retryable":true,"retry_after_ms":1,"trace_id":"0"}`
	accepted = `{"reservation_id":"aaaaaaaaaaaaaaaaaaaaaaaaaa","activity_id":"sale","product_id":"phone","user_id":"u-88","quantity":1,"state":"queued","price_cents":499900,"currency":"CNY"}`
)

// gateway answers with each of answers in turn, the last one for ever.
func gateway(answers ...string) (server *httptest.Server, calls *atomic.Int64) {
	calls = &atomic.Int64{}
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := int(calls.Add(1)) - 1
		body, _ := io.ReadAll(r.Body)
		answer := answers[min(n, len(answers)-1)]
		w.Header().Set("X-Sent", r.Header.Get("Authorization")+" "+string(body))
		switch answer {
		case soldOut:
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusConflict)
		case busy:
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusServiceUnavailable)
		case accepted:
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusAccepted)
		default:
			w.WriteHeader(http.StatusBadGateway)
		}
		_, _ = io.WriteString(w, answer)
	})), calls
}

func TestReserve(t *testing.T) {
	for _, tt := range []struct {
		name    string
		answers []string
		code    string
		calls   int64
		why     string
	}{
		{"accepted", []string{accepted}, "", 1, "it is sent once"},
		{"refused", []string{soldOut}, "sold_out", 1, "a refusal is not repeated"},
		{"busy, then accepted", []string{busy, busy, accepted}, "", 3, "the gateway asks for it, and the ID makes it safe"},
		{"busy for ever", []string{busy}, "overloaded", 4, "three retries and no more"},
		{"a proxy in between", []string{"<html>"}, "http_bad_gateway", 1, "nobody has said that it may be repeated"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server, calls := gateway(tt.answers...)
			defer server.Close()
			c, err := client.New(client.Config{Server: server.URL, Key: "sk_shop_secret"})
			if err != nil {
				t.Fatal(err)
			}
			got, err := c.CreateReservationWithResponse(context.Background(), "sale", "phone",
				&api.CreateReservationParams{IdempotencyKey: new("cart-4711")}, api.ReservationCreate{UserID: "u-88", Quantity: 1})
			if code := client.CodeOf(err); code != tt.code || calls.Load() != tt.calls {
				t.Fatalf("code %q (%v) after %d calls, want %q after %d: %s", code, err, calls.Load(), tt.code, tt.calls, tt.why)
			}
			if err != nil {
				return
			}
			if sent := got.HTTPResponse.Header.Get("X-Sent"); sent != `Bearer sk_shop_secret {"quantity":1,"user_id":"u-88"}` {
				t.Errorf("the gateway got %s", sent)
			}
		})
	}
}

func TestWhatIsNotSafeIsNotRepeated(t *testing.T) {
	server, calls := gateway(busy)
	defer server.Close()
	c, err := client.New(client.Config{Server: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.CreateActivityWithResponse(context.Background(), api.ActivityCreate{Name: "Sale", PayWindowSeconds: 60})
	if client.CodeOf(err) != "overloaded" || calls.Load() != 1 {
		t.Errorf("%v after %d calls, want overloaded after 1: it may have been created", err, calls.Load())
	}
}

func TestAServerWithoutASchemeIsRefused(t *testing.T) {
	if _, err := client.New(client.Config{Server: "localhost:8080"}); err == nil {
		t.Error("no error: the first request would fail with a riddle")
	}
}
