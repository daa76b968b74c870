package bench

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leadingpeers/seckill/internal/bench/figures"
	"github.com/leadingpeers/seckill/internal/mysql"
	"github.com/leadingpeers/seckill/pkg/stock"
)

// benchStock is large enough for any run.
const benchStock = 1 << 40

// deductor decides in the ledger. *stock.Ledger is one.
type deductor interface {
	Deduct(ctx context.Context, productID string, rs []stock.Reservation) ([]stock.Reservation, error)
}

func settle(ctx context.Context, b *bench) error {
	const against = "one transaction for each order on one hot row, 16 writers"
	batch := strconv.Itoa(b.Batch)
	one := figures.Figure{Name: "settle_one", What: "durable rows a second, one product, one writer, " + batch + " in a transaction", Against: against, Unit: "/s", Goal: ">=90"}
	two := figures.Figure{Name: "settle_two", What: "durable rows a second, two products, a writer each", Against: against, Unit: "/s", Goal: ">=130"}
	var flush, binlog string
	if err := b.site.DB.QueryRowContext(ctx, "SELECT @@innodb_flush_log_at_trx_commit, @@sync_binlog").Scan(&flush, &binlog); err != nil {
		return err
	}
	b.section.Notes = append(b.section.Notes, "innodb_flush_log_at_trx_commit="+flush+", sync_binlog="+binlog)
	err := b.repeat(ctx, func(ctx context.Context) error {
		theirs, err := b.oneByOne(ctx)
		if err != nil {
			return fmt.Errorf("reference: %w", err)
		}
		ours, err := b.deduct(ctx, b.site.Ledger, "bench-one")
		if err != nil {
			return err
		}
		both, err := b.deduct(ctx, b.site.Ledger, "bench-left", "bench-right")
		if err != nil {
			return err
		}
		one.Add(ours, theirs)
		two.Add(both, theirs)
		return nil
	})
	b.section.Figures = append(b.section.Figures, one, two)
	return err
}

// deduct fills the ledger with one writer for each product.
func (b *bench) deduct(ctx context.Context, ledger deductor, products ...string) (perSecond float64, err error) {
	counts, faults := make([]int64, len(products)), make([]error, len(products))
	for _, p := range products {
		if err := addStock(ctx, b.site.DB, p); err != nil {
			return 0, err
		}
		defer func() { err = errors.Join(err, removeStock(ctx, b.site.DB, p)) }()
	}
	var wg sync.WaitGroup
	began := time.Now()
	for i, p := range products {
		wg.Go(func() { counts[i], faults[i] = b.writer(ctx, ledger, p, began) })
	}
	wg.Wait()
	elapsed := time.Since(began)
	var sum int64
	for i, p := range products {
		sum += counts[i]
		faults[i] = errors.Join(faults[i], checkRows(ctx, b.site.DB, p, counts[i]))
	}
	return float64(sum) / elapsed.Seconds(), errors.Join(faults...)
}

func (b *bench) writer(ctx context.Context, ledger deductor, product string, began time.Time) (n int64, err error) {
	for time.Since(began) < b.Duration {
		batch := make([]stock.Reservation, b.Batch)
		for i := range batch {
			batch[i] = stock.Reservation{ID: reservationID(), ProductID: product, UserID: "u" + strconv.FormatInt(n+int64(i), 10), Quantity: 1}
		}
		rows, err := ledger.Deduct(ctx, product, batch)
		if err != nil {
			return n, err
		}
		for _, r := range rows {
			if r.State != stock.Deducted {
				return n, fmt.Errorf("reservation %s: %s %s", r.ID, r.State, r.Reason)
			}
		}
		n += int64(len(rows))
	}
	return n, nil
}

func (b *bench) oneByOne(ctx context.Context) (perSecond float64, err error) {
	const product = "bench-one-by-one"
	if err := addStock(ctx, b.site.DB, product); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, removeStock(ctx, b.site.DB, product)) }()
	var n atomic.Int64
	var wg sync.WaitGroup
	faults := make(chan error, 16)
	began := time.Now()
	for range cap(faults) {
		wg.Go(func() {
			for time.Since(began) < b.Duration {
				if err := place(ctx, b.site.DB, product, n.Add(1)); err != nil {
					faults <- err
					return
				}
			}
		})
	}
	wg.Wait()
	elapsed := time.Since(began)
	close(faults)
	if err := <-faults; err != nil {
		return 0, err
	}
	return float64(n.Load()) / elapsed.Seconds(), checkRows(ctx, b.site.DB, product, n.Load())
}

// place is the usual way: an insert and a conditional update of the hot row.
func place(ctx context.Context, db *sql.DB, product string, i int64) error {
	return mysql.InTx(ctx, db, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO reservations (reservation_id, product_id, user_id, quantity, state, created_at, updated_at) VALUES (?, ?, ?, 1, 'deducted', NOW(3), NOW(3))",
			fmt.Appendf(nil, "%016d", i), product, "u"+strconv.FormatInt(i, 10))
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, "UPDATE stock SET available = available - 1 WHERE product_id = ? AND available >= 1", product)
		return err
	})
}

func addStock(ctx context.Context, db *sql.DB, product string) error {
	_, err := db.ExecContext(ctx, "INSERT INTO stock (product_id, total, available, per_user) VALUES (?, ?, ?, 5)", product, int64(benchStock), int64(benchStock))
	return err
}

func removeStock(ctx context.Context, db *sql.DB, product string) error {
	_, err1 := db.ExecContext(ctx, "DELETE FROM reservations WHERE product_id = ?", product)
	_, err2 := db.ExecContext(ctx, "DELETE FROM stock WHERE product_id = ?", product)
	return errors.Join(err1, err2)
}

// checkRows compares what was counted with what the ledger holds.
func checkRows(ctx context.Context, db *sql.DB, product string, n int64) error {
	s, err := stock.NewLedger(db).Stock(ctx, product)
	if err != nil {
		return err
	}
	if s.Deducted != n || s.Total-s.Available != n {
		return fmt.Errorf("the books do not balance: %d orders, %d deducted, available %d of %d", n, s.Deducted, s.Available, s.Total)
	}
	return nil
}
