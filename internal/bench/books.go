package bench

import (
	"context"
	"fmt"

	"github.com/leadingpeers/seckill/internal/bench/load"
	"github.com/leadingpeers/seckill/internal/bench/site"
	"github.com/leadingpeers/seckill/pkg/events"
)

// books are the accounts of the same units after a run: what buyers were told,
// what Redis has given, what Kafka has got, what MySQL has taken and ordered.
type books struct {
	sent     load.Result
	redis    int64
	topic    int64
	deducted int64
	orders   int64
	workers  bool // they ran: deducted and orders count too
}

// check reports the first account that differs. With requests that were turned
// away under load units may be taken that nobody was promised: the buyer's
// retry would find them. Kafka may have an event twice: a request that was
// repeated, or the reaper's. What was promised must be there in any case.
func (k books) check() error {
	promised, turnedAway := k.sent.Accepted, k.sent.Busy > 0
	differ := func(what string, n int64, mayBeMore bool) error {
		if n == promised || (mayBeMore && n > promised) {
			return nil
		}
		return fmt.Errorf("the books do not balance: buyers were promised %d, %s %d (%d refused, %d turned away)", promised, what, n, k.sent.Refused, k.sent.Busy)
	}
	if err := differ("Redis has given", k.redis, turnedAway); err != nil {
		return err
	}
	if err := differ("Kafka has got", k.topic, true); err != nil {
		return err
	}
	if !k.workers {
		return nil
	}
	if err := differ("the ledger has deducted", k.deducted, turnedAway); err != nil {
		return err
	}
	if k.orders != k.deducted {
		return fmt.Errorf("the books do not balance: %d deducted, %d orders", k.deducted, k.orders)
	}
	return nil
}

// door is one run of buyers at some gateways.
type door struct {
	b      *bench
	sale   site.Sale
	before int64 // records in the topic
}

// open puts new products on sale and waits until the gateways have them.
func (b *bench) open(ctx context.Context, products int, units int64, gateways ...string) (*door, error) {
	sale, err := b.site.Sale(ctx, products, units)
	if err != nil {
		return nil, err
	}
	for _, g := range gateways {
		if err := b.site.Await(ctx, g, sale); err != nil {
			return nil, err
		}
	}
	before, err := b.site.Records(ctx, events.Reservations)
	return &door{b: b, sale: sale, before: before}, err
}

// close checks the books of a run without workers and takes the sale out of Redis.
func (d *door) close(ctx context.Context, sent load.Result) error {
	k, err := d.count(ctx, sent)
	if err != nil {
		return err
	}
	if err := k.check(); err != nil {
		return err
	}
	return d.b.site.Flush(ctx, d.sale)
}

func (d *door) count(ctx context.Context, sent load.Result) (books, error) {
	taken, err := d.b.site.Taken(ctx, d.sale)
	if err != nil {
		return books{}, err
	}
	records, err := d.b.site.Records(ctx, events.Reservations)
	return books{sent: sent, redis: taken, topic: records - d.before}, err
}
