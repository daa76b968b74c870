package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/leadingpeers/seckill/internal/app"
	"github.com/leadingpeers/seckill/internal/audit"
	"github.com/leadingpeers/seckill/internal/ops/reconcile"
)

// books are the flags of reconcile.
type books struct {
	activity, output, actor string
	grace, sweepGrace       time.Duration
	watch, yes              bool
	every, wait             time.Duration
	limit                   int
}

func reconcileCommand() *cobra.Command {
	var b books
	cmd := &cobra.Command{
		Use:   "reconcile",
		Short: "Compare Redis, the ledger, the orders and the topics, and explain every difference",
		Long: `Reads each store once and compares them both ways, reservation by reservation.
What is under way in a live sale is explained and is no fault while it is young.
Exit status: 0 balanced, 3 not, 1 when a store cannot be read. Nothing changes.`,
		Args: cobra.NoArgs,
	}
	fs := cmd.PersistentFlags()
	app.Flags(fs, "")
	fs.StringVar(&b.activity, "activity", "", "only this activity; default all on sale, paused, or ended within the hour")
	fs.DurationVar(&b.grace, "grace", 30*time.Second, "how long what workers, reaper and healer do may take before it is a fault")
	fs.DurationVar(&b.sweepGrace, "sweep-grace", 150*time.Second, "the same for what the sweeper does")
	fs.StringVarP(&b.output, "output", "o", "table", "table or json")
	fs.IntVar(&b.limit, "limit", 50, "most differences shown in a table")
	cmd.Flags().BoolVar(&b.watch, "watch", false, "look again and again until told to end")
	cmd.Flags().DurationVar(&b.every, "every", 5*time.Second, "pause of --watch")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return b.with(cmd, b.check) }
	repair := &cobra.Command{
		Use:   "repair",
		Short: "Repair what the protocol's own operations can; without --yes only say what would be done",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return b.with(cmd, b.repair) },
	}
	repair.Flags().BoolVar(&b.yes, "yes", false, "do it")
	repair.Flags().DurationVar(&b.wait, "wait", 30*time.Second, "how long to go on looking and repairing until the books balance")
	repair.Flags().StringVar(&b.actor, "actor", "", "who does this, for the audit trail; default the user of this machine")
	cmd.AddCommand(repair)
	return cmd
}

// with opens the stores for do.
func (b *books) with(cmd *cobra.Command, do func(context.Context, io.Writer, *reconcile.Auditor) error) error {
	cfg, err := app.Load(cmd.Flags(), os.Environ())
	if err != nil {
		return err
	}
	stores, err := app.Open(cmd.Context(), cfg, "reconcile", nil)
	if err != nil {
		return err
	}
	defer func() { _ = stores.Close(cmd.Context()) }()
	return do(cmd.Context(), cmd.OutOrStdout(), &reconcile.Auditor{
		Cache: stores.Cache, Ledger: stores.Ledger, Orders: stores.Orders, Catalog: stores.Catalog,
		Kafka: stores.Kafka, Publisher: stores.Publisher, DB: stores.DB, Grace: b.grace, SweepGrace: b.sweepGrace,
	})
}

func (b *books) check(ctx context.Context, w io.Writer, a *reconcile.Auditor) error {
	for {
		r, err := a.Check(ctx, b.activity)
		if err != nil {
			return err
		}
		if err := b.show(w, r); err != nil {
			return err
		}
		if !b.watch || !pause(ctx, b.every) {
			return verdict(r)
		}
	}
}

// pause returns false when ctx has ended.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func verdict(r reconcile.Report) error {
	if r.Balanced {
		return nil
	}
	return checkFailed{fmt.Errorf("the books do not balance: %d differences that nothing under way explains\n  fix:   seckill reconcile repair (it says first what it would do)", len(r.Faults()))}
}

func (b *books) repair(ctx context.Context, w io.Writer, a *reconcile.Auditor) error {
	ctx = audit.With(ctx, audit.Actor{KeyID: auditActor(b.actor)})
	deadline := time.Now().Add(b.wait)
	for {
		r, err := a.Check(ctx, b.activity)
		if err != nil {
			return err
		}
		if r.Differences = r.Faults(); !b.yes || r.Balanced {
			return errors.Join(b.show(w, r), b.wouldRepair(w, r), verdict(r))
		}
		if err := b.show(w, r); err != nil {
			return err
		}
		done, err := a.Repair(ctx, r)
		if err := errors.Join(err, b.encode(w, done, "published %d events, applied %d rows, loaded %v, configured %v, reloaded %v, postponed %v, left %d\n",
			done.Published, done.Applied, done.Loaded, done.Configured, done.Reloaded, done.Postponed, done.Left)); err != nil {
			return err
		}
		if len(r.Differences) == done.Left || time.Now().After(deadline) || !pause(ctx, 2*time.Second) {
			break
		}
	}
	r, err := a.Check(ctx, b.activity)
	if err != nil {
		return err
	}
	return errors.Join(b.show(w, r), verdict(r))
}

func (b *books) wouldRepair(w io.Writer, r reconcile.Report) error {
	if b.yes || r.Balanced || b.output == "json" {
		return nil
	}
	_, err := fmt.Fprintln(w, "nothing was done: --yes does what the column REPAIR says")
	return err
}

// encode prints v as JSON, or the text.
func (b *books) encode(w io.Writer, v any, format string, args ...any) error {
	if b.output == "json" {
		return json.NewEncoder(w).Encode(v)
	}
	_, err := fmt.Fprintf(w, format, args...)
	return err
}

func (b *books) show(w io.Writer, r reconcile.Report) error {
	if b.output == "json" {
		return json.NewEncoder(w).Encode(r)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, "PRODUCT\tTOTAL\tREDIS SURPLUS+PENDING+HELD\tLEDGER AVAILABLE+DEDUCTED\tORDERS PAID+AWAITING\tCANCELLED")
	for _, p := range r.Products {
		redis := fmt.Sprintf("%d+%d+%d", p.Surplus, p.Pending, p.Held)
		if !p.Loaded {
			redis = "not loaded"
		}
		_, _ = fmt.Fprintf(t, "%s\t%d\t%s\t%d+%d\t%d+%d\t%d\n", p.ProductID, p.Total, redis, p.Available, p.Deducted, p.Paid, p.Awaiting, p.Cancelled)
	}
	if len(r.Differences) > 0 {
		_, _ = fmt.Fprintln(t, "\nFAULT\tKIND\tPRODUCT\tRESERVATION\tREPAIR\tWHY")
	}
	for i, d := range r.Differences {
		if i == b.limit {
			_, _ = fmt.Fprintf(t, "… and %d more: --limit, or -o json\n", len(r.Differences)-i)
			break
		}
		_, _ = fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", map[bool]string{true: "no", false: "YES"}[d.UnderWay], d.Kind, d.ProductID, d.ReservationID, d.Repair, plainText(d.Says, 300))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	faults := len(r.Faults())
	_, err := fmt.Fprintf(w, "\n%s: %d products, %d events read, %d faults, %d under way\n", r.At.Format(time.RFC3339), len(r.Products), r.Events, faults, len(r.Differences)-faults)
	return err
}
