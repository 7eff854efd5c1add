package erofs

import (
	"context"
	"fmt"
	"io"
	"slices"
)

// Compare tells of the first file in which an image is not as another: names, types, modes, owners, times, attributes, links and content count,
// not where the images have them. "" is none; an error is that of reading either.
func Compare(ctx context.Context, want, have *Reader) (difference string, err error) {
	c := comparison{want: want, have: have, links: map[uint64]uint64{}, a: make([]byte, 128<<10), b: make([]byte, 128<<10)}
	w, err := want.Root()
	if err != nil {
		return "", err
	}
	h, err := have.Root()
	if err != nil {
		return "", err
	}
	if what := attributes(w, h); what != "" {
		return "/: " + what, nil
	}
	return c.directory(ctx, "", w, h)
}

// CompareFiles is Compare for an image of a directory that files were written to: dates differ from those of the tar that was made of it,
// and there may be empty directories that are as they are below, which no tar speaks of.
func CompareFiles(ctx context.Context, want, have *Reader) (difference string, err error) {
	c := comparison{want: want, have: have, loose: true, links: map[uint64]uint64{}, a: make([]byte, 128<<10), b: make([]byte, 128<<10)}
	w, err := want.Root()
	if err != nil {
		return "", err
	}
	h, err := have.Root()
	if err != nil {
		return "", err
	}
	return c.directory(ctx, "", w, h)
}

type comparison struct {
	want, have *Reader
	loose      bool
	opaque     bool              // of the directory that is compared next
	links      map[uint64]uint64 // inodes of want that have several names, with have's
	a, b       []byte
}

type listed struct {
	name   string
	number uint64
}

func (s *Reader) listed(dir *Node) (list []listed, err error) {
	err = s.List(dir, func(name string, number uint64) error {
		list = append(list, listed{name, number})
		return nil
	})
	return list, err
}

func (c *comparison) directory(ctx context.Context, at string, w, h *Node) (string, error) {
	if len(at) > maxPath {
		return "", fmt.Errorf("a path of %d bytes: %w", len(at), ErrDamaged)
	}
	want, err := c.want.listed(w)
	if err != nil {
		return "", err
	}
	have, err := c.have.listed(h)
	if err != nil {
		return "", err
	}
	if c.loose {
		if c.opaque { // what hides all that is below need not hide each of it
			want, have, c.opaque = named(c.want, want), named(c.have, have), false
		}
		if have, err = c.told(want, have); err != nil {
			return "", err
		}
	}
	if !slices.EqualFunc(want, have, func(a, b listed) bool { return a.name == b.name }) {
		return fmt.Sprintf("%s/: other names", at), nil
	}
	for i := range want {
		if err := context.Cause(ctx); err != nil {
			return "", err
		}
		if what, err := c.entry(ctx, at+"/"+want[i].name, want[i].number, have[i].number); what != "" || err != nil {
			return what, err
		}
	}
	return "", nil
}

const opaque = "trusted.overlay.opaque"

func isOpaque(n *Node) bool {
	return slices.ContainsFunc(n.Xattrs, func(x Xattr) bool { return x.Name == opaque })
}

// named leaves whiteouts out of a directory's list.
func named(r *Reader, list []listed) []listed {
	return slices.DeleteFunc(slices.Clone(list), func(l listed) bool {
		n, err := r.Node(l.number)
		return err == nil && isWhiteout(n)
	})
}

func isWhiteout(n *Node) bool { return n.Mode&0o170000 == 0o020000 && n.Rdev == 0 }

// withoutOpaque leaves out what overlay writes on each new directory, whether there is anything below to be hidden or not.
func withoutOpaque(list []Xattr) []Xattr {
	return slices.DeleteFunc(slices.Clone(list), func(x Xattr) bool { return x.Name == opaque })
}

// told leaves out empty directories that the other image lacks.
func (c *comparison) told(want, have []listed) ([]listed, error) {
	names := make(map[string]bool, len(want))
	for _, w := range want {
		names[w.name] = true
	}
	var out []listed
	for _, h := range have {
		if !names[h.name] {
			n, err := c.have.Node(h.number)
			if err != nil {
				return nil, err
			}
			if empty, err := c.isEmpty(n); empty || err != nil {
				if err != nil {
					return nil, err
				}
				continue
			}
		}
		out = append(out, h)
	}
	return out, nil
}

func (c *comparison) isEmpty(n *Node) (bool, error) {
	if !n.IsDir() {
		return false, nil
	}
	list, err := c.have.listed(n)
	return len(list) == 0, err
}

func (c *comparison) entry(ctx context.Context, at string, want, have uint64) (string, error) {
	w, err := c.want.Node(want)
	if err != nil {
		return "", err
	}
	h, err := c.have.Node(have)
	if err != nil {
		return "", err
	}
	if c.loose {
		c.opaque = isOpaque(w) || isOpaque(h)
		h.Sec, h.Nsec = w.Sec, w.Nsec
		w.Xattrs, h.Xattrs = withoutOpaque(w.Xattrs), withoutOpaque(h.Xattrs)
		if w.IsDir() || isWhiteout(w) { // a link more for each empty directory; whiteouts share an inode
			h.Links = w.Links
		}
	}
	if what := attributes(w, h); what != "" {
		return at + ": " + what, nil
	}
	if w.IsDir() {
		return c.directory(ctx, at, w, h)
	}
	if w.Links > 1 {
		known, again := c.links[want]
		if again && known != have {
			return at + ": a link to another file", nil
		}
		if again {
			return "", nil
		}
		c.links[want] = have
	}
	same, err := c.content(w, h)
	if err == nil && !same {
		return at + ": other content", nil
	}
	return "", err
}

func attributes(w, h *Node) string {
	switch {
	case w.Mode != h.Mode:
		return fmt.Sprintf("of mode %#o, not %#o", h.Mode, w.Mode)
	case w.UID != h.UID || w.GID != h.GID:
		return fmt.Sprintf("of %d:%d, not %d:%d", h.UID, h.GID, w.UID, w.GID)
	case w.Sec != h.Sec || w.Nsec != h.Nsec:
		return fmt.Sprintf("of time %d.%09d, not %d.%09d", h.Sec, h.Nsec, w.Sec, w.Nsec)
	case w.Rdev != h.Rdev || w.Links != h.Links:
		return "another device, or with other links"
	case !w.IsDir() && w.Size != h.Size: // a directory's is that of how it is written
		return fmt.Sprintf("of %d bytes, not %d", h.Size, w.Size)
	case !slices.EqualFunc(w.Xattrs, h.Xattrs, func(a, b Xattr) bool { return a.Name == b.Name && string(a.Value) == string(b.Value) }):
		return "with other attributes"
	}
	return ""
}

func (c *comparison) content(w, h *Node) (bool, error) {
	for at := int64(0); at < int64(w.Size); {
		n, err := c.want.ReadAt(w, c.a, at)
		if err != nil && err != io.EOF {
			return false, err
		}
		m, err := c.have.ReadAt(h, c.b, at)
		if err != nil && err != io.EOF {
			return false, err
		}
		if n == 0 || string(c.a[:n]) != string(c.b[:m]) {
			return false, nil
		}
		at += int64(n)
	}
	return true, nil
}
