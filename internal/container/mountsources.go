package container

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/volume"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/mountinfo"
	"wherry.dev/wherry/internal/spec"
)

// propagate fills in a bind's propagation. Where the engine's own mounts are seen through it, the container must not keep them when the engine
// takes them away.
func (o *Options) propagate(m *spec.Mount) error {
	if m.Type != mount.TypeBind {
		return nil
	}
	m.Asked = m.Propagation != ""
	switch within := isBelow(m.Source, o.Root); {
	case m.Propagation == mount.PropagationRSlave || m.Propagation == mount.PropagationRShared:
	case !within && !isBelow(o.Root, m.Source) && !isBelow(o.State, m.Source):
		m.Propagation = cmp.Or(m.Propagation, mount.PropagationRPrivate)
	case m.Propagation == "":
		m.Propagation = mount.PropagationRSlave
	default:
		return invalid(`invalid mount config: must use either propagation mode "rslave" or "rshared" when mount source is within the daemon root, daemon root: %q, bind mount source: %q, propagation: %q`, o.Root, m.Source, m.Propagation)
	}
	return nil
}

// reaches says that mounts get through a bind in the directions that were asked for. The kernel would let them get through none, and say nothing.
func reaches(m *spec.Mount) error {
	var want []string
	word := "shared"
	switch m.Propagation {
	case mount.PropagationShared, mount.PropagationRShared:
		want = []string{"shared:"}
	case mount.PropagationSlave, mount.PropagationRSlave:
		want, word = []string{"shared:", "master:"}, "shared or slave"
	}
	if want == nil || !m.Asked {
		return nil
	}
	at, err := mountOf(m.Source)
	if err != nil {
		return fmt.Errorf("look at the mount of %s: %w", m.Source, err)
	}
	for _, kind := range want {
		if slices.ContainsFunc(at.Peers, func(p string) bool { return strings.HasPrefix(p, kind) }) {
			return nil
		}
	}
	return invalid("path %s is mounted on %s but it is not a %s mount: make it one (mount --make-rshared %[2]s), or leave %[4]s out and see no mounts that come later",
		m.Source, at.At, word, m.Propagation)
}

// mountOf is the mount that a path leads to.
func mountOf(name string) (mountinfo.Mount, error) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, name, 0, unix.STATX_MNT_ID, &st); err != nil {
		return mountinfo.Mount{}, err
	}
	list, err := mountinfo.Own()
	if i := slices.IndexFunc(list, func(m mountinfo.Mount) bool { return m.ID == st.Mnt_id }); i >= 0 {
		return list[i], nil
	}
	return mountinfo.Mount{}, cmp.Or(err, errors.New("it is in no table of this process"))
}

// isBelow says that a clean path is another one or lies below it.
func isBelow(name, dir string) bool {
	rel, err := filepath.Rel(dir, name)
	return err == nil && filepath.IsLocal(rel)
}

// resolveMount finds or makes a mount's source.
func (n *creating) resolveMount(ctx context.Context, m *spec.Mount) error {
	switch m.Type {
	case mount.TypeBind:
		m.Source = n.s.o.socketFor(m.Source)
		return bindSource(m)
	case mount.TypeVolume:
		return n.resolveVolume(ctx, m)
	case mount.TypeImage:
		return n.resolveImage(ctx, m)
	}
	return nil
}

// socketFor is the engine's own socket where a bind's source is Docker's and this machine has none: tools are told to mount that one, whatever
// engine runs them.
func (o *Options) socketFor(source string) string {
	if o.Socket == "" || source != "/var/run/docker.sock" && source != "/run/docker.sock" {
		return source
	}
	if _, err := os.Lstat(source); !errors.Is(err, os.ErrNotExist) {
		return source
	}
	return o.Socket
}

// bindSource sees to it that a bind's source is there; -v makes a missing folder.
func bindSource(m *spec.Mount) error {
	_, err := os.Stat(m.Source)
	if err == nil {
		return nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return invalid(`invalid mount config for type "bind": stat %s: %v`, m.Source, err)
	}
	if !m.CreateSource {
		return invalid(`invalid mount config for type "bind": bind source path does not exist: %s`, m.Source)
	}
	if err := os.MkdirAll(m.Source, 0o755); err != nil {
		return fmt.Errorf("make the folder %s to mount: %w", m.Source, err)
	}
	return nil
}

func (n *creating) resolveVolume(ctx context.Context, m *spec.Mount) error {
	if m.Source == "" || m.Name == "" { // not from another container
		v, err := n.s.o.Volumes.CreateFor(ctx, volume.CreateRequest{Name: m.Name, Driver: m.Driver, DriverOpts: m.DriverOptions, Labels: m.VolumeLabels}, n.r.ID)
		if errdefs.IsNotFound(err) { // clients take that for an image that has to be pulled
			return invalid("%v", plain(err))
		}
		if err != nil {
			return err
		}
		if m.Name = v.Name; v.Driver != "local" {
			m.Driver = v.Driver
		}
	}
	dir, fresh, err := n.s.o.Volumes.Acquire(ctx, m.Name, n.r.ID)
	if err != nil {
		return err
	}
	m.Source = dir
	if m.NoCopy || !fresh && m.Subpath == "" {
		return nil
	}
	if m.Subpath != "" {
		part, err := emptyPart(dir, m.Subpath)
		if part == nil || err != nil {
			return err
		}
		defer part.Close()
		dir = fmt.Sprintf("/proc/self/fd/%d", part.Fd()) // its path others may change meanwhile
	}
	if err := copyUp(n.r, m.Destination, dir); err != nil {
		return fmt.Errorf("copy the image's %s to volume %s: %w", m.Destination, m.Name, err)
	}
	return nil
}

// emptyPart is a directory in a volume that has nothing in it yet; nil where there is none, which is the start's to say.
func emptyPart(dir, subpath string) (*os.File, error) {
	part, err := openBelow(dir, subpath)
	if err != nil {
		return nil, nil
	}
	list, err := os.ReadDir(fmt.Sprintf("/proc/self/fd/%d", part.Fd()))
	if err == nil && len(list) == 0 {
		return part, nil
	}
	_ = part.Close()
	if errors.Is(err, unix.ENOTDIR) {
		err = nil
	}
	return nil, err
}

// tellVolumes says of a container's volumes that they are mounted in it, or not any more.
func tellVolumes(s *Service, r *Record, action events.Action) {
	for _, m := range r.Mounts {
		if m.Name == "" || m.Type != mount.TypeVolume {
			continue
		}
		attributes := map[string]string{"container": r.ID}
		if action == events.ActionMount {
			attributes["destination"], attributes["read/write"], attributes["propagation"] = m.Destination, strconv.FormatBool(!m.ReadOnly), string(m.Propagation)
		}
		s.o.Volumes.Tell(action, m.Name, attributes)
	}
}

// idleVolumes lets the drivers of volumes unmount what they have mounted for a container that has ended.
func idleVolumes(ctx context.Context, s *Service, r *Record) {
	for _, m := range r.Mounts {
		if m.Name != "" && m.Type == mount.TypeVolume {
			s.o.Volumes.Idle(ctx, m.Name, r.ID)
		}
	}
}

// releaseVolumes gives a container's volumes back; anonymous: those that only it knew are removed.
func (o *Options) releaseVolumes(ctx context.Context, r *Record, anonymous bool) {
	for _, m := range r.Mounts {
		if m.Name == "" || m.Type != mount.TypeVolume {
			continue
		}
		o.Volumes.Release(ctx, m.Name, r.ID)
		if anonymous && m.Anonymous {
			_ = o.Volumes.Remove(ctx, m.Name, false) // another container may use it by --volumes-from
		}
	}
}
