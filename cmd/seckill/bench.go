package main

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/leadingpeers/seckill/internal/app"
	"github.com/leadingpeers/seckill/internal/bench"
)

func benchCommand() *cobra.Command {
	var cfg bench.Config
	var redisAddr, mysqlDSN, output string
	cmd := &cobra.Command{
		Use:   "bench [engine|settle]...",
		Short: "Measure against the usual way, on real servers, in the same run",
		Long: `engine  stock.Cache.Reserve, all rules, many callers, against redis-benchmark with
        the usual script, one call each
settle  stock.Ledger.Deduct in batches on one product against one transaction
        for each order

Both sides run in turn and the books are checked after each. Without arguments
all are run. The servers are those of deploy/local/servers unless named.`,
		ValidArgs: []string{"engine", "settle"},
		Args:      cobra.OnlyValidArgs,
	}
	fs := cmd.Flags()
	fs.StringVar(&redisAddr, "redis", "127.0.0.1:16379", "address of a real Redis")
	fs.StringVar(&mysqlDSN, "mysql", "root@tcp(127.0.0.1:13306)/seckill", "data source `name` of a real MySQL or MariaDB with our schema (seckill migrate)")
	fs.DurationVar(&cfg.Duration, "duration", 3*time.Second, "of one repeat of one side")
	fs.IntVar(&cfg.Repeats, "repeats", 3, "repeats of each side, interleaved")
	fs.IntVar(&cfg.Callers, "callers", 256, "concurrent callers of the engine")
	fs.IntVar(&cfg.Batch, "batch", 500, "reservations in one ledger transaction, 1 to 500")
	fs.StringVarP(&output, "output", "o", "table", "table or json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if cfg.Repeats < 1 || cfg.Callers < 1 || cfg.Batch < 1 || cfg.Batch > 500 || cfg.Duration <= 0 {
			return fmt.Errorf("bench: --repeats, --callers and --duration must be positive, --batch 1 to 500")
		}
		if len(args) == 0 {
			args = cmd.ValidArgs
		}
		stores, err := app.Open(cmd.Context(), app.Config{Redis: redisAddr, Kafka: "127.0.0.1:1", MySQL: mysqlDSN, MySQLConns: 32, Prefix: "seckill-bench"}, "bench", nil)
		if err != nil {
			return err
		}
		defer func() { _ = stores.Close(cmd.Context()) }()
		var figures []bench.Figure
		for _, name := range args {
			var more []bench.Figure
			switch name {
			case "engine":
				more, err = bench.Engine(cmd.Context(), redisAddr, cfg)
			case "settle":
				more, err = bench.Settle(cmd.Context(), stores.DB, cfg)
			}
			if err != nil {
				return fmt.Errorf("bench %s: %w", name, err)
			}
			figures = append(figures, more...)
		}
		return show(cmd.OutOrStdout(), output, figures)
	}
	return cmd
}

func show(w io.Writer, output string, figures []bench.Figure) error {
	if output == "json" {
		return json.NewEncoder(w).Encode(figures)
	}
	return bench.Table(w, figures)
}
