package events

import (
	"bytes"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/segmentio/kafka-go"
	"go.yaml.in/yaml/v3"
)

// asyncAPI is what this test reads of api/asyncapi.yaml.
type asyncAPI struct {
	Channels map[string]struct {
		Address     string
		Description string
		Owner       string         `yaml:"x-owner"`
		Key         string         `yaml:"x-key"`
		Messages    map[string]ref // by the name of the message
		Bindings    struct{ Kafka kafkaTopic }
	}
	Operations map[string]struct {
		Action   string
		Channel  ref
		Bindings struct {
			Kafka struct {
				GroupID struct{ Const string } `yaml:"groupId"`
			}
		}
	}
	Components struct {
		Messages map[string]struct {
			Name     string
			Payload  ref
			Bindings struct{ Kafka struct{ Key ref } }
			Examples []struct{ Headers, Payload map[string]any }
		}
		Schemas map[string]struct {
			Required   []string
			Properties map[string]any
		}
	}

	schemas *jsonschema.Compiler
}

type ref struct {
	To string `yaml:"$ref"`
}

// name is the last part of where it points to.
func (r ref) name() string { return r.To[strings.LastIndex(r.To, "/")+1:] }

type kafkaTopic struct {
	Topic              string
	Partitions         int
	Replicas           int
	TopicConfiguration struct {
		Retention int64 `yaml:"retention.ms"`
		MinInSync int   `yaml:"min.insync.replicas"`
	} `yaml:"topicConfiguration"`
}

func readAsyncAPI(t *testing.T) asyncAPI {
	t.Helper()
	text, err := os.ReadFile("../../api/asyncapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var doc asyncAPI
	var plain any
	if err := yaml.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, &plain); err != nil {
		t.Fatal(err)
	}
	doc.schemas = jsonschema.NewCompiler()
	doc.schemas.DefaultDraft(jsonschema.Draft7) // what AsyncAPI's schemas are a superset of
	doc.schemas.AssertFormat()
	if err := doc.schemas.AddResource("asyncapi.json", jsonOf(t, plain)); err != nil {
		t.Fatal(err)
	}
	return doc
}

// jsonOf is v as the validator wants it.
func jsonOf(t *testing.T, v any) any {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	out, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// validate checks v against the schema at a path within the document.
func (d asyncAPI) validate(t *testing.T, path string, v any) error {
	t.Helper()
	schema, err := d.schemas.Compile("asyncapi.json#" + path)
	if err != nil {
		t.Fatal(err)
	}
	return schema.Validate(jsonOf(t, v))
}

// messages are the names of the messages by the type of event they are of.
func (d asyncAPI) messages() map[Type]string {
	out := map[Type]string{}
	for name, m := range d.Components.Messages {
		out[Type(m.Name)] = name
	}
	delete(out, "dead letter")
	return out
}

// constants reads the constants of this package from a source file: those of
// type want, or whose name begins with prefix.
func constants(t *testing.T, file, want, prefix string) (values []string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 {
			return true
		}
		typ, _ := spec.Type.(*ast.Ident)
		literal, _ := spec.Values[0].(*ast.BasicLit)
		if literal == nil || (want != "" && (typ == nil || typ.Name != want)) || !strings.HasPrefix(spec.Names[0].Name, prefix) {
			return true
		}
		value, err := strconv.Unquote(literal.Value)
		if err != nil {
			t.Fatal(err)
		}
		values = append(values, value)
		return true
	})
	if len(values) == 0 {
		t.Fatalf("%s has no such constants", file)
	}
	slices.Sort(values)
	return values
}

func sorted[M ~map[K]V, K ~string, V any](m M) (keys []string) {
	for _, k := range slices.Sorted(maps.Keys(m)) {
		keys = append(keys, string(k))
	}
	return keys
}

func TestAsyncAPIHasTheTopicsOfTheFile(t *testing.T) {
	doc := readAsyncAPI(t)
	groups := map[string]string{} // group by topic
	for _, op := range doc.Operations {
		if op.Action == "receive" {
			groups[op.Channel.name()] = op.Bindings.Kafka.GroupID.Const
		}
	}
	carried := map[string][]string{}
	for _, typ := range types() {
		carried[string(full(typ).Topic())] = append(carried[string(full(typ).Topic())], doc.messages()[typ])
	}
	for _, s := range Topics() {
		name := string(s.Name)
		c, ok := doc.Channels[name]
		want := kafkaTopic{Topic: "seckill." + name, Partitions: s.Partitions, Replicas: s.Replication}
		want.TopicConfiguration.Retention, want.TopicConfiguration.MinInSync = s.Retention.Milliseconds(), s.MinInSync
		if diff := cmp.Diff(want, c.Bindings.Kafka); !ok || diff != "" {
			t.Errorf("%s (-topics.yaml +asyncapi.yaml):\n%s", name, diff)
		}
		if c.Address != want.Topic || c.Description != s.Description || c.Owner != s.Owner || c.Key != s.Key {
			t.Errorf("%s: %q by %q, keyed by %q, %q; topics.yaml says %+v", name, c.Address, c.Owner, c.Key, c.Description, s)
		}
		if group, dead := strings.CutSuffix(name, ".dlq"); dead {
			carried[name] = []string{"DeadLetter"}
			if !slices.Contains(slices.Collect(maps.Values(groups)), "seckill."+group) {
				t.Errorf("%s holds what the group %s cannot handle, and no operation receives as that group", name, group)
			}
		}
		slices.Sort(carried[name])
		if diff := cmp.Diff(carried[name], sorted(c.Messages)); diff != "" {
			t.Errorf("messages of %s (-code +asyncapi.yaml):\n%s", name, diff)
		}
		delete(doc.Channels, name)
	}
	if len(doc.Channels) > 0 {
		t.Errorf("topics.yaml does not have %v", sorted(doc.Channels))
	}
}

func TestAsyncAPIHasEveryType(t *testing.T) {
	doc := readAsyncAPI(t)
	want := constants(t, "event.go", "Type", "")
	if diff := cmp.Diff(want, sorted(doc.messages())); diff != "" {
		t.Errorf("types (-event.go +asyncapi.yaml):\n%s", diff)
	}
	var tested []string
	for _, typ := range types() {
		tested = append(tested, string(typ))
	}
	slices.Sort(tested)
	if diff := cmp.Diff(want, tested); diff != "" {
		t.Errorf("types (-event.go +tested here):\n%s", diff)
	}
}

// fields are the members of an event's JSON with their kinds.
func fields() map[string]string {
	out := map[string]string{}
	for f := range reflect.TypeFor[Event]().Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch f.Type {
		case reflect.TypeFor[string]():
			out[name] = "string"
		case reflect.TypeFor[int64]():
			out[name] = "integer"
		case reflect.TypeFor[time.Time]():
			out[name] = "date-time"
		}
	}
	delete(out, "-")
	return out
}

// kind is the kind of a property, its reference followed.
func (d asyncAPI) kind(t *testing.T, schema, property string) string {
	t.Helper()
	s, err := d.schemas.Compile("asyncapi.json#/components/schemas/" + schema + "/properties/" + property)
	if err != nil {
		t.Fatal(err)
	}
	for s.Ref != nil {
		s = s.Ref
	}
	if s.Format != nil {
		return s.Format.Name
	}
	return strings.Join(s.Types.ToStrings(), " ")
}

func TestAsyncAPIHasTheFieldsOfAnEvent(t *testing.T) {
	doc := readAsyncAPI(t)
	documented := map[string]bool{}
	for typ, name := range doc.messages() {
		schema := doc.Components.Schemas[name]
		if doc.Components.Messages[name].Payload.name() != name {
			t.Errorf("the payload of %s is %s", name, doc.Components.Messages[name].Payload.To)
		}
		for property := range schema.Properties {
			documented[property] = true
			if got := doc.kind(t, name, property); got != fields()[property] {
				t.Errorf("%s of %s is %q, in Go %q", property, typ, got, fields()[property])
			}
		}
		e := full(typ)
		for i, f := range slices.Collect(reflect.TypeFor[Event]().Fields()) {
			member, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			without := e
			reflect.ValueOf(&without).Elem().Field(i).SetZero()
			if required := slices.Contains(schema.Required, member); member != "-" && required != (without.Validate() != nil) {
				t.Errorf("%s without %s: the schema requires it: %v; Validate says %v", typ, member, required, without.Validate())
			}
		}
		key := doc.Components.Messages[name].Bindings.Kafka.Key.To
		if err := doc.validate(t, strings.TrimPrefix(key, "#"), e.Key()); err != nil {
			t.Errorf("key of %s: %v", typ, err)
		}
	}
	if diff := cmp.Diff(sorted(fields()), sorted(documented)); diff != "" {
		t.Errorf("fields (-Event +asyncapi.yaml):\n%s", diff)
	}
}

// Every event that Validate takes fits its schema, and what it refuses does not.
func TestAsyncAPIAcceptsWhatTheEncoderAccepts(t *testing.T) {
	doc := readAsyncAPI(t)
	cases := variations()
	for _, typ := range types() {
		cases = append(cases, variation{"everything set", typ, func(*Event) {}, ""})
	}
	for _, tt := range cases {
		name, known := doc.messages()[tt.typ]
		_, documented := doc.Components.Schemas[name].Properties[tt.field]
		e := full(tt.typ)
		tt.change(&e)
		body, err := json.Marshal(e) // Encode would refuse it
		if !known || err != nil || (tt.field != "" && !documented) {
			continue // no JSON has it, or this type does not speak of it
		}
		err = doc.validate(t, "/components/messages/"+name+"/payload", json.RawMessage(body))
		if (err == nil) != (tt.field == "") {
			t.Errorf("%s, %s: schema says %v, want an error about %q\n%s", tt.typ, tt.why, err, tt.field, body)
		}
	}
}

func TestAsyncAPIHasTheHeaders(t *testing.T) {
	doc := readAsyncAPI(t)
	ours := constants(t, "codec.go", "", "header")
	for _, schema := range []string{"Headers", "InboundHeaders"} {
		if diff := cmp.Diff(ours, sorted(doc.Components.Schemas[schema].Properties)); diff != "" {
			t.Errorf("%s (-codec.go +asyncapi.yaml):\n%s", schema, diff)
		}
	}
	if diff := cmp.Diff(constants(t, "deadletter.go", "", "Header"), sorted(doc.Components.Schemas["DeadLetterHeaders"].Properties)); diff != "" {
		t.Errorf("dead letters (-deadletter.go +asyncapi.yaml):\n%s", diff)
	}
	for typ, name := range doc.messages() {
		r, err := toRecord(full(typ), "t")
		if err != nil {
			t.Fatal(err)
		}
		path := "/components/messages/" + name + "/headers"
		if err := doc.validate(t, path, headers(kafka.Message{Headers: r.headers})); err != nil {
			t.Errorf("headers of %s: %v", typ, err)
		}
		inbound := full(typ).Topic() == Payments || full(typ).Topic() == Channels
		for _, left := range ours {
			h := headers(kafka.Message{Headers: r.headers})
			delete(h, left)
			m := kafka.Message{Key: r.key, Value: r.value, Time: time.Unix(7, 0)}
			for key, value := range h {
				m.Headers = append(m.Headers, header(key, value))
			}
			_, err := fromMessage(m, full(typ).Topic())
			if documented := doc.validate(t, path, h); inbound && (err == nil) != (documented == nil) {
				t.Errorf("%s without %s: read with %v, the schema says %v", typ, left, err, documented)
			}
		}
	}
}

func TestDeadLettersHaveTheHeadersOfAsyncAPI(t *testing.T) {
	doc := readAsyncAPI(t)
	p := partition{Consumer: &Consumer{topic: "seckill.payments", group: "seckill.payment", cfg: ConsumerConfig{Group: "payment", Now: time.Now}}}
	r, err := toRecord(full(PaymentSucceeded), "seckill.payments")
	if err != nil {
		t.Fatal(err)
	}
	dead := p.deadLetter(letter{msg: kafka.Message{Headers: r.headers, Key: r.key, Value: r.value}, class: "permanent", err: os.ErrInvalid, attempts: 1})
	if err := doc.validate(t, "/components/messages/DeadLetter/headers", headers(kafka.Message{Headers: dead.headers})); err != nil {
		t.Error(err)
	}
}

func TestAsyncAPIExamplesAreEvents(t *testing.T) {
	doc := readAsyncAPI(t)
	for typ, name := range doc.messages() {
		examples := doc.Components.Messages[name].Examples
		if len(examples) == 0 {
			t.Errorf("%s has no example", typ)
		}
		for _, x := range examples {
			body, err := json.Marshal(x.Payload)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Decode(typ, body); err != nil {
				t.Errorf("the example of %s: %v", typ, err)
			}
			if err := doc.validate(t, "/components/messages/"+name+"/payload", x.Payload); err != nil {
				t.Errorf("the example of %s: %v", typ, err)
			}
			if x.Headers == nil {
				continue
			}
			if err := doc.validate(t, "/components/messages/"+name+"/headers", x.Headers); err != nil {
				t.Errorf("the headers of the example of %s: %v", typ, err)
			}
		}
	}
}
