package figures

import (
	"math"
	"strconv"
	"strings"
)

// The plot's size and the room for the axes, in SVG units.
const (
	plotWidth, plotHeight = 640.0, 260.0
	plotLeft, plotBottom  = 60.0, 30.0
	plotTop, plotRight    = 10.0, 10.0
	ticks                 = 5
)

// Plot is a chart in the coordinates of its picture.
type Plot struct {
	Width, Height, Left, Floor float64
	Lines                      []PlotLine
	XTicks, YTicks             []Tick
}

// PlotLine is one polyline.
type PlotLine struct {
	Name, Points string
	Class        int // which colour
}

// Tick is one mark of an axis.
type Tick struct {
	At   float64
	Text string
}

// axis maps values to places.
type axis struct {
	low, high, from, to float64
	log                 bool
}

func (a axis) at(v float64) float64 {
	low, high := a.low, a.high
	if a.log {
		v, low, high = math.Log10(max(v, a.low)), math.Log10(low), math.Log10(high)
	}
	return math.Round((a.from+(v-low)/(high-low)*(a.to-a.from))*10) / 10
}

func (a axis) ticks() []Tick {
	var out []Tick
	if a.log {
		for v := a.low; v <= a.high*1.001; v *= 10 {
			out = append(out, Tick{a.at(v), number(v)})
		}
		return out
	}
	for i := range ticks + 1 {
		v := a.low + (a.high-a.low)*float64(i)/ticks
		out = append(out, Tick{a.at(v), number(v)})
	}
	return out
}

// plot lays a chart out.
func plot(c Chart) Plot {
	x, y := c.axes()
	out := Plot{
		Width: plotWidth, Height: plotHeight, Left: plotLeft, Floor: plotHeight - plotBottom,
		XTicks: x.ticks(), YTicks: y.ticks(),
	}
	for i, l := range c.Lines {
		var points []string
		for _, p := range l.Points {
			points = append(points, strconv.FormatFloat(x.at(p.X), 'f', -1, 64)+","+strconv.FormatFloat(y.at(p.Y), 'f', -1, 64))
		}
		out.Lines = append(out.Lines, PlotLine{Name: l.Name, Points: strings.Join(points, " "), Class: i % 6})
	}
	return out
}

// axes spans all points; the upright one begins at 0, or at a power of ten.
func (c Chart) axes() (x, y axis) {
	x = axis{low: math.Inf(1), high: math.Inf(-1), from: plotLeft, to: plotWidth - plotRight}
	y = axis{low: math.Inf(1), high: 0, from: plotHeight - plotBottom, to: plotTop, log: c.LogY}
	for _, l := range c.Lines {
		for _, p := range l.Points {
			x.low, x.high = min(x.low, p.X), max(x.high, p.X)
			y.low, y.high = min(y.low, p.Y), max(y.high, p.Y)
		}
	}
	if math.IsInf(y.low, 1) { // no point at all
		y.low = 0
	}
	if !(x.high > x.low) { // one point, or none
		x.low, x.high = 0, max(x.high, 1)
	}
	if !c.LogY {
		y.low = 0
	} else {
		y.low = math.Pow(10, math.Floor(math.Log10(max(y.low, 0.001))))
		y.high = math.Pow(10, math.Ceil(math.Log10(max(y.high, y.low*10))))
	}
	if !(y.high > y.low) {
		y.high = y.low + 1
	}
	return x, y
}
