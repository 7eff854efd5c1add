// Package image keeps images: pull, push, name, unpack, read, make and remove them.
//
// It stands on containerd's packages in process: a content store (blobs by digest), a metadata database (names, references, leases) and
// the overlay snapshotter (a folder for each layer), all below <root>. Data is on disk before the database names it; what nothing refers
// to is collected after each removal.
package image

import (
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Image is one platform's image, resolved and unpacked.
type Image struct {
	ID       digest.Digest      // digest of what the name points at (index or manifest), Docker's ImageID with a content store
	Ref      string             // the full normalised reference it was found by, "" when found by id
	Manifest ocispec.Descriptor // the chosen platform's manifest
	Config   dockerspec.DockerOCIImage
	Lower    []string // layer directories, topmost first, pinned while a container refers to the image (Acquire)
}
