package erofs

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// attrOf is what a tar header says of a file.
func attrOf(h *tar.Header) *Attr {
	a := &Attr{Mode: uint32(h.Mode) & permissionMask, UID: uint32(h.Uid), GID: uint32(h.Gid), Sec: h.ModTime.Unix(), Nsec: uint32(h.ModTime.Nanosecond())}
	a.Mode |= map[byte]uint32{tar.TypeReg: typeRegular, tar.TypeDir: typeDir, tar.TypeSymlink: typeLink, tar.TypeChar: typeChar,
		tar.TypeBlock: typeBlock, tar.TypeFifo: typeFifo}[h.Typeflag]
	a.Rdev = Device(uint32(h.Devmajor), uint32(h.Devminor))
	for k, v := range h.PAXRecords {
		if name, ok := strings.CutPrefix(k, "SCHILY.xattr."); ok {
			a.Xattrs = append(a.Xattrs, Xattr{Name: name, Value: []byte(v)})
		}
	}
	return a
}

// fromTar puts a tar into an image. Its directories come before what is in them.
func fromTar(w *Writer, r io.Reader) error {
	dirs := map[string]Ino{".": w.Root()}
	inos := map[string]Ino{}
	for in := tar.NewReader(r); ; {
		h, err := in.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		name := path.Clean(h.Name)
		dir, base := dirs[path.Dir(name)], path.Base(name)
		if name == "." {
			if err := w.SetAttr(w.Root(), attrOf(h)); err != nil {
				return err
			}
			continue
		}
		var ino Ino
		switch h.Typeflag {
		case tar.TypeReg:
			if ino, err = w.AddFile(dir, base, uint64(h.Size), attrOf(h)); err == nil {
				_, err = w.ReadFrom(in)
			}
		case tar.TypeSymlink:
			ino, err = w.AddLink(dir, base, h.Linkname, attrOf(h))
		case tar.TypeLink:
			ino = inos[path.Clean(h.Linkname)]
			err = w.Link(dir, base, ino)
		default:
			ino, err = w.Add(dir, base, attrOf(h))
		}
		if err != nil {
			return err
		}
		if inos[name] = ino; h.Typeflag == tar.TypeDir {
			dirs[name] = ino
		}
	}
}

// sample is a tar with everything that a layer may hold.
func sample(t *testing.T) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	random := rand.New(rand.NewPCG(1, 2))
	add := func(h tar.Header, data []byte) {
		h.Size, h.Format = int64(len(data)), tar.FormatPAX
		if h.ModTime.IsZero() {
			h.ModTime = time.Unix(1.6e9+int64(random.IntN(1e6)), int64(random.IntN(1e9)))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	xattrs := func(kv ...string) map[string]string {
		m := map[string]string{}
		for i := 0; i < len(kv); i += 2 {
			m["SCHILY.xattr."+kv[i]] = kv[i+1]
		}
		return m
	}
	content := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		return b
	}
	dir := func(name string) { add(tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755}, nil) }
	add(tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o751, Uid: 3, Gid: 4, ModTime: time.Unix(1e9, 123456789)}, nil)
	add(tar.Header{Typeflag: tar.TypeDir, Name: "sticky", Mode: 0o1777}, nil)
	dir("sizes")
	for _, n := range []int{0, 1, 511, 512, 513, 4032, 4095, 4096, 4097, 8191, 70000, bufferSize, bufferSize + 1} {
		add(tar.Header{Typeflag: tar.TypeReg, Name: "sizes/" + strconv.Itoa(n), Mode: 0o644, Uid: 70000, Gid: 1 << 31}, content(n))
	}
	add(tar.Header{Typeflag: tar.TypeReg, Name: "su", Mode: 0o4755}, []byte("x"))
	add(tar.Header{Typeflag: tar.TypeReg, Name: "old", Mode: 0o600, ModTime: time.Unix(-5, 5)}, nil)
	add(tar.Header{Typeflag: tar.TypeLink, Name: "su2", Linkname: "su"}, nil)
	add(tar.Header{Typeflag: tar.TypeLink, Name: "sticky/su3", Linkname: "su2"}, nil)
	add(tar.Header{Typeflag: tar.TypeReg, Name: "ping", Mode: 0o755, PAXRecords: xattrs("security.capability", "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		"user.a", "", "user.b", "odd")}, content(5000))
	add(tar.Header{Typeflag: tar.TypeReg, Name: "long", Mode: 0o755, PAXRecords: xattrs("user.long", strings.Repeat("v", 3000))}, content(10))
	add(tar.Header{Typeflag: tar.TypeDir, Name: "opaque", Mode: 0o700, PAXRecords: xattrs("trusted.overlay.opaque", "y", "user.long", strings.Repeat("w", 490))}, nil)
	add(tar.Header{Typeflag: tar.TypeSymlink, Name: "opaque/ln", Linkname: "../su", Mode: 0o777, PAXRecords: xattrs("trusted.t", "of a link")}, nil)
	add(tar.Header{Typeflag: tar.TypeChar, Name: "null", Mode: 0o666, Devmajor: 1, Devminor: 3}, nil)
	add(tar.Header{Typeflag: tar.TypeBlock, Name: "disk", Mode: 0o660, Devmajor: 259, Devminor: 70000}, nil)
	add(tar.Header{Typeflag: tar.TypeChar, Name: "whiteout", Mode: 0}, nil)
	add(tar.Header{Typeflag: tar.TypeFifo, Name: "pipe", Mode: 0o644}, nil)
	dir("links")
	for _, n := range []int{1, 59, 60, 447, 448, 449, 512, 3000, 4031, 4032, 4095} {
		add(tar.Header{Typeflag: tar.TypeSymlink, Name: "links/" + strconv.Itoa(n), Linkname: strings.Repeat("l", n), Mode: 0o777}, nil)
	}
	dir("names")
	for i := range 600 {
		add(tar.Header{Typeflag: tar.TypeReg, Name: "names/" + strings.Repeat(string(rune('!'+i%90)), 1+random.IntN(250)) + strconv.Itoa(i), Mode: 0o644}, nil)
	}
	add(tar.Header{Typeflag: tar.TypeReg, Name: "names/" + strings.Repeat("ü", 127) + "x", Mode: 0o644}, nil)
	for i := range 40 { // one directory for each length of tail
		dir("tail" + strconv.Itoa(i))
		for j := range i {
			add(tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("tail%d/%d", i, j), Mode: 0o644}, content(j*100))
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// image makes an image of a tar, and returns its path.
func image(t testing.TB, layer []byte, o Options) string {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "layer.erofs"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := NewWriter(f, o)
	if err := fromTar(w, bytes.NewReader(layer)); err != nil {
		t.Fatal(err)
	}
	size, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	if fi, err := f.Stat(); err != nil || fi.Size() != size {
		t.Fatalf("%d bytes said, %v %v", size, fi.Size(), err)
	}
	return f.Name()
}

// mounted mounts an image, attached nowhere, and returns a path into it.
func mounted(t testing.TB, file string) string {
	t.Helper()
	fs, err := unix.Fsopen("erofs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fs)
	if err := errors.Join(unix.FsconfigSetFlag(fs, "ro"), unix.FsconfigSetString(fs, "source", file), unix.FsconfigCreate(fs)); err != nil {
		t.Fatalf("mount %s: %v", file, err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fmt.Sprintf("/proc/self/fd/%d/", fd)
}

// describe tells of everything below a directory, a line for each name.
func describe(t testing.TB, root string) []string {
	t.Helper()
	var out []string
	first := map[uint64]string{}
	err := filepath.WalkDir(root, func(at string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(at, &st); err != nil {
			return err
		}
		rel := strings.TrimPrefix(strings.TrimPrefix(at, strings.TrimSuffix(root, "/")), "/")
		line := fmt.Sprintf("%q %o %d:%d %d.%09d", rel, st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			b, err := os.ReadFile(at)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %d %x", st.Size, sha256.Sum256(b))
			if first[st.Ino] == "" {
				first[st.Ino] = rel
			}
			line += fmt.Sprintf(" links %d same as %q", st.Nlink, first[st.Ino])
		case unix.S_IFLNK:
			target, err := os.Readlink(at)
			if err != nil {
				return err
			}
			line += " " + target
		case unix.S_IFCHR, unix.S_IFBLK:
			line += fmt.Sprintf(" %d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
		}
		out = append(out, line+xattrsOf(t, at))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

func xattrsOf(t testing.TB, at string) string {
	t.Helper()
	buf, value := make([]byte, 64<<10), make([]byte, 64<<10)
	n, err := unix.Llistxattr(at, buf)
	if err != nil {
		t.Fatal(err)
	}
	names := strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00")
	slices.Sort(names)
	out := ""
	for _, name := range names {
		if name == "" {
			continue
		}
		n, err := unix.Lgetxattr(at, name, value)
		if err != nil {
			t.Fatal(err)
		}
		out += fmt.Sprintf(" %s=%q", name, value[:n])
	}
	return out
}

func same(t *testing.T, got, want []string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%d names, want %d", len(got), len(want))
	}
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			t.Fatalf("got  %.300s\nwant %.300s", got[i], want[i])
		}
	}
}
