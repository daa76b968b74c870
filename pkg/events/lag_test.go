package events

import (
	"testing"
)

func TestLagOfAGroupThatNeverCommitted(t *testing.T) {
	cfg := newCluster(t)
	p := newPublisher(t, cfg)
	publish(t, p, created("phone", 0, 7)...)
	eventually(t, "the broker has a coordinator", func() bool {
		_, err := Lag(t.Context(), cfg, "nobody", Reservations)
		return err == nil
	})
	parts, err := Lag(t.Context(), cfg, "nobody", Reservations)
	if err != nil {
		t.Fatal(err)
	}
	var lag, end int64
	for _, part := range parts {
		if part.Committed != -1 {
			t.Errorf("partition %d: committed %d, want -1: nobody has", part.Partition, part.Committed)
		}
		lag, end = lag+part.Lag, end+part.End
	}
	if len(parts) != 2 || lag != 7 || end != 7 {
		t.Errorf("%d partitions, lag %d of %d events, want all 7 on 2 partitions", len(parts), lag, end)
	}
}

// TestLagOf: the Reaper asks for the partition where the Publisher has put a
// product's events, whichever it is.
func TestLagOf(t *testing.T) {
	cfg := newCluster(t)
	p := newPublisher(t, cfg)
	lags := func() (parts []PartitionLag) {
		eventually(t, "the broker has a coordinator", func() (there bool) {
			var err error
			parts, err = Lag(t.Context(), cfg, "nobody", Reservations)
			return err == nil
		})
		return parts
	}
	for _, product := range []string{"phone", "watch", "tablet", "lamp", "a-product-with-a-longer-name"} {
		before := LagOf(lags(), product)
		publish(t, p, created(product, 0, 3)...)
		if after := LagOf(lags(), product); after.Partition != before.Partition || after.End != before.End+3 {
			t.Errorf("%s: %+v before and %+v after its 3 events", product, before, after)
		}
	}
}
