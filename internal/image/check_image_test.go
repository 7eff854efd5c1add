package image

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/erofs"
	"wherry.dev/wherry/internal/snapshot"
)

// TestDamagedImagesAreMended: a layer's image that is damaged in any way is named, and made anew from its tar; who asks for the layer has the new one
// at once, and who had it open keeps what there was.
func TestDamagedImagesAreMended(t *testing.T) {
	ways := map[string]func(b []byte) []byte{
		"flipped": func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		"cut":     func(b []byte) []byte { return b[:len(b)/3] },
		"longer":  func(b []byte) []byte { return append(b, 0) },
		"zeroed":  func(b []byte) []byte { return make([]byte, len(b)) },
	}
	for way, spoil := range ways {
		t.Run(way, func(t *testing.T) {
			s, img := damagedStore(t, snapshot.EROFS)
			for _, place := range img.Lower {
				file := imageFileOf(s, place)
				if file == "" {
					t.Fatalf("%s is no image", place)
				}
				b, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				sound := string(b)
				// A new file, so that the mount goes on with the old one: as after a restore from a bad backup, and without wild reads of the kernel.
				if err := os.Remove(file); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, spoil(b), 0o600); err != nil {
					t.Fatal(err)
				}
				r, list := checked(t, s, CheckOptions{})
				if r.Damaged != 1 || len(list) != 1 || list[0].Kind != "layer" || len(list[0].Users) == 0 {
					t.Fatalf("found: %+v %+v", r, list)
				}
				if r, list = checked(t, s, CheckOptions{Repair: true}); r.Damaged != 1 || r.Mended != 1 {
					t.Fatalf("mended: %+v %+v", r, list)
				}
				if b, err := os.ReadFile(file); err != nil || string(b) != sound && way != "zeroed" { // which has lost its UUID
					t.Errorf("the image made anew is another: %d bytes of %d, %v", len(b), len(sound), err)
				}
				if r, list = checked(t, s, CheckOptions{}); r.Damaged != 0 {
					t.Fatalf("afterwards: %+v %+v", r, list)
				}
			}
			if b, err := os.ReadFile(filepath.Join(img.Lower[1], "bin/a")); err != nil || len(b) != 300000 || b[7] != 'a' {
				t.Errorf("%d bytes, %v", len(b), err)
			}
			for _, place := range img.Lower { // one mount, not one on another
				if err := unix.Unmount(place, unix.MNT_DETACH); err != nil {
					t.Error(err)
				}
				var st unix.Statfs_t
				if err := unix.Statfs(place, &st); err != nil || st.Type == unix.EROFS_SUPER_MAGIC_V1 {
					t.Errorf("%s: mounted twice, or %v", place, err)
				}
			}
		})
	}
}

// imageFileOf is the file of the image that is mounted at a place.
func imageFileOf(s *Service, place string) string {
	return filepath.Join(s.root, "snapshots/snapshots", filepath.Base(place), "layer.erofs")
}

// TestUnmountedImagesAreMended: nothing is mounted, as after the boot, and the kernel cannot mount what is there; the layer becomes an image again, at
// the place where containers have it.
func TestUnmountedImagesAreMended(t *testing.T) {
	ways := map[string]func(file string) error{
		"lost":             os.Remove,
		"lost with all":    func(file string) error { return os.RemoveAll(filepath.Dir(file)) },
		"cut":              func(file string) error { return os.Truncate(file, 1100) },
		"empty":            func(file string) error { return os.Truncate(file, 0) },
		"without a header": func(file string) error { return spoilFile(file, func(b []byte) { clear(b[:4096]) }) },
	}
	for way, spoil := range ways {
		t.Run(way, func(t *testing.T) {
			s, img := damagedStore(t, snapshot.EROFS)
			for i, name := range []string{"etc/b", "bin/a"} {
				if err := errors.Join(s.Unmount(), spoil(imageFileOf(s, img.Lower[i]))); err != nil {
					t.Fatal(err)
				}
				s.forgetLayers()
				if _, err := s.Mounted(img.Lower); err == nil || !strings.Contains(err.Error(), "wherry store repair") {
					t.Errorf("a container that wants it: %v", err)
				}
				if _, err := s.Resolve(t.Context(), img.Ref, nil); err == nil || !strings.Contains(err.Error(), "wherry store repair") {
					t.Errorf("who looks for the image: %v", err)
				}
				if r, list := checked(t, s, CheckOptions{}); r.Damaged == 0 || r.Layers != 2 || list[0].Kind != "layer" {
					t.Fatalf("found: %+v %+v", r, list)
				}
				if r, list := checked(t, s, CheckOptions{Repair: true}); r.Damaged != 1 || r.Mended != 1 {
					t.Fatalf("mended: %+v %+v", r, list)
				}
				if r, list := checked(t, s, CheckOptions{}); r.Damaged != 0 {
					t.Fatalf("afterwards: %+v %+v", r, list)
				}
				if lower, err := s.Mounted(img.Lower); err != nil || !slices.Equal(lower, img.Lower) {
					t.Errorf("containers have it at %v, not %v: %v", lower, img.Lower, err)
				}
				if fi, err := os.Stat(filepath.Join(img.Lower[i], name)); err != nil || fi.Size() == 0 {
					t.Errorf("%v %v", fi, err)
				}
			}
		})
	}
}

func spoilFile(file string, how func(b []byte)) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	how(b)
	return os.WriteFile(file, b, 0o600)
}

// TestImagesOfOtherWriters: an image that another version of the engine has written differently is sound as long as its files are.
func TestImagesOfOtherWriters(t *testing.T) {
	s, img := damagedStore(t, snapshot.EROFS)
	if err := s.Unmount(); err != nil {
		t.Fatal(err)
	}
	file := imageFileOf(s, img.Lower[1])
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fi, _ := f.Stat()
	from, err := erofs.NewReader(f, fi.Size())
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		maker string
		spoil bool
		want  int64
	}{{"wherry-0", false, 0}, {"wherry-0", true, 1}, {erofs.Maker, false, 1}} {
		other, err := rewritten(t, from, row.maker, row.spoil)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(other, file); err != nil {
			t.Fatal(err)
		}
		if r, list := checked(t, s, CheckOptions{}); r.Damaged != row.want {
			t.Errorf("%+v: %+v %+v", row, r, list)
		}
		if r, list := checked(t, s, CheckOptions{Repair: true}); r.Mended != row.want {
			t.Errorf("%+v: %+v %+v", row, r, list)
		}
	}
}

// rewritten is an image of the same files with larger blocks, by another writer's name.
func rewritten(t *testing.T, from *erofs.Reader, maker string, spoil bool) (string, error) {
	path := filepath.Join(t.TempDir(), "image")
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	w := erofs.NewWriter(f, erofs.Options{BlockBits: 12})
	dirs := map[string]erofs.Ino{".": w.Root()}
	err = from.Walk(t.Context(), func(at string, n *erofs.Node) (err error) {
		dir, name := dirs[filepath.Dir(at)], filepath.Base(at)
		switch n.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			if at == "" {
				return w.SetAttr(w.Root(), &n.Attr)
			}
			dirs[at], err = w.Add(dir, name, &n.Attr)
		case unix.S_IFREG:
			if _, err = w.AddFile(dir, name, n.Size, &n.Attr); err == nil {
				b, _ := io.ReadAll(from.Open(n))
				if spoil {
					b[0] ^= 1
				}
				_, err = w.Write(b)
			}
		case unix.S_IFLNK:
			var target string
			if target, err = from.Target(n); err == nil {
				_, err = w.AddLink(dir, name, target, &n.Attr)
			}
		}
		return err
	})
	if err != nil {
		return "", err
	}
	size, err := w.Finish()
	if err == nil {
		err = f.Truncate(size)
	}
	if err != nil {
		return "", err
	}
	return path, spoilFile(path, func(b []byte) {
		copy(b[1024+64:1024+80], maker+"\x00\x00\x00")
		clear(b[1028:1032])
		sum := ^crc32.Checksum(b[1024:4096], crc32.MakeTable(crc32.Castagnoli))
		binary.LittleEndian.PutUint32(b[1028:], sum)
	})
}
