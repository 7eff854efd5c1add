package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Refer makes manifests that are in the repository known as referrers of subject, where the registry does not do so by itself: they are
// added to the index under the tag in the place of the referrers API, which keeps what else it holds. The descriptors have artifact types
// and annotations. Who else writes that index at the same time may undo it: it is read again, and written again if need be.
func (p *Pusher) Refer(ctx context.Context, subject digest.Digest, list ...ocispec.Descriptor) error {
	if len(list) == 0 {
		return nil
	}
	if err := subject.Validate(); err != nil {
		return fmt.Errorf("digest %q: %w: %w", clip(subject.String()), err, errdefs.ErrInvalidArgument)
	}
	resp, err := p.to.referrersPage(ctx, subject, nil)
	if err == nil {
		_, _, err = readReferrers(resp)
	}
	if !errors.Is(err, errNoReferrers) {
		return err
	}
	for try := range tries {
		index, changed, err := p.extended(ctx, referrersTag(subject), list)
		if err != nil || !changed {
			return err
		}
		if try > 0 {
			select {
			case <-time.After(p.pool.o.Pause << try):
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.FromBytes(index), Size: int64(len(index))}
		if err := p.Manifest(ctx, d, index, referrersTag(subject)); err != nil {
			return err
		}
	}
	return fmt.Errorf("somebody else writes the list of referrers of %s again and again (tag %s): %w", subject, referrersTag(subject), errdefs.ErrUnavailable)
}

// extended reads the index under a tag, which may not be there yet, and adds what it lacks.
func (p *Pusher) extended(ctx context.Context, tag string, list []ocispec.Descriptor) (index []byte, changed bool, err error) {
	r := p.to.at(http.MethodGet, "manifests", tag)
	r.scope = p.to.scope("pull,push")
	r.header["Accept"] = manifestTypes()
	resp, err := p.to.ask(ctx, r, http.StatusOK, http.StatusNotFound)
	if err != nil {
		return nil, false, err
	}
	defer drain(resp)
	old := io.Reader(strings.NewReader("{}"))
	if resp.StatusCode == http.StatusOK {
		if t := mediaType(resp.Header); t != ocispec.MediaTypeImageIndex {
			return nil, false, fmt.Errorf("tag %s is to list referrers, and is of type %q: it is left as it is: remove it there: %w", tag, clip(t), errdefs.ErrFailedPrecondition)
		}
		old = resp.Body
	}
	return extend(old, list)
}

// extend adds to an index what it lacks; the rest of it stays as it is.
func extend(old io.Reader, list []ocispec.Descriptor) (index []byte, changed bool, err error) {
	var entries []json.RawMessage
	known := map[digest.Digest]bool{}
	doc, err := readIndex(old, func(entry json.RawMessage) error {
		var d struct{ Digest digest.Digest }
		if err := json.Unmarshal(entry, &d); err != nil || len(entries) >= maxReferrers {
			return fmt.Errorf("an entry is no descriptor, or there are more than %d: %w", maxReferrers, errdefs.ErrInvalidArgument)
		}
		known[d.Digest] = true
		entries = append(entries, bytes.Clone(entry))
		return nil
	})
	if err != nil {
		return nil, false, fmt.Errorf("read the list of referrers: %w", err)
	}
	for _, d := range list {
		if known[d.Digest] {
			continue
		}
		known[d.Digest], changed = true, true
		entry, err := json.Marshal(d)
		if err != nil {
			return nil, false, err
		}
		entries = append(entries, entry)
	}
	if !changed {
		return nil, false, nil
	}
	doc["schemaVersion"], doc["mediaType"] = json.RawMessage("2"), json.RawMessage(`"`+ocispec.MediaTypeImageIndex+`"`)
	if doc["manifests"], err = json.Marshal(entries); err == nil {
		index, err = json.Marshal(doc)
	}
	if err == nil {
		err = checkManifestSize(int64(len(index)))
	}
	return index, true, err
}
