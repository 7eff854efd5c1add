package cgroup

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Entrance is where one more process of a group can be put: the group itself, or, where that one hands controllers to those below and
// takes no processes any more (cgroup-v2.rst, "No Internal Process Constraint"; a service manager in a container does that), the group
// below it that the process pid is in.
func Entrance(g *Group, pid int) *Group {
	dir, ok := g.dirs[unified]
	if !ok || !g.pure() {
		return g
	}
	if b, err := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control")); err != nil || len(strings.TrimSpace(string(b))) == 0 {
		return g
	}
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return g
	}
	_, path, _ := strings.Cut(strings.TrimSpace(string(b)), "0::")
	rest, below := strings.CutPrefix(path, g.path+"/")
	if !below || strings.ContainsAny(rest, "\n") || path != filepath.Clean(path) {
		return g
	}
	return &Group{path: path, dirs: map[string]string{unified: filepath.Join(dir, rest)}}
}
