package sparse_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"wherry.dev/wherry/internal/sparse"
)

func TestRuns(t *testing.T) {
	for _, row := range []struct {
		blocks string // d: data, z: zeros, p: a part of a block, of zeros
		runs   [][2]int
		hole   bool
	}{
		{"", nil, false}, {"z", nil, true}, {"d", [][2]int{{0, 1}}, false}, {"p", [][2]int{{0, 1}}, false},
		{"ddzzd", [][2]int{{0, 2}, {4, 5}}, false}, {"zdzdz", [][2]int{{1, 2}, {3, 4}}, true}, {"zp", [][2]int{{1, 2}}, false}, {"dp", [][2]int{{0, 2}}, false},
	} {
		var p []byte
		for _, kind := range row.blocks {
			block := make([]byte, sparse.Block)
			switch kind {
			case 'd':
				block[sparse.Block-1] = 1
			case 'p':
				block = block[:100]
			}
			p = append(p, block...)
		}
		var got [][2]int
		hole, err := sparse.Runs(p, func(from, to int) error {
			got = append(got, [2]int{from / sparse.Block, (to + sparse.Block - 1) / sparse.Block})
			return nil
		})
		if !slices.Equal(got, row.runs) || hole != row.hole || err != nil {
			t.Errorf("%q: runs %v, hole %v, error %v; want %v, %v", row.blocks, got, hole, err, row.runs, row.hole)
		}
	}
	full := errors.New("full")
	if _, err := sparse.Runs([]byte{1}, func(int, int) error { return full }); err != full {
		t.Errorf("an error of the writer's becomes %v", err)
	}
}

func FuzzRuns(f *testing.F) {
	f.Add(uint64(1), 3*sparse.Block+7)
	f.Fuzz(func(t *testing.T, seed uint64, size int) {
		rng := rand.New(rand.NewPCG(seed, 0))
		p := make([]byte, min(max(size, 0), 1<<20))
		for range rng.IntN(10) {
			if len(p) > 0 {
				p[rng.IntN(len(p))] = byte(rng.IntN(3))
			}
		}
		got := make([]byte, len(p))
		hole, err := sparse.Runs(p, func(from, to int) error {
			copy(got[from:to], p[from:to])
			return nil
		})
		if err != nil || !bytes.Equal(got, p) {
			t.Fatalf("what was written is not what was given: %v", err)
		}
		if end := len(p) - len(p)%sparse.Block; hole && (end != len(p) || !sparse.Zero(p[end-sparse.Block:])) {
			t.Fatal("the end is no hole")
		}
	})
}
