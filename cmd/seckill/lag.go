package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/leadingpeers/seckill/internal/app"
	"github.com/leadingpeers/seckill/internal/ops/kafkalog"
	"github.com/leadingpeers/seckill/internal/ops/lag"
	"github.com/leadingpeers/seckill/pkg/events"
)

func lagCommand() *cobra.Command {
	var view lagView
	cmd := &cobra.Command{
		Use:   "lag",
		Short: "Show how far behind each consumer group is, in records and in seconds",
		Long: `Reads the brokers twice and shows, for each group and partition, what is
committed, where the log ends, how many records wait, how old the oldest of
them is, who works on it, and when it will be done at the pace in between.

Groups without members and partitions without a commit are shown too. Groups
of others are shown when their names begin with the prefix, or by --group.`,
		Args: cobra.NoArgs,
	}
	app.Flags(cmd.Flags(), "")
	cmd.Flags().StringVar(&view.group, "group", "", "only this `group`, in full or without the prefix")
	cmd.Flags().BoolVar(&view.watch, "watch", false, "show it again after every --over, until interrupted")
	cmd.Flags().DurationVar(&view.over, "over", 2*time.Second, "time between the two readings that the estimate compares")
	cmd.Flags().StringVarP(&view.output, "output", "o", "table", "table or json; json is one document a reading")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := oneOf(cmd, "output", view.output, "table", "json"); err != nil {
			return err
		}
		if view.over <= 0 {
			return wrongUsage(cmd, "--over is %s: want more than 0", view.over)
		}
		k, err := openKafka(cmd)
		if err != nil {
			return err
		}
		defer k.Close()
		return view.show(cmd, lag.NewReader(k, time.Now))
	}
	return cmd
}

// openKafka connects to the brokers that the command's settings name.
func openKafka(cmd *cobra.Command) (*kafkalog.Kafka, error) {
	cfg, err := app.Load(cmd.Flags(), os.Environ())
	if err != nil {
		return nil, err
	}
	client, err := cfg.KafkaConfig("operator")
	if err != nil {
		return nil, err
	}
	return kafkalog.Open(client), nil
}

// lagView says what to show of the lag, and how.
type lagView struct {
	group, output string
	watch         bool
	over          time.Duration
}

// show ends without an error when it is interrupted.
func (v lagView) show(cmd *cobra.Command, r *lag.Reader) error {
	ctx := cmd.Context()
	before, err := r.Read(ctx, v.group)
	if err != nil {
		return fmt.Errorf("%w\n  fix:   check that --kafka (or SECKILL_KAFKA) names the brokers and that they run", err)
	}
	timer := time.NewTicker(v.over)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		after, err := r.Read(ctx, v.group)
		if err == nil {
			err = printLag(cmd.OutOrStdout(), v.output, after, lag.Outlooks(before, after))
		}
		if ctx.Err() == nil && (err != nil || !v.watch) {
			return err
		}
		before = after
	}
}

// lagRow is a row as JSON.
type lagRow struct {
	Group      string  `json:"group"`
	Topic      string  `json:"topic"`
	Partition  int     `json:"partition"`
	State      string  `json:"state"`
	Committed  int64   `json:"committed"` // -1: never
	Start      int64   `json:"start"`
	End        int64   `json:"end"`
	Lag        int64   `json:"lag"`
	AgeSeconds float64 `json:"age_seconds"`
	Owner      string  `json:"owner"`
	PerSecond  float64 `json:"per_second"`
	Drain      string  `json:"drain"`
	Note       string  `json:"note,omitempty"`
}

func printLag(w io.Writer, output string, reading lag.Reading, outlooks map[events.Place]lag.Outlook) error {
	rows := []lagRow{}
	for _, r := range reading.Rows {
		o := outlooks[r.Place]
		rows = append(rows, lagRow{
			Group: r.Group, Topic: r.Topic, Partition: r.Partition, State: r.State, Committed: r.Committed, Start: r.Start, End: r.End,
			Lag: r.Lag(), AgeSeconds: r.Age(reading.At).Seconds(), Owner: r.Owner, PerSecond: o.PerSecond, Drain: o.String(), Note: r.Note(),
		})
	}
	if output == "json" {
		return json.NewEncoder(w).Encode(map[string]any{"at": reading.At.UTC(), "rows": rows})
	}
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(out, "GROUP\tTOPIC\tPARTITION\tCOMMITTED\tEND\tLAG\tAGE\tOWNER\tDRAIN\tNOTE") // Flush tells of errors
	for _, r := range rows {
		age := (time.Duration(r.AgeSeconds*1000) * time.Millisecond).Round(100 * time.Millisecond)
		_, _ = fmt.Fprintf(out, "%s\t%s\t%d\t%s\t%d\t%d\t%s\t%s\t%s\t%s\n", r.Group, r.Topic, r.Partition, offsetText(r.Committed), r.End, r.Lag, age, dash(r.Owner), r.Drain, r.Note)
	}
	totals := map[string][2]int64{}
	var order []string
	for _, r := range rows {
		t, known := totals[r.Group]
		if !known {
			order = append(order, r.Group)
		}
		totals[r.Group] = [2]int64{t[0] + r.Lag, max(t[1], int64(r.AgeSeconds))}
	}
	_, _ = fmt.Fprintln(out)
	for _, g := range order {
		_, _ = fmt.Fprintf(out, "%s\t%d records behind, the oldest %d s old\n", g, totals[g][0], totals[g][1])
	}
	return out.Flush()
}

func offsetText(offset int64) string {
	if offset < 0 {
		return "-"
	}
	return fmt.Sprint(offset)
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
