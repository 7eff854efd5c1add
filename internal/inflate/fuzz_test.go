package inflate

import (
	"testing"
)

// FuzzReader: any bytes, as a gzip stream and as blocks of one, have the same end here and in compress/gzip.
func FuzzReader(f *testing.F) {
	for _, content := range contents() {
		content = content[:min(len(content), 3000)]
		for _, level := range []int{-2, 0, 1, 9} {
			stream := compressed(f, content, level)
			f.Add(stream)
			f.Add(stream[10+2+5+7+10 : len(stream)-8])
		}
	}
	var w bitWriter
	w.dynamic([]uint8{256: 1}, []uint8{0})
	f.Add(w.out)
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 64<<10 {
			return
		}
		same(t, data, whole)
		same(t, framed(data), whole)
		same(t, framed(data), arrivals["byte by byte"])
	})
}
