package cli

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"go.yaml.in/yaml/v3"
)

// view says how an answer is shown as a table or as CSV.
type view struct {
	rows    string   // the member that holds the list; empty = the answer is one thing
	columns []string // members to show, by name; none = all
}

// show writes body, which is JSON, in the format. The members keep the order
// that they came in.
func show(w io.Writer, format string, v view, body []byte) error {
	var doc yaml.Node // JSON is YAML, and a node keeps the order
	if err := yaml.Unmarshal(body, &doc); err != nil || len(doc.Content) != 1 {
		return fmt.Errorf("the gateway's answer is not JSON: %.200s", body)
	}
	root := doc.Content[0]
	switch format {
	case "json":
		var out strings.Builder
		encoder := json.NewEncoder(&out)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(json.RawMessage(body)); err != nil {
			return err
		}
		_, err := io.WriteString(w, out.String())
		return err
	case "yaml":
		plain(root)
		encoder := yaml.NewEncoder(w)
		encoder.SetIndent(2)
		return encoder.Encode(root)
	}
	rows := []*yaml.Node{root}
	if v.rows != "" {
		rows = member(root, v.rows).Content
	}
	switch {
	case format == "csv":
		return asCSV(w, v, rows)
	case v.rows == "":
		return asCard(w, root)
	default:
		return asTable(w, v, rows)
	}
}

// showField writes one member of the answer, or of each row of a list.
func showField(w io.Writer, name string, v view, body []byte) error {
	var doc yaml.Node
	if err := yaml.Unmarshal(body, &doc); err != nil || len(doc.Content) != 1 {
		return fmt.Errorf("the gateway's answer is not JSON: %.200s", body)
	}
	rows := []*yaml.Node{doc.Content[0]}
	if v.rows != "" {
		rows = member(rows[0], v.rows).Content
	}
	for _, row := range rows {
		value := member(row, name)
		if value.Kind == 0 && v.rows == "" {
			return &failure{
				what: "cannot show the member " + strconv.Quote(name), cause: "the answer has only " + strings.Join(columnsOf(view{}, rows), ", "),
				fix: "choose one of these; some are there only in some states", status: ExitFailed,
			}
		}
		if _, err := fmt.Fprintln(w, text(value)); err != nil {
			return err
		}
	}
	return nil
}

// plain takes JSON's brackets and quotes off, down to the leaves.
func plain(n *yaml.Node) {
	n.Style = 0
	for _, c := range n.Content {
		plain(c)
	}
}

// member finds a value of an object by name; an empty node when it has none.
func member(n *yaml.Node, name string) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i+1]
		}
	}
	return &yaml.Node{}
}

// text is a value in one cell.
func text(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null":
		return ""
	case n.Kind == yaml.SequenceNode:
		var items []string
		for _, c := range n.Content {
			items = append(items, text(c))
		}
		return strings.Join(items, " ")
	case n.Kind == yaml.MappingNode:
		var items []string
		for i := 0; i+1 < len(n.Content); i += 2 {
			items = append(items, n.Content[i].Value+"="+text(n.Content[i+1]))
		}
		return strings.Join(items, " ")
	}
	return n.Value
}

// columnsOf are the names that a view shows of the rows.
func columnsOf(v view, rows []*yaml.Node) []string {
	if len(v.columns) > 0 || len(rows) == 0 {
		return v.columns
	}
	var names []string
	for i := 0; i+1 < len(rows[0].Content); i += 2 {
		names = append(names, rows[0].Content[i].Value)
	}
	return names
}

func asCSV(w io.Writer, v view, rows []*yaml.Node) error {
	columns := columnsOf(v, rows)
	out := csv.NewWriter(w)
	lines := [][]string{columns}
	for _, row := range rows {
		var cells []string
		for _, name := range columns {
			cells = append(cells, text(member(row, name)))
		}
		lines = append(lines, cells)
	}
	return out.WriteAll(lines)
}

func asTable(w io.Writer, v view, rows []*yaml.Node) error {
	columns := columnsOf(v, rows)
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(out, strings.ToUpper(strings.Join(columns, "\t"))) // Flush tells of errors
	for _, row := range rows {
		var cells []string
		for _, name := range columns {
			cells = append(cells, text(member(row, name)))
		}
		_, _ = fmt.Fprintln(out, strings.Join(cells, "\t"))
	}
	return out.Flush()
}

// asCard shows one thing, a member a line: first what it is and how it stands.
func asCard(w io.Writer, n *yaml.Node) error {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	names := columnsOf(view{}, []*yaml.Node{n})
	leading := []string{"id", "reservation_id", "product_id", "name", "state"}
	slices.SortStableFunc(names, func(a, b string) int { return place(leading, a) - place(leading, b) })
	for _, name := range names {
		_, _ = fmt.Fprintf(out, "%s\t%s\n", name, text(member(n, name))) // Flush tells of errors
	}
	return out.Flush()
}

// place is where name stands among the leading ones, or behind them.
func place(leading []string, name string) int {
	if i := slices.Index(leading, name); i >= 0 {
		return i
	}
	return len(leading)
}
