// Package trace sends spans to an OTLP collector: one for each request that a
// gateway serves, one for each event that a worker handles, each the child of
// what caused it. Trace context is carried on through HTTP, Kafka, the outbox
// and dead letters in any case; this package only makes it visible.
//
// Sampling, IDs and batching are OpenTelemetry's. The exporter is our own,
// because OpenTelemetry's links gRPC, also for HTTP.
package trace

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	oteltrace "go.opentelemetry.io/otel/trace"
)

// Config says where spans go.
type Config struct {
	Endpoint string       // base URL of a collector that takes OTLP over HTTP, http://host:4318; empty = no tracing
	Share    float64      // of the traces that begin here, 0 to 1; one that the caller has sampled is always followed
	Service  string       // name of this process
	Version  string       // of the program
	Serves   bool         // its steps answer requests; else they handle events
	Log      *slog.Logger // gets the collector's troubles at debug; required
}

// Attribute names, in one place: those of messaging are still in development.
const (
	attrReservation = "seckill.reservation_id"
	attrService     = "service.name"
	attrVersion     = "service.version"
)

// Tracer makes spans and sends them in the background. It never holds anybody
// up: what the collector does not take in time is dropped.
type Tracer struct {
	provider *sdk.TracerProvider
	tracer   oteltrace.Tracer
	kind     oteltrace.SpanKind
}

// New returns a Tracer, or nil when no endpoint is set. No collector has to be
// there. It returns an error that names the setting when the endpoint is no URL.
func New(cfg Config) (*Tracer, error) {
	if cfg.Endpoint == "" {
		return nil, nil //nolint:nilnil // no tracer means no tracing
	}
	at, err := url.Parse(cfg.Endpoint)
	if err != nil || (at.Scheme != "http" && at.Scheme != "https") || at.Host == "" {
		return nil, errors.New("setting otlp-endpoint: want the base URL of a collector that takes OTLP over HTTP, such as http://127.0.0.1:4318")
	}
	provider := sdk.NewTracerProvider(
		sdk.WithBatcher(newExporter(at.JoinPath("v1/traces").String(), cfg.Log)),
		sdk.WithSampler(sdk.ParentBased(sdk.TraceIDRatioBased(cfg.Share))),
		sdk.WithResource(resource.NewSchemaless(attribute.String(attrService, cfg.Service), attribute.String(attrVersion, cfg.Version))),
	)
	t := &Tracer{provider: provider, tracer: provider.Tracer("github.com/leadingpeers/seckill"), kind: oteltrace.SpanKindConsumer}
	if cfg.Serves {
		t.kind = oteltrace.SpanKindServer
	}
	return t, nil
}

// Step begins a span under the W3C trace context parent, or a new trace when
// that is empty or not valid. It returns the context of the span, for what
// follows from it, and what ends it: with the reason when it failed, else "".
// reservation may be empty.
func (t *Tracer) Step(parent, name, reservation string) (own string, end func(failed string)) {
	var w3c propagation.TraceContext
	ctx := w3c.Extract(context.Background(), propagation.MapCarrier{"traceparent": parent})
	ctx, span := t.tracer.Start(ctx, name, oteltrace.WithSpanKind(t.kind))
	if reservation != "" && span.IsRecording() {
		span.SetAttributes(attribute.String(attrReservation, reservation))
	}
	carrier := propagation.MapCarrier{}
	w3c.Inject(ctx, carrier)
	return carrier["traceparent"], func(failed string) {
		if failed != "" {
			span.SetStatus(codes.Error, failed)
		}
		span.End()
	}
}

// Close sends what is left, until ctx ends. A nil Tracer has nothing to close.
func (t *Tracer) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	if err := t.provider.Shutdown(ctx); err != nil {
		return fmt.Errorf("send the last spans: %w", err)
	}
	return nil
}
