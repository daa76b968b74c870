// Package stockops is the part of the gateway through which operators see and
// move the units of a product: its count, restocking, and a source that has
// nothing left. MySQL is changed first and Redis made to follow; after a fault
// in between, the same request completes it, and so does a healer.
package stockops

import (
	"context"
	"errors"
	"net/http"
	"regexp"
	"slices"
	"time"

	"github.com/leadingpeers/seckill/api"
	"github.com/leadingpeers/seckill/internal/gateway/catalogue"
	"github.com/leadingpeers/seckill/internal/gateway/problem"
	"github.com/leadingpeers/seckill/internal/gateway/web"
	"github.com/leadingpeers/seckill/pkg/catalog"
	"github.com/leadingpeers/seckill/pkg/stock"
)

// Ledger is the count in MySQL. *stock.Ledger is one.
type Ledger interface {
	Stock(ctx context.Context, productID string) (stock.Stock, error)
	Restock(ctx context.Context, productID, opID string, delta int64) (replayed bool, err error)
	Restocked(ctx context.Context, productID, opID string, delta int64) (bool, error)
	SetSoldOut(ctx context.Context, productIDs []string, soldOut bool) (changed []string, err error)
	Reopen(ctx context.Context, productID string) (changed bool, err error)
}

// Cache is the count in Redis. *stock.Cache is one.
type Cache interface {
	Counts(ctx context.Context, productID string) (stock.Counts, error)
	Surplus(ctx context.Context, productID string) (int64, error)
	Configure(ctx context.Context, terms stock.Terms) error
	Flush(ctx context.Context, productID string, force bool) error
}

// Catalog is the catalogue in MySQL. *catalog.Store is one.
type Catalog interface {
	Activity(ctx context.Context, id string) (catalog.Activity, error)
	Product(ctx context.Context, id string) (catalog.Product, error)
	OnSale(ctx context.Context) ([]catalog.Listing, error)
}

// Config is what a StockOps needs; every field is required.
type Config struct {
	Ledger  Ledger
	Cache   Cache
	Catalog Catalog
	Load    catalogue.LoadFunc // puts a product into Redis, from the ledger
	Heal    HealFunc           // tells Redis all that the ledger has of a product
	Timeout time.Duration      // how long a change may take with its telling of Redis
	Now     func() time.Time   // for connection deadlines only
}

// HealFunc makes Redis agree with the ledger about a product: see [stock.Heal].
type HealFunc func(ctx context.Context, productID string) error

// StockOps serves the routes of the stock.
type StockOps struct{ cfg Config }

// New makes a StockOps.
func New(cfg Config) *StockOps { return &StockOps{cfg: cfg} }

// Routes lists the operations and who may use them.
func (s *StockOps) Routes() []web.Route {
	operators := web.Operators()
	return []web.Route{
		{Name: "GetStock", Method: "GET", Path: catalogue.OneProduct + "/stock", Roles: web.Viewers(), Handle: s.get},
		{Name: "SellOutProduct", Method: "POST", Path: catalogue.OneProduct + "/sold-out", Roles: operators, Handle: s.sellOut},
		{Name: "ResumeProduct", Method: "POST", Path: catalogue.OneProduct + "/resume", Roles: operators, Handle: s.resume},
		{Name: "ReopenProduct", Method: "POST", Path: catalogue.OneProduct + "/reopen", Roles: operators, Handle: s.reopen},
		{Name: "HealProduct", Method: "POST", Path: catalogue.OneProduct + "/heal", Roles: operators, Handle: s.heal},
		{Name: "RestockProduct", Method: "POST", Path: catalogue.OneProduct + "/restock", Roles: operators, Handle: s.restock},
		{Name: "SellOutChannel", Method: "POST", Path: "/v1/channels/{channel}/sold-out", Roles: operators, Handle: s.sellOutChannel},
		{Name: "ResumeChannel", Method: "POST", Path: "/v1/channels/{channel}/resume", Roles: operators, Handle: s.resumeChannel},
	}
}

// fault finds the answer to an error of the stores.
func fault(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, catalog.ErrNotFound), errors.Is(err, stock.ErrNotFound):
		return problem.Of(problem.ProductNotFound)
	case errors.Is(err, stock.ErrNotEnough):
		return problem.New(problem.NotEnoughAvailable, "%s.", err)
	case errors.Is(err, stock.ErrOpReused):
		return problem.New(problem.IdempotencyKeyReused, "%s.", err)
	case errors.Is(err, stock.ErrInvalid):
		return problem.New(problem.InvalidField, "%s.", err)
	case errors.Is(err, stock.ErrClosed), errors.Is(err, stock.ErrUnbalanced):
		return problem.New(problem.WrongState, "%s.", err)
	}
	return problem.Fault(problem.DatabaseUnavailable, err)
}

// begin is the context of a request, with the time it may take.
func (s *StockOps) begin(w http.ResponseWriter, r *http.Request) (context.Context, context.CancelFunc) {
	web.Extend(w, s.cfg.Now().Add(s.cfg.Timeout))
	return context.WithTimeout(r.Context(), s.cfg.Timeout)
}

// find is the product that the path of r names; somebody else's activity has
// none of it.
func (s *StockOps) find(ctx context.Context, r *http.Request) (catalog.Product, error) {
	p, err := s.cfg.Catalog.Product(ctx, r.PathValue("product"))
	if err == nil && p.ActivityID != r.PathValue("activity") {
		err = catalog.ErrNotFound
	}
	return p, fault(err)
}

// get shows the units of a product.
func (s *StockOps) get(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := s.begin(w, r)
	defer cancel()
	p, err := s.find(ctx, r)
	if err != nil {
		return err
	}
	return s.show(ctx, w, p.ID, false)
}

// show answers with the units as they are now.
func (s *StockOps) show(ctx context.Context, w http.ResponseWriter, productID string, replayed bool) error {
	have, err := s.cfg.Ledger.Stock(ctx, productID)
	if err != nil {
		return fault(err)
	}
	body := api.Stock{
		ProductID: productID, Total: have.Total, Available: have.Available, Deducted: have.Deducted, State: have.State, Replayed: replayed,
	}
	counts, err := s.cfg.Cache.Counts(ctx, productID)
	switch {
	case err == nil:
		body.Loaded, body.Surplus, body.Pending = true, &counts.Surplus, &counts.Pending
		body.Drift = new(counts.Surplus + counts.Pending - have.Available)
	case !errors.Is(err, stock.NotLoaded):
		return problem.Fault(problem.CacheUnavailable, err)
	}
	return web.WriteJSON(w, http.StatusOK, body)
}

// tell makes Redis follow what MySQL has of a product.
func (s *StockOps) tell(ctx context.Context, productID string) error {
	p, err := s.cfg.Catalog.Product(ctx, productID)
	if err != nil {
		return fault(err)
	}
	a, err := s.cfg.Catalog.Activity(ctx, p.ActivityID)
	if err != nil {
		return fault(err)
	}
	err = s.cfg.Cache.Configure(ctx, catalogue.Terms(a, p))
	if err != nil && !errors.Is(err, stock.NotLoaded) { // loading it brings them
		return problem.Fault(problem.PreloadFailed, err)
	}
	return nil
}

func (s *StockOps) sellOut(w http.ResponseWriter, r *http.Request) error {
	return s.setProduct(w, r, true)
}

func (s *StockOps) resume(w http.ResponseWriter, r *http.Request) error {
	return s.setProduct(w, r, false)
}

// setProduct closes a product because its source has none left, or opens it.
func (s *StockOps) setProduct(w http.ResponseWriter, r *http.Request, soldOut bool) error {
	if err := web.DecodeNothing(r); err != nil {
		return err
	}
	ctx, cancel := s.begin(w, r)
	defer cancel()
	p, err := s.find(ctx, r)
	if err != nil {
		return err
	}
	if _, err := s.cfg.Ledger.SetSoldOut(ctx, []string{p.ID}, soldOut); err != nil {
		return fault(err)
	}
	if err := s.tell(ctx, p.ID); err != nil {
		return err
	}
	return s.show(ctx, w, p.ID, false)
}

var (
	channelPattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,34}[a-z0-9])?$`)
	opPattern      = regexp.MustCompile(`^[!-~]{1,64}$`)
)

func (s *StockOps) sellOutChannel(w http.ResponseWriter, r *http.Request) error {
	return s.setChannel(w, r, true)
}

func (s *StockOps) resumeChannel(w http.ResponseWriter, r *http.Request) error {
	return s.setChannel(w, r, false)
}

// setChannel does so for all live products whose stock comes from a channel.
func (s *StockOps) setChannel(w http.ResponseWriter, r *http.Request, soldOut bool) error {
	if err := web.DecodeNothing(r); err != nil {
		return err
	}
	ctx, cancel := s.begin(w, r)
	defer cancel()
	ids, err := s.fed(ctx, r.PathValue("channel"))
	if err != nil {
		return err
	}
	changed, err := s.cfg.Ledger.SetSoldOut(ctx, ids, soldOut)
	if err != nil {
		return fault(err)
	}
	body := api.Channel{Channel: r.PathValue("channel"), Products: []string{}, Unchanged: []string{}}
	for _, id := range ids {
		if err := s.tell(ctx, id); err != nil {
			return err
		}
		if slices.Contains(changed, id) {
			body.Products = append(body.Products, id)
		} else {
			body.Unchanged = append(body.Unchanged, id)
		}
	}
	return web.WriteJSON(w, http.StatusOK, body)
}

// fed are the live products whose stock comes from a channel.
func (s *StockOps) fed(ctx context.Context, channel string) (ids []string, err error) {
	if !channelPattern.MatchString(channel) {
		return nil, problem.Of(problem.ChannelNotFound)
	}
	listings, err := s.cfg.Catalog.OnSale(ctx)
	if err != nil {
		return nil, fault(err)
	}
	for _, l := range listings {
		for _, p := range l.Products {
			if p.Channel == channel && l.Activity.State != catalog.Ended {
				ids = append(ids, p.ID)
			}
		}
	}
	if len(ids) == 0 {
		return nil, problem.Of(problem.ChannelNotFound)
	}
	return ids, nil
}

// spare refuses to take away units that Redis has given out and the ledger has
// not decided yet: their buyers would be refused after they were accepted.
// Those who are served at this very moment may still be among them.
func (s *StockOps) spare(ctx context.Context, productID string, op api.Restock) error {
	if op.Delta > 0 {
		return nil
	}
	if done, err := s.cfg.Ledger.Restocked(ctx, productID, op.OpID, op.Delta); done || err != nil {
		return fault(err) // they are taken away already
	}
	surplus, err := s.cfg.Cache.Surplus(ctx, productID)
	switch {
	case errors.Is(err, stock.NotLoaded):
		return nil // nothing is given out
	case err != nil:
		return problem.Fault(problem.CacheUnavailable, err)
	case surplus+op.Delta < 0:
		return problem.New(problem.NotEnoughAvailable, "%d units are to be had, %d were to be taken away.", max(0, surplus), -op.Delta)
	}
	return nil
}

// restock adds units, or takes unsold ones away, once for each op_id.
func (s *StockOps) restock(w http.ResponseWriter, r *http.Request) error {
	var body api.Restock
	err := web.Decode(r, web.MaxAdminBody, web.Field{Name: "op_id", Into: &body.OpID}, web.Field{Name: "delta", Into: &body.Delta})
	switch {
	case err != nil:
		return err
	case !opPattern.MatchString(body.OpID):
		return problem.New(problem.InvalidField, "op_id is %.70q: want 1 to 64 visible ASCII characters.", body.OpID)
	case body.Delta == 0 || body.Delta < -catalog.MaxUnits || body.Delta > catalog.MaxUnits:
		return problem.New(problem.InvalidField, "delta is %d: want -%d to %d, and not 0.", body.Delta, catalog.MaxUnits, catalog.MaxUnits)
	}
	ctx, cancel := s.begin(w, r)
	defer cancel()
	p, err := s.find(ctx, r)
	if err != nil {
		return err
	}
	if err := s.spare(ctx, p.ID, body); err != nil {
		return err
	}
	replayed, err := s.cfg.Ledger.Restock(ctx, p.ID, body.OpID, body.Delta)
	if err != nil {
		return fault(err)
	}
	if err := s.tell(ctx, p.ID); err != nil {
		return err
	}
	return s.show(ctx, w, p.ID, replayed)
}
