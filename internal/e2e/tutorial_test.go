package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const tutorial = "../../docs/start/tutorial.md"

// TestTutorial does what docs/start/tutorial.md says, on the stack that
// `seckill dev` starts, and sees what the page shows.
func TestTutorial(t *testing.T) {
	bin := t.TempDir()
	if out, err := exec.Command("go", "build", "-o", bin, "../../cmd/seckill").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v: %s", err, out)
	}
	server, key := dev(t, filepath.Join(bin, "seckill"))
	steps := read(t, tutorial)
	if len(steps) < 15 {
		t.Fatalf("the page has %d steps that can be run: that is no tutorial", len(steps))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-s")
	cmd.Dir = t.TempDir()
	cmd.Env = []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + cmd.Dir, "SECKILL_SERVER=" + server, "SECKILL_KEY=" + key}
	cmd.Stdin = strings.NewReader(script(steps))
	cmd.WaitDelay = time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	for i, shown := range strings.Split(out.String(), mark) {
		if i == len(steps) {
			break
		}
		if i == strings.Count(out.String(), mark) {
			t.Fatalf("%s:%d: it ends here: %v\n%s\n%s", tutorial, steps[i].line, err, steps[i].commands, shown)
		}
		if !steps[i].expects(shown) {
			t.Errorf("%s:%d: %s\nshows\n%s\nand the page says\n%s", tutorial, steps[i].line, steps[i].commands, shown, steps[i].output)
		}
	}
}

// dev starts `seckill dev` and returns the address of its gateway and its admin
// key.
func dev(t *testing.T, seckill string) (server, key string) {
	t.Helper()
	cmd := exec.Command(seckill, "dev", "--port", "0", "--quiet")
	out := &heard{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			_ = cmd.Process.Kill()
		}
	})
	export := regexp.MustCompile(`export SECKILL_SERVER=(\S+) SECKILL_KEY=(\S+)\n`)
	eventually(t, time.Minute, func() error {
		found := export.FindStringSubmatch(out.text())
		if found == nil {
			return fmt.Errorf("seckill dev has not said what to export: %s", out.text())
		}
		server, key = found[1], found[2]
		return nil
	})
	return server, key
}

// heard is what a process has written so far.
type heard struct {
	mu  sync.Mutex
	all bytes.Buffer
}

// Write keeps p.
func (h *heard) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.all.Write(p)
}

func (h *heard) text() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.all.String()
}

// step is one block of commands on the page, and the output shown below it.
type step struct {
	commands, output string
	line             int
}

// read takes the steps out of a page: each block of sh, unless a comment above
// it says that it is not run, with the block of text that follows it.
func read(t *testing.T, path string) (steps []step) {
	t.Helper()
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var above, block, kind string
	inside := false
	for i, line := range strings.Split(string(page), "\n") {
		fence, isFence := strings.CutPrefix(line, "```")
		switch {
		case isFence && !inside:
			kind, block, inside = fence, "", true
		case isFence:
			inside = false
			switch {
			case kind == "sh" && !strings.HasPrefix(above, "<!-- not run"):
				steps = append(steps, step{commands: block, line: i - strings.Count(block, "\n") + 1})
			case kind == "text" && len(steps) > 0 && steps[len(steps)-1].output == "":
				steps[len(steps)-1].output = block
			case kind != "sh":
				t.Fatalf("%s:%d: a block of %q that belongs to no command", path, i+1, kind)
			}
			above = ""
		case inside:
			block += line + "\n"
		case strings.TrimSpace(line) != "":
			above = line
		}
	}
	return steps
}

const mark = "\x1e\n" // between the outputs of two steps

// script runs the steps in one shell, which ends with the first command that
// fails.
func script(steps []step) string {
	var out strings.Builder
	out.WriteString("set -euo pipefail\n")
	for _, s := range steps {
		out.WriteString(s.commands + "printf '" + `\036\n` + "'\n")
	}
	return out.String()
}

// What is another one each time.
var varying = []struct {
	what *regexp.Regexp
	name string
}{
	{regexp.MustCompile(`\b20\d\d-\d\d-\d\dT[0-9:.]+Z`), "<time>"},
	{regexp.MustCompile(`\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b`), "<uuid>"},
	{regexp.MustCompile(`\b[a-z2-7]{26}\b`), "<reservation>"},
	{regexp.MustCompile(`\bsk_[a-z0-9-]+_\w+`), "<key>"},
	{regexp.MustCompile(`(seckill\.[a-z]+) +\d+ +\d+ `), "$1 <partition> <offset> "},
	{regexp.MustCompile(` +`), " "},
	{regexp.MustCompile(` \n`), "\n"},
}

func plain(text string) string {
	for _, v := range varying {
		text = v.what.ReplaceAllString(text, v.name)
	}
	return text
}

// expects reports whether shown is what the page says, but for what varies and
// where the page has an ellipsis.
func (s step) expects(shown string) bool {
	parts := strings.Split(plain(s.output), "…")
	for i, p := range parts {
		parts[i] = regexp.QuoteMeta(p)
	}
	return regexp.MustCompile("(?s)^" + strings.Join(parts, ".*?") + "$").MatchString(plain(shown))
}

// A comparison that cannot fail compares nothing.
func TestTutorialComparison(t *testing.T) {
	for _, tt := range []struct {
		why, page, shown string
		same             bool
	}{
		{"another time", "at  2026-11-27T15:26:26.422Z\n", "at  2027-01-01T00:00:00.000Z\n", true},
		{"another reservation", "id aaaaaaaaaaaaaaaaaaaaaaaaaa\n", "id bbbbbbbbbbbbbbbbbbbbbbbbbb\n", true},
		{"wider columns", "a   b\n", "a b  \n", true},
		{"an ellipsis", "a … c\n", "a b\nb c\n", true},
		{"another word", "paid\n", "queued\n", false},
		{"another number", "total 2\n", "total 3\n", false},
		{"more than the page says", "paid\n", "paid\npaid\n", false},
		{"nothing", "paid\n", "", false},
	} {
		if got := (step{output: tt.page}).expects(tt.shown); got != tt.same {
			t.Errorf("%s: %q for %q: same %v, want %v", tt.why, tt.shown, tt.page, got, tt.same)
		}
	}
}
