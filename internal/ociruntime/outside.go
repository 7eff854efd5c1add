package ociruntime

import (
	"context"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/cgroup"
	"wherry.dev/wherry/internal/mountinfo"
)

// Outside are a container's file systems as Create makes them, attached nowhere, for somebody else (criu) who makes the processes: all but
// those that belong to its namespaces (proc, sysfs, mqueue).
type Outside struct {
	Root   *os.File
	Places []Place
	Cgroup *cgroup.Group // made too

	s *start
}

// Place is one of them: a detached mount, or a part of one.
type Place struct {
	Key  string // its name for who makes the processes (OutsideKeys)
	File *os.File
	Part string
	// Kept is its place in the container where its content is the container's own and in memory; else "".
	Kept string
}

// Keys of what masks: many mounts share one.
const (
	maskedFile = "masked-file"
	maskedDir  = "masked-folder"
)

// MakeOutside makes them. All is undone when an error is returned.
func MakeOutside(ctx context.Context, o CreateOptions) (*Outside, error) {
	s := &start{o: o, spec: o.Spec}
	out := &Outside{s: s}
	for _, st := range []step{
		{"check the configuration", (*start).check},
		{"open the namespaces to join", (*start).openNamespaces},
		{"make the user namespace", (*start).makeUserNamespace},
		{"begin the control group", (*start).beginGroup},
		{"mount the root file system, detached", (*start).openRoot},
		{"prepare the mounts", (*start).prepareMounts},
		{"make the control group", (*start).awaitGroup},
		{"list the mounts", func(*start, context.Context) error { return out.list() }},
	} {
		if err := st.run(s, ctx); err != nil {
			s.undo(context.WithoutCancel(ctx))
			return nil, fmt.Errorf("%s: %w", st.name, err)
		}
	}
	out.Root, out.Cgroup = s.layout.root, s.grouping.group
	return out, nil
}

func (o *Outside) list() error {
	l := &o.s.layout
	if l.rootReadOnly || o.s.spec.Root.Readonly {
		if err := setAttributes(l.root, attributeChange{set: unix.MOUNT_ATTR_RDONLY}, 0); err != nil {
			return fmt.Errorf("make the root file system read-only: %w", err)
		}
	}
	for _, a := range l.mounts {
		if a.source == nil {
			continue
		}
		p := Place{Key: a.at, File: a.source, Part: a.part}
		if keptMount(o.s.spec, a.at) {
			p.Kept = a.at
		}
		o.Places = append(o.Places, p)
	}
	empty, err := l.newFilesystem("tmpfs", nil, mountOptions{attributeChange: attributeChange{set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC}})
	if err != nil {
		return err
	}
	o.Places = append(o.Places, Place{Key: maskedDir, File: l.held.keep(empty)}, Place{Key: maskedFile, File: l.null, Part: "null"})
	return nil
}

// keptMount says that a mount's content is in memory and goes with the container: a tmpfs of its own, but /dev, or what it shares memory by.
func keptMount(spec *specs.Spec, at string) bool {
	for i := len(spec.Mounts) - 1; i >= 0; i-- {
		if m := spec.Mounts[i]; path.Clean("/"+m.Destination) == at {
			return m.Type == "tmpfs" && at != "/dev" || at == "/dev/shm"
		}
	}
	return false
}

// Owner is the host's id of the container's root.
func (o *Outside) Owner() int { return o.s.ns.ids.Host(0) }

// Close gives the mounts up, once who makes the processes has its own.
func (o *Outside) Close() {
	o.s.held.close()
	for _, f := range []*os.File{o.s.layout.root, o.s.ns.user} {
		if f != nil {
			f.Close()
		}
	}
}

// Undo gives up the control group too, with all that is in it.
func (o *Outside) Undo(ctx context.Context) { o.s.undo(ctx) }

// OutsideMount is a mount of a container that runs, with its key.
type OutsideMount struct {
	At, Key string
	Kept    bool
}

// OutsideMounts lists those of a container that MakeOutside would make again from its configuration. What else is there, its own processes
// have mounted.
func OutsideMounts(spec *specs.Spec, pid int) (out []OutsideMount, err error) {
	text, err := os.ReadFile(procOf(pid) + "/mountinfo")
	if err != nil {
		return nil, err
	}
	list, err := mountinfo.Parse(string(text))
	if err != nil {
		return nil, err
	}
	root, err := os.OpenFile(procOf(pid)+"/root", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	for _, m := range list {
		o, err := outsideMount(spec, root, m)
		if err != nil {
			return nil, err
		}
		if o.Key != "" {
			out = append(out, o)
		}
	}
	return out, nil
}

func outsideMount(spec *specs.Spec, root *os.File, m mountinfo.Mount) (o OutsideMount, err error) {
	o.At = m.At
	for i := len(spec.Mounts) - 1; i >= 0 && m.At != "/"; i-- {
		s := spec.Mounts[i]
		rest, ok := within(m.At, canonical(root, s.Destination))
		options := parseMountOptions(s.Options)
		bind := isBind(s.Type, options)
		switch {
		case !ok:
		case rest == "/" && !bind && slices.Contains([]string{"proc", "sysfs", "mqueue"}, s.Type):
			return o, nil // who makes the processes makes it
		case rest == "/" || s.Type == "cgroup":
			o.Key, o.Kept = m.At, keptMount(spec, m.At)
		case options.rbind && !slices.Contains(spec.Linux.MaskedPaths, m.At):
			return o, fmt.Errorf("there is a mount on %s, below what is bound to %s: only binds with nothing mounted below can be made again", m.At, s.Destination)
		}
		if o.Key != "" {
			break
		}
	}
	if o.Key == "" && slices.Contains(spec.Linux.MaskedPaths, m.At) && m.Type == "tmpfs" {
		o.Key = maskedFile
		if m.Part == "/" {
			o.Key = maskedDir
		}
	}
	if strings.ContainsAny(o.Key, "[]:") {
		return o, fmt.Errorf("the mount on %s: criu takes no such name", m.At)
	}
	return o, nil
}

// SaveTree and FillTree copy what is in a file system in memory to a folder and back, with owners and modes, by descriptor.
func SaveTree(pid int, at, dir string) error {
	root, err := os.OpenFile(procOf(pid)+"/root", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer root.Close()
	from, err := openIn(root, at, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer from.Close()
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	to, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer to.Close()
	return copyWhole(from, to)
}

// copyWhole is copyTree with what the folder itself is.
func copyWhole(from, to *os.File) error {
	if err := copyTree(from, to); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(descriptor(from), &st); err != nil {
		return err
	}
	if err := to.Chown(int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	return unix.Fchmod(descriptor(to), st.Mode&0o7777)
}

// FillTree is SaveTree's way back.
func FillTree(dir string, p Place) error {
	from, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.Open("/proc/self/fd/" + strconv.Itoa(descriptor(p.File))) // it may have been opened as a path only
	if err != nil {
		return err
	}
	defer to.Close()
	return copyWhole(from, to)
}

// Attach attaches the mounts below a folder, whose file system is the caller's own and may be searched by everybody, and returns where the
// root is and where what is known by each key. The caller is on a thread with a mount namespace of its own.
func (o *Outside) Attach(dir string) (root string, at map[string]string, err error) {
	at = map[string]string{}
	root = path.Join(dir, "root")
	if err := attachTo(o.Root, root); err != nil {
		return "", nil, fmt.Errorf("attach the root file system: %w", err)
	}
	attached := map[*os.File]bool{}
	for i, p := range o.Places {
		target := path.Join(dir, strconv.Itoa(i))
		if err := attachPlace(p, target, attached); err != nil {
			return "", nil, fmt.Errorf("attach what is mounted on %s: %w", p.Key, err)
		}
		at[p.Key] = target
	}
	return root, at, nil
}

// attachPlace attaches a mount, or a part of one: kernels before 6.15 clone that only of what is attached itself.
func attachPlace(p Place, target string, attached map[*os.File]bool) error {
	whole := target
	if p.Part != "" {
		whole += ".whole"
	}
	if !attached[p.File] {
		attached[p.File] = true
		if err := attachTo(p.File, whole); err != nil {
			return err
		}
	}
	if p.Part == "" {
		return nil
	}
	fd, err := unix.OpenTree(descriptor(p.File), p.Part, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return err
	}
	part := os.NewFile(uintptr(fd), p.Part)
	defer part.Close()
	return attachTo(part, target)
}

// attachTo attaches a detached mount to a new place.
func attachTo(mount *os.File, target string) error {
	var st unix.Stat_t
	err := unix.Fstat(descriptor(mount), &st)
	if err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
		err = os.Mkdir(target, 0o755)
	} else if err == nil {
		err = os.WriteFile(target, nil, 0o644)
	}
	if err != nil {
		return err
	}
	return unix.MoveMount(descriptor(mount), "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH)
}
