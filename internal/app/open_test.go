package app

import (
	"context"
	"net"
	"testing"
	"time"
)

// TestRedisThatHangs waits for it no longer than the caller has time, which is
// less than the client's own.
func TestRedisThatHangs(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	client, err := Config{Redis: silent.Addr().String()}.openRedis()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	start := time.Now()
	err = client.Get(ctx, "key").Err()
	if took := time.Since(start); err == nil || took > time.Second {
		t.Errorf("%v after %s, want an error after a tenth of a second", err, took)
	}
}
