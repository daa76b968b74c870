package redrive

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"golang.org/x/time/rate"

	"github.com/leadingpeers/seckill/internal/audit"
	"github.com/leadingpeers/seckill/internal/mysql"
	"github.com/leadingpeers/seckill/pkg/events"
)

// batchSize is how many letters are sent before their acknowledgement is
// waited for and the progress saved.
const batchSize = 100

// patience bounds what a batch in hand may take after the run was told to end.
const patience = 30 * time.Second

// Job is what to do with the letters of a group.
type Job struct {
	Group    string
	Filter   Filter
	Drop     bool          // let them lie instead of sending them back
	Progress string        // name of the progress; empty = one that this filter always gets
	Max      int64         // stop after so many letters; 0 = all
	Rate     float64       // most letters in a second; 0 = no limit
	Wait     time.Duration // how long to wait for the group to handle what was sent back, so that After is true; 0 = not at all
	DryRun   bool          // only say what would be done
}

func (j Job) mark(limit int) mark {
	if j.Drop {
		return mark{Do: doDrop, Filter: j.Filter}
	}
	return mark{Do: doRedrive, Filter: j.Filter, Limit: limit}
}

// Histogram counts letters that wait, by class.
type Histogram map[string]int64

// Sum is the number of letters in h.
func (h Histogram) Sum() (n int64) {
	for _, some := range h {
		n += some
	}
	return n
}

// Report is what a Job came to.
type Report struct {
	Group       string    `json:"group"`
	Progress    string    `json:"progress"` // the Kafka group that keeps it, with the prefix; its lag is what is left
	DryRun      bool      `json:"dry_run"`
	Before      Histogram `json:"before"` // what waited, chosen or not
	Chosen      Histogram `json:"chosen"` // of these, what the filter chooses
	Done        Histogram `json:"done"`   // sent back, or dropped
	After       Histogram `json:"after"`  // what waits now: what came back, too
	Quarantined int64     `json:"quarantined"`
	Stranded    int64     `json:"stranded"`
	Unhandled   int64     `json:"unhandled"` // records of the topics sent to that the group may not have handled yet; After may grow by as many
	Stopped     string    `json:"stopped,omitempty"`
}

// ErrUnderWay is returned when another run moves the same progress.
var ErrUnderWay = errors.New("another run with the same progress is under way")

// Run does j. The letters are sent in batches; each is acknowledged before the
// progress is saved, so a run that dies sends at most one batch twice, which is
// harmless, and leaves none out. When ctx ends, the batch in hand is finished
// and the report says so, with a nil error.
//
// Beside an error the report says what was done before. Running again goes on.
func (d *Desk) Run(ctx context.Context, j Job) (Report, error) {
	if err := j.Filter.Check(); err != nil {
		return Report{}, fmt.Errorf("dead letters of %s: %w", j.Group, err)
	}
	r, err := d.begin(ctx, j)
	if err != nil {
		return Report{}, err
	}
	if err := d.count(ctx, j, &r.report); err != nil || j.DryRun {
		return r.report, err
	}
	if r.report.Chosen.Sum() == 0 {
		r.report.After = r.report.Before
		return r.report, nil
	}
	if err := d.audit(ctx, j, r.report, "begun"); err != nil {
		return r.report, err
	}
	err = r.all(ctx)
	done := context.WithoutCancel(ctx) // told to end or not, what was done is written down
	if errAfter := d.after(ctx, j, r); err == nil {
		err = errAfter
	}
	return r.report, errors.Join(err, d.audit(done, j, r.report, "ended"))
}

// run is a Job under way.
type run struct {
	desk     *Desk
	job      Job
	mark     mark
	others   []mark
	progress events.Progress
	spans    []events.Span
	limiter  *rate.Limiter
	sentTo   map[events.Topic]bool
	report   Report
}

func (d *Desk) begin(ctx context.Context, j Job) (*run, error) {
	m := j.mark(d.limit())
	name, err := progressGroup(j.Group, j.Progress, m)
	if err != nil {
		return nil, err
	}
	r := &run{
		desk: d, job: j, mark: m, sentTo: map[events.Topic]bool{},
		report: Report{
			Group: j.Group, Progress: d.Kafka.GroupName(name), DryRun: j.DryRun,
			Before: Histogram{}, Chosen: Histogram{}, Done: Histogram{}, After: Histogram{},
		},
	}
	if j.Rate > 0 {
		r.limiter = rate.NewLimiter(rate.Limit(j.Rate), batchSize)
		r.limiter.AllowN(d.Now(), batchSize) // no head start
	}
	if r.progress, err = events.LoadProgress(ctx, d.Kafka, name, events.DeadLetterTopic(j.Group)); err != nil {
		return nil, err
	}
	note, err := m.note()
	if err != nil {
		return nil, err
	}
	if r.progress.Note != "" && r.progress.Note != note {
		return nil, fmt.Errorf("progress %s belongs to another filter, %s: give --progress another name", r.report.Progress, r.progress.Note)
	}
	r.progress.Note = note
	if r.others, err = d.marks(ctx, j.Group); err != nil {
		return nil, err
	}
	r.spans, err = d.spans(ctx, j.Group)
	return r, err
}

// count fills in what waits, and what of it the job is for.
func (d *Desk) count(ctx context.Context, j Job, r *Report) error {
	for item, err := range d.List(ctx, j.Group, Filter{}) {
		if err != nil {
			return err
		}
		switch item.Status {
		case Waiting:
			r.Before[item.Class]++
		case Quarantined:
			r.Quarantined++
		case Stranded:
			r.Stranded++
		case Redriven, Dropped, Done:
		}
		if d.wants(j, item) {
			r.Chosen[item.Class]++
		}
	}
	return nil
}

// wants reports whether j is for a letter. Everything that is not done with can
// be dropped, only what waits can be sent back.
func (d *Desk) wants(j Job, item Item) bool {
	open := item.Status == Waiting || (j.Drop && (item.Status == Quarantined || item.Status == Stranded))
	return open && j.Filter.Matches(item.Letter)
}

// all goes through the partitions.
func (r *run) all(ctx context.Context) error {
	for _, s := range r.spans {
		if committed, ok := r.progress.Offsets[s.Partition]; ok {
			s.From = max(s.From, committed)
		}
		if err := r.partition(ctx, s); err != nil || r.report.Stopped != "" {
			return err
		}
	}
	return nil
}

// partition goes through one span. The letters it passes over are those of
// other filters, and those that somebody has done with.
func (r *run) partition(ctx context.Context, s events.Span) error {
	if s.From >= s.To {
		return nil
	}
	var batch []events.Letter
	for l, err := range events.Letters(context.WithoutCancel(ctx), r.desk.Kafka, r.job.Group, s) {
		if err != nil {
			return err
		}
		if r.desk.wants(r.job, Item{l, r.desk.status(l, r.others)}) {
			if r.job.Max > 0 && r.report.Done.Sum()+int64(len(batch)) >= r.job.Max {
				r.report.Stopped = fmt.Sprintf("after %d letters, as asked", r.job.Max)
				return r.flush(ctx, batch, l.Partition, l.Offset)
			}
			batch = append(batch, l)
		}
		if len(batch) == r.size() {
			if err := r.flush(ctx, batch, l.Partition, l.Offset+1); err != nil {
				return err
			}
			batch = nil
		}
		if ctx.Err() != nil {
			r.report.Stopped = "told to end; run it again to go on"
			return r.flush(ctx, batch, l.Partition, l.Offset+1)
		}
	}
	return r.flush(ctx, batch, s.Partition, s.To)
}

// size is how many letters go together: a second's worth at most.
func (r *run) size() int {
	if r.job.Rate > 0 && r.job.Rate < batchSize {
		return max(1, int(r.job.Rate))
	}
	return batchSize
}

// flush sends a batch, waits for its acknowledgement, and then saves that the
// partition is done up to next.
func (r *run) flush(ctx context.Context, batch []events.Letter, partition int, next int64) error {
	if len(batch) > 0 && r.limiter != nil && ctx.Err() == nil {
		if err := r.limiter.WaitN(ctx, len(batch)); err != nil && ctx.Err() == nil {
			return fmt.Errorf("wait for the rate: %w", err)
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	if err := r.alone(ctx, partition); err != nil {
		return err
	}
	if !r.job.Drop {
		if err := r.desk.Publisher.Redrive(ctx, batch...); err != nil {
			return fmt.Errorf("send back %d letters of %s: %w", len(batch), r.job.Group, err)
		}
	}
	r.progress.Offsets[partition] = next
	save := events.Progress{Group: r.progress.Group, Note: r.progress.Note, Offsets: map[int]int64{partition: next}}
	if err := events.SaveProgress(ctx, r.desk.Kafka, events.DeadLetterTopic(r.job.Group), save); err != nil {
		return err
	}
	for _, l := range batch {
		r.report.Done[l.Class]++
		r.sentTo[events.Topic(l.OriginTopic)] = true
	}
	return nil
}

// alone looks whether the saved progress is still what this run has left there.
func (r *run) alone(ctx context.Context, partition int) error {
	now, err := events.LoadProgress(ctx, r.desk.Kafka, r.progress.Group, events.DeadLetterTopic(r.job.Group))
	if err != nil {
		return err
	}
	if now.Offsets[partition] != r.progress.Offsets[partition] {
		return fmt.Errorf("%w: %s has moved from %d to %d in partition %d", ErrUnderWay, r.report.Progress, r.progress.Offsets[partition], now.Offsets[partition], partition)
	}
	return nil
}

// after counts what waits when the group has handled what was sent back.
func (d *Desk) after(ctx context.Context, j Job, r *run) error {
	if !j.Drop {
		r.report.Unhandled = r.report.Done.Sum() // as long as nothing better is known
		if j.Wait > 0 {
			if err := d.handled(ctx, j, r); err != nil {
				return err
			}
		}
	}
	var now Report
	now.Before, now.Chosen = Histogram{}, Histogram{}
	if err := d.count(context.WithoutCancel(ctx), j, &now); err != nil {
		return err
	}
	r.report.After, r.report.Quarantined, r.report.Stranded = now.Before, now.Quarantined, now.Stranded
	return nil
}

// handled waits until the group has committed all that the topics sent to held
// when the last letter was acknowledged.
func (d *Desk) handled(ctx context.Context, j Job, r *run) error {
	ctx, cancel := context.WithTimeout(ctx, j.Wait)
	defer cancel()
	goals := map[events.Topic]map[int]int64{}
	for {
		var unhandled int64
		for full := range r.sentTo {
			left, err := d.left(ctx, j.Group, full, goals)
			if ctx.Err() != nil {
				return nil
			}
			if err != nil {
				return err
			}
			unhandled += left
		}
		if r.report.Unhandled = unhandled; unhandled == 0 {
			return nil
		}
		timer := time.NewTimer(100 * time.Millisecond)
		select {
		case <-timer.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// left is how many records of a topic, of those that were there at the first
// call, the group has not committed.
func (d *Desk) left(ctx context.Context, group string, full events.Topic, goals map[events.Topic]map[int]int64) (int64, error) {
	topic := events.Topic(string(full)[len(d.Kafka.TopicName("")):])
	lags, err := events.Lag(ctx, d.Kafka, group, topic)
	if err != nil {
		return 0, err
	}
	if goals[full] == nil {
		goals[full] = map[int]int64{}
		for _, l := range lags {
			goals[full][l.Partition] = l.End
		}
	}
	var left int64
	for _, l := range lags {
		left += max(0, goals[full][l.Partition]-max(l.Committed, l.Start))
	}
	return left, nil
}

// audit writes down who does what with which letters, before the first and
// after the last one.
func (d *Desk) audit(ctx context.Context, j Job, r Report, stage string) error {
	action := "RedriveDeadLetters"
	if j.Drop {
		action = "DropDeadLetters"
	}
	type detail struct {
		Stage    string    `json:"stage"`
		Filter   Filter    `json:"filter"`
		Progress string    `json:"progress"`
		Waiting  Histogram `json:"waiting"`
		Chosen   Histogram `json:"chosen"`
		Done     Histogram `json:"done"`
		Stopped  string    `json:"stopped,omitempty"`
	}
	waiting := r.Before
	if stage == "ended" {
		waiting = r.After
	}
	err := mysql.InTx(ctx, d.DB, func(tx *sql.Tx) error {
		return audit.Append(ctx, tx, audit.Entry{
			Action: action, Entity: "dlq/" + j.Group,
			After: detail{stage, j.Filter, r.Progress, waiting, r.Chosen, r.Done, r.Stopped},
		})
	})
	if err != nil {
		return fmt.Errorf("write down that dead letters of %s were looked after: %w", j.Group, err)
	}
	return nil
}
