package stock_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/leadingpeers/seckill/pkg/stock"
)

func ExampleCache_Reserve() {
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:6379"})
	defer func() { _ = client.Close() }()
	cache := stock.NewCache(client, stock.CacheConfig{})
	defer cache.Close()

	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	got, replayed, err := cache.Reserve(ctx, stock.Reservation{
		ID:        "mfrggzdfmztwq2lknnwg23tpoa", // from the purchase token: a retry sends the same one
		ProductID: "sku-1",
		UserID:    "u-42",
		Quantity:  1,
	})
	var refusal stock.Refusal
	switch {
	case errors.As(err, &refusal):
		fmt.Println("no:", refusal) // sold_out, over_user_limit, ...
	case errors.Is(err, stock.ErrBusy):
		fmt.Println("nothing was sent; try again in a moment")
	case errors.Is(err, stock.ErrUnknown):
		fmt.Println("it may have been taken; ask again with the same ID")
	case err != nil:
		fmt.Println("nothing was sent:", err)
	case replayed:
		fmt.Println("seen before, and now:", got.State)
	default:
		fmt.Println("taken, for the ledger to decide")
	}
}
