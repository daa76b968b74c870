package catalogue

import (
	"net/http"
	"strconv"
	"time"

	"github.com/leadingpeers/seckill/api"
	"github.com/leadingpeers/seckill/internal/gateway/problem"
	"github.com/leadingpeers/seckill/internal/gateway/web"
	"github.com/leadingpeers/seckill/pkg/catalog"
)

func activityBody(a catalog.Activity) api.Activity {
	return api.Activity{
		ID: a.ID, Name: a.Name, State: api.ActivityState(a.State),
		StartsAt: api.Millis{Time: a.StartsAt}, EndsAt: api.Millis{Time: a.EndsAt}, PayWindowSeconds: int64(a.PayWindow / time.Second),
		Version: a.Version, CreatedAt: api.Millis{Time: a.CreatedAt}, UpdatedAt: api.Millis{Time: a.UpdatedAt},
	}
}

func productBody(p catalog.Product) api.Product {
	return api.Product{
		ID: p.ID, ActivityID: p.ActivityID, Name: p.Name, ImageURL: p.ImageURL, Channel: p.Channel,
		PriceCents: p.PriceCents, Currency: p.Currency, Total: p.Total, Available: p.Available, PerOrder: p.PerOrder, PerUser: p.PerUser,
		SoldOut: p.SoldOut || p.Available == 0, Version: p.Version, CreatedAt: api.Millis{Time: p.CreatedAt}, UpdatedAt: api.Millis{Time: p.UpdatedAt},
	}
}

// filter reads which activities are asked for.
func filter(r *http.Request) (f catalog.Filter, err error) {
	if f.After, f.Limit, err = web.Page(r); err != nil {
		return f, err
	}
	values, err := web.Query(r, "state", "from", "to")
	if err != nil {
		return f, err
	}
	switch f.State = catalog.ActivityState(values[0]); f.State {
	case "", catalog.Draft, catalog.Online, catalog.Paused, catalog.Ended:
	default:
		return f, problem.New(problem.InvalidField, "state is %.20q: want draft, online, paused or ended.", values[0])
	}
	for i, into := range []*time.Time{&f.From, &f.To} {
		if values[i+1] == "" {
			continue
		}
		if *into, err = time.Parse(time.RFC3339, values[i+1]); err != nil || into.Year() < 1970 || into.Year() > 9999 {
			return f, problem.New(problem.InvalidField, "%s is %.40q: want a time as in RFC 3339, 2006-01-02T15:04:05Z.", [...]string{"from", "to"}[i], values[i+1])
		}
	}
	return f, nil
}

func (c *Catalogue) listActivities(w http.ResponseWriter, r *http.Request) error {
	f, err := filter(r)
	if err != nil {
		return err
	}
	from, err := c.shelf(w, r)
	if err != nil {
		return err
	}
	limit := f.Limit
	f.Limit++ // one more tells whether there is another page
	list, err := from.activities(r.Context(), f)
	if err != nil {
		return err
	}
	body := api.ActivityList{Activities: []api.Activity{}}
	if len(list) > limit {
		list = list[:limit]
		body.NextPageToken = web.NextPage(list[limit-1].ID)
	}
	for _, a := range list {
		body.Activities = append(body.Activities, activityBody(a))
	}
	return tagged(w, r, body)
}

// tagged answers with body under a tag made of it.
func tagged(w http.ResponseWriter, r *http.Request, body any) error {
	text, err := web.Tag(body)
	if err != nil {
		return err
	}
	return text.Write(w, r)
}

func (c *Catalogue) getActivity(w http.ResponseWriter, r *http.Request) error {
	from, err := c.shelf(w, r)
	if err != nil {
		return err
	}
	a, err := from.activity(r.Context(), r.PathValue("activity"))
	if err != nil {
		return err
	}
	return web.WriteTagged(w, r, web.ETag(a.Version), activityBody(a))
}

func (c *Catalogue) listProducts(w http.ResponseWriter, r *http.Request) error {
	after, limit, err := web.Page(r)
	if err != nil {
		return err
	}
	from, err := c.shelf(w, r)
	if err != nil {
		return err
	}
	view, public := from.(shown)
	if !public {
		body, err := productList(r, from, after, limit)
		if err != nil {
			return err
		}
		return tagged(w, r, body)
	}
	// Everybody asks for the same page until the next view: it is put together once.
	text, err := c.pages.of(view.view, r.PathValue("activity")+"/"+strconv.Itoa(limit)+"/"+after, func() (any, error) {
		return productList(r, from, after, limit)
	})
	if err != nil {
		return err
	}
	return text.Write(w, r)
}

// productList is one page of an activity's products.
func productList(r *http.Request, from shelf, after string, limit int) (any, error) {
	if _, err := from.activity(r.Context(), r.PathValue("activity")); err != nil {
		return nil, err
	}
	list, err := from.products(r.Context(), r.PathValue("activity"))
	if err != nil {
		return nil, err
	}
	body := api.ProductList{Products: []api.Product{}}
	for _, p := range list {
		if p.ID <= after {
			continue
		}
		if len(body.Products) == limit {
			body.NextPageToken = web.NextPage(body.Products[limit-1].ID)
			break
		}
		body.Products = append(body.Products, productBody(p))
	}
	return body, nil
}

// getProduct shows a product. Its units change while its version stays, so
// what everybody sees has a tag of its own.
func (c *Catalogue) getProduct(w http.ResponseWriter, r *http.Request) error {
	from, err := c.shelf(w, r)
	if err != nil {
		return err
	}
	p, err := from.product(r.Context(), r.PathValue("activity"), r.PathValue("product"))
	if err != nil {
		return err
	}
	if _, public := from.(shown); public {
		return tagged(w, r, productBody(p))
	}
	w.Header().Set("ETag", web.ETag(p.Version))
	return web.WriteJSON(w, http.StatusOK, productBody(p))
}
