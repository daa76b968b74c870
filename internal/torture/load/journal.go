// Package load is everybody who uses the system during a torture run: buyers in
// a hurry and in bad faith, the shop's checkout, and operators who change the
// sale while it goes on. It keeps a log of every promise that was made to it.
package load

import (
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"
)

// Promise is a 202: these units were accepted for this buyer.
type Promise struct {
	ID       string    `json:"id"`
	Product  string    `json:"product"`
	User     string    `json:"user"`
	Quantity int64     `json:"quantity"`
	Key      string    `json:"key"`
	At       time.Time `json:"at"`
}

// Journal is the log of promises. It is on disk before anybody goes on.
type Journal struct {
	mu      sync.Mutex
	file    *os.File
	flushed *sync.Cond
	written uint64 // lines given to the file
	synced  uint64 // lines that are on disk
	busy    bool
	byKey   map[string]Promise // by product, user and key
	byID    map[string]Promise
	twice   []string // one key, two reservations, or one reservation for two
}

// OpenJournal makes a new journal.
func OpenJournal(path string) (*Journal, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	j := &Journal{file: f, byKey: map[string]Promise{}, byID: map[string]Promise{}}
	j.flushed = sync.NewCond(&j.mu)
	return j, nil
}

// Add writes a promise down and returns when it is on disk. Those who come
// meanwhile share the next flush. It reports whether it is a new one.
func (j *Journal) Add(p Promise) (fresh bool, err error) {
	line, err := json.Marshal(p)
	if err != nil {
		return false, err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if fresh = j.remember(p); !fresh {
		return false, nil
	}
	if _, err := j.file.Write(append(line, '\n')); err != nil {
		return false, fmt.Errorf("journal: %w", err)
	}
	j.written++
	for mine := j.written; j.synced < mine; {
		if j.busy {
			j.flushed.Wait()
			continue
		}
		j.busy = true
		upTo := j.written
		j.mu.Unlock()
		err = j.file.Sync()
		j.mu.Lock()
		j.busy = false
		if err != nil {
			return false, fmt.Errorf("journal: %w", err)
		}
		j.synced = upTo
		j.flushed.Broadcast()
	}
	return true, nil
}

// remember notes a promise, and whether it contradicts an earlier one.
func (j *Journal) remember(p Promise) (fresh bool) {
	key := p.Product + " " + p.User + " " + p.Key
	same := func(a Promise) bool {
		return a.ID == p.ID && a.Product == p.Product && a.User == p.User && a.Quantity == p.Quantity
	}
	if was, ok := j.byKey[key]; ok {
		if !same(was) {
			j.twice = append(j.twice, fmt.Sprintf("%s: %+v and %+v", key, was, p))
		}
		return false
	}
	if was, ok := j.byID[p.ID]; ok {
		j.twice = append(j.twice, fmt.Sprintf("%s: %+v and %+v", p.ID, was, p))
	}
	j.byKey[key], j.byID[p.ID] = p, p
	return true
}

// Promises returns all of them, and those that contradict each other in words.
func (j *Journal) Promises() (all map[string]Promise, twice []string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	all = make(map[string]Promise, len(j.byID))
	for id, p := range j.byID {
		all[id] = p
	}
	return all, append([]string{}, j.twice...)
}

// Close closes the file.
func (j *Journal) Close() error { return j.file.Close() }
