package catalog_test

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/leadingpeers/seckill/internal/testservers"
	"github.com/leadingpeers/seckill/pkg/catalog"
)

// wantField fails the test unless err is an InvalidError of that field, or nil
// for "". Problem must name a limit, so that one answer is enough to mend it.
func wantField(t *testing.T, why string, err error, field string) {
	t.Helper()
	var invalid *catalog.InvalidError
	switch {
	case field == "" && err != nil:
		t.Errorf("%s: %v", why, err)
	case field != "" && (!errors.As(err, &invalid) || invalid.Field != field):
		t.Errorf("%s: got %v, want the field %s", why, err, field)
	case field != "" && !strings.HasPrefix(invalid.Problem, "want "):
		t.Errorf("%s: %q does not say what is wanted", why, invalid.Problem)
	}
}

func TestActivityLimits(t *testing.T) {
	s := catalog.NewStore(testservers.MySQL(t))
	long := strings.Repeat("x", 36)
	tests := []struct {
		why, field string
		edit       func(*catalog.Activity)
	}{
		{"the longest ID", "", func(a *catalog.Activity) { a.ID = long }},
		{"an ID one too long", "id", func(a *catalog.Activity) { a.ID = long + "x" }},
		{"capital letters", "id", func(a *catalog.Activity) { a.ID = "Act" }},
		{"a hyphen at the end", "id", func(a *catalog.Activity) { a.ID = "act-" }},
		{"a brace, which would end a Redis hash tag", "id", func(a *catalog.Activity) { a.ID = "a}b" }},
		{"no name", "name", func(a *catalog.Activity) { a.Name = "" }},
		{"120 characters of four bytes", "", func(a *catalog.Activity) { a.Name = strings.Repeat("🛒", 120) }},
		{"121 characters", "name", func(a *catalog.Activity) { a.Name = strings.Repeat("x", 121) }},
		{"not UTF-8", "name", func(a *catalog.Activity) { a.Name = "\xff" }},
		{"a line feed in the name", "name", func(a *catalog.Activity) { a.Name = "a\nb" }},
		{"no start", "starts_at", func(a *catalog.Activity) { a.StartsAt = time.Time{} }},
		{"a start of microseconds, which would be rounded", "starts_at", func(a *catalog.Activity) { a.StartsAt = a.StartsAt.Add(time.Microsecond) }},
		{"no end", "ends_at", func(a *catalog.Activity) { a.EndsAt = time.Time{} }},
		{"an end beyond the column", "ends_at", func(a *catalog.Activity) { a.EndsAt = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) }},
		{"an empty window", "ends_at", func(a *catalog.Activity) { a.EndsAt = a.StartsAt }},
		{"another time zone", "", func(a *catalog.Activity) { a.StartsAt = a.StartsAt.In(time.FixedZone("x", 8*3600)) }},
		{"no time to pay", "pay_window", func(a *catalog.Activity) { a.PayWindow = 0 }},
		{"half a second more", "pay_window", func(a *catalog.Activity) { a.PayWindow += 500 * time.Millisecond }},
		{"a second", "", func(a *catalog.Activity) { a.PayWindow = time.Second }},
		{"a day", "", func(a *catalog.Activity) { a.PayWindow = 24 * time.Hour }},
		{"a day and a second", "pay_window", func(a *catalog.Activity) { a.PayWindow = 24*time.Hour + time.Second }},
	}
	for _, tt := range tests {
		in := activity("")
		tt.edit(&in)
		got, err := s.CreateActivity(t.Context(), in)
		wantField(t, tt.why, err, tt.field)
		if err == nil && (got.Name != in.Name || !got.StartsAt.Equal(in.StartsAt) || !got.EndsAt.Equal(in.EndsAt) || got.PayWindow != in.PayWindow) {
			t.Errorf("%s: came back as %+v", tt.why, got)
		}
	}
}

func TestProductLimits(t *testing.T) {
	s := catalog.NewStore(testservers.MySQL(t))
	create(t, s, "act", catalog.Draft)
	tests := []struct {
		why, field string
		edit       func(*catalog.Product)
	}{
		{"an ID with a space", "id", func(p *catalog.Product) { p.ID = "a b" }},
		{"no activity", "activity_id", func(p *catalog.Product) { p.ActivityID = "" }},
		{"no name", "name", func(p *catalog.Product) { p.Name = "" }},
		{"no image", "", func(p *catalog.Product) { p.ImageURL = "" }},
		{"a script for an image", "image_url", func(p *catalog.Product) { p.ImageURL = "javascript:alert(1)" }},
		{"an image without a host", "image_url", func(p *catalog.Product) { p.ImageURL = "https:///a.png" }},
		{"an image with a space", "image_url", func(p *catalog.Product) { p.ImageURL = "https://example.com/a b.png" }},
		{"the longest image", "", func(p *catalog.Product) { p.ImageURL = "https://example.com/" + strings.Repeat("x", 1004) }},
		{"an image one too long", "image_url", func(p *catalog.Product) { p.ImageURL = "https://example.com/" + strings.Repeat("x", 1005) }},
		{"no channel", "", func(p *catalog.Product) { p.Channel = "" }},
		{"a channel of capital letters", "channel", func(p *catalog.Product) { p.Channel = "WH" }},
		{"for nothing", "", func(p *catalog.Product) { p.PriceCents = 0 }},
		{"a negative price", "price_cents", func(p *catalog.Product) { p.PriceCents = -1 }},
		{"the highest price", "", func(p *catalog.Product) { p.PriceCents = catalog.MaxPriceCents }},
		{"a price too high", "price_cents", func(p *catalog.Product) { p.PriceCents = catalog.MaxPriceCents + 1 }},
		{"a currency of two letters", "currency", func(p *catalog.Product) { p.Currency = "CN" }},
		{"a currency in small letters", "currency", func(p *catalog.Product) { p.Currency = "cny" }},
		{"nothing to sell", "total", func(p *catalog.Product) { p.Total = 0 }},
		{"the most to sell", "", func(p *catalog.Product) { p.Total = 999_999_999 }},
		{"one too many to sell", "total", func(p *catalog.Product) { p.Total = 1_000_000_000 }},
		{"no units in an order", "per_order", func(p *catalog.Product) { p.PerOrder = 0 }},
		{"ten digits in an order", "per_order", func(p *catalog.Product) { p.PerOrder = 1_000_000_000 }},
		{"no units for a buyer", "per_user", func(p *catalog.Product) { p.PerUser = -1 }},
		{"ten digits for a buyer", "per_user", func(p *catalog.Product) { p.PerUser = math.MaxInt64 }},
	}
	for _, tt := range tests {
		in := product("", "act")
		tt.edit(&in)
		_, err := s.AddProduct(t.Context(), in)
		wantField(t, tt.why, err, tt.field)
	}
	if catalog.MaxPriceCents > math.MaxInt64/catalog.MaxUnits {
		t.Error("the amount of the dearest order does not fit an int64")
	}
}
