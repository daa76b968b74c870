package catalogue

import (
	"context"
	"errors"
	"net/http"

	"github.com/leadingpeers/seckill/api"
	"github.com/leadingpeers/seckill/internal/gateway/problem"
	"github.com/leadingpeers/seckill/internal/gateway/web"
	"github.com/leadingpeers/seckill/pkg/catalog"
	"github.com/leadingpeers/seckill/pkg/stock"
)

// stored is the activity and the product that the path of r names, from MySQL.
func (c *Catalogue) stored(ctx context.Context, r *http.Request) (catalog.Activity, catalog.Product, error) {
	from := stored{c.cfg.Catalog}
	a, err := from.activity(ctx, r.PathValue("activity"))
	if err != nil {
		return a, catalog.Product{}, err
	}
	p, err := from.product(ctx, a.ID, r.PathValue("product"))
	return a, p, err
}

// all is the activity that the path of r names and its products.
func (c *Catalogue) all(ctx context.Context, r *http.Request) (catalog.Activity, []catalog.Product, error) {
	from := stored{c.cfg.Catalog}
	a, err := from.activity(ctx, r.PathValue("activity"))
	if err != nil {
		return a, nil, err
	}
	products, err := from.products(ctx, a.ID)
	return a, products, err
}

// preloadProduct puts one product into Redis, from the ledger. It is safe at
// any time, also during the sale and twice at once.
func (c *Catalogue) preloadProduct(w http.ResponseWriter, r *http.Request) error {
	if err := web.DecodeNothing(r); err != nil {
		return err
	}
	ctx, cancel := c.admin(w, r)
	defer cancel()
	a, p, err := c.stored(ctx, r)
	if err != nil {
		return err
	}
	return c.load(ctx, w, a, p)
}

// preloadActivity does so for all products of an activity.
func (c *Catalogue) preloadActivity(w http.ResponseWriter, r *http.Request) error {
	if err := web.DecodeNothing(r); err != nil {
		return err
	}
	ctx, cancel := c.admin(w, r)
	defer cancel()
	a, products, err := c.all(ctx, r)
	if err != nil {
		return err
	}
	return c.load(ctx, w, a, products...)
}

func (c *Catalogue) load(ctx context.Context, w http.ResponseWriter, a catalog.Activity, products ...catalog.Product) error {
	body := api.Preloaded{Products: []api.PreloadedProduct{}}
	for _, p := range products {
		loaded, err := c.cfg.Load(ctx, Terms(a, p))
		if err != nil {
			return problem.Fault(problem.PreloadFailed, err)
		}
		body.Products = append(body.Products, api.PreloadedProduct{ProductID: p.ID, Loaded: loaded})
	}
	return web.WriteJSON(w, http.StatusOK, body)
}

// flushProduct takes one product out of Redis.
func (c *Catalogue) flushProduct(w http.ResponseWriter, r *http.Request) error {
	force, err := forced(r)
	if err != nil {
		return err
	}
	ctx, cancel := c.admin(w, r)
	defer cancel()
	_, p, err := c.stored(ctx, r)
	if err != nil {
		return err
	}
	return c.flush(ctx, w, []catalog.Product{p}, force)
}

// flushActivity takes all products of an activity out of Redis.
func (c *Catalogue) flushActivity(w http.ResponseWriter, r *http.Request) error {
	force, err := forced(r)
	if err != nil {
		return err
	}
	ctx, cancel := c.admin(w, r)
	defer cancel()
	_, products, err := c.all(ctx, r)
	if err != nil {
		return err
	}
	return c.flush(ctx, w, products, force)
}

func forced(r *http.Request) (force bool, err error) {
	err = web.DecodeOptional(r, web.MaxAdminBody, web.Field{Name: "force", Into: &force, Optional: true})
	return force, err
}

func (c *Catalogue) flush(ctx context.Context, w http.ResponseWriter, products []catalog.Product, force bool) error {
	if err := c.flushAll(ctx, products, force); err != nil {
		return err
	}
	body := api.Flushed{Products: []string{}}
	for _, p := range products {
		body.Products = append(body.Products, p.ID)
	}
	return web.WriteJSON(w, http.StatusOK, body)
}

// flushAll takes products out of Redis, and names all that are in use. Those
// that are not are gone then all the same: loading them again is harmless.
func (c *Catalogue) flushAll(ctx context.Context, products []catalog.Product, force bool) error {
	var list []problem.Item
	for _, p := range products {
		err := c.cfg.Cache.Flush(ctx, p.ID, force)
		switch {
		case errors.Is(err, stock.ErrInUse):
			list = append(list, problem.Item{Field: "products/" + p.ID, Detail: "is on sale, or has reservations that are not decided"})
		case err != nil:
			return problem.Fault(problem.CacheUnavailable, err)
		}
	}
	if len(list) > 0 {
		return problem.All(problem.InUse, list, "%d of %d products are in use.", len(list), len(products))
	}
	return nil
}
