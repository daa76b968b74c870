package catalogue

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/leadingpeers/seckill/internal/gateway/problem"
	"github.com/leadingpeers/seckill/internal/gateway/web"
	"github.com/leadingpeers/seckill/pkg/catalog"
)

// shelf is where a reader of the catalogue looks: an operator sees the
// database, drafts included; everybody else sees the snapshot, which costs no
// query whatever they ask for.
type shelf interface {
	activities(ctx context.Context, f catalog.Filter) ([]catalog.Activity, error)
	activity(ctx context.Context, id string) (catalog.Activity, error)
	products(ctx context.Context, activityID string) ([]catalog.Product, error)
	product(ctx context.Context, activityID, id string) (catalog.Product, error)
}

// shelf chooses by the key, and lets the answer to everybody be cached for as
// long as the snapshot itself may be old.
func (c *Catalogue) shelf(w http.ResponseWriter, r *http.Request) (shelf, error) {
	if slices.Contains(web.Viewers(), web.RoleOf(r)) {
		return stored{c.cfg.Catalog}, nil
	}
	view, err := c.view(r.Context())
	if err != nil {
		return nil, err
	}
	w.Header().Set("Vary", "Authorization")
	w.Header().Set("Cache-Control", "public, max-age=1")
	return shown{view}, nil
}

// view is the snapshot's view. When MySQL keeps a load of a newer one waiting,
// the last that was seen has to do: what a product costs and where it belongs
// does not change while it is sold, and Redis knows whether it is.
func (c *Catalogue) view(ctx context.Context) (*catalog.View, error) {
	if view := c.cfg.Snapshot.Current(); view != nil {
		c.last.Store(view)
		return view, nil
	}
	last := c.last.Load()
	limit := c.cfg.StoreTimeout
	if last != nil {
		limit = staleAfter
	}
	ctx, cancel := web.Within(ctx, limit)
	defer cancel()
	view, err := c.cfg.Snapshot.Get(ctx)
	switch {
	case err == nil:
		c.last.Store(view)
		return view, nil
	case last != nil:
		return last, nil
	}
	return nil, problem.Fault(problem.DatabaseUnavailable, err)
}

// OnSale is the product that the path of r names, if the snapshot has it:
// unknown ones reach neither Redis nor MySQL. The error is a problem.
func (c *Catalogue) OnSale(r *http.Request) (catalog.Product, error) {
	return c.Named(r, r.PathValue("activity"), r.PathValue("product"))
}

// Named is OnSale for a product that the body of r names.
func (c *Catalogue) Named(r *http.Request, activityID, productID string) (catalog.Product, error) {
	if !web.Caller(r).MayActFor(activityID) {
		return catalog.Product{}, problem.Of(problem.ActivityNotFound)
	}
	view, err := c.view(r.Context())
	if err != nil {
		return catalog.Product{}, err
	}
	return shown{view}.product(r.Context(), activityID, productID)
}

// Ever is the product that the path of r names, on sale or long gone: who
// bought it may still ask. The error is a problem.
func (c *Catalogue) Ever(r *http.Request) (catalog.Product, error) {
	p, err := c.OnSale(r)
	if err == nil || !web.Caller(r).MayActFor(r.PathValue("activity")) {
		return p, err
	}
	ctx, cancel := web.Within(r.Context(), c.cfg.StoreTimeout)
	defer cancel()
	return stored{c.cfg.Catalog}.product(ctx, r.PathValue("activity"), r.PathValue("product"))
}

// shown is the shelf of the snapshot. It asks nobody.
type shown struct{ view *catalog.View }

// activities go through the listings, which are ordered by ID.
func (s shown) activities(_ context.Context, f catalog.Filter) ([]catalog.Activity, error) {
	var list []catalog.Activity
	for _, l := range s.view.Listings() {
		a := l.Activity
		switch {
		case a.ID <= f.After, f.State != "" && a.State != f.State,
			!f.From.IsZero() && !a.EndsAt.After(f.From), !f.To.IsZero() && !a.StartsAt.Before(f.To):
			continue
		}
		if list = append(list, a); len(list) == f.Limit {
			break
		}
	}
	return list, nil
}

func (s shown) activity(_ context.Context, id string) (catalog.Activity, error) {
	l, ok := s.view.Listing(id)
	if !ok {
		return catalog.Activity{}, problem.Of(problem.ActivityNotFound)
	}
	return l.Activity, nil
}

func (s shown) products(_ context.Context, activityID string) ([]catalog.Product, error) {
	l, _ := s.view.Listing(activityID)
	return l.Products, nil
}

func (s shown) product(ctx context.Context, activityID, id string) (catalog.Product, error) {
	p, a, ok := s.view.Product(id)
	if ok && a.ID == activityID {
		return p, nil
	}
	if _, err := s.activity(ctx, activityID); err != nil {
		return catalog.Product{}, err
	}
	return catalog.Product{}, problem.Of(problem.ProductNotFound)
}

// stored is the shelf of the database.
type stored struct{ catalog Catalog }

func (s stored) activities(ctx context.Context, f catalog.Filter) ([]catalog.Activity, error) {
	list, err := s.catalog.List(ctx, f)
	if err != nil {
		return nil, problem.Fault(problem.DatabaseUnavailable, err)
	}
	return list, nil
}

func (s stored) activity(ctx context.Context, id string) (catalog.Activity, error) {
	a, err := s.catalog.Activity(ctx, id)
	return a, catalogProblem(err, problem.ActivityNotFound)
}

func (s stored) products(ctx context.Context, activityID string) ([]catalog.Product, error) {
	list, err := s.catalog.Products(ctx, activityID)
	return list, catalogProblem(err, problem.ActivityNotFound)
}

func (s stored) product(ctx context.Context, activityID, id string) (catalog.Product, error) {
	p, err := s.catalog.Product(ctx, id)
	if err == nil && p.ActivityID != activityID {
		return catalog.Product{}, problem.Of(problem.ProductNotFound)
	}
	return p, catalogProblem(err, problem.ProductNotFound)
}

// catalogProblem finds the answer to an error of the catalogue; notFound is
// the code when what was asked for is not there. nil stays nil.
func catalogProblem(err error, notFound problem.Code) error {
	invalid, isInvalid := errors.AsType[*catalog.InvalidError](err)
	locked, isLocked := errors.AsType[*catalog.LockedError](err)
	switch {
	case err == nil:
		return nil
	case isInvalid:
		return problem.New(problem.InvalidField, "%s: %s.", invalid.Field, invalid.Problem)
	case errors.Is(err, catalog.ErrNotFound):
		return problem.Of(notFound)
	case errors.Is(err, catalog.ErrExists):
		return problem.Of(problem.AlreadyExists)
	case isLocked:
		code := problem.ActivityOnline
		if locked.State != catalog.Online {
			code = problem.WrongState
		}
		var list []problem.Item
		for _, field := range locked.Fields {
			list = append(list, problem.Item{Field: field, Detail: "cannot change while the activity is " + string(locked.State)})
		}
		return problem.All(code, list, "%s.", locked)
	case errors.Is(err, catalog.ErrVersion):
		return problem.New(problem.PreconditionFailed, "%s.", err)
	case errors.Is(err, catalog.ErrReserved):
		return problem.Of(problem.HasReservations)
	case errors.Is(err, catalog.ErrOnline):
		return problem.Of(problem.ActivityOnline)
	case errors.Is(err, catalog.ErrTransition):
		return problem.New(problem.WrongState, "%s.", err)
	default:
		return problem.Fault(problem.DatabaseUnavailable, err)
	}
}
