package snapshot

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/erofs"
	"wherry.dev/wherry/internal/layer"
	"wherry.dev/wherry/internal/rootfs"
)

// place is where a test's store lies.
type place string

func newPlace(t *testing.T) place {
	t.Helper()
	dir := t.TempDir()
	t.Cleanup(func() {
		if err := newMounts(Options{Root: filepath.Join(dir, "snapshots"), Mounts: filepath.Join(dir, "layers")}).Release(); err != nil {
			t.Error(err)
		}
	})
	return place(dir)
}

func (p place) open(t *testing.T, format Format) *Snapshotter {
	t.Helper()
	s, err := Open(Options{Root: filepath.Join(string(p), "snapshots"), Mounts: filepath.Join(string(p), "layers"), Format: format, Log: func(err error) { t.Log(err) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

type entry = tar.Header

func file(name string, mode int64) entry { return entry{Typeflag: tar.TypeReg, Name: name, Mode: mode} }

// tarOf writes entries; a regular file's content is its name, 1000 times, unless it is a whiteout's.
func tarOf(t testing.TB, list ...entry) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for i, h := range list {
		var data []byte
		if h.Typeflag == tar.TypeReg && !strings.HasPrefix(filepath.Base(h.Name), ".wh.") {
			data = []byte(strings.Repeat(h.Name, 1000))
		}
		h.Size, h.Format, h.ModTime = int64(len(data)), tar.FormatPAX, time.Unix(1e9+int64(i), int64(i)*1001)
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// add unpacks a layer as package image does.
func add(t *testing.T, s *Snapshotter, name, parent string, content []byte) error {
	t.Helper()
	ctx := t.Context()
	mounts, err := s.Prepare(ctx, "unpack "+name, "", snapshots.WithLabels(map[string]string{ForUnpacking: "yes"}))
	if err != nil {
		return err
	}
	below := lower(t, s, parent)
	source := mounts[0].Source
	if mounts[0].Type == FileMount {
		var i *Image
		if i, err = NewImage(source, ImageOptions{Base: parent == ""}); err == nil {
			_, err = layer.Unpack(ctx, io.NopCloser(bytes.NewReader(content)), i)
		}
		if err == nil {
			err = errors.Join(i.Finish(), i.Settle(below), i.Sync())
		}
		err = errors.Join(err, i.Close())
	} else {
		var d *layer.Dir
		if d, err = layer.NewDir(source, layer.DirOptions{Base: parent == ""}); err == nil {
			_, err = layer.Unpack(ctx, io.NopCloser(bytes.NewReader(content)), d)
		}
		if err == nil {
			err = errors.Join(d.Finish(), layer.Inherit(d, below))
		}
	}
	if err != nil {
		return errors.Join(err, s.Remove(ctx, "unpack "+name))
	}
	if parent == "" {
		return s.Commit(ctx, name, "unpack "+name)
	}
	return s.Commit(ctx, name, "unpack "+name, snapshots.WithParent(parent))
}

// lower are the places of a chain's layers, topmost first.
func lower(t *testing.T, s *Snapshotter, top string) []string {
	t.Helper()
	if top == "" {
		return nil
	}
	mounts, err := s.View(t.Context(), "view "+top, top)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(t.Context(), "view "+top); err != nil {
		t.Fatal(err)
	}
	if mounts[0].Type == "bind" {
		return []string{mounts[0].Source}
	}
	list, _ := strings.CutPrefix(mounts[0].Options[0], "lowerdir=")
	return strings.Split(list, ":")
}

// seen is what a container sees of a chain, a line for each name.
func seen(t *testing.T, s *Snapshotter, top string) []string {
	t.Helper()
	view := rootfs.Rootfs{Lower: lower(t, s, top)}
	f, err := view.Mount(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return describe(t, fmt.Sprintf("/proc/self/fd/%d/", f.Fd()))
}

func describe(t *testing.T, root string) (out []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(at string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(at, &st); err == unix.ENOENT {
			out = append(out, fmt.Sprintf("%q is listed, and not there", strings.TrimPrefix(at, root)))
			return nil
		} else if err != nil {
			return &os.PathError{Op: "lstat", Path: at, Err: err}
		}
		line := fmt.Sprintf("%q %o %d:%d %d.%09d %d:%d", strings.TrimPrefix(at, root), st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec, unix.Major(st.Rdev), unix.Minor(st.Rdev))
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			b, err := os.ReadFile(at)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" links %d %.20q %d", st.Nlink, b, len(b))
		case unix.S_IFLNK:
			target, err := os.Readlink(at)
			if err != nil {
				return err
			}
			line += " " + target
		}
		names, err := xattrNames(at)
		if err != nil {
			return err
		}
		slices.Sort(names)
		for _, n := range names {
			v, err := xattrValue(at, n)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %s=%q", n, v)
		}
		out = append(out, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

// chain is layers that do all that layers can do to those below.
func chain(t *testing.T) [][]byte {
	dir := func(name string, mode int64, uid int) entry {
		return entry{Typeflag: tar.TypeDir, Name: name, Mode: mode, Uid: uid, Gid: uid + 1}
	}
	link := func(name, to string) entry {
		return entry{Typeflag: tar.TypeSymlink, Name: name, Linkname: to, Mode: 0o777}
	}
	hard := func(name, to string) entry { return entry{Typeflag: tar.TypeLink, Name: name, Linkname: to} }
	capable := file("usr/ping", 0o755)
	capable.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		"SCHILY.xattr.user.x": "y", "SCHILY.xattr.trusted.overlay.opaque": "y"}
	acl := dir("shared", 0o2775, 7)
	acl.PAXRecords = map[string]string{"SCHILY.xattr.user.note": "kept"}
	return [][]byte{
		tarOf(t, dir("./", 0o755, 0), dir("usr", 0o755, 0), capable, file("usr/su", 0o4755), hard("usr/su2", "usr/su"), link("bin", "usr"), file("bin/through", 0o644),
			acl, file("shared/a", 0o600), dir("shared/deep", 0o700, 9), dir("shared/deep/er", 0o711, 9), file("shared/deep/er/f", 0o644), dir("gone", 0o755, 0), file("gone/x", 0o644),
			dir("opaque", 0o755, 3), file("opaque/old", 0o644), dir("becomes-file", 0o755, 0), file("becomes-file/x", 0o644), file("becomes-dir", 0o644),
			entry{Typeflag: tar.TypeChar, Name: "null", Mode: 0o666, Devmajor: 1, Devminor: 3}, entry{Typeflag: tar.TypeFifo, Name: "pipe", Mode: 0o600}, file("twice", 0o644), file("twice", 0o600)),
		// what it has no entry for comes from below: owner, mode, time, attributes
		tarOf(t, file("shared/deep/er/new", 0o644), file("shared/.wh.a", 0), file(".wh.gone", 0), dir("opaque", 0o750, 4), file("opaque/.wh..wh..opq", 0), file("opaque/new", 0o644),
			file("becomes-file", 0o644), file("becomes-dir/x", 0o644), file("bin/second", 0o644)),
		tarOf(t, dir("gone", 0o711, 5), file("gone/again", 0o644), file("opaque/.wh.new", 0), file("fresh/implicit/f", 0o644), link("loop", "loop"),
			file("usr/.wh.su2", 0), hard("fresh/hard", "fresh/implicit/f"), file("shared/.wh.deep", 0), file("shared/deep/only", 0o644)),
		tarOf(t, file(".wh..wh..opq", 0), dir("usr", 0o700, 1), file("usr/last", 0o644), file("usr/.wh.no", 0)),
	}
}

// TestFormsAgree: containers see the same on layers of both forms, and on chains that mix them.
func TestFormsAgree(t *testing.T) {
	layers := chain(t)
	orders := map[string]func(i int) Format{
		"directories":           func(int) Format { return Overlay },
		"images":                func(int) Format { return EROFS },
		"images on directories": func(i int) Format { return [...]Format{Overlay, EROFS}[min(i, 1)] },
		"by turns":              func(i int) Format { return [...]Format{EROFS, Overlay}[i%2] },
	}
	var want [][]string
	for _, name := range []string{"directories", "images", "images on directories", "by turns"} {
		p := newPlace(t)
		parent := ""
		for i, content := range layers {
			s := p.open(t, orders[name](i)) // a store's choice may change from one life to the next
			chain := fmt.Sprint("layer", i)
			if err := add(t, s, chain, parent, content); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			got := seen(t, s, chain)
			_ = s.Close()
			if parent = chain; name == "directories" {
				want = append(want, got)
				continue
			}
			for n := range max(len(got), len(want[i])) {
				if n >= len(got) || n >= len(want[i]) || got[n] != want[i][n] {
					t.Fatalf("%s, layer %d:\n%s\nwant\n%s", name, i, strings.Join(got[min(n, len(got)):], "\n"), strings.Join(want[i][min(n, len(want[i])):], "\n"))
				}
			}
		}
	}
	if all := strings.Join(want[1], "\n"); strings.Contains(all, "opaque/old") || !strings.Contains(all, `"shared" 42775 7:8`) || !strings.Contains(all, `user.note="kept"`) {
		t.Errorf("layer 1: %s", all)
	}
}

// TestKernelWithoutImages: a store whose layers are images is read on a kernel that cannot mount them, and the other way round.
func TestKernelWithoutImages(t *testing.T) {
	p := newPlace(t)
	s := p.open(t, EROFS)
	for i, content := range chain(t)[:2] {
		if err := add(t, s, fmt.Sprint(i), strings.Repeat("0", i), content); err != nil {
			t.Fatal(err)
		}
	}
	want := seen(t, s, "1")
	if err := errors.Join(s.Images().Release(), s.Close()); err != nil { // a reboot
		t.Fatal(err)
	}
	old := p.open(t, Overlay)
	old.mounts.able = func() error { return errors.New("an old kernel") }
	if f, err := old.mounts.choose(Auto); f != Overlay || err != nil {
		t.Errorf("auto is %s, %v", f, err)
	}
	if _, err := old.mounts.choose(EROFS); err == nil || !strings.Contains(err.Error(), "an old kernel") || !strings.Contains(err.Error(), "6.12") {
		t.Errorf("erofs: %v", err)
	}
	if got := seen(t, old, "1"); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	var st unix.Statfs_t
	if err := unix.Statfs(lower(t, old, "1")[0], &st); err != nil || st.Type == unix.EROFS_SUPER_MAGIC_V1 {
		t.Errorf("an image is mounted (%v)", err)
	}
	if err := add(t, old, "2", "1", tarOf(t, file("more", 0o644))); err != nil {
		t.Fatal(err)
	}
	replaced := lower(t, old, "0")[0]
	before, err := os.Open(replaced)
	if err != nil {
		t.Fatal(err)
	}
	defer before.Close()
	image := old.mounts.file(old.store(), filepath.Base(replaced))
	content, err := os.ReadFile(image)
	if err == nil {
		err = errors.Join(os.WriteFile(image+".new", content, 0o600), old.mounts.Replace(image, image+".new"))
	}
	if err != nil {
		t.Fatal(err)
	}
	if list, err := before.Readdirnames(-1); err != nil || len(list) == 0 {
		t.Errorf("who has the layer open: %v %v", list, err)
	}
	if a, err := os.Stat(replaced); err != nil {
		t.Error(err)
	} else if b, err := before.Stat(); err != nil || os.SameFile(a, b) {
		t.Errorf("the layer was not unpacked again: %v", err)
	}
	if got := seen(t, old, "1"); !slices.Equal(got, want) {
		t.Errorf("unpacked again:\n%s", strings.Join(got, "\n"))
	}
	_ = old.Close()
	next := p.open(t, EROFS)
	if got := seen(t, next, "2"); len(got) != len(want)+1 {
		t.Errorf("with the newer kernel again: %s", strings.Join(got, "\n"))
	}
	for _, name := range []string{"2", "1", "0"} {
		if err := next.Remove(t.Context(), name); err != nil {
			t.Error(err)
		}
	}
	if err := next.Cleanup(t.Context()); err != nil {
		t.Error(err)
	}
	if left, _ := names(next.dir("")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func mountCount(t *testing.T, pid, below string) (n int) {
	t.Helper()
	b, err := os.ReadFile("/proc/" + pid + "/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); strings.HasPrefix(f[4], below+"/") {
			n++
		}
	}
	return n
}

// TestMountedOnce: all who look at a layer share its mount, later lives find it, and it goes with the layer, from everywhere.
func TestMountedOnce(t *testing.T) {
	p := newPlace(t)
	s := p.open(t, EROFS)
	if err := add(t, s, "a", "", tarOf(t, file("f", 0o644))); err != nil {
		t.Fatal(err)
	}
	at := lower(t, s, "a")
	_ = s.Close()
	s = p.open(t, EROFS)
	if got := lower(t, s, "a"); !slices.Equal(got, at) {
		t.Errorf("%v, then %v", at, got)
	}
	layers := filepath.Join(string(p), "layers")
	if n := mountCount(t, "self", layers); n != 1 {
		t.Errorf("%d mounts", n)
	}
	// Another namespace that has copied the mount, and keeps it.
	other := exec.Command("unshare", "-m", "--propagation", "private", "sh", "-c", "echo; exec sleep 1000")
	out, err := other.StdoutPipe()
	if err == nil {
		err = other.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Process.Kill(); _ = other.Wait() }()
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	pid := fmt.Sprint(other.Process.Pid)
	if n := mountCount(t, pid, layers); n != 1 {
		t.Errorf("%d mounts in the other namespace", n)
	}
	if err := unmount(at[0]); err != nil { // by somebody
		t.Fatal(err)
	}
	if here, err := s.Images().Here(at); err != nil || !slices.Equal(here, at) || !isMount(at[0]) {
		t.Errorf("%v %v", here, err)
	}
	moved := []string{strings.Replace(at[0], layers, "/somewhere/else/layers", 1)}
	if here, err := s.Images().Here(moved); err != nil || !slices.Equal(here, at) {
		t.Errorf("%v of another place: %v %v", moved, here, err)
	}
	if err := errors.Join(s.Remove(t.Context(), "a"), s.Cleanup(t.Context())); err != nil {
		t.Fatal(err)
	}
	for _, who := range []string{"self", pid} {
		if n := mountCount(t, who, layers); n != 0 {
			t.Errorf("%d mounts are left for %s", n, who)
		}
	}
	if _, err := s.Images().Here(at); !os.IsNotExist(err) {
		t.Errorf("a layer that is gone: %v", err)
	}
}

// TestAnotherStoresMount: what was mounted for a store that stood at the same place is not taken for this one's.
func TestAnotherStoresMount(t *testing.T) {
	p := newPlace(t)
	s := p.open(t, EROFS)
	if err := add(t, s, "a", "", tarOf(t, file("old", 0o644))); err != nil {
		t.Fatal(err)
	}
	lower(t, s, "a")
	_ = s.Close()
	if err := os.RemoveAll(filepath.Join(string(p), "snapshots")); err != nil {
		t.Fatal(err)
	}
	s = p.open(t, EROFS)
	if err := add(t, s, "a", "", tarOf(t, file("new", 0o644))); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(lower(t, s, "a")[0], "new")); err != nil {
		t.Error(err)
	}
}

// TestCutOff: what an engine was killed in the middle of is gone after the next start, and the layer can be made anew.
func TestCutOff(t *testing.T) {
	p := newPlace(t)
	s := p.open(t, EROFS)
	label := snapshots.WithLabels(map[string]string{ForUnpacking: "yes"})
	mounts, err := s.Prepare(t.Context(), "unpack a", "", label)
	if err != nil || mounts[0].Type != FileMount {
		t.Fatalf("%v %v", mounts, err)
	}
	if u, err := s.Usage(t.Context(), "unpack a"); err != nil || u.Size != 0 {
		t.Errorf("nothing is written: %+v %v", u, err)
	}
	if err := s.Commit(t.Context(), "a", "unpack a"); err == nil {
		t.Error("a layer without a file was committed")
	}
	if err := os.WriteFile(mounts[0].Source, make([]byte, 10000), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(t.Context(), "a", "unpack a"); !errors.Is(err, erofs.ErrDamaged) {
		t.Errorf("half a layer: %v", err)
	}
	for _, dir := range []string{s.dir("99"), filepath.Join(string(p), "layers", "snapshots", "98")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	_ = s.Close()
	s = p.open(t, EROFS)
	if err := s.Cleanup(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left, _ := names(s.dir("")); !slices.Equal(left, []string{"1"}) || len(s.mounts.of("snapshots")) > 0 {
		t.Errorf("left: %v %v", left, s.mounts.of("snapshots"))
	}
	if err := s.Remove(t.Context(), "unpack a"); err != nil {
		t.Fatal(err)
	}
	if err := add(t, s, "a", "", tarOf(t, file("f", 0o644))); err != nil {
		t.Fatal(err)
	}
	if u, err := s.Usage(t.Context(), "a"); err != nil || u.Inodes != 1 || u.Size < 4096 {
		t.Errorf("%+v %v", u, err)
	}
}

// TestDirectoriesOffTheLocks: a removal takes no file away, which Cleanup does, and a commit counts none that has been counted before: both
// are called under locks of the caller's.
func TestDirectoriesOffTheLocks(t *testing.T) {
	s := newPlace(t).open(t, Overlay)
	mounts, err := s.Prepare(t.Context(), "a", "")
	if err != nil {
		t.Fatal(err)
	}
	dir := mounts[0].Source
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "one"), []byte("1"), 0o600), s.Images().Measure(t.Context(), dir)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "two"), []byte("2"), 0o600), s.Commit(t.Context(), "layer", "a")); err != nil {
		t.Fatal(err)
	}
	if u, err := s.Usage(t.Context(), "layer"); err != nil || u.Inodes != 2 {
		t.Errorf("%+v %v", u, err)
	}
	if err := s.Remove(t.Context(), "layer"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "one")); err != nil {
		t.Errorf("removed under the lock: %v", err)
	}
	if err := s.Cleanup(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left, _ := names(s.dir("")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// TestProbeCutOff: nothing stays of a probe that an engine was killed in.
func TestProbeCutOff(t *testing.T) {
	p := newPlace(t)
	_ = p.open(t, EROFS).Close()
	file := filepath.Join(string(p), layerFile)
	i, err := NewImage(file, ImageOptions{Base: true})
	if err == nil {
		err = errors.Join(i.Settle(nil), i.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	below, at := filepath.Join(string(p), "snapshots/probe-1"), filepath.Join(string(p), "layers/probe-2")
	if err := errors.Join(os.MkdirAll(filepath.Join(below, "work/work"), 0o700), os.Mkdir(at, 0o700), mountImage(file, at)); err != nil {
		t.Fatal(err)
	}
	_ = p.open(t, EROFS).Close()
	for _, dir := range []string{below, at} {
		if _, err := os.Lstat(dir); !os.IsNotExist(err) {
			t.Errorf("%s is there: %v", dir, err)
		}
	}
}

// TestNoRoom: a full disk is said so, and nothing stays.
func TestNoRoom(t *testing.T) {
	p := newPlace(t)
	root := filepath.Join(string(p), "snapshots")
	if err := os.Mkdir(root, 0o700); err != nil {
		t.Fatal(err)
	}
	disk := filepath.Join(string(p), "disk")
	if err := errors.Join(os.WriteFile(disk, nil, 0o600), os.Truncate(disk, 3<<20)); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"mkfs.ext4", "-q", "-O", "^has_journal", disk}, {"mount", "-o", "loop", disk, root}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	t.Cleanup(func() { _ = unix.Unmount(root, unix.MNT_DETACH) })
	s := p.open(t, EROFS)
	var big []entry
	for i := range 500 {
		big = append(big, file(fmt.Sprintf("file%04d", i), 0o644))
	}
	if err := add(t, s, "big", "", tarOf(t, big...)); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("%v", err)
	}
	if err := add(t, s, "small", "", tarOf(t, file("f", 0o644))); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	small := lower(t, s, "small")
	if err := errors.Join(s.Images().Release(), s.Close()); err != nil { // a reboot
		t.Fatal(err)
	}
	for i := 0; ; i++ { // no block and no inode
		if err := os.WriteFile(fmt.Sprintf("%s/filler%d", root, i), make([]byte, 1<<20>>min(i, 20)), 0o600); err != nil && i > 20 {
			break
		}
	}
	for _, format := range []Format{EROFS, Auto, Overlay} {
		s = p.open(t, format)
		here, err := s.Images().Here(small)
		if err == nil {
			_, err = os.Lstat(filepath.Join(here[0], "f"))
		}
		if err != nil {
			t.Errorf("%s with no room: %v", format, err)
		}
		if err := errors.Join(s.Images().Release(), s.Close()); err != nil {
			t.Fatal(err)
		}
	}
	s = p.open(t, EROFS)
	if err := s.Remove(t.Context(), "small"); err != nil {
		t.Error(err)
	}
	_ = s.Close()
}

// TestManyLayers: an overlay of 130 images, with a container's ids.
func TestManyLayers(t *testing.T) {
	p := newPlace(t)
	s := p.open(t, EROFS)
	parent := ""
	for i := range 130 {
		name := fmt.Sprint("l", i)
		if err := add(t, s, name, parent, tarOf(t, file("same", int64(0o600+i%8)), file(fmt.Sprint("f", i), 0o644))); err != nil {
			t.Fatal(err)
		}
		parent = name
	}
	upper, work := filepath.Join(string(p), "upper"), filepath.Join(string(p), "work")
	if err := errors.Join(os.Mkdir(upper, 0o755), os.Mkdir(work, 0o755), os.Chown(upper, 100000, 100000), os.Chown(work, 100000, 100000)); err != nil {
		t.Fatal(err)
	}
	r := rootfs.Rootfs{Lower: lower(t, s, parent), Upper: upper, Work: work, IDMap: rootfs.IDMap{Base: 100000, Size: 65536}}
	f, err := r.Mount(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	root := fmt.Sprintf("/proc/self/fd/%d/", f.Fd())
	var st unix.Stat_t
	if err := unix.Stat(root+"same", &st); err != nil || st.Uid != 100000 || st.Mode&0o777 != 0o601 {
		t.Errorf("%+v %v", st, err)
	}
	if list, err := os.ReadDir(root); err != nil || len(list) != 131 {
		t.Errorf("%d names, %v", len(list), err)
	}
}

// TestTogether: snapshots are made, looked at and removed by many at once.
func TestTogether(t *testing.T) {
	p := newPlace(t)
	s := p.open(t, EROFS)
	if err := add(t, s, "base", "", tarOf(t, file("f", 0o644))); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for w := range 8 {
		all.Go(func() {
			for i := range 5 {
				key := fmt.Sprint(w, "-", i)
				mounts, err := s.View(context.Background(), key, "base")
				if err != nil || !isMount(mounts[0].Source) {
					t.Errorf("view: %v %v", mounts, err)
				}
				_, err = s.Prepare(context.Background(), key+"w", "base")
				err = errors.Join(err, s.Commit(context.Background(), key+"c", key+"w"), s.Cleanup(context.Background()))
				if err := errors.Join(err, s.Remove(context.Background(), key+"c"), s.Remove(context.Background(), key)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if err := s.Cleanup(t.Context()); err != nil {
		t.Error(err)
	}
	if left, _ := names(s.dir("")); len(left) != 1 {
		t.Errorf("left: %v", left)
	}
}

// TestTooManyFiles: what would take too much memory as an image stays a directory, and so does what is to.
func TestTooManyFiles(t *testing.T) {
	p := newPlace(t)
	s := p.open(t, EROFS)
	s.kept = 300 << 10
	for n, images := range map[int]int64{10: 1, 5000: 0} {
		key := fmt.Sprint(n)
		mounts, err := s.Prepare(t.Context(), key, "")
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			if err := os.WriteFile(fmt.Sprint(mounts[0].Source, "/", i), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Commit(t.Context(), key+"c", key); err != nil {
			t.Fatal(err)
		}
		at := lower(t, s, key+"c")[0]
		if u, err := s.Usage(t.Context(), key+"c"); err != nil || isMount(at) != (images == 1) || (u.Inodes == 1) != (images == 1) {
			t.Errorf("%d files: %s %+v %v", n, at, u, err)
		}
		if list, err := os.ReadDir(at); err != nil || len(list) != n {
			t.Errorf("%d of %d files, %v", len(list), n, err)
		}
	}
	mounts, err := s.Prepare(t.Context(), "dir", "", snapshots.WithLabels(map[string]string{ForUnpacking: AsDirectory}))
	if err == nil {
		err = os.WriteFile(filepath.Join(mounts[0].Source, "f"), nil, 0o600)
	}
	if err := errors.Join(err, s.Commit(t.Context(), "dirc", "dir")); err != nil {
		t.Fatal(err)
	}
	if at := lower(t, s, "dirc")[0]; isMount(at) {
		t.Error("it is an image")
	}
}

// TestIDsThatAreGivenAgain: what is left of a snapshot whose record could not be written goes, and not what the next one has under its id.
func TestIDsThatAreGivenAgain(t *testing.T) {
	s := newPlace(t).open(t, EROFS)
	if err := add(t, s, "base", "", tarOf(t, file("f", 0o644))); err != nil {
		t.Fatal(err)
	}
	full := errors.New("a full disk")
	err := s.ms.WithTransaction(t.Context(), true, func(ctx context.Context) error {
		snap, err := storage.CreateSnapshot(ctx, snapshots.KindActive, "lost", "base")
		if err == nil {
			err = errors.Join(s.begin(snap, snapshots.Info{Kind: snapshots.KindActive}), full)
		}
		return err
	})
	if _, there := os.Lstat(s.dir("2")); !errors.Is(err, full) || there != nil {
		t.Fatal(err, there)
	}
	release := []func(){s.mounts.lock(s.dir("2")), s.mounts.lock(s.dir(goneMark + "2"))}
	done := make(chan error)
	go func() { done <- s.Cleanup(context.Background()) }()
	for range 1000 { // until Cleanup has seen what it is to remove, and waits
		s.mounts.mu.Lock()
		waits := s.mounts.busy[s.dir("2")].n+s.mounts.busy[s.dir(goneMark+"2")].n > 2
		s.mounts.mu.Unlock()
		if waits {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if _, err := s.Prepare(t.Context(), "next", "base"); err != nil {
		t.Fatal(err)
	}
	mine := s.dir("2", "fs", "mine")
	if err := os.WriteFile(mine, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, unlock := range release {
		unlock()
	}
	if err := errors.Join(<-done, s.Cleanup(t.Context())); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(mine); err != nil {
		t.Error(err)
	}
	if left, _ := names(s.dir("")); len(left) != 2 {
		t.Errorf("left: %v", left)
	}
}

// FuzzImage: whatever a layer holds, it is refused, or becomes an image that can be read.
func FuzzImage(f *testing.F) {
	f.Add(tarOf(f, file("a/b", 0o644), file(".wh.x", 0), file("d/.wh..wh..opq", 0), entry{Typeflag: tar.TypeSymlink, Name: "l", Linkname: "a/../l"}, file("l/x", 0o644)))
	f.Add(tarOf(f, entry{Typeflag: tar.TypeLink, Name: "h", Linkname: "a"}))
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		path := filepath.Join(dir, layerFile)
		i, err := NewImage(path, ImageOptions{Base: false})
		if err != nil {
			t.Fatal(err)
		}
		defer i.Close()
		if _, err := layer.Unpack(t.Context(), io.NopCloser(bytes.NewReader(b)), i); err != nil {
			return
		}
		if err := i.Settle([]string{dir}); err != nil {
			t.Fatal(err)
		}
		r, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		fi, _ := r.Stat()
		read, err := erofs.NewReader(r, fi.Size())
		if err == nil {
			err = read.Walk(t.Context(), func(string, *erofs.Node) error { return nil })
		}
		if err != nil {
			t.Fatal(err)
		}
	})
}
