package tracing

import (
	"context"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// station plays the collector.
type station struct {
	*httptest.Server
	mu       sync.Mutex
	spans    []*otlp.Span
	service  string
	paths    map[string]bool
	requests int
}

func newStation(t *testing.T, status int) *station {
	t.Helper()
	s := &station{paths: map[string]bool{}}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var req collector.ExportTraceServiceRequest
		if err == nil && r.Header.Get("Content-Type") == "application/x-protobuf" {
			err = proto.Unmarshal(body, &req)
		}
		if err != nil {
			t.Error(err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.requests++
		s.paths[r.URL.Path] = true
		for _, rs := range req.ResourceSpans {
			for _, a := range rs.Resource.Attributes {
				if a.Key == "service.name" {
					s.service = a.Value.GetStringValue()
				}
			}
			for _, ss := range rs.ScopeSpans {
				s.spans = append(s.spans, ss.Spans...)
			}
		}
		w.WriteHeader(status)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *station) span(t *testing.T, name string) *otlp.Span {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, span := range s.spans {
		if span.Name == name {
			return span
		}
	}
	t.Fatalf("no span %s among %v", name, s.spans)
	return nil
}

func request(method, path, parent string) *http.Request {
	r := httptest.NewRequest(method, path, nil)
	if parent != "" {
		r.Header.Set("Traceparent", parent)
	}
	return r
}

func closeTracer(t *testing.T, tr *Tracer) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 20*time.Second)
	defer cancel()
	if err := tr.Close(ctx); err != nil {
		t.Error(err)
	}
}

func TestSpansReachTheCollector(t *testing.T) {
	s := newStation(t, http.StatusOK)
	tr, err := Open(t.Context(), Options{Endpoint: s.URL + "/"})
	if err != nil {
		t.Fatal(err)
	}
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	ctx, end := tr.Request(request("POST", "/containers/web/start", parent))
	tr.Starts(ctx, "web")
	tr.Step("web", "begin the task", 5*time.Millisecond)
	tr.Step("other", "of nobody's request", time.Millisecond)
	end(Answer{Route: "/containers/{id}/start", Caller: "uid:0", Status: 204, Containers: []string{"web"}})
	tr.Step("web", "too late", time.Millisecond)
	_, end = tr.Request(request("GET", "/info", ""))
	end(Answer{Route: "/info", Status: 500, Failure: "it broke"})
	closeTracer(t, tr)
	if s.service != "wherryd" || len(s.spans) != 3 || !s.paths["/v1/traces"] {
		t.Errorf("%s %v %v", s.service, s.spans, s.paths)
	}
	start, step, info := s.span(t, "POST /containers/{id}/start"), s.span(t, "begin the task"), s.span(t, "GET /info")
	if hex.EncodeToString(start.TraceId) != parent[3:35] || hex.EncodeToString(start.ParentSpanId) != parent[36:52] || start.Kind != otlp.Span_SPAN_KIND_SERVER {
		t.Errorf("the request is no child of the client's span: %v", start)
	}
	if string(step.ParentSpanId) != string(start.SpanId) || step.EndTimeUnixNano-step.StartTimeUnixNano != 5e6 {
		t.Errorf("the step is no child of its request, or not as long: %v", step)
	}
	if info.Status.GetMessage() != "it broke" || len(info.ParentSpanId) != 0 {
		t.Errorf("%v", info)
	}
	if len(tr.starts) != 0 {
		t.Errorf("left: %v", tr.starts)
	}
}

func TestOffUnlessConfigured(t *testing.T) {
	for _, name := range []string{"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_SDK_DISABLED", "OTEL_TRACES_EXPORTER"} {
		t.Setenv(name, "")
	}
	tr, err := Open(t.Context(), Options{})
	if tr != nil || err != nil {
		t.Fatalf("%v %v", tr, err)
	}
	r := request("GET", "/", "")
	ctx, end := tr.Request(r) // all of a tracer that is none
	tr.Starts(ctx, "x")
	tr.Step("x", "y", time.Second)
	end(Answer{})
	closeTracer(t, tr)
	if ctx != r.Context() {
		t.Error("a span was made")
	}
	s := newStation(t, http.StatusOK)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", s.URL)
	t.Setenv("OTEL_SERVICE_NAME", "ours")
	if tr, err = Open(t.Context(), Options{}); err != nil || tr == nil {
		t.Fatalf("by the environment: %v %v", tr, err)
	}
	_, end = tr.Request(r)
	end(Answer{Route: "/", Status: 200})
	closeTracer(t, tr)
	s.span(t, "GET /")
	if s.service != "ours" {
		t.Errorf("service %q", s.service)
	}
	t.Setenv("OTEL_SDK_DISABLED", "true")
	if tr, err = Open(t.Context(), Options{Endpoint: s.URL}); tr != nil || err != nil {
		t.Errorf("switched off: %v %v", tr, err)
	}
}

// TestACollectorThatRefuses harms nobody.
func TestACollectorThatRefuses(t *testing.T) {
	s := newStation(t, http.StatusBadRequest)
	told := make(chan error, 10)
	tr, err := Open(t.Context(), Options{Endpoint: s.URL, Log: func(err error) { told <- err }})
	if err != nil {
		t.Fatal(err)
	}
	for range 5000 { // more than the queue has
		_, end := tr.Request(request("GET", "/", ""))
		end(Answer{Route: "/", Status: 200})
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 20*time.Second)
	defer cancel()
	_ = tr.Close(ctx)
	if err := <-told; !strings.Contains(err.Error(), "send traces: ") {
		t.Error(err)
	}
	for bad, fine := range map[string]bool{"": true, "http://h:4318": true, "https://h": true, "h:4318": false, "unix:///x": false, "http://": false} {
		if err := Check(bad); (err == nil) != fine {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
