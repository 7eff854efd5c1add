package container

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/cdi"
	"wherry.dev/wherry/internal/spec"
)

// devicesOf looks up --device and --device-cgroup-rule; a privileged container gets all of the host's.
func devicesOf(h *container.HostConfig) (devices []specs.LinuxDevice, rules []specs.LinuxDeviceCgroup, err error) {
	if h.Privileged {
		devices, _, err = devicesIn("/dev", "/dev", "rwm")
		if err != nil {
			return nil, nil, err
		}
	}
	for _, m := range h.Devices {
		inside, access := m.PathInContainer, m.CgroupPermissions
		if inside == "" {
			inside = m.PathOnHost
		}
		if access == "" {
			access = "rwm"
		}
		if strings.Trim(access, "rwm") != "" {
			return nil, nil, invalid("invalid device mode: %s: use letters of r, w and m", access)
		}
		d, r, err := devicesAt(m.PathOnHost, inside, access)
		if err != nil {
			return nil, nil, err
		}
		devices, rules = append(devices, d...), append(rules, r...)
	}
	for _, text := range h.DeviceCgroupRules {
		r, err := spec.ParseDeviceRule(text)
		if err != nil {
			return nil, nil, invalid("%v", err)
		}
		rules = append(rules, r)
	}
	return devices, rules, nil
}

// deviceDriver is who resolves a request for devices: "cdi", or "gpu" for what --gpus asks for.
func deviceDriver(q *container.DeviceRequest) (string, error) {
	gpu := slices.ContainsFunc(q.Capabilities, func(all []string) bool { return slices.Contains(all, "gpu") })
	switch {
	case q.Driver == "cdi":
		return "cdi", nil
	case gpu && (q.Driver == "" || q.Driver == "nvidia" || q.Driver == "amd"):
		return "gpu", nil
	}
	return "", invalid("could not select device driver %q with capabilities: %v: there is cdi (--device VENDOR.COM/CLASS=NAME), and for graphics processors nvidia and amd, which are found by CDI, too", q.Driver, q.Capabilities)
}

// deviceEdits are what the devices add that are asked for by name. Files that describe them may change between two starts.
func deviceEdits(h *container.HostConfig, dirs cdi.Dirs, user specs.User) (spec.Edits, error) {
	var names []string
	for i := range h.DeviceRequests {
		q := &h.DeviceRequests[i]
		driver, err := deviceDriver(q)
		if err != nil {
			return spec.Edits{}, err
		}
		ids := q.DeviceIDs
		if driver == "gpu" {
			if ids, err = dirs.GPUs(q.Driver, q.Count, q.DeviceIDs); err != nil {
				return spec.Edits{}, err
			}
		}
		names = append(names, ids...)
	}
	return dirs.Edits(names, user)
}

// devicesAt is one device, or all below a folder.
func devicesAt(host, inside, access string) ([]specs.LinuxDevice, []specs.LinuxDeviceCgroup, error) {
	var st unix.Stat_t
	if err := unix.Stat(host, &st); err != nil {
		return nil, nil, invalid("error gathering device information while adding custom device %q: %v: give the path of a device on the host", host, err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return devicesIn(host, inside, access)
	}
	d, ok := deviceOf(&st, inside)
	if !ok {
		return nil, nil, invalid("error gathering device information while adding custom device %q: not a device node", host)
	}
	return []specs.LinuxDevice{d}, []specs.LinuxDeviceCgroup{allow(d, access)}, nil
}

func devicesIn(host, inside, access string) (devices []specs.LinuxDevice, rules []specs.LinuxDeviceCgroup, err error) {
	err = filepath.WalkDir(host, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return nil // came and went
		case e.IsDir() && host == "/dev" && (path == "/dev/pts" || path == "/dev/shm" || path == "/dev/mqueue" || path == "/dev/fd"):
			return filepath.SkipDir
		case e.Type()&os.ModeDevice == 0 || path == "/dev/console":
			return nil
		}
		var st unix.Stat_t
		if unix.Lstat(path, &st) != nil {
			return nil
		}
		if d, ok := deviceOf(&st, filepath.Join(inside, strings.TrimPrefix(path, host))); ok {
			devices, rules = append(devices, d), append(rules, allow(d, access))
		}
		return nil
	})
	if err == nil && len(devices) == 0 {
		err = invalid("error gathering device information while adding custom device %q: not a device node, nor a folder with devices", host)
	}
	return devices, rules, err
}

func deviceOf(st *unix.Stat_t, inside string) (specs.LinuxDevice, bool) {
	kind := map[uint32]string{unix.S_IFCHR: "c", unix.S_IFBLK: "b"}[st.Mode&unix.S_IFMT]
	mode, uid, gid := os.FileMode(st.Mode&0o777), st.Uid, st.Gid
	return specs.LinuxDevice{Path: inside, Type: kind, Major: int64(unix.Major(st.Rdev)), Minor: int64(unix.Minor(st.Rdev)), FileMode: &mode, UID: &uid, GID: &gid}, kind != ""
}

func allow(d specs.LinuxDevice, access string) specs.LinuxDeviceCgroup {
	return specs.LinuxDeviceCgroup{Allow: true, Type: d.Type, Major: &d.Major, Minor: &d.Minor, Access: access}
}

// blockIO turns limits by device path into those by number; nil without any.
func blockIO(r *container.Resources) (*specs.LinuxBlockIO, error) {
	var b specs.LinuxBlockIO
	any := false
	if r.BlkioWeight > 0 {
		b.Weight, any = &r.BlkioWeight, true
	}
	for _, w := range r.BlkioWeightDevice {
		major, minor, err := blockDevice(w.Path)
		if err != nil {
			return nil, err
		}
		d := specs.LinuxWeightDevice{Weight: &w.Weight}
		d.Major, d.Minor = major, minor
		b.WeightDevice, any = append(b.WeightDevice, d), true
	}
	for _, row := range []struct {
		from []*blkiodev.ThrottleDevice
		to   *[]specs.LinuxThrottleDevice
	}{
		{r.BlkioDeviceReadBps, &b.ThrottleReadBpsDevice}, {r.BlkioDeviceWriteBps, &b.ThrottleWriteBpsDevice},
		{r.BlkioDeviceReadIOps, &b.ThrottleReadIOPSDevice}, {r.BlkioDeviceWriteIOps, &b.ThrottleWriteIOPSDevice},
	} {
		for _, t := range row.from {
			major, minor, err := blockDevice(t.Path)
			if err != nil {
				return nil, err
			}
			d := specs.LinuxThrottleDevice{Rate: t.Rate}
			d.Major, d.Minor = major, minor
			*row.to, any = append(*row.to, d), true
		}
	}
	if !any {
		return nil, nil
	}
	return &b, nil
}

func blockDevice(path string) (major, minor int64, err error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, 0, invalid("limit block I/O of %s: %v: give the path of a block device on the host", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return 0, 0, invalid("limit block I/O of %s: it is not a block device", path)
	}
	return int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev)), nil
}

// makeSharedMemory mounts a tmpfs on the host for an --ipc shareable container: a mount of the container's own could not be shown to others.
func makeSharedMemory(path string, r *Record) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	options := fmt.Sprintf("mode=1777,size=%d,uid=%d,gid=%d", r.HostConfig.ShmSize, r.IDMap.Host(0), r.IDMap.Host(0))
	if err := unix.Mount("shm", path, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, options); err != nil {
		return fmt.Errorf("mount the shared memory of container %s: %w", r.Name, err)
	}
	return nil
}

func removeSharedMemory(path string) error {
	if _, err := os.Lstat(path); err != nil {
		return nil
	}
	_ = unix.Unmount(path, unix.MNT_DETACH)
	return os.Remove(path)
}
