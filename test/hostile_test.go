package test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// hostile is what the tests of escapes share: the engine, a tree outside of every container, and what must stay as it is.
type hostile struct {
	t           *testing.T
	out         string // the tree outside; links of images lead there
	tree, files string // what they were
}

// newHostile makes the tree. At the test's end it, the engine's and the runtime's binaries, the host's users and what its kernel runs must
// be what they were, and nothing may be mounted in the tree.
func newHostile(t *testing.T) *hostile {
	t.Helper()
	dir, err := os.MkdirTemp(shared.dir, "outside-")
	ok(t, err)
	h := &hostile{t: t, out: dir}
	for _, d := range []string{"dev/pts", "dev/shm", "proc/sys", "sys/fs", "etc", "work"} {
		ok(t, os.MkdirAll(filepath.Join(dir, d), 0o777))
	}
	for _, f := range []string{"secret", "hosts", "null", "dev/null", "etc/hosts", "etc/secret", "docker-init"} {
		ok(t, os.WriteFile(filepath.Join(dir, f), []byte("canary\n"), 0o666))
	}
	h.tree, h.files = h.listing(), h.sums()
	t.Cleanup(func() {
		h.intact()
		if after := h.sums(); after != h.files {
			t.Errorf("the host's files have changed:\n%s\nwere\n%s", after, h.files)
		}
	})
	return h
}

func ok(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// intact compares the tree outside with what it was.
func (h *hostile) intact() {
	h.t.Helper()
	if after := h.listing(); after != h.tree {
		h.t.Errorf("outside has changed:\n%s\nwas\n%s", after, h.tree)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	ok(h.t, err)
	if strings.Contains(string(mounts), h.out) {
		h.t.Error("something is mounted outside")
	}
}

// listing describes the tree outside.
func (h *hostile) listing() string {
	h.t.Helper()
	var b strings.Builder
	ok(h.t, filepath.WalkDir(h.out, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st syscall.Stat_t
		if err := syscall.Lstat(path, &st); err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s %o %d:%d", strings.TrimPrefix(path, h.out), st.Mode, st.Uid, st.Gid)
		if d.Type().IsRegular() {
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " %q", content)
		}
		b.WriteByte('\n')
		return nil
	}))
	return b.String()
}

// sums are those of binaries and files of the host that attackers are after.
func (h *hostile) sums() string {
	h.t.Helper()
	var b strings.Builder
	for _, path := range []string{shared.bin + "/oar", shared.bin + "/wherryd", shared.bin + "/wherry", "/etc/passwd", "/etc/hosts", "/proc/sys/kernel/core_pattern"} {
		content, err := os.ReadFile(path)
		ok(h.t, err)
		fmt.Fprintf(&b, "%s %x\n", path, sha256.Sum256(content))
	}
	return b.String()
}

// run runs a client against the shared engine and returns what it printed and its exit code.
func (h *hostile) run(client string, args ...string) (string, int) {
	h.t.Helper()
	out, err := shared.engine.run(client, args...)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return out, exit.ExitCode()
	}
	ok(h.t, err)
	return out, 0
}

// must runs a client that succeeds.
func (h *hostile) must(client string, args ...string) string {
	h.t.Helper()
	out, code := h.run(client, args...)
	if code != 0 {
		h.t.Fatalf("%s %s: exit code %d\n%s", client, strings.Join(args, " "), code, out)
	}
	return strings.TrimSpace(out)
}

// background starts a container that the test's end removes.
func (h *hostile) background(args ...string) string {
	h.t.Helper()
	id := h.must("wherry", append([]string{"run", "-d"}, args...)...)
	h.t.Cleanup(func() { h.must("wherry", "rm", "-f", "-v", id) })
	return id
}

// piece is an entry of a layer.
type piece struct {
	name, link, content string
	kind                byte // 0: a file, or a link where link says where to
	mode                int64
	major, minor        int64
}

func symlink(name, to string) piece { return piece{name: name, link: to, kind: tar.TypeSymlink} }

func layerOf(pieces ...piece) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, p := range pieces {
		h := tar.Header{Typeflag: tar.TypeReg, Name: p.name, Linkname: p.link, Mode: p.mode, Size: int64(len(p.content)), Devmajor: p.major, Devminor: p.minor}
		if p.kind != 0 {
			h.Typeflag = p.kind
		}
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		if err := errors.Join(w.WriteHeader(&h), ignoreShort(w.Write([]byte(p.content)))); err != nil {
			panic(err)
		}
	}
	_ = w.Close()
	return b.Bytes()
}

func ignoreShort(_ int, err error) error { return err }

// baseLayer has busybox and the probe, for both system call interfaces.
var baseLayer = sync.OnceValues(func() ([]byte, error) {
	pieces := []piece{{name: "etc/passwd", content: "root:x:0:0::/root:/bin/sh\nweb:x:33:33::/:/bin/sh\n", mode: 0o644}, {name: "etc/group", content: "root:x:0:\nweb:x:33:\n", mode: 0o644}}
	for _, d := range []string{"bin", "proc", "dev", "sys", "etc", "var", "root"} {
		pieces = append(pieces, piece{name: d + "/", kind: tar.TypeDir})
	}
	pieces = append(pieces, piece{name: "tmp/", kind: tar.TypeDir, mode: 0o1777})
	for _, a := range strings.Fields("sh cat ls echo id env touch sleep pwd mkdir ln rm true truncate mkfifo mv cp test head stat readlink wc tr") {
		pieces = append(pieces, symlink("bin/"+a, "busybox"))
	}
	files := map[string]string{"busybox": "/bin/busybox"}
	for name, arch := range map[string]string{"probe": "amd64", "probe32": "386"} {
		files[name] = filepath.Join(shared.dir, name)
		cmd := exec.Command("go", "build", "-o", files[name], "../internal/ociruntime/testdata/probe")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+arch)
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build the probe: %w: %s", err, out)
		}
	}
	for name, from := range files {
		b, err := os.ReadFile(from)
		if err != nil {
			return nil, err
		}
		pieces = append(pieces, piece{name: "bin/" + name, content: string(b)})
	}
	return layerOf(pieces...), nil
})

// image loads an image of busybox and of whatever an attacker may put on top, with any configuration, and returns its name.
func (h *hostile) image(name string, config map[string]any, pieces ...piece) string {
	h.t.Helper()
	full, out, err := h.load(name, config, pieces...)
	if err != nil {
		h.t.Fatalf("load %s: %v: %s", name, err, out)
	}
	return full
}

func (h *hostile) load(name string, config map[string]any, pieces ...piece) (full, out string, err error) {
	h.t.Helper()
	base, err := baseLayer()
	ok(h.t, err)
	layers := [][]byte{base, layerOf(append(pieces, piece{name: "var/of", content: name})...)}
	var diffs, names []string
	var archive []piece
	for i, l := range layers {
		diffs, names = append(diffs, fmt.Sprintf("sha256:%x", sha256.Sum256(l))), append(names, fmt.Sprintf("%d.tar", i))
		archive = append(archive, piece{name: names[i], content: string(l)})
	}
	whole := map[string]any{"PATH": "/bin"}
	for k, v := range config {
		whole[k] = v
	}
	if whole["Env"] == nil {
		whole["Env"] = []string{"PATH=/bin"}
	}
	c, err := json.Marshal(map[string]any{"architecture": "amd64", "os": "linux", "config": whole, "rootfs": map[string]any{"type": "layers", "diff_ids": diffs}})
	ok(h.t, err)
	full = "hostile/" + name + ":1"
	if strings.Contains(name, ":") {
		full = name
	}
	m, err := json.Marshal([]map[string]any{{"Config": "config.json", "RepoTags": []string{full}, "Layers": names}})
	ok(h.t, err)
	archive = slices.Concat(archive, []piece{{name: "config.json", content: string(c)}, {name: "manifest.json", content: string(m)}})
	file := filepath.Join(h.t.TempDir(), "image.tar")
	ok(h.t, os.WriteFile(file, layerOf(archive...), 0o644))
	out, err = shared.engine.run("wherry", "load", "-q", "-i", file)
	return full, out, err
}

// eventuallyLogs waits until a container has printed something.
func eventuallyLogs(h *hostile, id, text string) error {
	return eventually(20*time.Second, func() error {
		if out, _ := h.run("wherry", "logs", id); !strings.Contains(out, text) {
			return fmt.Errorf("no %q in %q", text, out)
		}
		return nil
	})
}
