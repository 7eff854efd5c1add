package retar

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// unpacked are the files of a tar, by name; the last of several with one name counts.
func unpacked(t testing.TB, b []byte) func(string) (io.ReadCloser, error) {
	t.Helper()
	files := map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := r.Next()
		if err != nil {
			break
		}
		content, err := io.ReadAll(r)
		if err != nil {
			break
		}
		files[filepath.Clean("/" + h.Name)[1:]] = content
	}
	return func(name string) (io.ReadCloser, error) {
		content, ok := files[name]
		if !ok {
			return nil, os.ErrNotExist
		}
		return io.NopCloser(bytes.NewReader(content)), nil
	}
}

func again(t testing.TB, b []byte) (record, made []byte, err error) {
	t.Helper()
	var rec, out bytes.Buffer
	if err := Record(&rec, bytes.NewReader(b)); err != nil {
		return nil, nil, err
	}
	err = Make(&out, bytes.NewReader(rec.Bytes()), unpacked(t, b))
	return rec.Bytes(), out.Bytes(), err
}

// pseudo are bytes that do not compress.
func pseudo(n int) string {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return string(b)
}

// goTar has entries of all kinds, in the three formats that Go writes.
func goTar(t testing.TB) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for i, f := range []tar.Format{tar.FormatUSTAR, tar.FormatPAX, tar.FormatGNU} {
		dir := fmt.Sprintf("./d%d/", i)
		list := []tar.Header{
			{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755}, {Typeflag: tar.TypeReg, Name: dir + "file", Mode: 0o4755, Uid: 7},
			{Typeflag: tar.TypeReg, Name: dir + "empty"}, {Typeflag: tar.TypeSymlink, Name: dir + "s", Linkname: "file"},
			{Typeflag: tar.TypeLink, Name: dir + "l", Linkname: dir + "file"}, {Typeflag: tar.TypeChar, Name: dir + "c", Devmajor: 1, Devminor: 3},
			{Typeflag: tar.TypeReg, Name: dir + ".wh.gone"},
		}
		if f != tar.FormatUSTAR {
			list = append(list, tar.Header{Typeflag: tar.TypeReg, Name: dir + strings.Repeat("long/", 40) + "ümläut"})
		}
		for _, h := range list {
			h.Format = f
			content := ""
			if h.Typeflag == tar.TypeReg && !strings.HasSuffix(h.Name, "empty") && !strings.Contains(h.Name, ".wh.") {
				content = pseudo(70_000 + i)
			}
			h.Size = int64(len(content))
			if err := w.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(w, content); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// ofTar is what a program makes of a folder with a sparse file and others.
func ofTar(t *testing.T, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("sh", "-ec", `mkdir -p a/b; printf hello >a/b/c; ln -s c a/b/s; ln a/b/c a/l; truncate -s 300K sparse; printf end >>sparse
tar -c "$@" .`, "sh")
	cmd.Args = append(cmd.Args, args...)
	cmd.Dir = t.TempDir()
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestTarsAreMadeAgain(t *testing.T) {
	rows := map[string][]byte{
		"Go": goTar(t), "without an end": goTar(t)[:len(goTar(t))-1024], "more behind its end": append(goTar(t), pseudo(5000)...), "empty": make([]byte, 1024),
		"no bytes": nil, "GNU": ofTar(t), "GNU, sparse": ofTar(t, "-S"), "POSIX": ofTar(t, "--format=posix"), "POSIX, sparse": ofTar(t, "-S", "--format=posix"),
		"old sparse": ofTar(t, "-S", "--format=posix", "--sparse-version=0.1"), "v7": ofTar(t, "--format=v7"),
	}
	for name, b := range rows {
		record, made, err := again(t, b)
		if err != nil || !bytes.Equal(made, b) {
			t.Errorf("%s: %d bytes became %d, %v", name, len(b), len(made), err)
		}
		if name == "Go" && len(record) > 5000 {
			t.Errorf("%s: the record of %d bytes has %d", name, len(b), len(record))
		}
	}
	if _, _, err := again(t, []byte(strings.Repeat("no tar", 1000))); err == nil {
		t.Error("what is no tar was recorded")
	}
}

// TestFilesThatAreNotWhatTheyWere: a file that is gone or shorter is an error; one with other bytes is the digest's matter.
func TestFilesThatAreNotWhatTheyWere(t *testing.T) {
	b := goTar(t)
	var rec bytes.Buffer
	if err := Record(&rec, bytes.NewReader(b)); err != nil {
		t.Fatal(err)
	}
	for name, open := range map[string]func(string) (io.ReadCloser, error){
		"gone":  func(string) (io.ReadCloser, error) { return nil, os.ErrNotExist },
		"short": func(string) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("short")), nil },
	} {
		if err := Make(io.Discard, bytes.NewReader(rec.Bytes()), open); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	for _, cut := range []int{0, 10, rec.Len() / 2, rec.Len() - 5} {
		if err := Make(io.Discard, bytes.NewReader(rec.Bytes()[:cut]), unpacked(t, b)); err == nil {
			t.Errorf("a record of %d bytes instead of %d: no error", cut, rec.Len())
		}
	}
}

// TestWaysStay: stores have blobs that only the same bytes bring back. When this fails, a library compresses otherwise than it did: keep what it
// did, under the way's name.
func TestWaysStay(t *testing.T) {
	b := goTar(t)
	b = append(b, bytes.Repeat([]byte("some text that repeats itself, and "), 20000)...)
	for way, want := range map[Way]string{
		Plain:  "ef214f0f2c9752ab3220dc33e2fd4cda27b140ba9dd012e04f5ea0594c863382",
		Fast:   "e33d007f4bd5a776b67e60498fdca367ac0d66d3a40bbdf1636314446a7f4de7",
		GoFast: "cb356d60639d0d06b06f8641bbc2f433adb74080b11b9790fff0591449f1a0fc",
		Go:     "886c93d221e865acceb44d40e0703d4ec10783031f995d7303747abc399c1e72",
	} {
		var out []byte
		for _, piece := range []int{1 << 30, 32 << 10, 1000} { // however it is written
			out = written(t, way, b, piece)
			if got := fmt.Sprintf("%x", sha256.Sum256(out)); got != want {
				t.Errorf("%s, in pieces of %d: %s", way, piece, got)
			}
		}
		if list := WaysOf(out[:10]); !slices.Contains(list, way) {
			t.Errorf("%s looks like %v", way, list)
		}
	}
	if _, err := Way("other").Writer(io.Discard); err == nil {
		t.Error("an unknown way")
	}
	for _, other := range []string{"\x28\xb5\x2f\xfd123456", "BZh9123456", "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03"} {
		if list := WaysOf([]byte(other)); list != nil {
			t.Errorf("%q looks like %v", other, list)
		}
	}
}

func written(t *testing.T, way Way, b []byte, piece int) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := way.Writer(&out)
	if err != nil {
		t.Fatal(err)
	}
	for p := range slices.Chunk(b, piece) {
		if _, err := w.Write(p); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func FuzzRecord(f *testing.F) {
	f.Add(goTar(f)[:6000])
	f.Add(make([]byte, 1024))
	f.Fuzz(func(t *testing.T, b []byte) {
		var rec bytes.Buffer
		if len(b) > 1<<20 || Record(&rec, bytes.NewReader(b)) != nil {
			return
		}
		// Whatever was recorded is made again, where each file has one content.
		var content [][]byte
		names := map[string]bool{}
		for r := tar.NewReader(bytes.NewReader(b)); ; {
			h, err := r.Next()
			if err != nil {
				break
			}
			if !isFile(h) {
				continue
			}
			c, err := io.ReadAll(r)
			if err != nil || names[h.Name] {
				return
			}
			content = append(content, c)
		}
		var out bytes.Buffer
		err := Make(&out, &rec, func(string) (io.ReadCloser, error) {
			c := content[0]
			content = content[1:]
			return io.NopCloser(bytes.NewReader(c)), nil
		})
		if err != nil || !bytes.Equal(out.Bytes(), b) {
			t.Errorf("%d bytes became %d: %v", len(b), out.Len(), err)
		}
	})
}

func FuzzMake(f *testing.F) {
	var rec bytes.Buffer
	if err := Record(&rec, bytes.NewReader(goTar(f)[:6000])); err == nil {
		f.Add(rec.Bytes())
	}
	f.Add([]byte(firstLine))
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = Make(&limited{left: 1 << 20}, bytes.NewReader(b), func(string) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("content")), nil })
	})
}

// limited ends what would not.
type limited struct{ left int }

func (l *limited) Write(b []byte) (int, error) {
	if l.left -= len(b); l.left < 0 {
		return 0, io.ErrShortWrite
	}
	return len(b), nil
}
