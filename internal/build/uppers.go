package build

import (
	"os"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/mount"
)

// uppers remembers what writable snapshots stand on, by the directory of their changes. BuildKit mounts them itself, and hands the mounts to
// steps; of an overlay of many layers the kernel does not tell where they all are: their names were shortened to fit into a page.
type uppers struct {
	mu sync.Mutex // guards what follows
	by map[string][]string
}

// manyUppers is when those that are gone are looked for.
const manyUppers = 512

func upperOf(options []string) string {
	for _, o := range options {
		if dir, ok := strings.CutPrefix(o, "upperdir="); ok {
			return dir
		}
	}
	return ""
}

// note remembers a snapshot's mounts.
func (u *uppers) note(mounts []mount.Mount) {
	if len(mounts) != 1 || mounts[0].Type != "overlay" {
		return
	}
	dir := upperOf(mounts[0].Options)
	if dir == "" {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.by == nil {
		u.by = map[string][]string{}
	}
	u.by[dir] = mounts[0].Options
	if len(u.by)%manyUppers != 0 {
		return
	}
	for dir := range u.by {
		if _, err := os.Lstat(dir); err != nil {
			delete(u.by, dir)
		}
	}
}

// of are a snapshot's options, whole; nil where they are not known.
func (u *uppers) of(dir string) []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.by[dir]
}
