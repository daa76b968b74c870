// Package api is the contract of the gateway's HTTP API: openapi.yaml, written
// by hand and before the code, and the models that are generated from it for
// the gateway and its client.
package api

import (
	_ "embed"
	"fmt"
	"time"
)

//go:generate go tool -modfile=../tools/go.mod oapi-codegen --config models.yaml openapi.yaml

// OpenAPI is the contract, in YAML.
//
//go:embed openapi.yaml
var OpenAPI []byte

// SaleSchema is the JSON Schema of the file that `seckill activity apply` reads.
//
//go:embed sale.schema.json
var SaleSchema []byte

// millis is RFC 3339 in UTC with exactly three digits of a second.
const millis = "2006-01-02T15:04:05.000Z"

// Millis is a time as the API writes it: RFC 3339, UTC, milliseconds.
type Millis struct{ time.Time }

// MarshalJSON writes the time with exactly three digits of a second.
func (t Millis) MarshalJSON() ([]byte, error) {
	return []byte(t.UTC().Format(`"` + millis + `"`)), nil
}

// UnmarshalJSON reads any time of RFC 3339, and keeps it in UTC.
func (t *Millis) UnmarshalJSON(text []byte) error {
	if err := t.Time.UnmarshalJSON(text); err != nil {
		return fmt.Errorf("time %.40s: %w", text, err)
	}
	t.Time = t.UTC()
	return nil
}
