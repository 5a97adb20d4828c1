package oteltraces

import (
	"context"
	"net/url"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"drover"
)

// The standard variables that say where traces go, and that they are not wanted.
const (
	envEndpoint       = "OTEL_EXPORTER_OTLP_ENDPOINT"
	envTracesEndpoint = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
	envTracesExporter = "OTEL_TRACES_EXPORTER"
	envDisabled       = "OTEL_SDK_DISABLED"
)

// tracesPath is added to an endpoint that serves all signals.
const tracesPath = "/v1/traces"

// timeout bounds a request, unless the standard variables say otherwise.
const timeout = 10 * time.Second

// Config says where traces go.
type Config struct {
	// Endpoint is the receiver's address without the path of a signal, such as http://127.0.0.1:4318. Empty leaves it to the standard variables
	// (OTEL_EXPORTER_OTLP_ENDPOINT and its kin), as headers, certificates and compression always are.
	Endpoint string
	// Version and Instance describe the sender: the program's version, and the host that it runs on.
	Version, Instance string
}

// Wanted reports whether there is anywhere to send traces to, by the configuration or the standard variables.
func Wanted(endpoint string, getenv func(string) string) bool {
	if strings.EqualFold(getenv(envDisabled), "true") || getenv(envTracesExporter) == "none" {
		return false
	}
	return endpoint != "" || getenv(envEndpoint) != "" || getenv(envTracesEndpoint) != ""
}

// ValidEndpoint reports whether an endpoint is one.
func ValidEndpoint(endpoint string) bool {
	u, err := url.Parse(endpoint)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.User == nil && u.RawQuery == "" && u.Fragment == ""
}

// Exporter sends spans. Safe for concurrent use.
type Exporter struct {
	otlp     *otlptrace.Exporter
	resource *resource.Resource
}

// New returns an Exporter. It sends nothing yet, and does not ask whether anybody is there.
func New(ctx context.Context, config Config) (*Exporter, error) {
	opts := []otlptracehttp.Option{otlptracehttp.WithRetry(otlptracehttp.RetryConfig{Enabled: false}), otlptracehttp.WithTimeout(timeout)}
	if config.Endpoint != "" {
		if !ValidEndpoint(config.Endpoint) {
			return nil, drover.Errorf(drover.Invalid, "the endpoint of traces %q is not an address such as http://127.0.0.1:4318", config.Endpoint)
		}
		opts = append(opts, otlptracehttp.WithEndpointURL(strings.TrimSuffix(config.Endpoint, "/")+tracesPath))
	}
	otlp, err := otlptracehttp.New(ctx, opts...)
	if err != nil {
		return nil, drover.Errorf(drover.Invalid, "cannot set the export of traces up: %w", err)
	}
	// Later detectors win: OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES have the last word.
	res, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithAttributes(attribute.String("service.name", "drover"),
		attribute.String("service.version", config.Version), attribute.String("service.instance.id", config.Instance)), resource.WithFromEnv())
	if err != nil {
		return nil, drover.Errorf(drover.Invalid, "cannot read the attributes of traces from the environment: %w", err)
	}
	return &Exporter{otlp: otlp, resource: res}, nil
}

// Close ends the Exporter.
func (e *Exporter) Close(ctx context.Context) error {
	if err := e.otlp.Shutdown(ctx); err != nil {
		return drover.Errorf(drover.Internal, "cannot end the export of traces: %w", err)
	}
	return nil
}

// ExportTrace sends spans in one request. Unavailable when they were not taken; they may be sent again.
func (e *Exporter) ExportTrace(ctx context.Context, spans []drover.Span) error {
	made, err := e.make(ctx, spans)
	if err != nil {
		return err
	}
	if err := e.otlp.ExportSpans(ctx, made); err != nil {
		return drover.Errorf(drover.Unavailable, "cannot export a trace of %d spans: %w", len(spans), err)
	}
	return nil
}

// make lets the SDK make its spans, so that its limits and its form of resources and scopes hold.
func (e *Exporter) make(ctx context.Context, spans []drover.Span) ([]sdktrace.ReadOnlySpan, error) {
	var kept keeper
	ids := &fixedIDs{}
	provider := sdktrace.NewTracerProvider(sdktrace.WithResource(e.resource), sdktrace.WithSampler(sdktrace.AlwaysSample()), sdktrace.WithIDGenerator(ids),
		sdktrace.WithSpanProcessor(&kept))
	tracer := provider.Tracer("drover")
	for _, s := range spans {
		var err error
		parent := trace.SpanContextConfig{TraceFlags: trace.FlagsSampled, Remote: true}
		if ids.trace, err = trace.TraceIDFromHex(string(s.Trace)); err == nil {
			ids.span, err = trace.SpanIDFromHex(string(s.ID))
		}
		under := ctx
		if err == nil && s.Parent != "" {
			parent.TraceID = ids.trace
			parent.SpanID, err = trace.SpanIDFromHex(string(s.Parent))
			under = trace.ContextWithRemoteSpanContext(ctx, trace.NewSpanContext(parent))
		}
		if err != nil {
			return nil, drover.Errorf(drover.Internal, "span %q of trace %q has an ID that is none: %w", s.ID, s.Trace, err)
		}
		opts := []trace.SpanStartOption{trace.WithTimestamp(s.Start), trace.WithAttributes(attributes(s.Attributes)...), trace.WithSpanKind(trace.SpanKindInternal)}
		if s.Parent == "" {
			opts = append(opts, trace.WithNewRoot())
		}
		_, span := tracer.Start(under, s.Name, opts...)
		for _, event := range s.Events {
			span.AddEvent(event.Name, trace.WithTimestamp(event.At), trace.WithAttributes(attributes(event.Attributes)...))
		}
		if s.Problem != "" {
			span.SetStatus(codes.Error, s.Problem)
		}
		span.End(trace.WithTimestamp(s.End))
	}
	return kept.spans, nil
}

func attributes(list []drover.Attribute) []attribute.KeyValue {
	var out []attribute.KeyValue
	for _, a := range list {
		if a.Text != "" {
			out = append(out, attribute.String(a.Key, a.Text))
		} else {
			out = append(out, attribute.Int64(a.Key, a.Number))
		}
	}
	return out
}

// fixedIDs gives the next span the IDs that it has.
type fixedIDs struct {
	trace trace.TraceID
	span  trace.SpanID
}

var _ sdktrace.IDGenerator = (*fixedIDs)(nil)

// NewIDs is asked for the first span of a trace.
func (f *fixedIDs) NewIDs(context.Context) (trace.TraceID, trace.SpanID) { return f.trace, f.span }

// NewSpanID is asked for all others.
func (f *fixedIDs) NewSpanID(context.Context, trace.TraceID) trace.SpanID { return f.span }

// keeper keeps the spans that have ended.
type keeper struct{ spans []sdktrace.ReadOnlySpan }

var _ sdktrace.SpanProcessor = (*keeper)(nil)

// OnStart does nothing.
func (*keeper) OnStart(context.Context, sdktrace.ReadWriteSpan) {}

// OnEnd keeps the span.
func (k *keeper) OnEnd(s sdktrace.ReadOnlySpan) { k.spans = append(k.spans, s) }

// Shutdown does nothing.
func (*keeper) Shutdown(context.Context) error { return nil }

// ForceFlush does nothing.
func (*keeper) ForceFlush(context.Context) error { return nil }
