package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/leadingpeers/seckill/api"
	"github.com/leadingpeers/seckill/pkg/client"
)

func (c *conn) stock() *cobra.Command {
	return c.group("stock", "The units of a product: count, restock, source sold out",
		on2(c, words{"get ACTIVITY PRODUCT", "Show the units in the ledger and in Redis", "get the stock of product"}, view{}, gateway.GetStockWithResponse),
		on2(c, words{"sold-out ACTIVITY PRODUCT", "The source has no more: sell nothing until it is resumed", "sell out product"}, view{}, gateway.SellOutProductWithResponse),
		on2(c, words{"resume ACTIVITY PRODUCT", "The source has it again", "resume product"}, view{}, gateway.ResumeProductWithResponse),
		on2(c, words{"reopen ACTIVITY PRODUCT", "Let a product sell again that the audit has stopped, once its books are right", "reopen product"}, view{}, gateway.ReopenProductWithResponse),
		c.stockRestock())
}

func (c *conn) stockRestock() *cobra.Command {
	var op string
	var delta int64
	cmd := command("restock ACTIVITY PRODUCT", "Add units, or take unsold ones away, once for each --op-id", func(cmd *cobra.Command, args []string) error {
		return call(cmd, c, fmt.Sprintf("restock product %q by %d", args[1], delta), view{}, func(ctx context.Context, g gateway) (*client.RestockProductResponse, error) {
			return g.RestockProductWithResponse(ctx, args[0], args[1], api.Restock{OpID: op, Delta: delta})
		})
	})
	cmd.Flags().StringVar(&op, "op-id", "", "names this operation: sent again under the same `name` it does nothing")
	cmd.Flags().Int64Var(&delta, "delta", 0, "units to add; below 0 to take away")
	return required(cmd, "op-id", "delta")
}

func (c *conn) channel() *cobra.Command {
	return c.group("channel", "Source channels that stock comes from",
		on1(c, words{"sold-out CHANNEL", "Nothing is left: close all of its live products", "sell out channel"}, view{}, gateway.SellOutChannelWithResponse),
		on1(c, words{"resume CHANNEL", "It has stock again", "resume channel"}, view{}, gateway.ResumeChannelWithResponse))
}

func (c *conn) cache() *cobra.Command {
	return c.group("cache", "What Redis holds of a product", c.cachePreload(), c.cacheFlush(),
		on2(c, words{"heal ACTIVITY PRODUCT", "Tell Redis again what the ledger has; safe at any time", "heal product"}, view{}, gateway.HealProductWithResponse))
}

// onOneOrAll is a command on a product, or on all products of an activity.
func onOneOrAll(verb, short string, run func(cmd *cobra.Command, args []string) error) *cobra.Command {
	cmd := command(verb+" ACTIVITY PRODUCT", short, run)
	cmd.Use = verb + " ACTIVITY [PRODUCT]"
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) < 1 || len(args) > 2 {
			return usage(cmd, "want an activity, and perhaps one of its products, got %d arguments", len(args))
		}
		return nil
	}
	return cmd
}

func (c *conn) cachePreload() *cobra.Command {
	v := view{"products", []string{"product_id", "loaded"}}
	return onOneOrAll("preload", "Put products into Redis, from the ledger; safe at any time", func(cmd *cobra.Command, args []string) error {
		if len(args) == 1 {
			return call(cmd, c, fmt.Sprintf("preload activity %q", args[0]), v, func(ctx context.Context, g gateway) (*client.PreloadActivityResponse, error) {
				return g.PreloadActivityWithResponse(ctx, args[0])
			})
		}
		return call(cmd, c, fmt.Sprintf("preload product %q", args[1]), v, func(ctx context.Context, g gateway) (*client.PreloadProductResponse, error) {
			return g.PreloadProductWithResponse(ctx, args[0], args[1])
		})
	})
}

func (c *conn) cacheFlush() *cobra.Command {
	var force bool
	cmd := onOneOrAll("flush", "Take products out of Redis", func(cmd *cobra.Command, args []string) error {
		body := api.Flush{Force: force}
		if len(args) == 1 {
			return call(cmd, c, fmt.Sprintf("flush activity %q", args[0]), view{}, func(ctx context.Context, g gateway) (*client.FlushActivityResponse, error) {
				return g.FlushActivityWithResponse(ctx, args[0], body)
			})
		}
		return call(cmd, c, fmt.Sprintf("flush product %q", args[1]), view{}, func(ctx context.Context, g gateway) (*client.FlushProductResponse, error) {
			return g.FlushProductWithResponse(ctx, args[0], args[1], body)
		})
	})
	cmd.Flags().BoolVar(&force, "force", false, "also while it is on sale or has pending reservations: it costs time, no unit")
	return cmd
}
