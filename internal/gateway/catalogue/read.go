package catalogue

import (
	"net/http"
	"time"

	"github.com/leadingpeers/seckill/internal/gateway/web"
	"github.com/leadingpeers/seckill/pkg/catalog"
)

// Millis is a time as the API writes it: RFC 3339, UTC, milliseconds.
type Millis struct{ time.Time }

// MarshalJSON writes the time with exactly three digits of a second.
func (t Millis) MarshalJSON() ([]byte, error) {
	return []byte(t.UTC().Format(`"2006-01-02T15:04:05.000Z"`)), nil
}

// activityBody is an activity as the API shows it.
type activityBody struct {
	ID               string `json:"id"`
	Name             string `json:"name"`
	State            string `json:"state"`
	StartsAt         Millis `json:"starts_at"`
	EndsAt           Millis `json:"ends_at"`
	PayWindowSeconds int64  `json:"pay_window_seconds"`
	Version          int64  `json:"version"`
	CreatedAt        Millis `json:"created_at"`
	UpdatedAt        Millis `json:"updated_at"`
}

func activityBodyOf(a catalog.Activity) activityBody {
	return activityBody{
		ID: a.ID, Name: a.Name, State: string(a.State),
		StartsAt: Millis{a.StartsAt}, EndsAt: Millis{a.EndsAt}, PayWindowSeconds: int64(a.PayWindow / time.Second),
		Version: a.Version, CreatedAt: Millis{a.CreatedAt}, UpdatedAt: Millis{a.UpdatedAt},
	}
}

// productBody is a product as the API shows it.
type productBody struct {
	ID         string `json:"id"`
	ActivityID string `json:"activity_id"`
	Name       string `json:"name"`
	ImageURL   string `json:"image_url,omitempty"`
	Channel    string `json:"channel,omitempty"`
	PriceCents int64  `json:"price_cents"`
	Currency   string `json:"currency"`
	Total      int64  `json:"total"`
	PerOrder   int64  `json:"per_order"`
	PerUser    int64  `json:"per_user"`
	SoldOut    bool   `json:"sold_out"` // the source channel has none left
	Version    int64  `json:"version"`
	CreatedAt  Millis `json:"created_at"`
	UpdatedAt  Millis `json:"updated_at"`
}

func productBodyOf(p catalog.Product) productBody {
	return productBody{
		ID: p.ID, ActivityID: p.ActivityID, Name: p.Name, ImageURL: p.ImageURL, Channel: p.Channel,
		PriceCents: p.PriceCents, Currency: p.Currency, Total: p.Total, PerOrder: p.PerOrder, PerUser: p.PerUser,
		SoldOut: p.SoldOut, Version: p.Version, CreatedAt: Millis{p.CreatedAt}, UpdatedAt: Millis{p.UpdatedAt},
	}
}

// activitiesBody and productsBody are the lists; a list is never null.
type activitiesBody struct {
	Activities []activityBody `json:"activities"`
}

type productsBody struct {
	Products []productBody `json:"products"`
}

func (c *Catalogue) listActivities(w http.ResponseWriter, r *http.Request) error {
	from, err := c.shelf(w, r)
	if err != nil {
		return err
	}
	list, err := from.activities(r.Context())
	if err != nil {
		return err
	}
	body := activitiesBody{Activities: []activityBody{}}
	for _, a := range list {
		body.Activities = append(body.Activities, activityBodyOf(a))
	}
	return web.WriteJSON(w, http.StatusOK, body)
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
	return web.WriteJSON(w, http.StatusOK, activityBodyOf(a))
}

func (c *Catalogue) listProducts(w http.ResponseWriter, r *http.Request) error {
	from, err := c.shelf(w, r)
	if err != nil {
		return err
	}
	if _, err := from.activity(r.Context(), r.PathValue("activity")); err != nil {
		return err
	}
	list, err := from.products(r.Context(), r.PathValue("activity"))
	if err != nil {
		return err
	}
	body := productsBody{Products: []productBody{}}
	for _, p := range list {
		body.Products = append(body.Products, productBodyOf(p))
	}
	return web.WriteJSON(w, http.StatusOK, body)
}

func (c *Catalogue) getProduct(w http.ResponseWriter, r *http.Request) error {
	from, err := c.shelf(w, r)
	if err != nil {
		return err
	}
	p, err := from.product(r.Context(), r.PathValue("activity"), r.PathValue("product"))
	if err != nil {
		return err
	}
	return web.WriteJSON(w, http.StatusOK, productBodyOf(p))
}
