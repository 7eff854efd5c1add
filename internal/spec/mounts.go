package spec

import (
	"cmp"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Mount is one that the user or the image asked for, with its source resolved. It is data: container records hold it.
type Mount struct {
	Type        mount.Type        `json:"type"`
	Name        string            `json:"name,omitempty"`   // of a volume
	Source      string            `json:"source,omitempty"` // on the host
	Destination string            `json:"destination"`
	Mode        string            `json:"mode,omitempty"` // as given to -v
	ReadOnly    bool              `json:"readOnly,omitempty"`
	Propagation mount.Propagation `json:"propagation,omitempty"`
	Asked       bool              `json:"propagationAsked,omitempty"` // Propagation is what the user said
	Options     []string          `json:"options,omitempty"`          // of a tmpfs
	Subpath     string            `json:"subpath,omitempty"`          // of a volume or image
	Anonymous   bool              `json:"anonymous,omitempty"`
	NoCopy      bool              `json:"noCopy,omitempty"`

	NonRecursive           bool `json:"nonRecursive,omitempty"`
	ReadOnlyNonRecursive   bool `json:"readOnlyNonRecursive,omitempty"`
	ReadOnlyForceRecursive bool `json:"readOnlyForceRecursive,omitempty"`
	// CreateSource makes a missing folder on the host (-v).
	CreateSource bool `json:"createSource,omitempty"`
	// Driver, DriverOptions and VolumeLabels are for a volume that is made.
	Driver        string            `json:"driver,omitempty"`
	DriverOptions map[string]string `json:"driverOptions,omitempty"`
	VolumeLabels  map[string]string `json:"volumeLabels,omitempty"`
	// Image is what a mount of an image shows.
	Image *MountedImage `json:"image,omitempty"`
	// Unmapped ids: the source's files keep the ids of the container's own range (an overlay made for it).
	Unmapped bool `json:"unmapped,omitempty"`
}

// MountedImage is an image or artifact as it was when the container was made: its name may mean another one later.
type MountedImage struct {
	ID       digest.Digest `json:"id"`
	Manifest digest.Digest `json:"manifest"`
	Type     string        `json:"type,omitempty"` // the manifest's media type
	Ref      string        `json:"ref,omitempty"`  // the full reference it was found by, "" when found by id
	Lower    []string      `json:"lower"`          // its layers on the host, topmost first
}

// Point is the mount as inspect shows it.
func (m Mount) Point() container.MountPoint {
	p := container.MountPoint{Type: m.Type, Name: m.Name, Source: m.Source, Destination: m.Destination, Mode: m.Mode, RW: !m.ReadOnly, Propagation: m.Propagation}
	switch {
	case m.Type == mount.TypeVolume:
		p.Driver = cmp.Or(m.Driver, "local")
	case m.Image != nil:
		p.Source = m.Image.ID.String()
	}
	return p
}

// SecretMount is a file, or a directory of files, that the engine has made for the container. It is read-only inside.
type SecretMount struct{ Source, Destination string }

func (b *builder) mounts() ([]specs.Mount, error) {
	list, files := b.defaultMounts(), b.etcFiles()
	if !slices.ContainsFunc(b.in.Mounts, coversEtc) {
		list, files = append(list, files...), nil
	}
	if b.h.Init != nil && *b.h.Init {
		// Its ids are not mapped: the host's root owns it, who is nobody inside. Who may mount there can undo "ro".
		list = append(list, specs.Mount{Type: "bind", Source: b.in.Oar, Destination: InitPath, Options: []string{"bind", "ro", "nosuid", "nodev"}})
	}
	for _, m := range b.in.Mounts {
		hides := func(d specs.Mount) bool {
			return d.Destination == m.Destination || m.Destination == "/dev" && strings.HasPrefix(d.Destination, "/dev/")
		}
		list, files = slices.DeleteFunc(list, hides), slices.DeleteFunc(files, hides)
	}
	user := slices.Clone(b.in.Mounts)
	slices.SortStableFunc(user, func(x, y Mount) int {
		return cmp.Compare(strings.Count(x.Destination, "/"), strings.Count(y.Destination, "/"))
	})
	for _, m := range user {
		made, err := b.mount(m)
		if err != nil {
			return nil, err
		}
		list = append(list, made)
		if coversEtc(m) {
			list, files = append(list, files...), nil
		}
	}
	for _, m := range b.in.Secrets { // their files have the container's own ids already
		list = append(list, specs.Mount{Type: "bind", Source: m.Source, Destination: m.Destination, Options: []string{"bind", "ro", "nosuid", "nodev", "noexec", "rprivate"}})
	}
	list = b.editMounts(list)
	if b.opts.Strict {
		for i := range list {
			list[i].Options = append(slices.DeleteFunc(list[i].Options, func(o string) bool { return o == "suid" }), "nosuid", "rnosuid")
		}
	}
	return list, nil
}

// coversEtc says that the engine's files of /etc belong onto a mount, which would hide them. Where nothing can be made they stay below it.
func coversEtc(m Mount) bool { return m.Destination == "/etc" && !m.ReadOnly }

// etcFiles are the files of /etc that the engine writes; the container may change them where it may change the rest of /etc.
func (b *builder) etcFiles() (list []specs.Mount) {
	options := []string{"bind", "rprivate"}
	if b.h.ReadonlyRootfs {
		options = append(options, "ro")
	}
	for _, f := range [][2]string{{b.in.ResolvConf, "/etc/resolv.conf"}, {b.in.HostnameFile, "/etc/hostname"}, {b.in.Hosts, "/etc/hosts"}} {
		if f[0] != "" {
			list = append(list, b.mapped(specs.Mount{Type: "bind", Source: f[0], Destination: f[1], Options: slices.Clone(options)}))
		}
	}
	return list
}

// mapped makes a bind's ids inside those on the host, where the container has a user namespace.
func (b *builder) mapped(m specs.Mount) specs.Mount {
	if b.in.Size > 0 {
		m.UIDMappings, m.GIDMappings = b.idMapping(), b.idMapping()
	}
	return m
}

func (b *builder) defaultMounts() []specs.Mount {
	proc := specs.Mount{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}}
	if b.h.PidMode.IsHost() && b.in.Size > 0 {
		// A procfs of the host's pid namespace cannot be mounted from a user namespace: the host's own is shown.
		proc = specs.Mount{Destination: "/proc", Type: "bind", Source: "/proc", Options: []string{"rbind", "rnosuid", "rnoexec", "rnodev"}}
	}
	list := []specs.Mount{
		proc,
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: b.readOnlyUnlessPrivileged("nosuid", "noexec", "nodev")},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: b.readOnlyUnlessPrivileged("nosuid", "noexec", "nodev")},
	}
	return append(list, b.ipcMounts()...)
}

func (b *builder) ipcMounts() []specs.Mount {
	plain := []string{"nosuid", "noexec", "nodev"}
	if b.h.IpcMode.IsHost() {
		var list []specs.Mount
		for _, dir := range []string{"/dev/mqueue", "/dev/shm"} {
			if _, err := os.Stat(dir); err == nil { // a host may have mounted neither
				list = append(list, specs.Mount{Destination: dir, Type: "bind", Source: dir, Options: append([]string{"bind"}, plain...)})
			}
		}
		return list
	}
	list := []specs.Mount{{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: plain}}
	switch {
	case b.in.Shm != "":
		list = append(list, specs.Mount{Destination: "/dev/shm", Type: "bind", Source: b.in.Shm, Options: append([]string{"bind"}, plain...)})
	case !b.h.IpcMode.IsNone():
		size := fmt.Sprintf("size=%d", b.h.ShmSize)
		list = append(list, specs.Mount{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: append(slices.Clone(plain), "mode=1777", size)})
	}
	return list
}

func (b *builder) readOnlyUnlessPrivileged(options ...string) []string {
	if b.privileged() {
		return options
	}
	return append(options, "ro")
}

func (b *builder) mount(m Mount) (specs.Mount, error) {
	switch m.Type {
	case mount.TypeTmpfs:
		options := append([]string{"nosuid", "nodev", "noexec"}, m.Options...)
		if m.ReadOnly {
			options = append(options, "ro")
		}
		return specs.Mount{Destination: m.Destination, Type: "tmpfs", Source: "tmpfs", Options: dedupe(options)}, nil
	case mount.TypeBind, mount.TypeVolume, mount.TypeImage:
	default:
		return specs.Mount{}, fmt.Errorf("mount %s: type %q is not one of bind, volume, tmpfs, image: %w", m.Destination, m.Type, errdefs.ErrInvalidArgument)
	}
	options := []string{"rbind"}
	if m.NonRecursive {
		options = []string{"bind"}
	}
	if m.ReadOnly {
		options = append(options, "ro")
		if !m.ReadOnlyNonRecursive && !m.NonRecursive {
			options = append(options, "rro")
		}
	}
	propagation := string(m.Propagation)
	if propagation == "" {
		propagation = string(mount.PropagationRPrivate)
	}
	options = append(options, propagation)
	if m.Type == mount.TypeImage {
		options = append(options, "nodev")
	}
	made := specs.Mount{Destination: m.Destination, Type: "bind", Source: m.Source, Options: options}
	if m.Unmapped {
		return made, nil
	}
	return b.mapped(made), nil
}

// dedupe lets a later option of tmpfs win over an opposite default: exec over noexec, size twice.
func dedupe(options []string) []string {
	key := func(o string) string {
		name, _, _ := strings.Cut(o, "=")
		if base, ok := strings.CutPrefix(name, "no"); ok && slices.Contains([]string{"suid", "dev", "exec", "atime"}, base) {
			return base
		}
		if name == "rw" {
			return "ro"
		}
		return name
	}
	var out []string
	for i, o := range options {
		later := slices.ContainsFunc(options[i+1:], func(x string) bool { return key(x) == key(o) })
		if !later {
			out = append(out, o)
		}
	}
	return out
}

func (b *builder) rootPropagation() string {
	for _, m := range b.in.Mounts {
		switch m.Propagation {
		case mount.PropagationShared, mount.PropagationRShared:
			return "shared"
		case mount.PropagationSlave, mount.PropagationRSlave:
			return "rslave"
		}
	}
	return ""
}

// wantOfTmpfs is what a tmpfs's option may be, "" where the value is that (Documentation/filesystems/tmpfs.rst).
func wantOfTmpfs(key, value string) string {
	number := func(s, units string) bool {
		digits := strings.TrimRight(s, units)
		_, err := strconv.ParseUint(digits, 10, 63)
		return err == nil && len(s)-len(digits) <= 1
	}
	const bytes = "kKmMgGtTpPeE"
	switch key {
	case "size":
		if !number(value, bytes+"%") {
			return "a size such as size=64m, or a part of the memory such as size=10%"
		}
	case "nr_blocks", "nr_inodes":
		if !number(value, bytes) {
			return "a number such as " + key + "=10k"
		}
	case "uid", "gid":
		if _, err := strconv.ParseUint(value, 10, 32); err != nil {
			return "a number, not a name: " + key + "=1000"
		}
	case "mode":
		if _, err := strconv.ParseUint(value, 8, 12); err != nil {
			return "an octal number such as mode=1777"
		}
	}
	return ""
}

// ParseTmpfs checks the options of --tmpfs.
func ParseTmpfs(options string) ([]string, error) {
	flags := []string{"ro", "rw", "suid", "nosuid", "dev", "nodev", "exec", "noexec", "async", "atime", "noatime", "diratime", "nodiratime",
		"relatime", "strictatime", "mode", "size", "uid", "gid", "nr_inodes", "nr_blocks", "mpol", "tmpcopyup", "huge"}
	if options == "" {
		return nil, nil
	}
	var out []string
	for _, o := range strings.Split(options, ",") {
		key, value, _ := strings.Cut(o, "=")
		if want := wantOfTmpfs(key, value); want != "" {
			return nil, fmt.Errorf("invalid tmpfs option %q: give %s: %w", o, want, errdefs.ErrInvalidArgument)
		}
		switch {
		case o == "":
		case slices.Contains([]string{"rprivate", "private", "rshared", "shared", "rslave", "slave"}, key):
		case !slices.Contains(flags, key):
			return nil, fmt.Errorf("invalid tmpfs option %q: %s: %w", o, Suggest(key, flags), errdefs.ErrInvalidArgument)
		default:
			out = append(out, o)
		}
	}
	return out, nil
}

// Clean checks a place inside a container.
func Clean(destination string) (string, error) {
	switch clean := path.Clean(destination); {
	case destination == "":
		return "", fmt.Errorf("invalid mount: a path inside the container is needed: %w", errdefs.ErrInvalidArgument)
	case !path.IsAbs(destination):
		return "", fmt.Errorf("invalid mount path: %q mount path must be absolute: %w", destination, errdefs.ErrInvalidArgument)
	case clean == "/":
		return "", fmt.Errorf("invalid specification: destination can't be '/': mount a folder below it: %w", errdefs.ErrInvalidArgument)
	default:
		return clean, nil
	}
}
