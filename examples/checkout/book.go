package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/leadingpeers/seckill/pkg/events"
)

// purchase is what the shop knows of one reservation.
type purchase struct {
	ReservationID string    `json:"reservation_id"`
	State         string    `json:"state"` // queued, awaiting_payment, paid, cancelled, released
	Reason        string    `json:"reason,omitempty"`
	UserID        string    `json:"user_id,omitempty"`
	Quantity      int64     `json:"quantity,omitempty"`
	OrderID       string    `json:"order_id,omitempty"`
	AmountCents   int64     `json:"amount_cents"`
	Currency      string    `json:"currency,omitempty"`
	PayDeadline   time.Time `json:"pay_deadline,omitzero"`
	PaymentRef    string    `json:"payment_ref,omitempty"` // that paid it
	Refunds       []refund  `json:"refunds,omitempty"`
}

// refund is money that went back to a buyer.
type refund struct {
	PaymentRef  string `json:"payment_ref"`
	AmountCents int64  `json:"amount_cents"`
	Currency    string `json:"currency"`
	Reason      string `json:"reason"` // too_late or already_paid
}

// book keeps the purchases in memory and every event of theirs in a file, its
// journal. The file stands for your database: what is written there must be
// safe before handle returns, because then the events are committed.
type book struct {
	log *slog.Logger

	mu        sync.Mutex
	journal   *os.File
	size      int64 // bytes of the journal that are safe
	purchases map[string]*purchase
}

// entry is one line of the journal.
type entry struct {
	Type events.Type     `json:"type"`
	Body json.RawMessage `json:"body"`
}

// openBook reads the journal, and makes one if there is none. A last line that
// was cut off is dropped: its event was never committed and comes again.
func openBook(path string, log *slog.Logger) (*book, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	b := &book{log: log, journal: file, purchases: map[string]*purchase{}}
	for lines := bufio.NewReader(file); ; {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = b.replay(line)
		}
		if err != nil {
			b.close()
			return nil, fmt.Errorf("at byte %d: %w", b.size, err)
		}
		b.size += int64(len(line))
	}
	return b, nil
}

func (b *book) replay(line []byte) error {
	var e entry
	if err := json.Unmarshal(line, &e); err != nil {
		return err
	}
	event, err := events.Decode(e.Type, e.Body)
	if err == nil {
		b.apply(event)
	}
	return err
}

func (b *book) close() { _ = b.journal.Close() } // every write was synced

// handle takes the events of orders. They may come twice and out of order, so
// it only notes what is new. Nothing follows from them on Kafka.
func (b *book) handle(_ context.Context, batch []events.Event) ([]events.Event, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var lines []byte
	for _, e := range batch {
		body, err := events.Encode(e)
		if err != nil {
			return nil, err
		}
		line, err := json.Marshal(entry{e.Type, body})
		if err != nil {
			return nil, err
		}
		lines = append(append(lines, line...), '\n')
	}
	if err := b.write(lines); err != nil {
		return nil, err // the batch comes again
	}
	for _, e := range batch {
		if b.apply(e) {
			// Here the shop calls its payment provider, with the payment_ref as
			// the key that makes the call safe to repeat.
			b.log.Info("money goes back", "payment_ref", e.PaymentRef, "amount_cents", e.AmountCents, "currency", e.Currency, "reason", e.Reason)
		}
	}
	return nil, nil
}

// write adds lines to the journal and returns when they are safe. What an
// earlier attempt has left behind is overwritten.
func (b *book) write(lines []byte) error {
	if err := b.journal.Truncate(b.size); err != nil {
		return err
	}
	if _, err := b.journal.WriteAt(lines, b.size); err != nil {
		return err
	}
	if err := b.journal.Sync(); err != nil {
		return err
	}
	b.size += int64(len(lines))
	return nil
}

// apply notes an event and reports whether it is money to give back that was
// not known. What is paid or cancelled stays so, whatever comes late.
func (b *book) apply(e events.Event) (newRefund bool) {
	p := b.purchases[e.ReservationID]
	if p == nil {
		p = &purchase{ReservationID: e.ReservationID}
		b.purchases[e.ReservationID] = p
	}
	p.UserID, p.OrderID, p.Quantity = e.UserID, e.OrderID, e.Quantity
	switch e.Type {
	case events.OrderCreated:
		p.AmountCents, p.Currency, p.PayDeadline = e.AmountCents, e.Currency, e.PayDeadline
		if p.State == "" {
			p.State = "awaiting_payment"
		}
	case events.OrderPaid:
		p.State, p.PaymentRef, p.AmountCents, p.Currency = "paid", e.PaymentRef, e.AmountCents, e.Currency
	case events.OrderCancelled:
		p.State, p.Reason, p.AmountCents, p.Currency = "cancelled", e.Reason, e.AmountCents, e.Currency
	case events.OrderRefundDue:
		for _, r := range p.Refunds {
			if r.PaymentRef == e.PaymentRef {
				return false
			}
		}
		p.Refunds = append(p.Refunds, refund{e.PaymentRef, e.AmountCents, e.Currency, e.Reason})
		return true
	case events.ReservationCreated, events.StockDeducted, events.StockRollback, events.PaymentSucceeded, events.PaymentFailed,
		events.ChannelSoldOut, events.ChannelResumed: // not on this topic
	}
	return false
}

// find is a copy of what is known of a reservation.
func (b *book) find(reservationID string) (purchase, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.purchases[reservationID]
	if p == nil || p.State == "" {
		return purchase{}, false
	}
	found := *p
	found.Refunds = append([]refund(nil), p.Refunds...)
	return found, true
}
