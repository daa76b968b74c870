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

	"github.com/leadingpeers/seckill/internal/mysql"
	"github.com/leadingpeers/seckill/pkg/stock"
)

// benchStock is large enough for any run.
const benchStock = 1 << 40

// Settle measures stock.Ledger.Deduct in batches of cfg.Batch by one writer on
// one product against one transaction for each order on one hot row, by 16
// writers. Both are as durable as the server is configured. The rows are
// removed afterwards.
func Settle(ctx context.Context, db *sql.DB, cfg Config) ([]Figure, error) {
	rate := Figure{Name: "settle: durable rows, one product", Unit: "/s"}
	err := cfg.repeat(ctx,
		func(ctx context.Context) error {
			perSecond, err := settleSubject(ctx, db, cfg)
			rate.Subject = append(rate.Subject, perSecond)
			return err
		},
		func(ctx context.Context) error {
			perSecond, err := settleReference(ctx, db, cfg)
			rate.Reference = append(rate.Reference, perSecond)
			return err
		})
	return []Figure{rate}, err
}

func settleSubject(ctx context.Context, db *sql.DB, cfg Config) (perSecond float64, err error) {
	const product = "bench-batched"
	if err := addStock(ctx, db, product); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, removeStock(ctx, db, product)) }()
	ledger := stock.NewLedger(db)
	n := 0
	began := time.Now()
	for time.Since(began) < cfg.Duration {
		batch := make([]stock.Reservation, cfg.Batch)
		for i := range batch {
			batch[i] = stock.Reservation{ID: reservationID(), ProductID: product, UserID: "u" + strconv.Itoa(n+i), Quantity: 1}
		}
		rows, err := ledger.Deduct(ctx, product, batch)
		if err != nil {
			return 0, err
		}
		for _, r := range rows {
			if r.State != stock.Deducted {
				return 0, fmt.Errorf("reservation %s: %s %s", r.ID, r.State, r.Reason)
			}
		}
		n += len(rows)
	}
	elapsed := time.Since(began)
	return float64(n) / elapsed.Seconds(), checkRows(ctx, db, product, int64(n))
}

func settleReference(ctx context.Context, db *sql.DB, cfg Config) (perSecond float64, err error) {
	const product = "bench-one-by-one"
	if err := addStock(ctx, db, product); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, removeStock(ctx, db, product)) }()
	var n atomic.Int64
	var wg sync.WaitGroup
	errs := make(chan error, 16)
	began := time.Now()
	for range cap(errs) {
		wg.Go(func() {
			for time.Since(began) < cfg.Duration {
				if err := oneByOne(ctx, db, product, n.Add(1)); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	elapsed := time.Since(began)
	close(errs)
	if err := <-errs; err != nil {
		return 0, err
	}
	return float64(n.Load()) / elapsed.Seconds(), checkRows(ctx, db, product, n.Load())
}

// oneByOne is the usual way: a conditional update of the hot row and an insert.
func oneByOne(ctx context.Context, db *sql.DB, product string, i int64) error {
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
	if err := removeStock(ctx, db, product); err != nil {
		return err
	}
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
