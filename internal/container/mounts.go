package container

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"github.com/moby/moby/api/types/mount"

	"wherry.dev/wherry/internal/spec"
)

// mounts resolves everything that is to be mounted: -v, --mount, --tmpfs, --volumes-from and the image's volumes.
func (n *creating) mounts(ctx context.Context) error {
	list, err := n.requestedMounts()
	if err != nil {
		return err
	}
	n.onUndo(func() { n.s.o.releaseVolumes(context.WithoutCancel(ctx), n.r, true) })
	for _, m := range list {
		err := n.resolveMount(ctx, &m)
		n.r.Mounts = append(n.r.Mounts, m) // also a half one: what it holds is given back
		if err != nil {
			return err
		}
	}
	return nil
}

// requestedMounts are in the order of their destinations. What is said more precisely wins over --volumes-from and the image's volumes;
// two wishes for one place are an error.
func (n *creating) requestedMounts() ([]spec.Mount, error) {
	var asked []spec.Mount
	for _, bind := range n.r.HostConfig.Binds {
		m, err := parseBind(bind)
		if err != nil {
			return nil, err
		}
		m.ReadOnlyNonRecursive = n.q.ReadOnlyFlat
		m.Driver = n.r.HostConfig.VolumeDriver
		if err := n.s.o.propagate(&m); err != nil {
			return nil, err
		}
		asked = append(asked, m)
	}
	for _, q := range n.r.HostConfig.Mounts {
		m, err := parseMount(q)
		if err != nil {
			return nil, err
		}
		m.ReadOnlyNonRecursive = m.ReadOnlyNonRecursive || n.q.ReadOnlyFlat && !m.ReadOnlyForceRecursive
		if err := n.s.o.propagate(&m); err != nil {
			return nil, err
		}
		asked = append(asked, m)
	}
	for destination, options := range n.r.HostConfig.Tmpfs {
		clean, err := spec.Clean(destination)
		if err != nil {
			return nil, err
		}
		o, err := spec.ParseTmpfs(options)
		if err != nil {
			return nil, err
		}
		asked = append(asked, spec.Mount{Type: mount.TypeTmpfs, Destination: clean, Options: o})
	}
	at := map[string]bool{}
	for i, m := range asked {
		if m.Type == mount.TypeVolume && m.Mode == "" {
			asked[i].Mode = "z" // as Docker shows it, whether there are labels or not
		}
		if at[m.Destination] {
			return nil, invalid("Duplicate mount point: %s: mount one thing there only", m.Destination)
		}
		at[m.Destination] = true
	}
	from, err := n.volumesFrom()
	if err != nil {
		return nil, err
	}
	for destination := range n.r.Config.Volumes {
		clean, err := spec.Clean(destination)
		if err != nil {
			return nil, err
		}
		if clean == "/proc" || strings.HasPrefix(clean, "/proc/") {
			return nil, invalid("a volume without a name, which the image may have asked for, is to cover %s: /proc is the kernel's; declare it elsewhere", clean)
		}
		from = append(from, spec.Mount{Type: mount.TypeVolume, Destination: clean, Anonymous: true, Driver: n.r.HostConfig.VolumeDriver})
	}
	for _, m := range from {
		if !at[m.Destination] {
			asked = append(asked, m)
			at[m.Destination] = true
		}
	}
	inherited(asked, n.q.inherit)
	sort.SliceStable(asked, func(i, j int) bool { return asked[i].Destination < asked[j].Destination })
	return asked, nil
}

func (n *creating) volumesFrom() ([]spec.Mount, error) {
	var out []spec.Mount
	for _, text := range n.r.HostConfig.VolumesFrom {
		name, mode, has := strings.Cut(text, ":")
		if has && mode != "ro" && mode != "rw" && mode != "z" && mode != "Z" {
			return nil, invalid("invalid mode for volumes-from: %s: use ro or rw", mode)
		}
		c, err := n.s.index.named(name)
		if err != nil {
			return nil, err
		}
		for _, m := range c.record().Mounts {
			if m.Type == mount.TypeTmpfs {
				continue
			}
			if mode == "ro" {
				m.ReadOnly = true
			}
			m.NoCopy = true                                                                                             // it is filled by the container that it is of, or by nobody
			out = slices.DeleteFunc(out, func(earlier spec.Mount) bool { return earlier.Destination == m.Destination }) // the last one's counts
			out = append(out, m)
		}
	}
	return out, nil
}

// parseBind reads -v: [SOURCE:]DESTINATION[:OPTIONS].
func parseBind(text string) (spec.Mount, error) {
	parts := strings.Split(text, ":")
	if len(parts) < 2 || len(parts) > 3 || parts[0] == "" || parts[1] == "" {
		return spec.Mount{}, invalid("invalid volume specification: '%s': write SOURCE:DESTINATION[:OPTIONS]", text)
	}
	destination, err := spec.Clean(parts[1])
	if err != nil {
		return spec.Mount{}, invalid("invalid volume specification: '%s': %v", text, plain(err))
	}
	m := spec.Mount{Type: mount.TypeVolume, Name: parts[0], Destination: destination}
	if strings.HasPrefix(parts[0], "/") {
		m.Type, m.Name, m.Source, m.CreateSource = mount.TypeBind, "", path.Clean(parts[0]), true
	} else if err := volumeName(parts[0]); err != nil {
		return spec.Mount{}, err
	}
	if len(parts) == 2 {
		return m, nil
	}
	m.Mode = parts[2]
	options := strings.Split(parts[2], ",")
	for _, o := range options {
		if err := bindOption(&m, o); err != nil {
			return m, invalid("invalid volume specification: '%s': %v", text, err)
		}
	}
	if a, b := contradiction(options); b != "" {
		return m, invalid("invalid volume specification: '%s': invalid mode: %s: it says %s and %s: leave one of them out", text, parts[2], a, b)
	}
	return m, nil
}

// contradiction returns two options of a volume of which only one can hold, and empty strings where there are none.
func contradiction(options []string) (a, b string) {
	propagations := []string{}
	for _, p := range mount.Propagations {
		propagations = append(propagations, string(p))
	}
	for _, kind := range [][]string{{"ro", "rw"}, {"z", "Z"}, propagations} {
		first := ""
		for _, o := range options {
			if o == "" || !slices.Contains(kind, o) {
				continue
			}
			if first != "" {
				return first, o
			}
			first = o
		}
	}
	return "", ""
}

func bindOption(m *spec.Mount, o string) error {
	switch {
	case o == "ro":
		m.ReadOnly = true
	case o == "nocopy" && m.Type == mount.TypeVolume:
		m.NoCopy = true
	case slices.Contains(mount.Propagations, mount.Propagation(o)) && m.Type == mount.TypeBind:
		m.Propagation = mount.Propagation(o)
	case slices.Contains([]string{"", "rw", "z", "Z", "consistent", "cached", "delegated", "default", "copy"}, o):
	case slices.Contains(mount.Propagations, mount.Propagation(o)):
		return invalid("invalid mode: %s: how mounts propagate is said of folders of the host, not of volumes", o)
	case o == "nocopy":
		return invalid("invalid mode: nocopy: nothing is copied into a folder of the host, as into a new volume")
	default:
		known := []string{"ro", "rw", "z", "Z", "nocopy", "rprivate", "private", "rshared", "shared", "rslave", "slave", "cached", "delegated", "consistent"}
		return invalid("invalid mode: %s: %s", o, spec.Suggest(o, known))
	}
	return nil
}

func volumeName(name string) error {
	if len(name) == 1 {
		return invalid("create %s: volume name is too short, names should be at least two alphanumeric characters", name)
	}
	if !validName(name) {
		return invalid(`"%s" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path`, name)
	}
	return nil
}

// parseMount reads one of --mount.
func parseMount(q mount.Mount) (spec.Mount, error) {
	bad := func(format string, args ...any) (spec.Mount, error) {
		return spec.Mount{}, invalid(`invalid mount config for type "%s": %s`, q.Type, fmt.Sprintf(format, args...))
	}
	if q.Target == "" {
		return bad("field Target must not be empty")
	}
	destination, err := spec.Clean(q.Target)
	if err != nil {
		return bad("%v", plain(err))
	}
	m := spec.Mount{Type: q.Type, Destination: destination, ReadOnly: q.ReadOnly}
	switch q.Type {
	case mount.TypeBind:
		return parseBindMount(m, q)
	case mount.TypeVolume:
		if o := q.VolumeOptions; o != nil {
			m.NoCopy, m.Subpath = o.NoCopy, o.Subpath
			m.VolumeLabels = o.Labels
			if o.DriverConfig != nil {
				m.Driver, m.DriverOptions = o.DriverConfig.Name, o.DriverConfig.Options
			}
		}
		m.Name, m.Anonymous, m.Mode = q.Source, q.Source == "", "z" // dockerd's word for the default
		if q.Source != "" {
			err = volumeName(q.Source)
		} else if m.Subpath != "" {
			return bad("must not set Subpath when using anonymous volumes")
		}
		if err == nil {
			err = localPath(m.Subpath)
		}
		return m, err
	case mount.TypeTmpfs:
		if q.Source != "" {
			return bad("field Source must not be specified")
		}
		return tmpfsMount(m, q.TmpfsOptions)
	case mount.TypeImage:
		if q.Source == "" {
			return bad("field Source must not be empty")
		}
		m.Name, m.ReadOnly = q.Source, true
		if q.ImageOptions != nil {
			m.Subpath = q.ImageOptions.Subpath
		}
		return m, localPath(m.Subpath)
	}
	return bad("mount type unknown: use bind, volume, tmpfs or image")
}

// localPath wants a subpath to lead nowhere else by its own letters; dockerd says volume for images too.
func localPath(subpath string) error {
	if !filepath.IsLocal(cmp.Or(subpath, ".")) {
		return invalid("subpath must be a relative path within the volume: %q leads out of it", subpath)
	}
	return nil
}

func parseBindMount(m spec.Mount, q mount.Mount) (spec.Mount, error) {
	bad := func(format string, args ...any) (spec.Mount, error) {
		return m, invalid(`invalid mount config for type "bind": %s`, fmt.Sprintf(format, args...))
	}
	if o := q.BindOptions; o != nil {
		m.NonRecursive, m.CreateSource = o.NonRecursive, o.CreateMountpoint
		m.ReadOnlyNonRecursive, m.ReadOnlyForceRecursive = o.ReadOnlyNonRecursive, o.ReadOnlyForceRecursive
		m.Propagation = o.Propagation
	}
	switch {
	case q.Source == "":
		return bad("field Source must not be empty")
	case !filepath.IsAbs(q.Source):
		return bad("invalid mount path: '%s' mount path must be absolute", q.Source)
	case q.VolumeOptions != nil:
		return bad("field VolumeOptions must not be specified")
	case q.TmpfsOptions != nil:
		return bad("field TmpfsOptions must not be specified")
	case m.Propagation != "" && !slices.Contains(mount.Propagations, m.Propagation):
		return bad("invalid propagation mode: %s", m.Propagation)
	}
	m.Source = filepath.Clean(q.Source)
	if _, err := os.Stat(m.Source); err != nil && !m.CreateSource {
		return bad("bind source path does not exist: %s", m.Source)
	}
	return m, nil
}

func tmpfsMount(m spec.Mount, o *mount.TmpfsOptions) (spec.Mount, error) {
	if o == nil {
		return m, nil
	}
	if o.SizeBytes < 0 {
		return m, invalid(`invalid mount config for type "tmpfs": the size %d is negative`, o.SizeBytes)
	}
	if o.SizeBytes > 0 {
		m.Options = append(m.Options, fmt.Sprintf("size=%d", o.SizeBytes))
	}
	if o.Mode != 0 {
		m.Options = append(m.Options, fmt.Sprintf("mode=%o", o.Mode))
	}
	for _, kv := range o.Options {
		more, err := spec.ParseTmpfs(strings.Join(kv, "="))
		if err != nil {
			return m, err
		}
		m.Options = append(m.Options, more...)
	}
	return m, nil
}
