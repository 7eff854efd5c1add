package cli

import (
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/mount"
)

// mountFlag collects --mount type=…,source=…,target=….
type mountFlag struct{ mounts []mount.Mount }

func (f *mountFlag) String() string { return "" }
func (f *mountFlag) Type() string   { return "mount" }

func (f *mountFlag) Set(s string) error {
	m, err := parseMount(s)
	if err != nil {
		return err
	}
	f.mounts = append(f.mounts, m)
	return nil
}

// mountReader fills a mount from fields.
type mountReader struct {
	mount.Mount
	recursive string
	subpath   string          // of whatever type it turns out to be
	families  map[string]bool // of the options seen: bind, volume, image, tmpfs
}

func parseMount(s string) (mount.Mount, error) {
	fields, err := csv.NewReader(strings.NewReader(s)).Read()
	if err != nil {
		return mount.Mount{}, errors.New("write type=bind,source=/on/host,target=/in/container (or type=volume, tmpfs, image)")
	}
	r := mountReader{Mount: mount.Mount{Type: mount.TypeVolume}, families: map[string]bool{}}
	for _, field := range fields {
		key, value, has := strings.Cut(field, "=")
		if err := r.field(strings.ToLower(strings.TrimSpace(key)), value, has); err != nil {
			return r.Mount, err
		}
	}
	return r.Mount, r.finish()
}

// field reads one field. What may stand alone stands first.
func (r *mountReader) field(key, value string, has bool) (err error) {
	family, _, _ := strings.Cut(key, "-")
	switch family {
	case "bind", "volume", "image", "tmpfs":
		r.families[family] = true
	}
	switch key {
	case "readonly", "ro":
		r.ReadOnly, err = truth(key, value, has)
		return err
	case "volume-nocopy":
		r.volume().NoCopy, err = truth(key, value, has)
		return err
	case "bind-nonrecursive":
		r.bind().NonRecursive, err = truth(key, value, has)
		return err
	case "bind-create-src", "bind-create-source":
		r.bind().CreateMountpoint, err = truth(key, value, has)
		return err
	}
	if !has {
		if known := mountKeys(); !contains(known, key) {
			return fmt.Errorf("unknown option %q%s", key, didYouMean(key, known, ""))
		}
		return fmt.Errorf("%s needs a value: %[1]s=…", key)
	}
	switch key {
	case "type":
		r.Type = mount.Type(strings.ToLower(value))
	case "source", "src":
		r.Source, err = localPath(value)
	case "target", "dst", "destination":
		r.Target = value
	case "consistency":
		r.Consistency = mount.Consistency(strings.ToLower(value))
	default:
		err = r.option(key, value)
	}
	return err
}

// option reads what belongs to one type of mount.
func (r *mountReader) option(key, value string) error {
	switch key {
	case "bind-propagation":
		r.bind().Propagation = mount.Propagation(strings.ToLower(value))
	case "bind-recursive":
		r.recursive = value
	case "volume-subpath":
		r.volume().Subpath = value
	case "volume-label":
		k, v, _ := strings.Cut(value, "=")
		put(&r.volume().Labels, k, v)
	case "volume-driver":
		r.volume().DriverConfig.Name = value
	case "volume-opt":
		k, v, _ := strings.Cut(value, "=")
		put(&r.volume().DriverConfig.Options, k, v)
	case "image-subpath":
		r.ImageOptions = &mount.ImageOptions{Subpath: value}
	case "subpath":
		r.subpath = value
	case "tmpfs-size":
		n, err := units.RAMInBytes(value)
		if err != nil {
			return fmt.Errorf("tmpfs-size=%s: give a size such as 64m", value)
		}
		r.tmpfs().SizeBytes = n
	case "tmpfs-mode":
		n, err := strconv.ParseUint(value, 8, 32)
		if err != nil {
			return fmt.Errorf("tmpfs-mode=%s: give an octal mode such as 1777", value)
		}
		r.tmpfs().Mode = os.FileMode(n)
	default:
		return fmt.Errorf("unknown option %q%s", key, didYouMean(key, mountKeys(), ""))
	}
	return nil
}

func mountKeys() []string {
	return []string{"type", "source", "src", "target", "dst", "destination", "readonly", "ro", "consistency", "bind-propagation", "bind-recursive",
		"bind-nonrecursive", "bind-create-src", "volume-nocopy", "volume-subpath", "volume-label", "volume-driver", "volume-opt", "image-subpath", "subpath",
		"tmpfs-size", "tmpfs-mode"}
}

// finish checks what the fields mean together.
func (r *mountReader) finish() error {
	if r.Target == "" {
		return errors.New("where in the container? target=/path is missing")
	}
	switch r.Type {
	case mount.TypeBind, mount.TypeVolume, mount.TypeTmpfs, mount.TypeImage:
	default:
		return fmt.Errorf("unknown type %q%s", r.Type, didYouMean(string(r.Type), []string{"bind", "volume", "tmpfs", "image"}, ": it can be bind, volume, tmpfs or image"))
	}
	switch {
	case r.subpath == "":
	case r.Type == mount.TypeImage:
		r.ImageOptions = &mount.ImageOptions{Subpath: r.subpath}
	case r.Type == mount.TypeVolume:
		r.volume().Subpath = r.subpath
	default:
		return fmt.Errorf("subpath does not go with type=%s: name the place in source=", r.Type)
	}
	for _, family := range sorted(r.families) {
		if family != string(r.Type) {
			return fmt.Errorf("%s-… options do not go with type=%s", family, r.Type)
		}
	}
	switch r.recursive {
	case "":
	case "enabled":
	case "disabled":
		r.bind().NonRecursive = true
	case "writable":
		r.bind().ReadOnlyNonRecursive = true
	case "readonly":
		r.bind().ReadOnlyForceRecursive = true
	default:
		return fmt.Errorf("bind-recursive=%s: it can be enabled, disabled, writable or readonly", r.recursive)
	}
	if !r.ReadOnly && (r.recursive == "writable" || r.recursive == "readonly") {
		return fmt.Errorf("bind-recursive=%s says something about read-only mounts only: add readonly", r.recursive)
	}
	if r.recursive == "readonly" && r.bind().Propagation != mount.PropagationRPrivate {
		return errors.New("bind-recursive=readonly needs bind-propagation=rprivate: add it")
	}
	return nil
}

func (r *mountReader) bind() *mount.BindOptions {
	if r.BindOptions == nil {
		r.BindOptions = &mount.BindOptions{}
	}
	return r.BindOptions
}

func (r *mountReader) volume() *mount.VolumeOptions {
	if r.VolumeOptions == nil {
		r.VolumeOptions = &mount.VolumeOptions{DriverConfig: &mount.Driver{}} // an empty driver is the default one
	}
	return r.VolumeOptions
}

func (r *mountReader) tmpfs() *mount.TmpfsOptions {
	if r.TmpfsOptions == nil {
		r.TmpfsOptions = &mount.TmpfsOptions{}
	}
	return r.TmpfsOptions
}

// truth reads the value of an option that may stand alone.
func truth(key, value string, has bool) (bool, error) {
	if !has {
		return true, nil
	}
	b, err := strconv.ParseBool(value)
	if err != nil {
		return false, fmt.Errorf("%s=%s: it can be true or false", key, value)
	}
	return b, nil
}

func put(m *map[string]string, key, value string) {
	if *m == nil {
		*m = map[string]string{}
	}
	(*m)[key] = value
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}
