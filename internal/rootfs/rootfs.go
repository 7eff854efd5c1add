// Package rootfs mounts a container's root file system: an overlay of read-only layers and a writable directory, detached, by descriptor.
//
// Nothing here attaches a mount anywhere: the descriptors go to the process that makes a container's mount namespace, or are read
// through directly. All functions are safe for many goroutines.
package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/room"
	"wherry.dev/wherry/internal/sysprog"
)

// IDMap is the range of host ids that a container's user namespace has: ids 0..Size-1 inside are Base..Base+Size-1 on the host.
// The zero value means the host's own user namespace (no mapping).
type IDMap struct {
	Base uint32 `json:"base,omitempty"`
	Size uint32 `json:"size,omitempty"`
}

// Host turns an id inside into the host's. Ids outside the range become the range's last (the overflow id is not on disk).
func (m IDMap) Host(id int) int {
	if m.Size == 0 {
		return id
	}
	return int(m.Base + min(uint32(id), m.Size-1))
}

// Inside turns a host's id into the one inside, 65534 for ids outside the range.
func (m IDMap) Inside(id int) int {
	switch {
	case m.Size == 0:
		return id
	case uint32(id) >= m.Base && uint32(id)-m.Base < m.Size:
		return int(uint32(id) - m.Base)
	}
	return 65534
}

// UserNamespace makes a user namespace with this map; nil without one.
func (m IDMap) UserNamespace() (*os.File, error) {
	if m.Size == 0 {
		return nil, nil
	}
	maps := []sysprog.Mapping{{Inside: 0, Outside: m.Base, Count: m.Size}}
	return sysprog.UserNamespace(maps, maps)
}

// AttachedAt is where a Rootfs lies in the container's mount namespace until the pivot: hooks of the creation find it there.
const AttachedAt = "/tmp"

// mostLayers is how many layers the kernel stacks (OVL_MAX_STACK, fs/overlayfs/params.h).
const mostLayers = 500

// Rootfs names the directories of an overlay. It is plain data: it goes over the wire to the shim.
type Rootfs struct {
	Lower    []string `json:"lower"`              // absolute paths, topmost layer first
	Base     string   `json:"base,omitempty"`     // one more layer, below them all: what every root has that has nothing else in its place
	Upper    string   `json:"upper,omitempty"`    // empty: a read-only view of the layers
	Work     string   `json:"work,omitempty"`     // on the same file system as Upper
	IDMap    IDMap    `json:"idMap,omitzero"`     // layers are id-mapped into this range; Upper's files carry host ids of the range
	Layer    bool     `json:"layer,omitempty"`    // Upper becomes a layer itself: its files carry the ids that are seen inside. Upper and Work lie beside each other
	Volatile bool     `json:"volatile,omitempty"` // overlay's "volatile": no syncs, for disposable data
	ReadOnly bool     `json:"readOnly,omitempty"`
}

// Mount makes the overlay as a detached mount (fsopen, fsmount; fsopen(2)) and returns its descriptor. userns is a user namespace with
// the IDMap; where it is nil and one is needed, Mount makes one.
func (r *Rootfs) Mount(userns *os.File) (*os.File, error) {
	root, parts, err := r.MountParts(userns)
	closeAll(parts)
	return root, err
}

// Unwritable says why a root file system is read-only that is not to be: the kernel mounts it so where it cannot make the working directory of
// the overlay.
func (r *Rootfs) Unwritable() error {
	var fs unix.Statfs_t
	if err := unix.Statfs(r.Upper, &fs); err != nil {
		return &os.PathError{Op: "statfs", Path: r.Upper, Err: err}
	}
	switch {
	case fs.Bavail == 0 || fs.Ffree == 0:
		return fmt.Errorf("%w: the disk of %s is full: "+room.Advice, unix.ENOSPC, r.Upper)
	case fs.Flags&unix.ST_RDONLY != 0:
		return fmt.Errorf("%w: the disk of %s, which the kernel makes so when it finds it damaged (dmesg)", unix.EROFS, r.Upper)
	}
	return fmt.Errorf("%w: the kernel could not write to %s (dmesg says why)", unix.EROFS, r.Work)
}

// MountParts is Mount that leaves the clones of the layers' mounts open, which nothing needs any more. The kernel lets who closes one of them for good
// wait for an expedited RCU grace period (fs/namespace.c, namespace_unlock): 0.05 ms on an idle machine, some milliseconds on a busy one.
func (r *Rootfs) MountParts(userns *os.File) (root *os.File, parts []*os.File, err error) {
	if r.IDMap.Size > 0 && userns == nil {
		made, err := r.IDMap.UserNamespace()
		if err != nil {
			return nil, nil, err
		}
		defer made.Close()
		userns = made
	}
	defer func() {
		if err != nil {
			closeAll(parts)
			parts = nil
		}
	}()
	lower := r.Lower
	if r.Base != "" && len(lower) < mostLayers {
		lower = append(slices.Clip(lower), r.Base)
	}
	for _, path := range lower {
		f, err := Bind(path, BindOptions{UserNS: userns, Set: unix.MOUNT_ATTR_RDONLY})
		if err != nil {
			return nil, parts, fmt.Errorf("layer: %w", err)
		}
		parts = append(parts, f)
	}
	if r.Upper == "" && len(parts) == 1 { // overlay wants two
		return parts[0], nil, nil
	}
	places := make([]place, 0, len(parts)+1)
	for i, f := range parts {
		places = append(places, place{f, lower[i]})
	}
	if !r.Layer || r.Upper == "" || userns == nil {
		root, err = r.overlay(parts, places)
		return root, parts, err
	}
	view := *r
	dir, done, err := view.mapUpper(userns)
	if err != nil {
		return nil, parts, err
	}
	defer done()
	root, err = view.overlay(parts, append(places, place{dir, filepath.Dir(r.Upper)}))
	return root, parts, err
}

func closeAll(list []*os.File) {
	for _, f := range list {
		f.Close()
	}
}

// place is a detached mount and the directory that it is of.
type place struct {
	*os.File
	of string
}

// mapUpper names Upper and Work through a clone of the mount that they lie on, with mapped ids.
func (r *Rootfs) mapUpper(userns *os.File) (dir *os.File, done func(), err error) {
	dir, err = Bind(filepath.Dir(r.Upper), BindOptions{UserNS: userns})
	if err != nil {
		return nil, nil, fmt.Errorf("writable layer: %w", err)
	}
	open := []*os.File{dir}
	done = func() {
		for _, f := range open {
			f.Close()
		}
	}
	for _, path := range []*string{&r.Upper, &r.Work} {
		fd, err := unix.Openat(int(dir.Fd()), filepath.Base(*path), unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			done()
			return nil, nil, &os.PathError{Op: "open", Path: *path, Err: err}
		}
		open = append(open, os.NewFile(uintptr(fd), *path))
		*path = fmt.Sprintf("/proc/self/fd/%d", fd)
	}
	return dir, done, nil
}

func unix2File(fd int, err error) (*os.File, error) {
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "rootfs"), nil
}

// overlay gives the layers to the kernel as they are; kernels before 6.15 take only layers that are attached somewhere. They say so with
// EOPNOTSUPP (before 6.5), EBADF (of a descriptor of a path, before 6.15) or EINVAL.
func (r *Rootfs) overlay(lower []*os.File, parts []place) (*os.File, error) {
	f, err := r.configure(lower)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EBADF) {
		return r.overlayAttached(lower, parts)
	}
	return f, err
}

func (r *Rootfs) configure(lower []*os.File) (*os.File, error) {
	fs, err := openOverlay()
	if err != nil {
		return nil, fmt.Errorf("open overlay: %w", err)
	}
	defer unix.Close(fs)
	if err := lowerByDescriptor(fs, lower); err != nil {
		return nil, context(fs, "set the layers of the overlay", err)
	}
	options := [][2]string{{"source", "overlay"}}
	if r.Upper != "" {
		// Whole files and directories in the writable layer, whatever the host's default is: commit and diff read it by itself.
		options = append(options, [2]string{"upperdir", r.Upper}, [2]string{"workdir", r.Work}, [2]string{"redirect_dir", "off"}, [2]string{"metacopy", "off"})
	}
	for _, o := range options {
		if err := unix.FsconfigSetString(fs, o[0], o[1]); err != nil {
			return nil, context(fs, "set "+o[0]+" of the overlay to "+o[1], err)
		}
	}
	if r.Volatile && r.Upper != "" {
		if err := unix.FsconfigSetFlag(fs, "volatile"); err != nil {
			return nil, context(fs, "make the overlay volatile", err)
		}
	}
	if err := r.owner().AsRoot(func() error { return unix.FsconfigCreate(fs) }); err != nil {
		return nil, context(fs, "mount overlay on "+r.Upper, err)
	}
	attributes := 0
	if r.ReadOnly || r.Upper == "" {
		attributes = unix.MOUNT_ATTR_RDONLY
	}
	return unix2File(unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attributes))
}

// owner is who works in the writable layer, where its ids are mapped.
func (r *Rootfs) owner() IDMap {
	if r.Layer && r.Upper != "" {
		return r.IDMap
	}
	return IDMap{}
}

// openOverlay has the kernel load its module. While another start does the same, after a boot, there is "no such device" for a moment.
func openOverlay() (fs int, err error) {
	for wait := time.Millisecond; wait < time.Second; wait *= 2 {
		if fs, err = unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC); err != unix.ENODEV {
			break
		}
		time.Sleep(wait)
	}
	return fs, err
}

// lowerByDescriptor works with kernels from 6.13.
func lowerByDescriptor(fs int, lower []*os.File) error {
	for _, f := range lower {
		if err := unix.FsconfigSetFd(fs, "lowerdir+", int(f.Fd())); err != nil {
			return err
		}
	}
	return nil
}

// context adds what the kernel says about a file system's configuration (fsopen(2), "Retrieving messages").
func context(fs int, tried string, err error) error {
	buf := make([]byte, 512)
	if n, e := unix.Read(fs, buf); e == nil && n > 0 {
		return fmt.Errorf("%s: %w (%s)", tried, err, strings.TrimSpace(string(buf[:n])))
	}
	return fmt.Errorf("%s: %w", tried, err)
}

// BindOptions of Bind; the zero value clones one mount as it is.
type BindOptions struct {
	UserNS     *os.File // ids are mapped as in this user namespace; nil: not mapped
	Recursive  bool
	Set, Clear uint64 // MOUNT_ATTR_* flags
	Dir        *os.File
	NoFollow   bool // a link at the end of path is cloned itself
	Peers      bool // what is mounted on the clone appears at path, too, where that is shared; without it only what is mounted there appears here
}

// ErrNotMapped says that a file system cannot be id-mapped.
var ErrNotMapped = errors.New("the file system cannot be id-mapped")

// Bind clones the mount at path (below o.Dir, where that is set) and returns it detached (open_tree(2), mount_setattr(2)).
func Bind(path string, o BindOptions) (*os.File, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	at := uint(unix.AT_EMPTY_PATH)
	if o.Recursive {
		flags |= unix.AT_RECURSIVE
		at |= unix.AT_RECURSIVE
	}
	if o.NoFollow {
		flags |= unix.AT_SYMLINK_NOFOLLOW
	}
	dir := unix.AT_FDCWD
	if o.Dir != nil {
		dir = int(o.Dir.Fd())
		flags |= unix.AT_EMPTY_PATH
	}
	fd, err := unix.OpenTree(dir, path, flags)
	if err == unix.ENOSPC {
		return nil, sysprog.NoNamespace(fmt.Errorf("clone the mount at %s: %w", path, err))
	}
	if err != nil {
		return nil, fmt.Errorf("clone the mount at %s: %w", path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	attr := unix.MountAttr{Attr_set: o.Set, Attr_clr: o.Clear, Propagation: unix.MS_SLAVE}
	if o.Peers {
		attr.Propagation = 0
	}
	if attr != (unix.MountAttr{}) {
		if err := unix.MountSetattr(fd, "", at, &attr); err != nil {
			f.Close()
			return nil, fmt.Errorf("set attributes %#x of a mount of %s: %w", o.Set, path, err)
		}
	}
	if o.UserNS == nil {
		return f, nil
	}
	mapped := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(o.UserNS.Fd())}
	if err := unix.MountSetattr(fd, "", at, &mapped); err != nil {
		f.Close()
		return nil, fmt.Errorf("map ids of a mount of %s: %w: %w", path, ErrNotMapped, err)
	}
	return f, nil
}
