// Package prometheus checks the rules where promtool does not: that each alert
// has its cases and its runbook, and that what it looks at is exported.
package prometheus

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

type rule struct {
	Alert, Record, Expr, For string
	Labels, Annotations      map[string]string
}

func rules(t *testing.T) []rule {
	t.Helper()
	var out []rule
	for _, name := range glob(t, "rules/*.yml") {
		var file struct{ Groups []struct{ Rules []rule } }
		read(t, name, &file)
		for _, g := range file.Groups {
			out = append(out, g.Rules...)
		}
	}
	return out
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil || len(names) == 0 {
		t.Fatalf("%s: %d files, %v", pattern, len(names), err)
	}
	return names
}

func read(t *testing.T, name string, into any) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err == nil {
		err = yaml.Unmarshal(text, into)
	}
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

func TestEveryAlertSaysWhatToDo(t *testing.T) {
	const runbooks = "../../docs/operating/runbooks/"
	var pages []string
	for _, r := range rules(t) {
		if r.Alert == "" {
			continue
		}
		if slices.Contains(pages, r.Alert+".md") {
			t.Errorf("%s is defined twice: each would fire", r.Alert)
		}
		pages = append(pages, r.Alert+".md")
		if !slices.Contains([]string{"critical", "warning"}, r.Labels["severity"]) {
			t.Errorf("%s: severity %q: want critical or warning", r.Alert, r.Labels["severity"])
		}
		if r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
			t.Errorf("%s lacks a summary or a description", r.Alert)
		}
		if !strings.HasSuffix(r.Annotations["runbook_url"], "/docs/operating/runbooks/"+r.Alert+".md") {
			t.Errorf("%s: runbook_url %q is not its page", r.Alert, r.Annotations["runbook_url"])
		}
		text, err := os.ReadFile(runbooks + r.Alert + ".md")
		if err != nil {
			t.Errorf("%s has no runbook: %v", r.Alert, err)
		}
		for _, section := range []string{"# " + r.Alert + "\n", "\n## What it means\n", "\n## Look\n", "\n## Fix\n", "```sh\n"} {
			if !strings.Contains(string(text), section) {
				t.Errorf("the runbook of %s lacks %q", r.Alert, section)
			}
		}
	}
	for _, name := range glob(t, runbooks+"Seckill*.md") {
		if !slices.Contains(pages, filepath.Base(name)) {
			t.Errorf("%s is the runbook of no alert", name)
		}
	}
}

// An alert that nothing makes fire, or that nothing keeps silent, is not tested.
func TestEveryAlertHasCasesOfBothKinds(t *testing.T) {
	fires, silent := map[string]bool{}, map[string]bool{}
	for _, name := range glob(t, "tests/*.yml") {
		var file struct {
			Tests []struct {
				AlertRuleTest []struct {
					Alertname string
					ExpAlerts []any `yaml:"exp_alerts"`
				} `yaml:"alert_rule_test"`
			}
		}
		read(t, name, &file)
		for _, test := range file.Tests {
			for _, c := range test.AlertRuleTest {
				if len(c.ExpAlerts) > 0 {
					fires[c.Alertname] = true
				} else {
					silent[c.Alertname] = true
				}
			}
		}
	}
	for _, r := range rules(t) {
		if r.Alert != "" && (!fires[r.Alert] || !silent[r.Alert]) {
			t.Errorf("%s: a case that fires: %t, one that does not: %t", r.Alert, fires[r.Alert], silent[r.Alert])
		}
	}
}

var (
	metricName   = regexp.MustCompile(`seckill_[a-z0-9_]+`)
	recordedName = regexp.MustCompile(`seckill:[a-z0-9_:]+`)
)

// A rule about a metric that was renamed never fires, and nobody notices.
func TestRulesLookAtWhatIsThere(t *testing.T) {
	reference, err := os.ReadFile("../../docs/reference/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	all := rules(t)
	recorded := map[string]bool{}
	for _, r := range all {
		recorded[r.Record] = true
	}
	for _, r := range all {
		for _, name := range metricName.FindAllString(r.Expr, -1) {
			base := name
			for _, part := range []string{"_bucket", "_count", "_sum"} {
				base = strings.TrimSuffix(base, part)
			}
			if !strings.Contains(string(reference), "| `"+name+"` |") && !strings.Contains(string(reference), "| `"+base+"` | histogram |") {
				t.Errorf("%s%s looks at %s, which no process exports", r.Alert, r.Record, name)
			}
		}
		for _, name := range recordedName.FindAllString(r.Expr, -1) {
			if !recorded[name] {
				t.Errorf("%s%s looks at %s, which no rule records", r.Alert, r.Record, name)
			}
		}
	}
}
