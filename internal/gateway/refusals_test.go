package gateway_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/leadingpeers/seckill/internal/audit"
	"github.com/leadingpeers/seckill/internal/gateway"
	"github.com/leadingpeers/seckill/internal/gateway/catalogue"
	"github.com/leadingpeers/seckill/internal/keys"
	"github.com/leadingpeers/seckill/pkg/catalog"
	"github.com/leadingpeers/seckill/pkg/order"
	"github.com/leadingpeers/seckill/pkg/stock"
)

// goodBodies are those of the operations that take one.
func goodBodies() map[string]string {
	return map[string]string{
		"CreateActivity":    `{"id":"fresh","name":"x","starts_at":"2030-01-01T00:00:00Z","ends_at":"2030-01-02T00:00:00Z","pay_window_seconds":60}`,
		"UpdateActivity":    `{"name":"y"}`,
		"AddProduct":        `{"id":"fresh","name":"x","price_cents":1,"currency":"CNY","total":1,"per_order":1,"per_user":1}`,
		"UpdateProduct":     `{"name":"y"}`,
		"PublishActivity":   `{"preload":true}`,
		"FlushActivity":     `{"force":true}`,
		"FlushProduct":      `{"force":true}`,
		"RestockProduct":    `{"op_id":"x","delta":1}`,
		"CreateReservation": `{"user_id":"u1","quantity":1}`,
		"CancelReservation": `{"user_id":"u1"}`,
		"DeductReservation": `{"user_id":"u1"}`,
		"RecordPayment":     `{"reservation_id":"aaaaaaaaaaaaaaaaaaaaaaaaaa","payment_ref":"r","amount_cents":1,"currency":"CNY","outcome":"succeeded"}`,
		"IssueToken":        `{"activity_id":"a","product_id":"p","user_id":"u1"}`,
		"CreateKey":         `{"role":"viewer"}`,
	}
}

// keyFor is a key that may use the operation.
func keyFor(op operation) string {
	for _, k := range []struct{ role, key string }{{"service", serviceKey}, {"admin", adminKey}} {
		for _, role := range op.roles {
			if role == k.role {
				return k.key
			}
		}
	}
	return viewerKey // of what is public: a viewer asks the stores
}

// TestEveryOperationRefusesBadBodies: each in the same words, whatever the
// operation, and nothing changes.
func TestEveryOperationRefusesBadBodies(t *testing.T) {
	r := newRig(t, nil)
	bodies := goodBodies()
	fill := strings.NewReplacer("{activity}", "a", "{product}", "p", "{reservation}", "aaaaaaaaaaaaaaaaaaaaaaaaaa", "{channel}", "c", "{key}", "none", "{order}", "o", "{asset}", "x")
	deep := strings.Repeat("[", 2000) + strings.Repeat("]", 2000)
	for _, op := range operations(t) {
		body, takes := bodies[op.id]
		if op.method == http.MethodGet {
			continue
		}
		key, path := keyFor(op), fill.Replace(op.path)
		call := func(body string, header ...string) answer {
			t.Helper()
			return r.call(t, key, op.method, path, body, append([]string{"Idempotency-Key", "key-of-u1", "If-Match", `"1"`}, header...)...)
		}
		call(`{"nobody_knows_this":1}`).is(t, 400, "unknown_field", op.id+": an unknown field")
		if !takes {
			continue
		}
		delete(bodies, op.id)
		call(body, "Content-Type", "text/plain").is(t, 415, "unsupported_media_type", op.id+": not JSON")
		call(`{"x":"`+strings.Repeat("x", 100<<10)+`"}`).is(t, 413, "body_too_large", op.id+": endless")
		for _, bad := range []struct{ body, why string }{
			{body + body, "twice"}, {body[:len(body)-1], "cut off"}, {"[" + body + "]", "a list"}, {"null", "null"}, {"\xff", "not UTF-8"}, {deep, "deep nesting"}, {`"x"`, "a text"},
		} {
			if got := call(bad.body); got.status != 400 || got.Code != "malformed_json" {
				t.Errorf("%s: %s: %d %s", op.id, bad.why, got.status, got.text)
			}
		}
	}
	for id := range bodies {
		t.Errorf("%s has a body here and is no operation", id)
	}
	for _, table := range []string{"activities", "products", "stock", "reservations", "orders", "outbox", "audit", "api_keys"} {
		var n int
		if err := r.db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM "+table).Scan(&n); err != nil || n != 0 {
			t.Errorf("%d rows in %s after bad bodies: %v", n, table, err)
		}
	}
}

// TestEveryOperationWithoutItsStores: 503 and Retry-After, by every operation
// that needs one.
func TestEveryOperationWithoutItsStores(t *testing.T) {
	r := newRig(t, nil)
	product, path := r.sell(t, offer{units: 10, perOrder: 1, perUser: 5})
	mine := r.reserve(t, path, "u1", "key-of-u1", 1).must(t, http.StatusAccepted)
	pool := r.pool(t)
	sheet := catalog.NewStore(pool)
	store := keys.NewStore(pool)
	dead := r.beside(t, func(c *gateway.Config) {
		c.Cache = deadCache(t)
		c.Catalog, c.Ledger, c.Orders, c.KeyStore, c.Trail = sheet, stock.NewLedger(pool), order.NewStore(pool), store, audit.NewTrail(pool)
		c.Load = func(context.Context, stock.Terms) (bool, error) { return false, errors.New("no store") }
		c.Publisher = &publisher{err: errors.New("no broker")}
	})
	cold := r.beside(t, func(c *gateway.Config) { // has never seen the catalogue
		c.Catalog = sheet
		c.Snapshot = catalog.NewSnapshot(sheet, 0, c.Now)
	})
	dead.call(t, "", "GET", path, "").must(t, http.StatusOK)
	if err := pool.Close(); err != nil {
		t.Fatal(err)
	}
	bodies := goodBodies()
	bodies["IssueToken"] = toJSON(t, map[string]any{"activity_id": activityOf(path), "product_id": product, "user_id": "u1"})
	fill := strings.NewReplacer("{activity}", activityOf(path), "{product}", product, "{reservation}", mine.ReservationID, "{channel}", "c", "{key}", "none", "{order}", "o")
	for _, op := range operations(t) {
		if strings.HasPrefix(op.id, "GetDocs") || op.id == "GetContract" {
			continue // they need none
		}
		to := fill.Replace(op.path)
		switch op.id {
		case "GetReservation", "WatchReservation", "ListReservations":
			to += "?user_id=u1"
		}
		for _, gate := range []*rig{dead, cold} {
			got := gate.call(t, keyFor(op), op.method, to, bodies[op.id], "Idempotency-Key", "key-of-u1", "If-Match", `"1"`)
			if gate == cold && op.id != "IssueToken" && got.status != 503 {
				continue // its other stores are there
			}
			if gate == dead && op.id == "IssueToken" {
				got.must(t, http.StatusCreated) // the snapshot is all it needs
				continue
			}
			if got.status != 503 || !got.Retryable || got.header.Get("Retry-After") == "" {
				t.Errorf("%s: %d %s, want 503 and when to come back", op.id, got.status, got.text)
			}
		}
	}
}

// TestEveryOperationWhenTheGatewayIsFull: 503 at once, whoever asks for what.
func TestEveryOperationWhenTheGatewayIsFull(t *testing.T) {
	enter, leave := make(chan bool), make(chan bool)
	r := newRig(t, func(c *gateway.Config) {
		c.MaxInFlight = 1
		c.Snapshot = heldSnapshot{Snapshot: c.Snapshot, enter: enter, leave: leave}
	})
	done := make(chan answer)
	go func() { done <- r.call(t, "", "GET", "/v1/activities", "") }()
	<-enter
	fill := strings.NewReplacer("{activity}", "a", "{product}", "p", "{reservation}", "aaaaaaaaaaaaaaaaaaaaaaaaaa", "{channel}", "c", "{key}", "none", "{order}", "o", "{asset}", "x")
	for _, op := range operations(t) {
		r.call(t, keyFor(op), op.method, fill.Replace(op.path)+"?user_id=u1", "").is(t, 503, "overloaded", op.id)
	}
	close(leave)
	if got := <-done; got.status != http.StatusOK {
		t.Errorf("the one that was there: %d %s", got.status, got.text)
	}
}

// heldSnapshot tells when it is asked, and answers when it may.
type heldSnapshot struct {
	catalogue.Snapshot
	enter, leave chan bool
}

func (s heldSnapshot) Get(ctx context.Context) (*catalog.View, error) {
	s.enter <- true
	<-s.leave
	return s.Snapshot.Get(ctx)
}

// TestUnknownThings: each operation on something that is not there is 404.
func TestUnknownThings(t *testing.T) {
	r := newRig(t, nil)
	bodies := goodBodies()
	fill := strings.NewReplacer("{activity}", "none", "{product}", "none", "{reservation}", "aaaaaaaaaaaaaaaaaaaaaaaaaa", "{channel}", "none", "{key}", "none", "{order}", "none", "{asset}", "none")
	for _, op := range operations(t) {
		if !strings.Contains(op.path, "{") && op.id != "RecordPayment" && op.id != "IssueToken" {
			continue
		}
		to := fill.Replace(op.path)
		if op.id == "GetReservation" || op.id == "WatchReservation" || op.id == "ListReservations" {
			to += "?user_id=u1"
		}
		got := r.call(t, keyFor(op), op.method, to, bodies[op.id], "Idempotency-Key", "key-of-u1", "If-Match", `"1"`)
		if got.status != http.StatusNotFound || !strings.HasSuffix(got.Code, "_not_found") {
			t.Errorf("%s: %d %s, want 404", op.id, got.status, got.text)
		}
	}
}
