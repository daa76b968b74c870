// Command settle-worker writes orders, takes payments and cancels what is
// overdue. See --help for its settings.
package main

import (
	"os"

	"github.com/leadingpeers/seckill/internal/app"
)

func main() {
	os.Exit(app.Main(app.Command(app.RoleSettleWorker)))
}
