package build

import (
	"sync"
	"time"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/source/containerimage"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"wherry.dev/wherry/internal/image"
)

// bases are the images that builds under way have found, each held until the last of them is over. A build asks for an image twice: by its name
// for its configuration, and for its files by the digest that it was told. In between its name may be taken away.
type bases struct {
	mu    sync.Mutex // guards what follows
	found map[baseKey]*foundBase
}

// baseKey is what of a reference with a digest says which image it is.
type baseKey struct {
	repository, platform string
	digest               digest.Digest
}

type foundBase struct {
	target  ocispec.Descriptor
	until   time.Time // when its lease ends by itself
	holders int
	release func()
}

func keyOf(id *containerimage.ImageIdentifier, d digest.Digest) baseKey {
	k := baseKey{repository: id.Reference.Locator, digest: d}
	if id.Platform != nil {
		k.platform = platforms.FormatAll(platforms.Normalize(*id.Platform))
	}
	return k
}

// get holds for one more job what is asked for by its digest and a build under way holds; nil: there is none.
func (b *bases) get(id *containerimage.ImageIdentifier, job solver.JobContext) (*ocispec.Descriptor, error) {
	key := keyOf(id, id.Reference.Digest())
	b.mu.Lock()
	x := b.found[key]
	if x == nil || time.Now().After(x.until) {
		b.mu.Unlock()
		return nil, nil
	}
	if job != nil {
		x.holders++
	}
	b.mu.Unlock()
	target := x.target
	return &target, b.whileLasts(key, x, job)
}

// keep holds what a job has found until it is over; then, or where there is no job, release lets go of it.
func (b *bases) keep(id *containerimage.ImageIdentifier, target ocispec.Descriptor, job solver.JobContext, release func()) error {
	if job == nil {
		release()
		return nil
	}
	x := &foundBase{target: target, until: time.Now().Add(image.BaseHeld), holders: 1, release: release}
	key := keyOf(id, target.Digest)
	b.mu.Lock()
	if b.found == nil {
		b.found = map[baseKey]*foundBase{}
	}
	b.found[key] = x // an earlier one is held by who found it
	b.mu.Unlock()
	return b.whileLasts(key, x, job)
}

// whileLasts lets go when the job is over. BuildKit calls that with locks held, so mu is not while it is told of it.
func (b *bases) whileLasts(key baseKey, x *foundBase, job solver.JobContext) error {
	if job == nil {
		return nil
	}
	return job.Cleanup(func() error {
		b.mu.Lock()
		x.holders--
		last := x.holders == 0
		if last && b.found[key] == x {
			delete(b.found, key)
		}
		b.mu.Unlock()
		if last {
			x.release()
		}
		return nil
	})
}
