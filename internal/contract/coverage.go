package contract

import (
	"fmt"
	"slices"
	"strconv"
	"sync"
)

// Coverage is which answers of which operations a suite of tests has seen. The
// zero Coverage is ready to use, by many tests at once.
type Coverage struct {
	mu   sync.Mutex
	seen map[string]bool
}

func answer(operation, status string) string { return operation + " " + status }

func (c *Coverage) add(operation string, status int) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen == nil {
		c.seen = map[string]bool{}
	}
	c.seen[answer(operation, strconv.Itoa(status))] = true
}

// Missing lists the answers that the contract describes and nobody has seen,
// as "<operation> <status>".
func (c *Coverage) Missing() ([]string, error) {
	contract, err := Load()
	if err != nil {
		return nil, fmt.Errorf("api/openapi.yaml: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for _, item := range contract.Doc.Paths.Map() {
		for _, op := range item.Operations() {
			for status := range op.Responses.Map() {
				if one := answer(op.OperationID, status); !c.seen[one] {
					out = append(out, one)
				}
			}
		}
	}
	slices.Sort(out)
	return out, nil
}
