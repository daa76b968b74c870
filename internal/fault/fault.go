// Package fault marks the windows in which our processes must be able to die,
// and the protections without which they must not survive. In a binary built as
// usual all of it is nothing: the functions are empty and inlined. With
// -tags faults, as cmd/torture builds, the environment says where a process
// ends itself or waits, and which protection is taken out.
package fault

// The windows, in the order of a reservation's way. Each is a place between two
// effects that cannot be made one.
const (
	AfterLua       = "after-lua"       // gateway: units taken in Redis, nothing published
	AfterAck       = "after-ack"       // gateway: Kafka has the event, the buyer has no answer
	InLedger       = "in-ledger"       // stock-worker: rows written, the transaction not committed
	AfterLedger    = "after-ledger"    // stock-worker: decided in MySQL, told nobody
	BeforeTelling  = "before-telling"  // worker: handled, what follows not published
	BeforeCommit   = "before-commit"   // worker: published, the offset not committed
	AfterCommit    = "after-commit"    // worker: the offset committed
	AfterRollback  = "after-rollback"  // stock-worker: units back in MySQL, not in Redis
	AfterReap      = "after-reap"      // stock-worker: found in Redis, not published again
	AfterFill      = "after-fill"      // loader: half of the product in a temporary hash
	AfterLoad      = "after-load"      // loader: the product in Redis, not healed
	InHeal         = "in-heal"         // healer: some rows applied, others not
	AfterOrder     = "after-order"     // settle-worker: orders written, nothing published
	AfterPayment   = "after-payment"   // settle-worker: paid, nothing published
	InCancellation = "in-cancellation" // settle-worker, gateway: cancelled, the outbox written, not committed
	AfterRelay     = "after-relay"     // settle-worker: published from the outbox, not deleted there
)

// Points lists the windows that a process of a role comes to.
func Points(role string) []string {
	switch role {
	case "gateway":
		return []string{AfterLua, AfterAck, InCancellation, AfterFill, AfterLoad}
	case "stock-worker":
		return []string{InLedger, AfterLedger, BeforeTelling, BeforeCommit, AfterCommit, AfterRollback, AfterReap, AfterFill, AfterLoad, InHeal}
	default:
		return []string{BeforeTelling, BeforeCommit, AfterCommit, AfterOrder, AfterPayment, InCancellation, AfterRelay}
	}
}

// The protections that can be taken out.
const (
	RecordedAnswer = "recorded-answer" // a known ID gets its answer before anything is checked
	Adopt          = "adopt"           // a deduction that Redis has lost takes its units there again
	Heal           = "heal"            // Redis is told again what the ledger has
	Reaper         = "reaper"          // what stays pending is published again
	AckBefore202   = "ack-before-202"  // a buyer is answered after Kafka has the event
	StockGuard     = "stock-guard"     // the ledger refuses what it does not have
	UserGuard      = "user-guard"      // the ledger refuses more than a buyer may hold
	SeenBefore     = "seen-before"     // the ledger looks for the ID before it decides
	RollbackOnce   = "rollback-once"   // units are given back once
	CancelledOnly  = "cancelled-only"  // units are given back only when the order is cancelled
	RestockOnce    = "restock-once"    // an operation's ID restocks once
	PayCAS         = "pay-cas"         // only an order that awaits payment is paid
	CancelCAS      = "cancel-cas"      // only an order that awaits payment is cancelled
)

// Protections lists every one of them.
func Protections() []string {
	return []string{
		RecordedAnswer, Adopt, Heal, Reaper, AckBefore202, StockGuard, UserGuard, SeenBefore, RollbackOnce, CancelledOnly, RestockOnce, PayCAS, CancelCAS,
	}
}
