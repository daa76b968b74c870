package catalogue

import (
	"context"
	"net/http"
	"time"

	"github.com/leadingpeers/seckill/internal/gateway/problem"
	"github.com/leadingpeers/seckill/internal/gateway/web"
	"github.com/leadingpeers/seckill/pkg/catalog"
)

// activityRequest is the body of createActivity.
type activityRequest struct {
	ID               string
	Name             string
	StartsAt, EndsAt time.Time
	PayWindowSeconds int64
}

func (b *activityRequest) fields() []web.Field {
	return []web.Field{
		{Name: "id", Into: &b.ID, Optional: true},
		{Name: "name", Into: &b.Name},
		{Name: "starts_at", Into: &b.StartsAt},
		{Name: "ends_at", Into: &b.EndsAt},
		{Name: "pay_window_seconds", Into: &b.PayWindowSeconds},
	}
}

// maxPayWindow in seconds keeps the multiplication below from overflowing; the
// catalogue's own limit is the same.
const maxPayWindow = 24 * 60 * 60

// createActivity makes a draft. Without an ID in the body each call makes
// another one.
func (c *Catalogue) createActivity(w http.ResponseWriter, r *http.Request) error {
	var body activityRequest
	if err := web.Decode(r, web.MaxAdminBody, body.fields()...); err != nil {
		return err
	}
	if body.PayWindowSeconds < 1 || body.PayWindowSeconds > maxPayWindow {
		return problem.New(problem.InvalidField, "pay_window_seconds is %d: want 1 to %d.", body.PayWindowSeconds, maxPayWindow)
	}
	ctx, cancel := web.Within(r.Context(), c.cfg.StoreTimeout)
	defer cancel()
	a, err := c.cfg.Catalog.CreateActivity(ctx, catalog.Activity{
		ID:        body.ID,
		Name:      body.Name,
		StartsAt:  body.StartsAt.UTC().Truncate(time.Millisecond),
		EndsAt:    body.EndsAt.UTC().Truncate(time.Millisecond),
		PayWindow: time.Duration(body.PayWindowSeconds) * time.Second,
	})
	if err != nil {
		return catalogProblem(err, problem.ActivityNotFound)
	}
	w.Header().Set("Location", r.URL.EscapedPath()+"/"+a.ID)
	w.Header().Set("ETag", web.ETag(a.Version))
	return web.WriteJSON(w, http.StatusCreated, activityBody(a))
}

// productRequest is the body of addProduct.
type productRequest struct {
	ID, Name, ImageURL, Channel, Currency string
	PriceCents, Total, PerOrder, PerUser  int64
}

func (b *productRequest) fields() []web.Field {
	return []web.Field{
		{Name: "id", Into: &b.ID, Optional: true},
		{Name: "name", Into: &b.Name},
		{Name: "image_url", Into: &b.ImageURL, Optional: true},
		{Name: "channel", Into: &b.Channel, Optional: true},
		{Name: "price_cents", Into: &b.PriceCents},
		{Name: "currency", Into: &b.Currency},
		{Name: "total", Into: &b.Total},
		{Name: "per_order", Into: &b.PerOrder, Optional: true},
		{Name: "per_user", Into: &b.PerUser, Optional: true},
	}
}

// addProduct puts a product into an activity that is a draft or paused. The
// limits are one unit unless the body says more.
func (c *Catalogue) addProduct(w http.ResponseWriter, r *http.Request) error {
	body := productRequest{PerOrder: 1, PerUser: 1}
	if err := web.Decode(r, web.MaxAdminBody, body.fields()...); err != nil {
		return err
	}
	ctx, cancel := web.Within(r.Context(), c.cfg.StoreTimeout)
	defer cancel()
	p, err := c.cfg.Catalog.AddProduct(ctx, catalog.Product{
		ID:         body.ID,
		ActivityID: r.PathValue("activity"),
		Name:       body.Name,
		ImageURL:   body.ImageURL,
		Channel:    body.Channel,
		PriceCents: body.PriceCents,
		Currency:   body.Currency,
		Total:      body.Total,
		PerOrder:   body.PerOrder,
		PerUser:    body.PerUser,
	})
	if err != nil {
		return catalogProblem(err, problem.ActivityNotFound)
	}
	w.Header().Set("Location", r.URL.EscapedPath()+"/"+p.ID)
	w.Header().Set("ETag", web.ETag(p.Version))
	return web.WriteJSON(w, http.StatusCreated, productBody(p))
}

// activityChange is the body of updateActivity: what is absent stays.
type activityChange struct {
	name             *string
	startsAt, endsAt *time.Time
	payWindowSeconds *int64
}

func (b *activityChange) fields() []web.Field {
	return []web.Field{
		{Name: "name", Into: &b.name, Optional: true},
		{Name: "starts_at", Into: &b.startsAt, Optional: true},
		{Name: "ends_at", Into: &b.endsAt, Optional: true},
		{Name: "pay_window_seconds", Into: &b.payWindowSeconds, Optional: true},
	}
}

func (b *activityChange) change() (c catalog.ActivityChange, err error) {
	c = catalog.ActivityChange{Name: b.name}
	if b.startsAt != nil {
		c.StartsAt = new(b.startsAt.UTC().Truncate(time.Millisecond))
	}
	if b.endsAt != nil {
		c.EndsAt = new(b.endsAt.UTC().Truncate(time.Millisecond))
	}
	if b.payWindowSeconds != nil {
		if *b.payWindowSeconds < 1 || *b.payWindowSeconds > maxPayWindow {
			return c, problem.New(problem.InvalidField, "pay_window_seconds is %d: want 1 to %d.", *b.payWindowSeconds, maxPayWindow)
		}
		c.PayWindow = new(time.Duration(*b.payWindowSeconds) * time.Second)
	}
	return c, nil
}

// updateActivity changes an activity, and makes Redis follow.
func (c *Catalogue) updateActivity(w http.ResponseWriter, r *http.Request) error {
	version, err := web.IfMatch(r)
	if err != nil {
		return err
	}
	var body activityChange
	if err := web.Decode(r, web.MaxAdminBody, body.fields()...); err != nil {
		return err
	}
	change, err := body.change()
	if err != nil {
		return err
	}
	ctx, cancel := c.admin(w, r)
	defer cancel()
	a, err := c.cfg.Catalog.UpdateActivity(ctx, r.PathValue("activity"), version, change)
	if err != nil {
		return catalogProblem(err, problem.ActivityNotFound)
	}
	if err := c.retell(ctx, a); err != nil {
		return err
	}
	return web.WriteTagged(w, r, web.ETag(a.Version), activityBody(a))
}

// productChange is the body of updateProduct: what is absent stays.
type productChange struct{ catalog.ProductChange }

func (b *productChange) fields() []web.Field {
	return []web.Field{
		{Name: "name", Into: &b.Name, Optional: true},
		{Name: "image_url", Into: &b.ImageURL, Optional: true},
		{Name: "channel", Into: &b.Channel, Optional: true},
		{Name: "price_cents", Into: &b.PriceCents, Optional: true},
		{Name: "currency", Into: &b.Currency, Optional: true},
		{Name: "total", Into: &b.Total, Optional: true},
		{Name: "per_order", Into: &b.PerOrder, Optional: true},
		{Name: "per_user", Into: &b.PerUser, Optional: true},
	}
}

// updateProduct changes a product, and makes Redis follow. A draft that is
// loaded with another total is taken out of Redis: it sells nothing yet, and
// publishing loads it again.
func (c *Catalogue) updateProduct(w http.ResponseWriter, r *http.Request) error {
	version, err := web.IfMatch(r)
	if err != nil {
		return err
	}
	var body productChange
	if err := web.Decode(r, web.MaxAdminBody, body.fields()...); err != nil {
		return err
	}
	ctx, cancel := c.admin(w, r)
	defer cancel()
	a, p, err := c.stored(ctx, r)
	if err != nil {
		return err
	}
	if p, err = c.cfg.Catalog.UpdateProduct(ctx, p.ID, version, body.ProductChange); err != nil {
		return catalogProblem(err, problem.ProductNotFound)
	}
	if body.Total != nil {
		err = c.cfg.Cache.Flush(ctx, p.ID, true)
	} else {
		err = c.tell(ctx, Terms(a, p), false)
	}
	if err != nil {
		return problem.Fault(problem.PreloadFailed, err)
	}
	return web.WriteTagged(w, r, web.ETag(p.Version), productBody(p))
}

// deleteActivity deletes an activity with its products, out of Redis first: an
// entry there that is not decided yet is in the way.
func (c *Catalogue) deleteActivity(w http.ResponseWriter, r *http.Request) error {
	version, err := web.IfMatch(r)
	if err != nil {
		return err
	}
	if err := web.DecodeNothing(r); err != nil {
		return err
	}
	ctx, cancel := c.admin(w, r)
	defer cancel()
	a, err := stored{c.cfg.Catalog}.activity(ctx, r.PathValue("activity"))
	if err != nil {
		return err
	}
	products, err := stored{c.cfg.Catalog}.products(ctx, a.ID)
	if err != nil {
		return err
	}
	remove := func() error {
		return catalogProblem(c.cfg.Catalog.DeleteActivity(ctx, a.ID, version), problem.ActivityNotFound)
	}
	return c.remove(ctx, w, a, products, remove)
}

// deleteProduct deletes a product, out of Redis first.
func (c *Catalogue) deleteProduct(w http.ResponseWriter, r *http.Request) error {
	version, err := web.IfMatch(r)
	if err != nil {
		return err
	}
	if err := web.DecodeNothing(r); err != nil {
		return err
	}
	ctx, cancel := c.admin(w, r)
	defer cancel()
	a, p, err := c.stored(ctx, r)
	if err != nil {
		return err
	}
	remove := func() error {
		return catalogProblem(c.cfg.Catalog.DeleteProduct(ctx, p.ID, version), problem.ProductNotFound)
	}
	return c.remove(ctx, w, a, []catalog.Product{p}, remove)
}

// remove takes products out of Redis and then out of MySQL. What MySQL keeps
// is loaded again by the healer, where it is still needed. Nothing is touched
// while the activity is online.
func (c *Catalogue) remove(ctx context.Context, w http.ResponseWriter, a catalog.Activity, products []catalog.Product, remove func() error) error {
	if a.State != catalog.Online {
		if err := c.flushAll(ctx, products, false); err != nil {
			return err
		}
	}
	if err := remove(); err != nil {
		return err
	}
	// A healer may have put them back in between.
	for _, p := range products {
		if err := c.cfg.Cache.Flush(ctx, p.ID, true); err != nil {
			return problem.Fault(problem.CacheUnavailable, err)
		}
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
