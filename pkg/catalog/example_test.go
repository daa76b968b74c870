package catalog_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/leadingpeers/seckill/pkg/catalog"
)

// An activity is drafted, filled and then put online.
func ExampleStore() {
	publish := func(ctx context.Context, store *catalog.Store, starts time.Time) error {
		a, err := store.CreateActivity(ctx, catalog.Activity{
			Name: "Summer sale", StartsAt: starts, EndsAt: starts.Add(time.Hour), PayWindow: 15 * time.Minute,
		})
		if err != nil {
			return err
		}
		_, err = store.AddProduct(ctx, catalog.Product{
			ActivityID: a.ID, Name: "Fan", PriceCents: 9900, Currency: "CNY", Total: 1000, PerOrder: 2, PerUser: 2,
		})
		var invalid *catalog.InvalidError
		if errors.As(err, &invalid) {
			return fmt.Errorf("mend the field %s: %s", invalid.Field, invalid.Problem)
		}
		if err != nil {
			return err
		}
		_, err = store.SetState(ctx, a.ID, catalog.Online)
		return err
	}
	_ = publish
}
