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

// freezing is how a group is told to stand still, or to go on, and what says that it does.
type freezing struct{ file, value, check, want string }

func freezerOf(g *Group, frozen bool) (f freezing, ok bool) {
	if dir, ok := g.dirs[unified]; ok {
		f = freezing{filepath.Join(dir, "cgroup.freeze"), "0", filepath.Join(dir, "cgroup.events"), "frozen 0"}
		if frozen {
			f.value, f.want = "1", "frozen 1"
		}
		return f, true
	}
	dir, ok := g.dirs["freezer"]
	file := filepath.Join(dir, "freezer.state")
	f = freezing{file, "THAWED", file, "THAWED"}
	if frozen {
		f.value, f.want = "FROZEN", "FROZEN"
	}
	return f, ok
}

func (f freezing) done() (bool, error) {
	b, err := os.ReadFile(f.check)
	return err == nil && strings.Contains(string(b), f.want), err
}

// anyFrozen says that a group that is there already is frozen, in whichever hierarchy: what begins in it would not run.
func anyFrozen(g *Group) bool {
	for name, file := range map[string]string{"freezer": "freezer.state", unified: "cgroup.freeze"} {
		dir, ok := g.dirs[name]
		if !ok {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, file))
		if state := string(b); err == nil && (strings.HasPrefix(state, "FR") || strings.HasPrefix(state, "1")) {
			return true
		}
	}
	return false
}
