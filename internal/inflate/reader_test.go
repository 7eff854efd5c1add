package inflate

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	kgzip "github.com/klauspost/compress/gzip"
)

// same holds this decoder against compress/gzip on one stream: both take it and give the same, or both refuse it, and then what came
// before the refusal is the same as far as both went.
func same(t *testing.T, stream []byte, wrap func(io.Reader) io.Reader) {
	t.Helper()
	want, wantErr := readAll(func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) }, bytes.NewReader(stream))
	got, gotErr := readAll(again, wrap(bytes.NewReader(stream)))
	if wantErr != nil && gotErr == nil && isPadded(stream, got) {
		return
	}
	if (wantErr == nil) != (gotErr == nil) {
		t.Fatalf("%d bytes, %.40x…: error %v, compress/gzip %v", len(stream), stream, gotErr, wantErr)
	}
	n := min(len(want), len(got))
	if !bytes.Equal(want[:n], got[:n]) || gotErr == nil && len(want) != len(got) {
		t.Fatalf("%d bytes, %.40x…: %d bytes of content, compress/gzip %d", len(stream), stream, len(got), len(want))
	}
	for _, kind := range []error{io.ErrUnexpectedEOF, io.EOF, gzip.ErrHeader, gzip.ErrChecksum} {
		if errors.Is(wantErr, kind) != errors.Is(gotErr, kind) {
			t.Fatalf("%d bytes, %.40x…: error %v, compress/gzip %v", len(stream), stream, gotErr, wantErr)
		}
	}
}

// isPadded says whether compress/gzip reads all of a stream but the zeros at its end, which it does not pass over.
func isPadded(stream, want []byte) bool {
	bare := len(bytes.TrimRight(stream, "\x00"))
	for end := bare; end < len(stream) && end < bare+24; end++ { // the first of them may be a member's
		z, err := gzip.NewReader(bytes.NewReader(stream[:end]))
		if err != nil {
			continue
		}
		if got, err := io.ReadAll(z); err == nil && bytes.Equal(got, want) {
			return true
		}
	}
	return false
}

// again opens one Reader for every stream of a test, so that nothing of the streams before may count.
func again(r io.Reader) (io.Reader, error) { return used, used.Reset(r) }

var used = func() *Reader {
	z := new(Reader)
	z.input.buf, z.window.buf = make([]byte, inSize), new([outSize]byte)
	return z
}()

func readAll(open func(io.Reader) (io.Reader, error), r io.Reader) ([]byte, error) {
	z, err := open(r)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(z, 64<<20))
}

func whole(r io.Reader) io.Reader { return r }

// arrivals are ways in which a stream comes.
var arrivals = map[string]func(io.Reader) io.Reader{
	"whole":                whole,
	"byte by byte":         iotest.OneByteReader,
	"by halves":            iotest.HalfReader,
	"with its end at once": iotest.DataErrReader,
}

// contents are what is compressed in tests.
func contents() map[string][]byte {
	random := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 700<<10)
	few := make([]byte, 500<<10)
	far := make([]byte, 200<<10)
	for i := range noise {
		noise[i] = byte(random.Uint32())
	}
	for i := range few {
		few[i] = "ab"[random.IntN(100)/99]
	}
	for i := range far {
		far[i] = noise[i%32768]
	}
	var text bytes.Buffer
	for i := range 40000 {
		fmt.Fprintf(&text, "line %d of %x\n", i, random.Uint32()>>(i%32))
	}
	mixed := append(append(append([]byte{}, noise[:100000]...), text.Bytes()...), make([]byte, 300000)...)
	return map[string][]byte{
		"nothing": nil, "a byte": {7}, "zeros": make([]byte, 2<<20), "noise": noise, "two letters": few, "far matches": far,
		"text": text.Bytes(), "mixed": mixed, "short runs": []byte(strings.Repeat("abcabcabcdededexyyyyyyyy", 30000)),
	}
}

func compressed(t testing.TB, content []byte, level int) []byte {
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, level)
	if err != nil {
		t.Fatal(err)
	}
	w.Name, w.Comment, w.Extra = "a name", "a comment", []byte("extra")
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestWriters(t *testing.T) {
	for name, content := range contents() {
		for _, level := range []int{gzip.HuffmanOnly, 0, 1, 5, 6, 9} {
			streams := map[string][]byte{"Go": compressed(t, content, level)}
			var b bytes.Buffer
			w, err := kgzip.NewWriterLevel(&b, level)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = w.Write(content)
			_ = w.Flush()
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			streams["klauspost"] = b.Bytes()
			for writer, stream := range streams {
				for arrival, wrap := range arrivals {
					got, err := readAll(func(r io.Reader) (io.Reader, error) { return NewReader(r) }, wrap(bytes.NewReader(stream)))
					if err != nil || !bytes.Equal(got, content) {
						t.Errorf("%s by %s at level %d, %s: %d bytes of %d, %v", name, writer, level, arrival, len(got), len(content), err)
					}
				}
			}
		}
	}
}

func TestWriteTo(t *testing.T) {
	for name, content := range contents() {
		z, err := NewReader(bytes.NewReader(compressed(t, content, 6)))
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if n, err := z.WriteTo(&b); n != int64(len(content)) || err != nil || !bytes.Equal(b.Bytes(), content) {
			t.Errorf("%s: %d bytes, %v", name, n, err)
		}
	}
}

// TestTools: what programs write at their best and their fastest.
func TestTools(t *testing.T) {
	for _, tool := range []string{"gzip -1", "gzip -9", "pigz -p 3 -b 128", "pigz -i -b 128", "zopfli -c --i1"} {
		for name, content := range contents() {
			if strings.HasPrefix(tool, "zopfli") && len(content) > 300<<10 {
				content = content[:40<<10]
			}
			file := filepath.Join(t.TempDir(), "content")
			if err := os.WriteFile(file, content, 0o600); err != nil {
				t.Fatal(err)
			}
			words := strings.Fields(tool)
			if words[0] != "zopfli" {
				words = append(words, "-c")
			}
			stream, err := exec.Command(words[0], append(words[1:], file)...).Output()
			if err != nil {
				t.Fatalf("%s (test/tools.sh installs it): %v", tool, err)
			}
			got, err := readAll(again, bytes.NewReader(stream))
			if err != nil || !bytes.Equal(got, content) {
				t.Errorf("%s of %s: %d bytes of %d, %v", tool, name, len(got), len(content), err)
			}
		}
	}
}

// TestMembers: one behind another are one content, as pigz -i and bgzip make them; what follows the last is treated as compress/gzip does, but for zeros.
func TestMembers(t *testing.T) {
	var stream, want []byte
	for i := range 40 {
		part := bytes.Repeat([]byte{byte(i), 1, 2}, i*i*37)
		stream = append(stream, compressed(t, part, 1+i%9)...)
		want = append(want, part...)
	}
	got, err := readAll(func(r io.Reader) (io.Reader, error) { return NewReader(r) }, bytes.NewReader(stream))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes of %d, %v", len(got), len(want), err)
	}
	for _, tail := range []string{"", "\x00", strings.Repeat("\x00", 600), "garbage", "\x1f", "\x1f\x8b\x08", "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x00", "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x00\x03\x00"} {
		for _, wrap := range arrivals {
			same(t, append(bytes.Clone(stream), tail...), wrap)
		}
	}
	for _, n := range []int{1, 7, 8, 9, 10, 11, 512, 70_000} {
		padded := append(bytes.Clone(stream), make([]byte, n)...)
		if got, err := readAll(again, bytes.NewReader(padded)); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d zeros: %d bytes of %d, %v", n, len(got), len(want), err)
		}
		if _, err := readAll(again, bytes.NewReader(append(padded, 1))); err == nil {
			t.Fatalf("something behind %d zeros is passed over", n)
		}
	}
	// A match does not reach into the member before.
	var w bitWriter
	lits, dists := fixedCodes()
	w.put(1, 1)
	w.put(1, 2)
	w.code(lits.codes[257], 7)
	w.code(dists.codes[0], 5)
	w.code(lits.codes[endOfBlock], 7)
	second := append(compressed(t, []byte("aaaa"), 6), gzipped(w.out, []byte("aaa"))...)
	same(t, second, whole)
	if got, err := readAll(again, bytes.NewReader(second)); string(got) != "aaaa" || err == nil {
		t.Errorf("a match into the member before: %q, %v", got, err)
	}
}

// TestHeaders: each combination of fields, fields without an end, of every length around the limit, and false checksums.
func TestHeaders(t *testing.T) {
	body := compressed(t, []byte("content"), 6)
	body = body[len(body)-8-len("\xcaH\xce\xcf+I\xcd+\x01\x04\x00\x00\xff\xff"):]
	for flags := range 256 {
		for _, size := range []int{0, 1, 510, 511, 512, 513, 5000} {
			h := []byte{0x1f, 0x8b, 8, byte(flags), 1, 2, 3, 4, 0, 3}
			if flags&flagExtra != 0 {
				h = append(h, byte(size), byte(size>>8))
				h = append(h, bytes.Repeat([]byte{0}, size)...)
			}
			for _, f := range []int{flagName, flagComment} {
				if flags&f != 0 {
					h = append(h, bytes.Repeat([]byte{0xe9}, size)...)
					h = append(h, 0)
				}
			}
			if flags&flagHeaderSum != 0 {
				sum := crc32.ChecksumIEEE(h)
				h = append(h, byte(sum), byte(sum>>8)^byte(size&2))
			}
			same(t, append(h, body...), whole)
		}
	}
	for i := range 10 {
		h := append([]byte{0x1f, 0x8b, 8, 0, 1, 2, 3, 4, 0, 3}, body...)
		h[i] ^= 0x10
		same(t, h, whole)
		same(t, h[:i], whole)
	}
	same(t, append([]byte{0x1f, 0x8b, 8, flagExtra, 1, 2, 3, 4, 0, 3, 0xff, 0xff}, body...), whole)
}

// TestCutAndChanged: streams that end anywhere, and ones with a changed bit.
func TestCutAndChanged(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for _, content := range contents() {
		content = content[:min(len(content), 20000)]
		for _, level := range []int{gzip.HuffmanOnly, 0, 1, 9} {
			stream := compressed(t, content, level)
			for range 150 {
				same(t, stream[:random.IntN(len(stream))], whole)
				changed := bytes.Clone(stream)
				changed[random.IntN(len(changed))] ^= 1 << random.IntN(8)
				same(t, changed, whole)
			}
		}
	}
}

// gzipped puts a member's header and trailer around blocks.
func gzipped(blocks, content []byte) []byte {
	out := append([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff}, blocks...)
	sum, n := crc32.ChecksumIEEE(content), len(content)
	return append(out, byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24), byte(n), byte(n>>8), byte(n>>16), byte(n>>24))
}

// framed makes a member of blocks, with a true trailer where compress/flate reads them.
func framed(blocks []byte) []byte {
	r := bytes.NewReader(blocks)
	content, err := io.ReadAll(io.LimitReader(flate.NewReader(r), 64<<20))
	if err != nil {
		return gzipped(blocks, nil)
	}
	return gzipped(blocks[:len(blocks)-r.Len()], content)
}

func TestClosed(t *testing.T) {
	z, err := NewReader(bytes.NewReader(compressed(t, make([]byte, 1000), 6)))
	if err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if n, err := z.Read(make([]byte, 10)); n != 0 || err == nil {
		t.Errorf("a read after Close: %d, %v", n, err)
	}
}

// TestHandsOn: what was decoded does not wait for a source that stands still, nor is a source's error lost.
func TestHandsOn(t *testing.T) {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write([]byte("now"))
	_ = w.Flush()
	broken := errors.New("broken off")
	asked := false
	z, err := NewReader(io.MultiReader(&b, readerFunc(func([]byte) (int, error) { asked = true; return 0, broken })))
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 100)
	if n, err := z.Read(p); string(p[:n]) != "now" || err != nil || asked {
		t.Errorf("%q, %v; the source was waited for: %v", p[:n], err, asked)
	}
	if _, err := z.Read(p); !errors.Is(err, broken) {
		t.Errorf("then %v", err)
	}
	z, err = NewReader(io.MultiReader(bytes.NewReader(compressed(t, []byte("x"), 6)[:20]), readerFunc(func([]byte) (int, error) { return 0, nil })))
	if err == nil {
		_, err = io.ReadAll(z)
	}
	if !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("a source that gives nothing: %v", err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
