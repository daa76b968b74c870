package floors

import (
	"flag"
	"fmt"
	"go/ast"
	"go/token"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

//go:generate go test . -run TestLogsReference -update

var update = flag.Bool("update", false, "write docs/reference/logs.md")

// fieldMeanings is what each field of a log line means. A field that is not
// here must not be written, and one that nobody writes must not be here.
func fieldMeanings() map[string]string {
	return map[string]string{
		"service":        "gateway, stock-worker or settle-worker",
		"trace_id":       "the W3C trace that the request or the event belongs to, 32 hexadecimal digits; empty without one",
		"reservation_id": "the reservation, 26 characters",
		"event_id":       "`ce_id` of an event: the same on every re-emission",
		"type":           "`ce_type` of an event",
		"product":        "the product",
		"error":          "what went wrong, each floor with verb and identity",
		"code":           "the problem's code, as in errors.md",
		"route":          "method and pattern of the operation",
		"panic":          "the value of a panic", "stack": "and where it happened",
		"group": "consumer group, in full", "topic": "topic, in full", "partition": "partition of the topic",
		"offset": "offset of a record", "wanted": "offset that was to be read next", "got": "offset that was there instead",
		"start": "oldest offset of the log", "end": "offset of the record to come",
		"stage": "part of a consumer's work: topic, join, fetch, offsets, handle, publish, bury",
		"class": "why a record is a dead letter",
		"loop":  "name of a background loop", "failed_steps": "steps that failed in a row",
		"ops": "address of probes and metrics", "api": "address of the HTTP API", "version": "of the program",
		"delay": "drain-delay", "limit": "drain-limit",
		"last_seen_well": "when Redis was last known to be whole", "absent": "how long Redis was away",
		"on_sale": "whether the product may be sold now", "changed": "reservations that healing changed",
		"adopted": "reservations that Redis had lost", "tombstones": "rolled-back reservations that Redis had lost",
		"spans": "number of spans", "text": "the words of a library", "equation": "the equation that does not hold: ledger or drift",
		"numbers": "both sides of the equation", "drift": "units by which Redis differs from the ledger", "readings": "readings in a row",
	}
}

// logged is one log line as it stands in the source.
type logged struct {
	level, message, file string
	fields               []string
}

// ours lists whose lines reach the log of the three processes.
func ours(pkg string) bool {
	if !strings.HasPrefix(pkg, "pkg/") && !strings.HasPrefix(pkg, "internal/") {
		return false
	}
	for _, other := range []string{"internal/torture", "internal/bench", "internal/crowd", "internal/embedded", "internal/testservers", "internal/proc", "internal/cli", "pkg/client", "internal/contract"} {
		if pkg == other || strings.HasPrefix(pkg, other+"/") {
			return false
		}
	}
	return true
}

// logLines finds the log lines of the house and the fields of everything that
// makes fields.
func logLines(h house) []logged {
	attrs := map[string][]string{} // function → the fields that it makes
	for _, f := range h.files {
		for _, decl := range f.syntax.Decls {
			if d, ok := decl.(*ast.FuncDecl); ok && ours(f.pkg) {
				if keys := attrKeys(d); len(keys) > 0 {
					attrs[d.Name.Name] = keys
				}
			}
		}
	}
	var out []logged
	for _, f := range h.files {
		if !ours(f.pkg) {
			continue
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok {
				if line, ok := logLine(call, attrs); ok {
					line.file = f.name
					out = append(out, line)
				}
			}
			return true
		})
	}
	slices.SortFunc(out, func(a, b logged) int {
		return strings.Compare(a.level+a.message+a.file, b.level+b.message+b.file)
	})
	return out
}

// attrKeys are the first arguments of slog.String and its like in a function.
func attrKeys(d *ast.FuncDecl) (keys []string) {
	ast.Inspect(d, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) < 2 {
			return true
		}
		sel, ok := call.Fun.(*ast.SelectorExpr)
		if !ok || dotted(sel.X) != "slog" {
			return true
		}
		if key, ok := literal(call.Args[0]); ok && key != "" {
			keys = append(keys, key)
		}
		return true
	})
	return keys
}

func logLine(call *ast.CallExpr, attrs map[string][]string) (logged, bool) {
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || !strings.HasSuffix(strings.ToLower(dotted(sel.X)), "log") {
		return logged{}, false
	}
	level, context := strings.CutSuffix(sel.Sel.Name, "Context")
	if !slices.Contains([]string{"Debug", "Info", "Warn", "Error"}, level) {
		return logged{}, false
	}
	args := call.Args
	if context && len(args) > 0 {
		args = args[1:]
	}
	if len(args) == 0 {
		return logged{}, false
	}
	message, ok := literal(args[0])
	if !ok {
		return logged{}, false
	}
	line := logged{level: strings.ToLower(level), message: message}
	for rest := args[1:]; len(rest) > 0; {
		if key, ok := literal(rest[0]); ok {
			line.fields = append(line.fields, key)
			rest = rest[min(2, len(rest)):]
			continue
		}
		if made, ok := rest[0].(*ast.CallExpr); ok {
			name := dotted(made.Fun)
			line.fields = append(line.fields, attrs[name[strings.LastIndex(name, ".")+1:]]...)
		}
		rest = rest[1:]
	}
	return line, true
}

func literal(e ast.Expr) (string, bool) {
	l, ok := e.(*ast.BasicLit)
	if !ok || l.Kind != token.STRING {
		return "", false
	}
	s, err := strconv.Unquote(l.Value)
	return s, err == nil
}

// dotted is an expression of names and dots.
func dotted(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return dotted(e.X) + "." + e.Sel.Name
	default:
		return "?"
	}
}

func logsReference(lines []logged) string {
	meanings := fieldMeanings()
	var b strings.Builder
	b.WriteString(`<!-- Generated by go generate ./internal/floors; do not edit. -->
# Logs

Each process writes JSON lines to standard error, one object a line, with ` + "`time`, `level`, `msg` and `service`" + `. Messages are constant, so count and search by ` + "`msg`" + `; what varies is in the fields.

- **error**: somebody has to look. **warn**: something is away or was lost, and is being worked on. **info**: a process or an outage begins or ends, a product is loaded or healed. **debug** (` + "`--log-level debug`" + `): one line for each change of state, when its event is acknowledged and when it is handled.
- Nothing is logged for a request that is served. A refusal is counted, and one a second is shown at debug. During an outage one fault a second is logged, and each outage has one line at its beginning and one at its end.
- To follow one buyer: ` + "`reservation_id`" + ` finds every step at debug; ` + "`trace_id`" + ` is in the answer to the buyer, in the lines, and in the spans (` + "`--otlp-endpoint`" + `). ` + "`seckill reservation timeline ID`" + ` shows the same from the stores, without any log.
- No line holds a key, a token, a password or a user.

## Fields

| field | meaning |
|---|---|
`)
	for _, name := range sorted(meanings) {
		fmt.Fprintf(&b, "| `%s` | %s |\n", name, meanings[name])
	}
	b.WriteString("\n## Lines\n\n| level | message | fields | from |\n|---|---|---|---|\n")
	for _, level := range []string{"error", "warn", "info", "debug"} {
		for _, l := range lines {
			if l.level == level {
				quoted := make([]string, len(l.fields))
				for i, f := range l.fields {
					quoted[i] = "`" + f + "`"
				}
				fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", l.level, l.message, strings.Join(quoted, " "), l.file)
			}
		}
	}
	return b.String()
}

func sorted(m map[string]string) []string {
	var names []string
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func TestLogsReference(t *testing.T) {
	const path = "../../docs/reference/logs.md"
	lines := logLines(read(t, os.DirFS("../..")))
	if len(lines) < 10 {
		t.Fatalf("found only %d log lines", len(lines))
	}
	meanings, used := fieldMeanings(), map[string]bool{"service": true, "group": true, "topic": true} // given to the loggers by With
	for _, l := range lines {
		for _, f := range l.fields {
			used[f] = true
			if meanings[f] == "" {
				t.Errorf("%s: %q has the field %s, which the table does not know", l.file, l.message, f)
			}
			if slices.Contains([]string{"user", "user_id", "key", "token", "password", "secret"}, f) {
				t.Errorf("%s: %q has the field %s, which no log may hold", l.file, l.message, f)
			}
		}
	}
	for name := range meanings {
		if !used[name] {
			t.Errorf("the table has the field %s, which nobody writes", name)
		}
	}
	want := logsReference(lines)
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil || string(got) != want {
		t.Errorf("%s is not what the source logs (%v): run go generate ./internal/floors", path, err)
	}
}

func TestLogLinesAreFound(t *testing.T) {
	lines := logLines(read(t, fstest.MapFS{"pkg/events/a.go": {Data: []byte(`package p
func who() any { return slog.Group("", slog.String("trace_id", "x"), slog.Int("offset", 1)) }
func f() {
	c.cfg.Log.WarnContext(ctx, "one", "error", err, who())
	p.outages.log.Error("two", "partition", p.id)
	mylist.Info("three")
}`)}}))
	want := []logged{
		{"error", "two", "pkg/events/a.go", []string{"partition"}},
		{"warn", "one", "pkg/events/a.go", []string{"error", "trace_id", "offset"}},
	}
	if fmt.Sprint(lines) != fmt.Sprint(want) {
		t.Errorf("found %v, want %v", lines, want)
	}
}
