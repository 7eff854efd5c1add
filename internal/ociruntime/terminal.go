package ociruntime

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// openTerminal makes the container's devpts and a terminal in it; the slave is opened by descriptor (TIOCGPTPEER), never by a path.
func (l *layout) openTerminal() error {
	var pts *specs.Mount
	for i := range l.spec.Mounts {
		if l.spec.Mounts[i].Type == "devpts" && path.Clean(l.spec.Mounts[i].Destination) == "/dev/pts" {
			pts = &l.spec.Mounts[i]
		}
	}
	if pts == nil {
		if l.spec.Process.Terminal {
			return errors.New("a terminal is asked for, but the configuration mounts no devpts on /dev/pts")
		}
		return nil
	}
	l.terminals = pts
	o := parseMountOptions(pts.Options)
	o.change(o.tree)
	o.source = pts.Source
	data := o.data[:0:0]
	for _, d := range o.data {
		if d != "newinstance" {
			data = append(data, d)
		}
	}
	var err error
	if l.devpts, err = l.newFilesystem("devpts", l.ownedBy(data), o); err != nil {
		return err
	}
	if !l.spec.Process.Terminal {
		return nil
	}
	l.console, l.slave, err = openPty(l.devpts, l.ns.ids.Host(int(l.spec.Process.User.UID)), l.spec.Process.ConsoleSize)
	if err == nil {
		l.held.keep(l.slave)
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
func (l *layout) prepareConsole() error {
	if l.devices == nil {
		return nil
	}
	n, err := terminalNumber(l.console)
	if err != nil {
		return err
	}
	source, err := dup(l.devpts)
	if err != nil {
		return err
	}
	return l.place(&attachment{source: source, part: strconv.Itoa(int(n))}, "/dev/console")
}

// KeepLineEnds has a terminal leave the line ends of its program's output as they are, for who passes them on to a terminal of his own or
// to a file.
func KeepLineEnds(console *os.File) {
	raw, err := console.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		if t, err := unix.IoctlGetTermios(int(fd), unix.TCGETS); err == nil {
			t.Oflag &^= unix.ONLCR
			_ = unix.IoctlSetTermios(int(fd), unix.TCSETS, t)
		}
	})
}
