package embedded

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/segmentio/kafka-go"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("SECKILL_EMBEDDED_CHILD"); dir != "" {
		child(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

func TestStart(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s, err := Start(ctx, Config{})
	if err != nil {
		t.Fatal(err)
	}
	cancel() // of the start only: the servers stay
	client := redis.NewClient(&redis.Options{Addr: s.RedisAddr})
	defer client.Close()
	if err := client.Ping(t.Context()).Err(); err != nil {
		t.Errorf("Redis: %v", err)
	}
	if n := stockRows(t, openMySQL(t, s.MySQLDSN)); n != 0 {
		t.Errorf("MySQL starts with %d rows", n)
	}
	admin, done := kafkaClient(s.KafkaBrokers)
	meta, err := admin.Metadata(t.Context(), &kafka.MetadataRequest{})
	if err != nil || len(meta.Brokers) != len(s.KafkaBrokers) {
		t.Errorf("Kafka: %v, %v", meta, err)
	}
	done()
	dir := string(s.close[0].(remove))
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("once more: %v", err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the temporary directory is still there: %v", err)
	}
}

func TestOneProcessPerDirectory(t *testing.T) {
	dir := t.TempDir()
	first, err := Start(t.Context(), Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := StartMySQL(t.Context(), filepath.Join(dir, "seckill.db")); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a second MySQL on the same file: %v", err)
	}
	if second, err := Start(t.Context(), Config{Dir: dir}); err == nil || second != nil {
		t.Errorf("a second Start in the same directory: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Start(t.Context(), Config{Dir: dir})
	if err != nil {
		t.Fatalf("after the first was closed: %v", err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

func TestStartSaysWhatStopsIt(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := Start(t.Context(), Config{Dir: file}); err == nil || s != nil || !strings.Contains(err.Error(), file) {
		t.Errorf("a file for a directory: %v, want an error with its name", err)
	}
	noDatabase := filepath.Join(t.TempDir(), "a.db")
	if err := os.WriteFile(noDatabase, []byte(strings.Repeat("no database ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := StartMySQL(t.Context(), noDatabase); err == nil || !strings.Contains(err.Error(), noDatabase) {
		t.Errorf("a file that is no database: %v, want an error with its name", err)
	}
}

// What a killed process had been told is kept is there when the next starts.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	var messages, rows int64
	for round := range int64(3) {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), "SECKILL_EMBEDDED_CHILD="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for enough := messages + 20; (messages < enough || rows < enough) && lines.Scan(); {
			switch lines.Text() {
			case "message":
				messages++
			case "row":
				rows++
			default:
				t.Fatalf("the child says %q", lines.Text())
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		if least := 20 * (round + 1); messages < least || rows < least {
			t.Fatalf("the child ended by itself after %d messages and %d rows", messages, rows)
		}
		checkKept(t, dir, messages, rows)
	}
}

// checkKept starts the servers in dir and looks for what was acknowledged.
func checkKept(t *testing.T, dir string, messages, rows int64) {
	t.Helper()
	s, err := Start(t.Context(), Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got := int64(stockRows(t, openMySQL(t, s.MySQLDSN))); got < rows {
		t.Errorf("%d rows after a kill, %d were committed", got, rows)
	}
	if got := records(t, s.KafkaBrokers, "kept"); got < messages {
		t.Errorf("%d messages after a kill, %d were acknowledged", got, messages)
	}
}

// child starts the servers in dir and writes to them, until it is killed. It
// prints a line for everything that was acknowledged.
func child(dir string) {
	ctx := context.Background()
	fail := func(err error) {
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	s, err := Start(ctx, Config{Dir: dir})
	fail(err)
	admin, _ := kafkaClient(s.KafkaBrokers)
	fail(makeTopic(ctx, admin, "kept"))
	go func() {
		for {
			fail(produce(ctx, admin, "kept"))
			fmt.Println("message")
		}
	}()
	db, err := open(ctx, s.MySQLDSN)
	fail(err)
	for {
		_, err := db.ExecContext(ctx, insertStock, time.Now().Format(time.RFC3339Nano), 1, 1)
		fail(err)
		fmt.Println("row")
	}
}

func TestStartLeavesOut(t *testing.T) {
	s, err := Start(t.Context(), Config{NoKafka: true, NoMySQL: true})
	if err != nil {
		t.Fatal(err)
	}
	if s.RedisAddr == "" || s.KafkaBrokers != nil || s.MySQLDSN != "" {
		t.Errorf("%+v: want Redis only, the others are real", s)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
