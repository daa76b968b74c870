package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/leadingpeers/seckill/api"
	"github.com/leadingpeers/seckill/pkg/client"
)

func (c *conn) order() *cobra.Command {
	return c.group("order", "What was bought",
		c.orderList(), on1(c, words{"get ORDER", "Show an order", "get order"}, view{}, gateway.GetOrderWithResponse), c.orderExport(), c.orderPay())
}

// filter are the flags that choose orders.
type filter struct{ activity, product, user, state string }

func (f *filter) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.activity, "activity", "", "only of this `activity`")
	cmd.Flags().StringVar(&f.product, "product", "", "only of this `product`")
	cmd.Flags().StringVar(&f.user, "user", "", "only of this `user`")
	cmd.Flags().StringVar(&f.state, "state", "", "only those that are awaiting_payment, paid or cancelled")
}

func (f *filter) params() api.ListOrdersParams {
	var p api.ListOrdersParams
	for _, set := range []struct {
		from string
		to   **string
	}{{f.activity, &p.ActivityID}, {f.product, &p.ProductID}, {f.user, &p.UserID}} {
		if set.from != "" {
			*set.to = &set.from
		}
	}
	if f.state != "" {
		p.State = new(api.OrderState(f.state))
	}
	return p
}

func (c *conn) orderList() *cobra.Command {
	var f filter
	cmd := command("list", "List orders, oldest first", func(cmd *cobra.Command, _ []string) error {
		params := f.params()
		v := view{"orders", []string{"id", "reservation_id", "product_id", "user_id", "quantity", "amount_cents", "currency", "state", "reason"}}
		return pages(cmd, c, "list orders", v, func(ctx context.Context, g gateway, token *string) (*client.ListOrdersResponse, error) {
			params.PageToken = token
			return g.ListOrdersWithResponse(ctx, &params)
		})
	})
	f.flags(cmd)
	return cmd
}

func (c *conn) orderExport() *cobra.Command {
	var f filter
	cmd := command("export", "Write all orders as CSV", func(cmd *cobra.Command, _ []string) error {
		p := f.params()
		return c.with(cmd, "export orders", func(ctx context.Context, g gateway) error {
			stream, err := g.ExportOrders(ctx, &api.ExportOrdersParams{ActivityID: p.ActivityID, ProductID: p.ProductID, UserID: p.UserID, State: p.State})
			if err != nil {
				return err
			}
			defer func() { _ = stream.Body.Close() }()
			_, err = io.Copy(cmd.OutOrStdout(), stream.Body)
			return err
		})
	})
	f.flags(cmd)
	return cmd
}

func (c *conn) orderPay() *cobra.Command {
	var body api.Payment
	var failed bool
	cmd := command("pay RESERVATION", "Tell that the payment of a reservation's order succeeded, or failed", func(cmd *cobra.Command, args []string) error {
		body.ReservationID, body.Outcome = args[0], api.PaymentOutcomeSucceeded
		if failed {
			body.Outcome = api.PaymentOutcomeFailed
		}
		return call(cmd, c, fmt.Sprintf("record the payment of reservation %q", args[0]), view{}, func(ctx context.Context, g gateway) (*client.RecordPaymentResponse, error) {
			return g.RecordPaymentWithResponse(ctx, body)
		})
	})
	cmd.Flags().StringVar(&body.PaymentRef, "ref", "", "the payment provider's `name` of it")
	cmd.Flags().Int64Var(&body.AmountCents, "amount-cents", 0, "the amount of the order")
	cmd.Flags().StringVar(&body.Currency, "currency", "", "ISO 4217, such as CNY")
	cmd.Flags().BoolVar(&failed, "failed", false, "it did not succeed and will not: the order is cancelled and its units go back")
	return required(cmd, "ref", "amount-cents", "currency")
}
