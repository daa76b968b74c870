package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/leadingpeers/seckill/pkg/stock"
)

// seedScript is the pre-deduction as everybody writes it first, word for word
// from the document that this project began with. It oversells; here it only
// sets the price of one EVALSHA for each request.
const seedScript = `
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

// Engine measures stock.Cache.Reserve under cfg.Callers callers against
// redis-benchmark with the seed's script, one call each without pipelining. It
// needs the program redis-benchmark, and flushes nothing: its keys are its own.
func Engine(ctx context.Context, addr string, cfg Config) ([]Figure, error) {
	client := redis.NewClient(&redis.Options{Addr: addr})
	defer func() { _ = client.Close() }()
	rate := Figure{Name: "engine: reservations", Unit: "/s"}
	cpu := Figure{Name: "engine: Redis CPU a reservation", Unit: "µs"}
	err := cfg.repeat(ctx,
		func(ctx context.Context) error {
			perSecond, micros, err := engineSubject(ctx, client, cfg)
			rate.Subject, cpu.Subject = append(rate.Subject, perSecond), append(cpu.Subject, micros)
			return err
		},
		func(ctx context.Context) error {
			perSecond, micros, err := engineReference(ctx, client, addr, cfg)
			rate.Reference, cpu.Reference = append(rate.Reference, perSecond), append(cpu.Reference, micros)
			return err
		})
	return []Figure{rate, cpu}, err
}

func engineSubject(ctx context.Context, client *redis.Client, cfg Config) (perSecond, micros float64, err error) {
	const total = stock.MaxQuantity
	cache := stock.NewCache(client, stock.CacheConfig{Prefix: "seckill-bench"})
	defer cache.Close()
	terms := stock.Terms{ProductID: "bench", PerOrder: 5, PerUser: 5, OnSale: true, StartsAt: time.Unix(0, 0), EndsAt: time.Unix(1<<33, 0)}
	if _, err := cache.Preload(ctx, terms, total, func(func(stock.Reservation, error) bool) {}); err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, cache.Flush(ctx, terms.ProductID, true)) }()

	before, err := redisCPU(ctx, client)
	if err != nil {
		return 0, 0, err
	}
	var taken, failed atomic.Int64
	var wg sync.WaitGroup
	began := time.Now()
	for caller := range cfg.Callers {
		wg.Go(func() {
			for i := 0; time.Since(began) < cfg.Duration && ctx.Err() == nil; i++ {
				_, _, err := cache.Reserve(ctx, stock.Reservation{
					ID: reservationID(), ProductID: terms.ProductID, UserID: "u" + strconv.Itoa(caller) + "-" + strconv.Itoa(i), Quantity: 1,
				})
				if err != nil {
					failed.Add(1)
					return
				}
				taken.Add(1)
			}
		})
	}
	wg.Wait()
	elapsed := time.Since(began)
	after, err := redisCPU(ctx, client)
	if err != nil {
		return 0, 0, err
	}
	surplus, err := cache.Surplus(ctx, terms.ProductID)
	if err != nil {
		return 0, 0, err
	}
	if failed.Load() > 0 || surplus != total-taken.Load() {
		return 0, 0, fmt.Errorf("the books do not balance: %d reserved, %d failed, surplus %d of %d", taken.Load(), failed.Load(), surplus, total)
	}
	n := float64(taken.Load())
	return n / elapsed.Seconds(), (after - before).Seconds() * 1e6 / n, nil
}

func engineReference(ctx context.Context, client *redis.Client, addr string, cfg Config) (perSecond, micros float64, err error) {
	const key = "seckill-bench-seed"
	sha, err := client.ScriptLoad(ctx, seedScript).Result()
	if err != nil {
		return 0, 0, err
	}
	if err := client.HSet(ctx, key, "surplus", stock.MaxQuantity, "restriction", 5).Err(); err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, client.Del(ctx, key).Err()) }()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return 0, 0, err
	}
	n := int(cfg.Duration.Seconds() * 40_000) // about as long as the subject on a small machine
	before, err := redisCPU(ctx, client)
	if err != nil {
		return 0, 0, err
	}
	out, err := exec.CommandContext(ctx, "redis-benchmark", "-h", host, "-p", port, "-c", "50", "-P", "1", "-n", strconv.Itoa(n), "--csv",
		"EVALSHA", sha, "1", key, "surplus", "restriction", "1").CombinedOutput()
	if err != nil {
		return 0, 0, fmt.Errorf("redis-benchmark (Debian: apt-get install redis-tools): %w: %s", err, out)
	}
	after, err := redisCPU(ctx, client)
	if err != nil {
		return 0, 0, err
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	fields := strings.Split(lines[len(lines)-1], `","`) // "test","rps",… ; the test's name has commas of its own
	if len(fields) < 2 {
		return 0, 0, fmt.Errorf("redis-benchmark said %q", out)
	}
	perSecond, err = strconv.ParseFloat(strings.Trim(fields[1], `"`), 64)
	return perSecond, (after - before).Seconds() * 1e6 / float64(n), err
}

// redisCPU is the CPU time that the server's main thread has used.
func redisCPU(ctx context.Context, client *redis.Client) (time.Duration, error) {
	info, err := client.Info(ctx, "cpu").Result()
	if err != nil {
		return 0, err
	}
	var sum float64
	for line := range strings.SplitSeq(info, "\r\n") {
		name, value, _ := strings.Cut(line, ":")
		if name == "used_cpu_sys_main_thread" || name == "used_cpu_user_main_thread" {
			v, err := strconv.ParseFloat(value, 64)
			if err != nil {
				return 0, err
			}
			sum += v
		}
	}
	return time.Duration(sum * float64(time.Second)), nil
}
