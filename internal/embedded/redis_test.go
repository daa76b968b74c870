package embedded

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/leadingpeers/seckill/pkg/stock"
)

func startRedis(t *testing.T) *redis.Client {
	t.Helper()
	r, err := StartRedis(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(&redis.Options{Addr: r.Addr()})
	t.Cleanup(func() {
		_ = client.Close()
		for range 2 { // repeating is harmless
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	return client
}

func TestRedisKeysExpire(t *testing.T) {
	client := startRedis(t)
	ctx := t.Context()
	for key, ttl := range map[string]time.Duration{"short": 300 * time.Millisecond, "long": time.Hour, "ever": 0} {
		if err := client.Set(ctx, key, "1", ttl).Err(); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the short key is gone", func() bool { return client.Exists(ctx, "short").Val() == 0 })
	if n := client.Exists(ctx, "long", "ever").Val(); n != 2 {
		t.Errorf("%d of the other two are left", n)
	}
}

func TestRedisTimeIsReal(t *testing.T) {
	client := startRedis(t)
	before := time.Now().Add(-time.Millisecond)
	got, err := client.Time(t.Context()).Result()
	if err != nil || got.Before(before) || got.After(time.Now()) {
		t.Errorf("TIME is %v (%v), asked at %v", got, err, before)
	}
	script := redis.NewScript("local t = redis.call('TIME') return t[1] * 1000 + math.floor(t[2] / 1000)")
	ms, err := script.Run(t.Context(), client, nil).Int64()
	if err != nil || time.UnixMilli(ms).Before(before) || time.UnixMilli(ms).After(time.Now()) {
		t.Errorf("in a script it is %d (%v)", ms, err)
	}
}

// The workers load a Redis anew when its RunID is another than before.
func TestRedisTellsItsLife(t *testing.T) {
	seen := make(map[string]bool)
	for range 2 {
		cache := stock.NewCache(startRedis(t), stock.CacheConfig{})
		id, err := cache.RunID(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		again, err := cache.RunID(t.Context())
		if id == "" || id != again || err != nil {
			t.Errorf("one server says %q, then %q (%v)", id, again, err)
		}
		if seen[id] {
			t.Errorf("two servers say %q", id)
		}
		seen[id] = true
		cache.Close()
	}
	if clients, err := startRedis(t).Info(t.Context(), "clients").Result(); err != nil || clients == "" {
		t.Errorf("other sections: %q, %v", clients, err)
	}
}
