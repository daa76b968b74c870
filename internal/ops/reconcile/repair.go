package reconcile

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"github.com/leadingpeers/seckill/internal/audit"
	"github.com/leadingpeers/seckill/internal/mysql"
	"github.com/leadingpeers/seckill/pkg/events"
	"github.com/leadingpeers/seckill/pkg/stock"
)

// Repaired is what a repair has done.
type Repaired struct {
	Published  int      `json:"published"`
	Applied    int      `json:"applied"`
	Loaded     []string `json:"loaded,omitempty"`
	Configured []string `json:"configured,omitempty"`
	Reloaded   []string `json:"reloaded,omitempty"`
	Postponed  []string `json:"postponed,omitempty"` // products to reload in which something is pending
	Left       int      `json:"left"`                // differences that are nobody's to repair blindly
}

// Repair cures the faults of a report by what the protocol does anyway: it
// publishes events again, tells Redis what the ledger says, loads products and
// sets their terms. Each of these may be done at any time and more than once.
// What is under way is left alone.
//
// A product whose sums in Redis are wrong is taken out and loaded again, unless
// something in it is pending: those units would be sold once more, and somebody
// be refused later. Repair it again when they are decided.
//
// What an event brings about takes a moment: look with Check. On an error the
// rest has not been done; repeating is harmless.
func (a *Auditor) Repair(ctx context.Context, r Report) (Repaired, error) {
	faults := r.Faults()
	if len(faults) == 0 {
		return Repaired{}, nil
	}
	if err := a.audit(ctx, faults); err != nil {
		return Repaired{}, err
	}
	var done Repaired
	err := errors.Join(a.apply(ctx, faults, &done), a.publish(ctx, faults, &done))
	for _, d := range faults {
		if d.Repair == ByHand {
			done.Left++
		}
		if err == nil {
			err = a.product(ctx, d, &done)
		}
	}
	if err != nil {
		return done, fmt.Errorf("repair: %w", err)
	}
	return done, nil
}

// apply goes product by product: a field that cannot be read, in one that is
// to be loaded anew, must not keep the others from their decisions.
func (a *Auditor) apply(ctx context.Context, faults []Difference, done *Repaired) error {
	rows, anew := map[string][]stock.Reservation{}, map[string]bool{}
	for _, d := range faults {
		if d.Repair == Apply {
			rows[d.ProductID] = append(rows[d.ProductID], d.row)
		}
		anew[d.ProductID] = anew[d.ProductID] || d.Repair == Reload
	}
	var errs []error
	for product, some := range rows {
		got, err := a.Cache.Apply(ctx, some)
		done.Applied += got.Changed + got.Adopted + got.Tombstones
		if !anew[product] {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (a *Auditor) publish(ctx context.Context, faults []Difference, done *Repaired) error {
	var evs []events.Event
	seen := map[string]bool{}
	for _, d := range faults {
		if d.Repair == Publish && !seen[d.event.ID()] {
			seen[d.event.ID()] = true
			evs = append(evs, d.event)
		}
	}
	for some := range slices.Chunk(evs, 500) {
		if err := a.Publisher.Publish(ctx, some...); err != nil {
			return err
		}
		done.Published += len(some)
	}
	return nil
}

// product does what a difference of a whole product wants, once.
func (a *Auditor) product(ctx context.Context, d Difference, done *Repaired) error {
	if d.Repair != Load && d.Repair != Configure && d.Repair != Reload {
		return nil
	}
	for _, finished := range [][]string{done.Loaded, done.Reloaded, done.Postponed} {
		if slices.Contains(finished, d.ProductID) {
			return nil
		}
	}
	p, err := a.Catalog.Product(ctx, d.ProductID)
	if err != nil {
		return err
	}
	activity, err := a.Catalog.Activity(ctx, p.ActivityID)
	if err != nil {
		return err
	}
	wanted := terms(activity, p)
	switch d.Repair {
	case Configure:
		err = a.Cache.Configure(ctx, wanted)
		done.Configured = append(done.Configured, d.ProductID)
	case Load:
		_, err = stock.Load(ctx, a.Cache, a.Ledger, wanted)
		done.Loaded = append(done.Loaded, d.ProductID)
	case Reload:
		return a.reload(ctx, wanted, done)
	case Publish, Apply, ByHand:
	}
	if errors.Is(err, stock.NotLoaded) {
		return nil // it has vanished: the next look says so
	}
	return err
}

func (a *Auditor) reload(ctx context.Context, wanted stock.Terms, done *Repaired) error {
	for buyer, err := range a.Cache.Buyers(ctx, wanted.ProductID) {
		if err != nil {
			return err
		}
		if slices.ContainsFunc(buyer.Reservations, func(r stock.Reservation) bool { return r.State == stock.Pending }) {
			done.Postponed = append(done.Postponed, wanted.ProductID)
			return nil
		}
	}
	if err := a.Cache.Flush(ctx, wanted.ProductID, true); err != nil {
		return err
	}
	if _, err := stock.Load(ctx, a.Cache, a.Ledger, wanted); err != nil {
		return err
	}
	done.Reloaded = append(done.Reloaded, wanted.ProductID)
	return nil
}

// auditedIDs bounds what one entry of the trail names.
const auditedIDs = 200

// audit writes down what is to be repaired, before it is.
func (a *Auditor) audit(ctx context.Context, faults []Difference) error {
	type detail struct {
		Faults  int            `json:"faults"`
		Kinds   map[Kind]int   `json:"kinds"`
		Repairs map[Repair]int `json:"repairs"`
		First   []string       `json:"first"`
	}
	d := detail{Faults: len(faults), Kinds: map[Kind]int{}, Repairs: map[Repair]int{}}
	for _, f := range faults {
		d.Kinds[f.Kind]++
		d.Repairs[f.Repair]++
		if len(d.First) < auditedIDs {
			d.First = append(d.First, string(f.Kind)+" "+f.ProductID+" "+f.ReservationID)
		}
	}
	err := mysql.InTx(ctx, a.DB, func(tx *sql.Tx) error {
		return audit.Append(ctx, tx, audit.Entry{Action: "RepairBooks", Entity: "books", After: d})
	})
	if err != nil {
		return fmt.Errorf("write down what is repaired: %w", err)
	}
	return nil
}
