package catalog_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leadingpeers/seckill/internal/audit"
	"github.com/leadingpeers/seckill/internal/testservers"
	"github.com/leadingpeers/seckill/pkg/catalog"
)

// is reports whether err is the one that is wanted; a field name wants an
// InvalidError, a list of them behind "locked " a LockedError.
func is(err error, want any) bool {
	switch w := want.(type) {
	case nil:
		return err == nil
	case error:
		return errors.Is(err, w)
	case string:
		if fields, ok := strings.CutPrefix(w, "locked "); ok {
			locked, ok := errors.AsType[*catalog.LockedError](err)
			return ok && strings.Join(locked.Fields, ",") == fields
		}
		invalid, ok := errors.AsType[*catalog.InvalidError](err)
		return ok && invalid.Field == w
	}
	return false
}

func TestUpdateActivity(t *testing.T) {
	db := testservers.MySQL(t)
	s := catalog.NewStore(db)
	for id, state := range map[string]catalog.ActivityState{"draft": catalog.Draft, "online": catalog.Online, "paused": catalog.Paused, "ended": catalog.Ended} {
		create(t, s, id, state, id+"-p")
	}
	later := activity("x").EndsAt.Add(time.Hour)
	for _, tt := range []struct {
		id      string
		version int64 // added to the present one
		change  catalog.ActivityChange
		want    any
		why     string
	}{
		{"draft", 0, catalog.ActivityChange{Name: new("新"), EndsAt: &later, PayWindow: new(time.Minute)}, nil, "a draft is free"},
		{"draft", -1, catalog.ActivityChange{Name: new("x")}, catalog.ErrVersion, "somebody was faster"},
		{"draft", 0, catalog.ActivityChange{}, nil, "nothing to do"},
		{"draft", 0, catalog.ActivityChange{Name: new("")}, "name", "a name is needed"},
		{"draft", 0, catalog.ActivityChange{StartsAt: new(later.Add(time.Hour))}, "ends_at", "the end would come first"},
		{"draft", 0, catalog.ActivityChange{PayWindow: new(time.Duration(0))}, "pay_window", "out of range"},
		{"online", 0, catalog.ActivityChange{Name: new("x")}, nil, "a name sells nothing"},
		{"online", 0, catalog.ActivityChange{Name: new("y"), EndsAt: &later, PayWindow: new(time.Minute)}, "locked ends_at,pay_window_seconds", "the seed's rule, naming the fields"},
		{"paused", 0, catalog.ActivityChange{EndsAt: &later}, nil, "nobody buys meanwhile"},
		{"ended", 0, catalog.ActivityChange{Name: new("x")}, "locked name", "it is history"},
		{"none", 0, catalog.ActivityChange{Name: new("x")}, catalog.ErrNotFound, "there is none"},
	} {
		before, _ := s.Activity(t.Context(), tt.id)
		got, err := s.UpdateActivity(t.Context(), tt.id, before.Version+tt.version, tt.change)
		if !is(err, tt.want) {
			t.Errorf("%s: %v, want %v: %s", tt.id, err, tt.want, tt.why)
		}
		after, _ := s.Activity(t.Context(), tt.id)
		if err != nil && after != before {
			t.Errorf("%s: refused, and yet %+v became %+v", tt.id, before, after)
		}
		if err == nil && (got != after || (after != before) != (after.Version > before.Version)) {
			t.Errorf("%s: answered %+v, stored %+v, before %+v", tt.id, got, after, before)
		}
	}
	trail, err := audit.NewTrail(db).List(t.Context(), audit.Filter{Entity: "activity/paused", Limit: 10})
	if err != nil || len(trail) != 4 {
		t.Fatalf("%d entries, %v, want create, publish, pause, update", len(trail), err)
	}
	var actions []string
	for _, e := range trail {
		actions = append(actions, e.Action)
	}
	if want := []string{"UpdateActivity", "PauseActivity", "PublishActivity", "CreateActivity"}; !slices.Equal(actions, want) {
		t.Errorf("actions %v, want %v", actions, want)
	}
}

func TestUpdateProduct(t *testing.T) {
	s := catalog.NewStore(testservers.MySQL(t))
	for id, state := range map[string]catalog.ActivityState{"draft": catalog.Draft, "online": catalog.Online, "paused": catalog.Paused, "ended": catalog.Ended} {
		create(t, s, id, state, id+"-p")
	}
	for _, tt := range []struct {
		id      string
		version int64
		change  catalog.ProductChange
		want    any
		why     string
	}{
		{"draft-p", 0, catalog.ProductChange{Name: new("x"), ImageURL: new(""), Channel: new("c"), PriceCents: new(int64(1)), Currency: new("EUR"), PerOrder: new(int64(3)), PerUser: new(int64(9)), Total: new(int64(7))}, nil, "all of it"},
		{"draft-p", 1, catalog.ProductChange{Name: new("y")}, catalog.ErrVersion, "not this version"},
		{"draft-p", 0, catalog.ProductChange{Total: new(int64(0))}, "total", "nothing to sell"},
		{"draft-p", 0, catalog.ProductChange{PriceCents: new(int64(-1))}, "price_cents", "out of range"},
		{"draft-p", 0, catalog.ProductChange{}, nil, "nothing to do"},
		{"paused-p", 0, catalog.ProductChange{PriceCents: new(int64(5)), PerUser: new(int64(1))}, nil, "terms may change while nobody buys"},
		{"paused-p", 0, catalog.ProductChange{Total: new(int64(5))}, "locked total", "units may be sold: restock"},
		{"online-p", 0, catalog.ProductChange{Name: new("x"), Total: new(int64(5))}, "locked name,total", "the seed's rule"},
		{"ended-p", 0, catalog.ProductChange{Name: new("x")}, "locked name", "it is history"},
		{"none", 0, catalog.ProductChange{Name: new("x")}, catalog.ErrNotFound, "there is none"},
	} {
		before, _ := s.Product(t.Context(), tt.id)
		got, err := s.UpdateProduct(t.Context(), tt.id, before.Version+tt.version, tt.change)
		if !is(err, tt.want) {
			t.Errorf("%s: %v, want %v: %s", tt.id, err, tt.want, tt.why)
		}
		after, _ := s.Product(t.Context(), tt.id)
		if err != nil && after != before {
			t.Errorf("%s: refused, and yet %+v became %+v", tt.id, before, after)
		}
		if err == nil && (got != after || after.Available != after.Total) {
			t.Errorf("%s: answered %+v, stored %+v", tt.id, got, after)
		}
	}
}

func TestDelete(t *testing.T) {
	db := testservers.MySQL(t)
	s := catalog.NewStore(db)
	for id, state := range map[string]catalog.ActivityState{"draft": catalog.Draft, "online": catalog.Online, "paused": catalog.Paused, "ended": catalog.Ended, "sold": catalog.Ended, "half": catalog.Paused} {
		create(t, s, id, state, id+"-p", id+"-q")
	}
	for _, p := range []string{"sold-q", "half-q"} {
		exec(t, db, "INSERT INTO reservations (reservation_id, product_id, user_id, quantity, state, created_at, updated_at) VALUES (?, ?, 'u', 1, 'refused', NOW(3), NOW(3))", append([]byte("0123456789"), p...)[:16], p)
	}
	version := func(id string) int64 {
		if a, err := s.Activity(t.Context(), id); err == nil {
			return a.Version
		}
		p, _ := s.Product(t.Context(), id)
		return p.Version
	}
	for _, tt := range []struct {
		id   string
		add  int64
		want any
		why  string
	}{
		{"draft-p", 1, catalog.ErrVersion, "not this version"},
		{"draft-p", 0, nil, "nothing of it was reserved"},
		{"draft-p", 0, catalog.ErrNotFound, "it is gone"},
		{"online-p", 0, catalog.ErrOnline, "the seed's rule"},
		{"paused-p", 0, nil, "nobody buys meanwhile"},
		{"half-q", 0, catalog.ErrReserved, "it must be accounted for"},
		{"ended-p", 0, catalog.ErrTransition, "it is history"},
		{"draft", 0, nil, "with its other product"},
		{"draft", 0, catalog.ErrNotFound, "it is gone"},
		{"online", 0, catalog.ErrOnline, "it sells"},
		{"paused", 0, catalog.ErrOnline, "it may go on"},
		{"ended", 1, catalog.ErrVersion, "not this version"},
		{"ended", 0, nil, "nothing was ever reserved"},
		{"sold", 0, catalog.ErrReserved, "one product has a past"},
	} {
		var err error
		if strings.Contains(tt.id, "-") {
			err = s.DeleteProduct(t.Context(), tt.id, version(tt.id)+tt.add)
		} else {
			err = s.DeleteActivity(t.Context(), tt.id, version(tt.id)+tt.add)
		}
		if !is(err, tt.want) {
			t.Errorf("%s: %v, want %v: %s", tt.id, err, tt.want, tt.why)
		}
	}
	if left, err := s.Products(t.Context(), "sold"); err != nil || len(left) != 2 {
		t.Errorf("%d products left of sold, %v, want both: refused means nothing changed", len(left), err)
	}
	if _, err := s.Product(t.Context(), "draft-q"); !errors.Is(err, catalog.ErrNotFound) {
		t.Errorf("a product of a deleted activity: %v", err)
	}
}

func TestList(t *testing.T) {
	s := catalog.NewStore(testservers.MySQL(t))
	for _, id := range []string{"a", "b", "c", "d"} {
		create(t, s, id, catalog.Draft, id+"-p")
	}
	if _, err := s.SetState(t.Context(), "b", catalog.Online); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for _, tt := range []struct {
		filter catalog.Filter
		want   string
		why    string
	}{
		{catalog.Filter{Limit: 10}, "a b c d", "all"},
		{catalog.Filter{Limit: 2}, "a b", "a page"},
		{catalog.Filter{Limit: 2, After: "b"}, "c d", "the next"},
		{catalog.Filter{Limit: 10, State: catalog.Online}, "b", "by state"},
		{catalog.Filter{Limit: 10, State: catalog.Draft, After: "a"}, "c d", "by state, the next"},
		{catalog.Filter{Limit: 10, From: now.Add(2 * time.Hour)}, "", "all have ended then"},
		{catalog.Filter{Limit: 10, To: now.Add(-2 * time.Hour)}, "", "none has begun then"},
		{catalog.Filter{Limit: 10, From: now, To: now}, "a b c d", "all are under way"},
	} {
		got, err := s.List(t.Context(), tt.filter)
		var ids []string
		for _, a := range got {
			ids = append(ids, a.ID)
		}
		if err != nil || strings.Join(ids, " ") != tt.want {
			t.Errorf("%s: %v, %v, want %s", tt.why, ids, err, tt.want)
		}
	}
	if over, err := s.Over(t.Context(), "a"); over || err != nil {
		t.Errorf("over %v, %v: its window is open", over, err)
	}
}
