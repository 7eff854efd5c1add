// Package image keeps images: pull, push, name, unpack, read, make and remove them.
package image

import (
	"context"
	"io"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"wherry.dev/wherry/internal/event"
)

// Options of Open.
type Options struct {
	Root               string   // content/, snapshots/, and the metadata database lie here
	Oar                string   // the built-in image "hello" is made from this binary
	InsecureRegistries []string // hosts that are spoken to over plain HTTP; loopback addresses always may be
	Events             *event.Bus
}

// Service owns the image store.
type Service struct{}

func Open(ctx context.Context, o Options) (*Service, error) { panic("not written yet") }
func (s *Service) Close() error                             { panic("not written yet") }

// Image is one platform's image, resolved and unpacked.
type Image struct {
	ID       digest.Digest      // digest of what the name points at (index or manifest), Docker's ImageID with a content store
	Ref      string             // the full normalised reference it was found by, "" when found by id
	Manifest ocispec.Descriptor // the chosen platform's manifest
	Config   dockerspec.DockerOCIImage
	Lower    []string // layer directories, topmost first, pinned while a container refers to the image (Acquire)
}

// Resolve finds a local image by reference, id or unique id prefix and sees to it that it is unpacked. A nil platform means the host's.
// errdefs.ErrNotFound with Docker's text "No such image: …"; a wrong platform is ErrNotFound too, naming both platforms.
// It is on the path of `run`: warm, it reads memory only.
func (s *Service) Resolve(ctx context.Context, ref string, platform *ocispec.Platform) (*Image, error) {
	panic("not written yet")
}

// Acquire and Release note that a container uses an image: its layers are neither removed nor collected. In memory; re-acquired at start.
func (s *Service) Acquire(ctx context.Context, id digest.Digest, manifest digest.Digest, containerID string) error {
	panic("not written yet")
}
func (s *Service) Release(ctx context.Context, containerID string) { panic("not written yet") }

// Progress is one line of Docker's JSON progress stream.
type Progress struct {
	ID, Status     string
	Current, Total int64
	Aux            any
}

// TransferOptions of Pull and Push.
type TransferOptions struct {
	Platform *ocispec.Platform
	AllTags  bool
	Auth     *registry.AuthConfig // what the client sent for the reference's registry; nil: anonymous
	Progress func(Progress)       // may be called from several goroutines; nil is fine
}

func (s *Service) Pull(ctx context.Context, ref string, o TransferOptions) error {
	panic("not written yet")
}
func (s *Service) Push(ctx context.Context, ref string, o TransferOptions) error {
	panic("not written yet")
}

// Login tries credentials at their registry and returns an identity token if it gave one.
func (s *Service) Login(ctx context.Context, a registry.AuthConfig) (registry.AuthResponse, error) {
	panic("not written yet")
}

// Distribution describes a remote reference (GET /distribution/{name}/json).
func (s *Service) Distribution(ctx context.Context, ref string, a *registry.AuthConfig) (registry.DistributionInspect, error) {
	panic("not written yet")
}

func (s *Service) Tag(ctx context.Context, source, target string) error { panic("not written yet") }

// RemoveOptions of Remove.
type RemoveOptions struct{ Force, NoPrune bool }

func (s *Service) Remove(ctx context.Context, ref string, o RemoveOptions) ([]image.DeleteResponse, error) {
	panic("not written yet")
}

// ListOptions of List; filters have Docker's names (reference, dangling, label, before, since, until).
type ListOptions struct {
	All, SharedSize, Manifests bool
	Filters                    map[string]map[string]bool
}

func (s *Service) List(ctx context.Context, o ListOptions) ([]image.Summary, error) {
	panic("not written yet")
}
func (s *Service) Inspect(ctx context.Context, ref string, platform *ocispec.Platform) (image.InspectResponse, error) {
	panic("not written yet")
}
func (s *Service) History(ctx context.Context, ref string, platform *ocispec.Platform) ([]image.HistoryResponseItem, error) {
	panic("not written yet")
}
func (s *Service) Prune(ctx context.Context, filters map[string]map[string]bool) (image.PruneReport, error) {
	panic("not written yet")
}

// Save writes an archive that is both OCI layout and docker-archive. Load reads either (and plain or compressed).
func (s *Service) Save(ctx context.Context, refs []string, platforms []ocispec.Platform, w io.Writer) error {
	panic("not written yet")
}
func (s *Service) Load(ctx context.Context, r io.Reader, o TransferOptions) error {
	panic("not written yet")
}

// ImportOptions of Import: a root file system's tar becomes a one-layer image.
type ImportOptions struct {
	Ref, Message string
	Changes      []string // Dockerfile instructions
	Platform     *ocispec.Platform
}

func (s *Service) Import(ctx context.Context, r io.Reader, o ImportOptions) (digest.Digest, error) {
	panic("not written yet")
}

// CommitOptions of Commit.
type CommitOptions struct {
	Parent          *Image
	Ref             string
	Author, Comment string
	Config          dockerspec.DockerOCIImageConfig
	Changes         []string
	Created         time.Time
	ContainerID     string
}

// Commit makes an image of the parent plus one layer, read as a tar of changes (OCI whiteouts, ids as seen inside).
func (s *Service) Commit(ctx context.Context, layer io.Reader, o CommitOptions) (digest.Digest, error) {
	panic("not written yet")
}

// DiskUsage is what `system df` shows.
func (s *Service) DiskUsage(ctx context.Context) (image.DiskUsage, error) { panic("not written yet") }
