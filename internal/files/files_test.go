package files

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	containers "wherry.dev/wherry/internal/container"
	"wherry.dev/wherry/internal/event"
	"wherry.dev/wherry/internal/image"
	"wherry.dev/wherry/internal/rootfs"
	"wherry.dev/wherry/internal/spec"
	"wherry.dev/wherry/internal/threads"
)

const base = 0x20000000

// one is a container in folders of the test's, with the calls that this package makes.
type one struct {
	t      *testing.T
	view   containers.View
	volume string // mounted on /vol
	calls  []string
	ends   string // when the container ends by itself, as it is paused for a commit
	layer  []byte // what was committed
	got    image.CommitOptions
	kept   containers.Kept
	alone  containers.Layer
	looks  int // at this one it is removed; 0: at none
	known  int // at this one it is known that it has ended; 0: at none
	bus    *event.Bus
	places map[string]string // where layers are now, of those that have moved
}

func (c *one) View(_ context.Context, id string) (containers.View, error) {
	if id != "c" {
		return containers.View{}, errdefs.ErrNotFound
	}
	if c.looks > 0 {
		if c.looks--; c.looks == 0 {
			return containers.View{}, errdefs.ErrNotFound
		}
	}
	if c.known > 0 {
		if c.known--; c.known == 0 {
			c.view.Running = false
		}
	}
	v := c.view
	v.Layer = &c.alone
	if v.Kept = &c.kept; v.Running {
		v.Kept = nil
		fd, err := unix.PidfdOpen(v.Pid, 0)
		if err != nil {
			return v, err
		}
		v.Init = os.NewFile(uintptr(fd), "pidfd")
	}
	return v, nil
}
func (c *one) Mounted(lower []string) ([]string, error) {
	out := slices.Clone(lower)
	for i, dir := range lower {
		if at, ok := c.places[dir]; ok {
			out[i] = at
		}
		if _, err := os.Stat(out[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}
func (c *one) Pause(context.Context, string, containers.PauseOptions) error {
	c.calls = append(c.calls, "pause")
	c.view.Running = c.view.Running && c.ends != "before"
	if c.ends == "just before" { // and its end is not written down yet
		return errdefs.ErrConflict
	}
	return c.conflict()
}
func (c *one) Unpause(context.Context, string) error {
	c.calls = append(c.calls, "unpause")
	c.view.Running = c.view.Running && c.ends != "while paused"
	if c.ends == "removed while paused" {
		return errdefs.ErrNotFound
	}
	return c.conflict()
}

// Borrow: the files of its volume are always there.
func (c *one) Borrow(context.Context, string) (func(), error) { return func() {}, nil }

func (c *one) conflict() error {
	if c.ends == "never" {
		return errors.New("not all have within 10s")
	}
	if !c.view.Running {
		return errdefs.ErrConflict
	}
	return nil
}
func (c *one) Commit(_ context.Context, r io.Reader, o image.CommitOptions) (digest.Digest, error) {
	var err error
	c.layer, err = io.ReadAll(r)
	c.calls = append(c.calls, "commit")
	c.got = o
	return "sha256:made", err
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// newOne makes a stopped container: an image of two layers, a writable layer, a volume.
func newOne(t *testing.T) (*Service, *one) {
	t.Helper()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	script := `mkdir -p top/etc top/bin low/etc low/tmp low/d/sub upper work vol
echo low >low/etc/low; echo old >low/etc/both; echo new >top/etc/both; echo 'web:x:33:44::/:/bin/sh' >top/etc/passwd
echo 1 >low/d/one; echo 2 >low/d/sub/two; echo 3 >low/gone; chmod 1777 low/tmp; cp "$(command -v busybox)" top/bin/busybox
ln -s /etc low/abs; ln -s ../../../../etc/passwd low/d/up; ln -s no/where low/dangling; echo volume >vol/f; chown 7:8 vol/f`
	cmd := exec.Command("sh", "-ec", script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	must(t, os.Chown(at("upper"), base, base))
	c := &one{t: t, volume: at("vol"), bus: event.New()}
	c.view = containers.View{
		ID: "c", Name: "name", Config: &container.Config{Image: "img"}, HostConfig: &container.HostConfig{},
		Rootfs: rootfs.Rootfs{Lower: []string{at("top"), at("low")}, Upper: at("upper"), Work: at("work"), IDMap: rootfs.IDMap{Base: base, Size: 65536}},
		Binds:  []spec.Mount{{Type: mount.TypeVolume, Name: "v", Source: at("vol"), Destination: "/vol"}},
		Mounts: []container.MountPoint{{Type: mount.TypeVolume, Source: at("vol"), Destination: "/vol"}},
		Image:  &image.Image{},
	}
	return New(c, c, c, c.bus), c
}

// TestLayersElsewhere: what a record says of layers may have been before the last boot.
func TestLayersElsewhere(t *testing.T) {
	s, c := newOne(t)
	c.places = map[string]string{"/nowhere/top": c.view.Rootfs.Lower[0], "/nowhere/low": c.view.Rootfs.Lower[1]}
	c.view.Rootfs.Lower = []string{"/nowhere/top", "/nowhere/low"}
	c.view.Binds = append(c.view.Binds, spec.Mount{Type: mount.TypeImage, Destination: "/img", Image: &spec.MountedImage{Lower: []string{"/nowhere/low"}}})
	for _, name := range []string{"/etc/low", "/img/etc/low"} {
		if _, err := s.Stat(t.Context(), "c", name); err != nil {
			t.Error(err)
		}
	}
	if c.view.Binds[1].Image.Lower[0] != "/nowhere/low" {
		t.Error("the record was written to")
	}
	c.places = nil
	if _, err := s.Stat(t.Context(), "c", "/etc/low"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without its layers: %v", err)
	}
}

// run makes the container a running one: a process in a mount namespace whose root is the container's.
func (c *one) run() {
	c.t.Helper()
	fs := c.view.Rootfs
	merged := filepath.Join(c.t.TempDir(), "merged")
	must(c.t, os.Mkdir(merged, 0o755))
	root, err := fs.Mount(nil)
	must(c.t, err)
	defer root.Close()
	userns, err := fs.IDMap.UserNamespace()
	must(c.t, err)
	defer userns.Close()
	volume, err := rootfs.Bind(c.volume, rootfs.BindOptions{UserNS: userns})
	must(c.t, err)
	defer volume.Close()
	must(c.t, os.MkdirAll(filepath.Join(fs.Upper, "vol"), 0o755), os.MkdirAll(filepath.Join(fs.Upper, "proc"), 0o755))
	var pid int
	var cmd *exec.Cmd
	in, out, err := os.Pipe()
	must(c.t, err)
	defer in.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	must(c.t, err)
	defer null.Close()
	must(c.t, threads.Apart(func() error {
		if err := errors.Join(unix.Unshare(unix.CLONE_NEWNS), unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")); err != nil {
			return err
		}
		attach := func(m *os.File, at string) error {
			return unix.MoveMount(int(m.Fd()), "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH)
		}
		if err := errors.Join(attach(root, merged), attach(volume, merged+"/vol"), unix.Mount("proc", merged+"/proc", "proc", 0, "")); err != nil {
			return err
		}
		if err := errors.Join(unix.Chdir(merged), unix.PivotRoot(".", "."), unix.Unmount(".", unix.MNT_DETACH), unix.Chdir("/")); err != nil {
			return err
		}
		cmd = exec.Command("/bin/busybox", "sh", "-c", "echo up; exec busybox sleep 1000")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = null, out, null
		err := cmd.Start()
		if err == nil {
			pid = cmd.Process.Pid
		}
		return err
	}))
	out.Close()
	_, err = io.ReadFull(in, make([]byte, 3))
	must(c.t, err)
	c.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	c.view.Running, c.view.Pid = true, pid
}

func tarOf(t *testing.T, h tar.Header, content string) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	h.Size = int64(len(content))
	if h.Mode == 0 {
		h.Mode = 0o644
	}
	must(t, w.WriteHeader(&h))
	_, err := io.WriteString(w, content)
	must(t, err, w.Close())
	return &b
}

func entries(t *testing.T, r io.Reader) (map[string]*tar.Header, map[string]string) {
	t.Helper()
	headers, contents := map[string]*tar.Header{}, map[string]string{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return headers, contents
		}
		must(t, err)
		b, err := io.ReadAll(tr)
		must(t, err)
		headers[h.Name], contents[h.Name] = h, string(b)
	}
}

// both runs a test on a stopped and on a running container.
func both(t *testing.T, test func(t *testing.T, s *Service, c *one)) {
	t.Run("stopped", func(t *testing.T) {
		s, c := newOne(t)
		test(t, s, c)
	})
	t.Run("running", func(t *testing.T) {
		s, c := newOne(t)
		c.run()
		test(t, s, c)
	})
}

func TestPutAndGet(t *testing.T) {
	before, _ := os.ReadFile("/proc/self/mountinfo")
	both(t, func(t *testing.T, s *Service, c *one) {
		ctx := t.Context()
		must(t, s.Put(ctx, "c", "/tmp", tarOf(t, tar.Header{Name: "new", Uid: 5, Gid: 6}, "some text"), PutOptions{}),
			s.Put(ctx, "c", "/abs", tarOf(t, tar.Header{Name: "through"}, "a link"), PutOptions{}),
			s.Put(ctx, "c", "/vol/", tarOf(t, tar.Header{Name: "made", Uid: 5, Gid: 6}, "in the volume"), PutOptions{}))
		var st unix.Stat_t
		must(t, unix.Stat(filepath.Join(c.view.Rootfs.Upper, "tmp/new"), &st))
		if st.Uid != base+5 || st.Gid != base+6 {
			t.Errorf("in the writable layer the file belongs to %d:%d", st.Uid-base, st.Gid-base)
		}
		must(t, unix.Stat(filepath.Join(c.volume, "made"), &st))
		if st.Uid != 5 || st.Gid != 6 {
			t.Errorf("in the volume the file belongs to %d:%d", st.Uid, st.Gid)
		}
		for path, want := range map[string]string{"/tmp/new": "some text", "/etc/through": "a link", "/vol/made": "in the volume", "/vol/f": "volume\n", "/abs/both": "new\n"} {
			r, stat, err := s.Get(ctx, "c", path)
			must(t, err)
			headers, contents := entries(t, r)
			must(t, r.Close())
			name := filepath.Base(path)
			if contents[name] != want || len(contents) != 1 || stat.Name != name || stat.Size != int64(len(want)) {
				t.Errorf("%s: %q %+v", path, contents, stat)
			}
			if path == "/vol/f" && (headers["f"].Uid != 7 || headers["f"].Gid != 8) {
				t.Errorf("%s belongs to %d:%d", path, headers["f"].Uid, headers["f"].Gid)
			}
		}
		r, stat, err := s.Get(ctx, "c", "/")
		must(t, err)
		headers, _ := entries(t, r)
		must(t, r.Close())
		if headers["/"] == nil || headers["/vol/f"] == nil || headers["/d/sub/two"] == nil || headers["/proc/self"] != nil || stat.Name != "/" {
			t.Errorf("the whole: %v %+v", slices.Sorted(func(yield func(string) bool) {
				for k := range headers {
					if !yield(k) {
						return
					}
				}
			}), stat)
		}
	})
	if after, _ := os.ReadFile("/proc/self/mountinfo"); !bytes.Equal(before, after) {
		t.Errorf("mounts have stayed:\n%s", after)
	}
}

// TestFilesOfWhatIsRemoved: its folder goes before it is found no more.
func TestFilesOfWhatIsRemoved(t *testing.T) {
	s, c := newOne(t)
	must(t, os.Rename(c.view.Rootfs.Upper, c.view.Rootfs.Upper+".gone"))
	c.looks = 3 // it is gone at the third look
	if err := s.Put(t.Context(), "c", "/tmp", tarOf(t, tar.Header{Name: "new"}, "x"), PutOptions{}); !errdefs.IsNotFound(err) {
		t.Errorf("put: %v", err)
	}
	c.looks = 3
	if _, _, err := s.Get(t.Context(), "c", "/tmp"); !errdefs.IsNotFound(err) {
		t.Errorf("get: %v", err)
	}
}

// TestFilesOfWhatHasJustEnded: nobody is told to try again since the engine has not noted a container's end yet.
func TestFilesOfWhatHasJustEnded(t *testing.T) {
	s, c := newOne(t)
	ended := exec.Command("true")
	must(t, ended.Start())
	defer func() { _ = ended.Wait() }() // until then it is a zombie, which has no namespaces
	must(t, unix.Waitid(unix.P_PID, ended.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil))
	for name, do := range map[string]func() error{
		"put": func() error {
			return s.Put(t.Context(), "c", "/tmp", tarOf(t, tar.Header{Name: "new"}, "x"), PutOptions{})
		},
		"stat":   func() error { _, err := s.Stat(t.Context(), "c", "/tmp"); return err },
		"export": func() error { return s.Export(t.Context(), "c", io.Discard) },
	} {
		c.view.Running, c.view.Pid, c.known = true, ended.Process.Pid, 4
		if err := do(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestOneMountsTheLayer: what is written into a container that does not run ends before others mount its layer, as a start does; what is read
// keeps nobody waiting.
func TestOneMountsTheLayer(t *testing.T) {
	s, c := newOne(t)
	ctx := context.Background()
	r, w := io.Pipe()
	put := make(chan error, 1)
	go func() { put <- s.Put(ctx, "c", "/", r, PutOptions{}) }()
	archive := tar.NewWriter(w)
	if err := archive.WriteHeader(&tar.Header{Name: "etc/slow", Size: 1, Mode: 0o644}); err != nil { // it is being read: the layer is mounted
		t.Fatal(err)
	}
	if free, err := c.alone.Hold(ended(t)); err == nil {
		free()
		t.Error("the layer is anybody's while somebody writes into it")
	}
	if _, err := archive.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(archive.Close(), w.Close(), <-put); err != nil {
		t.Fatal(err)
	}
	out, _, err := s.Get(ctx, "c", "/etc/slow")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	free, err := c.alone.Hold(ended(t))
	if err != nil {
		t.Fatalf("who reads holds the layer: %v", err)
	}
	free()
}

// ended is a context that waits for nothing.
func ended(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

func TestStat(t *testing.T) {
	both(t, func(t *testing.T, s *Service, c *one) {
		for path, want := range map[string]container.PathStat{
			"/d":                 {Name: "d", Mode: fs.ModeDir | 0o755},
			"/tmp/.":             {Name: ".", Mode: fs.ModeDir | fs.ModeSticky | 0o777},
			"/abs":               {Name: "abs", Mode: fs.ModeSymlink | 0o777, LinkTarget: "/etc"},
			"/abs/":              {Name: "abs", Mode: fs.ModeDir | 0o755},
			"/d/up":              {Name: "up", Mode: fs.ModeSymlink | 0o777, LinkTarget: "/etc/passwd"},
			"/dangling":          {Name: "dangling", Mode: fs.ModeSymlink | 0o777, LinkTarget: "/no/where"},
			"vol/f":              {Name: "f", Mode: 0o644},
			"/../../../etc/both": {Name: "both", Mode: 0o644},
		} {
			got, err := s.Stat(t.Context(), "c", path)
			if err != nil || got.Name != want.Name || got.Mode != want.Mode || got.LinkTarget != want.LinkTarget {
				t.Errorf("%s: %+v, %v", path, got, err)
			}
		}
		for _, path := range []string{"/nowhere", "/etc/both/x", "/dangling/x"} {
			if _, err := s.Stat(t.Context(), "c", path); !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "Could not find the file "+path+" in container") {
				t.Errorf("%s: %v", path, err)
			}
		}
	})
}

func TestPutRefuses(t *testing.T) {
	both(t, func(t *testing.T, s *Service, c *one) {
		ctx := t.Context()
		try := func(path string, o PutOptions) error {
			return s.Put(ctx, "c", path, tarOf(t, tar.Header{Name: "d"}, "x"), o)
		}
		if err := try("/nowhere", PutOptions{}); !errdefs.IsNotFound(err) {
			t.Errorf("no such directory: %v", err)
		}
		if err := try("/etc/both", PutOptions{}); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "not a directory") {
			t.Errorf("a file: %v", err)
		}
		if err := try("/", PutOptions{NoOverwriteDirNonDir: true}); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "cannot overwrite directory") {
			t.Errorf("a file over a directory: %v", err)
		}
		if err := s.Put(ctx, "c", "/", strings.NewReader("\xfd7zXZ\x00 …"), PutOptions{}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("xz: %v", err)
		}
		if err := s.Put(ctx, "other", "/", tarOf(t, tar.Header{Name: "d"}, "x"), PutOptions{}); !errdefs.IsNotFound(err) {
			t.Errorf("no such container: %v", err)
		}
		c.view.Config = &container.Config{User: "web"}
		must(t, s.Put(ctx, "c", "/tmp", tarOf(t, tar.Header{Name: "web", Uid: 1}, "x"), PutOptions{CopyUIDGID: true}))
		var st unix.Stat_t
		must(t, unix.Stat(filepath.Join(c.view.Rootfs.Upper, "tmp/web"), &st))
		if st.Uid != base+33 || st.Gid != base+44 {
			t.Errorf("the container's user is not the owner: %d:%d", st.Uid, st.Gid)
		}
	})
}

// TestFullDisk: the kernel mounts a file system read-only for which it cannot make a directory; that is not what somebody has asked for.
func TestFullDisk(t *testing.T) {
	for _, full := range []bool{true, false} {
		s, c := newOne(t)
		disk := t.TempDir()
		must(t, unix.Mount("disk", disk, "tmpfs", 0, "size=64k"))
		defer unix.Unmount(disk, unix.MNT_DETACH)
		c.view.Rootfs.Upper, c.view.Rootfs.Work = filepath.Join(disk, "upper"), filepath.Join(disk, "work")
		held := filepath.Join(disk, "work/work") // is there already, and cannot go
		must(t, os.Mkdir(c.view.Rootfs.Upper, 0o755), os.MkdirAll(held, 0o755), unix.Mount("held", held, "tmpfs", 0, ""))
		defer unix.Unmount(held, unix.MNT_DETACH)
		want := unix.EROFS
		if full {
			want = unix.ENOSPC
			_ = os.WriteFile(filepath.Join(disk, "fill"), make([]byte, 1<<20), 0o600)
		}
		c.view.Binds = nil
		err := s.Put(t.Context(), "c", "/tmp", tarOf(t, tar.Header{Name: "x"}, "x"), PutOptions{})
		if !errors.Is(err, want) || strings.Contains(err.Error(), "marked") || errors.Is(err, errdefs.ErrPermissionDenied) {
			t.Errorf("full: %v: %v", full, err)
		}
		if _, err := s.Stat(t.Context(), "c", "/etc/low"); err != nil {
			t.Errorf("what is there: %v", err)
		}
		c.view.Binds = []spec.Mount{{Type: mount.TypeBind, Source: t.TempDir(), Destination: "/no/place"}}
		if _, err := s.Stat(t.Context(), "c", "/etc/low"); !errors.Is(err, want) {
			t.Errorf("full: %v; a volume without a place: %v", full, err)
		}
	}
}

func TestReadOnly(t *testing.T) {
	s, c := newOne(t)
	c.view.HostConfig.ReadonlyRootfs = true
	err := s.Put(t.Context(), "c", "/tmp", tarOf(t, tar.Header{Name: "x"}, "x"), PutOptions{})
	if !errdefs.IsPermissionDenied(err) || !strings.Contains(err.Error(), "rootfs is marked read-only") {
		t.Errorf("read-only root: %v", err)
	}
	must(t, s.Put(t.Context(), "c", "/vol", tarOf(t, tar.Header{Name: "x"}, "x"), PutOptions{}))
	c.view.Binds[0].ReadOnly = true
	err = s.Put(t.Context(), "c", "/vol", tarOf(t, tar.Header{Name: "x"}, "x"), PutOptions{})
	if !errdefs.IsPermissionDenied(err) || !strings.Contains(err.Error(), "volume is marked read-only") {
		t.Errorf("read-only volume: %v", err)
	}
}

func TestExport(t *testing.T) {
	both(t, func(t *testing.T, s *Service, c *one) {
		must(t, os.MkdirAll(filepath.Join(c.view.Rootfs.Lower[1], "vol"), 0o755), s.Put(t.Context(), "c", "/tmp", tarOf(t, tar.Header{Name: "new", Uid: 5}, "x"), PutOptions{}))
		var b bytes.Buffer
		must(t, s.Export(t.Context(), "c", &b))
		headers, contents := entries(t, &b)
		if contents["etc/both"] != "new\n" || contents["d/sub/two"] != "2\n" || headers["tmp/new"].Uid != 5 || headers["abs"].Linkname != "/etc" {
			t.Errorf("%q", contents)
		}
		if headers["vol/f"] != nil || headers["./"] != nil || headers["proc/self"] != nil {
			t.Error("the archive holds what is mounted")
		}
	})
}

// TestExportOfACoveredRoot: who may mount in a container can put anything over its root. What lies there is not exported as the container's.
func TestExportOfACoveredRoot(t *testing.T) {
	for _, fstype := range []string{"tmpfs", "proc"} {
		s, c := newOne(t)
		c.run()
		must(t, threads.Apart(func() error {
			ns, err := os.Open("/proc/" + strconv.Itoa(c.view.Pid) + "/ns/mnt")
			if err != nil {
				return err
			}
			defer ns.Close()
			return errors.Join(unix.Unshare(unix.CLONE_FS), unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS), unix.Mount("none", "/", fstype, 0, ""))
		}))
		var b bytes.Buffer
		if err := s.Export(t.Context(), "c", &b); !errdefs.IsConflict(err) || b.Len() > 0 {
			t.Errorf("%s: %v, %d bytes", fstype, err, b.Len())
		}
	}
}

// TestAccountsAreNotTheKernels: a link in passwd's place leads nobody into the container's procfs, where a read waits, and takes messages out of the
// host's log.
func TestAccountsAreNotTheKernels(t *testing.T) {
	s, c := newOne(t)
	c.run()
	c.view.Config.User = "33"
	must(t, os.MkdirAll(filepath.Join(c.view.Rootfs.Upper, "etc"), 0o755))
	for _, file := range []string{"kmsg", "version"} {
		passwd := filepath.Join("/proc", strconv.Itoa(c.view.Pid), "root/etc/passwd")
		_ = os.Remove(passwd)
		must(t, os.Symlink("/proc/"+file, passwd))
		if err := s.Put(t.Context(), "c", "/tmp", tarOf(t, tar.Header{Name: file}, "x"), PutOptions{CopyUIDGID: true}); err != nil {
			t.Errorf("a number needs no entry: %v", err)
		}
		c.view.Config.User = "web"
		err := s.Put(t.Context(), "c", "/tmp", tarOf(t, tar.Header{Name: file}, "x"), PutOptions{CopyUIDGID: true})
		if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "is not a file") {
			t.Errorf("%s: %v", file, err)
		}
		c.view.Config.User = "33"
	}
}

// change does to a container's file system what its processes could.
func (c *one) change() {
	c.t.Helper()
	script := `rm gone; echo more >>etc/low; mkdir -p a/b; echo x >a/b/c; rm -r d; mkdir d; echo fresh >d/one; ln a/b/c a/hard; chmod 700 tmp
: >etc/hosts; mkdir -p dev proc`
	root, err := openStopped(&c.view)
	must(c.t, err)
	defer root.Close()
	cmd := exec.Command("sh", "-ec", script)
	cmd.Dir = "/proc/" + strconv.Itoa(os.Getpid()) + "/fd/" + strconv.Itoa(int(root.dir.Fd()))
	if out, err := cmd.CombinedOutput(); err != nil {
		c.t.Fatalf("%v: %s", err, out)
	}
}

func TestChanges(t *testing.T) {
	s, c := newOne(t)
	if list, err := s.Changes(t.Context(), "c"); err != nil || len(list) != 0 {
		t.Errorf("of an untouched container: %v %v", list, err)
	}
	c.change()
	list, err := s.Changes(t.Context(), "c")
	must(t, err)
	var got []string
	for _, ch := range list {
		got = append(got, ch.Kind.String()+" "+ch.Path)
	}
	want := []string{"A /a", "A /a/b", "A /a/b/c", "A /a/hard", "C /d", "C /d/one", "D /d/sub", "D /d/up", "C /etc", "C /etc/low", "D /gone", "C /tmp"}
	if !slices.Equal(got, want) {
		t.Errorf("changes\n%q, want\n%q", got, want)
	}
}

func TestCommit(t *testing.T) {
	s, c := newOne(t)
	c.change()
	c.run()
	c.view.Config = &container.Config{Image: "img", Cmd: []string{"a"}, Env: []string{"A=1", "B=2"}, OnBuild: []string{"RUN x"}, User: "u", WorkingDir: "/w"}
	over := &container.Config{Env: []string{"B=3"}, User: "v"}
	id, err := s.Commit(t.Context(), "c", CommitOptions{Ref: "docker.io/library/new:1", Author: "me", Comment: "why", Changes: []string{"CMD x"}, Config: over})
	if err != nil || id != "sha256:made" || !slices.Equal(c.calls, []string{"pause", "commit", "unpause"}) {
		t.Errorf("%s %v %v", id, err, c.calls)
	}
	headers, contents := entries(t, bytes.NewReader(c.layer))
	for _, name := range []string{".wh.gone", "d/", "d/.wh..wh..opq", "d/one", "etc/", "etc/low", "a/", "a/b/", "tmp/"} {
		if headers[name] == nil {
			t.Errorf("the layer lacks %s", name)
		}
	}
	for _, name := range []string{"etc/hosts", "dev/", "proc/", "vol/", "etc/both", "gone"} {
		if headers[name] != nil {
			t.Errorf("the layer has %s", name)
		}
	}
	if h := headers["etc/low"]; contents["etc/low"] != "low\nmore\n" || h.Uid != 0 {
		t.Errorf("etc/low: %q %+v", contents["etc/low"], h)
	}
	if headers["a/hard"].Typeflag != tar.TypeLink && headers["a/b/c"].Typeflag != tar.TypeLink {
		t.Error("two names of a file became two files")
	}
	want := dockerspec.DockerOCIImageConfig{}
	want.Env, want.User, want.WorkingDir, want.Cmd = []string{"A=1", "B=3"}, "v", "/w", []string{"a"}
	o := c.got
	if !slices.Equal(o.Config.Env, want.Env) || o.Config.User != "v" || o.Config.WorkingDir != "/w" || !slices.Equal(o.Config.Cmd, want.Cmd) || o.Config.OnBuild != nil {
		t.Errorf("configuration %+v", o.Config)
	}
	if o.Ref != "docker.io/library/new:1" || o.Author != "me" || o.Comment != "why" || !slices.Equal(o.Changes, []string{"CMD x"}) || o.Parent != c.view.Image {
		t.Errorf("options %+v", o)
	}
	var told []string
	must(t, c.bus.Subscribe(t.Context(), time.Unix(1, 0), time.Now(), func(m events.Message) error {
		told = append(told, string(m.Action)+" "+m.Actor.Attributes["imageRef"])
		return nil
	}))
	if !slices.Equal(told, []string{"commit new:1"}) {
		t.Errorf("events %q", told)
	}
	c.calls = nil
	_, err = s.Commit(t.Context(), "c", CommitOptions{NoPause: true})
	if err != nil || !slices.Equal(c.calls, []string{"commit"}) {
		t.Errorf("without a pause: %v %v", c.calls, err)
	}
}

// TestCommitOfWhatEnds: a container that ends as it is to be paused, or while it is, stands still; one that goes on and cannot be paused is
// not committed.
func TestCommitOfWhatEnds(t *testing.T) {
	for ends, fails := range map[string]bool{"before": false, "just before": false, "while paused": false, "removed while paused": false, "never": true} {
		s, c := newOne(t)
		c.run()
		c.ends = ends
		if _, err := s.Commit(t.Context(), "c", CommitOptions{}); (err != nil) != fails || slices.Contains(c.calls, "commit") == fails {
			t.Errorf("%s: %v %v", ends, err, c.calls)
		}
	}
}

func TestSizeAndEvents(t *testing.T) {
	s, c := newOne(t)
	must(t, s.Put(t.Context(), "c", "/tmp", tarOf(t, tar.Header{Name: "x"}, strings.Repeat("x", 1000)), PutOptions{}))
	trees := new(containers.Trees)
	measured := func() containers.Measured {
		m := containers.Measured{Name: "c", Rootfs: c.view.Rootfs, Kept: &c.kept, Trees: trees}
		if c.view.Running {
			m.Kept = nil
		}
		return m
	}
	rw, root, err := s.Size(t.Context(), measured())
	if st, _ := os.Stat(filepath.Join(c.view.Rootfs.Lower[0], "bin/busybox")); err != nil || rw != 1000 || root < rw+st.Size() || root > rw+st.Size()+1000 {
		t.Errorf("%d %d %v", rw, root, err)
	}
	size := func() int64 {
		rw, _, err := s.Size(t.Context(), measured())
		must(t, err)
		return rw
	}
	silent := filepath.Join(c.view.Rootfs.Upper, "tmp", "y")
	must(t, os.WriteFile(silent, make([]byte, 10), 0o644))
	if n := size(); n != 1000 {
		t.Errorf("a container that does not run was measured again: %d", n)
	}
	c.view.Running, c.view.Pid = true, os.Getpid()
	if n := size(); n != 1010 {
		t.Errorf("one that runs was not: %d", n)
	}
	c.view.Running = false
	must(t, os.Remove(silent), s.Put(t.Context(), "c", "/tmp", tarOf(t, tar.Header{Name: "x"}, strings.Repeat("x", 2000)), PutOptions{}))
	if n := size(); n != 2000 {
		t.Errorf("after files were copied in: %d", n)
	}
	r, _, err := s.Get(t.Context(), "c", "/etc")
	must(t, err, r.Close(), s.Export(t.Context(), "c", io.Discard))
	var got []string
	must(t, c.bus.Subscribe(t.Context(), time.Unix(1, 0), time.Now(), func(m events.Message) error {
		got = append(got, string(m.Action)+" "+m.Actor.Attributes["path"]+" "+m.Actor.Attributes["name"])
		return nil
	}))
	if want := []string{"extract-to-dir /tmp name", "extract-to-dir /tmp name", "archive-path /etc name", "export  name"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}
