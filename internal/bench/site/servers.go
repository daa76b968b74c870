package site

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/leadingpeers/seckill/internal/mysql"
)

// Servers are the addresses of real servers. PIDs has their processes by the
// names of deploy/local/servers where they are known: without them nobody can
// say what Kafka and MySQL cost.
type Servers struct {
	Redis string // host:port
	Kafka string // host:port, more by comma
	MySQL string // user:password@tcp(host:port)/, the schema is of no account
	PIDs  map[string]int
}

// Up starts the servers by deploy/local/servers, at the path script, and
// returns them. Those that run already are left as they are.
func Up(ctx context.Context, script string) (Servers, error) {
	s := Servers{PIDs: map[string]int{}}
	if _, err := run(ctx, script, "up"); err != nil {
		return s, err
	}
	env, err := run(ctx, script, "env")
	if err != nil {
		return s, err
	}
	for line := range strings.SplitSeq(env, "\n") {
		name, value, _ := strings.Cut(strings.TrimPrefix(line, "export "), "=")
		value = strings.Trim(value, "'")
		switch name {
		case "SECKILL_TEST_REDIS":
			s.Redis = value
		case "SECKILL_TEST_KAFKA":
			s.Kafka = value
		case "SECKILL_TEST_MYSQL":
			s.MySQL = value
		}
	}
	status, err := run(ctx, script, "status")
	if err != nil {
		return s, err
	}
	for line := range strings.SplitSeq(status, "\n") {
		if f := strings.Fields(line); len(f) >= 3 {
			if pid, err := strconv.Atoi(f[2]); err == nil {
				s.PIDs[f[0]] = pid
			}
		}
	}
	return s, nil
}

func run(ctx context.Context, script, verb string) (string, error) {
	var out, problem bytes.Buffer
	cmd := exec.CommandContext(ctx, script, verb)
	cmd.Stdout, cmd.Stderr = &out, &problem
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s; or name running servers with --redis, --kafka and --mysql", script, verb, err, strings.TrimSpace(problem.String()))
	}
	return out.String(), nil
}

// CPU is the CPU time that processes have used, in seconds, by name.
type CPU map[string]float64

// Since returns what was used between before and c.
func (c CPU) Since(before CPU) CPU {
	out := CPU{}
	for name, v := range c {
		out[name] = v - before[name]
	}
	return out
}

// ticksPerSecond is the unit of /proc/*/stat on every Linux that Go runs on.
const ticksPerSecond = 100

// ProcessCPU is the CPU time that a process has used, in seconds, in steps of
// 10 ms. Linux only.
func ProcessCPU(pid int) (float64, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, fmt.Errorf("CPU of process %d: %w", pid, err)
	}
	// The name in parentheses may hold anything; user and system time are the
	// 14th and 15th field.
	_, rest, _ := strings.Cut(string(text[bytes.LastIndexByte(text, ')'):]), " ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, fmt.Errorf("CPU of process %d: /proc says %q", pid, text)
	}
	user, err1 := strconv.ParseFloat(fields[11], 64)
	system, err2 := strconv.ParseFloat(fields[12], 64)
	return (user + system) / ticksPerSecond, errors.Join(err1, err2)
}

// ResidentMB is the most memory that a process has had resident, in MB. Linux only.
func ResidentMB(pid int) (float64, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0, fmt.Errorf("memory of process %d: %w", pid, err)
	}
	for line := range strings.SplitSeq(string(text), "\n") {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, err := strconv.ParseFloat(strings.Fields(value)[0], 64)
			return kb * 1024 / 1e6, err
		}
	}
	return 0, fmt.Errorf("memory of process %d: /proc does not say", pid)
}

// RedisCPU is the CPU time that the server's main thread has used, in seconds:
// what bounds one Redis. It is exact to a microsecond.
func RedisCPU(ctx context.Context, client *redis.Client) (float64, error) {
	info, err := client.Info(ctx, "cpu").Result()
	if err != nil {
		return 0, fmt.Errorf("CPU of Redis: %w", err)
	}
	var sum float64
	for line := range strings.SplitSeq(info, "\r\n") {
		name, value, _ := strings.Cut(line, ":")
		if name == "used_cpu_sys_main_thread" || name == "used_cpu_user_main_thread" {
			v, err := strconv.ParseFloat(value, 64)
			if err != nil {
				return 0, fmt.Errorf("CPU of Redis: %w", err)
			}
			sum += v
		}
	}
	return sum, nil
}

// Versions says in words what the servers are.
func Versions(ctx context.Context, s Servers) (string, error) {
	client := redis.NewClient(&redis.Options{Addr: s.Redis})
	defer func() { _ = client.Close() }()
	info, err := client.Info(ctx, "server").Result()
	if err != nil {
		return "", fmt.Errorf("version of Redis: %w", err)
	}
	redisVersion := ""
	for line := range strings.SplitSeq(info, "\r\n") {
		if v, ok := strings.CutPrefix(line, "redis_version:"); ok {
			redisVersion = v
		}
	}
	db, err := mysql.Open(ctx, mysql.Config{DSN: s.MySQL, MaxOpen: 1})
	if err != nil {
		return "", err
	}
	defer func() { _ = db.Close() }()
	var mysqlVersion string
	if err := db.QueryRowContext(ctx, "SELECT VERSION()").Scan(&mysqlVersion); err != nil {
		return "", fmt.Errorf("version of MySQL: %w", err)
	}
	return fmt.Sprintf("Redis %s, MySQL %s, %d Kafka broker(s)", redisVersion, mysqlVersion, len(strings.Split(s.Kafka, ","))), nil
}
