package snapshot

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"

	"wherry.dev/wherry/internal/erofs"
	"wherry.dev/wherry/internal/layer"
)

// manyFiles is the tar of n small files, a thousand in a directory, which is made while it is read. atEnd is called when all have been read.
type manyFiles struct {
	n, i  int
	buf   bytes.Buffer
	out   *tar.Writer
	atEnd func()
}

func (m *manyFiles) Read(b []byte) (int, error) {
	for m.buf.Len() == 0 {
		if m.i > m.n {
			return 0, io.EOF
		}
		if err := m.next(); err != nil {
			return 0, err
		}
	}
	return m.buf.Read(b)
}

func (m *manyFiles) next() error {
	if m.out == nil {
		m.out = tar.NewWriter(&m.buf)
	}
	if m.i++; m.i > m.n {
		m.atEnd()
		return m.out.Close()
	}
	content := strconv.Itoa(m.i)
	err := m.out.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("d%04d/f%07d", m.i/1000, m.i), Mode: 0o644, Size: int64(len(content))})
	if err == nil {
		_, err = io.WriteString(m.out, content)
	}
	return err
}

func (m *manyFiles) Close() error { return nil }

// TestManyFiles: a layer costs memory for each name that it has, and little. WHERRY_TEST_FILES=1000000 has that many.
func TestManyFiles(t *testing.T) {
	n := 50_000
	if s := os.Getenv("WHERRY_TEST_FILES"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	used := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	path := filepath.Join(t.TempDir(), layerFile)
	i, err := NewImage(path, ImageOptions{Base: true})
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	before, after := used(), uint64(0)
	sums, err := layer.Unpack(t.Context(), &manyFiles{n: n, atEnd: func() { after = used() }}, i)
	if err != nil {
		t.Fatal(err)
	}
	const each, free = 120, 8 << 20
	if most := before + free + each*uint64(n); after > most {
		t.Errorf("%d files take %d bytes of memory, %d are the most", n, after-before, most-before)
	}
	t.Logf("%d files took %d bytes of memory each, tar %s", n, (after-before)/uint64(n), sums.Diff)
	if err := errors.Join(i.Finish(), i.Settle(nil), i.Sync()); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := readerOf(f)
	if err != nil {
		t.Fatal(err)
	}
	names := 0
	err = r.Walk(t.Context(), func(string, *erofs.Node) error { names++; return nil })
	if err != nil || names < n {
		t.Errorf("the image has %d names, %v", names, err)
	}
}
