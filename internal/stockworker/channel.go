package stockworker

import (
	"context"
	"fmt"

	"github.com/leadingpeers/seckill/pkg/catalog"
	"github.com/leadingpeers/seckill/pkg/events"
)

// SoldOuter says of products whether their source has none left. *stock.Ledger
// is one.
type SoldOuter interface {
	SetSoldOut(ctx context.Context, productIDs []string, soldOut bool) (changed []string, err error)
}

// Channel returns the handler of the topic channels: what a source channel
// says of its stock is said of each live product that comes from it, in the
// ledger. Redis follows within a second, by the Healer. Nothing follows from it.
//
// A fault is worth repeating, and repeating is harmless. An error that is
// events.Permanent is of another type of event; nothing has changed for it.
func Channel(catalogue Catalogue, ledger SoldOuter) events.Handler {
	return func(ctx context.Context, batch []events.Event) ([]events.Event, error) {
		for _, e := range batch {
			if e.Type != events.ChannelSoldOut && e.Type != events.ChannelResumed {
				return nil, events.Permanent(fmt.Errorf("event of type %.64q on the topic of channels", e.Type))
			}
		}
		listings, err := catalogue.OnSale(ctx)
		if err != nil {
			return nil, err
		}
		for _, e := range batch { // in their order: the last word counts
			if _, err := ledger.SetSoldOut(ctx, fed(listings, e.Channel), e.Type == events.ChannelSoldOut); err != nil {
				return nil, fmt.Errorf("channel %s: %w", e.Channel, err)
			}
		}
		return nil, nil
	}
}

// fed are the live products whose stock comes from a channel.
func fed(listings []catalog.Listing, channel string) (ids []string) {
	for _, l := range listings {
		for _, p := range l.Products {
			if p.Channel == channel && l.Activity.State != catalog.Ended {
				ids = append(ids, p.ID)
			}
		}
	}
	return ids
}
