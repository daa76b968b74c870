package figures

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
)

func report() Report {
	return Report{
		At: "2026-01-02T03:04:05Z", Settings: []Setting{{"machine", "a <fast> one"}},
		Sections: []Section{{
			Name: "engine", What: "What it is",
			Figures: []Figure{
				{Name: "engine_rate", What: "speed", Unit: "/s", Against: "slow", Subject: []float64{30, 10, 20}, Reference: []float64{10, 10, 10}, Goal: ">=2.5"},
				{Name: "engine_bytes", What: "memory", Unit: "bytes", Subject: []float64{120}, Goal: "<=130"},
			},
			Tables: []Table{{Title: "Costs", Columns: []string{"where", "µs"}, Rows: [][]string{{"Redis", "1.5"}}}},
			Charts: []Chart{{Title: "Latency", X: "percentile", Y: "ms", LogY: true, Lines: []Line{{"ours", []Point{{0, 0.5}, {50, 1}, {100, 90}}}}}},
			Notes:  []string{"a note"},
		}},
	}
}

func TestValue(t *testing.T) {
	f := report().Figures()
	if f[0].Value() != 2 || f[1].Value() != 120 {
		t.Errorf("got %v and %v, want the median ratio 2, and 120", f[0].Value(), f[1].Value())
	}
	if f[0].Verdict() != "missed" || f[1].Verdict() != "met" {
		t.Errorf("verdicts %q and %q", f[0].Verdict(), f[1].Verdict())
	}
}

func TestRequirements(t *testing.T) {
	nan := Figure{Name: "nan", Subject: []float64{math.NaN()}}
	for _, c := range []struct {
		why, text string
		want      string // part of the error; empty = met
	}{
		{"at least, met exactly", "engine_rate>=2", ""},
		{"at least, missed", "engine_rate>=2.1", "engine_rate is 2, required >= 2.1"},
		{"at most, met", "engine_bytes <= 130", ""},
		{"at most, missed", "engine_bytes<=100", "engine_bytes is 120, required <= 100"},
		{"a figure that was not measured proves nothing", "gateway_rate>=1", "gateway_rate was required and not measured"},
		{"no number meets nothing", "nan>=0", "nan is NaN"},
		{"nor this way", "nan<=0", "nan is NaN"},
	} {
		t.Run(c.why, func(t *testing.T) {
			r, err := ParseRequirement(c.text)
			if err != nil {
				t.Fatal(err)
			}
			err = Check(append(report().Figures(), nan), []Requirement{r})
			if (err == nil) != (c.want == "") || (err != nil && !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	for _, bad := range []string{"", "engine_rate", ">=5", "engine_rate>5", "engine_rate>=fast"} {
		if _, err := ParseRequirement(bad); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

func TestGoals(t *testing.T) {
	goals, err := Goals(report().Figures())
	if err != nil || len(goals) != 2 {
		t.Fatalf("got %v, %v", goals, err)
	}
	if err := Check(report().Figures(), goals); err == nil || !strings.Contains(err.Error(), "engine_rate is 2, required >= 2.5") || strings.Contains(err.Error(), "bytes") {
		t.Errorf("got %v, want the rate alone", err)
	}
}

func TestText(t *testing.T) {
	var out bytes.Buffer
	if err := report().Text(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"a <fast> one", "engine_rate", ">=2.5  missed", "<=130     met", "against slow", "Redis", "a note"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
}

func TestJSON(t *testing.T) {
	var out bytes.Buffer
	if err := report().JSON(&out); err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal(out.Bytes(), &back); err != nil || back.Sections[0].Figures[0].Value() != 2 {
		t.Errorf("got %+v, %v", back, err)
	}
}

// The page is well formed, needs nothing from elsewhere, and shows what it has.
func TestHTML(t *testing.T) {
	var out bytes.Buffer
	if err := report().HTML(&out); err != nil {
		t.Fatal(err)
	}
	page := out.String()
	for _, want := range []string{"a &lt;fast&gt; one", `<td class="missed">`, `points="60,`, "Costs", "ours"} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is not in the page", want)
		}
	}
	for _, bad := range []string{"src=", "http://", "https://", "<script", "NaN", "ZgotmplZ"} {
		if strings.Contains(page, bad) {
			t.Errorf("%q is in the page", bad)
		}
	}
	start, end := strings.Index(page, "<svg"), strings.Index(page, "</svg>")+len("</svg>")
	dec := xml.NewDecoder(strings.NewReader(page[start:end]))
	for {
		if _, err := dec.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("the picture is not well formed: %v", err)
		}
	}
}

func TestPlotHasRoomForOnePointAndForNone(t *testing.T) {
	for _, lines := range [][]Line{nil, {{Name: "one", Points: []Point{{3, 0}}}}} {
		for _, logY := range []bool{false, true} {
			p := plot(Chart{LogY: logY, Lines: lines})
			for _, tick := range append(p.XTicks, p.YTicks...) {
				if math.IsNaN(tick.At) || math.IsInf(tick.At, 0) {
					t.Errorf("a tick at %v with %d lines", tick.At, len(lines))
				}
			}
		}
	}
}
