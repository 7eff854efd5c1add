package build

import (
	"context"

	controlapi "github.com/moby/buildkit/api/services/control"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// stream is one of BuildKit's streams within the process.
type stream[T any] struct {
	grpc.ServerStream // of which nothing is called but what is here
	ctx               func() context.Context
	send              func(T)
}

func (s *stream[T]) Context() context.Context { return s.ctx() }

func (s *stream[T]) SetHeader(metadata.MD) error { return nil }

func (s *stream[T]) SendHeader(metadata.MD) error { return nil }

func (s *stream[T]) SetTrailer(metadata.MD) {}

func (s *stream[T]) Send(m T) error { s.send(m); return nil }

func (s *stream[T]) SendMsg(m any) error {
	if t, ok := m.(T); ok {
		s.send(t)
	}
	return nil
}

// statusStream is of progress, pruneStream of what a prune removes.
type (
	statusStream = stream[*controlapi.StatusResponse]
	pruneStream  = stream[*controlapi.UsageRecord]
)
