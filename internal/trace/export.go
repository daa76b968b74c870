package trace

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
)

// exporter sends spans as OTLP over HTTP in its JSON form
// (https://opentelemetry.io/docs/specs/otlp/#otlphttp). What cannot be sent is
// dropped: traces are a convenience, and no store of anything.
type exporter struct {
	url    string
	client *http.Client
	log    *slog.Logger
}

func newExporter(url string, log *slog.Logger) *exporter {
	return &exporter{url: url, client: &http.Client{Timeout: 5 * time.Second}, log: log}
}

// ExportSpans sends a batch once. It never returns an error, because the SDK
// would print that to standard error.
func (e *exporter) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	if err := e.send(ctx, spans); err != nil {
		e.log.DebugContext(ctx, "spans are dropped", "spans", len(spans), "error", err)
	}
	return nil
}

func (e *exporter) send(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	body, err := json.Marshal(encode(spans))
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := e.client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, _ := io.ReadAll(io.LimitReader(resp.Body, 300)) // only for the message
	if resp.StatusCode >= 300 {
		return fmt.Errorf("the collector answers %d: %s", resp.StatusCode, answer)
	}
	return nil
}

// Shutdown closes the connections.
func (e *exporter) Shutdown(context.Context) error {
	e.client.CloseIdleConnections()
	return nil
}

// The messages of OTLP that we fill in, in their JSON names. Unlike protobuf's
// own JSON, IDs are hexadecimal and enumerations are numbers.
type (
	otlp struct {
		ResourceSpans []otlpResource `json:"resourceSpans"`
	}
	otlpResource struct {
		Resource   otlpAttributes `json:"resource"`
		ScopeSpans []otlpScope    `json:"scopeSpans"`
	}
	otlpScope struct {
		Scope struct {
			Name string `json:"name"`
		} `json:"scope"`
		Spans []otlpSpan `json:"spans"`
	}
	otlpSpan struct {
		TraceID    string      `json:"traceId"`
		SpanID     string      `json:"spanId"`
		ParentID   string      `json:"parentSpanId,omitempty"`
		Name       string      `json:"name"`
		Kind       int         `json:"kind"`
		Start      string      `json:"startTimeUnixNano"`
		End        string      `json:"endTimeUnixNano"`
		Attributes []otlpPair  `json:"attributes,omitempty"`
		Status     *otlpStatus `json:"status,omitempty"`
	}
	otlpAttributes struct {
		Attributes []otlpPair `json:"attributes"`
	}
	otlpPair struct {
		Key   string `json:"key"`
		Value struct {
			String string `json:"stringValue"`
		} `json:"value"`
	}
	otlpStatus struct {
		Code    int    `json:"code"`
		Message string `json:"message,omitempty"`
	}
)

const otlpError = 2 // a status code of OTLP; OpenTelemetry counts otherwise in Go

// encode puts spans of one process into one message.
func encode(spans []sdk.ReadOnlySpan) otlp {
	var scope otlpScope
	var resource otlpAttributes
	for _, s := range spans {
		if scope.Scope.Name == "" {
			scope.Scope.Name = s.InstrumentationScope().Name
			resource.Attributes = pairs(s.Resource().Attributes())
		}
		one := otlpSpan{
			TraceID: s.SpanContext().TraceID().String(), SpanID: s.SpanContext().SpanID().String(),
			Name: s.Name(), Kind: int(s.SpanKind()), Attributes: pairs(s.Attributes()),
			Start: strconv.FormatInt(s.StartTime().UnixNano(), 10), End: strconv.FormatInt(s.EndTime().UnixNano(), 10),
		}
		if s.Parent().HasSpanID() {
			one.ParentID = s.Parent().SpanID().String()
		}
		if s.Status().Code == codes.Error {
			one.Status = &otlpStatus{otlpError, s.Status().Description}
		}
		scope.Spans = append(scope.Spans, one)
	}
	return otlp{[]otlpResource{{resource, []otlpScope{scope}}}}
}

// pairs are attributes; all of ours are strings.
func pairs(attributes []attribute.KeyValue) []otlpPair {
	out := make([]otlpPair, len(attributes))
	for i, a := range attributes {
		out[i].Key, out[i].Value.String = string(a.Key), a.Value.String()
	}
	return out
}
