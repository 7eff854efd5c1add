package image

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

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
				file := s.mounts.ImageOf(place)
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

// TestLostImageIsMadeAnew, as a directory; nothing is mounted either, as after the boot.
func TestLostImageIsMadeAnew(t *testing.T) {
	s, img := damagedStore(t, snapshot.EROFS)
	file := s.mounts.ImageOf(img.Lower[0])
	if err := s.Unmount(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if r, list := checked(t, s, CheckOptions{Repair: true}); r.Damaged != 1 || r.Mended != 1 {
		t.Fatalf("%+v %+v", r, list)
	}
	again, err := s.Resolve(t.Context(), img.Ref, nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(again.Lower[0], "etc/b")); err != nil || string(b) != "small" {
		t.Errorf("%q %v", b, err)
	}
}
