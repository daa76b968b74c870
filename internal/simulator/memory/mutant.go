package memory

// Mutant is the protocol without one of its protections. A check that cannot
// see the difference checks nothing.
type Mutant uint8

// The mutants. None is the protocol as it is. Those up to RestockTwice live in
// the stores, the others in what the simulator puts around the handlers.
const (
	None Mutant = iota

	NoUniqueID        // the ledger decides about an ID that it has
	NoStockGuard      // the ledger deducts what it has not
	NoUserGuard       // the ledger does not look at a buyer's limit
	NoRowLock         // the ledger decides on what it has read a while ago
	RollbackTwice     // the ledger gives the units of one reservation back again
	NoCancelledCheck  // the ledger rolls back without a cancelled order
	NoLedgerTombstone // the ledger forgets a rollback that comes first
	TwoOrders         // orders are not unique by reservation
	CancelPaid        // a cancellation does not look at the order's state
	PayCancelled      // a payment does not look at the order's state
	AnnounceLater     // the messages of a cancellation are not in its transaction
	RelayDeletesFirst // a message leaves the outbox before it is published

	NoAdopt           // Redis notes a deduction that it had lost, and takes no units
	NoRedisTombstone  // Redis ignores the rollback of what it does not know
	RollbackAgain     // Redis gives the units of one reservation back again
	NoRecordedAnswer  // Redis checks stock and limits before it looks for the ID
	NoRedisUserLimit  // Redis does not look at a buyer's limit
	PreloadOverwrites // a load replaces a product that is there
	RestockTwice      // Redis takes a change of the total again

	CommitFirst        // the offset is committed before what follows is published
	ApplyAtBest        // the offset is committed although Redis has not been told
	DeadLetterOutage   // a fault is treated as one that no retry can cure
	AckFirst           // 202 is answered before Kafka has the event
	NoReaper           // what stays pending is found, and not announced again
	NoSweeper          // nobody announces again what stands still in MySQL
	NoRelay            // nobody publishes the outbox
	NoHealAfterLoss    // nobody notices that Redis has restarted
	NoHealAfterLoad    // what was decided around a load is not applied afterwards
	HealDeductionsOnly // a heal leaves out what was refused or rolled back
	mutants
)

// String returns the mutant's name on the command line.
func (m Mutant) String() string { return names()[m] }

// Mutants lists all but None.
func Mutants() []Mutant {
	var out []Mutant
	for m := None + 1; m < mutants; m++ {
		out = append(out, m)
	}
	return out
}

// MutantOf returns the mutant of a name.
func MutantOf(name string) (Mutant, bool) {
	for m := None; m < mutants; m++ {
		if m.String() == name {
			return m, true
		}
	}
	return None, false
}

func names() [mutants]string {
	return [mutants]string{
		None: "none", NoUniqueID: "no-unique-id", NoStockGuard: "no-stock-guard", NoUserGuard: "no-user-guard",
		NoRowLock: "no-row-lock", RollbackTwice: "rollback-twice", NoCancelledCheck: "no-cancelled-check",
		NoLedgerTombstone: "no-ledger-tombstone", TwoOrders: "two-orders", CancelPaid: "cancel-paid",
		PayCancelled: "pay-cancelled", AnnounceLater: "announce-later", RelayDeletesFirst: "relay-deletes-first",
		NoAdopt: "no-adopt", NoRedisTombstone: "no-redis-tombstone", RollbackAgain: "rollback-again",
		NoRecordedAnswer: "no-recorded-answer", NoRedisUserLimit: "no-redis-user-limit",
		PreloadOverwrites: "preload-overwrites", RestockTwice: "restock-twice", CommitFirst: "commit-first",
		ApplyAtBest: "apply-at-best", DeadLetterOutage: "dead-letter-outage", AckFirst: "ack-first",
		NoReaper: "no-reaper", NoSweeper: "no-sweeper", NoRelay: "no-relay", NoHealAfterLoss: "no-heal-after-loss",
		NoHealAfterLoad: "no-heal-after-load", HealDeductionsOnly: "heal-deductions-only",
	}
}
