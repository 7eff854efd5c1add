package cgroup

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
)

// Below names groups inside another that exist already: a path for each controller, or for all others ("", which is also the cgroup2
// tree). A controller without one stays in that itself.
func Below(g *Group, paths map[string]string) (*Group, error) {
	below := &Group{path: g.path, dirs: maps.Clone(g.dirs)}
	for controller, path := range paths {
		if _, ok := g.dirs[controller]; !ok && controller != unified {
			return nil, fmt.Errorf("unknown controller %q: it is not one of this host's version 1 hierarchies: %w", controller, errdefs.ErrInvalidArgument)
		}
		if !filepath.IsLocal("./" + path) {
			return nil, fmt.Errorf("bad sub cgroup path: %s leads out of control group %s: %w", path, g.path, errdefs.ErrInvalidArgument)
		}
		for name, dir := range g.dirs {
			if _, own := paths[name]; name != controller && (controller != unified || own) {
				continue
			}
			below.dirs[name] = filepath.Join(dir, path)
			if fi, err := os.Stat(below.dirs[name]); err != nil {
				return nil, fmt.Errorf("adding pid to cgroup %s inside control group %s: %w", path, g.path, err)
			} else if !fi.IsDir() {
				return nil, fmt.Errorf("adding pid to cgroup %s inside control group %s: %w", path, g.path, fs.ErrNotExist)
			}
		}
		if controller == unified {
			below.path = filepath.Join(g.path, path)
		}
	}
	return below, nil
}
