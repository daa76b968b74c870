package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/leadingpeers/seckill/internal/app"
	"github.com/leadingpeers/seckill/internal/ops/kafkalog"
	"github.com/leadingpeers/seckill/internal/ops/replay"
	"github.com/leadingpeers/seckill/internal/ops/topics"
)

func replayCommand() *cobra.Command {
	cmd := group("replay", "Hand events to their readers once more: plan, run, and see that nothing has changed that should not",
		replayPlan(), replayRun(), replayStatus(), replayStop(), replayUndo())
	return cmd
}

// withDesk runs f with the connections that the command's settings name.
func withDesk(cmd *cobra.Command, f func(ctx context.Context, d replay.Desk) error) error {
	cfg, err := app.Load(cmd.Flags(), os.Environ())
	if err != nil {
		return err
	}
	stores, err := app.Open(cmd.Context(), cfg, "replay", nil)
	if err != nil {
		return err
	}
	kafka := kafkalog.Open(stores.Kafka)
	err = f(cmd.Context(), replay.Desk{
		Kafka: kafka, DB: stores.DB, Books: stores.Books(), Publisher: stores.Publisher, Handlers: stores.Handlers(),
		By: auditActor(""), Now: time.Now, Log: app.NewLogger(cmd.ErrOrStderr(), cfg.LogLevel),
	})
	kafka.Close()
	closing, cancel := context.WithTimeout(context.WithoutCancel(cmd.Context()), 10*time.Second)
	defer cancel()
	return errors.Join(err, stores.Close(closing))
}

func replayPlan() *cobra.Command {
	var w replay.Want
	var since, from, to, out string
	var offset int64
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Write a plan: which events, by partition, and what is expected of them",
		Long: `Reads the range that you name and looks every reservation in it up, and writes
what it has found to a file for seckill replay run. It changes nothing.

Name the groups that are to read again (deduct, rollback, settle, payment,
channel, or one of others with its --topic), or one reservation, and where to
begin. Without --to the plan ends where the logs end now, and is refused as soon
as they have moved on: while a sale is on, give --to.`,
		Example: "  seckill replay plan --group settle --since 2h --to 1m --out settle.json\n" +
			"  seckill replay plan --reservation 4zq3… --earliest --out one.json\n" +
			"  seckill replay plan --group deduct,rollback,settle,payment --earliest",
		Args: cobra.NoArgs,
	}
	app.Flags(cmd.Flags(), "")
	fs := cmd.Flags()
	fs.StringSliceVar(&w.Groups, "group", nil, "`groups` that read again, by comma; with --reservation the default is all of ours")
	fs.StringVar(&w.Topic, "topic", "", "the topic, for a group that is not ours")
	fs.IntSliceVar(&w.Partitions, "partition", nil, "only these partitions, by comma")
	fs.StringVar(&w.Reservation, "reservation", "", "only events of this reservation `ID`")
	fs.BoolVar(&w.Earliest, "earliest", false, "from the oldest record on")
	fs.StringVar(&since, "since", "", "from this `time` before now on: 30m, 7d")
	fs.StringVar(&from, "from-time", "", "from this `time` on: RFC 3339")
	fs.Int64Var(&offset, "from-offset", 0, "from this offset on, in each partition")
	fs.StringVar(&to, "to", "", "up to this `time`: RFC 3339, or how long ago")
	fs.DurationVar(&w.LedgerKeeps, "ledger-keeps", 0, "how long rows stay in the ledger, if you delete old ones: older events are refused")
	fs.BoolVar(&w.LedgerComplete, "ledger-complete", false, "no row was ever deleted from the ledger: an event older than its oldest row was never decided")
	fs.StringVar(&out, "out", "", "`file` to write; default replay-<id>.json")
	cmd.MarkFlagsOneRequired("earliest", "since", "from-time", "from-offset")
	cmd.MarkFlagsMutuallyExclusive("earliest", "since", "from-time", "from-offset")
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		now := time.Now()
		if w.FromTime, err = topics.Moment(since+from, now); err != nil {
			return wrongUsage(cmd, "--since or --from-time: %v", err)
		}
		if w.To, err = topics.Moment(to, now); err != nil {
			return wrongUsage(cmd, "--to: %v", err)
		}
		if cmd.Flags().Changed("from-offset") {
			w.From = &offset
		}
		return withDesk(cmd, func(ctx context.Context, d replay.Desk) error {
			p, err := d.Make(ctx, w)
			if err != nil {
				return err
			}
			if out == "" {
				out = "replay-" + p.ID + ".json"
			}
			if err := p.Save(out); err != nil {
				return err
			}
			return errors.Join(printPlan(cmd.OutOrStdout(), p), say(cmd, "\nwritten to %s; next: seckill replay run %s --mode isolate --rate 1000/s", out, out))
		})
	}
	return cmd
}

func say(cmd *cobra.Command, format string, args ...any) error {
	_, err := fmt.Fprintf(cmd.OutOrStdout(), format+"\n", args...)
	return err
}

func printPlan(w io.Writer, p *replay.Plan) error {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(out, "GROUP\tTOPIC\tPARTITION\tFROM\tTO\tEVENTS\tFIRST\tLAST\tNOT THERE") // Flush tells of errors
	at := func(m *replay.Mark) string {
		if m == nil {
			return "-"
		}
		return m.At.UTC().Format("2006-01-02T15:04:05.000Z")
	}
	for _, r := range p.Ranges {
		_, _ = fmt.Fprintf(out, "%s\t%s\t%d\t%d\t%d\t%d\t%s\t%s\t%d\n", r.Group, r.Topic, r.Partition, r.From, r.To, r.Events, at(r.First), at(r.Last), r.Gone)
	}
	x := p.Expect
	_, _ = fmt.Fprintf(out, "\nevents\t%d\n", x.Events)
	_, _ = fmt.Fprintf(out, "settled\t%d\tdecided already: nothing will change\n", x.Settled)
	_, _ = fmt.Fprintf(out, "unsettled\t%d\treplaying decides them  %s\n", x.Unsettled, strings.Join(x.Sample, " "))
	for _, line := range []struct {
		n    int64
		what string
	}{
		{x.Unknown, "unknown\t%d\tnobody here can tell: about no reservation, or for a group of others\n"},
		{x.NoEvents, "no events\t%d\tcannot be decoded; they are dead letters already\n"},
		{x.Forgotten, "forgotten\t%d\tolder than what the ledger remembers: the plan cannot be run\n"},
	} {
		if line.n > 0 {
			_, _ = fmt.Fprintf(out, line.what, line.n)
		}
	}
	return out.Flush()
}

func replayRun() *cobra.Command {
	var o replay.Options
	var mode, speed string
	cmd := &cobra.Command{
		Use:   "run PLAN",
		Short: "Run a plan, or go on with one that was stopped, failed or killed",
		Long: `reset      moves the group's own offsets back; its workers must be stopped, and
           read again when they are started. seckill replay undo restores them
isolate    runs the workers' own handlers here, in a group of its own, beside
           the live traffic
republish  writes the records to their topic once more, marked with the plan's
           ID; every reader of that topic sees them

It keeps its state in a file beside the plan, and reads the books of the
products before and after. Interrupt it with Ctrl-C or seckill replay stop; the
same command goes on. Exit status 3 when the books differ afterwards: expected,
if the plan had unsettled events or other traffic was on.`,
		Args: cobra.ExactArgs(1),
	}
	app.Flags(cmd.Flags(), "")
	cmd.Flags().StringVar(&mode, "mode", "", "reset, isolate or republish")
	cmd.Flags().StringVar(&speed, "rate", "", "at most so many events a second, as 500/s; default 1000/s, and max for as fast as it goes")
	_ = cmd.MarkFlagRequired("mode")
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		o.Mode = replay.Mode(mode)
		if o.Rate, err = pace(speed, o.Mode); err != nil {
			return wrongUsage(cmd, "--rate: %v", err)
		}
		return withDesk(cmd, func(ctx context.Context, d replay.Desk) error {
			s, err := d.Run(ctx, args[0], o)
			if errors.Is(err, context.Canceled) {
				return say(cmd, "stopped; seckill replay run %s --mode %s goes on", args[0], mode)
			}
			if err != nil {
				return err
			}
			return finished(cmd, s, args[0])
		})
	}
	return cmd
}

// pace reads a rate; what is not said is gentle, because a sale may be on.
func pace(text string, mode replay.Mode) (float64, error) {
	switch {
	case text == "" && mode == replay.Reset, text == "max":
		return 0, nil
	case text == "":
		return 1000, nil
	}
	return perSecond(text)
}

// finished shows what came of a replay.
func finished(cmd *cobra.Command, s *replay.State, path string) error {
	if s.Status == replay.Waiting {
		return say(cmd, "the offsets are set; start the workers, then: seckill replay status %s (or undo)", path)
	}
	if s.Refused > 0 {
		if err := say(cmd, "%d records that no handler takes, such as:\n  %s", s.Refused, strings.Join(s.Sample, "\n  ")); err != nil {
			return err
		}
	}
	diff := s.Differences()
	if len(diff) == 0 {
		return say(cmd, "done in %s: the books of %d products are as they were", s.UpdatedAt.Sub(s.StartedAt).Round(time.Millisecond), len(s.After))
	}
	if err := say(cmd, "done; the books say otherwise than before:\n  %s", strings.Join(diff, "\n  ")); err != nil {
		return err
	}
	return checkFailed{errors.New("the books differ: expected if the plan had unsettled events or other traffic was on; seckill reconcile tells whether they balance")}
}

func replayStatus() *cobra.Command {
	var output string
	cmd := &cobra.Command{Use: "status PLAN", Short: "Show how far a replay has come", Args: cobra.ExactArgs(1)}
	app.Flags(cmd.Flags(), "")
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := oneOf(cmd, "output", output, "table", "json"); err != nil {
			return err
		}
		return withDesk(cmd, func(ctx context.Context, d replay.Desk) error {
			r, err := d.Report(ctx, args[0])
			if err != nil {
				return err
			}
			if output == "json" {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(r)
			}
			return printReport(cmd, r, args[0])
		})
	}
	return cmd
}

func printReport(cmd *cobra.Command, r *replay.Report, path string) error {
	switch {
	case r.State == nil:
		return say(cmd, "planned, never run")
	case r.State.Status == replay.Done:
		return finished(cmd, r.State, path)
	}
	out := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(out, "GROUP\tTOPIC\tPARTITION\tFROM\tTO\tNEXT\tLEFT") // Flush tells of errors
	left := int64(0)
	for _, p := range r.Progress {
		left += p.Left()
		_, _ = fmt.Fprintf(out, "%s\t%s\t%d\t%d\t%d\t%d\t%d\n", p.Group, p.Topic, p.Partition, p.From, p.To, max(p.Next, p.From), p.Left())
	}
	if err := out.Flush(); err != nil {
		return err
	}
	status := string(r.State.Status)
	if r.Interrupted() {
		status = fmt.Sprintf("interrupted: seckill replay run %s --mode %s goes on", path, r.State.Mode)
	}
	if r.State.Error != "" {
		status += ": " + r.State.Error
	}
	return say(cmd, "\n%s by %s on %s since %s, %d records left: %s", r.State.Mode, r.State.By, r.State.Host, r.State.StartedAt.Format(time.RFC3339), left, status)
}

func replayStop() *cobra.Command {
	cmd := &cobra.Command{
		Use: "stop PLAN", Short: "Let a running replay finish its batch and end; run goes on with it", Args: cobra.ExactArgs(1),
	}
	app.Flags(cmd.Flags(), "")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return withDesk(cmd, func(ctx context.Context, d replay.Desk) error {
			ctx, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			if err := d.Stop(ctx, args[0]); err != nil {
				return err
			}
			return say(cmd, "it has ended; seckill replay status %s tells where", args[0])
		})
	}
	return cmd
}

func replayUndo() *cobra.Command {
	cmd := &cobra.Command{
		Use: "undo PLAN", Short: "Give groups that were reset the offsets back that they had", Args: cobra.ExactArgs(1),
	}
	app.Flags(cmd.Flags(), "")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return withDesk(cmd, func(ctx context.Context, d replay.Desk) error {
			saved, err := d.Undo(ctx, args[0])
			if err != nil {
				return err
			}
			for group, at := range saved {
				if err := say(cmd, "%s: restored %v", group, at); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return cmd
}
