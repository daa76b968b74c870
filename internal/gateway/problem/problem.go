// Package problem is every no that the API can say: the one table of codes,
// and its form on the wire, problem+json of RFC 9457.
package problem

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/leadingpeers/seckill/internal/plain"
	"github.com/leadingpeers/seckill/pkg/stock"
)

// Code is the stable word by which a program recognises a problem. A refusal
// keeps the word that the script, the event and the metric use for it.
type Code string

// The codes. Those of 400 are about the request alone; those of 409 and 422
// depend on what is stored; those that are retryable say when to come back.
const (
	MalformedJSON         Code = "malformed_json"
	UnknownField          Code = "unknown_field"
	DuplicateField        Code = "duplicate_field"
	MissingField          Code = "missing_field"
	InvalidField          Code = "invalid_field"
	MalformedQuery        Code = "malformed_query"
	MissingIdempotencyKey Code = "missing_idempotency_key"
	InvalidIdempotencyKey Code = "invalid_idempotency_key"
	Unauthenticated       Code = "unauthenticated"
	InvalidToken          Code = "invalid_token"
	TokenExpired          Code = "token_expired"
	Forbidden             Code = "forbidden"
	TokenMismatch         Code = "token_mismatch"
	RouteNotFound         Code = "route_not_found"
	ActivityNotFound      Code = "activity_not_found"
	ProductNotFound       Code = "product_not_found"
	ReservationNotFound   Code = "reservation_not_found"
	OrderNotFound         Code = "order_not_found"
	KeyNotFound           Code = "key_not_found"
	ChannelNotFound       Code = "channel_not_found"
	MethodNotAllowed      Code = "method_not_allowed"
	SoldOut               Code = "sold_out"
	OverUserLimit         Code = "over_user_limit"
	NotOnSale             Code = "not_on_sale"
	OrderPaid             Code = "order_paid"
	OrderNotReady         Code = "order_not_ready"
	AlreadyExists         Code = "already_exists"
	ActivityOnline        Code = "activity_online"
	HasReservations       Code = "has_reservations"
	NotPublishable        Code = "not_publishable"
	InUse                 Code = "in_use"
	NotEnoughAvailable    Code = "not_enough_available"
	WrongState            Code = "wrong_state"
	PreconditionFailed    Code = "precondition_failed"
	PreconditionRequired  Code = "precondition_required"
	BodyTooLarge          Code = "body_too_large"
	UnsupportedMediaType  Code = "unsupported_media_type"
	OverOrderLimit        Code = "over_order_limit"
	IdempotencyKeyReused  Code = "idempotency_key_reused"
	AmountMismatch        Code = "amount_mismatch"
	TooManyAttempts       Code = "too_many_attempts"
	TooManyWaiting        Code = "too_many_waiting"
	Internal              Code = "internal"
	NotLoaded             Code = "not_loaded"
	Overloaded            Code = "overloaded"
	PreloadFailed         Code = "preload_failed"
	CacheUnavailable      Code = "cache_unavailable"
	EventsUnavailable     Code = "events_unavailable"
	DatabaseUnavailable   Code = "database_unavailable"
)

// Kind is what all problems of one code have in common.
type Kind struct {
	Code   Code
	Status int           // of HTTP
	Retry  time.Duration // after how long the same request may succeed; 0 = it will not
	Title  string        // one phrase for a human
	Detail string        // used when the case at hand has nothing to add
	Hint   string        // what to do about it, or empty
}

// Kinds lists every code with its status and its words: the one table behind
// the answers and the reference.
//
// not_on_sale is 409, not 403: the state of the product is in the way, not the
// rights of the caller, and waiting may help where another key would not.
// too_many_attempts cannot be retried although it is 429: the attempts are
// counted for the whole life of the product.
func Kinds() []Kind {
	const (
		soon    = time.Second
		sameKey = "Send the same request with the same Idempotency-Key again; it takes the units at most once."
		keyForm = "An Idempotency-Key is 8 to 128 visible ASCII characters; make a new one for each purchase and keep it for its retries."
	)
	return []Kind{
		{MalformedJSON, 400, 0, "The body is not one JSON object", "The body is not one JSON object in UTF-8.", ""},
		{UnknownField, 400, 0, "Unknown field", "The body has a field that this operation does not know.", "Field names are exact, in lower snake_case."},
		{DuplicateField, 400, 0, "Duplicate field", "The body names a field twice.", ""},
		{MissingField, 400, 0, "Missing field", "A required field is missing.", ""},
		{InvalidField, 400, 0, "Invalid field", "A field has a value that is not allowed.", ""},
		{MalformedQuery, 400, 0, "Malformed query", "The query string cannot be read.", ""},
		{MissingIdempotencyKey, 400, 0, "Missing Idempotency-Key", "The header Idempotency-Key is missing.", keyForm},
		{InvalidIdempotencyKey, 400, 0, "Invalid Idempotency-Key", "The header Idempotency-Key is not allowed.", keyForm},
		{Unauthenticated, 401, 0, "No valid key", "The request carries no valid key.", "Send the header Authorization: Bearer sk_<id>_<secret>."},
		{InvalidToken, 401, 0, "No valid purchase token", "The purchase token is not one of ours, or its key is not active any more.", "Ask the shop for a new one."},
		{TokenExpired, 401, 0, "The purchase token has expired", "The purchase token has expired, and nothing was reserved with it.", "Ask the shop for a new one."},
		{Forbidden, 403, 0, "Not for this caller", "The caller's role does not allow this operation.", ""},
		{TokenMismatch, 403, 0, "Not for this purchase token", "The purchase token is for another product or another user.", ""},
		{RouteNotFound, 404, 0, "No such route", "Nothing is served at this path.", ""},
		{ActivityNotFound, 404, 0, "No such activity", "No such activity is on sale.", "A change of the catalogue can take a second to be seen."},
		{ProductNotFound, 404, 0, "No such product", "The activity has no such product on sale.", "A change of the catalogue can take a second to be seen."},
		{ReservationNotFound, 404, 0, "No such reservation", "This user has no such reservation of this product.", ""},
		{OrderNotFound, 404, 0, "No such order", "There is no such order.", ""},
		{KeyNotFound, 404, 0, "No such key", "There is no such key.", ""},
		{ChannelNotFound, 404, 0, "No such channel", "No live product has its stock from this channel.", ""},
		{MethodNotAllowed, 405, 0, "Method not allowed", "The header Allow lists the methods of this path.", ""},
		{SoldOut, 409, 0, "Sold out", "Fewer units are left than were asked for.", "Units that others do not pay for come back."},
		{OverUserLimit, 409, 0, "Over the user's limit", "The user would hold more units of this product than one user may.", ""},
		{NotOnSale, 409, 0, "Not on sale", "The product is not on sale at this moment.", "The activity names its window."},
		{OrderPaid, 409, 0, "The order is paid", "A paid order cannot be cancelled.", "Refund it in the checkout."},
		{OrderNotReady, 409, soon, "The order is not written yet", "The reservation is accepted, its order is still being written.", "Send the same request again."},
		{AlreadyExists, 409, 0, "It exists already", "The ID is taken.", ""},
		{ActivityOnline, 409, 0, "The activity is online or over", "The state of the activity does not allow this change.", "Pause the activity first."},
		{HasReservations, 409, 0, "Something was reserved", "What was ever reserved stays, so that it can be accounted for.", "End the activity instead."},
		{NotPublishable, 409, 0, "Not ready to go online", "Something is in the way of going online.", "Send preload to load the products now."},
		{InUse, 409, 0, "In use", "A product is on sale or has reservations that are not decided.", "Pause the activity and wait a moment, or send force."},
		{NotEnoughAvailable, 409, 0, "Not enough units", "Fewer units are available than were to be taken away.", ""},
		{WrongState, 409, 0, "Not in this state", "The activity cannot change from its present state to the one asked for.", ""},
		{PreconditionFailed, 412, 0, "It has changed", "It has changed since the caller read it.", "Read it again."},
		{BodyTooLarge, 413, 0, "The body is too large", "The body is larger than this operation allows.", ""},
		{UnsupportedMediaType, 415, 0, "Not JSON", "The body must be JSON.", "Send the header Content-Type: application/json, and no Content-Encoding."},
		{OverOrderLimit, 422, 0, "Over the order's limit", "More units were asked for than one order may have.", ""},
		{IdempotencyKeyReused, 422, 0, "Idempotency-Key used before", "This user's key stands for another quantity of this product.", keyForm},
		{AmountMismatch, 422, 0, "Not what the order costs", "The amount or the currency of the payment is not the order's.", "Refund it in the checkout, and let the buyer pay the order's amount."},
		{PreconditionRequired, 428, 0, "If-Match is missing", "The header If-Match is required.", "Send the ETag that you read."},
		{TooManyAttempts, 429, 0, "Too many attempts", "The user has made too many reservations of this product.", ""},
		{TooManyWaiting, 429, 2 * soon, "Too many are waiting", "The limit of concurrent long polls is reached.", "Ask without wait, or come back later."},
		{Internal, 500, 0, "Internal error", "The request met a defect of this service.", "The trace_id finds it in the log."},
		{NotLoaded, 503, soon, "Not loaded yet", "The product's count is not in memory yet.", sameKey},
		{Overloaded, 503, soon, "Overloaded", "Too many requests are being served.", sameKey},
		{PreloadFailed, 503, soon, "Redis was not loaded", "A product could not be loaded from MySQL into Redis.", "Send the same request again; it goes on where it stopped."},
		{CacheUnavailable, 503, soon, "Redis did not answer", "The count could not be asked in time.", sameKey},
		{EventsUnavailable, 503, soon, "Kafka did not answer", "The reservation could not be handed on in time.", sameKey},
		{DatabaseUnavailable, 503, soon, "MySQL did not answer", "The database could not be asked in time.", "Send the same request again."},
	}
}

// refusalCode gives each refusal its code.
func refusalCode(r stock.Refusal) Code {
	switch r {
	case stock.SoldOut:
		return SoldOut
	case stock.OverUserLimit:
		return OverUserLimit
	case stock.OverOrderLimit:
		return OverOrderLimit
	case stock.NotOnSale:
		return NotOnSale
	case stock.NotLoaded:
		return NotLoaded
	case stock.TooManyAttempts:
		return TooManyAttempts
	case stock.IDReused:
		return IdempotencyKeyReused
	}
	return Internal
}

// Problem is an error that already knows its answer.
type Problem struct {
	Code   Code
	Detail string // of this case; empty = the kind's own
	Cause  error  // of a fault, for the log; never shown to the caller
	List   []Item // each thing that is wrong, when there may be several
}

// Item is one of several things that are wrong.
type Item struct {
	Field  string `json:"field"` // or what it is about: "products/phone"
	Detail string `json:"detail"`
}

// Error makes a Problem an error.
func (p *Problem) Error() string {
	if p.Cause != nil {
		return fmt.Sprintf("%s: %v", p.Code, p.Cause)
	}
	return fmt.Sprintf("%s: %s", p.Code, p.Detail)
}

// Unwrap returns the fault behind the problem, or nil.
func (p *Problem) Unwrap() error { return p.Cause }

// Of says no in the words of the code's kind.
func Of(code Code) error { return &Problem{Code: code} }

// New says no and names what is wrong in this case.
func New(code Code, format string, args ...any) error {
	return &Problem{Code: code, Detail: fmt.Sprintf(format, args...)}
}

// All says no and lists each thing that is wrong.
func All(code Code, list []Item, format string, args ...any) error {
	return &Problem{Code: code, Detail: fmt.Sprintf(format, args...), List: list}
}

// Fault says that something behind the API did not answer. A refusal among
// err passes through: it is an answer.
func Fault(code Code, err error) error {
	if refusal, ok := errors.AsType[stock.Refusal](err); ok {
		return refusal
	}
	return &Problem{Code: code, Cause: err}
}

// From finds the answer to err: a Problem, a refusal, or else an error that
// nobody has foreseen, which is Internal.
func From(err error) *Problem {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p
	}
	if refusal, ok := errors.AsType[stock.Refusal](err); ok {
		return &Problem{Code: refusalCode(refusal)}
	}
	return &Problem{Code: Internal, Cause: err}
}

// body is problem+json with members of our own from Code on.
type body struct {
	Type         string `json:"type"`
	Title        string `json:"title"`
	Status       int    `json:"status"`
	Detail       string `json:"detail"`
	Instance     string `json:"instance"`
	Code         Code   `json:"code"`
	Retryable    bool   `json:"retryable"`
	RetryAfterMS int64  `json:"retry_after_ms,omitempty"`
	Hint         string `json:"hint,omitempty"`
	TraceID      string `json:"trace_id"`
	Problems     []Item `json:"problems,omitempty"`
}

// maxInstance bounds how much of a hostile path is sent back.
const maxInstance = 256

// Table finds kinds by code.
type Table map[Code]Kind

// NewTable returns the table of all Kinds.
func NewTable() Table {
	t := Table{}
	for _, k := range Kinds() {
		t[k.Code] = k
	}
	return t
}

// Write answers r with p. Waits are spread over twice their length, so that
// the callers of a failed moment do not come back in one.
func (t Table) Write(w http.ResponseWriter, r *http.Request, p *Problem, traceID string) {
	kind := t[p.Code]
	b := body{
		Type:     "urn:seckill:problem:" + string(kind.Code),
		Title:    kind.Title,
		Status:   kind.Status,
		Detail:   p.Detail,
		Instance: r.URL.EscapedPath(),
		Code:     kind.Code,
		Hint:     kind.Hint,
		TraceID:  traceID,
		Problems: p.List,
	}
	if b.Detail == "" {
		b.Detail = kind.Detail
	}
	if len(b.Instance) > maxInstance {
		b.Instance = b.Instance[:maxInstance]
	}
	h := w.Header()
	if kind.Retry > 0 {
		wait := kind.Retry + rand.N(kind.Retry)
		b.Retryable, b.RetryAfterMS = true, wait.Milliseconds()
		h.Set("Retry-After", strconv.Itoa(int((wait+time.Second-1)/time.Second)))
	}
	values := [...]string{"application/problem+json", "no-store"}
	h["Content-Type"], h["Cache-Control"] = values[:1:1], values[1:]
	w.WriteHeader(kind.Status)
	_, _ = w.Write(b.append(make([]byte, 0, 640))) // the caller has gone; nobody is left to tell
}

// append appends b as encoding/json writes it: during a sale most answers are
// refusals, and reflection was a quarter of what they cost.
func (p *body) append(b []byte) []byte {
	text := func(name, value string) { b = plain.AppendText(append(b, name...), value) }
	text(`{"type":`, p.Type)
	text(`,"title":`, p.Title)
	b = strconv.AppendInt(append(b, `,"status":`...), int64(p.Status), 10)
	text(`,"detail":`, p.Detail)
	text(`,"instance":`, p.Instance)
	text(`,"code":`, string(p.Code))
	b = strconv.AppendBool(append(b, `,"retryable":`...), p.Retryable)
	if p.RetryAfterMS != 0 {
		b = strconv.AppendInt(append(b, `,"retry_after_ms":`...), p.RetryAfterMS, 10)
	}
	if p.Hint != "" {
		text(`,"hint":`, p.Hint)
	}
	text(`,"trace_id":`, p.TraceID)
	if len(p.Problems) > 0 {
		list, err := json.Marshal(p.Problems)
		if err != nil {
			panic(err) // strings always encode
		}
		b = append(append(b, `,"problems":`...), list...)
	}
	return append(b, '}')
}
