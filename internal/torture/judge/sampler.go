// Package judge decides whether a torture run was survived. It believes nothing
// but the log of promises that the buyers were given, and what MySQL and Redis
// hold: it reads both by itself, past all proxies and with no code of the
// system under test.
package judge

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Verdict counts what must never happen. All of it must be 0.
type Verdict struct {
	Oversold           int64 `json:"oversold"`            // units, the most at any sample
	Leaked             int64 `json:"leaked"`              // units in no account, in MySQL at any sample or in Redis at rest
	Duplicated         int64 `json:"duplicated"`          // reservations with two orders, keys with two reservations
	Lost               int64 `json:"lost"`                // promises without an end, or with another's
	LimitViolations    int64 `json:"limit_violations"`    // users who hold more than they may
	IllegalTransitions int64 `json:"illegal_transitions"` // of reservations and orders, and states that contradict each other
	Other              int64 `json:"other"`               // anything else that Findings tells of
}

// Sum is 0 for a run that was survived.
func (v Verdict) Sum() int64 {
	return v.Oversold + v.Leaked + v.Duplicated + v.Lost + v.LimitViolations + v.IllegalTransitions + v.Other
}

// Judge watches a run and passes the verdict.
type Judge struct {
	DB *sql.DB

	mu       sync.Mutex
	verdict  Verdict
	findings []string
	samples  int64
	missed   int64 // samples that MySQL did not answer

	since  time.Time // of MySQL's clock: changes up to here were seen
	rows   map[string]record
	orders map[string]record
}

// record is a row as it was last seen.
type record struct{ what, state string }

// New returns a judge.
func New(db *sql.DB) *Judge {
	return &Judge{DB: db, rows: map[string]record{}, orders: map[string]record{}}
}

// find notes something that must not be. The numbers in v are added, but for
// those of units, of which the greatest counts.
func (j *Judge) find(v Verdict, format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.verdict.Oversold = max(j.verdict.Oversold, v.Oversold)
	j.verdict.Leaked = max(j.verdict.Leaked, v.Leaked)
	j.verdict.Duplicated += v.Duplicated
	j.verdict.Lost += v.Lost
	j.verdict.LimitViolations += v.LimitViolations
	j.verdict.IllegalTransitions += v.IllegalTransitions
	j.verdict.Other += v.Other
	if text := fmt.Sprintf(format, args...); len(j.findings) < 40 && !slices.Contains(j.findings, text) {
		j.findings = append(j.findings, text)
	}
}

// Find notes something that somebody else has seen and that must not be.
func (j *Judge) Find(format string, args ...any) { j.find(Verdict{Other: 1}, format, args...) }

// FindDuplicate notes two reservations where there must be one.
func (j *Judge) FindDuplicate(text string) { j.find(Verdict{Duplicated: 1}, "%s", text) }

// Verdict returns what has been found so far, with the first findings in words.
func (j *Judge) Verdict() (v Verdict, findings []string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.verdict, slices.Clone(j.findings)
}

// Samples returns how often the books were looked at, and how often MySQL did
// not answer.
func (j *Judge) Samples() (n, missed int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.samples, j.missed
}

// Watch looks at the ledger's equation every second until ctx ends, and every
// fifth time at the rest.
func (j *Judge) Watch(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := j.Sample(ctx, n%5 == 0)
		j.mu.Lock()
		if j.samples++; err != nil {
			j.missed++
		}
		j.mu.Unlock()
	}
}

// Sample looks once. An error is MySQL's, which may be down on purpose.
func (j *Judge) Sample(ctx context.Context, whole bool) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	looks := []func(context.Context) error{j.equation}
	if whole {
		looks = append(looks, j.transitions, j.limits, j.agree)
	}
	for _, look := range looks {
		if err := look(ctx); err != nil {
			return err
		}
	}
	return nil
}

// each calls f for every row of a query, with its columns as text.
func (j *Judge) each(ctx context.Context, query string, f func(cols []string), args ...any) error {
	rows, err := j.DB.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	names, err := rows.Columns()
	if err != nil {
		return err
	}
	cols, into := make([]string, len(names)), make([]any, len(names))
	for i := range cols {
		into[i] = &cols[i]
	}
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return err
		}
		f(slices.Clone(cols))
	}
	return rows.Err()
}

// equation is S1: available ≥ 0 and available + Σ deducted = total, per product,
// in one snapshot.
func (j *Judge) equation(ctx context.Context) error {
	return j.each(ctx, `SELECT s.product_id, s.total, s.available, COALESCE(SUM(r.quantity), 0) FROM stock s
		LEFT JOIN reservations r ON r.product_id = s.product_id AND r.state = 'deducted' GROUP BY s.product_id, s.total, s.available`,
		func(c []string) {
			total, available, deducted := number(c[1]), number(c[2]), number(c[3])
			if deducted > total || available < 0 {
				j.find(Verdict{Oversold: max(deducted-total, -available)}, "%s: %d deducted of %d, %d available", c[0], deducted, total, available)
			}
			if missing := total - available - deducted; missing != 0 {
				j.find(Verdict{Leaked: max(missing, -missing)}, "%s: available %d + deducted %d is not the total %d", c[0], available, deducted, total)
			}
		})
}

// limits is S2: nobody holds more of a product than one buyer may.
func (j *Judge) limits(ctx context.Context) error {
	return j.each(ctx, `SELECT r.product_id, r.user_id, SUM(r.quantity), s.per_user FROM reservations r JOIN stock s ON s.product_id = r.product_id
		WHERE r.state = 'deducted' GROUP BY r.product_id, r.user_id, s.per_user HAVING SUM(r.quantity) > s.per_user`,
		func(c []string) {
			j.find(Verdict{LimitViolations: 1}, "%s holds %s of %s, where %s are allowed", c[1], c[2], c[0], c[3])
		})
}

// agree is S3, S4 and S5: one order per reservation, paid means deducted, and
// units go back only from a cancelled order or when there was none.
func (j *Judge) agree(ctx context.Context) error {
	err := j.each(ctx, "SELECT LOWER(HEX(reservation_id)), COUNT(*) FROM orders GROUP BY reservation_id HAVING COUNT(*) > 1", func(c []string) {
		j.find(Verdict{Duplicated: 1}, "reservation %s has %s orders", c[0], c[1])
	})
	if err != nil {
		return err
	}
	return j.each(ctx, `SELECT LOWER(HEX(o.reservation_id)), o.state, COALESCE(r.state, 'none') FROM orders o LEFT JOIN reservations r ON r.reservation_id = o.reservation_id
		WHERE (o.state <> 'cancelled' AND COALESCE(r.state, 'none') <> 'deducted') OR COALESCE(r.state, 'none') IN ('refused', 'none')`,
		func(c []string) {
			j.find(Verdict{IllegalTransitions: 1}, "reservation %s: the order is %s, the ledger's row is %s", c[0], c[1], c[2])
		})
}

// transitions is S6: what changed since the last look has changed in a way that
// is allowed.
func (j *Judge) transitions(ctx context.Context) error {
	var now string
	if err := j.DB.QueryRowContext(ctx, "SELECT CAST(NOW(3) AS CHAR)").Scan(&now); err != nil {
		return err
	}
	since := "2000-01-01"
	if !j.since.IsZero() { // a transaction may commit some seconds after it took the time
		since = j.since.Add(-30 * time.Second).Format("2006-01-02 15:04:05.000")
	}
	err := j.changed(ctx, since, table{"reservations", "CONCAT_WS(' ', product_id, user_id, quantity)", j.rows, map[string][]string{"deducted": {"rolled_back"}}})
	if err != nil {
		return err
	}
	err = j.changed(ctx, since, table{"orders", "CONCAT_WS(' ', id, product_id, user_id, quantity, amount_cents)", j.orders, map[string][]string{"awaiting_payment": {"paid", "cancelled"}}})
	if err != nil {
		return err
	}
	j.since, err = time.Parse("2006-01-02 15:04:05.000", now)
	return err
}

// table is what is known of a table's rows.
type table struct {
	name string
	what string              // an expression of the columns that never change
	seen map[string]record   // by reservation
	next map[string][]string // state → those that may follow on it
}

// changed compares the rows of a table with what they were.
func (j *Judge) changed(ctx context.Context, since string, t table) error {
	query := fmt.Sprintf("SELECT LOWER(HEX(reservation_id)), %s, state FROM %s WHERE updated_at >= ?", t.what, t.name)
	return j.each(ctx, query, func(c []string) {
		is := record{c[1], c[2]}
		was, known := t.seen[c[0]]
		t.seen[c[0]] = is
		switch {
		case !known || was == is:
		case was.what != is.what:
			j.find(Verdict{IllegalTransitions: 1}, "%s %s: %q became %q", t.name, c[0], was.what, is.what)
		case !slices.Contains(t.next[was.state], is.state):
			j.find(Verdict{IllegalTransitions: 1}, "%s %s: %s became %s", t.name, c[0], was.state, is.state)
		}
	}, since)
}
