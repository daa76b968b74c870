package redrive

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/leadingpeers/seckill/pkg/events"
)

// MaxIDs bounds how many letters one filter may name: the filter is kept beside
// the offsets of its progress.
const MaxIDs = 50

// Filter chooses letters; what is empty does not matter. All of it must hold.
type Filter struct {
	Class       string    `json:"class,omitempty"`
	Type        string    `json:"type,omitempty"` // of the event: seckill.stock.deducted.v1
	Activity    string    `json:"activity,omitempty"`
	Product     string    `json:"product,omitempty"`
	Reservation string    `json:"reservation,omitempty"`
	Since       time.Time `json:"since,omitzero"` // failed at this time or later
	Until       time.Time `json:"until,omitzero"` // failed before this time
	IDs         []string  `json:"ids,omitempty"`  // group/partition/offset
}

// Empty reports whether f lets everything through.
func (f Filter) Empty() bool {
	return len(f.IDs) == 0 && f.Class == "" && f.Type == "" && f.Activity == "" && f.Product == "" && f.Reservation == "" && f.Since.IsZero() && f.Until.IsZero()
}

// Check reports what is wrong with f.
func (f Filter) Check() error {
	if len(f.IDs) > MaxIDs {
		return fmt.Errorf("%d letters by ID: want at most %d", len(f.IDs), MaxIDs)
	}
	for _, id := range f.IDs {
		if _, err := ParseID(id); err != nil {
			return err
		}
	}
	if !f.Since.IsZero() && !f.Until.IsZero() && !f.Since.Before(f.Until) {
		return errors.New("since is not before until: nothing failed in between")
	}
	return nil
}

// Matches reports whether f chooses l.
func (f Filter) Matches(l events.Letter) bool {
	same := func(want, got string) bool { return want == "" || want == got }
	return same(f.Class, l.Class) && same(f.Type, string(l.Type)) &&
		same(f.Activity, l.Event.ActivityID) && same(f.Product, l.Event.ProductID) && same(f.Reservation, l.Event.ReservationID) &&
		(f.Since.IsZero() || !l.FailedAt.Before(f.Since)) && (f.Until.IsZero() || l.FailedAt.Before(f.Until)) &&
		(len(f.IDs) == 0 || slices.Contains(f.IDs, l.ID()))
}

// Place is where a letter lies.
type Place struct {
	Group     string
	Partition int
	Offset    int64
}

// ParseID is the reverse of events.Letter.ID.
func ParseID(id string) (Place, error) {
	var p Place
	for _, group := range events.DeadLetterGroups() {
		if n, err := fmt.Sscanf(id, group+"/%d/%d", &p.Partition, &p.Offset); err == nil && n == 2 {
			p.Group = group
			if (events.Letter{Group: group, Partition: p.Partition, Offset: p.Offset}).ID() == id {
				return p, nil
			}
		}
	}
	return Place{}, fmt.Errorf("letter %.60q: want group/partition/offset with a group of %v, as dlq list shows it", id, events.DeadLetterGroups())
}

// What is done with letters.
const (
	doRedrive = "redrive"
	doDrop    = "drop"
)

// mark is kept with the offsets of a progress, and says what they mean: all
// letters before them that it covers are done with.
type mark struct {
	Do     string `json:"do"`
	Filter Filter `json:"filter,omitzero"`
	Limit  int    `json:"limit,omitempty"` // of a redrive: letters with as many redrives were left where they are

	offsets map[int]int64
}

// covers reports whether m has done with l, or will when its offsets get there.
func (m mark) covers(cfg events.ClientConfig, l events.Letter) bool {
	if !m.Filter.Matches(l) {
		return false
	}
	if m.Do == doDrop {
		return true
	}
	_, err := l.WayBack(cfg)
	return err == nil && l.Redrives < m.Limit
}

func (m mark) passed(l events.Letter) bool { return l.Offset < m.offsets[l.Partition] }

func (m mark) note() (string, error) {
	text, err := json.Marshal(m)
	return string(text), err
}

// readMark understands what note has written; anything else covers nothing.
func readMark(p events.Progress) (m mark, ok bool) {
	if json.Unmarshal([]byte(p.Note), &m) != nil || (m.Do != doRedrive && m.Do != doDrop) {
		return mark{}, false
	}
	m.offsets = p.Offsets
	return m, true
}
