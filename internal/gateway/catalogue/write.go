package catalogue

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/leadingpeers/seckill/internal/gateway/problem"
	"github.com/leadingpeers/seckill/internal/gateway/web"
	"github.com/leadingpeers/seckill/pkg/catalog"
	"github.com/leadingpeers/seckill/pkg/stock"
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
	ctx, cancel := context.WithTimeout(r.Context(), c.cfg.StoreTimeout)
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
	return web.WriteJSON(w, http.StatusCreated, activityBodyOf(a))
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
	ctx, cancel := context.WithTimeout(r.Context(), c.cfg.StoreTimeout)
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
	return web.WriteJSON(w, http.StatusCreated, productBodyOf(p))
}

// publish puts a draft or paused activity online. Its products are loaded
// before it is online, so that nobody meets an empty Redis, and opened after.
func (c *Catalogue) publish(w http.ResponseWriter, r *http.Request) error {
	return c.changeState(w, r, catalog.Online, catalog.Draft, catalog.Paused)
}

// pause stops the sale; what is accepted goes its way.
func (c *Catalogue) pause(w http.ResponseWriter, r *http.Request) error {
	return c.changeState(w, r, catalog.Paused, catalog.Online)
}

// resume goes on with a paused activity.
func (c *Catalogue) resume(w http.ResponseWriter, r *http.Request) error {
	return c.changeState(w, r, catalog.Online, catalog.Paused)
}

// end stops the sale for good.
func (c *Catalogue) end(w http.ResponseWriter, r *http.Request) error {
	return c.changeState(w, r, catalog.Ended, catalog.Online, catalog.Paused)
}

// changeState moves the activity, in MySQL first, and makes Redis follow. An
// activity that is there already is only made to be followed, so repeating the
// request after 503 is harmless and completes it.
//
// The answer comes when the oldest snapshot of any gateway is newer than the
// change: whoever has it may send buyers to all of them.
func (c *Catalogue) changeState(w http.ResponseWriter, r *http.Request, to catalog.ActivityState, from ...catalog.ActivityState) error {
	if err := web.DecodeNothing(r); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), c.cfg.AdminTimeout)
	defer cancel()
	web.Extend(w, c.cfg.Now().Add(c.cfg.AdminTimeout))
	a, err := stored{c.cfg.Catalog}.activity(ctx, r.PathValue("activity"))
	if err != nil {
		return err
	}
	if a.State != to {
		if err := c.move(ctx, a, to, from); err != nil {
			return err
		}
	}
	if a, err = c.follow(ctx, a.ID); err != nil {
		return err
	}
	shown := time.NewTimer(c.cfg.SnapshotAge)
	defer shown.Stop()
	select {
	case <-shown.C:
	case <-ctx.Done():
	}
	return web.WriteJSON(w, http.StatusOK, activityBodyOf(a))
}

// move changes the state in MySQL.
func (c *Catalogue) move(ctx context.Context, a catalog.Activity, to catalog.ActivityState, from []catalog.ActivityState) error {
	if !slices.Contains(from, a.State) {
		return problem.New(problem.WrongState, "The activity is %s, it cannot become %s by this operation.", a.State, to)
	}
	if to == catalog.Online {
		if err := c.arrange(ctx, a); err != nil {
			return err
		}
	}
	_, err := c.cfg.Catalog.SetState(ctx, a.ID, to)
	if unfit, ok := errors.AsType[*catalog.InvalidError](err); ok {
		return problem.New(problem.WrongState, "The activity cannot become %s: %s: %s.", to, unfit.Field, unfit.Problem)
	}
	return catalogProblem(err, problem.ActivityNotFound)
}

// follow makes Redis follow the activity's state, and looks at MySQL again
// afterwards: of two operators who change it at the same time, whoever writes
// to Redis last has then seen the last state.
func (c *Catalogue) follow(ctx context.Context, id string) (catalog.Activity, error) {
	from := stored{c.cfg.Catalog}
	a, err := from.activity(ctx, id)
	for err == nil {
		if err = c.arrange(ctx, a); err != nil {
			break
		}
		before := a.Version
		if a, err = from.activity(ctx, id); err == nil && a.Version == before {
			return a, nil
		}
	}
	return a, err
}

// arrange gives Redis the terms of each product of the activity. What is not
// in Redis is loaded, unless the activity has ended: then it is closed anyway.
func (c *Catalogue) arrange(ctx context.Context, a catalog.Activity) error {
	products, err := stored{c.cfg.Catalog}.products(ctx, a.ID)
	if err != nil {
		return err
	}
	for _, p := range products {
		if err := c.tell(ctx, termsOf(a, p), a.State != catalog.Ended); err != nil {
			return problem.Fault(problem.PreloadFailed, err)
		}
	}
	return nil
}

// tell leaves a product in Redis with these terms.
func (c *Catalogue) tell(ctx context.Context, terms stock.Terms, load bool) error {
	if load {
		if loaded, err := c.cfg.Load(ctx, terms); err != nil || loaded {
			return err
		}
	}
	err := c.cfg.Cache.Configure(ctx, terms)
	if !load && errors.Is(err, stock.NotLoaded) {
		return nil
	}
	return err
}

// preloadBody is the answer of preload.
type preloadBody struct {
	ProductID string `json:"product_id"`
	Loaded    bool   `json:"loaded"` // false = it was there already
}

// preload puts one product into Redis, from the ledger. It is safe at any
// time, also during the sale and twice at once.
func (c *Catalogue) preload(w http.ResponseWriter, r *http.Request) error {
	if err := web.DecodeNothing(r); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), c.cfg.AdminTimeout)
	defer cancel()
	web.Extend(w, c.cfg.Now().Add(c.cfg.AdminTimeout))
	from := stored{c.cfg.Catalog}
	a, err := from.activity(ctx, r.PathValue("activity"))
	if err != nil {
		return err
	}
	p, err := from.product(ctx, a.ID, r.PathValue("product"))
	if err != nil {
		return err
	}
	loaded, err := c.cfg.Load(ctx, termsOf(a, p))
	if err != nil {
		return problem.Fault(problem.PreloadFailed, err)
	}
	return web.WriteJSON(w, http.StatusOK, preloadBody{ProductID: p.ID, Loaded: loaded})
}

// termsOf is what Redis must know of a product.
func termsOf(a catalog.Activity, p catalog.Product) stock.Terms {
	return stock.Terms{
		ProductID: p.ID,
		PerOrder:  p.PerOrder,
		PerUser:   p.PerUser,
		OnSale:    a.State == catalog.Online && !p.SoldOut,
		StartsAt:  a.StartsAt,
		EndsAt:    a.EndsAt,
	}
}
