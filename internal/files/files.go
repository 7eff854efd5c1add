// Package files reads and writes a container's file system from outside: copy in and out, export, changes, commit.
package files

import (
	"context"
	"io"

	"github.com/moby/moby/api/types/container"
	"github.com/opencontainers/go-digest"

	containers "wherry.dev/wherry/internal/container"
	"wherry.dev/wherry/internal/event"
	"wherry.dev/wherry/internal/image"
)

// Service works on running and stopped containers. Nothing inside a container's root is ever resolved by string on the host.
type Service struct{}

func New(c *containers.Service, i *image.Service, ev *event.Bus) *Service { return &Service{} }

// Stat describes a path inside (GET/HEAD /containers/{id}/archive).
func (s *Service) Stat(ctx context.Context, id, path string) (container.PathStat, error) {
	panic("not written yet")
}

// Get returns path as a tar whose ids are those seen inside. The caller closes it.
func (s *Service) Get(ctx context.Context, id, path string) (io.ReadCloser, container.PathStat, error) {
	panic("not written yet")
}

// PutOptions as Docker's noOverwriteDirNonDir and copyUIDGID.
type PutOptions struct{ NoOverwriteDirNonDir, CopyUIDGID bool }

// Put unpacks a tar (also compressed) in the directory path.
func (s *Service) Put(ctx context.Context, id, path string, r io.Reader, o PutOptions) error {
	panic("not written yet")
}
func (s *Service) Export(ctx context.Context, id string, w io.Writer) error { panic("not written yet") }

// Changes lists what differs from the image (docker diff).
func (s *Service) Changes(ctx context.Context, id string) ([]container.FilesystemChange, error) {
	panic("not written yet")
}

// CommitOptions of Commit.
type CommitOptions struct {
	Ref, Author, Comment string
	Changes              []string
	NoPause              bool
	Config               *container.Config // overrides, may be nil
}

func (s *Service) Commit(ctx context.Context, id string, o CommitOptions) (digest.Digest, error) {
	panic("not written yet")
}

// Size of the writable layer and of the whole root file system in bytes (ps -s).
func (s *Service) Size(ctx context.Context, id string) (rw, root int64, err error) {
	panic("not written yet")
}
