package build

import (
	"context"

	"github.com/moby/buildkit/util/tracing"
	"github.com/moby/buildkit/util/tracing/detect"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc"
)

// traces has BuildKit note what took how long in builds whose clients note it themselves, as buildx does: it becomes part of the build's
// history. Others' builds are not measured.
func traces(ctx context.Context) (spans sdktrace.SpanExporter, option grpc.ServerOption, stop func() error) {
	recorder := detect.NewTraceRecorder()
	detect.Recorder = recorder // where BuildKit looks for it; there is one engine in a process, but in tests
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(recorder), sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.NeverSample())))
	stop = func() error { return provider.Shutdown(context.WithoutCancel(ctx)) }
	return recorder, grpc.StatsHandler(tracing.ServerStatsHandler(otelgrpc.WithTracerProvider(provider), otelgrpc.WithPropagators(propagation.TraceContext{}))), stop
}
