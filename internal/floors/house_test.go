package floors

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

// house is every Go file of the module that is neither a test nor generated.
type house struct{ files []file }

type file struct {
	name    string // from the root, with slashes
	pkg     string // its folder
	imports []string
	syntax  *ast.File
	set     *token.FileSet
}

func (f file) line(pos token.Pos) int { return f.set.PositionFor(pos, false).Line }

func (f file) say(format string, args ...any) string {
	return f.name + ": " + fmt.Sprintf(format, args...)
}

func (f file) at(pos token.Pos, format string, args ...any) string {
	return fmt.Sprintf("%s:%d: ", f.name, f.line(pos)) + fmt.Sprintf(format, args...)
}

// read parses the files itself, and does not ask `go list`, so that the test
// cache sees when one of them changes.
func read(t *testing.T, root fs.FS) house {
	t.Helper()
	var h house
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && name != "." {
			// Other modules, and what the go command ignores as well.
			if _, err := fs.Stat(root, path.Join(name, "go.mod")); err == nil || strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "node_modules" {
				return fs.SkipDir
			}
		}
		if d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		src, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		f := file{name: name, pkg: path.Dir(name), set: token.NewFileSet()}
		if f.syntax, err = parser.ParseFile(f.set, name, src, parser.ParseComments|parser.SkipObjectResolution); err != nil {
			return err
		}
		for _, spec := range f.syntax.Imports {
			full, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			f.imports = append(f.imports, full)
		}
		h.files = append(h.files, f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(h.files) == 0 {
		t.Fatal("read no file")
	}
	return h
}

func eachFile(h house, check func(file) []string) (problems []string) {
	for _, f := range h.files {
		if !ast.IsGenerated(f.syntax) {
			problems = append(problems, check(f)...)
		}
	}
	return problems
}

// A check that cannot fail guards nothing.
func TestTheChecksCanFail(t *testing.T) {
	const standIn = `package p; import _ "` + module + `internal/embedded"`
	for _, c := range []struct{ check, why, name, src, want string }{
		{"imports go down", "upwards", "pkg/stock/a.go", `package p; import _ "` + module + `internal/app"`, "imports internal/app"},
		{"imports go down", "a neighbour", "pkg/stock/a.go", `package p; import _ "` + module + `pkg/order"`, "imports pkg/order"},
		{"imports go down", "another room of the same floor", "internal/gateway/a.go", `package p; import _ "` + module + `internal/stockworker"`, "imports internal/stockworker"},
		{"every package has a floor", "a new package", "pkg/common/a.go", "package p", "pkg/common has no floor"},
		{"every package has a floor", "a package that is gone", "lua/a.go", "package p", "pkg/order has a floor and no file"},
		{"libraries stay in fences", "a library outside its fence", "internal/gateway/a.go", `package p; import _ "github.com/segmentio/kafka-go"`, "delivery is decided"},
		{"libraries stay in fences", "a package of that library", "internal/app/a.go", `package p; import _ "github.com/twmb/franz-go/pkg/kfake"`, "a stand-in"},
		{"libraries stay in fences", "a room of somebody else's house", "internal/stockworker/a.go", `package p; import _ "` + module + `internal/gateway/web"`, "the rooms of one house"},
		{"production links no stand-in", "directly", "cmd/gateway/a.go", standIn, "cmd/gateway -> internal/embedded"},
		{"examples use what is public", "a room of ours", "examples/checkout/a.go", `package p; import _ "` + module + `internal/app"`, "imports " + module + "internal/app"},
		{"examples use what is public", "another library", "examples/checkout/a.go", `package p; import _ "github.com/segmentio/kafka-go"`, "imports github.com/segmentio"},
		{"exported names are documented", "a function without a comment", "pkg/stock/a.go", "package p\n\nfunc Do() {}\n", "pkg/stock/a.go:3: Do has"},
		{"exported names are documented", "a method that is called otherwise in its comment", "pkg/stock/a.go", "package p\n\n// It does.\nfunc (c *Cache) Do() {}\n", "Do has"},
		{"exported names are documented", "a constant without a comment", "pkg/stock/a.go", "package p\n\nconst Limit = 1\n", "Limit has no comment"},
		{"exported names are documented", "a type without a comment", "pkg/stock/a.go", "package p\n\ntype Cache struct{}\n", "type Cache has"},
		{"functions are short", "71 lines", "pkg/stock/a.go", "package p\n\nfunc do() {" + strings.Repeat("\n", 70) + "}\n", "do has 71 lines"},
		{"mains are short", "41 lines", "cmd/gateway/main.go", "package p\n" + strings.Repeat("//\n", 40), "has 41 lines"},
	} {
		t.Run(c.check+": "+c.why, func(t *testing.T) {
			problems := checks()[c.check](read(t, fstest.MapFS{c.name: {Data: []byte(c.src)}}))
			if !strings.Contains(strings.Join(problems, "\n"), c.want) {
				t.Errorf("found %q, want a problem that says %q", problems, c.want)
			}
		})
	}
}

func TestAStandInIsFoundHoweverFarDown(t *testing.T) {
	problems := productionLinksNoStandIn(read(t, fstest.MapFS{
		"cmd/settle-worker/main.go": {Data: []byte(`package p; import _ "` + module + `internal/app"`)},
		"internal/app/a.go":         {Data: []byte(`package p; import _ "` + module + `pkg/stock"`)},
		"pkg/stock/a.go":            {Data: []byte(`package p; import _ "` + module + `internal/embedded"`)},
	}))
	const want = "cmd/settle-worker -> internal/app -> pkg/stock -> internal/embedded"
	if len(problems) != 1 || !strings.HasPrefix(problems[0], want) {
		t.Errorf("found %q, want %q", problems, want)
	}
}

func TestTheChecksCanPass(t *testing.T) {
	src := "package p\n\n// Do does.\nfunc Do() {}\n\n// Limits.\nconst (\n\tA = 1\n\tB = 2 // also\n)\n\nfunc (c *hidden) Do() {" + strings.Repeat("\n", 69) + "}\n"
	h := read(t, fstest.MapFS{"pkg/stock/a.go": {Data: []byte(src)}, "cmd/gateway/main.go": {Data: []byte("package p\n" + strings.Repeat("//\n", 39))}})
	for name, check := range checks() {
		if problems := check(h); name != "every package has a floor" && len(problems) > 0 {
			t.Errorf("%s: %q, want none", name, problems)
		}
	}
}
