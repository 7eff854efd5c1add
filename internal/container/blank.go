package container

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/rootfs"
)

// blank is a container's folder that is made ahead, with an empty writable layer that nobody owns yet: on a file system of some size each new
// directory is a search for a place, and most of what a creation takes is four of them. There is one at most; who finds none makes their own.
type blank struct {
	at      string // its path, which has a dot: it is nobody's folder for those who read records
	lives   *lives
	ready   atomic.Bool
	planned atomic.Bool   // somebody makes it, or is about to
	idle    chan struct{} // takes one word that now is a good time

	moving sync.Mutex // held while it is taken, and while a rest of one is removed: a slow rename must not meet that
}

const blankName = ".blank"

const (
	// blankAfter is when the next one is made after a creation at the latest.
	blankAfter = 50 * time.Millisecond
	// moment is how long what nobody waits for is put off, for the answer that somebody waits for to be on its way.
	moment = time.Millisecond
)

// hurry says that what the last creation was for has been done: the next one, if any, is a moment away, and the engine idles.
func (b *blank) hurry() {
	select {
	case b.idle <- struct{}{}:
	default:
	}
}

// plan makes one after a while, where there is none. What an earlier life has left of one goes.
func (b *blank) plan(ctx context.Context) {
	if !b.planned.CompareAndSwap(false, true) {
		return
	}
	b.lives.run(ctx, func(ctx context.Context) {
		defer b.planned.Store(false)
		if !b.await(ctx) {
			return
		}
		if b.ready.Load() {
			return
		}
		b.moving.Lock()
		err := rootfs.RemoveTree(b.at)
		b.moving.Unlock()
		if err == nil {
			err = makeFolder(b.at)
		}
		if err != nil { // who makes their own says it
			_ = rootfs.RemoveTree(b.at)
			return
		}
		b.ready.Store(true)
	})
}

// await waits for a good time; false: the engine ends.
func (b *blank) await(ctx context.Context) bool {
	late := time.NewTimer(blankAfter)
	defer late.Stop()
	select {
	case <-late.C:
		return true
	case <-ctx.Done():
		return false
	case <-b.idle:
	}
	select {
	case <-time.After(moment):
		return true
	case <-ctx.Done():
		return false
	}
}

// take renames it to dir. False: there was none.
func (b *blank) take(ctx context.Context, dir string) bool {
	select { // what has been said of an earlier creation
	case <-b.idle:
	default:
	}
	defer b.plan(ctx)
	if !b.ready.Load() {
		return false
	}
	b.moving.Lock()
	defer b.moving.Unlock()
	return b.ready.Swap(false) && os.Rename(b.at, dir) == nil
}

// drop is for the engine's end.
func (b *blank) drop() error {
	b.ready.Store(false)
	return rootfs.RemoveTree(b.at)
}

// makeFolder makes a container's folder with an empty writable layer, which belongs to nobody yet, and the file that its record will be written to.
func makeFolder(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, recordFile+newSuffix), nil, 0o600); err != nil {
		return err
	}
	return makeLayer(dir)
}

// layerDirs are the writable layer's directories.
func layerDirs(dir string) (upper, work string) {
	return filepath.Join(dir, "rootfs", "upper"), filepath.Join(dir, "rootfs", "work")
}

func makeLayer(dir string) error {
	upper, work := layerDirs(dir)
	for _, d := range []string{filepath.Dir(upper), upper, work} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return err
		}
	}
	return nil
}

// ownLayer gives an empty writable layer to a container: its root looks like the image's.
func ownLayer(dir string, r *Record) error {
	upper, work := layerDirs(dir)
	mode, uid, gid := uint32(0o755), 0, 0
	if len(r.Image.Lower) > 0 {
		var st unix.Stat_t
		if err := unix.Stat(r.Image.Lower[0], &st); err != nil {
			return &os.PathError{Op: "look at layer", Path: r.Image.Lower[0], Err: err}
		}
		mode, uid, gid = st.Mode&0o7777, int(st.Uid), int(st.Gid)
	}
	for _, d := range []string{upper, work} {
		if err := os.Chown(d, r.IDMap.Host(uid), r.IDMap.Host(gid)); err != nil {
			return err
		}
	}
	return unix.Chmod(upper, mode)
}
