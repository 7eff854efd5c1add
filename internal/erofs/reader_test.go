package erofs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestReaderReadsBack: a Reader tells of an image what the kernel tells.
func TestReaderReadsBack(t *testing.T) {
	file := image(t, sample(t), Options{})
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fi, _ := f.Stat()
	r, err := NewReader(f, fi.Size())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	first := map[uint64]string{}
	err = r.Walk(context.Background(), func(name string, n *Node) error {
		line := fmt.Sprintf("%q %o %d:%d %d.%09d", name, n.Mode, n.UID, n.GID, n.Sec, n.Nsec)
		switch n.Mode & typeMask {
		case typeRegular:
			b, err := io.ReadAll(r.Open(n))
			if err != nil {
				return err
			}
			if first[n.Number] == "" {
				first[n.Number] = name
			}
			line += fmt.Sprintf(" %d %x links %d same as %q", n.Size, sha256.Sum256(b), n.Links, first[n.Number])
		case typeLink:
			target, err := r.Target(n)
			if err != nil {
				return err
			}
			line += " " + target
		case typeChar, typeBlock:
			major, minor := MajorMinor(n.Rdev)
			line += fmt.Sprintf(" %d:%d", major, minor)
		}
		slices.SortFunc(n.Xattrs, func(a, b Xattr) int { return strings.Compare(a.Name, b.Name) })
		for _, x := range n.Xattrs {
			line += fmt.Sprintf(" %s=%q", x.Name, x.Value)
		}
		got = append(got, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(got)
	same(t, got, describe(t, mounted(t, file)))
}

func TestReaderRefusesDamage(t *testing.T) {
	b, err := os.ReadFile(image(t, sample(t), Options{}))
	if err != nil {
		t.Fatal(err)
	}
	read := func(b []byte) error {
		r, err := NewReader(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return err
		}
		return r.Walk(context.Background(), func(string, *Node) error { return nil })
	}
	if err := read(b); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 1024, page, len(b) - page} {
		if err := read(b[:n]); !errors.Is(err, ErrDamaged) {
			t.Errorf("cut at %d: %v", n, err)
		}
	}
	bad := slices.Clone(b)
	bad[superAt+17]++
	if err := read(bad); !errors.Is(err, ErrDamaged) {
		t.Errorf("superblock: %v", err)
	}
}

// FuzzReader: whatever an image holds, reading it ends, with an error or without.
func FuzzReader(f *testing.F) {
	small := func(w *Writer) {
		d, _ := w.Add(0, "d", &Attr{Mode: typeDir | 0o755, Xattrs: []Xattr{{"trusted.overlay.opaque", []byte("y")}}})
		_, _ = w.AddFile(d, "f", 3, &Attr{Mode: typeRegular | 0o644})
		_, _ = w.Write([]byte("abc"))
		_, _ = w.AddLink(d, "l", "f", &Attr{Mode: typeLink | 0o777})
	}
	for _, bits := range []uint8{9, 12} {
		file, err := os.Create(filepath.Join(f.TempDir(), "i"))
		if err != nil {
			f.Fatal(err)
		}
		w := NewWriter(file, Options{BlockBits: bits, UUID: [16]byte{1}})
		small(w)
		if _, err := w.Finish(); err != nil {
			f.Fatal(err)
		}
		b, err := os.ReadFile(file.Name())
		file.Close()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[superAt:]) // its first bytes mean nothing
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < superSize {
			return
		}
		b = append(make([]byte, superAt), b...)
		if bits := b[superAt+12]; len(b) >= page && bits >= 9 && bits <= 12 { // with a right checksum, to get further
			clear(b[superAt+4 : superAt+8])
			sum := checksum(b, bits)
			b[superAt+4], b[superAt+5], b[superAt+6], b[superAt+7] = byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24)
		}
		r, err := NewReader(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		names := 0
		_ = r.Walk(context.Background(), func(_ string, n *Node) error {
			if names++; names > 10000 {
				return io.EOF
			}
			if n.Mode&typeMask == typeRegular {
				_, _ = io.Copy(io.Discard, r.Open(n))
			}
			_, _ = r.Target(n)
			return nil
		})
	})
}
