package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"wherry.dev/wherry/internal/api/docker"
	"wherry.dev/wherry/internal/container"
	"wherry.dev/wherry/internal/image"
	"wherry.dev/wherry/internal/metrics"
	"wherry.dev/wherry/internal/tracing"
)

// newMetrics is what GET /metrics answers with.
func newMetrics(s docker.Services, timings *metrics.Timings) *metrics.Collector {
	counts := metrics.Counts{
		Images: func(ctx context.Context) (int, error) {
			list, err := s.Images.List(ctx, image.ListOptions{})
			return len(list), err
		},
		Volumes: func(ctx context.Context) (int, error) {
			list, err := s.Volumes.List(ctx, nil)
			return len(list), err
		},
		Networks: func(ctx context.Context) (int, error) {
			list, err := s.Networks.List(ctx, nil)
			return len(list), err
		},
		LostEvents: s.Events.Lost, Timings: timings, Started: time.Now(),
		Life: func(id string) (int, time.Time) {
			named, _ := container.NameOf(s.Containers, id) // zero where it has gone meanwhile
			return named.Restarts, named.Started
		},
	}
	if s.Audit != nil {
		counts.Audit = s.Audit.Counts
	}
	return metrics.New(s.Containers, s.Monitor, counts)
}

// openTraces starts sending spans, where that is configured. That the last ones cannot be sent is no reason not to end well.
func (o *options) openTraces(ctx context.Context, log *slog.Logger) (*tracing.Tracer, func() error, error) {
	t, err := tracing.Open(ctx, tracing.Options{Endpoint: o.set.Traces.Endpoint, Log: func(err error) { log.Warn(err.Error()) }})
	return t, func() error {
		limit, cancel := context.WithTimeout(ctx, grace)
		defer cancel()
		if err := t.Close(limit); err != nil {
			log.Warn("the last spans were not sent", "error", err)
		}
		return nil
	}, err
}

// checkMetrics refuses an address that others than this machine reach, unless that was asked for.
func (o *options) checkMetrics() error {
	m := o.set.Metrics
	if m.Address == "" {
		return nil
	}
	host, _, err := net.SplitHostPort(m.Address)
	if err != nil {
		return fmt.Errorf("metrics.address %q: give ADDRESS:PORT, such as 127.0.0.1:9323", m.Address)
	}
	ip, err := netip.ParseAddr(host)
	if m.Anywhere || host == "localhost" || err == nil && ip.IsLoopback() {
		return nil
	}
	return fmt.Errorf("metrics.address %s: other machines reach that address, and it does not ask who they are: names of containers and images, and how busy they are, would be everybody's to see; "+
		"give an address of the loopback (127.0.0.1:PORT), or say metrics.anywhere = true", m.Address)
}

// serveMetrics answers on an address of its own; stop ends that.
func (o *options) serveMetrics(ctx context.Context, c *metrics.Collector) (stop func(), err error) {
	address := o.set.Metrics.Address
	if address == "" {
		return func() {}, nil
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("metrics.address: %w", err)
	}
	server := &http.Server{Handler: c, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 10 * time.Second, MaxHeaderBytes: 16 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx }}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(l)
	}()
	return func() {
		server.Close()
		<-ended
	}, nil
}
