// Package bench measures our own path against the way everybody starts with,
// on the same servers in the same run, and checks the books after each repeat.
// Only the ratios mean anything on another machine.
package bench

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"fmt"
	"io"
	"runtime"
	"slices"
	"text/tabwriter"
	"time"
)

// Config says how long and how hard to measure.
type Config struct {
	Duration time.Duration // of one repeat of one side; default 3 s
	Repeats  int           // of each side, interleaved; default 3
	Callers  int           // concurrent callers of the engine; default 256
	Batch    int           // reservations in one ledger transaction; default 500
}

// Figure is one comparison: ours and the reference of the same repeat.
type Figure struct {
	Name      string    `json:"name"`
	Unit      string    `json:"unit"`
	Subject   []float64 `json:"subject"`
	Reference []float64 `json:"reference"`
}

// Ratios are subject / reference, repeat by repeat, in ascending order.
func (f Figure) Ratios() []float64 {
	out := make([]float64, len(f.Subject))
	for i := range f.Subject {
		out[i] = f.Subject[i] / f.Reference[i]
	}
	slices.Sort(out)
	return out
}

// Table prints the figures with the median of both sides and the lowest, the
// median and the highest ratio.
func Table(w io.Writer, figures []Figure) error {
	_, _ = fmt.Fprintf(w, "machine: %s/%s, %d CPUs, %s; load generator, servers and subject share them\n\n", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version())
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(tw, "figure\tunit\tours\treference\tratio\tmin\tmax\t")
	for _, f := range figures {
		r := f.Ratios()
		_, _ = fmt.Fprintf(tw, "%s\t%s\t%.4g\t%.4g\t%.2f\t%.2f\t%.2f\t\n", f.Name, f.Unit, median(f.Subject), median(f.Reference), median(r), r[0], r[len(r)-1])
	}
	return tw.Flush()
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}

// repeat runs both sides in turn, cfg.Repeats times.
func (c Config) repeat(ctx context.Context, subject, reference func(context.Context) error) error {
	for i := range c.Repeats {
		if err := reference(ctx); err != nil {
			return fmt.Errorf("reference, repeat %d: %w", i+1, err)
		}
		if err := subject(ctx); err != nil {
			return fmt.Errorf("subject, repeat %d: %w", i+1, err)
		}
	}
	return nil
}

// reservationID makes a random ID in the form of the real ones.
func reservationID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, by its documentation
	return base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding).EncodeToString(b[:])
}
