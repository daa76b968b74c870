package catalog_test

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"

	"github.com/leadingpeers/seckill/internal/testservers"
	"github.com/leadingpeers/seckill/pkg/catalog"
)

// activity is a valid activity whose window is around the present.
func activity(id string) catalog.Activity {
	now := time.Now().UTC().Truncate(time.Millisecond)
	return catalog.Activity{ID: id, Name: "双十一 🛒", StartsAt: now.Add(-time.Hour), EndsAt: now.Add(time.Hour), PayWindow: 15 * time.Minute}
}

func product(id, activityID string) catalog.Product {
	return catalog.Product{
		ID: id, ActivityID: activityID, Name: "手机", ImageURL: "https://example.com/a.png", Channel: "warehouse-1",
		PriceCents: 499900, Currency: "CNY", Total: 100, PerOrder: 2, PerUser: 3,
	}
}

// create makes an activity with products and puts it into a state.
func create(t *testing.T, s *catalog.Store, id string, state catalog.ActivityState, products ...string) {
	t.Helper()
	if _, err := s.CreateActivity(t.Context(), activity(id)); err != nil {
		t.Fatal(err)
	}
	for _, p := range products {
		if _, err := s.AddProduct(t.Context(), product(p, id)); err != nil {
			t.Fatal(err)
		}
	}
	path := map[catalog.ActivityState][]catalog.ActivityState{
		catalog.Online: {catalog.Online},
		catalog.Paused: {catalog.Online, catalog.Paused},
		catalog.Ended:  {catalog.Online, catalog.Ended},
	}
	for _, to := range path[state] {
		if _, err := s.SetState(t.Context(), id, to); err != nil {
			t.Fatal(err)
		}
	}
}

func exec(t *testing.T, db *sql.DB, query string, args ...any) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatal(err)
	}
}

func TestCreateAndRead(t *testing.T) {
	s := catalog.NewStore(testservers.MySQL(t))
	ctx := t.Context()
	in := activity("")
	in.State, in.Version = catalog.Ended, 9 // not the caller's to say
	a, err := s.CreateActivity(ctx, in)
	if err != nil {
		t.Fatal(err)
	}
	want := in
	want.State, want.Version = catalog.Draft, 1
	if diff := cmp.Diff(want, a, cmpopts.IgnoreFields(catalog.Activity{}, "ID", "CreatedAt", "UpdatedAt")); diff != "" {
		t.Errorf("activity (-want +got):\n%s", diff)
	}
	if u, err := uuid.Parse(a.ID); err != nil || u.Version() != 7 || a.CreatedAt.IsZero() || !a.UpdatedAt.Equal(a.CreatedAt) {
		t.Errorf("ID %q created %v updated %v", a.ID, a.CreatedAt, a.UpdatedAt)
	}
	p, err := s.AddProduct(ctx, product("", a.ID))
	if err != nil {
		t.Fatal(err)
	}
	wantProduct := product("", a.ID)
	wantProduct.Version, wantProduct.Available = 1, wantProduct.Total
	if diff := cmp.Diff(wantProduct, p, cmpopts.IgnoreFields(catalog.Product{}, "ID", "CreatedAt", "UpdatedAt")); diff != "" {
		t.Errorf("product (-want +got):\n%s", diff)
	}
	if u, err := uuid.Parse(p.ID); err != nil || u.Version() != 7 {
		t.Errorf("product ID %q", p.ID)
	}
	if got, err := s.Products(ctx, a.ID); err != nil || len(got) != 1 || got[0] != p {
		t.Errorf("products: %+v, %v", got, err)
	}
	later := activity("later")
	later.StartsAt = later.StartsAt.Add(time.Minute)
	if _, err := s.CreateActivity(ctx, later); err != nil {
		t.Fatal(err)
	}
	if all, err := s.Activities(ctx); err != nil || len(all) != 2 || all[0].ID != "later" || all[1] != a {
		t.Errorf("activities: %+v, %v", all, err)
	}
	offers, err := s.Offers(ctx, []string{p.ID, "unknown", p.ID})
	if want := map[string]catalog.Offer{p.ID: {ActivityID: a.ID, PriceCents: 499900, Currency: "CNY", PayWindow: 15 * time.Minute}}; err != nil || !cmp.Equal(want, offers) {
		t.Errorf("offers: %+v, %v", offers, err)
	}
	if offers, err := s.Offers(ctx, nil); err != nil || len(offers) != 0 {
		t.Errorf("no offers: %+v, %v", offers, err)
	}
	if _, err := s.Offers(ctx, make([]string, catalog.MaxBatch+1)); err == nil {
		t.Error("too many offers were read")
	}
}

func TestAddProductMakesItsStock(t *testing.T) {
	db := testservers.MySQL(t)
	s := catalog.NewStore(db)
	create(t, s, "act", catalog.Draft, "p")
	var total, available, perUser int64
	var state string
	if err := db.QueryRowContext(t.Context(), "SELECT total, available, per_user, state FROM stock WHERE product_id = 'p'").Scan(&total, &available, &perUser, &state); err != nil {
		t.Fatal(err)
	}
	if total != 100 || available != 100 || perUser != 3 || state != "open" {
		t.Errorf("stock: %d %d %d %s", total, available, perUser, state)
	}
	exec(t, db, "UPDATE stock SET available = 7, state = 'sold_out' WHERE product_id = 'p'")
	if p, err := s.Product(t.Context(), "p"); err != nil || !p.SoldOut || p.Total != 100 {
		t.Errorf("sold out at the source: %+v, %v", p, err)
	}
}

func TestCatalogueSaysNo(t *testing.T) {
	s := catalog.NewStore(testservers.MySQL(t))
	ctx := t.Context()
	create(t, s, "draft", catalog.Draft, "p-draft")
	create(t, s, "online", catalog.Online, "p-online")
	create(t, s, "paused", catalog.Paused, "p-paused")
	create(t, s, "ended", catalog.Ended, "p-ended")
	add := func(id, activityID string) error {
		_, err := s.AddProduct(ctx, product(id, activityID))
		return err
	}
	tests := []struct {
		why  string
		got  error
		want error
	}{
		{"an activity's ID is taken", func() error { _, err := s.CreateActivity(ctx, activity("draft")); return err }(), catalog.ErrExists},
		{"a product's ID is taken in the activity", add("p-draft", "draft"), catalog.ErrExists},
		{"a product's ID is taken in another activity", add("p-online", "draft"), catalog.ErrExists},
		{"online: nothing may change", add("new-1", "online"), catalog.ErrOnline},
		{"ended: for good", add("new-2", "ended"), catalog.ErrTransition},
		{"no such activity", add("new-3", "unknown"), catalog.ErrNotFound},
		{"paused: it may", add("new-4", "paused"), nil},
		{"no such activity to read", func() error { _, err := s.Activity(ctx, "unknown"); return err }(), catalog.ErrNotFound},
		{"no such product to read", func() error { _, err := s.Product(ctx, "new-1"); return err }(), catalog.ErrNotFound},
		{"no such activity to move", func() error { _, err := s.SetState(ctx, "unknown", catalog.Online); return err }(), catalog.ErrNotFound},
	}
	for _, tt := range tests {
		if !errors.Is(tt.got, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.why, tt.got, tt.want)
		}
	}
	if got, err := s.Products(ctx, "online"); err != nil || len(got) != 1 {
		t.Errorf("products of the activity that is online: %+v, %v", got, err)
	}
}

func TestSetStateWalksTheMachine(t *testing.T) {
	db := testservers.MySQL(t)
	s := catalog.NewStore(db)
	states := []catalog.ActivityState{catalog.Draft, catalog.Online, catalog.Paused, catalog.Ended}
	allowed := map[string]bool{"draft online": true, "online paused": true, "online ended": true, "paused online": true, "paused ended": true}
	for _, from := range states {
		for _, to := range append(states, "else") {
			id := string(from + "-" + to)
			create(t, s, id, from, id+"-p")
			before, err := s.Activity(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			after, err := s.SetState(t.Context(), id, to)
			now, readErr := s.Activity(t.Context(), id)
			if readErr != nil {
				t.Fatal(readErr)
			}
			switch {
			case from == to:
				if err != nil || after != before || now != before {
					t.Errorf("%s again: %+v, %v; want nothing to change", from, after, err)
				}
			case allowed[string(from+" "+to)]:
				if err != nil || after.State != to || after.Version != before.Version+1 || now != after {
					t.Errorf("%s to %s: %+v, %v", from, to, after, err)
				}
			default:
				if !errors.Is(err, catalog.ErrTransition) || now != before {
					t.Errorf("%s to %s: %v and then %s, want ErrTransition", from, to, err, now.State)
				}
			}
		}
	}
}

func TestGoingOnlineNeedsProductsAndTime(t *testing.T) {
	db := testservers.MySQL(t)
	s := catalog.NewStore(db)
	create(t, s, "empty", catalog.Draft)
	create(t, s, "past", catalog.Draft, "p1")
	create(t, s, "past-paused", catalog.Paused, "p2")
	for _, id := range []string{"past", "past-paused"} {
		exec(t, db, "UPDATE activities SET ends_at = TIMESTAMPADD(SECOND, -1, NOW(3)) WHERE id = ?", id)
	}
	tests := []struct{ id, field, why string }{
		{"empty", "products", "nothing to sell"},
		{"past", "ends_at", "it is over"},
		{"past-paused", "ends_at", "it ended while it was paused"},
	}
	for _, tt := range tests {
		_, err := s.SetState(t.Context(), tt.id, catalog.Online)
		var invalid *catalog.InvalidError
		if !errors.As(err, &invalid) || invalid.Field != tt.field {
			t.Errorf("%s: got %v, want the field %s", tt.why, err, tt.field)
		}
		if a, err := s.Activity(t.Context(), tt.id); err != nil || a.State == catalog.Online {
			t.Errorf("%s: %s, %v", tt.why, a.State, err)
		}
	}
	if _, err := s.SetState(t.Context(), "past-paused", catalog.Ended); err != nil {
		t.Errorf("ending what is over: %v", err)
	}
}

// A product that is added while another session publishes the activity waits
// for it, and then is refused.
func TestAddWaitsForPublish(t *testing.T) {
	testservers.Real(t) // needs row locks
	db := testservers.MySQL(t)
	s := catalog.NewStore(db)
	create(t, s, "act", catalog.Draft, "p0")
	publish, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = publish.Rollback() }()
	if _, err := publish.ExecContext(t.Context(), "UPDATE activities SET state = 'online' WHERE id = 'act'"); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := s.AddProduct(t.Context(), product("p1", "act"))
		done <- err
	}()
	waitForLockWait(t, db)
	if err := publish.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, catalog.ErrOnline) {
		t.Errorf("got %v, want ErrOnline", err)
	}
	if got, err := s.Products(t.Context(), "act"); err != nil || len(got) != 1 {
		t.Errorf("products: %+v, %v", got, err)
	}
}

// waitForLockWait returns when a session of this schema waits for a row lock.
func waitForLockWait(t *testing.T, db *sql.DB) {
	t.Helper()
	const query = "SELECT COUNT(*) FROM information_schema.innodb_trx t JOIN information_schema.processlist p ON p.id = t.trx_mysql_thread_id WHERE t.trx_state = 'LOCK WAIT' AND p.db = DATABASE()"
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	// InnoDB renews what innodb_trx shows only when nobody has asked for 100 ms.
	tick := time.NewTicker(150 * time.Millisecond)
	defer tick.Stop()
	for n := 0; n == 0; <-tick.C {
		if err := db.QueryRowContext(ctx, query).Scan(&n); err != nil {
			t.Fatalf("nobody waits for the lock: %v", err)
		}
	}
}

func TestOnSale(t *testing.T) {
	db := testservers.MySQL(t)
	s := catalog.NewStore(db)
	create(t, s, "b-online", catalog.Online, "p2", "p1")
	create(t, s, "a-paused", catalog.Paused, "p3")
	create(t, s, "c-draft", catalog.Draft, "p4")
	create(t, s, "d-ended", catalog.Ended, "p5")
	create(t, s, "e-long-ended", catalog.Ended, "p6")
	exec(t, db, "UPDATE activities SET updated_at = TIMESTAMPADD(SECOND, -3601, NOW(3)) WHERE id = 'e-long-ended'")
	got, err := s.OnSale(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, l := range got {
		a, err := s.Activity(t.Context(), l.Activity.ID)
		if err != nil || a != l.Activity {
			t.Errorf("listed %+v, the activity is %+v (%v)", l.Activity, a, err)
		}
		products, err := s.Products(t.Context(), a.ID)
		if diff := cmp.Diff(products, l.Products); err != nil || diff != "" {
			t.Errorf("products of %s: %v (-want +got):\n%s", a.ID, err, diff)
		}
		ids = append(ids, a.ID)
	}
	if strings.Join(ids, " ") != "a-paused b-online d-ended" {
		t.Errorf("on sale: %q", ids)
	}
}
