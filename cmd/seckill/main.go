// Command seckill is the tool for everything around the three processes: it
// shows a sale, runs the whole stack on a laptop, and prepares the servers.
package main

import (
	"os"
	"time"

	"github.com/leadingpeers/seckill/internal/app"
	"github.com/leadingpeers/seckill/internal/cli"
)

func main() {
	root := group("seckill", "Sell few units to a huge crowd, each exactly once")
	root.SilenceUsage, root.SilenceErrors = true, true
	root.AddCommand(demoCommand(), devCommand(), initCommand(), migrateCommand(), topicsCommand(), lagCommand(), benchCommand(), versionCommand(), dlqCommand(), replayCommand(), reconcileCommand(), doctorCommand())
	for _, role := range []app.Role{app.RoleGateway, app.RoleStockWorker, app.RoleSettleWorker} {
		root.AddCommand(app.Command(role))
	}
	root.AddCommand(cli.Commands(os.Getenv, time.Now)...)
	root.AddCommand(benchChildren()...)
	os.Exit(app.Main(root))
}
