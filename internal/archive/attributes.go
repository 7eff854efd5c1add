package archive

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	paxAttribute = "SCHILY.xattr."
	capability   = "security.capability"
	maxAttribute = 64 << 10 // the kernel's own bound (XATTR_SIZE_MAX)
)

// carried says which extended attributes go into archives and out of them: capabilities of programs, and what users noted. Others belong
// to the host (trusted.*, security.selinux) or hold ids that only the kernel translates (system.posix_acl_*).
func carried(name string) bool {
	return name == capability || strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "user.overlay.")
}

// readAttributes returns the attributes that are carried, as records of a tar.
func readAttributes(f *os.File, ids IDs) (map[string]string, error) {
	at := byDescriptor(f)
	list := make([]byte, maxAttribute)
	n, err := unix.Listxattr(at, list)
	if err == unix.EIO && onFUSE(f) { // what rclone says in place of that it has none
		return nil, nil
	}
	if err != nil || n == 0 {
		return nil, unlessUnsupported(err)
	}
	var out map[string]string
	for name := range strings.SplitSeq(strings.TrimRight(string(list[:n]), "\x00"), "\x00") {
		if !carried(name) {
			continue
		}
		value := make([]byte, maxAttribute)
		n, err := unix.Getxattr(at, name, value)
		if err != nil {
			if err := unlessUnsupported(err); err != nil {
				return nil, fmt.Errorf("read attribute %s: %w", name, err)
			}
			continue
		}
		value = value[:n]
		if name == capability {
			value = insideCapability(value, ids)
		}
		if out == nil {
			out = map[string]string{}
		}
		out[paxAttribute+name] = string(value)
	}
	return out, nil
}

// onFUSE says that a program serves the file's file system.
func onFUSE(f *os.File) bool {
	var st unix.Statfs_t
	return unix.Fstatfs(int(f.Fd()), &st) == nil && st.Type == unix.FUSE_SUPER_MAGIC
}

func unlessUnsupported(err error) error {
	if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.ENODATA) {
		return nil
	}
	return err
}

// The attribute security.capability (linux/capability.h): a word with the version and a flag, two pairs of words, and since version 3
// the id of the root user to whose user namespace it belongs.
const (
	version2, version3 = 0x02000000, 0x03000000
	size2, size3       = 20, 24
)

// insideCapability makes an attribute that belongs to the container's root user one without an owner, as images have it.
func insideCapability(v []byte, ids IDs) []byte {
	if len(v) != size3 || binary.LittleEndian.Uint32(v)&0xff000000 != version3 {
		return v
	}
	v = bytes.Clone(v)
	root := ids.Inside(int(binary.LittleEndian.Uint32(v[size2:])))
	if root != 0 {
		binary.LittleEndian.PutUint32(v[size2:], uint32(root))
		return v
	}
	binary.LittleEndian.PutUint32(v, version2|binary.LittleEndian.Uint32(v)&0xff)
	return v[:size2]
}

// hostCapability gives an attribute to the container's root user; one of the host's root user has no meaning in a user namespace.
func hostCapability(v []byte, ids IDs) []byte {
	if ids.Host(0) == 0 || len(v) < size2 {
		return v
	}
	root := 0
	switch version := binary.LittleEndian.Uint32(v) & 0xff000000; {
	case version == version3 && len(v) == size3:
		root = int(binary.LittleEndian.Uint32(v[size2:]))
	case version != version2 || len(v) != size2:
		return v
	}
	out := make([]byte, size3)
	copy(out, v[:size2])
	binary.LittleEndian.PutUint32(out, version3|binary.LittleEndian.Uint32(v)&0xff)
	binary.LittleEndian.PutUint32(out[size2:], uint32(ids.Host(root)))
	return out
}

// writeAttributes sets the attributes that a tar's records carry. A file system that has none is no error: cp(1) sees it so too.
func writeAttributes(f *os.File, records map[string]string, ids IDs) error {
	for key, value := range records {
		name, ok := strings.CutPrefix(key, paxAttribute)
		if !ok || !carried(name) {
			continue
		}
		v := []byte(value)
		if name == capability {
			v = hostCapability(v, ids)
		}
		if err := unlessUnsupported(unix.Fsetxattr(int(f.Fd()), name, v, 0)); err != nil {
			return fmt.Errorf("set attribute %s: %w", name, err)
		}
	}
	return nil
}
