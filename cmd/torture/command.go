package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/leadingpeers/seckill/internal/fault"
	"github.com/leadingpeers/seckill/internal/torture"
)

// violated is the exit status of a run that the system did not survive.
type violated struct{ n int64 }

// Error says so.
func (v violated) Error() string { return fmt.Sprintf("%d violations", v.n) }

// ExitStatus tells a violation from a run that could not be done.
func (violated) ExitStatus() int { return 3 }

func command() *cobra.Command {
	cfg := torture.Config{}
	quiet := false
	cmd := &cobra.Command{
		Use: "torture", Short: "Hurt the real system while it sells, and check that every promise is kept", Args: cobra.NoArgs,
		Long:         "Prints one line of JSON. Exit status 0: survived; 3: a violation; 1: the run itself could not be done.",
		SilenceUsage: true, SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, name := range cfg.Without {
				if !slices.Contains(fault.Protections(), name) {
					return fmt.Errorf("--without %s: no such protection; there are %s", name, strings.Join(fault.Protections(), ", "))
				}
			}
			cfg.Log = cmd.ErrOrStderr()
			if quiet {
				cfg.Log = io.Discard
			}
			result, err := torture.Run(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			line, err := json.Marshal(result)
			if err != nil {
				return err
			}
			cmd.Println(string(line))
			if n := result.Sum(); n > 0 {
				return violated{n}
			}
			return nil
		},
	}
	cmd.SetOut(os.Stdout)
	f := cmd.Flags()
	f.SortFlags = false
	f.DurationVar(&cfg.Duration, "duration", time.Minute, "how long things are broken")
	f.Uint64Var(&cfg.Seed, "seed", 1, "the schedule of faults follows from it")
	f.IntVar(&cfg.Brokers, "brokers", 1, "Kafka brokers, 1 or 3; leaders move only among 3")
	f.StringVar(&cfg.Fsync, "appendfsync", "everysec", "of Redis: everysec or always")
	f.IntVar(&cfg.Rate, "rate", 250, "requests a second, about")
	f.IntVar(&cfg.Callers, "callers", 48, "buyers at once")
	f.BoolVar(&cfg.Operate, "operators", true, "operators restock, stop, flush and preload while the sale goes on; without them no more units may be refused after a 202 than Redis has lost")
	f.DurationVar(&cfg.Limit, "limit", 30*time.Second, "from the last fault until everything accepted must be in the ledger; longer where the machine is shared")
	f.DurationVar(&cfg.Drift, "drift", time.Minute, "from the last fault until Redis and the ledger must have agreed about every product")
	f.DurationVar(&cfg.Rest, "rest", 2*time.Minute, "from the last fault until every promise must have its end and the books must balance")
	f.StringSliceVar(&cfg.Only, "only", nil, "only faults whose `kinds` begin with one of these, by comma, such as redis,kill:gateway")
	f.StringSliceVar(&cfg.Without, "without", nil, "`protections` to take out, by comma: the run must then report a violation; "+strings.Join(fault.Protections(), ", "))
	f.BoolVar(&quiet, "quiet", false, "print nothing but the result")
	f.StringVar(&cfg.Root, "root", ".", "the module's `folder`")
	f.StringVar(&cfg.Dir, "dir", filepath.Join(os.TempDir(), "seckill-torture"), "`folder` for data and logs; emptied first")
	f.StringVar(&cfg.Bin, "bin", "", "`folder` of binaries built with -tags faults; without it they are built")
	f.IntVar(&cfg.Port, "port", 22000, "the first of 120 `ports`")
	return cmd
}
