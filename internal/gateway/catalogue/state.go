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

// publish puts a draft or paused activity online, when nothing is in the way.
// Its products are in Redis before it is online, so that nobody meets an empty
// one, and are opened after.
func (c *Catalogue) publish(w http.ResponseWriter, r *http.Request) error {
	var preload bool
	if err := web.DecodeOptional(r, web.MaxAdminBody, web.Field{Name: "preload", Into: &preload, Optional: true}); err != nil {
		return err
	}
	ctx, cancel := c.admin(w, r)
	defer cancel()
	if err := c.publishable(ctx, r.PathValue("activity"), preload); err != nil {
		return err
	}
	return c.changeState(ctx, w, r, catalog.Online, catalog.Draft, catalog.Paused)
}

// publishable reports all that is in the way of going online at once.
func (c *Catalogue) publishable(ctx context.Context, id string, preload bool) error {
	from := stored{c.cfg.Catalog}
	a, err := from.activity(ctx, id)
	if err != nil || a.State == catalog.Online || a.State == catalog.Ended {
		return err // what the state says comes next
	}
	products, err := from.products(ctx, id)
	if err != nil {
		return err
	}
	over, err := c.cfg.Catalog.Over(ctx, id)
	if err != nil {
		return problem.Fault(problem.DatabaseUnavailable, err)
	}
	var list []problem.Item
	if over {
		list = append(list, problem.Item{Field: "ends_at", Detail: "is in the past"})
	}
	if len(products) == 0 {
		list = append(list, problem.Item{Field: "products", Detail: "there are none"})
	}
	var ids []string
	for _, p := range products {
		ids = append(ids, p.ID)
		if p.Available == 0 {
			list = append(list, problem.Item{Field: "products/" + p.ID, Detail: "has no stock"})
		}
	}
	if !preload {
		loaded, err := c.cfg.Cache.Loaded(ctx, ids)
		if err != nil {
			return problem.Fault(problem.CacheUnavailable, err)
		}
		for _, id := range ids {
			if loaded[id] == "" {
				list = append(list, problem.Item{Field: "products/" + id, Detail: "is not preloaded"})
			}
		}
	}
	if len(list) > 0 {
		return problem.All(problem.NotPublishable, list, "%d things are in the way.", len(list))
	}
	return nil
}

// pause stops the sale; what is accepted goes its way.
func (c *Catalogue) pause(w http.ResponseWriter, r *http.Request) error {
	return c.transition(w, r, catalog.Paused, catalog.Online)
}

// resume goes on with a paused activity.
func (c *Catalogue) resume(w http.ResponseWriter, r *http.Request) error {
	return c.transition(w, r, catalog.Online, catalog.Paused)
}

// end stops the sale for good.
func (c *Catalogue) end(w http.ResponseWriter, r *http.Request) error {
	return c.transition(w, r, catalog.Ended, catalog.Online, catalog.Paused)
}

// transition is changeState for an operation without a body.
func (c *Catalogue) transition(w http.ResponseWriter, r *http.Request, to catalog.ActivityState, from ...catalog.ActivityState) error {
	if err := web.DecodeNothing(r); err != nil {
		return err
	}
	ctx, cancel := c.admin(w, r)
	defer cancel()
	return c.changeState(ctx, w, r, to, from...)
}

// admin is the context of a change, with the time it may take.
func (c *Catalogue) admin(w http.ResponseWriter, r *http.Request) (context.Context, context.CancelFunc) {
	web.Extend(w, c.cfg.Now().Add(c.cfg.AdminTimeout))
	return context.WithTimeout(r.Context(), c.cfg.AdminTimeout)
}

// changeState moves the activity, in MySQL first, and makes Redis follow. An
// activity that is there already is only made to be followed, so repeating the
// request after 503 is harmless and completes it.
//
// The answer comes when the oldest snapshot of any gateway is newer than the
// change: whoever has it may send buyers to all of them.
func (c *Catalogue) changeState(ctx context.Context, w http.ResponseWriter, r *http.Request, to catalog.ActivityState, from ...catalog.ActivityState) error {
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
	return web.WriteTagged(w, r, web.ETag(a.Version), activityBody(a))
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
		if err := c.tell(ctx, Terms(a, p), a.State != catalog.Ended); err != nil {
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

// retell gives Redis the terms of the products that it has.
func (c *Catalogue) retell(ctx context.Context, a catalog.Activity) error {
	products, err := stored{c.cfg.Catalog}.products(ctx, a.ID)
	if err != nil {
		return err
	}
	for _, p := range products {
		if err := c.tell(ctx, Terms(a, p), false); err != nil {
			return problem.Fault(problem.PreloadFailed, err)
		}
	}
	return nil
}

// Terms is what Redis must know of a product.
func Terms(a catalog.Activity, p catalog.Product) stock.Terms {
	return stock.Terms{
		ProductID: p.ID,
		PerOrder:  p.PerOrder,
		PerUser:   p.PerUser,
		OnSale:    a.State == catalog.Online && !p.SoldOut,
		StartsAt:  a.StartsAt,
		EndsAt:    a.EndsAt,
		Total:     p.Total,
		Restocks:  p.Restocks,
	}
}
