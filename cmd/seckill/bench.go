package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/leadingpeers/seckill/internal/app"
	"github.com/leadingpeers/seckill/internal/bench"
	"github.com/leadingpeers/seckill/internal/bench/figures"
	"github.com/leadingpeers/seckill/internal/bench/site"
)

// benchOptions are the flags of bench.
type benchOptions struct {
	cfg            bench.Config
	script         string
	output, report string
	require        []string
	goals, verbose bool
}

func benchCommand() *cobra.Command {
	var o benchOptions
	var names []string
	long := "Ours and its references run in turn on the same servers, and the books are\nchecked after each. The load comes from a process of its own. Set-ups:\n\n"
	for _, s := range bench.Setups() {
		names = append(names, s.Name)
		long += fmt.Sprintf("%-10s  %s\n", s.Name, s.What)
	}
	cmd := &cobra.Command{
		Use:       "bench all|SET-UP...",
		Short:     "Measure against the usual way, on real servers, in the same run",
		Long:      long + "\nThe servers are those of deploy/local/servers, which starts them, unless all three\nare named. \"all\" leaves out durability, which reconfigures the servers.",
		Example:   "  seckill bench all --goals --report bench.html\n  seckill bench engine --duration 2s --require engine_rate>=5",
		ValidArgs: append(slices.Clone(names), "all"),
		Args:      cobra.MatchAll(cobra.MinimumNArgs(1), cobra.OnlyValidArgs),
	}
	o.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if slices.Contains(args, "all") {
			args = slices.DeleteFunc(names, func(name string) bool { return name == "durability" })
		}
		return o.run(cmd, args)
	}
	return cmd
}

func (o *benchOptions) flags(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&o.cfg.Site.Servers.Redis, "redis", "", "`address` of a real Redis, host:port")
	fs.StringVar(&o.cfg.Site.Servers.Kafka, "kafka", "", "real Kafka `brokers`, host:port by comma")
	fs.StringVar(&o.cfg.Site.Servers.MySQL, "mysql", "", "data source `name` of a real MySQL or MariaDB, user:password@tcp(host:port)/; a schema is made and dropped")
	fs.StringVar(&o.script, "servers", "deploy/local/servers", "the `script` that starts servers when none are named")
	fs.IntVar(&o.cfg.Site.Cores.Subject, "cores", 0, "run what is measured on the first `N` cores and the load on the others, where there are any; 0 = everything everywhere. Servers stay where they are")
	fs.DurationVar(&o.cfg.Duration, "duration", 3*time.Second, "of one repeat of one side")
	fs.IntVar(&o.cfg.Repeats, "repeats", 3, "of each side, in turn")
	fs.IntVar(&o.cfg.Callers, "callers", 256, "callers of the engine, connections of the load")
	fs.IntVar(&o.cfg.Products, "products", 12, "where several are sold")
	fs.Float64Var(&o.cfg.Zipf, "zipf", 0, "`exponent` of how unevenly they are wanted; 0 = all alike")
	fs.IntVar(&o.cfg.Batch, "batch", 500, "reservations in one ledger transaction, 1 to 500")
	fs.IntVar(&o.cfg.Reservations, "reservations", 1_000_000, "that memory is measured with")
	fs.StringArrayVar(&o.require, "require", nil, "what a figure must be, `name>=value` or name<=value; may be repeated; missed = exit status 1")
	fs.BoolVar(&o.goals, "goals", false, "require every figure's own goal")
	fs.StringVarP(&o.output, "output", "o", "table", "table or json")
	fs.StringVar(&o.report, "report", "", "also write one page of HTML to this `file`")
	fs.StringArrayVar(&o.cfg.Site.Set, "set", nil, "a setting of our processes as `NAME=value`, such as SECKILL_MAX_IN_FLIGHT=512; may be repeated")
	fs.StringVar(&o.cfg.Profiles, "profiles", "", "also write CPU and allocation profiles of the gateway to this `folder`; they need --duration 2s or more, and cost a little themselves")
	fs.BoolVar(&o.verbose, "verbose", false, "show the logs of the processes")
}

func (o *benchOptions) run(cmd *cobra.Command, names []string) error {
	want, err := o.valid()
	if err != nil {
		return err
	}
	s := &o.cfg.Site
	given := []bool{s.Servers.Redis != "", s.Servers.Kafka != "", s.Servers.MySQL != ""}
	switch {
	case !slices.Contains(given, true):
		if s.Servers, err = site.Up(cmd.Context(), o.script); err != nil {
			return err
		}
	case slices.Contains(given, false):
		return errors.New("bench: name all of --redis, --kafka and --mysql, or none")
	}
	if s.Exe, err = os.Executable(); err != nil {
		return err
	}
	s.Logs, o.cfg.Progress = io.Discard, cmd.ErrOrStderr()
	if o.verbose {
		s.Logs = cmd.ErrOrStderr()
	}
	report := figures.Report{At: time.Now().UTC().Format(time.RFC3339), Settings: o.settings(cmd.Context())}
	report.Sections, err = bench.Run(cmd.Context(), o.cfg, names)
	if err != nil {
		return err
	}
	if err := o.show(cmd.OutOrStdout(), report); err != nil {
		return err
	}
	if o.goals {
		goals, err := figures.Goals(report.Figures())
		if err != nil {
			return err
		}
		want = append(want, goals...)
	}
	if err := figures.Check(report.Figures(), want); err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	return nil
}

func (o *benchOptions) valid() (want []figures.Requirement, err error) {
	c := o.cfg
	if c.Repeats < 1 || c.Callers < 1 || c.Products < 1 || c.Reservations < 1 || c.Batch < 1 || c.Batch > 500 || c.Duration < 100*time.Millisecond || c.Zipf < 0 {
		return nil, errors.New("bench: --repeats, --callers, --products and --reservations must be positive, --batch 1 to 500, --duration 100ms or more, --zipf 0 or more")
	}
	if c.Site.Cores.Subject < 0 || c.Site.Cores.Subject > runtime.NumCPU() {
		return nil, fmt.Errorf("bench: --cores: want 0 to %d, as many as there are", runtime.NumCPU())
	}
	if o.output != "table" && o.output != "json" {
		return nil, fmt.Errorf("bench: --output %q: want table or json", o.output)
	}
	for _, text := range o.require {
		r, err := figures.ParseRequirement(text)
		if err != nil {
			return nil, fmt.Errorf("bench: %w", err)
		}
		want = append(want, r)
	}
	return want, nil
}

func (o *benchOptions) show(w io.Writer, report figures.Report) error {
	if o.report != "" {
		var page bytes.Buffer
		if err := report.HTML(&page); err != nil {
			return err
		}
		if err := os.WriteFile(o.report, page.Bytes(), 0o644); err != nil { //nolint:gosec // a report is for everybody
			return err
		}
	}
	if o.output == "json" {
		return report.JSON(w)
	}
	return report.Text(w)
}

// settings says what was measured with what.
func (o *benchOptions) settings(ctx context.Context) []figures.Setting {
	c := o.cfg
	return []figures.Setting{
		{Name: "machine", Value: fmt.Sprintf("%s/%s, %d cores, %s", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), cpuModel())},
		{Name: "commit", Value: commit(ctx)},
		{Name: "go", Value: runtime.Version()},
		{Name: "servers", Value: serverVersions(ctx, c.Site.Servers)},
		{Name: "measured", Value: fmt.Sprintf("%d repeats of %s, %d callers, %d products, zipf %g, batch %d, cores %d (0 = all, shared with servers and load), set %v",
			c.Repeats, c.Duration, c.Callers, c.Products, c.Zipf, c.Batch, c.Site.Cores.Subject, c.Site.Set)},
	}
}

func cpuModel() string {
	text, _ := os.ReadFile("/proc/cpuinfo") // without it the model is unknown
	for line := range strings.SplitSeq(string(text), "\n") {
		if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown CPU"
}

// commit is the binary's own, or that of the folder where `go run` builds it.
func commit(ctx context.Context) string {
	if v := app.Version(); strings.Contains(v, " ") {
		return v
	}
	out, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty").Output()
	if err != nil {
		return app.Version()
	}
	return strings.TrimSpace(string(out))
}

func serverVersions(ctx context.Context, s site.Servers) string {
	versions, err := site.Versions(ctx, s)
	if err != nil {
		return "unknown: " + err.Error()
	}
	return versions
}

// benchChildren are the processes that bench starts beside ours.
func benchChildren() []*cobra.Command {
	return []*cobra.Command{
		{
			Use: site.LoadCommand, Hidden: true, Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				return site.ServeLoad(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout())
			},
		},
		{
			Use: site.ReferenceCommand, Hidden: true, Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				return site.ServeReference(cmd.Context(), args[0], cmd.InOrStdin(), app.NewLogger(cmd.ErrOrStderr(), "info"))
			},
		},
	}
}
