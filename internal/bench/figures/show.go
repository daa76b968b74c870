package figures

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"math"
	"strings"
	"text/tabwriter"
)

// Text prints the report as tables.
func (r Report) Text(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, s := range r.Settings {
		_, _ = fmt.Fprintf(tw, "%s\t%s\n", s.Name, s.Value)
	}
	_, _ = fmt.Fprintln(tw)
	_ = tw.Flush()
	tw = tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(tw, "figure\tours\treference\tunit\tvalue\tmin\tmax\tgoal\t\t")
	for _, f := range r.Figures() {
		v := f.Values()
		reference := "-"
		if len(f.Reference) > 0 {
			reference = number(Median(f.Reference))
		}
		_, _ = fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", f.Name, number(Median(f.Subject)), reference, f.Unit, number(f.Value()), number(v[0]), number(v[len(v)-1]), f.Goal, f.Verdict())
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for _, s := range r.Sections {
		for _, f := range s.Figures {
			_, _ = fmt.Fprintf(w, "\n%s: %s%s", f.Name, f.What, against(f))
		}
		for _, note := range s.Notes {
			_, _ = fmt.Fprintf(w, "\n%s: %s", s.Name, note)
		}
	}
	_, _ = fmt.Fprintln(w)
	for _, s := range r.Sections {
		for _, t := range s.Tables {
			if err := t.text(w); err != nil {
				return err
			}
		}
	}
	return nil
}

func against(f Figure) string {
	if f.Against == "" {
		return ""
	}
	return ", against " + f.Against
}

func (t Table) text(w io.Writer) error {
	_, _ = fmt.Fprintf(w, "\n%s\n", t.Title)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, row := range append([][]string{t.Columns}, t.Rows...) {
		_, _ = fmt.Fprintln(tw, strings.Join(row, "\t")+"\t")
	}
	return tw.Flush()
}

// JSON prints the report as one object.
func (r Report) JSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}

// number prints n with three digits that count.
func number(n float64) string {
	switch {
	case n >= 1e6:
		return fmt.Sprintf("%.2f M", n/1e6)
	case n >= 1e4:
		return fmt.Sprintf("%.1f k", n/1e3)
	case n >= 1e3:
		return fmt.Sprintf("%.0f", n)
	}
	return fmt.Sprintf("%.3g", n)
}

//go:embed report.html.tmpl
var pageText string

// HTML prints the report as one page that needs nothing else.
func (r Report) HTML(w io.Writer) error {
	page, err := template.New("report").Funcs(template.FuncMap{
		"number": number, "median": Median, "bar": bar, "plot": plot,
		"first": func(v []float64) float64 { return v[0] },
		"last":  func(v []float64) float64 { return v[len(v)-1] },
	}).Parse(pageText)
	if err != nil {
		return err
	}
	return page.Execute(w, r)
}

// Bar is where a figure's bar, its spread and its goal lie, in percent of the
// width.
type Bar struct{ Value, Low, Spread, Goal float64 }

func bar(f Figure) Bar {
	v := f.Values()
	r, _ := ParseRequirement(f.Name + f.Goal) // without a goal its value is 0, which is not drawn
	most := max(v[len(v)-1], r.Value) * 1.1
	if most <= 0 || math.IsNaN(most) || math.IsInf(most, 0) {
		return Bar{}
	}
	at := func(x float64) float64 { return math.Round(x/most*1000) / 10 }
	return Bar{Value: at(f.Value()), Low: at(v[0]), Spread: at(v[len(v)-1]) - at(v[0]), Goal: at(r.Value)}
}
