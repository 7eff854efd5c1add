package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/snapshots"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/room"
	"wherry.dev/wherry/internal/rootfs"
)

// Mounts are the places of layers that are images. Each is mounted when it is first asked for.
type Mounts struct {
	base   string // "" when there is no place for them
	stores string // the directory that holds the roots of snapshotters
	log    func(error)

	able func() error // whether the kernel can mount images from files and put overlays on them; asked once

	mu    sync.Mutex                 // guards what follows
	busy  map[string]*turn           // by path: one mounts or removes, others wait
	known map[string]bool            // paths whose mount is of the right image
	sizes map[string]snapshots.Usage // of directories that are to be committed
}

// ErrUnmountable says that a layer's image could not be mounted.
var ErrUnmountable = errors.New("mount layer")

func newMounts(o Options) *Mounts {
	m := &Mounts{base: o.Mounts, stores: filepath.Dir(o.Root), log: o.Log, busy: map[string]*turn{}, known: map[string]bool{},
		sizes: map[string]snapshots.Usage{}}
	if m.log == nil {
		m.log = func(error) {}
	}
	m.able = sync.OnceValue(func() error { return m.probe(o.Root) })
	return m
}

func (m *Mounts) path(store, id string) string { return filepath.Join(m.base, store, id) }

func (m *Mounts) file(store, id string) string {
	return filepath.Join(m.stores, store, "snapshots", id, layerFile)
}

// layer is the directory of an image's files, which is mounted there by then.
func (m *Mounts) layer(store, id string) (string, error) {
	if m.base == "" {
		return "", fmt.Errorf("layer %s is an image, and there is no directory to mount it in", id)
	}
	path := m.path(store, id)
	unlock := m.lock(path)
	defer unlock()
	if isMount(path) {
		if m.isKnown(path) || m.isRight(store, id) {
			m.know(path, true)
			return path, nil
		}
		if err := unmount(path); err != nil { // of a store that stood here before
			return "", err
		}
	}
	if _, err := os.Lstat(m.file(store, id)); err != nil {
		return "", err
	}
	if err := m.mount(store, id); err != nil {
		return "", fmt.Errorf("%w: %s: %w", ErrUnmountable, m.file(store, id), err)
	}
	m.know(path, true)
	return path, nil
}

// turn is one who works on a path, and those who wait for that.
type turn struct {
	sync.Mutex
	n int
}

func (m *Mounts) lock(path string) (unlock func()) {
	m.mu.Lock()
	t := m.busy[path]
	if t == nil {
		t = &turn{}
		m.busy[path] = t
	}
	t.n++
	m.mu.Unlock()
	t.Lock()
	return func() {
		t.Unlock()
		m.mu.Lock()
		defer m.mu.Unlock()
		if t.n--; t.n == 0 {
			delete(m.busy, path)
		}
	}
}

func (m *Mounts) isKnown(path string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.known[path]
}

func (m *Mounts) know(path string, known bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if known {
		m.known[path] = true
		return
	}
	delete(m.known, path)
}

// Measure notes what a directory takes that is whole, for its Commit: that is called within a transaction of the caller's, and others wait.
func (m *Mounts) Measure(ctx context.Context, dir string) error {
	u, err := dirUsage(ctx, dir)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sizes[dir] = u
	return nil
}

// measured takes what Measure has noted.
func (m *Mounts) measured(dir string) (snapshots.Usage, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	u, ok := m.sizes[dir]
	delete(m.sizes, dir)
	return u, ok
}

// isMount says that something is mounted at a path, and not only a directory there (statx(2), STATX_ATTR_MOUNT_ROOT).
func isMount(path string) bool {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, 0, &st)
	return err == nil && st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
}

// uuidAt is where an image has its UUID: 48 bytes into its superblock, which stands at 1,024.
const uuidAt = 1024 + 48

// isRight says that what an earlier life mounted is this layer's image, or the directory that was unpacked from it.
func (m *Mounts) isRight(store, id string) bool {
	var there unix.Statfs_t
	if err := unix.Statfs(m.path(store, id), &there); err != nil {
		return false
	}
	if there.Type != unix.EROFS_SUPER_MAGIC_V1 {
		a, err := os.Stat(m.path(store, id))
		b, err2 := os.Stat(m.unpacked(store, id))
		return err == nil && err2 == nil && os.SameFile(a, b)
	}
	f, err := os.Open(m.file(store, id))
	if err != nil {
		return false
	}
	defer f.Close()
	uuid := make([]byte, 16)
	if _, err := f.ReadAt(uuid, uuidAt); err != nil {
		return false
	}
	return there.Fsid == fsid(uuid)
}

// fsid is how the kernel folds a file system's UUID for statfs(2).
func fsid(uuid []byte) unix.Fsid {
	var v [8]byte
	for i := range v {
		v[i] = uuid[i] ^ uuid[i+8]
	}
	return unix.Fsid{Val: [2]int32{le32(v[:4]), le32(v[4:])}}
}

func le32(b []byte) int32 {
	return int32(uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24)
}

// mount makes the mount of a layer, or puts a directory with the same files in its place.
func (m *Mounts) mount(store, id string) error {
	if err := m.apart(); err != nil {
		return err
	}
	path := m.path(store, id)
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	err := m.able()
	if err == nil {
		return mountImage(m.file(store, id), path)
	}
	if room.Lacks(err) && mountImage(m.file(store, id), path) == nil {
		return nil
	}
	return m.instead(store, id)
}

// apart makes the place of mounts one that has no peers: where systemd has made all mounts shared, each would appear in every service's
// namespace.
func (m *Mounts) apart() error {
	if isMount(m.base) {
		return nil
	}
	unlock := m.lock(m.base)
	defer unlock()
	if isMount(m.base) {
		return nil
	}
	if err := os.MkdirAll(m.base, 0o700); err != nil {
		return err
	}
	f, err := rootfs.Bind(m.base, rootfs.BindOptions{})
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.MountSetattr(int(f.Fd()), "", unix.AT_EMPTY_PATH, &unix.MountAttr{Propagation: unix.MS_PRIVATE}); err != nil {
		return fmt.Errorf("keep mounts in %s from other namespaces: %w", m.base, err)
	}
	return attach(f, m.base)
}

func attach(f *os.File, path string) error {
	if err := unix.MoveMount(int(f.Fd()), "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("attach a mount to %s: %w", path, err)
	}
	return nil
}

// longest is what one option of fsconfig(2) may hold.
const longest = 255

// mountImage mounts an image from its file, read-only. Files that belong to root with special rights keep them: they count in containers.
func mountImage(file, path string) error {
	mounted, err := openImage(file)
	if err != nil {
		return err
	}
	defer mounted.Close()
	return attach(mounted, path)
}

// openImage is a mount of an image that is nowhere yet.
func openImage(file string) (*os.File, error) {
	fs, err := unix.Fsopen("erofs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open erofs: %w", err)
	}
	defer unix.Close(fs)
	source := file
	if len(file) > longest {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		source = fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	}
	err = errors.Join(unix.FsconfigSetFlag(fs, "ro"), unix.FsconfigSetString(fs, "source", source))
	if err == nil {
		err = unix.FsconfigCreate(fs)
	}
	if err != nil {
		return nil, explain(fs, err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("fsmount: %w", err)
	}
	return os.NewFile(uintptr(fd), file), nil
}

// explain adds what the kernel says (fsopen(2), "Retrieving messages").
func explain(fs int, err error) error {
	buf := make([]byte, 512)
	if n, e := unix.Read(fs, buf); e == nil && n > 0 {
		return fmt.Errorf("%w (%s)", err, strings.TrimSpace(string(buf[:n])))
	}
	return err
}

// unmount takes all mounts off a path, at once here, and elsewhere when nobody uses them any more.
func unmount(path string) error {
	for {
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		switch {
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT):
			return nil
		case err != nil:
			return fmt.Errorf("unmount %s: %w", path, err)
		}
	}
}

// drop takes a layer's mount away. That its directory goes takes it out of namespaces that have copied it, too, so that its disk space
// is free (rmdir(2) of a place where others have something mounted). It stays if has says so, which nobody mounts it during; nil: no.
func (m *Mounts) drop(store, id string, has func() (bool, error)) error {
	if m.base == "" {
		return nil
	}
	path := m.path(store, id)
	unlock := m.lock(path)
	defer unlock()
	if has != nil {
		if there, err := has(); there || err != nil {
			return err
		}
	}
	defer m.know(path, false)
	if err := unmount(path); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}

// of lists the layers of a store that have a place.
func (m *Mounts) of(store string) []string {
	if m.base == "" {
		return nil
	}
	list, _ := names(filepath.Join(m.base, store))
	return list
}

// Here sees to it that directories which were once said to be layers' are there, and says where: mounts end with the boot, and the place
// of mounts may have become another. It returns the list itself when nothing has changed.
func (m *Mounts) Here(dirs []string) ([]string, error) {
	out := dirs
	for i, dir := range dirs {
		id, store := filepath.Base(dir), filepath.Base(filepath.Dir(dir))
		if id == "fs" || m.base == "" {
			if _, err := os.Stat(dir); err != nil {
				return nil, err
			}
			continue
		}
		if _, err := os.Lstat(m.file(store, id)); err != nil {
			if _, there := os.Stat(dir); there == nil && !strings.HasPrefix(dir, m.base+"/") {
				continue // no layer of an image: the files of an artifact
			}
			return nil, err
		}
		now, err := m.layer(store, id)
		if err != nil {
			return nil, err
		}
		if now != dir {
			if &out[0] == &dirs[0] {
				out = append([]string(nil), dirs...)
			}
			out[i] = now
		}
	}
	return out, nil
}

// Of mounts a layer by its file's path, and says where.
func (m *Mounts) Of(file string) (string, error) {
	dir := filepath.Dir(file) // <stores>/<store>/snapshots/<id>
	return m.layer(filepath.Base(filepath.Dir(filepath.Dir(dir))), filepath.Base(dir))
}

// Release unmounts all layers: nothing may use them any more.
func (m *Mounts) Release() error {
	if m.base == "" {
		return nil
	}
	stores, err := names(m.base)
	for _, store := range stores {
		for _, id := range m.of(store) {
			err = errors.Join(err, m.drop(store, id, nil))
		}
		err = errors.Join(err, os.Remove(filepath.Join(m.base, store)))
	}
	return errors.Join(err, unmount(m.base))
}
