package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/leadingpeers/seckill/api"
	"github.com/leadingpeers/seckill/pkg/client"
)

func (c *conn) product() *cobra.Command {
	return c.group("product", "Items of an activity, with price, total and limits",
		c.productAdd(), c.productList(), c.productGet(), c.productUpdate(), c.productDelete())
}

// item are the flags of a product.
type item struct {
	name, image, channel, currency  string
	price, total, perOrder, perUser int64
}

func (f *item) flags(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&f.name, "name", "", "its `name`, 1 to 120 characters")
	fs.StringVar(&f.image, "image-url", "", "an http or https `address`")
	fs.StringVar(&f.channel, "channel", "", "the source `channel` its stock comes from")
	fs.Int64Var(&f.price, "price-cents", 0, "price of one unit, in cents")
	fs.StringVar(&f.currency, "currency", "", "ISO 4217, such as CNY")
	fs.Int64Var(&f.total, "total", 0, "units on sale")
	fs.Int64Var(&f.perOrder, "per-order", 1, "most units in one order")
	fs.Int64Var(&f.perUser, "per-user", 1, "most units of one user")
}

func (c *conn) productAdd() *cobra.Command {
	var f item
	var id string
	cmd := command("add ACTIVITY", "Add a product to a draft or paused activity", func(cmd *cobra.Command, args []string) error {
		return call(cmd, c, fmt.Sprintf("add product %q to activity %q", id, args[0]), view{}, func(ctx context.Context, g gateway) (*client.AddProductResponse, error) {
			return g.AddProductWithResponse(ctx, args[0], api.ProductCreate{
				ID: id, Name: f.name, ImageURL: f.image, Channel: f.channel, PriceCents: f.price, Currency: f.currency,
				Total: f.total, PerOrder: f.perOrder, PerUser: f.perUser,
			})
		})
	})
	cmd.Flags().StringVar(&id, "id", "", "its `ID`, 1 to 36 characters of a-z, 0-9 and hyphens; made up when it is not given")
	f.flags(cmd)
	return required(cmd, "name", "price-cents", "currency", "total")
}

func (c *conn) productList() *cobra.Command {
	columns := []string{"id", "name", "price_cents", "currency", "total", "available", "sold_out", "per_order", "per_user", "channel"}
	return command("list ACTIVITY", "List the products of an activity", func(cmd *cobra.Command, args []string) error {
		return pages(cmd, c, fmt.Sprintf("list the products of activity %q", args[0]), view{"products", columns}, func(ctx context.Context, g gateway, token *string) (*client.ListProductsResponse, error) {
			return g.ListProductsWithResponse(ctx, args[0], &api.ListProductsParams{PageToken: token})
		})
	})
}

func (c *conn) productGet() *cobra.Command {
	return command("get ACTIVITY PRODUCT", "Show a product", func(cmd *cobra.Command, args []string) error {
		return call(cmd, c, fmt.Sprintf("get product %q", args[1]), view{}, func(ctx context.Context, g gateway) (*client.GetProductResponse, error) {
			return g.GetProductWithResponse(ctx, args[0], args[1], nil)
		})
	})
}

// productVersion is the ETag of a product as it is now, unless the caller has
// given one.
func productVersion(ctx context.Context, g gateway, activity, product, given string) (*string, error) {
	if given != "" {
		return &given, nil
	}
	got, err := g.GetProductWithResponse(ctx, activity, product, nil)
	if err != nil {
		return nil, err
	}
	return new(got.HTTPResponse.Header.Get("ETag")), nil
}

// update is what the flags that were given change.
func (f *item) update(cmd *cobra.Command) api.ProductUpdate {
	given := cmd.Flags().Changed
	var body api.ProductUpdate
	body.Name, body.Currency, body.Total = f.name, f.currency, f.total
	if given("image-url") {
		body.ImageURL = &f.image
	}
	if given("channel") {
		body.Channel = &f.channel
	}
	if given("price-cents") {
		body.PriceCents = &f.price
	}
	if given("per-order") {
		body.PerOrder = f.perOrder
	}
	if given("per-user") {
		body.PerUser = f.perUser
	}
	return body
}

func (c *conn) productUpdate() *cobra.Command {
	var f item
	var etag string
	cmd := command("update ACTIVITY PRODUCT", "Change what the flags name; not while the activity is online", func(cmd *cobra.Command, args []string) error {
		return call(cmd, c, fmt.Sprintf("update product %q", args[1]), view{}, func(ctx context.Context, g gateway) (*client.UpdateProductResponse, error) {
			match, err := productVersion(ctx, g, args[0], args[1], etag)
			if err != nil {
				return nil, err
			}
			return g.UpdateProductWithResponse(ctx, args[0], args[1], &api.UpdateProductParams{IfMatch: match}, f.update(cmd))
		})
	})
	f.flags(cmd)
	cmd.Flags().StringVar(&etag, "if-match", "", ifMatchHelp)
	return cmd
}

func (c *conn) productDelete() *cobra.Command {
	var etag string
	cmd := command("delete ACTIVITY PRODUCT", "Delete a product of which nothing was ever reserved", func(cmd *cobra.Command, args []string) error {
		return call(cmd, c, fmt.Sprintf("delete product %q", args[1]), view{}, func(ctx context.Context, g gateway) (*client.DeleteProductResponse, error) {
			match, err := productVersion(ctx, g, args[0], args[1], etag)
			if err != nil {
				return nil, err
			}
			return g.DeleteProductWithResponse(ctx, args[0], args[1], &api.DeleteProductParams{IfMatch: match})
		})
	})
	cmd.Flags().StringVar(&etag, "if-match", "", ifMatchHelp)
	return cmd
}
