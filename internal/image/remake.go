package image

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/archive"
	fslayer "wherry.dev/wherry/internal/layer"
	"wherry.dev/wherry/internal/retar"
	"wherry.dev/wherry/internal/room"
	"wherry.dev/wherry/internal/rootfs"
)

// remakes are layers whose blobs can be made again from what they are unpacked to: <root>/images.remade has a record for each, and "known", which
// says how each is compressed. A record is on the disk before it is known, and known before the blob goes.
type remakes struct {
	dir string

	mu    sync.Mutex                  // guards what follows
	known map[digest.Digest]retar.Way // "": it has been tried, and does not come out the same
}

// newRecord begins the names of records that are being made.
const newRecord = ".new-"

func openRemakes(root string) (*remakes, error) {
	m := &remakes{dir: filepath.Join(root, "images.remade"), known: map[digest.Digest]retar.Way{}}
	b, err := os.ReadFile(m.file("known"))
	if os.IsNotExist(err) {
		return m, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &m.known)
	}
	if err != nil {
		m.known = map[digest.Digest]retar.Way{}
		return m, fmt.Errorf("read which layers can be made again: %w", err)
	}
	return m, nil
}

func (m *remakes) file(name string) string { return filepath.Join(m.dir, name) }

func (m *remakes) record(id digest.Digest) string {
	return m.file(id.Algorithm().String() + "-" + id.Encoded())
}

func (m *remakes) way(id digest.Digest) (way retar.Way, known bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	way, known = m.known[id]
	return way, known
}

// note adds one, and keep forgets those for which needed says no.
func (m *remakes) note(id digest.Digest, way retar.Way) error {
	return m.change(func(of map[digest.Digest]retar.Way) { of[id] = way })
}

func (m *remakes) keep(needed func(digest.Digest) bool) error {
	err := m.change(func(of map[digest.Digest]retar.Way) {
		maps.DeleteFunc(of, func(id digest.Digest, _ retar.Way) bool { return !needed(id) })
	})
	list, readErr := os.ReadDir(m.dir)
	if err != nil || os.IsNotExist(readErr) {
		return err
	}
	for _, e := range list {
		id := digest.Digest(strings.Replace(e.Name(), "-", ":", 1))
		if way, _ := m.way(id); way == "" && strings.ContainsAny(e.Name(), "-") {
			readErr = errors.Join(readErr, os.Remove(m.file(e.Name())))
		}
	}
	return readErr
}

func (m *remakes) change(fn func(map[digest.Digest]retar.Way)) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	of := maps.Clone(m.known)
	fn(of)
	if maps.Equal(of, m.known) {
		return nil
	}
	b, err := json.Marshal(of)
	if err == nil {
		err = errors.Join(os.MkdirAll(m.dir, 0o700), replaceFile(m.file("known"), b))
	}
	if err != nil {
		return fmt.Errorf("note which layers can be made again: %w", err)
	}
	m.known = of
	return nil
}

// standing is a layer's blob, and where it stands unpacked.
type standing struct {
	blob  ocispec.Descriptor
	chain string
}

// remember sees to it that a blob can be made again. That is tried for real, once: whatever it is that does not come out the same stays.
func remember(ctx context.Context, s *Service, l standing) (bool, error) {
	m := s.dropped.made
	if way, known := m.way(l.blob.Digest); known {
		_, err := os.Stat(m.record(l.blob.Digest))
		if way == "" || err == nil {
			return way != "", nil
		}
	}
	ctx, done, err := s.lease(ctx)
	if err != nil {
		return false, err
	}
	defer done()
	way, err := tryRemake(ctx, s, l)
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	if err != nil {
		return false, nil // the blob stays; it may be another time
	}
	return way != "", m.note(l.blob.Digest, way)
}

// tryRemake writes a layer's record and makes the blob again from it, into its digest; "": that is another one, or nothing is gained. An error is
// about the attempt.
func tryRemake(ctx context.Context, s *Service, l standing) (way retar.Way, err error) {
	blob, err := s.content.ReaderAt(ctx, l.blob)
	if err != nil {
		return "", err
	}
	defer blob.Close()
	head := make([]byte, 10)
	n, _ := blob.ReadAt(head, 0)
	ways := retar.WaysOf(head[:n])
	if len(ways) == 0 {
		return "", nil
	}
	m := s.dropped.made
	if err := os.MkdirAll(m.dir, 0o700); err != nil {
		return "", err
	}
	f, err := os.CreateTemp(m.dir, newRecord)
	if err != nil {
		return "", err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := writeRecord(ctx, f, io.NewSectionReader(blob, 0, blob.Size())); err != nil {
		return "", unlessVain(ctx, err)
	}
	if st, err := f.Stat(); err != nil || st.Size() > l.blob.Size/2 {
		return "", err
	}
	dir, err := standsAt(ctx, s, l)
	if err != nil {
		return "", err
	}
	for _, way := range ways {
		sum := l.blob.Digest.Algorithm().Hash()
		if err := pack(ctx, dir, recipe{way, f.Name()}, sum); err != nil {
			return "", unlessVain(ctx, err)
		}
		if digest.NewDigest(l.blob.Digest.Algorithm(), sum) != l.blob.Digest {
			continue
		}
		if err := errors.Join(f.Sync(), os.Rename(f.Name(), m.record(l.blob.Digest))); err != nil {
			return "", err
		}
		return way, syncFS(m.dir)
	}
	return "", nil
}

// unlessVain tells what will always be so from what stands in the way now.
func unlessVain(ctx context.Context, err error) error {
	if ctx.Err() != nil || room.Lacks(err) {
		return err
	}
	return nil
}

func writeRecord(ctx context.Context, w io.Writer, blob io.Reader) error {
	plain, err := fslayer.Decompress(blob)
	if err != nil {
		return err
	}
	defer plain.Close()
	return retar.Record(w, readerOf(ctx, plain))
}

// readerOf ends with its context.
func readerOf(ctx context.Context, r io.Reader) io.Reader {
	return readerFunc(func(b []byte) (int, error) {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		return r.Read(b)
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

// recipe is how a blob is made again.
type recipe struct {
	way    retar.Way
	record string
}

// standsAt is where a layer's files are, held for the operation.
func standsAt(ctx context.Context, s *Service, l standing) (dir string, err error) {
	here, err := s.holdLayer(ctx, l.chain)
	if err == nil && !here {
		err = fmt.Errorf("layer %s is not unpacked: %w", l.blob.Digest, errdefs.ErrNotFound)
	}
	if err != nil {
		return "", err
	}
	places, err := s.where(ctx, digest.Digest(l.chain))
	if err != nil {
		return "", err
	}
	return places[0], nil
}

// pack writes a layer's blob, made from the files of a directory.
func pack(ctx context.Context, dir string, r recipe, w io.Writer) error {
	root, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer root.Close()
	f, err := os.Open(r.record)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := r.way.Writer(w)
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(z, 64<<10)
	err = retar.Make(out, f, func(name string) (io.ReadCloser, error) {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		at, err := archive.OpenBelow(root, name, unix.O_PATH)
		if err != nil {
			return nil, err
		}
		defer at.Close()
		return rootfs.Reopen(at)
	})
	return errors.Join(err, out.Flush(), z.Close())
}

// remake brings a blob back that was made here, or came by a file.
func remake(ctx context.Context, s *Service, d ocispec.Descriptor) error {
	way, _ := s.dropped.made.way(d.Digest)
	c, err := survey(ctx, s)
	if err != nil {
		return err
	}
	at, ok := c.at[d.Digest]
	if !ok {
		return fmt.Errorf("layer %s is unpacked nowhere: %w", d.Digest, errdefs.ErrNotFound)
	}
	unlock, err := s.transfers.lock(ctx, d.Digest.String())
	if err != nil {
		return err
	}
	defer unlock()
	ref := "remake-" + d.Digest.String()
	w, err := content.OpenWriter(ctx, s.content, content.WithRef(ref), content.WithDescriptor(d))
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer w.Close()
	dir, err := standsAt(ctx, s, at)
	if err == nil {
		err = w.Truncate(0)
	}
	if err == nil {
		err = pack(ctx, dir, recipe{way, s.dropped.made.record(d.Digest)}, w)
	}
	if err == nil {
		err = w.Commit(ctx, d.Size, d.Digest)
	}
	if err == nil || errdefs.IsAlreadyExists(err) {
		return nil
	}
	_ = s.content.Abort(context.WithoutCancel(ctx), ref)
	if room.Lacks(err) || ctx.Err() != nil {
		return s.explainFull(err)
	}
	return fmt.Errorf("layer %s is kept unpacked only, and what it is unpacked to does not make it again: see `wherry store check`, and make or load the image anew: %w", d.Digest, err)
}

// remade holds the files of a layer that is kept unpacked only against the digest of its tar.
func (c *check) remade(ctx context.Context, chain string, parts layerParts, damage Damage) {
	diff := parts.diffs[len(parts.diffs)-1]
	sum := diff.Algorithm().Hash()
	dir, err := standsAt(ctx, c.s, standing{parts.blob, chain})
	if err == nil {
		err = pack(ctx, dir, recipe{retar.Plain, c.s.dropped.made.record(parts.blob.Digest)}, sum)
	}
	if got := digest.NewDigest(diff.Algorithm(), sum); err == nil && got != diff {
		err = fmt.Errorf("their tar is %s, the config says %s", got, diff)
	}
	if err != nil && ctx.Err() == nil {
		damage.What, damage.Why = "has files that are not what they were: "+err.Error(), "make or load the image anew"
		c.tell(damage)
	}
}
