// Command seckill is the tool for everything around the three processes: it
// shows a sale, runs the whole stack on a laptop, and prepares the servers.
package main

import (
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/leadingpeers/seckill/internal/app"
	"github.com/leadingpeers/seckill/internal/cli"
)

func main() {
	root := &cobra.Command{
		Use:           "seckill",
		Short:         "Sell few units to a huge crowd, each exactly once",
		Args:          cobra.NoArgs, // without it an unknown subcommand prints the help and exits 0
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.AddCommand(demoCommand(), devCommand(), initCommand(), migrateCommand(), topicsCommand(), lagCommand(), benchCommand(), versionCommand(), dlqCommand())
	for _, role := range []app.Role{app.RoleGateway, app.RoleStockWorker, app.RoleSettleWorker} {
		root.AddCommand(app.Command(role))
	}
	root.AddCommand(cli.Commands(os.Getenv, time.Now)...)
	root.AddCommand(benchChildren()...)
	os.Exit(app.Main(root))
}
