package ociruntime

import (
	"context"
	"errors"
	"io"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"wherry.dev/wherry/internal/cgroup"
	"wherry.dev/wherry/internal/rootfs"
	"wherry.dev/wherry/internal/sysprog"
)

// base is where the id range of the containers under test begins.
const base = 0x31000000

// box is a container under test: a busybox image, a writable layer, all namespaces.
type box struct {
	t       testing.TB
	image   string // the layer; tests put into it what an image could hold
	upper   string
	rootfs  *rootfs.Rootfs
	spec    *specs.Spec
	in      *os.File
	keep    int // descriptors to preserve
	noPivot bool
	mounts  *os.File // what its mount namespace is copied from, as the engine has it
	ends    []func()
}

// bareMounts is one for all boxes.
var bareMounts = sync.OnceValues(sysprog.BareMounts)

// probes builds the program that looks around, for 64 and 32 bits, once.
var probes = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "wherry-runtime-probe-")
	if err != nil {
		return "", err
	}
	for _, arch := range []string{"amd64", "386"} {
		cmd := osexec.Command("go", "build", "-o", filepath.Join(dir, "probe-"+arch), "./testdata/probe")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+arch)
		if out, err := cmd.CombinedOutput(); err != nil {
			return dir, errors.New(string(out))
		}
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, _ := probes(); dir != "" {
		os.RemoveAll(dir)
	}
	if g, err := cgroup.Open(testGroup()); err == nil {
		_ = g.Delete()
	}
	os.Exit(code)
}

// testGroup holds the groups of this process's containers: others may test at the same time.
func testGroup() string { return "/wherry-ociruntime-test-" + strconv.Itoa(os.Getpid()) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func copyTo(t testing.TB, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	must(t, err)
	must(t, os.WriteFile(to, b, 0o755))
}

func newBox(t testing.TB, args ...string) *box {
	t.Helper()
	dir := t.TempDir()
	mounts, err := bareMounts()
	must(t, err)
	b := &box{t: t, image: filepath.Join(dir, "image"), upper: filepath.Join(dir, "upper"), mounts: mounts}
	for _, d := range []string{"bin", "proc", "dev", "sys", "tmp", "etc"} {
		must(t, os.MkdirAll(filepath.Join(b.image, d), 0o755))
	}
	copyTo(t, "/bin/busybox", filepath.Join(b.image, "bin/busybox"))
	for _, a := range strings.Fields("sh sleep cat echo ls true id mount pwd touch head stat readlink hostname kill") {
		must(t, os.Symlink("busybox", filepath.Join(b.image, "bin", a)))
	}
	for _, d := range []string{b.upper, filepath.Join(dir, "work")} {
		must(t, os.Mkdir(d, 0o755))
		must(t, os.Chown(d, base, base))
	}
	t.Cleanup(b.cleanup)
	b.rootfs = &rootfs.Rootfs{Lower: []string{b.image}, Upper: b.upper, Work: filepath.Join(dir, "work"), IDMap: rootfs.IDMap{Base: base, Size: 65536}}
	ids := []specs.LinuxIDMapping{{HostID: base, Size: 65536}}
	plain := []string{"nosuid", "noexec", "nodev"}
	b.spec = &specs.Spec{Version: specs.Version, Root: &specs.Root{Path: "rootfs"}, Hostname: "box",
		Process: &specs.Process{Args: args, Cwd: "/", Env: []string{"PATH=/bin"}},
		Mounts: []specs.Mount{{Destination: "/proc", Type: "proc", Options: plain}, {Destination: "/dev", Type: "tmpfs", Options: []string{"nosuid", "mode=755"}},
			{Destination: "/dev/pts", Type: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}},
			{Destination: "/sys", Type: "sysfs", Options: append([]string{"ro"}, plain...)}},
		Linux: &specs.Linux{UIDMappings: ids, GIDMappings: ids, CgroupsPath: testGroup() + "/" + filepath.Base(filepath.Dir(dir)) + "-" + filepath.Base(dir),
			MaskedPaths: []string{"/proc/keys", "/sys/firmware"}, ReadonlyPaths: []string{"/proc/sys"},
			Namespaces: []specs.LinuxNamespace{{Type: "pid"}, {Type: "mount"}, {Type: "user"}, {Type: "ipc"}, {Type: "uts"}, {Type: "network"}, {Type: "cgroup"}}}}
	return b
}

func (b *box) probe() *box {
	b.t.Helper()
	dir, err := probes()
	must(b.t, err)
	copyTo(b.t, dir+"/probe-amd64", filepath.Join(b.image, "bin/probe"))
	copyTo(b.t, dir+"/probe-386", filepath.Join(b.image, "bin/probe32"))
	return b
}

// hostUsers gives up the user namespace.
func (b *box) hostUsers() *box {
	b.rootfs.IDMap = rootfs.IDMap{}
	l := b.spec.Linux
	l.UIDMappings, l.GIDMappings = nil, nil
	var rest []specs.LinuxNamespace
	for _, n := range l.Namespaces {
		if n.Type != specs.UserNamespace {
			rest = append(rest, n)
		}
	}
	l.Namespaces = rest
	return b
}

// create makes the container; its end removes what was made, which is checked.
func (b *box) create(out *os.File) (*Container, error) {
	b.t.Helper()
	c, err := Create(b.t.Context(), CreateOptions{ID: "box", Bundle: filepath.Dir(b.image), Spec: b.spec, Rootfs: b.rootfs,
		Stdio: Stdio{In: b.in, Out: out, Err: out}, PreserveFDs: b.keep, NoPivot: b.noPivot, Mounts: b.mounts})
	if err != nil {
		return nil, err
	}
	b.ends = append(b.ends, func() {
		g := c.Cgroup()
		_ = g.Kill()
		must(b.t, g.WaitEmpty(context.Background()))
		must(b.t, g.Delete())
		c.Close()
	})
	return c, nil
}

// cleanup removes what the box's containers were made of; it is also done at the test's end.
func (b *box) cleanup() {
	for _, end := range b.ends {
		end()
	}
	b.ends = nil
}

// run starts the container and returns what it printed and how it ended.
func (b *box) run() (string, Status, error) {
	b.t.Helper()
	r, w, err := os.Pipe()
	must(b.t, err)
	defer r.Close()
	c, err := b.create(w)
	w.Close()
	if err != nil {
		return "", Status{}, err
	}
	started := c.Start()
	out, err := io.ReadAll(r)
	must(b.t, err)
	status, err := Reap(c.Pidfd())
	must(b.t, err)
	return string(out), status, started
}

// exec runs one more process and returns what it printed.
func (b *box) exec(c *Container, p *specs.Process) (string, Status, error) {
	b.t.Helper()
	r, w, err := os.Pipe()
	must(b.t, err)
	defer r.Close()
	if p.Env == nil {
		p.Env = []string{"PATH=/bin"}
	}
	if p.Cwd == "" {
		p.Cwd = "/"
	}
	e, err := c.Exec(b.t.Context(), ExecOptions{Process: p, Stdio: Stdio{Out: w, Err: w}})
	w.Close()
	if err != nil {
		return "", Status{}, err
	}
	out, err := io.ReadAll(r)
	must(b.t, err)
	status, err := Reap(e.Pidfd)
	must(b.t, err)
	e.Pidfd.Close()
	return string(out), status, nil
}

// sleeper starts a container that does nothing.
func (b *box) sleeper() *Container {
	b.t.Helper()
	b.spec.Process.Args = []string{"sleep", "1000"}
	c, err := b.create(nil)
	must(b.t, err)
	must(b.t, c.Start())
	b.t.Cleanup(func() {
		_ = c.Cgroup().Kill()
		_, _ = Reap(c.Pidfd())
	})
	return c
}
