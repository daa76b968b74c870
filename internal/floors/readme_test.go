package floors

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Both READMEs name the test behind each promise, run the same commands and
// point at files that are there.
func TestReadmes(t *testing.T) {
	english, chinese := text(t, "../../README.md"), text(t, "../../README.zh-CN.md")
	proof := regexp.MustCompile("`((?:internal|pkg)/[a-z0-9/]+)` `(Test[A-Za-z0-9]+)`")
	link := regexp.MustCompile(`\]\(([^)#:]+)\)`)
	for name, readme := range map[string]string{"README.md": english, "README.zh-CN.md": chinese} {
		proofs := proof.FindAllStringSubmatch(readme, -1)
		if len(proofs) < 8 {
			t.Errorf("%s names %d tests behind its promises, want one for each", name, len(proofs))
		}
		for _, p := range proofs {
			if !hasTest(t, p[1], p[2]) {
				t.Errorf("%s promises what %s in %s proves, and there is no such test", name, p[2], p[1])
			}
		}
		for _, l := range link.FindAllStringSubmatch(readme, -1) {
			if _, err := os.Stat(filepath.Join("../..", l[1])); err != nil {
				t.Errorf("%s links to %s: %v", name, l[1], err)
			}
		}
	}
	if a, b := commands(english), commands(chinese); a != b {
		t.Errorf("the READMEs run different commands:\n%s\nagainst\n%s", a, b)
	}
}

func text(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func hasTest(t *testing.T, dir, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("../..", dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if strings.Contains(text(t, f), "\nfunc "+name+"(t *testing.T)") {
			return true
		}
	}
	return false
}

// commands are the shell lines of a README without their comments.
func commands(readme string) string {
	var out strings.Builder
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(readme, -1) {
		for line := range strings.Lines(block[1]) {
			command, _, _ := strings.Cut(line, "#")
			out.WriteString(strings.TrimSpace(command) + "\n")
		}
	}
	return out.String()
}
