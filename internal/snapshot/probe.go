package snapshot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/erofs"
	"wherry.dev/wherry/internal/room"
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
	case err == nil, f == EROFS && room.Lacks(err):
		return EROFS, nil
	case f == Auto:
		return Overlay, nil
	}
	return "", fmt.Errorf("layers cannot be EROFS images here: %w: Linux 6.12 or later can mount them from files; with %s or %s they become directories", err, Auto, Overlay)
}

// dropProbes removes what is left of a probe that an earlier life was killed in.
func (m *Mounts) dropProbes(root string) error {
	var err error
	for _, base := range []string{m.base, root} {
		if base == "" {
			continue
		}
		list, listErr := names(base)
		err = errors.Join(err, listErr)
		for _, name := range list {
			if dir := filepath.Join(base, name); strings.HasPrefix(name, probePrefix) {
				err = errors.Join(err, unmount(dir), rootfs.RemoveTree(dir))
			}
		}
	}
	if err != nil {
		return fmt.Errorf("remove what is left of a probe: %w", err)
	}
	return nil
}

// probePrefix begins the names of directories that only a probe uses.
const probePrefix = "probe-"

// probe does once, with an empty image, what layers will need: it is mounted from a file of the store, and an overlay is put on it.
func (m *Mounts) probe(root string) (err error) {
	dir, err := os.MkdirTemp(root, probePrefix)
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
	at, err := os.MkdirTemp(m.base, probePrefix)
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
