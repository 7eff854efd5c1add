// Package tracing sends spans of requests, and of the named steps of starting containers, to an OpenTelemetry collector, by OTLP over HTTP.
//
// It is off unless a collector is configured: then there is no Tracer, and the methods of a nil one do nothing. A collector that is slow or away
// slows nobody down: spans wait in a bounded queue and are dropped when it is full. Safe for many goroutines.
package tracing

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"wherry.dev/wherry/internal/version"
)

// Options of Open.
type Options struct {
	Endpoint string // http://host:4318; "": what OTEL_EXPORTER_OTLP_ENDPOINT says
	Log      func(error)
}

// Tracer makes spans.
type Tracer struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
	incoming propagation.TraceContext

	mu     sync.Mutex
	starts map[string]context.Context // of requests that are about to start a container, by its id
}

// Configured says that spans are wanted, by the settings or by the variables that OpenTelemetry's specification names.
func (o Options) Configured() bool {
	if strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") || os.Getenv("OTEL_TRACES_EXPORTER") == "none" {
		return false
	}
	return o.Endpoint != "" || os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != ""
}

// Check says what is wrong with an endpoint.
func Check(endpoint string) error {
	if endpoint == "" {
		return nil
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return fmt.Errorf("%q is no address of a collector: give http://HOST:4318 or https://HOST:4318", endpoint)
	}
	return nil
}

// Open starts sending; nil where nothing is configured. The collector need not be there yet.
func Open(ctx context.Context, o Options) (*Tracer, error) {
	if !o.Configured() {
		return nil, nil
	}
	if p := os.Getenv("OTEL_EXPORTER_OTLP_PROTOCOL"); p != "" && p != "http/protobuf" && o.Log != nil {
		o.Log(fmt.Errorf("OTEL_EXPORTER_OTLP_PROTOCOL=%s: the engine sends http/protobuf", p))
	}
	var options []otlptracehttp.Option
	if o.Endpoint != "" {
		endpoint := strings.TrimSuffix(o.Endpoint, "/")
		if u, err := url.Parse(endpoint); err == nil && u.Path == "" {
			endpoint += "/v1/traces"
		}
		options = append(options, otlptracehttp.WithEndpointURL(endpoint))
	}
	exporter, err := otlptracehttp.New(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("send traces: %w", err)
	}
	about, err := resource.New(ctx, resource.WithAttributes(attribute.String("service.name", "wherryd"), attribute.String("service.version", version.Version)), resource.WithFromEnv())
	if err != nil && !errors.Is(err, resource.ErrPartialResource) {
		return nil, fmt.Errorf("read OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	if o.Log != nil {
		otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { o.Log(fmt.Errorf("send traces: %w", err)) }))
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(about))
	return &Tracer{provider: provider, tracer: provider.Tracer("wherry.dev/wherry"), starts: map[string]context.Context{}}, nil
}

// Close sends what waits, until ctx ends.
func (t *Tracer) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	return t.provider.Shutdown(ctx)
}

// Answer is how a request ended.
type Answer struct {
	Route, Caller string // of the table of routes; who asked
	Status        int
	Failure       string
	Containers    []string // whose start the request may have been
}

// Request begins the span of a request, as a child of the one that the client names in traceparent.
func (t *Tracer) Request(r *http.Request) (ctx context.Context, end func(Answer)) {
	if t == nil {
		return r.Context(), func(Answer) {}
	}
	ctx = t.incoming.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
	ctx, span := t.tracer.Start(ctx, r.Method, trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(attribute.String("http.request.method", r.Method)))
	return ctx, func(a Answer) {
		span.SetName(r.Method + " " + a.Route)
		span.SetAttributes(attribute.String("http.route", a.Route), attribute.Int("http.response.status_code", a.Status), attribute.String("wherry.caller", a.Caller))
		if a.Status >= 500 || a.Status == 0 {
			span.SetStatus(codes.Error, a.Failure)
		}
		for _, id := range a.Containers {
			span.SetAttributes(attribute.String("container.id", id))
			t.mu.Lock()
			delete(t.starts, id)
			t.mu.Unlock()
		}
		span.End()
	}
}

// Starts says that the request of ctx may start a container: its steps are children of the request's span from here to its end.
func (t *Tracer) Starts(ctx context.Context, id string) {
	if t == nil || id == "" {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.starts[id] = trace.ContextWithSpan(context.WithoutCancel(ctx), trace.SpanFromContext(ctx))
}

// Step is a span of a named step of a start that has just ended.
func (t *Tracer) Step(id, name string, took time.Duration) {
	if t == nil {
		return
	}
	t.mu.Lock()
	ctx := t.starts[id]
	t.mu.Unlock()
	if ctx == nil { // by a restart policy: there is no request
		return
	}
	now := time.Now()
	_, span := t.tracer.Start(ctx, name, trace.WithTimestamp(now.Add(-took)), trace.WithAttributes(attribute.String("container.id", id)))
	span.End(trace.WithTimestamp(now))
}
