package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/leadingpeers/seckill/internal/app"
	"github.com/leadingpeers/seckill/internal/bench/figures"
	"github.com/leadingpeers/seckill/internal/ops/doctor"
)

func doctorCommand() *cobra.Command {
	var activity, output, bench string
	var ledger time.Duration
	var quiet bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look, before a sale, for what would hurt during it, and say why and what to do",
		Long: `Reads versions, durability settings, clocks, topics, consumer groups, products
and secrets, and changes nothing. Run it with the settings of a gateway: then its
secrets are looked at, too. Exit status: 0 nothing fails, 3 something does.`,
		Args: cobra.NoArgs,
	}
	fs := cmd.Flags()
	app.Flags(fs, "")
	fs.StringVar(&activity, "activity", "", "only this activity; default all that are on sale")
	fs.StringVar(&bench, "bench", "", "compare the sale with what was measured: `file` made by seckill bench pipeline -o json")
	fs.DurationVar(&ledger, "ledger-retention", 0, "how long you keep rows of the ledger; 0 = for ever")
	fs.BoolVarP(&quiet, "quiet", "q", false, "show only what is not ok")
	fs.StringVarP(&output, "output", "o", "table", "table or json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := app.Load(cmd.Flags(), os.Environ())
		if err != nil {
			return err
		}
		measured, err := readBench(bench)
		if err != nil {
			return err
		}
		stores, err := app.Open(cmd.Context(), cfg, "doctor", nil)
		if err != nil {
			return err
		}
		defer func() { _ = stores.Close(cmd.Context()) }()
		checks := doctor.Examine(cmd.Context(), doctor.Patient{
			Cache: stores.Cache, Ledger: stores.Ledger, Catalog: stores.Catalog, Kafka: stores.Kafka, DB: stores.DB, Now: time.Now,
			Activity: activity, Bench: measured, LedgerRetention: ledger,
			Secrets: doctor.Secrets{
				IDKey: cfg.IDKey, Keys: cfg.Keys, TokenKeys: cfg.TokenKeys, Redis: cfg.Redis, Kafka: cfg.Kafka,
				KafkaUser: cfg.KafkaUser, KafkaTLS: cfg.KafkaTLS, MySQL: cfg.MySQL,
			},
		})
		if err := showChecks(cmd.OutOrStdout(), output, quiet, checks); err != nil {
			return err
		}
		if !doctor.Healthy(checks) {
			return checkFailed{fmt.Errorf("do not sell like this: what fails is marked above")}
		}
		return nil
	}
	return cmd
}

// readBench finds in a report of bench how many rows a second the ledger took.
func readBench(path string) (doctor.Bench, error) {
	if path == "" {
		return doctor.Bench{}, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return doctor.Bench{}, err
	}
	var report figures.Report
	if err := json.Unmarshal(text, &report); err != nil {
		return doctor.Bench{}, fmt.Errorf("read %s: %w; want what seckill bench pipeline -o json prints", path, err)
	}
	out := doctor.Bench{File: path}
	for _, f := range report.Figures() {
		if f.Name == "pipeline_rate" {
			out.Rate = figures.Median(f.Subject)
		}
	}
	return out, nil
}

func showChecks(w io.Writer, output string, quiet bool, checks []doctor.Check) error {
	if output == "json" {
		return json.NewEncoder(w).Encode(checks)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	count := map[doctor.Status]int{}
	for _, c := range checks {
		count[c.Status]++
		if quiet && c.Status == doctor.OK {
			continue
		}
		_, _ = fmt.Fprintf(t, "%s\t%s\t%s\n", c.Status, c.Name, c.Why)
		if c.Fix != "" {
			_, _ = fmt.Fprintf(t, "\t\t  fix: %s\n", strings.ReplaceAll(c.Fix, "\n", " "))
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%d ok, %d warn, %d fail\n", count[doctor.OK], count[doctor.Warn], count[doctor.Fail])
	return err
}
