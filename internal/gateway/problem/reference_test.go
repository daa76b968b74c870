package problem

import (
	"flag"
	"os"
	"testing"
)

var update = flag.Bool("update", false, "write docs/reference/errors.md")

func TestReference(t *testing.T) {
	const path = "../../../docs/reference/errors.md"
	if *update {
		if err := os.WriteFile(path, []byte(Reference()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil || string(text) != Reference() {
		t.Errorf("%s is not what the table says (%v): run go generate ./internal/gateway/problem", path, err)
	}
	zh := chinese()
	for _, k := range Kinds() {
		if zh[k.Code] == "" {
			t.Errorf("%s has no Chinese", k.Code)
		}
		delete(zh, k.Code)
	}
	for code := range zh {
		t.Errorf("%s has Chinese and is no code", code)
	}
}
