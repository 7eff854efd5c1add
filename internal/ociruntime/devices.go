package ociruntime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/rootfs"
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
func (s *start) prepareDevices() error {
	var dev *attachment
	for _, m := range s.mounts {
		if m.at == "/dev" && m.source != nil && m.source.Name() == "tmpfs" {
			dev = m
		}
	}
	old := unix.Umask(0)
	defer unix.Umask(old)
	if dev == nil {
		return nil // a bound or image-made /dev is the user's business
	}
	s.devices = dev.source
	for _, d := range append(defaultDevices(), s.spec.Linux.Devices...) {
		if err := s.makeDevice(dev.source, d); err != nil {
			return err
		}
	}
	for _, l := range deviceLinks {
		if err := unix.Symlinkat(l[0], int(dev.source.Fd()), l[1]); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("link /dev/%s: %w", l[1], err)
		}
	}
	if _, err := os.Stat("/proc/kcore"); err == nil && s.ids.Size == 0 {
		_ = unix.Symlinkat("/proc/kcore", int(dev.source.Fd()), "core")
	}
	return nil
}

var deviceTypes = map[string]uint32{"c": unix.S_IFCHR, "u": unix.S_IFCHR, "b": unix.S_IFBLK, "p": unix.S_IFIFO}

func (s *start) makeDevice(dev *os.File, d specs.LinuxDevice) error {
	name, ok := within(path.Clean(d.Path), "/dev")
	if !ok || name == "/" {
		return s.bindDevice(d)
	}
	kind, ok := deviceTypes[d.Type]
	if !ok {
		return fmt.Errorf("device %s: type %q is not one of b, c, u, p", d.Path, d.Type)
	}
	mode := uint32(0o666)
	if d.FileMode != nil {
		mode = uint32(*d.FileMode & 0o7777)
	}
	parent, err := s.target(dev, path.Dir("/"+name), true)
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
	if err := unix.Fchownat(int(parent.Fd()), base, s.ids.Host(uid), s.ids.Host(gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("own device %s: %w", d.Path, err)
	}
	return nil
}

// bindDevice shows a device outside of /dev by a bind of a node made in the /dev tmpfs' own file system.
func (s *start) bindDevice(d specs.LinuxDevice) error {
	tmpfs, err := s.newFilesystem("tmpfs", []string{"mode=755", "size=4k"}, mountOptions{set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC})
	if err != nil {
		return err
	}
	defer tmpfs.Close()
	inside := d
	inside.Path = "/dev/node"
	if err := s.makeDevice(tmpfs, inside); err != nil {
		return err
	}
	source, err := rootfs.Bind("node", rootfs.BindOptions{Dir: tmpfs})
	if err != nil {
		return err
	}
	return s.place(&attachment{source: source}, d.Path)
}

// openTerminal makes the container's devpts and a terminal in it; the slave is opened by descriptor (TIOCGPTPEER), never by a path.
func (s *start) openTerminal(context.Context) error {
	var pts *specs.Mount
	for i := range s.spec.Mounts {
		if s.spec.Mounts[i].Type == "devpts" && path.Clean(s.spec.Mounts[i].Destination) == "/dev/pts" {
			pts = &s.spec.Mounts[i]
		}
	}
	if pts == nil {
		if s.spec.Process.Terminal {
			return errors.New("a terminal is asked for, but the configuration mounts no devpts on /dev/pts")
		}
		return nil
	}
	o := parseMountOptions(pts.Options)
	data := o.data[:0:0]
	for _, d := range o.data {
		if d != "newinstance" {
			data = append(data, d)
		}
	}
	var err error
	if s.devpts, err = s.newFilesystem("devpts", s.ownedBy(data), o); err != nil {
		return err
	}
	if !s.spec.Process.Terminal {
		return nil
	}
	s.console, s.slave, err = openPty(s.devpts, s.ids.Host(int(s.spec.Process.User.UID)), s.spec.Process.ConsoleSize)
	if err == nil {
		s.keep(s.slave)
	}
	return err
}

// openPty makes a terminal in a devpts and gives its slave to owner.
func openPty(devpts *os.File, owner int, size *specs.Box) (master, slave *os.File, err error) {
	fd, err := unix.Openat(int(devpts.Fd()), "ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("open a terminal: %w", err)
	}
	master = os.NewFile(uintptr(fd), "terminal")
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		master.Close()
		return nil, nil, fmt.Errorf("unlock the terminal: %w", err)
	}
	other, err := peer(fd)
	if err != nil {
		master.Close()
		return nil, nil, fmt.Errorf("open the terminal's other side: %w", err)
	}
	slave = os.NewFile(uintptr(other), "terminal")
	if size != nil && (size.Width > 0 || size.Height > 0) {
		_ = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(size.Height), Col: uint16(size.Width)})
	}
	if err := unix.Fchown(other, owner, -1); err != nil {
		master.Close()
		slave.Close()
		return nil, nil, fmt.Errorf("own the terminal: %w", err)
	}
	return master, slave, nil
}

// terminalNumber is a terminal's name below /dev/pts.
func terminalNumber(master *os.File) (n uint32, err error) {
	raw, err := master.SyscallConn()
	if err != nil {
		return 0, err
	}
	if e := raw.Control(func(fd uintptr) { n, err = unix.IoctlGetUint32(int(fd), unix.TIOCGPTN) }); e != nil {
		return 0, e
	}
	return n, err
}

// prepareConsole shows the terminal as /dev/console.
func (s *start) prepareConsole() error {
	if s.devices == nil {
		return nil
	}
	n, err := terminalNumber(s.console)
	if err != nil {
		return err
	}
	source, err := rootfs.Bind(strconv.Itoa(int(n)), rootfs.BindOptions{Dir: s.devpts})
	if err != nil {
		return err
	}
	return s.place(&attachment{source: source}, "/dev/console")
}

// copyUp fills a fresh tmpfs with what the image has at its place ("tmpcopyup").
func (s *start) copyUp(a *attachment, destination string) error {
	if a.target == nil || a.source == nil {
		return fmt.Errorf("%s: tmpcopyup works only on a tmpfs over the root file system", destination)
	}
	from, err := openIn(s.root, strings.TrimPrefix(a.at, "/"), unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer from.Close()
	return copyTree(from, a.source)
}
