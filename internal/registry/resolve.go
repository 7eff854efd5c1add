package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// MaxManifest is the most that a manifest or index may have.
const MaxManifest = 8 << 20

// manifestTypes are what a registry may answer with, in this order.
func manifestTypes() []string {
	return []string{ocispec.MediaTypeImageIndex, images.MediaTypeDockerSchema2ManifestList, ocispec.MediaTypeImageManifest, images.MediaTypeDockerSchema2Manifest, "*/*"}
}

// Resolve asks what the client's reference means: mirrors that may be asked for tags, then the registry itself. The answer is small: a
// registry that needs minutes for it is not there.
func (c *Client) Resolve(ctx context.Context) (ocispec.Descriptor, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, 2*time.Minute, fmt.Errorf("the registry has not answered for 2 minutes: %w", errdefs.ErrUnavailable))
	defer cancel()
	need := docker.HostCapabilityResolve
	if c.Ref.Digest != "" {
		need = docker.HostCapabilityPull
	}
	endpoints, err := c.able(need)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return first(endpoints, func(e *endpoint) (ocispec.Descriptor, error) { return e.resolve(ctx, c.Ref.Tag, c.Ref.Digest) })
}

// resolve by tag, or by digest where there is one.
func (e *endpoint) resolve(ctx context.Context, tag string, want digest.Digest) (ocispec.Descriptor, error) {
	name := tag
	if want != "" {
		name = want.String()
	}
	r := e.at(http.MethodHead, "manifests", name)
	r.header["Accept"] = manifestTypes()
	resp, err := e.do(ctx, r)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	drain(resp)
	switch s := resp.StatusCode; {
	case s == http.StatusOK:
	case s == http.StatusNotFound, s == http.StatusTooManyRequests, s >= 500:
		return ocispec.Descriptor{}, newStatusError(resp)
	default:
		return e.read(ctx, r, want) // an error's words come with GET only, and some registries know no HEAD
	}
	d := ocispec.Descriptor{MediaType: mediaType(resp.Header), Size: resp.ContentLength, Digest: want}
	if want == "" {
		d.Digest = digest.Digest(resp.Header.Get("Docker-Content-Digest"))
	}
	if !isManifest(d.MediaType) || d.Digest == "" || d.Size <= 0 {
		return e.read(ctx, r, want)
	}
	if err := d.Digest.Validate(); err != nil {
		return d, fmt.Errorf("the registry names %q as the digest: %w: %w", clip(d.Digest.String()), err, errdefs.ErrInvalidArgument)
	}
	return d, checkManifestSize(d.Size)
}

// read finds out from the manifest itself what its head does not say.
func (e *endpoint) read(ctx context.Context, r request, want digest.Digest) (ocispec.Descriptor, error) {
	r.method = http.MethodGet
	resp, err := e.ask(ctx, r, http.StatusOK)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, MaxManifest+1))
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("read the manifest: %w", err)
	}
	d := ocispec.Descriptor{MediaType: mediaType(resp.Header), Size: int64(len(body)), Digest: want}
	if want == "" {
		d.Digest = digest.FromBytes(body)
	}
	if !isManifest(d.MediaType) {
		var says struct {
			MediaType string `json:"mediaType"`
		}
		if json.Unmarshal(body, &says) == nil && says.MediaType != "" {
			d.MediaType = says.MediaType
		}
	}
	return d, checkManifestSize(d.Size)
}

func checkManifestSize(size int64) error {
	if size > MaxManifest {
		return fmt.Errorf("the manifest has %d bytes or more, 8 MiB are the most: %w", size, errdefs.ErrInvalidArgument)
	}
	return nil
}

func mediaType(h http.Header) string {
	t, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil {
		return ""
	}
	return t
}

func isManifest(mediaType string) bool {
	return images.IsManifestType(mediaType) || images.IsIndexType(mediaType)
}
