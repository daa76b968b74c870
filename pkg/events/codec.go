package events

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/leadingpeers/seckill/internal/plain"

	"github.com/segmentio/kafka-go"
)

// Topic is the name of a topic without the installation's prefix.
type Topic string

// The topics that carry events. The dead letters of a group have a topic of
// their own, see [DeadLetterTopic].
const (
	Reservations Topic = "reservations" // keyed by product
	Rollbacks    Topic = "rollbacks"    // keyed by product
	Deductions   Topic = "deductions"   // keyed by reservation
	Orders       Topic = "orders"       // keyed by reservation
	Payments     Topic = "payments"     // keyed by reservation
	Channels     Topic = "channels"     // keyed by channel
)

// MaxBody is the most bytes that the JSON of an event may have.
const MaxBody = 64 << 10

const maxQuantity = 999_999_999 // units in one reservation, as in pkg/stock

// Names of the headers: CloudEvents 1.0, Kafka protocol binding, binary mode.
const (
	headerSpecVersion = "ce_specversion"
	headerID          = "ce_id"
	headerType        = "ce_type"
	headerSource      = "ce_source"
	headerTime        = "ce_time"
	headerSubject     = "ce_subject"
	headerContentType = "content-type"
	headerTraceParent = "traceparent"

	specVersion = "1.0"
	contentType = "application/json"
)

// ID returns the event's ce_id: the reservation, the type and, where several
// payments can touch one reservation, the payment. It is the same on every
// re-emission of the same fact.
func (e Event) ID() string {
	id := e.subject() + "." + strings.TrimPrefix(string(e.Type), "seckill.")
	if e.PaymentRef == "" {
		return id
	}
	switch e.Type {
	case OrderRefundDue, PaymentSucceeded, PaymentFailed:
		return id + "." + e.PaymentRef
	case ReservationCreated, StockDeducted, StockRollback, OrderCreated, OrderPaid, OrderCancelled, ChannelSoldOut, ChannelResumed:
	}
	return id
}

// Topic returns the topic that carries events of e's type, "" for an unknown
// type.
func (e Event) Topic() Topic {
	switch e.Type {
	case ReservationCreated:
		return Reservations
	case StockRollback:
		return Rollbacks
	case StockDeducted:
		return Deductions
	case OrderCreated, OrderPaid, OrderCancelled, OrderRefundDue:
		return Orders
	case PaymentSucceeded, PaymentFailed:
		return Payments
	case ChannelSoldOut, ChannelResumed:
		return Channels
	}
	return ""
}

// subject is what the event is about.
func (e Event) subject() string {
	if e.Topic() == Channels {
		return e.Channel
	}
	return e.ReservationID
}

// Key returns the record key: the product where all events of a product must
// meet in one consumer, else the reservation.
func (e Event) Key() string {
	if t := e.Topic(); t == Reservations || t == Rollbacks {
		return e.ProductID
	}
	return e.subject()
}

// Validate reports the first thing that makes e unfit to be published or
// handled: an unknown type, an identity or a quantity out of form, a field
// that its type needs and that is missing. Fields that the type does not need
// may be empty, but not malformed.
func (e Event) Validate() error {
	unit := e.Type == ReservationCreated || e.Type == StockDeducted || e.Type == StockRollback
	order := e.Type == OrderCreated || e.Type == OrderPaid || e.Type == OrderCancelled
	paid := e.Type == OrderRefundDue || e.Type == PaymentSucceeded
	may := func(needed bool, s string, ok bool) bool { return ok || (s == "" && !needed) }
	switch {
	case e.Topic() == "":
		return fmt.Errorf("event type %.70q: unknown", e.Type)
	case !writable(e.Time):
		return fmt.Errorf("time in the year %d: want 1 to 9999", e.Time.UTC().Year())
	case e.Topic() == Channels:
		if !slug(e.Channel) || e != (Event{Type: e.Type, Time: e.Time, Source: e.Source, TraceParent: e.TraceParent, Channel: e.Channel}) {
			return fmt.Errorf("channel %.40q: want 1 to 36 characters of a-z, 0-9 and inner hyphens, and nothing else in the event", e.Channel)
		}
		return nil
	case e.Channel != "":
		return fmt.Errorf("channel %.40q: an event of type %s is not about one", e.Channel, e.Type)
	case !reservationID(e.ReservationID):
		return fmt.Errorf("reservation_id %.40q: want 26 characters of a-z and 2-7", e.ReservationID)
	case !may(unit || order, e.ProductID, slug(e.ProductID)):
		return fmt.Errorf("product_id %.40q: want 1 to 36 characters of a-z, 0-9 and inner hyphens", e.ProductID)
	case !may(false, e.ActivityID, slug(e.ActivityID)):
		return fmt.Errorf("activity_id %.40q: want 1 to 36 characters of a-z, 0-9 and inner hyphens", e.ActivityID)
	case !may(unit || order, e.UserID, printable(e.UserID, '!', 64)):
		return fmt.Errorf("user_id %.70q: want 1 to 64 printable ASCII characters without spaces", e.UserID)
	case (unit || order || e.Quantity != 0) && (e.Quantity < 1 || e.Quantity > maxQuantity):
		return fmt.Errorf("quantity %d: want 1 to %d", e.Quantity, maxQuantity)
	case !may(order, e.OrderID, printable(e.OrderID, '!', 36)):
		return fmt.Errorf("order_id %.40q: want 1 to 36 printable ASCII characters without spaces", e.OrderID)
	case !may(paid, e.PaymentRef, printable(e.PaymentRef, '!', 64)):
		return fmt.Errorf("payment_ref %.70q: want 1 to 64 printable ASCII characters without spaces", e.PaymentRef)
	case !may(false, e.Reason, printable(e.Reason, ' ', 32)):
		return fmt.Errorf("reason %.40q: want at most 32 printable ASCII characters", e.Reason)
	case !may(false, e.Currency, len(e.Currency) == 3 && strings.Trim(e.Currency, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""):
		return fmt.Errorf("currency %.10q: want three capital letters", e.Currency)
	case e.PayDeadline.Year() < 1 || e.PayDeadline.Year() > 9999:
		return fmt.Errorf("pay_deadline in the year %d: want 1 to 9999", e.PayDeadline.Year()) // JSON has no others
	case e.AmountCents < 0:
		return fmt.Errorf("amount_cents %d: want 0 or more", e.AmountCents)
	}
	return nil
}

// writable reports whether RFC 3339 has t in UTC.
func writable(t time.Time) bool {
	year := t.UTC().Year()
	return year >= 1 && year <= 9999
}

// reservationID reports whether s is a 128-bit MAC in lower-case base32.
func reservationID(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '2' || c > '7') {
			return false
		}
	}
	return len(s) == 26
}

// slug reports whether s is 1 to 36 characters of a-z, 0-9 and inner hyphens.
func slug(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && (c != '-' || i == 0 || i == len(s)-1) {
			return false
		}
	}
	return s != "" && len(s) <= 36
}

// printable reports whether s is 1 to most ASCII characters from low to '~'.
func printable(s string, low byte, most int) bool {
	for i := range len(s) {
		if s[i] < low || s[i] > '~' {
			return false
		}
	}
	return s != "" && len(s) <= most
}

// Encode returns the JSON of a valid event, at most [MaxBody] bytes: what an
// outbox keeps. Type, time, source and trace are not in it.
func Encode(e Event) ([]byte, error) {
	if err := e.Validate(); err != nil {
		return nil, fmt.Errorf("encode %s %.40s: %w", e.Type, e.ReservationID, err)
	}
	body, err := e.append(make([]byte, 0, 256))
	if err != nil {
		return nil, fmt.Errorf("encode %s %s: %w", e.Type, e.ReservationID, err)
	}
	return body, nil
}

// append appends e as encoding/json writes it, whose reflection was a third of
// publishing an event. A test compares the two.
func (e Event) append(b []byte) ([]byte, error) {
	start := len(b)
	b = append(b, '{')
	text := func(name, value string) {
		if value != "" {
			b = plain.AppendText(append(b, name...), value)
			b = append(b, ',')
		}
	}
	number := func(name string, value int64) {
		if value != 0 {
			b = append(strconv.AppendInt(append(b, name...), value, 10), ',')
		}
	}
	text(`"reservation_id":`, e.ReservationID)
	text(`"channel":`, e.Channel)
	text(`"activity_id":`, e.ActivityID)
	text(`"product_id":`, e.ProductID)
	text(`"user_id":`, e.UserID)
	number(`"quantity":`, e.Quantity)
	text(`"reason":`, e.Reason)
	text(`"order_id":`, e.OrderID)
	number(`"amount_cents":`, e.AmountCents)
	text(`"currency":`, e.Currency)
	text(`"payment_ref":`, e.PaymentRef)
	if !e.PayDeadline.IsZero() {
		deadline, err := e.PayDeadline.MarshalJSON()
		if err != nil {
			return nil, err
		}
		b = append(append(append(b, `"pay_deadline":`...), deadline...), ',')
	}
	if len(b) > start+1 {
		b = b[:len(b)-1] // the last comma
	}
	return append(b, '}'), nil
}

// Decode is the reverse of [Encode]. Fields it does not know are allowed, so
// that a type may grow; anything else out of order is an error: no JSON object,
// text that is not UTF-8, more than [MaxBody] bytes, or what [Event.Validate]
// says.
func Decode(t Type, body []byte) (Event, error) {
	var e Event
	if len(body) > MaxBody {
		return Event{}, fmt.Errorf("decode %.70s: %d bytes: want at most %d", t, len(body), MaxBody)
	}
	if !utf8.Valid(body) { // encoding/json would quietly put in replacement characters
		return Event{}, fmt.Errorf("decode %.70s: not UTF-8", t)
	}
	if err := json.Unmarshal(body, &e); err != nil {
		return Event{}, fmt.Errorf("decode %.70s: %w", t, err)
	}
	e.Type, e.PayDeadline = t, e.PayDeadline.UTC()
	if err := e.Validate(); err != nil {
		return Event{}, fmt.Errorf("decode %.70s: %w", t, err)
	}
	return e, nil
}

// record is one record on its way into a topic.
type record struct {
	topic      string // with the prefix
	key, value []byte
	headers    []kafka.Header
	time       time.Time // zero: when it is sent
}

// size is about how many bytes the record takes before compression.
func (r record) size() int {
	n := len(r.key) + len(r.value) + 32
	for _, h := range r.headers {
		n += len(h.Key) + len(h.Value) + 2
	}
	return n
}

// toRecord gives e its wire form. The record's own time stays open: retention
// counts from it, and a fact that is told again must not be deleted as old.
func toRecord(e Event, topic string) (record, error) {
	body, err := Encode(e)
	if err != nil {
		return record{}, err
	}
	// All values in one piece of memory: a lone event is most of what a gateway publishes.
	b := make([]byte, 0, 320)
	h := make([]kafka.Header, 0, 8)
	add := func(key, value string) {
		start := len(b)
		b = append(b, value...)
		h = append(h, kafka.Header{Key: key, Value: b[start:len(b):len(b)]})
	}
	add(headerSpecVersion, specVersion)
	add(headerID, e.ID())
	add(headerType, string(e.Type))
	add(headerSource, e.Source)
	start := len(b)
	b = e.Time.UTC().AppendFormat(b, time.RFC3339Nano)
	h = append(h, kafka.Header{Key: headerTime, Value: b[start:len(b):len(b)]})
	add(headerSubject, e.subject())
	add(headerContentType, contentType)
	if traceParent(e.TraceParent) {
		add(headerTraceParent, e.TraceParent)
	}
	return record{topic: topic, key: []byte(e.Key()), value: body, headers: h}, nil
}

// Read returns the event that a record of topic carries, or why it carries
// none that the topic may carry.
func Read(m kafka.Message, topic Topic) (Event, error) { return fromMessage(m, topic) }

// fromMessage reads an event that topic may carry. Headers it does not know
// are ignored; without ce_time the record's own time stands.
func fromMessage(m kafka.Message, topic Topic) (Event, error) {
	h := map[string]string{}
	for _, header := range m.Headers {
		h[header.Key] = string(header.Value)
	}
	if v := h[headerSpecVersion]; v != specVersion {
		return Event{}, fmt.Errorf("%s %.20q: want %q", headerSpecVersion, v, specVersion)
	}
	if c, given := h[headerContentType]; given && !strings.HasPrefix(c, contentType) {
		return Event{}, fmt.Errorf("%s %.40q: want %q", headerContentType, c, contentType)
	}
	at := m.Time
	if s, given := h[headerTime]; given {
		var err error
		if at, err = time.Parse(time.RFC3339Nano, s); err != nil || !writable(at) {
			return Event{}, fmt.Errorf("%s %.40q: want a time by RFC 3339", headerTime, s)
		}
	}
	e, err := Decode(Type(h[headerType]), m.Value)
	if err != nil {
		return Event{}, err
	}
	if e.Topic() != topic { // a writer of one topic must not speak for another
		return Event{}, errors.New("events of type " + string(e.Type) + " do not belong on this topic")
	}
	e.Time, e.Source = at.UTC(), h[headerSource]
	if tp := h[headerTraceParent]; traceParent(tp) {
		e.TraceParent = tp
	}
	return e, nil
}

// traceParent reports whether s looks like a W3C traceparent that fits into an
// outbox row. Anything else is dropped, as that standard wants.
func traceParent(s string) bool {
	return len(s) >= 55 && len(s) <= 64 && s[2] == '-' && s[35] == '-' && s[52] == '-' && printable(s, '-', 64)
}
