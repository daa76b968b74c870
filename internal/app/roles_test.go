package app

import (
	"maps"
	"slices"
	"testing"

	"github.com/leadingpeers/seckill/pkg/events"
)

// Every group of topics.yaml has its handler, and no handler is without its
// group: lag, plans and replays go by that file.
func TestHandlersAreThoseOfTheTopics(t *testing.T) {
	var groups []string
	for _, topic := range events.Topics() {
		if topic.Group != "" {
			groups = append(groups, topic.Group)
		}
	}
	slices.Sort(groups)
	if got := slices.Sorted(maps.Keys((&Stores{}).Handlers())); !slices.Equal(got, groups) {
		t.Errorf("handlers of %v, topics.yaml names the groups %v", got, groups)
	}
}
