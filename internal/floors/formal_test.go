package floors

import (
	"go/ast"
	"io/fs"
	"os"
	"path"
	"regexp"
	"strings"
	"testing"
)

// The table of formal/README.md names what each step of the model is. A name
// that is gone from the code means that the model is of something else.
func TestTheModelIsOfThisCode(t *testing.T) {
	root := os.DirFS("../..")
	text, err := fs.ReadFile(root, "formal/README.md")
	if err != nil {
		t.Fatal(err)
	}
	house := read(t, root)
	named := regexp.MustCompile("`((?:lua|pkg|internal)/[^`:]+)(?:: ([^`]+))?`").FindAllStringSubmatch(string(text), -1)
	functions := 0
	for _, m := range named {
		name, function := m[1], m[2]
		if _, err := fs.Stat(root, name); err != nil {
			t.Errorf("formal/README.md names %s, which is not there", name)
		}
		if function == "" {
			continue
		}
		functions++
		if !declares(house, name, function) {
			t.Errorf("formal/README.md names %s: %s; there is no such function", name, function)
		}
	}
	if functions < 25 {
		t.Errorf("formal/README.md names %d functions, want the whole table", functions)
	}
	mutants, err := fs.Glob(root, "formal/mutants/*.patch")
	if err != nil || len(mutants) < 14 {
		t.Errorf("%d mutants of the model, %v; want 14 or more", len(mutants), err)
	}
	for _, m := range mutants {
		if name := strings.TrimSuffix(path.Base(m), ".patch"); !strings.Contains(string(text), "- `"+name+"`: ") {
			t.Errorf("formal/README.md does not list the mutant %s", name)
		}
	}
}

// declares reports whether a file has a function or method of that name.
func declares(h house, name, function string) bool {
	for _, f := range h.files {
		if f.name != name {
			continue
		}
		for _, decl := range f.syntax.Decls {
			if d, ok := decl.(*ast.FuncDecl); ok && d.Name.Name == function {
				return true
			}
		}
	}
	return false
}
