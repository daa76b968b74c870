package stock

// keys is the one home of the names in Redis. All keys of a product share the
// hash tag {product}, so a script may use them together in a cluster.
type keys struct{ prefix string }

// product names the hash with a product's terms, surplus and buyers.
func (k keys) product(productID string) string { return k.prefix + ":{" + productID + "}" }

// open names the list of buyers who have something pending.
func (k keys) open(productID string) string { return k.product(productID) + ":open" }

// load names the temporary hash of one loader.
func (k keys) load(productID, nonce string) string { return k.product(productID) + ":load:" + nonce }

// The fields of a product's hash.
const (
	surplusField  = "surplus"
	stateField    = "state"
	startsAtField = "starts_at"
	endsAtField   = "ends_at"
	loadField     = "load"
	termFields    = 9    // surplus, per_order, per_user, state, starts_at, ends_at, total, restocks, load
	userPrefix    = "u:" // before a buyer's ID
)
