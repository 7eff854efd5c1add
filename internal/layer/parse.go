package layer

import (
	"archive/tar"
	"errors"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxPath   = unix.PathMax - 1
	maxName   = unix.NAME_MAX
	maxXattr  = 64 << 10 // as the kernel has it
	maxXattrs = 512 << 10
	maxMajor  = 1<<12 - 1
	maxMinor  = 1<<20 - 1
	minTime   = math.MinInt32
	maxTime   = 1<<34 + math.MinInt32 - 1

	prefix = ".wh."
	meta   = ".wh..wh." // aufs' own; one of them, opaque, has a meaning to others
	opaque = ".wh..wh..opq"

	pax = "SCHILY.xattr."

	capabilities = "security.capability"
)

// parse takes a tar apart.
func parse(r io.Reader, sink Sink) error {
	in := &counted{r: r}
	t := tar.NewReader(in)
	holes := &holes{in: in}
	for {
		h, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return notTar(err)
		}
		e, err := entry(h)
		if err == nil && e != nil && e.Sparse {
			err = holes.add(h)
		}
		if err != nil {
			return invalid("entry %.300q: %w", h.Name, err)
		}
		if e == nil {
			continue
		}
		var body io.Reader
		if e.Kind == File {
			body = &whole{r: t, left: e.Size}
		}
		if err := sink.Add(e, body); err != nil {
			return err
		}
	}
}

func notTar(err error) error {
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, tar.ErrFieldTooLong) || errors.Is(err, io.ErrUnexpectedEOF) {
		return invalid("this is no tar, or not all of one: %w", err)
	}
	return err
}

// whole is a file's body, which does not end before its size is reached.
type whole struct {
	r    io.Reader
	left int64
}

func (w *whole) Read(p []byte) (int, error) {
	if w.left == 0 {
		return 0, io.EOF
	}
	n, err := w.r.Read(p[:min(int64(len(p)), w.left)])
	w.left -= int64(n)
	if err == io.EOF {
		err = nil
		if w.left > 0 {
			err = io.ErrUnexpectedEOF
		}
	}
	return n, err
}

var errKind = errors.New("layers have no files of this type")

// entry makes a checked entry of a tar's header; nil when it is none of a file.
func entry(h *tar.Header) (*Entry, error) {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil, nil
	}
	path, err := clean(h.Name)
	if err != nil {
		return nil, err
	}
	e := &Entry{Path: path, Mode: uint32(h.Mode) & 0o7777, ModTime: kept(h.ModTime)}
	if e.UID, err = id(h.Uid); err != nil {
		return nil, err
	}
	if e.GID, err = id(h.Gid); err != nil {
		return nil, err
	}
	switch dir, name := split(path); {
	case dir == Links && h.Typeflag == tar.TypeReg: // its links are among the layer's files
	case strings.HasPrefix(dir, meta) || strings.Contains(dir, "/"+meta):
		return nil, nil
	case strings.HasPrefix(dir, prefix) || strings.Contains(dir, "/"+prefix):
		return nil, errors.New("it is in a directory that is named as a whiteout")
	case strings.HasPrefix(name, prefix):
		return e.whiteout(h, dir, name)
	}
	if err := e.setKind(h); err != nil {
		return nil, err
	}
	if path == "" && e.Kind != Directory {
		return nil, errors.New("the root can only be a directory")
	}
	return e, e.setXattrs(h)
}

// whiteout: regular files, and links that aufs makes of them.
func (e *Entry) whiteout(h *tar.Header, dir, name string) (*Entry, error) {
	if h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeLink {
		if strings.HasPrefix(name, meta) && name != opaque {
			return nil, nil
		}
		return nil, errors.New("it is named as a whiteout, and is no regular file")
	}
	switch hidden := name[len(prefix):]; {
	case name == opaque:
		e.Kind, e.Path = Opaque, dir
	case strings.HasPrefix(name, meta):
		return nil, nil
	case hidden == "" || hidden == "." || hidden == "..":
		return nil, errors.New("this whiteout names no file")
	default:
		e.Kind, e.Path = Whiteout, join(dir, hidden)
	}
	e.Mode = 0
	return e, nil
}

func (e *Entry) setKind(h *tar.Header) error {
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		e.Kind, e.Size = File, h.Size
		e.Sparse = h.Typeflag == tar.TypeGNUSparse
		for key := range h.PAXRecords {
			e.Sparse = e.Sparse || strings.HasPrefix(key, "GNU.sparse.")
		}
	case tar.TypeDir:
		e.Kind = Directory
	case tar.TypeSymlink:
		e.Kind, e.Target, e.Mode = Symlink, h.Linkname, 0o777
		if n := len(e.Target); n == 0 || n > maxPath || strings.IndexByte(e.Target, 0) >= 0 {
			return errors.New("a symbolic link's text has 1 to 4095 bytes")
		}
	case tar.TypeLink:
		e.Kind = Hardlink
		var err error
		if e.Target, err = clean(h.Linkname); err != nil || e.Target == "" {
			return errors.New("this is a hard link to no file")
		}
	case tar.TypeChar, tar.TypeBlock:
		return e.setDevice(h)
	case tar.TypeFifo:
		e.Kind = Fifo
	default:
		return errKind
	}
	return nil
}

func (e *Entry) setDevice(h *tar.Header) error {
	if h.Devmajor < 0 || h.Devmajor > maxMajor || h.Devminor < 0 || h.Devminor > maxMinor {
		return errors.New("there are no devices of this number")
	}
	e.Major, e.Minor, e.Kind = uint32(h.Devmajor), uint32(h.Devminor), BlockDevice
	if h.Typeflag == tar.TypeChar {
		e.Kind = CharDevice
		if e.Major == 0 && e.Minor == 0 {
			e.Kind = Whiteout // a layer that was packed from an overlay's directory
		}
	}
	return nil
}

func (e *Entry) setXattrs(h *tar.Header) error {
	total := 0
	for key, value := range h.PAXRecords {
		name, ok := strings.CutPrefix(key, pax)
		if !ok || strings.HasPrefix(name, "trusted.") || strings.HasPrefix(name, "user.overlay.") || name == "system.nfs4_acl" {
			continue
		}
		total += len(name) + len(value)
		if space, rest, _ := strings.Cut(name, "."); space != "" && rest == "" {
			return errors.New("it has an extended attribute without a name")
		}
		if name == "" || len(name) > maxName || strings.IndexByte(name, 0) >= 0 || len(value) > maxXattr || total > maxXattrs {
			return errors.New("its extended attributes are larger than the kernel keeps any")
		}
		switch keep, err := e.takes(name, []byte(value)); {
		case err != nil:
			return err
		case !keep:
			continue
		}
		e.Xattrs = append(e.Xattrs, Xattr{name, []byte(value)})
	}
	slices.SortFunc(e.Xattrs, func(a, b Xattr) int { return strings.Compare(a.Name, b.Name) })
	return nil
}

// takes looks at attributes of which the kernel knows what they have to be.
func (e *Entry) takes(name string, value []byte) (keep bool, err error) {
	switch name {
	case accessACL, defaultACL:
		return e.takesACL(name, value)
	case capabilities:
		return true, checkCapabilities(value)
	}
	return true, nil
}

// kept is a time as ext4 keeps it, so that a layer's files are the same on every file system: between 1901 and 2446.
func kept(t time.Time) time.Time {
	if s := t.Unix(); s < minTime {
		return time.Unix(minTime, 0)
	} else if s > maxTime {
		return time.Unix(maxTime, 0)
	}
	return t
}

func id(n int) (uint32, error) {
	if n < 0 || n >= math.MaxUint32 {
		return 0, errors.New("there are no users or groups of this number")
	}
	return uint32(n), nil
}

// clean makes a path relative and clean. One that leads out of the root is refused.
func clean(name string) (string, error) {
	if strings.IndexByte(name, 0) >= 0 {
		return "", errors.New("a name has no zero bytes")
	}
	if short := strings.TrimPrefix(strings.TrimSuffix(name, "/"), "./"); isClean(short) {
		return short, nil
	}
	var parts []string
	for part := range strings.SplitSeq(name, "/") {
		switch {
		case part == "" || part == ".":
		case part == "..":
			if len(parts) == 0 {
				return "", errors.New("it leads out of the root")
			}
			parts = parts[:len(parts)-1]
		case len(part) > maxName:
			return "", errors.New("a name has at most 255 bytes")
		default:
			parts = append(parts, part)
		}
	}
	name = strings.Join(parts, "/")
	if len(name) > maxPath {
		return "", errors.New("a path has at most 4095 bytes")
	}
	return name, nil
}

// isClean says so of most paths without making anything.
func isClean(name string) bool {
	if len(name) == 0 || len(name) > maxPath {
		return false
	}
	for len(name) > 0 {
		part, rest, more := strings.Cut(name, "/")
		if part == "" || part == "." || part == ".." || len(part) > maxName || more && rest == "" {
			return false
		}
		name = rest
	}
	return true
}

func split(path string) (dir, name string) {
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		return path[:i], path[i+1:]
	}
	return "", path
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// holes holds the sparse files of a tar, which a few bytes make as large as one likes, against how much of the tar was read: not every sink
// can keep holes.
type holes struct {
	in *counted
	n  int64
}

func (o *holes) add(h *tar.Header) error {
	most := freeBytes + maxRatio*o.in.n
	if h.Size > most || o.n > most-h.Size {
		return invalid("files with holes are to become more than %d MiB: refused as a decompression bomb", most>>20)
	}
	o.n += h.Size
	return nil
}
