// Package floors holds the tests that keep the house standing: a package
// imports only packages on lower floors, an outside library is used where it
// belongs, no stand-in gets into a production binary, every exported name says
// what it is, and nothing grows too long to be read at once.
package floors

import (
	"go/ast"
	"os"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/leadingpeers/seckill/"

// floors lists every package, from the ground up. A package imports only what
// stands on lower floors: neighbours do not know each other.
func floors() [][]string {
	return [][]string{
		{"internal/fault", "internal/plain", "lua", "deploy/kafka", "internal/mysql/migrations", "internal/embedded/sqltext", "internal/loop", "internal/proc", "internal/trace", "api"},
		{"internal/embedded/dialect"},
		{"internal/mysql", "internal/embedded", "internal/audit"},
		{"internal/testservers", "internal/contract"}, // for tests only, see fences
		{"pkg/events", "pkg/stock", "pkg/catalog", "pkg/order", "pkg/token", "pkg/client", "internal/keys"},
		{"internal/simulator/memory", "internal/onway"},
		{"internal/gateway/problem"}, // the rooms of internal/gateway
		{"internal/gateway/web"},
		{"internal/gateway/catalogue", "internal/gateway/docs", "internal/gateway/access"},
		{"internal/gateway/stockops", "internal/gateway/orders", "internal/ops/kafkalog", "internal/bench/figures", "internal/bench/load", "internal/bench/reference"},
		{"internal/ops/lag", "internal/ops/topics", "internal/bench/site"},
		{"internal/gateway", "internal/stockworker", "internal/settleworker", "internal/ops", "internal/ops/redrive", "internal/ops/reconcile", "internal/ops/doctor", "internal/crowd", "internal/bench", "internal/watch"},
		{"internal/ops/replay"},
		{"internal/app", "internal/cli", "internal/simulator"},
		{"internal/torture/stage", "internal/torture/load"},
		{"internal/torture/plan", "internal/torture/judge"},
		{"internal/torture"},
		{"cmd/gateway", "cmd/stock-worker", "cmd/settle-worker", "cmd/seckill", "cmd/torture", "internal/simulator/cmd"},
		{"examples/checkout"}, // what others build on us
	}
}

// fence keeps an import, and what is below it, to a few packages.
type fence struct {
	around  string // an import path, or the start of one up to a slash
	allowed []string
	why     string
}

func fences() []fence {
	standIns := []string{"internal/embedded"}
	return []fence{
		{"github.com/segmentio/kafka-go", []string{"pkg/events", "internal/ops", "internal/ops/kafkalog", "internal/ops/topics", "internal/ops/replay", "internal/app", "internal/testservers", "internal/bench/site", "internal/torture/stage"}, "delivery is decided in one place"},
		{"github.com/redis/go-redis", []string{"pkg/stock", "internal/app", "internal/bench/site", "internal/bench/reference", "internal/testservers", "internal/torture/stage", "internal/torture/judge"}, "one home for key names"},
		{"github.com/go-sql-driver/mysql", []string{"internal/mysql"}, "sessions are READ COMMITTED only when opened there"},
		{"github.com/cenkalti/backoff", []string{"pkg/events"}, "there is one retry, the consumer's"},
		{"github.com/alicebob/miniredis", standIns, "a stand-in"},
		{"github.com/twmb/franz-go", []string{"internal/embedded", "internal/testservers"}, "a stand-in, and what kafka-go cannot ask"},
		{"github.com/go-mysql-org", standIns, "a stand-in"},
		{"modernc.org/sqlite", standIns, "a stand-in"},
		{"go.opentelemetry.io", []string{"internal/trace"}, "a trace is a string everywhere else"},
		{"github.com/Shopify/toxiproxy", []string{"internal/torture/stage"}, "it breaks connections"},
		{module + "internal/torture", []string{"internal/torture", "internal/torture/plan", "internal/torture/judge", "cmd/torture"}, "it hurts, and serves nobody"},
		{module + "internal/embedded", []string{"internal/embedded", "internal/embedded/dialect", "internal/testservers", "cmd/seckill"}, "production runs on real servers"},
		{module + "internal/testservers", nil, "it is for tests"},
		{module + "internal/contract", nil, "it is for tests"},
		{"github.com/getkin/kin-openapi", []string{"internal/contract"}, "the contract is read in tests; nothing is checked against it on a request"},
		{module + "internal/crowd", []string{"cmd/seckill"}, "simulated buyers"},
		{module + "internal/bench", []string{"cmd/seckill", "internal/bench", "internal/bench/site"}, "measures, serves nobody"},
		{module + "internal/gateway/", []string{"internal/gateway", "internal/gateway/catalogue", "internal/gateway/docs", "internal/gateway/stockops", "internal/gateway/orders", "internal/gateway/access", "internal/gateway/web", "internal/app"}, "the rooms of one house"},
	}
}

// production lists the binaries that serve customers.
func production() []string {
	return []string{"cmd/gateway", "cmd/stock-worker", "cmd/settle-worker"}
}

// notInProduction lists what those must not link, however far down.
func notInProduction() []string {
	return []string{"internal/embedded", "internal/testservers", "internal/crowd", "internal/bench", "internal/proc", "internal/torture", "internal/simulator", "internal/simulator/memory"}
}

const (
	maxFunctionLines = 70
	maxMainLines     = 40 // of a cmd's main.go: flags, then internal/app
)

func TestTheHouse(t *testing.T) {
	house := read(t, os.DirFS("../.."))
	for name, check := range checks() {
		t.Run(name, func(t *testing.T) {
			for _, problem := range check(house) {
				t.Error(problem)
			}
		})
	}
}

func checks() map[string]func(house) []string {
	return map[string]func(house) []string{
		"imports go down":               importsGoDown,
		"every package has a floor":     everyPackageHasAFloor,
		"libraries stay in fences":      librariesStayInFences,
		"production links no stand-in":  productionLinksNoStandIn,
		"examples use what is public":   examplesUseWhatIsPublic,
		"exported names are documented": func(h house) []string { return eachFile(h, undocumented) },
		"functions are short":           func(h house) []string { return eachFile(h, longFunctions) },
		"mains are short":               func(h house) []string { return eachFile(h, longMains) },
	}
}

// level returns the floor of each package.
func level() map[string]int {
	out := map[string]int{}
	for i, row := range floors() {
		for _, name := range row {
			out[name] = i
		}
	}
	return out
}

func importsGoDown(h house) (problems []string) {
	floor := level()
	for _, f := range h.files {
		for _, full := range f.imports {
			to, ours := strings.CutPrefix(full, module)
			if ours && floor[to] >= floor[f.pkg] {
				problems = append(problems, f.say("%s stands on floor %d and imports %s on floor %d; imports only go down", f.pkg, floor[f.pkg], to, floor[to]))
			}
		}
	}
	return problems
}

func everyPackageHasAFloor(h house) (problems []string) {
	floor, seen := level(), map[string]bool{}
	for _, f := range h.files {
		if _, ok := floor[f.pkg]; !ok && !seen[f.pkg] {
			problems = append(problems, f.say("%s has no floor; give it one in internal/floors", f.pkg))
		}
		seen[f.pkg] = true
	}
	for name := range floor {
		if !seen[name] {
			problems = append(problems, name+" has a floor and no file; take it out of internal/floors")
		}
	}
	return problems
}

func librariesStayInFences(h house) (problems []string) {
	for _, f := range h.files {
		for _, full := range f.imports {
			for _, fence := range fences() {
				if strings.HasPrefix(full+"/", strings.TrimSuffix(fence.around, "/")+"/") && full+"/" != fence.around &&
					!slices.Contains(fence.allowed, f.pkg) {
					problems = append(problems, f.say("%s imports %s, which is only for %v: %s", f.pkg, full, fence.allowed, fence.why))
				}
			}
		}
	}
	return problems
}

func productionLinksNoStandIn(h house) (problems []string) {
	imports := map[string][]string{}
	for _, f := range h.files {
		for _, full := range f.imports {
			if to, ours := strings.CutPrefix(full, module); ours {
				imports[f.pkg] = append(imports[f.pkg], to)
			}
		}
	}
	for _, binary := range production() {
		seen := map[string]bool{}
		var walk func(pkg, way string)
		walk = func(pkg, way string) {
			if seen[pkg] {
				return
			}
			seen[pkg] = true
			if slices.Contains(notInProduction(), pkg) {
				problems = append(problems, way+": not in a production binary")
			}
			for _, to := range imports[pkg] {
				walk(to, way+" -> "+to)
			}
		}
		walk(binary, binary)
	}
	return problems
}

// examplesUseWhatIsPublic finds what a reader who copies an example could not
// import.
func examplesUseWhatIsPublic(h house) (problems []string) {
	for _, f := range h.files {
		for _, full := range f.imports {
			to, ours := strings.CutPrefix(full, module)
			if strings.HasPrefix(f.pkg, "examples/") && (!ours && strings.Contains(full, ".") || strings.HasPrefix(to, "internal/")) {
				problems = append(problems, f.say("imports %s; an example uses our public packages and the standard library", full))
			}
		}
	}
	return problems
}

// undocumented finds exported names without a comment. A function's or type's
// begins with its name, so that `go doc` reads as sentences; constants,
// variables and types in a group may share the group's.
func undocumented(f file) (problems []string) {
	if strings.HasPrefix(f.pkg, "cmd/") {
		return nil // nobody imports a command
	}
	check := func(name *ast.Ident, doc *ast.CommentGroup) {
		if name.IsExported() && !strings.HasPrefix(doc.Text(), name.Name) {
			problems = append(problems, f.at(name.Pos(), "%s has no comment that begins with its name", name.Name))
		}
	}
	for _, decl := range f.syntax.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil || exportedReceiver(d.Recv) {
				check(d.Name, d.Doc)
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				problems = append(problems, undocumentedSpec(f, d, spec)...)
			}
		}
	}
	return problems
}

func undocumentedSpec(f file, d *ast.GenDecl, spec ast.Spec) (problems []string) {
	switch s := spec.(type) {
	case *ast.TypeSpec:
		if s.Name.IsExported() && d.Doc.Text()+s.Doc.Text()+s.Comment.Text() == "" {
			problems = append(problems, f.at(s.Pos(), "type %s has no comment", s.Name.Name))
		}
	case *ast.ValueSpec:
		for _, name := range s.Names {
			if name.IsExported() && d.Doc.Text()+s.Doc.Text()+s.Comment.Text() == "" {
				problems = append(problems, f.at(name.Pos(), "%s has no comment", name.Name))
			}
		}
	}
	return problems
}

func exportedReceiver(recv *ast.FieldList) bool {
	expr := recv.List[0].Type
	for {
		switch e := expr.(type) {
		case *ast.StarExpr:
			expr = e.X
		case *ast.IndexExpr:
			expr = e.X
		case *ast.Ident:
			return e.IsExported()
		default:
			return false
		}
	}
}

func longFunctions(f file) (problems []string) {
	for _, decl := range f.syntax.Decls {
		if d, ok := decl.(*ast.FuncDecl); ok {
			if lines := f.line(d.End()) - f.line(d.Pos()) + 1; lines > maxFunctionLines {
				problems = append(problems, f.at(d.Pos(), "%s has %d lines, at most %d fit on a screen", d.Name.Name, lines, maxFunctionLines))
			}
		}
	}
	return problems
}

func longMains(f file) []string {
	if !strings.HasPrefix(f.pkg, "cmd/") || !strings.HasSuffix(f.name, "/main.go") {
		return nil
	}
	if lines := f.line(f.syntax.FileEnd); lines > maxMainLines {
		return []string{f.say("has %d lines, at most %d: the rest belongs to internal/app", lines, maxMainLines)}
	}
	return nil
}
