package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"wherry.dev/wherry/internal/archive"
	fslayer "wherry.dev/wherry/internal/layer"
	"wherry.dev/wherry/internal/snapshot"
)

// image holds a layer's image against the one that its tar makes, byte for byte: what is mounted may long have been read into memory. One that an
// earlier version of the engine wrote in another way is compared file by file. In a repair the new one takes its place.
func (c *check) image(ctx context.Context, file string, parts layerParts, damage Damage) {
	scratch := filepath.Join(c.s.root, scratchDir)
	defer os.RemoveAll(scratch)
	made := filepath.Join(scratch, "image")
	err := errors.Join(os.RemoveAll(scratch), os.Mkdir(scratch, 0o700))
	if err == nil {
		err = c.makeImage(ctx, made, snapshot.UUIDOf(file), parts)
	}
	differs := ""
	if err == nil {
		differs, err = imageDiffers(ctx, file, made)
	}
	switch {
	case ctx.Err() != nil || err == nil && differs == "":
		return
	case takesNoMore(err):
		c.full = err
		return
	case err != nil:
		damage.What, damage.Why = "cannot be verified", err.Error()
	default:
		damage.What = differs
	}
	if differs != "" && c.o.Repair {
		if err := c.s.mounts.Replace(file, made); err != nil {
			damage.Why = err.Error()
		}
		damage.Mended = damage.Why == ""
	}
	c.tell(damage)
}

// makeImage makes a layer's image anew from its tar, on the disk when it returns.
func (c *check) makeImage(ctx context.Context, path string, uuid [16]byte, parts layerParts) (err error) {
	below, err := c.below(ctx, parts.diffs)
	if err != nil {
		return err
	}
	from, err := stored{c.s.store.blobs}.open(ctx, parts.blob)
	if err != nil {
		return err
	}
	defer from.Close()
	i, err := snapshot.NewImage(path, snapshot.ImageOptions{Base: len(parts.diffs) == 1, UUID: uuid})
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

// imageDiffers says how a layer's image differs from what it is to be, "" if it does not. An error is one of what it is to be.
func imageDiffers(ctx context.Context, file, want string) (string, error) {
	b, err := os.Open(want)
	if err != nil {
		return "", err
	}
	defer b.Close()
	a, err := os.Open(file)
	if os.IsNotExist(err) {
		return "has lost its image", nil
	}
	if err != nil {
		return "cannot be read: " + err.Error(), nil
	}
	defer a.Close()
	differs, err := bytesDiffer(ctx, file, b)
	if differs == "" || err != nil {
		return "", err
	}
	if another, err := snapshot.SameFiles(ctx, a, b); err == nil && another {
		return "", nil
	}
	return differs, nil
}

// bytesDiffer reads the layer's image from the disk.
func bytesDiffer(ctx context.Context, file string, b *os.File) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "cannot be read: " + err.Error(), nil
	}
	defer f.Close()
	a, err := archive.FromDisk(f)
	if err != nil {
		return "", err
	}
	defer a.Close()
	one, other := make([]byte, 128<<10), make([]byte, 128<<10)
	for at := 0; ctx.Err() == nil; {
		n, err := io.ReadFull(a, one)
		m, err2 := io.ReadFull(b, other)
		switch {
		case failed(err2):
			return "", err2
		case failed(err):
			return "cannot be read: " + err.Error(), nil
		case !bytes.Equal(one[:n], other[:m]):
			return fmt.Sprintf("has an image that is not what its tar makes, from byte %d on", at), nil
		case err != nil:
			return "", nil
		}
		at += n
	}
	return "", context.Cause(ctx)
}

// failed: an end is none.
func failed(err error) bool { return err != nil && err != io.EOF && err != io.ErrUnexpectedEOF }
