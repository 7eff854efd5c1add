package snapshot

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/erofs"
	"wherry.dev/wherry/internal/layer"
)

// Settle ends the image, when the layers below have their places, topmost first: what the layer does not say of its directories comes
// from them. When it returns, all is on the disk.
func (i *Image) Settle(below []string) error {
	b, err := layer.OpenBelow(below)
	if err != nil {
		return err
	}
	defer b.Close()
	if i.opaque[0] {
		if err := i.hideRoot(b); err != nil {
			return err
		}
	}
	if i.whiteouts {
		if err := i.dropIdle(b); err != nil {
			return err
		}
	}
	for dir, path := range i.implicit {
		if err := i.inherit(b, dir, path); err != nil {
			return fmt.Errorf("take over what the layers below say of %.300q: %w", "/"+path, err)
		}
	}
	if err := i.mark(); err != nil {
		return err
	}
	if err := i.out.Finish(i.w); err != nil {
		return err
	}
	dir := filepath.Dir(i.f.Name())
	return errors.Join(syncDir(dir), syncDir(filepath.Dir(dir)))
}

// hideRoot does by hand what overlay does not: it takes no notice of a layer's root being opaque.
func (i *Image) hideRoot(b *layer.Below) error {
	names, err := b.Names()
	if err != nil {
		return err
	}
	for _, name := range names {
		ino, ok := i.w.Lookup(0, name)
		switch {
		case !ok:
			_, err = i.w.Add(0, name, &erofs.Attr{Mode: unix.S_IFCHR})
		case i.isDir(ino):
			err = i.hide(ino)
		}
		if err != nil {
			return fmt.Errorf("hide %.300q: %w", "/"+name, err)
		}
	}
	return nil
}

// dropIdle takes away whiteouts where the layers below have nothing, or all of it is hidden: overlay lists them where it has nothing to merge.
func (i *Image) dropIdle(b *layer.Below) error {
	idle := map[erofs.Ino]bool{0: false} // all layers have a root
	var failed error
	i.w.RemoveIf(func(dir, ino erofs.Ino) bool {
		if failed != nil || !i.isWhiteout(ino) {
			return false
		}
		is, known := idle[dir]
		if !known {
			is, failed = i.isIdle(b, dir)
			idle[dir] = is
		}
		return is
	})
	return failed
}

func (i *Image) isIdle(b *layer.Below, dir erofs.Ino) (bool, error) {
	if i.isHiddenBelowRoot(dir) {
		return true, nil
	}
	path := i.pathOf(dir)
	from, err := b.Find(path)
	if from != nil {
		return false, from.Close()
	}
	if err != nil {
		return false, fmt.Errorf("look for what is taken away from %.300q: %w", "/"+path, err)
	}
	return true, nil
}

// isHiddenBelowRoot says whether overlay shows nothing of the layers below in a directory. In the root it always does.
func (i *Image) isHiddenBelowRoot(dir erofs.Ino) bool {
	for ; dir != 0; dir = i.w.Parent(dir) {
		if i.opaque[dir] {
			return true
		}
	}
	return false
}

func (i *Image) inherit(b *layer.Below, dir erofs.Ino, path string) error {
	if dir != 0 && i.isHidden(i.w.Parent(dir)) {
		return nil
	}
	from, err := b.Find(path)
	if err != nil || from == nil {
		return err
	}
	defer from.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(from.Fd()), &st); err != nil {
		return err
	}
	a, err := attrOf(from, ".", &st)
	if err != nil {
		return err
	}
	a.Xattrs = slices.DeleteFunc(a.Xattrs, func(x erofs.Xattr) bool { return strings.HasPrefix(x.Name, "trusted.") })
	return i.w.SetAttr(dir, a)
}

// mark writes down which directories hide what is below.
func (i *Image) mark() error {
	for dir := range i.opaque {
		a, err := i.w.Attr(dir)
		if err == nil {
			a.Xattrs = append(a.Xattrs, erofs.Xattr{Name: "trusted.overlay.opaque", Value: []byte("y")})
			err = i.w.SetAttr(dir, &a)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Sync has nothing left to do.
func (i *Image) Sync() error { return nil }
