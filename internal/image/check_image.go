package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	fslayer "wherry.dev/wherry/internal/layer"
	"wherry.dev/wherry/internal/snapshot"
)

// layerParts are what a layer is made of: its blob, and its and the lower ones' content.
type layerParts struct {
	blob  ocispec.Descriptor
	diffs []digest.Digest
}

// imageOf is the file of a layer that is an EROFS image, by its place, or by what it could not be found for; "" for others.
func (c *check) imageOf(places []string, lost error) string {
	var gone *os.PathError
	if errors.As(lost, &gone) && os.IsNotExist(gone) && snapshot.IsImage(gone.Path) {
		return gone.Path
	}
	if lost != nil {
		return ""
	}
	return c.s.mounts.ImageOf(places[0])
}

// image holds a layer's image against the one that its tar makes, byte for byte: what is mounted may long have been read into memory. In a repair
// the new one takes its place.
func (c *check) image(ctx context.Context, file string, parts layerParts, damage Damage) {
	scratch := filepath.Join(c.s.root, scratchDir)
	defer os.RemoveAll(scratch)
	made := filepath.Join(scratch, "image")
	err := errors.Join(os.RemoveAll(scratch), os.Mkdir(scratch, 0o700))
	if err == nil {
		err = c.makeImage(ctx, made, snapshot.UUIDOf(file), parts)
	}
	if ctx.Err() != nil {
		return
	}
	var differs error
	if err == nil {
		if differs = sameBytes(file, made); differs == nil {
			return
		}
		damage.What = differs.Error()
		if c.o.Repair {
			err = c.s.mounts.Replace(file, made)
			damage.Mended = err == nil
		}
	} else {
		damage.What = "cannot be verified"
	}
	if err != nil {
		damage.Why = err.Error()
	}
	c.tell(damage)
}

// makeImage makes a layer's image anew from its tar, on the disk when it returns.
func (c *check) makeImage(ctx context.Context, path string, uuid [16]byte, parts layerParts) (err error) {
	var below []string
	if last := len(parts.diffs) - 1; last > 0 {
		if below, err = c.place(ctx, chainID(parts.diffs[:last]), false); err != nil {
			return fmt.Errorf("find the layers below: %w", err)
		}
	}
	from, err := stored{c.s.store.blobs}.open(ctx, parts.blob)
	if err != nil {
		return err
	}
	defer from.Close()
	i, err := snapshot.NewImageAs(path, len(parts.diffs) == 1, uuid)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, i.Close()) }()
	sums, err := fslayer.Unpack(ctx, from, i)
	if err != nil {
		return err
	}
	if want := parts.diffs[len(parts.diffs)-1]; sums.Diff != want {
		return fmt.Errorf("its tar is %s, the config says %s", sums.Diff, want)
	}
	return errors.Join(i.Finish(), i.Settle(below), i.Sync())
}

// sameBytes says how a file differs from what it is to be, nil if it does not.
func sameBytes(file, want string) error {
	a, err := os.Open(file)
	if os.IsNotExist(err) {
		return errors.New("has lost its image")
	}
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := os.Open(want)
	if err != nil {
		return err
	}
	defer b.Close()
	var one, other [64 << 10]byte
	for at := int64(0); ; {
		n, err := io.ReadFull(a, one[:])
		m, err2 := io.ReadFull(b, other[:])
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return fmt.Errorf("cannot be read: %w", err)
		}
		if !bytes.Equal(one[:n], other[:m]) {
			return fmt.Errorf("has an image that is not what its tar makes, from byte %d on", at)
		}
		if err != nil || err2 != nil {
			return nil
		}
		at += int64(n)
	}
}
