package snapshot

import (
	"archive/tar"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// anyLayer is a layer of entries that meet each other, and those of the layers below, in all ways.
func anyLayer(t *testing.T, random *rand.Rand) []byte {
	name := func() string {
		parts := make([]string, 1+random.IntN(3))
		for i := range parts {
			parts[i] = string(rune('a' + random.IntN(3)))
		}
		return strings.Join(parts, "/")
	}
	var list []entry
	for range 1 + random.IntN(9) {
		at := name()
		dir, base := "", at
		if i := strings.LastIndexByte(at, '/'); i >= 0 {
			dir, base = at[:i+1], at[i+1:]
		}
		if random.IntN(6) == 0 {
			at, dir = ".", "./"
		}
		e := entry{Name: at, Mode: int64(0o600 + random.IntN(0o200)), Uid: random.IntN(3)}
		switch random.IntN(14) {
		case 0, 1, 2:
			e.Typeflag = tar.TypeDir
			if random.IntN(3) == 0 {
				e.PAXRecords = map[string]string{"SCHILY.xattr.user.a": "b"}
			}
		case 3, 4:
			e.Typeflag = tar.TypeReg
		case 5:
			e.Typeflag, e.Linkname, e.Mode = tar.TypeSymlink, name(), 0o777
		case 6:
			e.Typeflag, e.Linkname = tar.TypeLink, name()
		case 7:
			e.Typeflag, e.Devmajor, e.Devminor = tar.TypeChar, 1, 3
		case 8, 9:
			e.Typeflag, e.Name = tar.TypeReg, dir+".wh."+base
		case 10:
			e.Typeflag, e.Name = tar.TypeReg, at+"/.wh..wh..opq"
		case 11:
			e.Typeflag = tar.TypeChar // a whiteout as overlay has it
		case 12:
			e.Typeflag, e.Name = tar.TypeReg, ".wh..wh.plnk/"+base
		case 13:
			e.Typeflag, e.Linkname = tar.TypeLink, ".wh..wh.plnk/"+base
		}
		if e.Name == "." {
			e.Typeflag = tar.TypeDir
		}
		list = append(list, e)
	}
	return tarOf(t, list...)
}

// TestFormsAgreeOnAnything: chains of any layers look the same, or are refused alike, on directories, on images, and by turns.
func TestFormsAgreeOnAnything(t *testing.T) {
	seeds := 25
	if s := os.Getenv("WHERRY_SEEDS"); s != "" {
		seeds, _ = strconv.Atoi(s)
	}
	s := newPlace(t).open(t, EROFS)
	for seed := range seeds {
		random := rand.New(rand.NewPCG(uint64(seed), 1))
		layers := [][]byte{anyLayer(t, random), anyLayer(t, random), anyLayer(t, random)}
		var want []string
		for form := range 4 { // bit by bit, which layers are images: none, the odd, the even, all
			got := []string{}
			parent := ""
			for i, content := range layers {
				if s.format = Overlay; form>>(i%2)&1 == 1 {
					s.format = EROFS
				}
				name := fmt.Sprint(seed, "-", form, "-", i)
				if err := add(t, s, name, parent, content); err != nil {
					got = append(got, "refused")
					continue // the next one stands on what there is
				}
				got = append(got, seen(t, s, name)...)
				parent = name
			}
			if strings.Contains(strings.Join(got, "\n"), "not there") {
				t.Errorf("seed %d, form %d:\n%s\nlayers:\n%s", seed, form, strings.Join(got, "\n"), listing(layers))
			}
			if form == 0 {
				want = got
			} else if !slices.Equal(got, want) {
				t.Fatalf("seed %d, form %d:\n%s\nas directories:\n%s\nlayers:\n%s", seed, form, strings.Join(got, "\n"), strings.Join(want, "\n"), listing(layers))
			}
		}
	}
}

// listing is what layers have in them.
func listing(layers [][]byte) string {
	var out strings.Builder
	for i, l := range layers {
		r := tar.NewReader(strings.NewReader(string(l)))
		for h, err := r.Next(); err == nil; h, err = r.Next() {
			fmt.Fprintf(&out, "%d %c %s %s %o\n", i, h.Typeflag, h.Name, h.Linkname, h.Mode)
		}
	}
	return out.String()
}
