package onway_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leadingpeers/seckill/internal/onway"
	"github.com/leadingpeers/seckill/pkg/events"
)

// TestMarks: one reservation is found standing still once a second.
func TestMarks(t *testing.T) {
	type lag = events.PartitionLag
	still := lag{Committed: 7, End: 7}
	tests := []struct {
		name      string
		readings  []lag // one a second
		published []int // after which readings
		why       string
	}{
		{"nothing waits", []lag{still}, []int{0}, "whoever should have published it died before: nobody else will"},
		{"nobody ever published", []lag{{Committed: -1}}, []int{0}, "the group has no position in an empty log"},
		{"the worker is behind", []lag{{Committed: 3, End: 7}, {Committed: 6, End: 9}, {Committed: 8, End: 20}}, []int{2}, "its event is before 7; what came later is of no matter"},
		{"the topic is read from its start", []lag{{End: 7}, {Committed: 5, End: 7}, {Committed: 2, End: 7}, still}, []int{3}, "whatever the position was before"},
		{"retention went ahead", []lag{{Start: 7, Committed: 3, End: 7}}, []int{0}, "its event may have been cut off"},
		{"the topic was made anew", []lag{{Committed: 3, End: 7}, {Committed: 2, End: 2}}, []int{1}, "nobody can wait until a log that ends at 2 reaches 7"},
		{"its key moved", []lag{{Committed: 3, End: 7}, {Partition: 1, Committed: 8, End: 9}, {Partition: 1, Committed: 9, End: 9}}, []int{2}, "partitions were added: another one's offsets say nothing"},
		{"published again, and on its way", slices.Concat(slices.Repeat([]lag{still}, 9), slices.Repeat([]lag{{Committed: 7, End: 8}}, 3), []lag{{Committed: 8, End: 8}}), []int{0, 12}, "it rests for 10 s, and then until that event is handled, too"},
		{"nothing comes of it", slices.Repeat([]lag{still}, 25), []int{0, 10, 20}, "a worker that cannot decide gets no more than one in 10 s"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := onway.NewMarks(10*time.Second, time.Now)
				var published []int
				for n, reading := range tt.readings {
					m.Forget()
					if !m.Rests("r") && m.Passed("r", reading) {
						m.Published("r")
						published = append(published, n)
					}
					time.Sleep(time.Second)
				}
				if !slices.Equal(published, tt.published) {
					t.Errorf("published after the readings %v, want %v: %s", published, tt.published, tt.why)
				}
			})
		})
	}
}

// TestMarksAreForgotten when what they are about moves on; else a mark would be
// compared with a log that has been made anew and has grown since.
func TestMarksAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := onway.NewMarks(10*time.Second, time.Now)
		passed := func(committed, end int64) bool {
			m.Forget()
			return m.Passed("r", events.PartitionLag{Committed: committed, End: end})
		}
		if passed(3, 7) {
			t.Error("passed at 3 of 7")
		}
		time.Sleep(9 * time.Second)
		if passed(6, 8) {
			t.Error("passed at 6, want the first mark, 7, to be kept while it is found")
		}
		time.Sleep(10 * time.Second)
		if passed(7, 8) {
			t.Error("passed at 7 of 8, want a new mark when it was not found for 10 s")
		}
	})
}

// TestMarksAfterARest that ends within a round, before anything was forgotten.
func TestMarksAfterARest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := onway.NewMarks(10*time.Second, time.Now)
		m.Published("r")
		time.Sleep(10 * time.Second)
		if m.Rests("r") || m.Passed("r", events.PartitionLag{Committed: 7, End: 8}) {
			t.Error("passed at 7 of 8, want a mark behind the event that was published again")
		}
	})
}

func TestQueueIsAskedOnce(t *testing.T) {
	asked, away := 0, errors.New("away")
	queue := onway.Queue(func(context.Context) (onway.Of, error) { asked++; return nil, away }).Once(t.Context())
	if asked != 0 {
		t.Errorf("asked %d times before anybody wanted to know", asked)
	}
	for range 2 {
		if _, err := queue(); !errors.Is(err, away) || asked != 1 {
			t.Errorf("%v, asked %d times, want the one answer for everybody", err, asked)
		}
	}
	of, err := onway.Queue(nil).Once(t.Context())()
	if err != nil || !onway.NewMarks(time.Second, time.Now).Passed("r", of("any")) {
		t.Errorf("without a queue: %v, want everything handled", err)
	}
}
