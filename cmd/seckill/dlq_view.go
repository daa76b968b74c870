package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/leadingpeers/seckill/internal/ops/redrive"
	"github.com/leadingpeers/seckill/pkg/events"
)

// letterTable shows letters as they come, and then their numbers.
type letterTable struct {
	w      *tabwriter.Writer
	json   *json.Encoder
	left   int
	more   int
	counts map[kind]map[redrive.Status]int
}

// kind is what letters are counted by.
type kind struct{ group, class string }

func newLetterTable(w io.Writer, output string, limit int) *letterTable {
	t := &letterTable{w: tabwriter.NewWriter(w, 0, 0, 2, ' ', 0), left: limit, counts: map[kind]map[redrive.Status]int{}}
	if output == "json" {
		t.json = json.NewEncoder(w)
		return t
	}
	_, _ = fmt.Fprintln(t.w, "ID\tFAILED AT\tCLASS\tTYPE\tPRODUCT\tRESERVATION\tREDRIVES\tSTATUS\tERROR")
	return t
}

func (t *letterTable) count(i redrive.Item) {
	key := kind{i.Group, i.Class}
	if t.counts[key] == nil {
		t.counts[key] = map[redrive.Status]int{}
	}
	t.counts[key][i.Status]++
}

func (t *letterTable) row(i redrive.Item) {
	if t.left--; t.left < 0 {
		t.more++
		return
	}
	if t.json != nil {
		_ = t.json.Encode(asDocument(i)) // a broken pipe ends the command by its signal
		return
	}
	cells := []string{
		i.ID(), i.FailedAt.Format(time.RFC3339), i.Class, strings.TrimPrefix(string(i.Type), "seckill."), i.Event.ProductID, i.Event.ReservationID,
		strconv.Itoa(i.Redrives), string(i.Status), i.Error,
	}
	for n := range cells { // what is in a letter may be anything, and must not move the cursor
		cells[n] = plainText(cells[n], 100)
	}
	_, _ = fmt.Fprintln(t.w, strings.Join(cells, "\t"))
}

// plainText is the start of s with a question mark for all that is not printed.
func plainText(s string, most int) string {
	r := []rune(strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return '?'
		}
		return c
	}, s))
	if len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return string(r)
}

func (t *letterTable) flush() error {
	if t.json != nil {
		return nil
	}
	if t.more > 0 {
		_, _ = fmt.Fprintf(t.w, "… and %d more: --limit\n", t.more)
	}
	_, _ = fmt.Fprint(t.w, "\nGROUP\tCLASS")
	for _, s := range redrive.Statuses() {
		_, _ = fmt.Fprint(t.w, "\t", strings.ToUpper(string(s)))
	}
	_, _ = fmt.Fprintln(t.w)
	byName := func(a, b kind) int { return cmp.Or(cmp.Compare(a.group, b.group), cmp.Compare(a.class, b.class)) }
	for _, key := range slices.SortedFunc(maps.Keys(t.counts), byName) {
		_, _ = fmt.Fprint(t.w, key.group, "\t", plainText(key.class, 40))
		for _, s := range redrive.Statuses() {
			_, _ = fmt.Fprint(t.w, "\t", t.counts[key][s])
		}
		_, _ = fmt.Fprintln(t.w)
	}
	return t.w.Flush()
}

// document is a letter as JSON. Key and value are bytes, so base64; value_text
// is the value when it is text.
type document struct {
	ID        string            `json:"id"`
	Status    redrive.Status    `json:"status"`
	Class     string            `json:"class"`
	Error     string            `json:"error"`
	FailedAt  time.Time         `json:"failed_at"`
	Redrives  int               `json:"redrives"`
	Origin    string            `json:"origin"` // topic/partition/offset
	Attempt   string            `json:"attempt"`
	Type      events.Type       `json:"type,omitempty"`
	Product   string            `json:"product,omitempty"`
	Activity  string            `json:"activity,omitempty"`
	Reserved  string            `json:"reservation,omitempty"`
	Broken    string            `json:"unreadable,omitempty"`
	At        time.Time         `json:"record_time"`
	Headers   map[string]string `json:"headers"`
	Key       []byte            `json:"key"`
	Value     []byte            `json:"value"`
	ValueText string            `json:"value_text,omitempty"`
}

func asDocument(i redrive.Item) document {
	d := document{
		ID: i.ID(), Status: i.Status, Class: i.Class, Error: i.Error, FailedAt: i.FailedAt, Redrives: i.Redrives,
		Origin: i.OriginTopic + "/" + i.OriginPartition + "/" + i.OriginOffset, Attempt: i.Attempt, Type: i.Type,
		Product: i.Event.ProductID, Activity: i.Event.ActivityID, Reserved: i.Event.ReservationID, Broken: i.Unreadable,
		At: i.Time.UTC(), Headers: map[string]string{}, Key: i.Key, Value: i.Value,
	}
	for _, h := range i.Headers {
		d.Headers[h.Key] = h.Value
	}
	if json.Valid(i.Value) {
		d.ValueText = string(i.Value)
	}
	return d
}

func showReport(w io.Writer, job redrive.Job, r redrive.Report) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	classes := map[string]bool{}
	for _, h := range []redrive.Histogram{r.Before, r.Chosen, r.Done, r.After} {
		for class := range h {
			classes[class] = true
		}
	}
	_, _ = fmt.Fprintln(t, "class\twaiting\tchosen\tdone\tnow waiting\t")
	line := func(class string, before, chosen, done, after int64) {
		now := strconv.FormatInt(after, 10)
		if r.DryRun {
			now = "-"
		}
		_, _ = fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%s\t\n", plainText(class, 40), before, chosen, done, now)
	}
	for _, c := range slices.Sorted(maps.Keys(classes)) {
		line(c, r.Before[c], r.Chosen[c], r.Done[c], r.After[c])
	}
	line("all", r.Before.Sum(), r.Chosen.Sum(), r.Done.Sum(), r.After.Sum())
	_, _ = fmt.Fprintln(t)
	if err := t.Flush(); err != nil {
		return err
	}
	lines := []string{fmt.Sprintf("quarantined: %d, stranded: %d; progress: group %s", r.Quarantined, r.Stranded, r.Progress)}
	if r.Unhandled > 0 {
		lines = append(lines, fmt.Sprintf("%s has not handled up to %d records of the topics sent to yet: what comes of them is not counted", job.Group, r.Unhandled))
	}
	if r.Stopped != "" {
		lines = append(lines, "stopped "+r.Stopped)
	}
	if r.DryRun {
		lines = append(lines, fmt.Sprintf("nothing was done: --yes does it to these %d letters", r.Chosen.Sum()))
	}
	_, err := fmt.Fprintln(w, strings.Join(lines, "\n"))
	return err
}
