package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/leadingpeers/seckill/api"
	"github.com/leadingpeers/seckill/pkg/client"
)

// sale is an activity with its products in a file: sale.yaml. api/sale.schema.json
// describes it to editors.
type sale struct {
	Activity saleActivity  `yaml:"activity"`
	Products []saleProduct `yaml:"products"`
}

type saleActivity struct {
	ID        string        `yaml:"id"`
	Name      string        `yaml:"name"`
	StartsAt  time.Time     `yaml:"starts_at"`
	EndsAt    time.Time     `yaml:"ends_at"`
	PayWindow time.Duration `yaml:"pay_window"`
}

type saleProduct struct {
	ID         string `yaml:"id"`
	Name       string `yaml:"name"`
	ImageURL   string `yaml:"image_url"`
	Channel    string `yaml:"channel"`
	PriceCents whole  `yaml:"price_cents"`
	Currency   string `yaml:"currency"`
	Total      whole  `yaml:"total"`
	PerOrder   whole  `yaml:"per_order"`
	PerUser    whole  `yaml:"per_user"`
}

// whole is a whole number. YAML would cut the half off 0.5 without a word.
type whole int64

// UnmarshalYAML takes what is written as a whole number, and nothing else.
func (w *whole) UnmarshalYAML(n *yaml.Node) error {
	if n.Tag != "!!int" {
		return fmt.Errorf("line %d: cannot unmarshal %q: want a whole number", n.Line, n.Value)
	}
	var v int64
	err := n.Decode(&v)
	*w = whole(v)
	return err
}

// maxSale bounds a file, in bytes and in products.
const (
	maxSale         = 1 << 20
	maxSaleProducts = 1000
)

// readSale reads a file strictly: a name that it does not know is a slip, and
// a slip must not start a sale.
func readSale(in io.Reader) (sale, error) {
	text, err := io.ReadAll(io.LimitReader(in, maxSale+1))
	if err != nil {
		return sale{}, err
	}
	if len(text) > maxSale {
		return sale{}, fmt.Errorf("it has more than %d bytes", maxSale)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	var s sale
	if err := decoder.Decode(&s); err != nil {
		return sale{}, err
	}
	if err := decoder.Decode(&sale{}); !errors.Is(err, io.EOF) {
		return sale{}, errors.New("it holds more than one document")
	}
	return s, s.check()
}

// check finds what the gateway could not: without IDs, applying twice would
// make two sales.
func (s sale) check() error {
	if s.Activity.ID == "" {
		return errors.New("activity.id is missing")
	}
	if len(s.Products) > maxSaleProducts {
		return fmt.Errorf("it has %d products: want at most %d", len(s.Products), maxSaleProducts)
	}
	seen := map[string]bool{}
	for i, p := range s.Products {
		if p.ID == "" || seen[p.ID] {
			return fmt.Errorf("products[%d].id is %q: want one of its own", i, p.ID)
		}
		seen[p.ID] = true
	}
	return nil
}

func activitySchema() *cobra.Command {
	return command("schema", "Print the JSON Schema of the file that apply reads, for editors", func(cmd *cobra.Command, _ []string) error {
		_, err := cmd.OutOrStdout().Write(api.SaleSchema)
		return err
	})
}

func (c *conn) activityApply() *cobra.Command {
	var path string
	var dryRun bool
	cmd := command("apply", "Make an activity and its products what a file says", func(cmd *cobra.Command, _ []string) error {
		s, err := openSale(cmd, path)
		if err != nil {
			return &failure{what: "cannot read " + path, cause: err.Error(), fix: "seckill activity schema describes the file", status: ExitFailed, err: err}
		}
		return c.with(cmd, fmt.Sprintf("apply activity %q", s.Activity.ID), func(ctx context.Context, g gateway) error {
			a := applier{g: g, out: cmd.OutOrStdout(), dryRun: dryRun}
			return a.apply(ctx, s)
		})
	})
	cmd.Long = "Creates what is missing and changes what differs, and says so line by line; it deletes nothing.\n" +
		"Running it again changes nothing. What the state of the activity forbids is refused by the gateway."
	cmd.Flags().StringVarP(&path, "file", "f", "", "the `file`; - is the standard input")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would be done")
	return required(cmd, "file")
}

func openSale(cmd *cobra.Command, path string) (sale, error) {
	if path == "-" {
		return readSale(cmd.InOrStdin())
	}
	f, err := os.Open(path)
	if err != nil {
		return sale{}, err
	}
	defer func() { _ = f.Close() }() // it was only read
	return readSale(f)
}

// applier makes the gateway's activity what a file says.
type applier struct {
	g      gateway
	out    io.Writer
	dryRun bool
}

// do says what is done, and does it unless it is only to be said.
func (a *applier) do(what string, f func() error) error {
	_, err := fmt.Fprintln(a.out, what)
	if err != nil || a.dryRun || f == nil {
		return err
	}
	return f()
}

func (a *applier) apply(ctx context.Context, s sale) error {
	missing, err := a.activity(ctx, s.Activity)
	if err != nil {
		return err
	}
	for _, p := range s.Products {
		if err := a.product(ctx, s.Activity.ID, p, missing && a.dryRun); err != nil {
			return err
		}
	}
	return nil
}

// activity creates or changes the activity.
func (a *applier) activity(ctx context.Context, want saleActivity) (missing bool, err error) {
	got, err := a.g.GetActivityWithResponse(ctx, want.ID, nil)
	if client.CodeOf(err) == "activity_not_found" {
		return true, a.do("create activity "+want.ID, func() error {
			_, err := a.g.CreateActivityWithResponse(ctx, api.ActivityCreate{
				ID: want.ID, Name: want.Name, StartsAt: api.Millis{Time: want.StartsAt}, EndsAt: api.Millis{Time: want.EndsAt},
				PayWindowSeconds: int64(want.PayWindow / time.Second),
			})
			return err
		})
	}
	if err != nil {
		return false, err
	}
	change, diff := activityDiff(*got.JSON200, want)
	if diff == "" {
		return false, a.do("activity "+want.ID+" unchanged", nil)
	}
	return false, a.do("update activity "+want.ID+":"+diff, func() error {
		_, err := a.g.UpdateActivityWithResponse(ctx, want.ID, &api.UpdateActivityParams{IfMatch: new(got.HTTPResponse.Header.Get("ETag"))}, change)
		return err
	})
}

// activityDiff is what must change, for the gateway and in words.
func activityDiff(is api.Activity, want saleActivity) (change api.ActivityUpdate, diff string) {
	if is.Name != want.Name {
		change.Name, diff = want.Name, diff+fmt.Sprintf(" name %q → %q", is.Name, want.Name)
	}
	if !is.StartsAt.Equal(want.StartsAt.Truncate(time.Millisecond)) {
		change.StartsAt, diff = api.Millis{Time: want.StartsAt}, diff+fmt.Sprintf(" starts_at %s → %s", is.StartsAt, want.StartsAt)
	}
	if !is.EndsAt.Equal(want.EndsAt.Truncate(time.Millisecond)) {
		change.EndsAt, diff = api.Millis{Time: want.EndsAt}, diff+fmt.Sprintf(" ends_at %s → %s", is.EndsAt, want.EndsAt)
	}
	if pay := int64(want.PayWindow / time.Second); is.PayWindowSeconds != pay {
		change.PayWindowSeconds, diff = pay, diff+fmt.Sprintf(" pay_window_seconds %d → %d", is.PayWindowSeconds, pay)
	}
	return change, diff
}

// product creates or changes a product. fresh means that its activity is not
// there yet.
func (a *applier) product(ctx context.Context, activity string, want saleProduct, fresh bool) error {
	want.PerOrder, want.PerUser = max(want.PerOrder, 1), max(want.PerUser, 1)
	var got *client.GetProductResponse
	var err error
	if !fresh {
		got, err = a.g.GetProductWithResponse(ctx, activity, want.ID, nil)
	}
	if fresh || client.CodeOf(err) == "product_not_found" {
		return a.do("add product "+want.ID, func() error {
			_, err := a.g.AddProductWithResponse(ctx, activity, api.ProductCreate{
				ID: want.ID, Name: want.Name, ImageURL: want.ImageURL, Channel: want.Channel, PriceCents: int64(want.PriceCents),
				Currency: want.Currency, Total: int64(want.Total), PerOrder: int64(want.PerOrder), PerUser: int64(want.PerUser),
			})
			return err
		})
	}
	if err != nil {
		return err
	}
	change, diff := productDiff(*got.JSON200, want)
	if diff == "" {
		return a.do("product "+want.ID+" unchanged", nil)
	}
	return a.do("update product "+want.ID+":"+diff, func() error {
		_, err := a.g.UpdateProductWithResponse(ctx, activity, want.ID, &api.UpdateProductParams{IfMatch: new(got.HTTPResponse.Header.Get("ETag"))}, change)
		return err
	})
}

// productDiff is what must change, for the gateway and in words.
func productDiff(is api.Product, want saleProduct) (change api.ProductUpdate, diff string) {
	var words strings.Builder
	differs := func(field string, is, want any) bool {
		if is == want {
			return false
		}
		_, _ = fmt.Fprintf(&words, " %s %v → %v", field, is, want) // a Builder never fails
		return true
	}
	if differs("name", is.Name, want.Name) {
		change.Name = want.Name
	}
	if differs("image_url", is.ImageURL, want.ImageURL) {
		change.ImageURL = &want.ImageURL
	}
	if differs("channel", is.Channel, want.Channel) {
		change.Channel = &want.Channel
	}
	if differs("price_cents", is.PriceCents, int64(want.PriceCents)) {
		change.PriceCents = new(int64(want.PriceCents))
	}
	if differs("currency", is.Currency, want.Currency) {
		change.Currency = want.Currency
	}
	if differs("total", is.Total, int64(want.Total)) {
		change.Total = int64(want.Total)
	}
	if differs("per_order", is.PerOrder, int64(want.PerOrder)) {
		change.PerOrder = int64(want.PerOrder)
	}
	if differs("per_user", is.PerUser, int64(want.PerUser)) {
		change.PerUser = int64(want.PerUser)
	}
	return change, words.String()
}
