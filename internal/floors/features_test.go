package floors

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/leadingpeers/seckill/internal/cli"
)

// seedNames are the interfaces that the document this project started from
// lists, and how many rows each has at least: of StockOpt it names four verbs.
func seedNames() map[string]int {
	return map[string]int{
		"CreateActivity": 1, "UpdateActivity": 1, "ListActivity": 1, "DetailActivity": 1, "DelActivity": 1,
		"AddSeckillProduct": 1, "UpdateSeckillproduct": 1, "GetSeckillProducts": 1, "DetailSeckillProduct": 1, "DelSeckillProduct": 1,
		"StockOpt": 4, "PreLoadCache": 1, "Flush": 1,
	}
}

// operation is one of api/openapi.yaml that has a name in the seed.
type operation struct{ id, seedName string }

// feature is one row of a README's feature table.
type feature struct {
	seedName                          string
	operations, methods, lines, tests []string // what stands in backquotes in each cell
}

// features reads the rows whose first cell is a name in backquotes and whose
// second one is an operation.
func features(readme string) (rows []feature) {
	quoted := regexp.MustCompile("`([^`]+)`")
	for line := range strings.Lines(readme) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		if len(cells) != 5 || !strings.HasPrefix(cells[1], "`") || !strings.Contains(cells[1], " /v1/") {
			continue
		}
		var in [5][]string
		for i, cell := range cells {
			for _, match := range quoted.FindAllStringSubmatch(cell, -1) {
				in[i] = append(in[i], match[1])
			}
		}
		rows = append(rows, feature{strings.Join(in[0], " "), in[1], in[2], in[3], in[4]})
	}
	return rows
}

// contractOperations are the operations by method and path.
func contractOperations(t *testing.T) map[string]operation {
	t.Helper()
	var doc struct {
		Paths map[string]map[string]yaml.Node
	}
	if err := yaml.Unmarshal([]byte(text(t, "../../api/openapi.yaml")), &doc); err != nil {
		t.Fatal(err)
	}
	out := map[string]operation{}
	for path, methods := range doc.Paths {
		for method, node := range methods {
			var o struct {
				ID   string `yaml:"operationId"`
				Seed string `yaml:"x-seed-name"`
			}
			if method != "parameters" {
				if err := node.Decode(&o); err != nil {
					t.Fatalf("%s %s: %v", method, path, err)
				}
				out[strings.ToUpper(method)+" "+path] = operation{o.ID, o.Seed}
			}
		}
	}
	return out
}

// hasCommand reports whether the command line is one that runs something.
func hasCommand(line string) bool {
	root := &cobra.Command{Use: "seckill"}
	root.AddCommand(cli.Commands(os.Getenv, time.Now)...)
	words, ours := strings.CutPrefix(line, "seckill ")
	found, rest, err := root.Find(strings.Fields(words))
	return ours && err == nil && len(rest) == 0 && !found.HasSubCommands() && found.Runnable()
}

// featureProblems compares a table with what there is.
func featureProblems(t *testing.T, rows []feature, operations map[string]operation, client string) (problems []string) {
	t.Helper()
	say := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	count, shown := map[string]int{}, map[string]bool{}
	for _, row := range rows {
		count[row.seedName]++
		if len(row.operations) == 0 || len(row.lines) == 0 || len(row.tests) == 0 || len(row.tests)%2 != 0 {
			say("%s: a cell is empty: %+v", row.seedName, row)
		}
		var methods []string
		for _, o := range row.operations {
			shown[o] = true
			found, ok := operations[o]
			if !ok || found.seedName != row.seedName {
				say("%s: %s has the name %q in the contract", row.seedName, o, found.seedName)
			}
			methods = append(methods, found.id+"WithResponse")
		}
		if !slices.Equal(methods, row.methods) {
			say("%s: methods %v for the operations of %v", row.seedName, row.methods, methods)
		}
		for _, m := range row.methods {
			if !strings.Contains(client, "\nfunc (c *ClientWithResponses) "+m+"(") {
				say("%s: pkg/client has no method %s", row.seedName, m)
			}
		}
		for _, line := range row.lines {
			if !hasCommand(line) {
				say("%s: there is no command %q", row.seedName, line)
			}
		}
		for pair := range slices.Chunk(row.tests, 2) {
			if len(pair) == 2 && !hasTest(t, pair[0], pair[1]) {
				say("%s: %s has no test %s", row.seedName, pair[0], pair[1])
			}
		}
	}
	for name, least := range seedNames() {
		if count[name] < least {
			say("%s has %d rows, want %d", name, count[name], least)
		}
	}
	for _, o := range slices.Sorted(maps.Keys(operations)) {
		if operations[o].seedName != "" && !shown[o] {
			say("%s is %s of the seed and in no row", o, operations[o].seedName)
		}
	}
	return problems
}

// Each interface of the seed has its row in both READMEs, and what the row
// names is there: the operation, the method, the command and the test.
func TestFeatureTable(t *testing.T) {
	operations, client := contractOperations(t), text(t, "../../pkg/client/client.gen.go")
	english, chinese := features(text(t, "../../README.md")), features(text(t, "../../README.zh-CN.md"))
	for _, problem := range featureProblems(t, english, operations, client) {
		t.Error(problem)
	}
	if a, b := fmt.Sprintf("%+v", english), fmt.Sprintf("%+v", chinese); a != b {
		t.Errorf("the READMEs have different tables:\n%s\nagainst\n%s", a, b)
	}
}

func TestFeatureTableCanFail(t *testing.T) {
	operations, client := contractOperations(t), text(t, "../../pkg/client/client.gen.go")
	readme := text(t, "../../README.md")
	for _, tt := range []struct{ why, old, changed, want string }{
		{"no such operation", "`PATCH /v1/activities/{activity}`", "`PUT /v1/activities/{activity}`", "UpdateActivity: PUT"},
		{"the operation of another name", "| `DelActivity`", "| `Flush`", "DelActivity has 0 rows"},
		{"no such method", "`ListProductsWithResponse`", "`ListProductWithResponse`", "GetSeckillProducts: methods"},
		{"no such command", "`seckill cache flush`", "`seckill cache clear`", `no command "seckill cache clear"`},
		{"a group is no command", "`seckill product get`", "`seckill product`", `no command "seckill product"`},
		{"no such test", "`TestDeduct`", "`TestDeductOnce`", "has no test TestDeductOnce"},
		{"a verb is missing", "| `StockOpt` 扣除", "| StockOpt 扣除", ": POST"},
	} {
		changed := strings.ReplaceAll(readme, tt.old, tt.changed)
		if changed == readme {
			t.Errorf("%s: README.md does not have %q", tt.why, tt.old)
		}
		problems := strings.Join(featureProblems(t, features(changed), operations, client), "\n")
		if !strings.Contains(problems, tt.want) {
			t.Errorf("%s: found %q, want a problem that says %q", tt.why, problems, tt.want)
		}
	}
}
