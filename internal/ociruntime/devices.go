package ociruntime

import (
	"errors"
	"fmt"
	"os"
	"path"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// defaultDevices are those that every container has (runtime-spec, config-linux, "Default Devices").
func defaultDevices() []specs.LinuxDevice {
	char := func(p string, minor int64, major int64) specs.LinuxDevice {
		return specs.LinuxDevice{Path: p, Type: "c", Major: major, Minor: minor}
	}
	return []specs.LinuxDevice{char("/dev/null", 3, 1), char("/dev/zero", 5, 1), char("/dev/full", 7, 1), char("/dev/random", 8, 1),
		char("/dev/urandom", 9, 1), char("/dev/tty", 0, 5)}
}

var deviceLinks = [][2]string{{"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"}, {"/proc/self/fd/1", "stdout"}, {"/proc/self/fd/2", "stderr"}, {"pts/ptmx", "ptmx"}}

// prepareDevices fills the container's /dev, a tmpfs of its own, with device nodes made here: nothing of the host's /dev is shown.
func (l *layout) prepareDevices() error {
	var dev *attachment
	for _, m := range l.mounts {
		if m.at == "/dev" && m.source != nil && m.source.Name() == "tmpfs" {
			dev = m
		}
	}
	old := unix.Umask(0)
	defer unix.Umask(old)
	if dev == nil {
		return l.makeNull() // a bound or image-made /dev is the user's business
	}
	l.devices, l.null = dev.source, dev.source
	for _, d := range append(defaultDevices(), l.spec.Linux.Devices...) {
		if err := l.makeDevice(dev.source, d); err != nil {
			return err
		}
	}
	root := l.ns.ids.Host(0)
	for _, link := range deviceLinks {
		err := unix.Symlinkat(link[0], int(dev.source.Fd()), link[1])
		if errors.Is(err, unix.EEXIST) {
			continue
		}
		if err == nil {
			err = unix.Fchownat(int(dev.source.Fd()), link[1], root, root, unix.AT_SYMLINK_NOFOLLOW)
		}
		if err != nil {
			return fmt.Errorf("link /dev/%s: %w", link[1], err)
		}
	}
	if _, err := os.Stat("/proc/kcore"); err == nil && l.ns.ids.Size == 0 {
		_ = unix.Symlinkat("/proc/kcore", int(dev.source.Fd()), "core")
	}
	return nil
}

// makeNull makes a null device that masks are taken from where the container's /dev is not the runtime's own: what lies there may be
// anything.
func (l *layout) makeNull() error {
	if l.ns.rights.nested {
		dev, err := bindHost("/dev", 0)
		l.null = l.held.keep(dev)
		l.aside = append(l.aside, dev)
		return err
	}
	tmpfs, err := l.newFilesystem("tmpfs", []string{"mode=755", "size=4k"}, mountOptions{attributeChange: attributeChange{set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC}})
	if err != nil {
		return err
	}
	l.null = l.held.keep(tmpfs)
	l.aside = append(l.aside, tmpfs)
	return l.makeDevice(tmpfs, defaultDevices()[0])
}

var deviceTypes = map[string]uint32{"c": unix.S_IFCHR, "u": unix.S_IFCHR, "b": unix.S_IFBLK, "p": unix.S_IFIFO}

func (l *layout) makeDevice(dev *os.File, d specs.LinuxDevice) error {
	name, ok := within(path.Clean(d.Path), "/dev")
	if (!ok || name == "/") && l.ns.rights.nested {
		return l.showDevice(d)
	}
	if !ok || name == "/" {
		return l.bindDevice(d)
	}
	kind, ok := deviceTypes[d.Type]
	if !ok {
		return fmt.Errorf("device %s: type %q is not one of b, c, u, p", d.Path, d.Type)
	}
	if l.ns.rights.nested && kind != unix.S_IFIFO {
		return l.showDevice(d)
	}
	mode := uint32(0o666)
	if d.FileMode != nil {
		mode = uint32(*d.FileMode & 0o7777)
	}
	parent, err := l.target(dev, path.Dir("/"+name), true)
	if err != nil {
		return err
	}
	defer parent.Close()
	base := path.Base(name)
	if err := unix.Mknodat(int(parent.Fd()), base, kind|mode, int(unix.Mkdev(uint32(d.Major), uint32(d.Minor)))); err != nil {
		if errors.Is(err, unix.EEXIST) {
			return nil
		}
		return fmt.Errorf("make device %s: %w", d.Path, err)
	}
	uid, gid := 0, 0
	if d.UID != nil {
		uid = int(*d.UID)
	}
	if d.GID != nil {
		gid = int(*d.GID)
	}
	if err := unix.Fchownat(int(parent.Fd()), base, l.ns.ids.Host(uid), l.ns.ids.Host(gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("own device %s: %w", d.Path, err)
	}
	return nil
}

// bindDevice shows a device outside of /dev by a bind of a node made in the /dev tmpfs' own file system.
func (l *layout) bindDevice(d specs.LinuxDevice) error {
	tmpfs, err := l.newFilesystem("tmpfs", []string{"mode=755", "size=4k"}, mountOptions{attributeChange: attributeChange{set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC}})
	if err != nil {
		return err
	}
	l.aside = append(l.aside, tmpfs)
	inside := d
	inside.Path = "/dev/node"
	if err := l.makeDevice(tmpfs, inside); err != nil {
		return err
	}
	return l.place(&attachment{source: l.held.keep(tmpfs), part: "node"}, d.Path)
}
