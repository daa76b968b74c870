// Command torture sells on the real system while it kills, stops, cuts off and
// empties every part of it, and then checks that every promise was kept. It is
// not shipped: go run ./cmd/torture --help.
package main

import (
	"os"

	"github.com/leadingpeers/seckill/internal/app"
)

func main() {
	os.Exit(app.Main(command()))
}
