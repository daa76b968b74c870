// Package grafana checks the dashboards by the rules of Grafana's
// dashboard-linter, which is not to be had as a Go module, and a few of our own.
// internal/e2e runs every query against a real Prometheus.
package grafana

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

type link struct {
	Type, URL   string
	Tags        []string
	IncludeVars bool
	KeepTime    bool
}

type board struct {
	UID, Title, Description string
	Tags                    []string
	Editable                bool
	Links                   []link
	Templating              struct {
		List []struct {
			Name, Label, Type, Definition string
			Refresh                       int
			IncludeAll, Multi             bool
			AllValue                      string
			Datasource                    struct{ UID string }
		}
	}
	Panels []panel
}

type panel struct {
	Type, Title, Description string
	Datasource               struct{ UID string }
	Links                    []link
	FieldConfig              struct{ Defaults struct{ Unit string } }
	Targets                  []struct{ Expr string }
	GridPos                  struct{ X, Y, W, H int }
}

const runbooks = "/docs/operating/runbooks/"

func TestDashboards(t *testing.T) {
	names, err := filepath.Glob("dashboards/*.json")
	if err != nil || len(names) != 4 {
		t.Fatalf("%d dashboards, %v: want Sale, Consumer lag, Pipeline and stores, SLO", len(names), err)
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			var b board
			if err := json.Unmarshal(text, &b); err != nil {
				t.Fatal(err)
			}
			for _, problem := range lint(b, filepath.Base(name)) {
				t.Error(problem)
			}
		})
	}
}

func lint(b board, name string) (problems []string) {
	bad := func(parts ...string) { problems = append(problems, strings.Join(parts, ": ")) }
	if b.UID+".json" != name || b.Title == "" || b.Description == "" || b.Editable || !slices.Contains(b.Tags, "seckill") {
		bad("want the file's name as uid, a title, a description, the tag seckill, editable false")
	}
	if !slices.ContainsFunc(b.Links, func(l link) bool {
		return l.Type == "dashboards" && l.IncludeVars && l.KeepTime && slices.Contains(l.Tags, "seckill")
	}) {
		bad("no links to the other boards that keep variables and time")
	}
	problems = append(problems, lintVariables(b)...)
	for i, p := range b.Panels {
		if p.Type == "row" {
			continue
		}
		if p.Title == "" || p.Description == "" || p.FieldConfig.Defaults.Unit == "" || p.Datasource.UID != "${datasource}" || len(p.Targets) == 0 {
			bad(p.Title, "want a title, a description, a unit, the variable's data source, a query")
		}
		for _, l := range p.Links {
			_, page, ours := strings.Cut(l.URL, runbooks)
			if _, err := os.Stat("../.." + runbooks + page); !ours || err != nil {
				bad(p.Title, "links to "+l.URL+", which is no runbook")
			}
		}
		for _, target := range p.Targets {
			for _, problem := range lintQuery(target.Expr) {
				bad(p.Title, target.Expr, problem)
			}
		}
		for _, other := range b.Panels[:i] {
			if a, o := p.GridPos, other.GridPos; a.X < o.X+o.W && o.X < a.X+a.W && a.Y < o.Y+o.H && o.Y < a.Y+a.H {
				bad(p.Title, "lies over "+other.Title)
			}
		}
	}
	return problems
}

func lintVariables(b board) (problems []string) {
	want := map[string]string{"datasource": "Data source", "job": "Job", "instance": "Instance"}
	for _, v := range b.Templating.List {
		if label, ok := want[v.Name]; ok && v.Label != label {
			problems = append(problems, "variable "+v.Name+" is called "+v.Label+", want "+label)
		}
		delete(want, v.Name)
		if v.Type == "query" && (v.Refresh != 2 || !v.IncludeAll || !v.Multi || v.AllValue != ".+" || v.Datasource.UID != "${datasource}") {
			problems = append(problems, "variable "+v.Name+": want it read again when the time changes (refresh 2), all, several, .+ for all, the variable's data source")
		}
	}
	for name := range want {
		problems = append(problems, "no variable "+name)
	}
	return problems
}

var (
	selector = regexp.MustCompile(`([a-zA-Z_:][a-zA-Z0-9_:]*)\{([^}]*)\}(\[[^\]]*\])?`)
	counter  = regexp.MustCompile(`_(total|count|sum|bucket)$`)
	bare     = regexp.MustCompile(`(^|[^a-zA-Z0-9_:{"])(seckill_[a-z0-9_]+)([^a-z0-9_{]|$)`)
)

func lintQuery(expr string) (problems []string) {
	for _, m := range selector.FindAllStringSubmatchIndex(expr, -1) {
		name, matchers := expr[m[2]:m[3]], expr[m[4]:m[5]]
		window := ""
		if m[6] >= 0 {
			window = expr[m[6]:m[7]]
		}
		if name == "ALERTS" || strings.Contains(name, ":") {
			continue // recorded over all processes: there is no instance to choose
		}
		if !strings.Contains(matchers, `job=~"$job"`) || !strings.Contains(matchers, `instance=~"$instance"`) {
			problems = append(problems, name+" without job and instance")
		}
		before := expr[:m[0]]
		switch inRate, inIncrease := strings.HasSuffix(before, "rate("), strings.HasSuffix(before, "increase("); {
		case counter.MatchString(name) && !inRate && !inIncrease:
			problems = append(problems, name+" counts and is not in a rate or an increase")
		case inRate && window != "[$__rate_interval]", inIncrease && window != "[$__range]":
			problems = append(problems, name+window+": want [$__rate_interval] in a rate, [$__range] in an increase")
		}
	}
	for _, m := range bare.FindAllStringSubmatch(expr, -1) {
		problems = append(problems, m[2]+" without job and instance")
	}
	return problems
}

// A check that cannot fail guards nothing.
func TestTheLinterFinds(t *testing.T) {
	for _, c := range []struct{ expr, want string }{
		{`rate(seckill_x_total{job=~"$job"}[$__rate_interval])`, "without job and instance"},
		{`max(seckill_x)`, "without job and instance"},
		{`sum(seckill_x_total{job=~"$job",instance=~"$instance"})`, "is not in a rate"},
		{`rate(seckill_x_total{job=~"$job",instance=~"$instance"}[5m])`, "want [$__rate_interval]"},
		{`increase(seckill_x_total{job=~"$job",instance=~"$instance"}[1h])`, "want [$__rate_interval] in a rate, [$__range]"},
	} {
		if got := strings.Join(lintQuery(c.expr), "; "); !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", c.expr, got, c.want)
		}
	}
	if got := lintQuery(`sum by (x) (rate(seckill_x_total{job=~"$job",instance=~"$instance",a="b"}[$__rate_interval])) / seckill:y:sum`); got != nil {
		t.Errorf("a good query: %q", got)
	}
	if got := lint(board{UID: "a", Editable: true}, "b.json"); len(got) < 5 {
		t.Errorf("an empty board: only %q", got)
	}
}
