// Package lua holds the text of the scripts that run inside Redis, one file
// each. It holds nothing else: pkg/stock knows how to call them. The head of
// each file says what it takes, what it replies and what it keeps true.
package lua

import _ "embed" // the scripts are files, so that editors and readers know what they are

// The scripts, each for one product per call. All keys of a call share the
// hash tag {product}, as Redis Cluster wants it.
var (
	// Reserve takes units for a batch of buyers.
	//go:embed reserve.lua
	Reserve string
	// Apply makes Redis agree with the ledger about a batch of reservations.
	//go:embed apply.lua
	Apply string
	// Reap finds reservations that have been pending for too long.
	//go:embed reap.lua
	Reap string
	// Preload puts a product into Redis from the ledger.
	//go:embed preload.lua
	Preload string
	// Configure sets the terms of a loaded product.
	//go:embed configure.lua
	Configure string
	// Balance reads surplus and pending units of a product at one instant.
	//go:embed balance.lua
	Balance string
)
