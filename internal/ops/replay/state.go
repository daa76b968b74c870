package replay

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/leadingpeers/seckill/internal/audit"
	"github.com/leadingpeers/seckill/internal/mysql"
	"github.com/leadingpeers/seckill/internal/ops"
	"github.com/leadingpeers/seckill/internal/ops/kafkalog"
	"github.com/leadingpeers/seckill/pkg/stock"
)

// Mode is how events are handed to their readers.
type Mode string

// The modes.
const (
	Reset     Mode = "reset"     // the group's own offsets go back; its workers read again, and as fast as they can
	Isolate   Mode = "isolate"   // this process runs the same handlers in a group of its own, beside the live traffic
	Republish Mode = "republish" // the records are written to their topic once more, marked as a replay
)

// Status is how far a replay has come.
type Status string

// The states of a replay.
const (
	Running Status = "running" // or interrupted: the lock tells
	Stopped Status = "stopped" // asked to; running it again goes on
	Failed  Status = "failed"  // the error says why; running it again goes on
	Waiting Status = "waiting" // reset: the offsets are set, the workers have not read all of it yet
	Done    Status = "done"
	Undone  Status = "undone" // the offsets are what they were before
)

// State is what has become of a plan: a file beside it.
type State struct {
	Plan      string                      `json:"plan"`
	Mode      Mode                        `json:"mode"`
	Status    Status                      `json:"status"`
	By        string                      `json:"by"`
	Host      string                      `json:"host"`
	PID       int                         `json:"pid"`
	StartedAt time.Time                   `json:"started_at"`
	UpdatedAt time.Time                   `json:"updated_at"`
	Saved     map[string]kafkalog.Offsets `json:"saved,omitempty"`   // the offsets that the groups had, by full names; -1: none
	Dead      map[string]int64            `json:"dead,omitempty"`    // republish: dead letters that the groups had
	Before    []ops.Account               `json:"before"`            // the books when it began
	After     []ops.Account               `json:"after,omitempty"`   // and when it was done
	Refused   int64                       `json:"refused,omitempty"` // records that no handler takes, however often
	Sample    []string                    `json:"sample,omitempty"`  // some of those
	Error     string                      `json:"error,omitempty"`
}

// beside is the name of a file that belongs to the plan in path.
func beside(path, ending string) string { return strings.TrimSuffix(path, ".json") + ending }

// loadState returns the state of the plan in path; nil when it was never run.
func loadState(path string) (*State, error) {
	text, err := os.ReadFile(beside(path, ".state.json"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil //nolint:nilnil // no state is the state of a plan that was never run
	}
	var s State
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	if err != nil {
		return nil, fmt.Errorf("read the state of the replay: %w", err)
	}
	return &s, nil
}

// save writes the state whole or not at all: a process that is killed leaves
// the one before.
func (s *State) save(path string, now time.Time) error {
	s.UpdatedAt = now.UTC()
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	name := beside(path, ".state.json")
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*")
	if err != nil {
		return fmt.Errorf("save the state of the replay: %w", err)
	}
	_, err = f.Write(append(text, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("save the state of the replay: %w", err), os.Remove(f.Name()))
	}
	return nil
}

// Differences lists what the books after say otherwise than the books before:
// nothing, if no other traffic was on these products meanwhile.
func (s *State) Differences() []string {
	was := map[string]map[string]any{}
	for _, a := range s.Before {
		was[a.ProductID] = fields(a)
	}
	var out []string
	for _, a := range s.After {
		is := fields(a)
		for _, name := range slices.Sorted(maps.Keys(is)) {
			if before, known := was[a.ProductID]; known && before[name] != is[name] {
				out = append(out, fmt.Sprintf("%s: %s was %v and is %v", a.ProductID, name, before[name], is[name]))
			}
		}
	}
	return out
}

// fields are the plain members of an account.
func fields(a ops.Account) map[string]any {
	out := map[string]any{}
	text, err := json.Marshal(a)
	if err == nil {
		err = json.Unmarshal(text, &out)
	}
	if err != nil {
		panic(err) // a plain struct
	}
	maps.DeleteFunc(out, func(_ string, v any) bool {
		switch v.(type) {
		case float64, bool, string:
			return false
		}
		return true
	})
	return out
}

// books reads the accounts of the products that the ledger has.
func (d Desk) books(ctx context.Context, products []string) ([]ops.Account, error) {
	out := []ops.Account{}
	for _, id := range products {
		got, err := d.Books.Accounts(ctx, []string{id})
		if errors.Is(err, stock.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read the books: %w", err)
		}
		out = append(out, got...)
	}
	return out, nil
}

// entry is what the audit trail says of a replay.
type entry struct {
	Plan   string   `json:"plan"`
	Mode   Mode     `json:"mode"`
	Host   string   `json:"host"`
	Ranges []string `json:"ranges,omitempty"`
	Events int64    `json:"events,omitempty"`
	Status Status   `json:"status,omitempty"`
	Error  string   `json:"error,omitempty"`
}

// audit writes down, for each group of the plan, what is done.
func (d Desk) audit(ctx context.Context, action string, p *Plan, s *State) error {
	ctx = audit.With(context.WithoutCancel(ctx), audit.Actor{KeyID: d.By})
	return mysql.InTx(ctx, d.DB, func(tx *sql.Tx) error {
		for _, g := range p.groups() {
			e := entry{Plan: p.ID, Mode: s.Mode, Host: s.Host, Status: s.Status, Error: s.Error}
			for _, r := range p.Ranges {
				if r.Group == g {
					e.Ranges = append(e.Ranges, fmt.Sprintf("%s/%d %d-%d", r.Topic, r.Partition, r.From, r.To))
					e.Events += r.Events
				}
			}
			if err := audit.Append(ctx, tx, audit.Entry{Action: action, Entity: "group/" + g, After: e}); err != nil {
				return err
			}
		}
		return nil
	})
}
