// Package figures holds what a measurement says, compares it with what was
// asked for, and shows it: as a table, as JSON, as one page of HTML.
package figures

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Figure is one result, measured several times. With a reference of the same
// repeats it is a ratio, and only ratios mean anything on another machine.
type Figure struct {
	Name      string    `json:"name"` // for --require: a-z, 0-9 and underscores
	What      string    `json:"what"` // in words
	Unit      string    `json:"unit"` // of both sides
	Against   string    `json:"against,omitempty"`
	Subject   []float64 `json:"subject"`
	Reference []float64 `json:"reference,omitempty"` // as many, or none: then the subject is the figure
	Goal      string    `json:"goal,omitempty"`      // such as ">=5"
}

// Add appends one repeat of a ratio.
func (f *Figure) Add(subject, reference float64) {
	f.Subject, f.Reference = append(f.Subject, subject), append(f.Reference, reference)
}

// Values are what counts, repeat by repeat, in ascending order: the ratios, or
// the subject's own values where there is no reference.
func (f Figure) Values() []float64 {
	out := slices.Clone(f.Subject)
	for i := range f.Reference {
		out[i] /= f.Reference[i]
	}
	slices.Sort(out)
	return out
}

// Value is the median of Values.
func (f Figure) Value() float64 { return Median(f.Values()) }

// Median is the middle of v, the higher one of two; 0 of nothing.
func Median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}

// Chart is some curves over one another.
type Chart struct {
	Title string `json:"title"`
	X     string `json:"x"`
	Y     string `json:"y"`
	LogY  bool   `json:"log_y,omitempty"`
	Lines []Line `json:"lines"`
}

// Line is one curve of a chart.
type Line struct {
	Name   string  `json:"name"`
	Points []Point `json:"points"`
}

// Point is one point of a curve.
type Point struct {
	X float64 `json:"x"`
	Y float64 `json:"y"`
}

// Table is further numbers, for reading.
type Table struct {
	Title   string     `json:"title"`
	Columns []string   `json:"columns"`
	Rows    [][]string `json:"rows"`
}

// Section is what one set-up has measured.
type Section struct {
	Name    string   `json:"name"`
	What    string   `json:"what"`
	Figures []Figure `json:"figures"`
	Tables  []Table  `json:"tables,omitempty"`
	Charts  []Chart  `json:"charts,omitempty"`
	Notes   []string `json:"notes,omitempty"`
}

// Setting is one line of what the figures were measured with.
type Setting struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Report is everything of one run.
type Report struct {
	At       string    `json:"at"` // RFC 3339
	Settings []Setting `json:"settings"`
	Sections []Section `json:"sections"`
}

// Figures are those of all sections.
func (r Report) Figures() []Figure {
	var out []Figure
	for _, s := range r.Sections {
		out = append(out, s.Figures...)
	}
	return out
}

// Requirement is what a figure must be.
type Requirement struct {
	Name  string
	Least bool // the value is the least allowed, else the most
	Value float64
}

// ParseRequirement reads "name>=value" or "name<=value".
func ParseRequirement(text string) (Requirement, error) {
	for _, sign := range []string{">=", "<="} {
		if name, value, found := strings.Cut(text, sign); found {
			v, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err == nil && strings.TrimSpace(name) != "" {
				return Requirement{strings.TrimSpace(name), sign == ">=", v}, nil
			}
		}
	}
	return Requirement{}, fmt.Errorf("requirement %q: want name>=value or name<=value, such as engine_rate>=5", text)
}

// Goals are the figures' own goals as requirements.
func Goals(figures []Figure) ([]Requirement, error) {
	var out []Requirement
	for _, f := range figures {
		if f.Goal == "" {
			continue
		}
		r, err := ParseRequirement(f.Name + f.Goal)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

// Check returns an error that names every requirement which is missed, or
// whose figure was not measured.
func Check(figures []Figure, want []Requirement) error {
	var errs []error
	for _, w := range want {
		i := slices.IndexFunc(figures, func(f Figure) bool { return f.Name == w.Name })
		if i < 0 {
			errs = append(errs, fmt.Errorf("%s was required and not measured; measured were: %s", w.Name, names(figures)))
			continue
		}
		if v := figures[i].Value(); !w.met(v) {
			errs = append(errs, fmt.Errorf("%s is %s, required %s %s", w.Name, number(v), w.sign(), number(w.Value)))
		}
	}
	return errors.Join(errs...)
}

// met is false also for what is no number: a broken measurement meets nothing.
func (r Requirement) met(v float64) bool {
	if r.Least {
		return v >= r.Value
	}
	return v <= r.Value
}

func (r Requirement) sign() string {
	if r.Least {
		return ">="
	}
	return "<="
}

func names(figures []Figure) string {
	out := make([]string, len(figures))
	for i, f := range figures {
		out[i] = f.Name
	}
	return strings.Join(out, ", ")
}

// Verdict is "met" or "missed" for a figure with a goal, else empty.
func (f Figure) Verdict() string {
	r, err := ParseRequirement(f.Name + f.Goal)
	switch {
	case f.Goal == "" || err != nil:
		return ""
	case r.met(f.Value()):
		return "met"
	}
	return "missed"
}
