package files

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/mount"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/archive"
	containers "wherry.dev/wherry/internal/container"
	"wherry.dev/wherry/internal/rootfs"
	"wherry.dev/wherry/internal/spec"
	"wherry.dev/wherry/internal/threads"
)

// root is a container's file system.
type root struct {
	dir  *os.File
	keep []*os.File // what keeps the mounts in place; with its end they end
	done func()     // lets others mount it; may be nil

	giveBack func() // volumes that were mounted for it; may be nil
}

func (r *root) Close() {
	if r.dir != nil {
		_ = r.dir.Close()
	}
	for _, f := range r.keep {
		_ = f.Close()
	}
	if r.giveBack != nil {
		r.giveBack()
	}
	if r.done != nil {
		r.done()
	}
}

// openRoot opens a container's file system with what is mounted in it.
func openRoot(v *containers.View) (*root, error) {
	if v.Running {
		return openRunning(v, false)
	}
	return openStopped(v)
}

// openBare opens a container's root file system alone.
func openBare(v *containers.View) (*root, error) {
	if v.Running {
		return openRunning(v, true)
	}
	fs := v.Rootfs
	dir, err := fs.Mount(nil)
	if err != nil {
		return nil, err
	}
	return &root{dir: dir}, nil
}

// asRoot runs fn with the container's root as who makes files: an id-mapped mount takes none from ids that it has no mapping for
// (mount_setattr(2), EOVERFLOW). The thread keeps its capabilities, which changing the id would take from it.
func asRoot(ids rootfs.IDMap, fn func() error) error {
	if ids.Size == 0 {
		return fn()
	}
	return threads.Apart(func() error {
		if err := becomeRoot(ids); err != nil {
			return err
		}
		return fn()
	})
}

// becomeRoot changes the thread for good.
func becomeRoot(ids rootfs.IDMap) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var had [2]unix.CapUserData
	if err := unix.Capget(&header, &had[0]); err != nil {
		return fmt.Errorf("read the capabilities: %w", err)
	}
	for call, id := range map[uintptr]int{unix.SYS_SETFSGID: ids.Host(0), unix.SYS_SETFSUID: ids.Host(0)} {
		_, _, _ = unix.RawSyscall(call, uintptr(id), 0, 0) // they return the id before, never an error
		if now, _, _ := unix.RawSyscall(call, ^uintptr(0), 0, 0); int(now) != id {
			return fmt.Errorf("make files as id %d: the kernel refuses it", id)
		}
	}
	if err := unix.Capset(&header, &had[0]); err != nil {
		return fmt.Errorf("keep the capabilities: %w", err)
	}
	return nil
}

// errEnded: what is known of the container will say soon that it does not run.
var errEnded = fmt.Errorf("the container has just ended: try again: %w", errdefs.ErrConflict)

// openRunning enters the mount namespace of a container's first process. What keeps the namespace is opened through /proc, and is the
// right one where the pidfd says afterwards that the process is alive.
func openRunning(v *containers.View, bare bool) (*root, error) {
	ns, err := os.Open("/proc/" + strconv.Itoa(v.Pid) + "/ns/mnt")
	if err == nil {
		err = alive(v.Init)
	}
	if err != nil {
		if ns != nil {
			_ = ns.Close()
		}
		return nil, fmt.Errorf("%w: %w", errEnded, err)
	}
	r := &root{keep: []*os.File{ns}}
	err = threads.Apart(func() error {
		self, err := os.Open("/proc/thread-self")
		if err != nil {
			return err
		}
		defer self.Close()
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return err
		}
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("enter the mount namespace: %w", err)
		}
		if v.Secrets && !bare {
			covered, err := coverSecrets(self)
			if err != nil {
				return fmt.Errorf("cover the container's secrets: %w", err)
			}
			r.keep = append(r.keep, covered)
		}
		fd, err := -1, error(nil)
		if bare {
			fd, err = cloneRoot(v)
		} else {
			fd, err = unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		}
		if err == nil {
			r.dir = os.NewFile(uintptr(fd), "/")
		}
		return err
	})
	if err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// cloneRoot clones the root of the mount namespace that the thread is in, without what is mounted below. It is the container's own file system unless a
// process in it, which may mount, has covered that or taken it away: then what is there is no part of the container, and perhaps the kernel's.
func cloneRoot(v *containers.View) (int, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs("/", &fs); err != nil {
		return -1, err
	}
	if v.Rootfs.Upper != "" && fs.Type != unix.OVERLAYFS_SUPER_MAGIC {
		return -1, fmt.Errorf("its processes have mounted something over its root directory, or have unmounted that: stop it first: %w", errdefs.ErrConflict)
	}
	return unix.OpenTree(unix.AT_FDCWD, "/", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
}

// alive says whether a pidfd's process has not ended.
func alive(pidfd *os.File) error {
	fds := []unix.PollFd{{Fd: int32(pidfd.Fd()), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 0)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return err
		case n > 0:
			return unix.ESRCH
		default:
			return nil
		}
	}
}

// openStopped mounts a container's root file system and its volumes in a mount namespace that nothing but a descriptor holds: it ends with
// that, or with the engine.
func openStopped(v *containers.View) (_ *root, err error) {
	userns, err := v.Rootfs.IDMap.UserNamespace()
	if err != nil {
		return nil, err
	}
	if userns != nil {
		defer userns.Close()
	}
	fs := v.Rootfs
	fs.ReadOnly = false // volumes' places may have to be made first
	r := &root{}
	if r.dir, err = fs.Mount(userns); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			r.Close()
		}
	}()
	var binds []bound
	defer func() {
		for _, b := range binds {
			_ = b.source.Close()
		}
	}()
	for _, m := range v.Binds {
		if m.Type != mount.TypeBind && m.Type != mount.TypeVolume && m.Image == nil {
			continue
		}
		bind := bindOf
		if m.Image != nil {
			bind = func(m *spec.Mount, userns *os.File) (bound, error) { return imageOf(m, v.Rootfs.IDMap, userns) }
		}
		b, err := bind(&m, userns)
		if err != nil {
			return nil, err
		}
		binds = append(binds, b)
	}
	return r, threads.Apart(func() error { return r.assemble(v, binds) })
}

// assemble puts all mounts together in a mount namespace of the thread's own.
func (r *root) assemble(v *containers.View, binds []bound) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("make a mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("part from the host's mounts: %w", err)
	}
	ns, err := os.Open("/proc/thread-self/ns/mnt")
	if err != nil {
		return err
	}
	r.keep = append(r.keep, ns)
	const whole = unix.MOVE_MOUNT_F_EMPTY_PATH | unix.MOVE_MOUNT_T_EMPTY_PATH
	if err := unix.MoveMount(int(r.dir.Fd()), "", unix.AT_FDCWD, "/", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("attach the root file system: %w", err)
	}
	if err := becomeRoot(v.Rootfs.IDMap); err != nil {
		return err
	}
	for _, b := range binds {
		target, err := r.place(b.destination, b.isDir, v.Rootfs.IDMap.Host(0))
		if errors.Is(err, unix.EROFS) {
			err = v.Rootfs.Unwritable()
		}
		if err != nil {
			return fmt.Errorf("mount %s: %w", b.destination, err)
		}
		err = unix.MoveMount(int(b.source.Fd()), "", int(target.Fd()), "", whole)
		_ = target.Close()
		if err != nil {
			return fmt.Errorf("mount %s: %w", b.destination, err)
		}
	}
	if v.HostConfig != nil && v.HostConfig.ReadonlyRootfs {
		return unix.MountSetattr(int(r.dir.Fd()), "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	}
	return nil
}

// bound is a detached mount that goes somewhere inside.
type bound struct {
	source      *os.File
	destination string
	isDir       bool
}

// bindOf clones what a volume or bind mounts, with the container's ids where the file system can have them, as the runtime does.
func bindOf(m *spec.Mount, userns *os.File) (bound, error) {
	b := bound{destination: m.Destination}
	o := rootfs.BindOptions{UserNS: userns, Recursive: m.Type == mount.TypeBind && !m.NonRecursive}
	if m.Unmapped {
		o.UserNS = nil
	}
	if m.ReadOnly {
		o.Set = unix.MOUNT_ATTR_RDONLY
	}
	at := m.Source
	if m.Subpath != "" {
		base, err := os.OpenFile(m.Source, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return b, err
		}
		defer base.Close()
		below, err := archive.Open(base, m.Subpath, unix.O_PATH)
		if err != nil {
			return b, err
		}
		defer below.Close()
		at, o.Dir = "", below
	}
	source, err := rootfs.Bind(at, o)
	if errors.Is(err, rootfs.ErrNotMapped) {
		o.UserNS = nil
		source, err = rootfs.Bind(at, o)
	}
	if err != nil {
		return b, err
	}
	return b.of(source)
}

func (b bound) of(source *os.File) (bound, error) {
	b.source = source
	fi, err := source.Stat()
	if err != nil {
		_ = source.Close()
		return b, err
	}
	b.isDir = fi.IsDir()
	return b, nil
}

// imageOf mounts an image, or a part of it.
func imageOf(m *spec.Mount, ids rootfs.IDMap, userns *os.File) (bound, error) {
	b := bound{destination: m.Destination}
	view := rootfs.Rootfs{Lower: m.Image.Lower, IDMap: ids}
	whole, err := view.Mount(userns)
	if err != nil {
		return b, fmt.Errorf("image %s: %w", m.Name, err)
	}
	if m.Subpath == "" {
		return b.of(whole)
	}
	defer whole.Close()
	below, err := archive.Open(whole, m.Subpath, unix.O_PATH)
	if err != nil {
		return b, fmt.Errorf("image %s: %w", m.Name, err)
	}
	defer below.Close()
	source, err := rootfs.Bind("", rootfs.BindOptions{Dir: below})
	if err != nil {
		return b, fmt.Errorf("image %s: %w", m.Name, err)
	}
	return b.of(source)
}

// place opens where something is to be mounted, and makes it where it is missing, as the runtime would at start.
func (r *root) place(name string, isDir bool, owner int) (*os.File, error) {
	f, err := archive.Open(r.dir, name, unix.O_PATH)
	clean := path.Clean("/" + name)
	if !errors.Is(err, unix.ENOENT) || clean == "/" {
		return f, err
	}
	parent, err := r.place(path.Dir(clean), true, owner)
	if err != nil {
		return nil, err
	}
	defer parent.Close()
	base := path.Base(clean)
	if isDir {
		err = unix.Mkdirat(int(parent.Fd()), base, 0o755)
	} else {
		err = unix.Mknodat(int(parent.Fd()), base, unix.S_IFREG|0o644, 0)
	}
	if err == nil {
		err = unix.Fchownat(int(parent.Fd()), base, owner, owner, unix.AT_SYMLINK_NOFOLLOW)
	}
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, &os.PathError{Op: "make", Path: clean, Err: err}
	}
	return archive.Open(r.dir, clean, unix.O_PATH)
}

// writable says whether something can be put into a directory.
func (r *root) writable(v *containers.View, dir *os.File, name string) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return fmt.Errorf("extraction point is not a directory: %s in container %s: %w", name, v.Name, errdefs.ErrInvalidArgument)
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(dir.Fd()), &fs); err != nil {
		return err
	}
	if fs.Flags&unix.ST_RDONLY == 0 {
		return nil
	}
	var here, top unix.Statx_t
	for f, x := range map[*os.File]*unix.Statx_t{dir: &here, r.dir: &top} {
		if err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, x); err != nil {
			return err
		}
	}
	switch {
	case here.Mnt_id == top.Mnt_id && v.HostConfig != nil && !v.HostConfig.ReadonlyRootfs:
		return fmt.Errorf("copy to %s in container %s: %w", name, v.Name, v.Rootfs.Unwritable())
	case here.Mnt_id == top.Mnt_id:
		return fmt.Errorf("container rootfs is marked read-only: copy to one of the volumes of container %s: %w", v.Name, errdefs.ErrPermissionDenied)
	}
	return fmt.Errorf("mounted volume is marked read-only: %s in container %s: %w", name, v.Name, errdefs.ErrPermissionDenied)
}
