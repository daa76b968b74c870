package simulator

import (
	"context"
	"iter"
	"time"

	"github.com/leadingpeers/seckill/internal/simulator/memory"
	"github.com/leadingpeers/seckill/pkg/catalog"
	"github.com/leadingpeers/seckill/pkg/events"
	"github.com/leadingpeers/seckill/pkg/order"
	"github.com/leadingpeers/seckill/pkg/stock"
)

// ledgerWire is the ledger as the workers reach it.
type ledgerWire struct{ *Simulator }

func (w ledgerWire) Deduct(_ context.Context, product string, rs []stock.Reservation) (out []stock.Reservation, err error) {
	var no error
	if w.mutant == memory.NoRowLock {
		var commit func()
		if err := w.cross(mysql, "deduct, reading", func() { out, commit, no = w.mysql.Decide(product, rs) }); err != nil || no != nil {
			return nil, firstOf(err, no)
		}
		err = w.cross(mysql, "deduct, writing", func() { commit(); w.touch() })
		return out, err
	}
	err = w.transact(product, "deduct", func() {
		out, no = w.mysql.Deduct(product, rs)
		w.sayRows("deduct", out)
		w.touch()
	})
	return out, firstOf(err, no)
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (w ledgerWire) Rollback(_ context.Context, product string, rs []stock.Reservation) (out []stock.Reservation, err error) {
	var no error
	err = w.transact(product, "roll back", func() {
		out, no = w.mysql.Rollback(product, rs)
		w.sayRows("roll back", out)
		w.touch()
	})
	return out, firstOf(err, no)
}

func (w ledgerWire) Find(_ context.Context, id string) (out stock.Reservation, err error) {
	var no error
	err = w.cross(mysql, "find", func() { out, no = w.mysql.Find(id) })
	return out, firstOf(err, no)
}

func (w ledgerWire) SetSoldOut(_ context.Context, products []string, soldOut bool) (out []string, err error) {
	var no error
	err = w.cross(mysql, "set sold out", func() { out, no = w.mysql.SetSoldOut(products, soldOut) })
	return out, firstOf(err, no)
}

func (w ledgerWire) Snapshot(_ context.Context, product string, use func(units stock.Units, rows iter.Seq2[stock.Reservation, error]) error) error {
	var units stock.Units
	var rows []stock.Reservation
	var no error
	mine := w.current
	free := func() bool {
		held := w.locks[product] == mine
		if held {
			delete(w.locks, product)
		}
		return held
	}
	defer free() // also when the process dies
	err := w.transact(product, "snapshot", func() {
		units, rows, no = w.mysql.Snapshot(product)
		w.locks[product] = mine
	})
	if err := firstOf(err, no); err != nil {
		return err
	}
	if err := use(units, each(rows)); err != nil {
		return err
	}
	held := false
	err = w.cross(mysql, "commit", func() { held = free() })
	if err == nil && !held {
		return errMySQL
	}
	return err
}

// each yields rows.
func each(rows []stock.Reservation) iter.Seq2[stock.Reservation, error] {
	return func(yield func(stock.Reservation, error) bool) {
		for _, r := range rows {
			if !yield(r, nil) {
				return
			}
		}
	}
}

func (w ledgerWire) Changed(_ context.Context, product string, within time.Duration) iter.Seq2[stock.Reservation, error] {
	return func(yield func(stock.Reservation, error) bool) {
		var rows []stock.Reservation
		if err := w.cross(mysql, "changed", func() { rows = w.mysql.Changed(product, within) }); err != nil {
			yield(stock.Reservation{}, err)
			return
		}
		each(rows)(yield)
	}
}

// orderWire is the order store as the workers reach it.
type orderWire struct{ *Simulator }

func (w orderWire) Place(_ context.Context, orders []order.Order) (out []order.Order, err error) {
	if err := w.cross(mysql, "place", func() { out = w.mysql.Insert(orders); w.touch() }); err != nil {
		return nil, err
	}
	var no error
	err = w.cross(mysql, "read the orders", func() {
		if out == nil { // else only their time is read
			out, no = w.mysql.Placed(orders)
		}
	})
	return out, firstOf(err, no)
}

func (w orderWire) Pay(_ context.Context, p order.Payment) (o order.Order, err error) {
	for {
		changed, again := false, false
		var no error
		err := w.cross(mysql, "pay", func() { changed, no = w.mysql.SetPaid(p); w.touch() })
		if err := firstOf(err, no); err != nil {
			return order.Order{}, err
		}
		err = w.cross(mysql, "read the order", func() { o, again, no = w.mysql.PaidBy(p, changed) })
		if err != nil || !again {
			return o, firstOf(err, no)
		}
	}
}

func (w orderWire) PayAll(_ context.Context, payments []order.Payment) (out map[string]order.Order, err error) {
	done := false
	if err := w.cross(mysql, "pay all", func() { done = w.mysql.SetAllPaid(payments); w.touch() }); err != nil || !done {
		return nil, err
	}
	err = w.cross(mysql, "read the orders", func() { out = w.mysql.AllPaid(payments) })
	return out, err
}

func (w orderWire) Ended(_ context.Context, payments []order.Payment) (out map[order.Payment]order.Outcome, err error) {
	if len(payments) == 0 {
		return nil, nil
	}
	err = w.cross(mysql, "read the ended orders", func() { out = w.mysql.Ended(payments) })
	return out, err
}

func (w orderWire) Cancel(ctx context.Context, reservation, reason string, announce func(order.Order) []order.Message) (o order.Order, err error) {
	var no error
	var late []order.Message
	err = w.cross(mysql, "cancel", func() { o, late, no = w.mysql.Cancel(reservation, reason, announce); w.touch() })
	if err := firstOf(err, no); err != nil {
		return o, err
	}
	return o, w.announce(ctx, late)
}

// announce publishes what a mutant has left out of the transaction.
func (w orderWire) announce(ctx context.Context, late []order.Message) error {
	for _, m := range late {
		e, err := events.Decode(events.Type(m.Type), m.Body)
		if err != nil {
			return err
		}
		if err := logWire(w).Publish(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

func (w orderWire) Expire(ctx context.Context, limit int, announce func(order.Order) []order.Message) (n int, err error) {
	var late []order.Message
	if err := w.cross(mysql, "expire", func() { n, late = w.mysql.Expire(limit, announce); w.touch() }); err != nil {
		return 0, err
	}
	return n, w.announce(ctx, late)
}

func (w orderWire) Relay(ctx context.Context, limit int, publish func(context.Context, []order.Message) error) (int, error) {
	w.transactions++
	mine := w.transactions
	var messages []order.Message
	defer w.mysql.Release(mine) // also when the process dies: its connection breaks
	err := w.cross(mysql, "take from the outbox", func() { messages = w.mysql.Take(mine, limit) })
	if err != nil || len(messages) == 0 {
		return 0, err
	}
	if w.mutant == memory.RelayDeletesFirst {
		if err := w.cross(mysql, "delete from the outbox", func() { w.mysql.Relayed(mine) }); err != nil {
			return 0, err
		}
		return len(messages), publish(ctx, messages)
	}
	if err := publish(ctx, messages); err != nil {
		return 0, err
	}
	err = w.cross(mysql, "delete from the outbox", func() { w.mysql.Relayed(mine) })
	return len(messages), err
}

func (w orderWire) OutboxAge(context.Context) (int64, time.Time, error) { return 0, time.Time{}, nil }

func (w orderWire) Unsettled(_ context.Context, olderThan time.Duration, limit int) (out []order.Order, err error) {
	err = w.cross(mysql, "unsettled", func() { out = w.mysql.Unsettled(olderThan, limit) })
	return out, err
}

func (w orderWire) Unreturned(_ context.Context, olderThan time.Duration, limit int) (out []order.Order, err error) {
	err = w.cross(mysql, "unreturned", func() { out = w.mysql.Unreturned(olderThan, limit) })
	return out, err
}

// catalogueWire is the catalogue as the workers reach it.
type catalogueWire struct{ *Simulator }

func (w catalogueWire) OnSale(context.Context) (out []catalog.Listing, err error) {
	err = w.cross(mysql, "on sale", func() { out = w.mysql.OnSale() })
	return out, err
}

func (w catalogueWire) Offers(_ context.Context, products []string) (out map[string]catalog.Offer, err error) {
	err = w.cross(mysql, "offers", func() { out = w.mysql.Offers(products) })
	return out, err
}
