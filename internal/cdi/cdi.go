// Package cdi finds the devices that vendors describe in files on the host, by the Container Device Interface, and says what they add to a
// container.
//
// A specification file is JSON or YAML in one of the directories of a Dirs, of which later ones win; who writes there is root. Nothing is kept:
// each question reads the directories, which mostly are not there. A Dirs is a value, safe for many goroutines. The format is that of
// https://github.com/cncf-tags/container-device-interface/blob/main/SPEC.md.
package cdi

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"tags.cncf.io/container-device-interface/pkg/cdi"
	"tags.cncf.io/container-device-interface/pkg/parser"

	"wherry.dev/wherry/internal/spec"
)

// Dirs are where specification files lie. None: there are no devices.
type Dirs []string

// Default is where vendors' programs write them.
func Default() Dirs { return Dirs{cdi.DefaultStaticDir, cdi.DefaultDynamicDir} }

// Cache is what the directories hold now; nil without directories. Refresh reads them anew.
func (d Dirs) Cache() *cdi.Cache {
	if len(d) == 0 {
		return nil
	}
	cache, err := cdi.NewCache(cdi.WithSpecDirs(d...), cdi.WithAutoRefresh(false))
	if err != nil { // it never is one
		return nil
	}
	return cache
}

// Devices are all there are, by their whole names, vendor.com/class=name. Warnings name files that could not be read.
func (d Dirs) Devices() (names, warnings []string) {
	cache := d.Cache()
	if cache == nil {
		return nil, nil
	}
	for _, path := range slices.Sorted(maps.Keys(cache.GetErrors())) {
		warnings = append(warnings, fmt.Sprintf("CDI: %s: %v", path, errors.Join(cache.GetErrors()[path]...)))
	}
	return cache.ListDevices(), warnings
}

// Edits are what devices add to a container whose program is run by user: nodes that no owner is written of become the user's. ErrInvalidArgument
// says which devices are not there.
func (d Dirs) Edits(names []string, user specs.User) (spec.Edits, error) {
	if len(names) == 0 {
		return spec.Edits{}, nil
	}
	for _, name := range names {
		if _, _, _, err := parser.ParseQualifiedName(name); err != nil {
			return spec.Edits{}, fmt.Errorf("CDI device injection failed: %w: write VENDOR.COM/CLASS=NAME: %w", err, errdefs.ErrInvalidArgument)
		}
	}
	cache := d.Cache()
	if cache == nil {
		return spec.Edits{}, fmt.Errorf("CDI device injection failed: %s: the setting containers.cdi-spec-dirs names no directory: %w", strings.Join(names, ", "), errdefs.ErrInvalidArgument)
	}
	into := specs.Spec{Process: &specs.Process{User: specs.User{UID: user.UID, GID: user.GID}}}
	if missing, err := cache.InjectDevices(&into, names...); err != nil {
		return spec.Edits{}, fmt.Errorf("CDI device injection failed: %w%s: %w", err, d.hint(cache, missing), errdefs.ErrInvalidArgument)
	}
	return edits(&into)
}

// hint says what there is instead of what is not there, and which files nobody could read.
func (d Dirs) hint(cache *cdi.Cache, missing []string) string {
	if len(missing) == 0 {
		return ""
	}
	for path, errs := range cache.GetErrors() {
		return fmt.Sprintf(": %s is not whole: %v", path, errors.Join(errs...))
	}
	if known := cache.ListDevices(); len(known) > 0 {
		return ": there are " + strings.Join(known, ", ")
	}
	return ": no device is described in " + strings.Join(d, " or ")
}

// edits takes apart what the library has written into an empty configuration.
func edits(from *specs.Spec) (spec.Edits, error) {
	out := spec.Edits{Env: from.Process.Env, Groups: from.Process.User.AdditionalGids, Mounts: from.Mounts, Hooks: from.Hooks}
	if l := from.Linux; l != nil {
		out.Devices, out.NetDevices, out.Rdt = l.Devices, l.NetDevices, l.IntelRdt
		if l.Resources != nil {
			out.Rules = l.Resources.Devices
		}
	}
	if out.Hooks != nil && len(out.Hooks.Poststop) > 0 {
		return spec.Edits{}, fmt.Errorf("CDI device injection failed: hook %s is to run after the container (poststop): such hooks are run by nobody, as a container's end may come without the engine; let a service of the host do it: %w",
			out.Hooks.Poststop[0].Path, errdefs.ErrInvalidArgument)
	}
	return out, nil
}

// classes of devices that --gpus stands for, by driver.
var classes = []struct{ driver, class string }{{"nvidia", "nvidia.com/gpu"}, {"amd", "amd.com/gpu"}}

// GPUs are the names of what --gpus asks for: all where count is -1, as many as it says, or the ones of ids. Driver may be "" for whichever there
// are. ErrInvalidArgument where there are none, or fewer.
func (d Dirs) GPUs(driver string, count int, ids []string) ([]string, error) {
	known, _ := d.Devices()
	for _, c := range classes {
		of := slices.DeleteFunc(slices.Clone(known), func(name string) bool { return !strings.HasPrefix(name, c.class+"=") })
		if len(of) == 0 || driver != "" && driver != c.driver {
			continue
		}
		switch {
		case count < 0:
			ids = []string{"all"}
		case len(ids) == 0 && count > len(of):
			return nil, fmt.Errorf("could not select device driver %q: %d devices are asked for, and there are no more than %s: %w", driver, count, strings.Join(of, ", "), errdefs.ErrInvalidArgument)
		case len(ids) == 0:
			for i := range count {
				ids = append(ids, strconv.Itoa(i))
			}
		}
		var names []string
		for _, id := range ids {
			names = append(names, c.class+"="+id)
		}
		return names, nil
	}
	return nil, fmt.Errorf("could not select device driver %q with capabilities: [[gpu]]: no such device is described in %s; for NVIDIA's: nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml: %w",
		driver, strings.Join(d, " or "), errdefs.ErrInvalidArgument)
}
