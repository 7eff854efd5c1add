package buildclient

import (
	"context"
	"errors"
	"fmt"
	"os"

	"wherry.dev/wherry/internal/archive"
)

// inside are ids as they are where this program runs.
type inside struct{}

func (inside) Host(id int) int   { return id }
func (inside) Inside(id int) int { return id }

// pack writes a directory into a tar file; it runs in a step of the engine's.
func pack(ctx context.Context, dir, file string) error {
	root, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	w := archive.NewWriter(f, inside{})
	if err := w.Tree(ctx, root, "", archive.WalkOptions{}); err != nil {
		f.Close()
		return fmt.Errorf("pack %s: %w", dir, err)
	}
	return errors.Join(w.Close(), f.Close())
}

// unpack reads a tar file, plain or compressed, into a directory; it runs in a step of the engine's.
func unpack(ctx context.Context, file, dir string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	r, err := archive.Decompress(f)
	if err != nil {
		return fmt.Errorf("decompress %s: %w", file, err)
	}
	defer r.Close()
	root, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := archive.Read(ctx, r, root, "/", archive.ReadOptions{IDs: inside{}}); err != nil {
		return fmt.Errorf("unpack into %s: %w", dir, err)
	}
	return nil
}
