package ociruntime

import (
	"os"
	"path"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// view looks at a container's files from outside: its root file system and, above that, those mounts that the paths of its program lead
// through. It is for saying why the program did not start, when the container's own mounts have gone with its process.
type view struct {
	root   *os.File
	parts  held // of the root: whoever closes that closes them, when nobody waits
	cwd    string
	mounts []viewed
}

type viewed struct {
	at     string
	source *os.File
}

// view keeps the mounts in which the program may lie.
func (l *layout) view(p *specs.Process, tried execPaths) view {
	return viewOf(l.root, l.mounts, p.Cwd, append([]string{p.Args[0]}, tried.paths...))
}

// viewOf keeps the mounts in which paths lie.
func viewOf(root *os.File, mounts []*attachment, cwd string, names []string) view {
	v := view{root: root, cwd: cwd}
	paths := make([]string, 0, len(names))
	for _, name := range names {
		paths = append(paths, path.Clean(v.absolute(name)))
	}
	for _, a := range mounts {
		for _, name := range paths {
			if _, ok := within(name, a.at); !ok || a.source == nil {
				continue
			}
			if fd, err := unix.FcntlInt(a.source.Fd(), unix.F_DUPFD_CLOEXEC, 0); err == nil {
				v.mounts = append(v.mounts, viewed{a.at, os.NewFile(uintptr(fd), a.at)})
			}
			break
		}
	}
	return v
}

func (v view) absolute(name string) string {
	if path.IsAbs(name) {
		return name
	}
	return path.Join("/", v.cwd, name)
}

// open opens a path in the topmost mount that it leads to.
func (v view) open(name string, flags uint64) (*os.File, error) {
	name = v.absolute(name)
	if len(v.mounts) > 0 {
		name = canonical(v.root, name)
	}
	for i := len(v.mounts) - 1; i >= 0; i-- {
		m := v.mounts[i]
		rest, ok := within(name, m.at)
		if !ok {
			continue
		}
		if strings.Trim(rest, "/") == "" { // a file may be mounted too
			return os.OpenFile("/proc/self/fd/"+strconv.Itoa(int(m.source.Fd())), int(flags), 0)
		}
		return openIn(m.source, rest, flags)
	}
	return openIn(v.root, name, flags)
}

// close gives back what was kept beside the root and its parts.
func (v *view) close() {
	for _, m := range v.mounts {
		m.source.Close()
	}
	v.mounts = nil
}
