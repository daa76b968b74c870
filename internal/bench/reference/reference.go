// Package reference holds the servers that ours is measured against: one that
// does nothing, and the one that everybody writes first. Neither is slowed
// down on purpose: both are what net/http and go-redis do by default.
package reference

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/redis/go-redis/v9"
)

// SeedScript is the pre-deduction as everybody writes it first, word for word
// from the document that this project began with. It oversells; here it only
// sets the price of one EVALSHA for each request.
const SeedScript = `
local key = KEYS[1]
local surplus_stock_field = ARGV[1]
local restriction_field = ARGV[2]
local increment = ARGV[3]
if redis.call('HEXISTS', key, surplus_stock_field) ~= 1 then return -1 end
local values = redis.call('HMGET', key, surplus_stock_field, restriction_field)
if #values ~= 2 then return -1 end
local stock = tonumber(values[1])
local restriction = tonumber(values[2])
if not (stock > 0) then return -1 end
if tonumber(increment) > restriction then return -2 end
redis.call('HINCRBYFLOAT', key, surplus_stock_field, -increment)
return stock
`

// The fields of the seed's hash.
const (
	SurplusField     = "surplus"
	RestrictionField = "restriction"
)

// NoOp reads the request's body and answers status with a body of size bytes:
// the floor under every net/http server.
func NoOp(status, size int) http.Handler {
	body := []byte(`{"reservation_id":"` + strings.Repeat("a", max(0, size-21)) + `"}`)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = w.Write(body)
	})
}

// Naive is the usual gateway: it decodes the body, calls the seed's script for
// this one request, and answers. It checks no limit of a user, keeps no record
// and tells nobody. key names the hash with the stock.
func Naive(client *redis.Client, key string) http.Handler {
	script := redis.NewScript(SeedScript)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			UserID   string `json:"user_id"`
			Quantity int64  `json:"quantity"`
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			http.Error(w, "malformed JSON", http.StatusBadRequest)
			return
		}
		left, err := script.Run(r.Context(), client, []string{key}, SurplusField, RestrictionField, body.Quantity).Int64()
		w.Header().Set("Content-Type", "application/json")
		switch {
		case err != nil:
			w.WriteHeader(http.StatusServiceUnavailable)
		case left < 0:
			w.WriteHeader(http.StatusConflict)
		default:
			w.WriteHeader(http.StatusAccepted)
			_ = json.NewEncoder(w).Encode(map[string]any{
				"reservation_id": r.Header.Get("Idempotency-Key"), "user_id": body.UserID, "quantity": body.Quantity, "left": left,
			})
		}
	})
}

// New makes the reference called kind: "noop" or "naive".
func New(kind string, size int, redisAddr, key string) (http.Handler, error) {
	switch kind {
	case "noop":
		return NoOp(http.StatusAccepted, size), nil
	case "naive":
		return Naive(redis.NewClient(&redis.Options{Addr: redisAddr}), key), nil
	}
	return nil, fmt.Errorf("there is no reference server %q", kind)
}
