// Command stock-worker confirms reservations in MySQL, rolls back, reaps and
// heals. See --help for its settings.
package main

import (
	"os"

	"github.com/leadingpeers/seckill/internal/app"
)

func main() {
	os.Exit(app.Main(app.Command(app.RoleStockWorker)))
}
