package snapshot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/erofs"
	"wherry.dev/wherry/internal/rootfs"
)

// choose says what new layers become.
func (m *Mounts) choose(f Format) (Format, error) {
	switch f {
	case "", Overlay:
		return Overlay, nil
	case Auto, EROFS:
	default:
		return "", fmt.Errorf("layers cannot be %q: say %s, %s or %s", f, Auto, EROFS, Overlay)
	}
	err := errors.New("there is no directory to mount them in")
	if m.base != "" {
		err = m.able()
	}
	switch {
	case err == nil:
		return EROFS, nil
	case f == Auto:
		return Overlay, nil
	}
	return "", fmt.Errorf("layers cannot be EROFS images here: %w: Linux 6.12 or later can mount them from files; with %s or %s they become directories", err, Auto, Overlay)
}

// probe does once, with an empty image, what layers will need: it is mounted from a file of the store, and an overlay is put on it.
func (m *Mounts) probe(root string) (err error) {
	dir, err := os.MkdirTemp(root, "probe-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rootfs.RemoveTree(dir)) }()
	file := filepath.Join(dir, layerFile)
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	w := erofs.NewWriter(f, erofs.Options{})
	_, err = w.Finish()
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := m.apart(); err != nil {
		return err
	}
	at, err := os.MkdirTemp(m.base, "probe-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unmount(at), os.Remove(at)) }()
	if err := mountImage(file, at); err != nil {
		return fmt.Errorf("mount an EROFS image from a file: %w", err)
	}
	over := rootfs.Rootfs{Lower: []string{at}, Upper: filepath.Join(dir, "upper"), Work: filepath.Join(dir, "work")}
	if err := errors.Join(unix.Mkdir(over.Upper, 0o700), unix.Mkdir(over.Work, 0o700)); err != nil {
		return err
	}
	mounted, err := over.Mount(nil)
	if err != nil {
		return fmt.Errorf("an overlay on an EROFS image: %w", err)
	}
	return mounted.Close()
}
