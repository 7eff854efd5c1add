package cgroup

import (
	"os"
	"path/filepath"
	"strings"
)

// Frozen says whether a group's processes stand still, or are about to.
func Frozen(g *Group) bool {
	if !Exists(g) {
		return false
	}
	file, want := filepath.Join(g.dirs["freezer"], "freezer.state"), "FR" // FREEZING, FROZEN
	if dir, ok := g.dirs[unified]; ok {
		file, want = filepath.Join(dir, "cgroup.freeze"), "1"
	}
	b, err := os.ReadFile(file)
	return err == nil && strings.HasPrefix(string(b), want)
}
