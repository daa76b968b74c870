// Package catalogue is the part of the gateway that shows and runs what is on
// sale: reading it is open to all and served from memory; changing it takes an
// operator's key, and makes Redis follow MySQL.
package catalogue

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/leadingpeers/seckill/internal/gateway/web"
	"github.com/leadingpeers/seckill/pkg/catalog"
	"github.com/leadingpeers/seckill/pkg/stock"
)

// Snapshot is what is on sale, in memory. *catalog.Snapshot is one.
type Snapshot interface {
	Current() *catalog.View
	Get(ctx context.Context) (*catalog.View, error)
}

// Catalog is the catalogue in MySQL. *catalog.Store is one.
type Catalog interface {
	ActivityStore
	ProductStore
}

// ActivityStore keeps activities.
type ActivityStore interface {
	CreateActivity(ctx context.Context, a catalog.Activity) (catalog.Activity, error)
	UpdateActivity(ctx context.Context, id string, version int64, c catalog.ActivityChange) (catalog.Activity, error)
	DeleteActivity(ctx context.Context, id string, version int64) error
	SetState(ctx context.Context, id string, to catalog.ActivityState) (catalog.Activity, error)
	Activity(ctx context.Context, id string) (catalog.Activity, error)
	List(ctx context.Context, f catalog.Filter) ([]catalog.Activity, error)
	Over(ctx context.Context, id string) (bool, error)
	OnSale(ctx context.Context) ([]catalog.Listing, error)
}

// ProductStore keeps products.
type ProductStore interface {
	AddProduct(ctx context.Context, p catalog.Product) (catalog.Product, error)
	UpdateProduct(ctx context.Context, id string, version int64, c catalog.ProductChange) (catalog.Product, error)
	DeleteProduct(ctx context.Context, id string, version int64) error
	Product(ctx context.Context, id string) (catalog.Product, error)
	Products(ctx context.Context, activityID string) ([]catalog.Product, error)
}

// Cache is what Redis has of a product. *stock.Cache is one.
type Cache interface {
	Configure(ctx context.Context, terms stock.Terms) error
	Flush(ctx context.Context, productID string, force bool) error
	Loaded(ctx context.Context, productIDs []string) (map[string]string, error)
}

// LoadFunc fills a product into Redis from the ledger; false means that it was
// there already. stock.Load, with its cache and its ledger, is one.
type LoadFunc func(ctx context.Context, terms stock.Terms) (loaded bool, err error)

// Config is what a Catalogue needs; every field is required.
type Config struct {
	Catalog      Catalog
	Snapshot     Snapshot
	Cache        Cache
	Load         LoadFunc
	SnapshotAge  time.Duration    // how old the snapshot of any gateway may be
	StoreTimeout time.Duration    // how long a request waits for MySQL
	AdminTimeout time.Duration    // how long a change may take with its loading of Redis
	Now          func() time.Time // for connection deadlines only
}

// Catalogue serves the routes of the catalogue.
type Catalogue struct {
	cfg   Config
	last  atomic.Pointer[catalog.View] // that the snapshot gave
	pages pages
}

// staleAfter is how long a request waits for a newer view when there is one.
const staleAfter = 100 * time.Millisecond

// New makes a Catalogue.
func New(cfg Config) *Catalogue { return &Catalogue{cfg: cfg} }

// The paths that the routes below hang on.
const (
	activities  = "/v1/activities"
	oneActivity = activities + "/{activity}"
	products    = oneActivity + "/products"
	OneProduct  = products + "/{product}" // the rest of the gateway hangs on this one
)

// Routes lists the operations and who may use them.
func (c *Catalogue) Routes() []web.Route {
	operators := web.Operators()
	return []web.Route{
		{Name: "ListActivities", Method: "GET", Path: activities, Open: true, Handle: c.listActivities},
		{Name: "GetActivity", Method: "GET", Path: oneActivity, Open: true, Handle: c.getActivity},
		{Name: "ListProducts", Method: "GET", Path: products, Open: true, Handle: c.listProducts},
		{Name: "GetProduct", Method: "GET", Path: OneProduct, Open: true, Handle: c.getProduct},

		{Name: "CreateActivity", Method: "POST", Path: activities, Roles: operators, Handle: c.createActivity},
		{Name: "PublishActivity", Method: "POST", Path: oneActivity + "/publish", Roles: operators, Handle: c.publish},
		{Name: "PauseActivity", Method: "POST", Path: oneActivity + "/pause", Roles: operators, Handle: c.pause},
		{Name: "ResumeActivity", Method: "POST", Path: oneActivity + "/resume", Roles: operators, Handle: c.resume},
		{Name: "EndActivity", Method: "POST", Path: oneActivity + "/end", Roles: operators, Handle: c.end},
		{Name: "AddProduct", Method: "POST", Path: products, Roles: operators, Handle: c.addProduct},
		{Name: "UpdateActivity", Method: "PATCH", Path: oneActivity, Roles: operators, Handle: c.updateActivity},
		{Name: "DeleteActivity", Method: "DELETE", Path: oneActivity, Roles: operators, Handle: c.deleteActivity},
		{Name: "UpdateProduct", Method: "PATCH", Path: OneProduct, Roles: operators, Handle: c.updateProduct},
		{Name: "DeleteProduct", Method: "DELETE", Path: OneProduct, Roles: operators, Handle: c.deleteProduct},

		{Name: "PreloadActivity", Method: "POST", Path: oneActivity + "/preload", Roles: operators, Handle: c.preloadActivity},
		{Name: "FlushActivity", Method: "POST", Path: oneActivity + "/flush", Roles: operators, Handle: c.flushActivity},
		{Name: "PreloadProduct", Method: "POST", Path: OneProduct + "/preload", Roles: operators, Handle: c.preloadProduct},
		{Name: "FlushProduct", Method: "POST", Path: OneProduct + "/flush", Roles: operators, Handle: c.flushProduct},
	}
}
