package compare

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/layer"
	"wherry.dev/wherry/internal/rootfs"
)

// made writes a layer down: "path" is an empty file, "path=text", "path/" a directory, "path>target" a symbolic link, "path~name" a hard
// link, "-path" a whiteout, "!path" an opaque directory; "@0600" at the end is a mode.
func made(t *testing.T, lines ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i, line := range lines {
		h := &tar.Header{Typeflag: tar.TypeReg, Mode: 0o644, ModTime: time.Unix(int64(i), 0)}
		line, mode, has := strings.Cut(line, "@")
		body := ""
		switch {
		case strings.HasPrefix(line, "-"):
			h.Name = filepath.Join(filepath.Dir(line[1:]), ".wh."+filepath.Base(line))
		case strings.HasPrefix(line, "!"):
			h.Name = filepath.Join(line[1:], ".wh..wh..opq")
		case strings.Contains(line, ">"):
			h.Typeflag = tar.TypeSymlink
			h.Name, h.Linkname, _ = strings.Cut(line, ">")
		case strings.Contains(line, "~"):
			h.Typeflag = tar.TypeLink
			h.Name, h.Linkname, _ = strings.Cut(line, "~")
		case strings.HasSuffix(line, "/"):
			h.Typeflag, h.Name, h.Mode = tar.TypeDir, line, 0o755
		default:
			h.Name, body, _ = strings.Cut(line, "=")
		}
		if has {
			if _, err := fmt.Sscanf(mode, "%o", &h.Mode); err != nil {
				t.Fatal(err)
			}
		}
		if strings.HasPrefix(h.Name, ".wh.-") {
			h.Name = ".wh." + h.Name[5:]
		}
		h.Size = int64(len(body))
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// image is made of layers, unpacked as the engine does it.
func image(t *testing.T, layers ...[]byte) Image {
	t.Helper()
	img := Image{Open: func(_ context.Context, i int) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(layers[i])), nil
	}}
	for _, text := range layers {
		dir := filepath.Join(t.TempDir(), "layer")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		d, err := layer.NewDir(dir, layer.DirOptions{})
		if err != nil {
			t.Fatal(err)
		}
		sums, err := layer.Unpack(t.Context(), io.NopCloser(bytes.NewReader(text)), d)
		if err == nil {
			err = d.Finish()
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(d.Close(), layer.Inherit(d, img.Lower)); err != nil {
			t.Fatal(err)
		}
		img.Diffs = append(img.Diffs, sums.Diff)
		img.Lower = append([]string{dir}, img.Lower...)
	}
	return img
}

func changes(t *testing.T, before, after Image) []string {
	t.Helper()
	out := []string{}
	err := Compare(t.Context(), before, after, func(c Change) error {
		out = append(out, fmt.Sprintf("%s %s %d %d", c.Kind, c.Path, c.Before, c.After))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// mounted is what an image's file system holds, by the kernel's overlay: what Compare says has to agree with it.
func mounted(t *testing.T, img Image) map[string]string {
	t.Helper()
	r := rootfs.Rootfs{Lower: img.Lower}
	root, err := r.Mount(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	top := fmt.Sprintf("/proc/self/fd/%d/", root.Fd())
	out := map[string]string{}
	err = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); errors.Is(err, unix.ENOENT) || err == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR {
			return nil // a whiteout that has nothing below it: overlay lists its name
		} else if err != nil {
			return err
		}
		text := fmt.Sprintf("%o %d:%d", st.Mode, st.Uid, st.Gid)
		name := "/" + strings.TrimPrefix(path, top)
		switch {
		case d.IsDir():
			if name != "/" {
				name += "/"
			}
		case d.Type() == fs.ModeSymlink:
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			text += to
		case d.Type().IsRegular():
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text += fmt.Sprintf(" %x", sha256.Sum256(b))
		}
		out[name] = text
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	delete(out, "/")
	return out
}

// agrees holds changes against two mounted images.
func agrees(t *testing.T, before, after Image, said []string) {
	t.Helper()
	old, young := mounted(t, before), mounted(t, after)
	want := map[string]bool{}
	for path, is := range young {
		if was, ok := old[path]; !ok {
			want["A "+path] = true
		} else if was != is {
			want["C "+path] = true
		}
	}
	for path := range old {
		if _, ok := young[path]; !ok {
			want["D "+path] = true
		}
	}
	// A directory that has gone stands for what was in it; one that became something else is a change.
	for line := range want {
		for at := strings.LastIndexByte(strings.TrimSuffix(line[2:], "/"), '/'); at > 0; at = strings.LastIndexByte(line[2:2+at], '/') {
			if line[0] == 'D' && want["D "+line[2:2+at]+"/"] && young[line[2:2+at]] == "" {
				delete(want, line)
				break
			}
		}
	}
	for path := range young {
		other := path + "/"
		if dir, ok := strings.CutSuffix(path, "/"); ok {
			other = dir
		}
		if _, ok := old[other]; ok && want["A "+path] && want["D "+other] {
			delete(want, "A "+path)
			delete(want, "D "+other)
			want["C "+path] = true
		}
	}
	got := map[string]bool{}
	for _, line := range said {
		got[strings.Join(strings.Fields(line)[:2], " ")] = true
	}
	for line := range want {
		if !got[line] {
			t.Errorf("%s is not said", line)
		}
	}
	for line := range got {
		if !want[line] {
			t.Errorf("%s is said, and is not so", line)
		}
	}
}

func TestCompare(t *testing.T) {
	base := made(t, "etc/", "etc/passwd=root", "etc/group=g", "etc/d/", "etc/d/a=1", "etc/d/b=22", "etc/d/sub/", "etc/d/sub/x=333", "lib>usr/lib", "usr/", "usr/lib/", "usr/lib/so=so", "empty/")
	for name, row := range map[string]struct {
		before, after [][]byte
		want          string
	}{
		"nothing":          {nil, nil, ""},
		"edited":           {nil, [][]byte{made(t, "etc/", "etc/passwd=root2", "etc/new=n", "-etc/group")}, "D /etc/group 1 0|A /etc/new 0 1|C /etc/passwd 4 5"},
		"written again":    {[][]byte{made(t, "etc/passwd=root")}, [][]byte{made(t, "usr/lib/so=so", "etc/d/a=1")}, ""},
		"same size":        {nil, [][]byte{made(t, "etc/d/a=2")}, "C /etc/d/a 1 1"},
		"mode":             {nil, [][]byte{made(t, "etc/d/a=1@0600", "etc/d/@0700")}, "C /etc/d/ 0 0|C /etc/d/a 1 1"},
		"both differ":      {[][]byte{made(t, "opt/a=1", "opt/b=1")}, [][]byte{made(t, "opt/b=2", "opt/c=3")}, "D /opt/a 1 0|C /opt/b 1 1|A /opt/c 0 1"},
		"added and back":   {nil, [][]byte{made(t, "opt/a=1"), made(t, "-opt")}, ""},
		"gone and back":    {nil, [][]byte{made(t, "-etc/passwd"), made(t, "etc/passwd=root")}, ""},
		"folder gone":      {nil, [][]byte{made(t, "-etc/d")}, "D /etc/d/ 6 0"},
		"folder made new":  {nil, [][]byte{made(t, "-etc/d"), made(t, "etc/d/", "etc/d/b=22")}, "D /etc/d/a 1 0|D /etc/d/sub/ 3 0"},
		"opaque":           {nil, [][]byte{made(t, "etc/d/", "!etc/d", "etc/d/new=1")}, "D /etc/d/a 1 0|D /etc/d/b 2 0|A /etc/d/new 0 1|D /etc/d/sub/ 3 0"},
		"opaque in opaque": {[][]byte{made(t, "etc/d/", "!etc/d", "etc/d/sub/", "etc/d/sub/y=4")}, [][]byte{made(t, "etc/", "!etc", "etc/d/", "etc/d/sub/", "etc/d/sub/y=4")}, "D /etc/group 1 0|D /etc/passwd 4 0"},
		"folder to file":   {nil, [][]byte{made(t, "etc/d=file")}, "C /etc/d 0 4|D /etc/d/a 1 0|D /etc/d/b 2 0|D /etc/d/sub/ 3 0"},
		"file to folder":   {[][]byte{made(t, "etc/passwd/", "etc/passwd/x=1")}, nil, "C /etc/passwd 0 4|D /etc/passwd/x 1 0"},
		"link to folder":   {nil, [][]byte{made(t, "lib/", "lib/x=1")}, "C /lib/ 0 0|A /lib/x 0 1"},
		"link":             {nil, [][]byte{made(t, "lib>usr")}, "C /lib 0 0"},
		"hard link":        {[][]byte{made(t, "h/a=text", "h/b~h/a")}, [][]byte{made(t, "h/a=text", "h/b=text")}, ""},
		"folder is empty":  {nil, [][]byte{made(t, "empty/", "more/"), made(t, "-more/none")}, "A /more/ 0 0"},
	} {
		t.Run(name, func(t *testing.T) {
			before, after := image(t, append([][]byte{base}, row.before...)...), image(t, append([][]byte{base}, row.after...)...)
			got := changes(t, before, after)
			if strings.Join(got, "|") != row.want {
				t.Errorf("%s\nnot\n%s", strings.Join(got, "\n"), strings.ReplaceAll(row.want, "|", "\n"))
			}
			agrees(t, before, after, got)
			back := changes(t, after, before)
			agrees(t, after, before, back)
			// One that is not here is compared just so.
			remote := after
			remote.Lower = nil
			if there := changes(t, before, remote); !slices.Equal(there, got) {
				t.Errorf("at its registry: %v", there)
			}
		})
	}
}

// TestNothingShared: images without a common layer, which are compared file by file.
func TestNothingShared(t *testing.T) {
	before := image(t, made(t, "a=1", "b=2", "d/", "d/x=1"), made(t, "-b", "d/y=1"))
	after := image(t, made(t, "a=1", "c=3", "d/", "d/y=1"), made(t, "d/x=1"))
	got := changes(t, before, after)
	if strings.Join(got, "|") != "A /c 0 1" {
		t.Errorf("%v", got)
	}
	agrees(t, before, after, got)
}

// TestSharedLayersAreNotRead, and what is read is held against its digest.
func TestSharedLayersAreNotRead(t *testing.T) {
	base, top, other := made(t, "a=1"), made(t, "a=2"), made(t, "a=3")
	before, after := image(t, base, top), image(t, base, other)
	after.Open = func(_ context.Context, i int) (io.ReadCloser, error) {
		if i == 0 {
			t.Error("the shared layer is read")
		}
		return io.NopCloser(bytes.NewReader(other)), nil
	}
	before.Open = func(_ context.Context, i int) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(top)), nil }
	if got := changes(t, before, after); strings.Join(got, "|") != "C /a 1 1" {
		t.Error(got)
	}
	after.Open = before.Open
	if err := Compare(t.Context(), before, after, func(Change) error { return nil }); err == nil || !strings.Contains(err.Error(), "holds other content") {
		t.Error(err)
	}
}

// TestLimits: what strangers make costs no more than it may.
func TestLimits(t *testing.T) {
	left := 3
	one := &sink{root: &node{}, left: &left}
	_, err := layer.Unpack(t.Context(), io.NopCloser(bytes.NewReader(made(t, "a", "b", "c", "d"))), one)
	if err == nil || !strings.Contains(err.Error(), "too many to compare") {
		t.Error(err)
	}
	deep := image(t, made(t, strings.Repeat("d/", 600)+"f=1"))
	if err := Compare(t.Context(), image(t, made(t, "a")), deep, func(Change) error { return nil }); err == nil || !strings.Contains(err.Error(), "nested too deep") {
		t.Error(err)
	}
}
