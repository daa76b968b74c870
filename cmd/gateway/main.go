// Command gateway serves the HTTP API: it takes units in Redis and publishes the
// reservation to Kafka. See --help for its settings.
package main

import (
	"os"

	"github.com/leadingpeers/seckill/internal/app"
)

func main() {
	os.Exit(app.Main(app.Command(app.RoleGateway)))
}
