package events

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/segmentio/kafka-go"
)

// full has every field set, so that the golden file shows the whole wire form.
func full(t Type) Event {
	e := Event{
		Type: t, Time: time.Date(2030, 1, 2, 3, 4, 5, 678_000_000, time.FixedZone("", 3600)), Source: "/seckill-gateway",
		TraceParent:   "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		ReservationID: "abcdefghijklmnopqrstuvwx27", ActivityID: "summer-2030", ProductID: "phone", UserID: "user@example.com",
		Quantity: 2, Reason: "payment_timeout", OrderID: "0190b6a0-0000-7000-8000-000000000001",
		AmountCents: 199800, Currency: "EUR", PaymentRef: "pay-1", PayDeadline: time.Date(2030, 1, 2, 3, 19, 5, 0, time.UTC),
	}
	if e.Topic() == Channels { // nothing else may be in it
		return Event{Type: t, Time: e.Time, Source: e.Source, TraceParent: e.TraceParent, Channel: "warehouse-3"}
	}
	return e
}

func types() []Type {
	return []Type{ReservationCreated, StockDeducted, StockRollback, OrderCreated, OrderPaid, OrderCancelled, OrderRefundDue, PaymentSucceeded, PaymentFailed, ChannelSoldOut, ChannelResumed}
}

var update = flag.Bool("update", false, "write the golden files anew")

// The wire form is a promise to other programs: a change of the golden file
// must be an addition.
func TestWireForm(t *testing.T) {
	const golden = "testdata/wire.golden"
	var out strings.Builder
	for _, typ := range types() {
		e := full(typ)
		r, err := toRecord(e, "seckill."+string(e.Topic()))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "topic: %s\nkey: %s\n", r.topic, r.key)
		for _, h := range r.headers {
			fmt.Fprintf(&out, "%s: %s\n", h.Key, h.Value)
		}
		fmt.Fprintf(&out, "\n%s\n\n", r.value)
	}
	if *update {
		if err := os.WriteFile(golden, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), out.String()); diff != "" {
		t.Errorf("the wire form differs from %s (-file +now):\n%s", golden, diff)
	}
}

func TestDecodeReversesEncode(t *testing.T) {
	for _, typ := range types() {
		want := full(typ)
		body, err := Encode(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Decode(typ, body)
		if err != nil {
			t.Fatal(err)
		}
		want.Time, want.Source, want.TraceParent = time.Time{}, "", "" // not in the body
		if got != want {
			t.Errorf("%s: %s", typ, cmp.Diff(want, got))
		}
	}
}

func TestEventID(t *testing.T) {
	for _, tt := range []struct {
		typ  Type
		ref  string
		want string
		why  string
	}{
		{ReservationCreated, "", ".reservation.created.v1", "one per reservation"},
		{OrderPaid, "pay-1", ".order.paid.v1", "an order is paid once, by whatever payment"},
		{OrderRefundDue, "pay-1", ".order.refund_due.v1.pay-1", "each payment too many is refunded"},
		{PaymentSucceeded, "pay-2", ".payment.succeeded.v1.pay-2", "a buyer can pay twice"},
		{PaymentFailed, "", ".payment.failed.v1", "a failure may have no payment"},
	} {
		e := full(tt.typ)
		e.PaymentRef = tt.ref
		if got := e.ID(); got != e.ReservationID+tt.want {
			t.Errorf("%s: ID %q, want …%q: %s", tt.typ, got, tt.want, tt.why)
		}
	}
}

func TestTopicAndKeyAreThoseOfTheFile(t *testing.T) {
	keys := map[Topic]string{}
	for _, s := range Topics() {
		keys[s.Name] = s.Key
	}
	for _, typ := range types() {
		e := full(typ)
		want := map[string]string{"product": e.ProductID, "reservation": e.ReservationID, "channel": e.Channel}[keys[e.Topic()]]
		if want == "" || e.Key() != want {
			t.Errorf("%s on topic %q: key %q, topics.yaml says %q", typ, e.Topic(), e.Key(), keys[e.Topic()])
		}
	}
}

// variation is a full event with one thing changed.
type variation struct {
	why    string
	typ    Type
	change func(*Event)
	field  string // that the error names; "" = valid
}

func variations() []variation {
	return []variation{
		{"everything set", ReservationCreated, func(*Event) {}, ""},
		{"a type from the future", "seckill.order.lost.v1", func(*Event) {}, "event type"},
		{"no type", "", func(*Event) {}, "event type"},
		{"short ID", OrderPaid, func(e *Event) { e.ReservationID = e.ReservationID[1:] }, "reservation_id"},
		{"1 is not in base32", OrderPaid, func(e *Event) { e.ReservationID = "1" + e.ReservationID[1:] }, "reservation_id"},
		{"capitals", OrderPaid, func(e *Event) { e.ReservationID = strings.ToUpper(e.ReservationID) }, "reservation_id"},
		{"stock needs a product", StockRollback, func(e *Event) { e.ProductID = "" }, "product_id"},
		{"an order needs a product", OrderCancelled, func(e *Event) { e.ProductID = "" }, "product_id"},
		{"a brace would leave a Redis hash tag", ReservationCreated, func(e *Event) { e.ProductID = "a}b" }, "product_id"},
		{"outer hyphen", ReservationCreated, func(e *Event) { e.ProductID = "a-" }, "product_id"},
		{"37 characters", ReservationCreated, func(e *Event) { e.ProductID = strings.Repeat("a", 37) }, "product_id"},
		{"36 characters", ReservationCreated, func(e *Event) { e.ProductID = strings.Repeat("a", 36) }, ""},
		{"Redis does not know the activity", ReservationCreated, func(e *Event) { e.ActivityID = "" }, ""},
		{"but if there is one", ReservationCreated, func(e *Event) { e.ActivityID = "A" }, "activity_id"},
		{"stock needs a user", StockDeducted, func(e *Event) { e.UserID = "" }, "user_id"},
		{"a space in a user", StockDeducted, func(e *Event) { e.UserID = "a b" }, "user_id"},
		{"a user in Chinese", StockDeducted, func(e *Event) { e.UserID = "用户" }, "user_id"},
		{"65 characters", StockDeducted, func(e *Event) { e.UserID = strings.Repeat("u", 65) }, "user_id"},
		{"no units", ReservationCreated, func(e *Event) { e.Quantity = 0 }, "quantity"},
		{"negative units", StockRollback, func(e *Event) { e.Quantity = -5 }, "quantity"},
		{"ten digits", ReservationCreated, func(e *Event) { e.Quantity = 1_000_000_000 }, "quantity"},
		{"a payment needs no units", PaymentSucceeded, func(e *Event) { e.Quantity = 0 }, ""},
		{"but not nonsense either", PaymentSucceeded, func(e *Event) { e.Quantity = -1 }, "quantity"},
		{"an order needs its ID", OrderCreated, func(e *Event) { e.OrderID = "" }, "order_id"},
		{"a refund may have no order", OrderRefundDue, func(e *Event) { e.OrderID, e.ProductID, e.UserID, e.Quantity = "", "", "", 0 }, ""},
		{"a refund needs the payment", OrderRefundDue, func(e *Event) { e.PaymentRef = "" }, "payment_ref"},
		{"so does a payment", PaymentSucceeded, func(e *Event) { e.PaymentRef = "" }, "payment_ref"},
		{"a failed one may have none", PaymentFailed, func(e *Event) { e.PaymentRef = "" }, ""},
		{"a column of 64", PaymentFailed, func(e *Event) { e.PaymentRef = strings.Repeat("p", 65) }, "payment_ref"},
		{"a column of 32", PaymentFailed, func(e *Event) { e.Reason = strings.Repeat("r", 33) }, "reason"},
		{"a control character", PaymentFailed, func(e *Event) { e.Reason = "a\nb" }, "reason"},
		{"small letters", OrderPaid, func(e *Event) { e.Currency = "eur" }, "currency"},
		{"a word", OrderPaid, func(e *Event) { e.Currency = "EURO" }, "currency"},
		{"money is not negative", PaymentSucceeded, func(e *Event) { e.AmountCents = -1 }, "amount_cents"},
		{"a year JSON cannot write", OrderCreated, func(e *Event) { e.PayDeadline = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) }, "pay_deadline"},
		{"as much as there is", OrderRefundDue, func(e *Event) {
			e.Quantity, e.AmountCents, e.UserID, e.PaymentRef = maxQuantity, 1<<63-1, strings.Repeat("u", 64), strings.Repeat("~", 64)
			e.OrderID, e.Reason, e.ActivityID = strings.Repeat("!", 36), strings.Repeat(" ", 32), strings.Repeat("9", 36)
		}, ""},
		{"a channel needs its name", ChannelSoldOut, func(e *Event) { e.Channel = "" }, "channel"},
		{"capitals in a channel", ChannelResumed, func(e *Event) { e.Channel = "Warehouse" }, "channel"},
		{"a time no header can say", PaymentSucceeded, func(e *Event) { e.Time = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) }, "time"},
		{"a gift", PaymentSucceeded, func(e *Event) { e.AmountCents = 0 }, ""},
	}
}

func TestValidate(t *testing.T) {
	for _, tt := range variations() {
		e := full(tt.typ)
		tt.change(&e)
		err := e.Validate()
		if (err == nil) != (tt.field == "") || (err != nil && !strings.HasPrefix(err.Error(), tt.field)) {
			t.Errorf("%s: error %v, want one about %q", tt.why, err, tt.field)
		}
		if _, encodeErr := Encode(e); (encodeErr == nil) != (err == nil) {
			t.Errorf("%s: Encode says %v, Validate %v", tt.why, encodeErr, err)
		}
	}
}

func TestDecode(t *testing.T) {
	const rest = `"reservation_id":"abcdefghijklmnopqrstuvwx27","product_id":"p","user_id":"u"`
	for _, tt := range []struct {
		why, body string
		ok        bool
	}{
		{"as it should be", `{` + rest + `,"quantity":1}`, true},
		{"a field from the future", `{` + rest + `,"quantity":1,"colour":{"deep":[1]}}`, true},
		{"trailing white space", `{` + rest + `,"quantity":1}` + "\n", true},
		{"nothing", ``, false},
		{"null", `null`, false},
		{"an array", `[]`, false},
		{"cut off", `{` + rest, false},
		{"two objects", `{` + rest + `,"quantity":1}{}`, false},
		{"a quantity in quotes", `{` + rest + `,"quantity":"1"}`, false},
		{"half a unit", `{` + rest + `,"quantity":0.5}`, false},
		{"beyond int64", `{` + rest + `,"quantity":1e300}`, false},
		{"missing quantity", `{` + rest + `}`, false},
		{"not UTF-8, where JSON would not mind", `{` + rest + `,"quantity":1,"x":"` + "\xff" + `"}`, false},
		{"as large as may be", `{` + rest + `,"quantity":1,"x":"` + strings.Repeat("x", MaxBody-len(rest)-22) + `"}`, true},
		{"a byte more", `{` + rest + `,"quantity":1,"x":"` + strings.Repeat("x", MaxBody-len(rest)-21) + `"}`, false},
	} {
		if _, err := Decode(ReservationCreated, []byte(tt.body)); (err == nil) != tt.ok {
			t.Errorf("%s: error %v, want ok %v", tt.why, err, tt.ok)
		}
	}
}

func TestFromMessage(t *testing.T) {
	e := full(ReservationCreated)
	e.Time = e.Time.UTC()
	for _, tt := range []struct {
		why    string
		change func(h map[string]string)
		want   func(*Event) // nil = an error
	}{
		{"as published", func(map[string]string) {}, func(*Event) {}},
		{"headers from elsewhere", func(h map[string]string) { h["b3"], h["ce_dataschema"] = "1", "x" }, func(*Event) {}},
		{"no time: the record's", func(h map[string]string) { delete(h, headerTime) }, func(e *Event) { e.Time = time.Unix(7, 0).UTC() }},
		{"no source", func(h map[string]string) { delete(h, headerSource) }, func(e *Event) { e.Source = "" }},
		{"no ID: it follows from the body", func(h map[string]string) { delete(h, headerID) }, func(*Event) {}},
		{"no content type", func(h map[string]string) { delete(h, headerContentType) }, func(*Event) {}},
		{"a parameter", func(h map[string]string) { h[headerContentType] += "; charset=utf-8" }, func(*Event) {}},
		{"a trace that is none is dropped", func(h map[string]string) { h[headerTraceParent] = "hello" }, func(e *Event) { e.TraceParent = "" }},
		{"a trace too long for the outbox", func(h map[string]string) { h[headerTraceParent] += "-0123456789" }, func(e *Event) { e.TraceParent = "" }},
		{"not CloudEvents 1.0", func(h map[string]string) { h[headerSpecVersion] = "2.0" }, nil},
		{"not CloudEvents", func(h map[string]string) { delete(h, headerSpecVersion) }, nil},
		{"structured mode", func(h map[string]string) { h[headerContentType] = "application/cloudevents+json" }, nil},
		{"a time that is in the year 10000 here", func(h map[string]string) { h[headerTime] = "9999-12-31T23:59:59-23:59" }, nil},
		{"a time that is none", func(h map[string]string) { h[headerTime] = "yesterday" }, nil},
		{"no type", func(h map[string]string) { delete(h, headerType) }, nil},
		{"checkout may not give stock back", func(h map[string]string) { h[headerType] = string(StockRollback) }, nil},
	} {
		r, err := toRecord(e, "t")
		if err != nil {
			t.Fatal(err)
		}
		m := kafka.Message{Key: r.key, Value: r.value, Time: time.Unix(7, 0)}
		h := headers(kafka.Message{Headers: r.headers})
		tt.change(h)
		for key, value := range h {
			m.Headers = append(m.Headers, header(key, value))
		}
		got, err := fromMessage(m, Reservations)
		if tt.want == nil {
			if err == nil {
				t.Errorf("%s: taken for %+v", tt.why, got)
			}
			continue
		}
		want := e
		tt.want(&want)
		if err != nil || got != want {
			t.Errorf("%s: error %v, %s", tt.why, err, cmp.Diff(want, got))
		}
	}
}

// FuzzDecode looks for bytes that Decode takes and Encode does not give back.
func FuzzDecode(f *testing.F) {
	for _, typ := range types() {
		body, err := Encode(full(typ))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(typ), body)
	}
	f.Add(string(PaymentFailed), []byte(`{"reservation_id":"abcdefghijklmnopqrstuvwx27","pay_deadline":"0000-01-01T00:00:00+23:59"}`))
	f.Add(string(PaymentFailed), []byte(`{"reservation_id":"abcdefghijklmnopqrstuvwx27","pay_deadline":"9999-12-31T23:59:59-23:59"}`))
	f.Fuzz(func(t *testing.T, typ string, body []byte) {
		e, err := Decode(Type(typ), body)
		if err != nil {
			return
		}
		again, err := Encode(e)
		if err != nil {
			t.Fatalf("decoded %+v, and cannot encode it: %v", e, err)
		}
		back, err := Decode(Type(typ), again)
		if err != nil || back != e {
			t.Fatalf("decoded %+v, then %+v: %v", e, back, err)
		}
		if !json.Valid(again) || e.ID() == "" || e.Key() == "" || e.Topic() == "" {
			t.Fatalf("no ID, key or topic: %+v", e)
		}
	})
}

// FuzzFromMessage reads records as anybody with access to a topic might write
// them. What is taken can be told again, and says the same.
func FuzzFromMessage(f *testing.F) {
	f.Add(string(PaymentSucceeded), "1.0", "2026-11-11T12:00:40Z", "application/json", "/checkout", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		[]byte(`{"reservation_id":"abcdefghijklmnopqrstuvwx27","payment_ref":"pay-1","amount_cents":100,"currency":"EUR"}`))
	f.Fuzz(func(t *testing.T, typ, version, at, content, source, trace string, body []byte) {
		m := kafka.Message{Value: body, Time: time.Unix(7, 0), Headers: []kafka.Header{
			header(headerType, typ), header(headerSpecVersion, version), header(headerTime, at), header(headerContentType, content),
			header(headerSource, source), header(headerTraceParent, trace),
		}}
		topic := Event{Type: Type(typ)}.Topic()
		e, err := fromMessage(m, topic)
		if err != nil {
			return
		}
		r, err := toRecord(e, "seckill."+string(topic))
		if err != nil {
			t.Fatalf("read %+v, and cannot tell it: %v", e, err)
		}
		back, err := fromMessage(kafka.Message{Key: r.key, Value: r.value, Headers: r.headers}, topic)
		if err != nil || back != e {
			t.Fatalf("read %+v, then %+v: %v", e, back, err)
		}
	})
}

// An event that is put together by hand must read as encoding/json writes it.
func FuzzAppend(f *testing.F) {
	f.Add("", "", int64(0), int64(0))
	f.Add("user@example.com", `"<&>\`, int64(-1), int64(1893456000))
	f.Fuzz(func(t *testing.T, a, b string, n, at int64) {
		for _, e := range []Event{
			{ReservationID: a, ActivityID: b, ProductID: a, UserID: b, Quantity: n},
			{Channel: a},
			{ReservationID: b, Reason: a, OrderID: b, AmountCents: n, Currency: b, PaymentRef: a, PayDeadline: time.Unix(at%1e9, n&1).UTC()},
		} {
			want, err := json.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := e.append(nil); err != nil || string(got) != string(want) {
				t.Errorf("%s (%v), want %s", got, err, want)
			}
		}
	})
}
