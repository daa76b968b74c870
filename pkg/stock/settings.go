package stock

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

// ServerSettings is what a Redis server says of itself.
type ServerSettings struct {
	Addr   string
	Values map[string]string // redis_version, appendonly, appendfsync, maxmemory, maxmemory-policy; what it does not tell is missing
}

// Settings asks every master on what its durability depends. Some services
// forbid CONFIG: then appendfsync is missing, and INFO tells the rest.
func (c *Cache) Settings(ctx context.Context) ([]ServerSettings, error) {
	var mu sync.Mutex // masters are asked side by side
	var out []ServerSettings
	ask := func(ctx context.Context, addr string, server redis.Cmdable) error {
		s := ServerSettings{Addr: addr, Values: map[string]string{}}
		info, err := server.Info(ctx).Result()
		if err != nil {
			return err
		}
		for line := range strings.SplitSeq(info, "\r\n") {
			switch name, value, _ := strings.Cut(line, ":"); name {
			case "redis_version", "maxmemory":
				s.Values[name] = value
			case "maxmemory_policy":
				s.Values["maxmemory-policy"] = value
			case "aof_enabled":
				s.Values["appendonly"] = map[string]string{"1": "yes"}[value]
			}
		}
		if config, err := server.ConfigGet(ctx, "append*").Result(); err == nil {
			for _, name := range []string{"appendonly", "appendfsync"} {
				if value, told := config[name]; told {
					s.Values[name] = value
				}
			}
		}
		mu.Lock()
		defer mu.Unlock()
		out = append(out, s)
		return nil
	}
	var err error
	switch client := c.client.(type) {
	case *redis.ClusterClient:
		err = client.ForEachMaster(ctx, func(ctx context.Context, master *redis.Client) error {
			return ask(ctx, master.Options().Addr, master)
		})
	case *redis.Client:
		err = ask(ctx, client.Options().Addr, client)
	default:
		err = ask(ctx, "Redis", client)
	}
	if err != nil {
		return nil, fmt.Errorf("read Redis's settings: %w", err)
	}
	return out, nil
}
