package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/leadingpeers/seckill/internal/app"
	"github.com/leadingpeers/seckill/internal/audit"
	"github.com/leadingpeers/seckill/internal/ops/redrive"
	"github.com/leadingpeers/seckill/pkg/events"
)

func dlqCommand() *cobra.Command {
	cmd := group("dlq", "Look after dead letters: events that a worker could not handle")
	app.Flags(cmd.PersistentFlags(), "")
	cmd.AddCommand(dlqList(), dlqShow(), dlqExport(), dlqAct("redrive"), dlqAct("drop"))
	return cmd
}

// letterFlags are what chooses letters.
type letterFlags struct {
	groups       []string
	filter       redrive.Filter
	since, until string
}

func (l *letterFlags) add(fs *pflag.FlagSet) {
	fs.StringVar(&l.filter.Class, "class", "", "only this error `class`: undecodable, unknown_product, not_cancelled, invalid, permanent")
	fs.StringVar(&l.filter.Type, "type", "", "only events of this `type`, for example "+string(events.StockDeducted))
	fs.StringVar(&l.filter.Activity, "activity", "", "only of this activity")
	fs.StringVar(&l.filter.Product, "product", "", "only of this product")
	fs.StringVar(&l.filter.Reservation, "reservation", "", "only of this reservation")
	fs.StringVar(&l.since, "since", "", "only what failed at this `time` or later: RFC 3339, or a duration before now such as 2h")
	fs.StringVar(&l.until, "until", "", "only what failed before this `time`")
	fs.StringSliceVar(&l.filter.IDs, "id", nil, "only the letters with these `ids`, group/partition/offset as list shows them")
}

func (l *letterFlags) read(now time.Time) (redrive.Filter, error) {
	var err error
	if l.filter.Since, err = moment(l.since, now); err != nil {
		return l.filter, fmt.Errorf("--since: %w", err)
	}
	if l.filter.Until, err = moment(l.until, now); err != nil {
		return l.filter, fmt.Errorf("--until: %w", err)
	}
	for _, g := range l.groups {
		if !slices.Contains(events.DeadLetterGroups(), g) {
			return l.filter, fmt.Errorf("--group %q: want one of %s", g, strings.Join(events.DeadLetterGroups(), ", "))
		}
	}
	return l.filter, l.filter.Check()
}

// moment reads a time, or a duration before now.
func moment(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if ago, err := time.ParseDuration(text); err == nil {
		return now.Add(-ago).UTC().Truncate(time.Second), nil
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return at, fmt.Errorf("%q is neither a time such as 2026-11-11T20:00:00Z nor a duration such as 2h", text)
	}
	return at.UTC(), nil
}

func dlqDesk(cmd *cobra.Command) (*redrive.Desk, error) {
	cfg, err := app.Load(cmd.Flags(), os.Environ())
	if err != nil {
		return nil, err
	}
	kafka, err := cfg.KafkaConfig("dlq")
	return &redrive.Desk{Kafka: kafka, Now: time.Now}, err
}

func dlqList() *cobra.Command {
	var choose letterFlags
	var limit int
	var quarantined, all bool
	var output string
	cmd := &cobra.Command{
		Use: "list", Short: "List the dead letters that wait, and count them by class", Args: cobra.NoArgs,
	}
	fs := cmd.Flags()
	fs.StringSliceVar(&choose.groups, "group", events.DeadLetterGroups(), "only of these groups")
	choose.add(fs)
	fs.IntVar(&limit, "limit", 20, "most letters shown; all are counted")
	fs.BoolVar(&quarantined, "quarantined", false, "those that were sent back too often, instead of those that wait")
	fs.BoolVar(&all, "all", false, "all, also those that are done with")
	fs.StringVarP(&output, "output", "o", "table", "table, or json for a line each")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		filter, err := choose.read(time.Now())
		if err != nil {
			return wrongUsage(cmd, "%v", err)
		}
		desk, err := dlqDesk(cmd)
		if err != nil {
			return err
		}
		wanted := redrive.Waiting
		if quarantined {
			wanted = redrive.Quarantined
		}
		out := newLetterTable(cmd.OutOrStdout(), output, limit)
		for _, g := range choose.groups {
			for item, err := range desk.List(cmd.Context(), g, filter) {
				if err != nil {
					return err
				}
				out.count(item)
				if all || item.Status == wanted {
					out.row(item)
				}
			}
		}
		return out.flush()
	}
	return cmd
}

func dlqShow() *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "Show one dead letter whole, as JSON", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			desk, err := dlqDesk(cmd)
			if err != nil {
				return err
			}
			item, err := desk.Find(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			encoder := json.NewEncoder(cmd.OutOrStdout())
			encoder.SetIndent("", "  ")
			encoder.SetEscapeHTML(false)
			return encoder.Encode(asDocument(item))
		},
	}
}

func dlqExport() *cobra.Command {
	var choose letterFlags
	var path string
	cmd := &cobra.Command{
		Use: "export", Short: "Write dead letters whole to a file or to standard output, a JSON line each", Args: cobra.NoArgs,
	}
	cmd.Flags().StringSliceVar(&choose.groups, "group", events.DeadLetterGroups(), "only of these groups")
	choose.add(cmd.Flags())
	cmd.Flags().StringVarP(&path, "file", "f", "", "write to this `file`, which must not exist yet")
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		filter, err := choose.read(time.Now())
		if err != nil {
			return wrongUsage(cmd, "%v", err)
		}
		desk, err := dlqDesk(cmd)
		if err != nil {
			return err
		}
		to := cmd.OutOrStdout()
		if path != "" {
			file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) // letters have users in them
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, file.Close()) }()
			to = file
		}
		out := bufio.NewWriter(to)
		encoder, n := json.NewEncoder(out), 0
		for _, g := range choose.groups {
			for item, err := range desk.List(cmd.Context(), g, filter) {
				if err != nil {
					return err
				}
				if err := encoder.Encode(asDocument(item)); err != nil {
					return err
				}
				n++
			}
		}
		cmd.PrintErrln(n, "letters written")
		return out.Flush()
	}
	return cmd
}

var dlqActHelp = map[string][2]string{ //nolint:gochecknoglobals // a table that nothing writes
	"redrive": {
		"Send dead letters back to the topics they came from; without --yes only say what would be sent",
		`Each letter goes to the topic of its own origin header, in batches that are
acknowledged before the progress is committed. The progress is the offsets of a
Kafka group, named in the report: its lag is what is left. Cut short, the same
command goes on where it stopped. A letter that has come back as often as
--max-redrives says is quarantined: it stays where it is and is left alone.`,
	},
	"drop": {
		"Let dead letters lie for good; without --yes only say which",
		`Nothing is deleted: the letters stay in their topic until retention, and
list --all shows them as dropped.`,
	},
}

func dlqAct(verb string) *cobra.Command {
	choose := letterFlags{}
	job := redrive.Job{Drop: verb == "drop"}
	var yes, all bool
	var rate, actor, output string
	var most int
	cmd := &cobra.Command{Use: verb, Short: dlqActHelp[verb][0], Long: dlqActHelp[verb][0] + ".\n\n" + dlqActHelp[verb][1], Args: cobra.NoArgs}
	fs := cmd.Flags()
	fs.StringVar(&job.Group, "group", "", "the `group` whose letters they are: "+strings.Join(events.DeadLetterGroups(), ", "))
	choose.add(fs)
	fs.BoolVar(&yes, "yes", false, "do it")
	fs.Int64Var(&job.Max, "max", 0, "stop after so many letters; 0 = all")
	fs.StringVar(&job.Progress, "progress", "", "`name` of the progress; by default one that the same filter always gets")
	fs.StringVar(&actor, "actor", "", "who does this, for the audit trail; default the user of this machine")
	fs.StringVarP(&output, "output", "o", "table", "table or json")
	if job.Drop {
		fs.BoolVar(&all, "all", false, "every letter; needed with --yes when nothing else chooses")
	} else {
		fs.StringVar(&rate, "rate", "", "most letters a second, for example `200/s`; default no limit")
		fs.DurationVar(&job.Wait, "wait", 10*time.Second, "how long to wait for the group to handle what was sent, so that what came back is counted")
		fs.IntVar(&most, "max-redrives", redrive.Limit, "leave letters alone that were sent back so often")
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		choose.groups, job.DryRun = []string{job.Group}, !yes
		if job.Filter, err = choose.read(time.Now()); err != nil {
			return wrongUsage(cmd, "%v", err)
		}
		if job.Rate, err = perSecond(rate); err != nil {
			return wrongUsage(cmd, "%v", err)
		}
		if job.Drop && yes && job.Filter.Empty() && !all {
			return wrongUsage(cmd, "drop every dead letter of %s? say which (--class, --type, --product, --reservation, --since, --id …), or --all", job.Group)
		}
		return runDLQ(cmd, job, most, actor, output)
	}
	return cmd
}

// runDLQ opens the stores, does the job and shows what it came to.
func runDLQ(cmd *cobra.Command, job redrive.Job, most int, actor, output string) error {
	cfg, err := app.Load(cmd.Flags(), os.Environ())
	if err != nil {
		return err
	}
	stores, err := app.Open(cmd.Context(), cfg, "dlq", nil)
	if err != nil {
		return err
	}
	defer func() { _ = stores.Close(cmd.Context()) }()
	desk := &redrive.Desk{Kafka: stores.Kafka, Publisher: stores.Publisher, DB: stores.DB, Now: time.Now, Limit: most}
	report, err := desk.Run(audit.With(cmd.Context(), audit.Actor{KeyID: auditActor(actor)}), job)
	if report.Group == "" {
		return err
	}
	if output == "json" {
		return errors.Join(err, json.NewEncoder(cmd.OutOrStdout()).Encode(report))
	}
	return errors.Join(err, showReport(cmd.OutOrStdout(), job, report))
}

// perSecond reads "200/s" or "200".
func perSecond(text string) (float64, error) {
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseFloat(strings.TrimSuffix(text, "/s"), 64)
	if err != nil || n <= 0 || n > 1e9 {
		return 0, fmt.Errorf("--rate %q: want a number a second, such as 200/s", text)
	}
	return n, nil
}

// auditActor names who runs a command, as the audit trail takes it.
func auditActor(name string) string {
	if name == "" {
		name = "unknown"
		if u, err := user.Current(); err == nil {
			name = u.Username
		}
	}
	clean := strings.Map(func(c rune) rune {
		if c < '!' || c > '~' {
			return '_'
		}
		return c
	}, "cli:"+name)
	return clean[:min(len(clean), 64)]
}
