package stockworker_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/leadingpeers/seckill/internal/stockworker"
	"github.com/leadingpeers/seckill/pkg/catalog"
	"github.com/leadingpeers/seckill/pkg/events"
)

// soldOuts notes what is said of which products.
type soldOuts struct {
	err   error
	calls []string
}

func (s *soldOuts) SetSoldOut(_ context.Context, ids []string, soldOut bool) ([]string, error) {
	s.calls = append(s.calls, fmt.Sprint(ids, soldOut))
	return ids, s.err
}

// sheet is a catalogue that does not change.
type sheet struct {
	list []catalog.Listing
	err  error
}

func (s sheet) OnSale(context.Context) ([]catalog.Listing, error) { return s.list, s.err }

func TestChannel(t *testing.T) {
	of := func(id, channel string) catalog.Product { return catalog.Product{ID: id, Channel: channel} }
	live := sheet{list: []catalog.Listing{
		{Activity: catalog.Activity{State: catalog.Online}, Products: []catalog.Product{of("a", "w3"), of("b", ""), of("c", "w4")}},
		{Activity: catalog.Activity{State: catalog.Paused}, Products: []catalog.Product{of("d", "w3")}},
		{Activity: catalog.Activity{State: catalog.Ended}, Products: []catalog.Product{of("e", "w3")}},
	}}
	out := events.Event{Type: events.ChannelSoldOut, Channel: "w3"}
	back := events.Event{Type: events.ChannelResumed, Channel: "w3"}
	for _, tt := range []struct {
		why       string
		from      sheet
		ledger    soldOuts
		batch     []events.Event
		want      []string
		err       error
		permanent bool
	}{
		{"its live products, and no others", live, soldOuts{}, []events.Event{out}, []string{"[a d] true"}, nil, false},
		{"in the order of the events: the last word counts", live, soldOuts{}, []events.Event{out, back}, []string{"[a d] true", "[a d] false"}, nil, false},
		{"a channel without products", live, soldOuts{}, []events.Event{{Type: events.ChannelSoldOut, Channel: "w9"}}, []string{"[] true"}, nil, false},
		{"MySQL is away: try again", live, soldOuts{err: errAway}, []events.Event{out, back}, []string{"[a d] true"}, errAway, false},
		{"the catalogue is away: try again", sheet{err: errAway}, soldOuts{}, []events.Event{out}, nil, errAway, false},
		{"a stranger among them: nothing is done", live, soldOuts{}, []events.Event{out, created(1, "a")}, nil, nil, true},
	} {
		next, err := stockworker.Channel(tt.from, &tt.ledger)(t.Context(), tt.batch)
		_, permanent := errors.AsType[*events.PermanentError](err)
		if len(next) != 0 || permanent != tt.permanent || !permanent && !errors.Is(err, tt.err) {
			t.Errorf("%s: next %v, %v", tt.why, next, err)
		}
		if !slices.Equal(tt.ledger.calls, tt.want) {
			t.Errorf("%s: the ledger was told %q, want %q", tt.why, tt.ledger.calls, tt.want)
		}
	}
}
