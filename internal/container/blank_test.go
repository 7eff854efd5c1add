package container

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestBlankFolders: a creation takes the folder that was made ahead, which then is the container's in all; what another life has left of one
// is nobody's; where there is none the container gets one all the same.
func TestBlankFolders(t *testing.T) {
	e := newEngine(t)
	at := filepath.Join(e.o.Root, "containers", blankName)
	inode := func(path string) uint64 {
		var st syscall.Stat_t
		if err := syscall.Stat(path, &st); err != nil {
			return 0
		}
		return st.Ino
	}
	ahead := func() uint64 {
		e.eventually("a folder is made ahead", e.blank.ready.Load)
		return inode(at)
	}
	folder := func(id string) string { return filepath.Join(e.o.Root, "containers", id) }

	blank := ahead()
	first := e.create(request{})
	if inode(folder(first)) != blank {
		t.Error("the first container has another folder than the one that was made ahead")
	}
	upper, work := layerDirs(folder(first))
	r := e.rec(first)
	for _, path := range []string{upper, work} {
		fi, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if owner := fi.Sys().(*syscall.Stat_t).Uid; int(owner) != r.IDMap.Host(0) {
			t.Errorf("%s belongs to %d, not to the container's root", path, owner)
		}
	}
	second := e.create(request{}) // at once: there may be none
	if ahead() == blank {
		t.Error("one folder was made for two containers")
	}
	for _, id := range []string{first, second} {
		e.start(id)
		e.eventually("it has ended", func() bool { return !e.rec(id).Status.Alive() })
	}

	e.close()
	if inode(at) != 0 {
		t.Error("it is left when the engine ends")
	}
	junk := filepath.Join(at, "rootfs", "upper", "junk")
	if err := os.MkdirAll(junk, 0o700); err != nil {
		t.Fatal(err)
	}
	e.open()
	ahead()
	third := e.create(request{})
	if upper, _ := layerDirs(folder(third)); inode(filepath.Join(upper, "junk")) != 0 {
		t.Error("what another life has left is in a container")
	}
}

// TestBlankFolderThatIsTakenSlowly: what is made next waits for the rename of the one before, and does not take that apart.
func TestBlankFolderThatIsTakenSlowly(t *testing.T) {
	e := newEngine(t)
	b := &e.blank
	e.eventually("a folder is made ahead", b.ready.Load)
	b.moving.Lock() // somebody takes it, and the disk is slow
	b.ready.Store(false)
	b.plan(context.Background())
	time.Sleep(10 * blankAfter)
	taken := filepath.Join(e.o.Root, "taken")
	err := os.Rename(b.at, taken)
	b.moving.Unlock()
	if err != nil || !exists(filepath.Join(taken, recordFile+newSuffix)) {
		t.Errorf("what was taken is not whole: %v", err)
	}
	e.eventually("the next one is made", b.ready.Load)
}
