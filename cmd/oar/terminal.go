package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// attachConsole joins a container's terminal with this process's streams; copied closes when its last output has been written. The
// returned function gives this process's terminal back as it was.
func attachConsole(console *os.File, copied chan struct{}) (restore func()) {
	restore = makeRaw(ownTerminal())
	copySize(console)
	go func() { _, _ = console.ReadFrom(os.Stdin) }()
	go func() {
		defer close(copied)
		buf := make([]byte, 32<<10)
		for {
			n, err := console.Read(buf)
			if n > 0 {
				_, _ = os.Stdout.Write(buf[:n])
			}
			if err != nil {
				return
			}
		}
	}()
	return restore
}

// ownTerminal is this process's: any of its streams may be redirected. Nil: it has none.
func ownTerminal() *os.File {
	for _, f := range []*os.File{os.Stdin, os.Stdout, os.Stderr} {
		if _, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err == nil {
			return f
		}
	}
	return nil
}

// atTerminal says that somebody can type: at a stream of this process, or where it was started from.
func atTerminal() bool {
	if ownTerminal() != nil {
		return true
	}
	f, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	f.Close()
	return true
}

// makeRaw has a terminal pass every byte on (termios(3), "Raw mode"), but for line ends in its output, which the container's
// terminal leaves as they were written; no terminal is left alone.
func makeRaw(f *os.File) (restore func()) {
	if f == nil {
		return func() {}
	}
	fd := int(f.Fd())
	old, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return func() {}
	}
	raw := *old
	raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	raw.Cflag = raw.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &raw); err != nil {
		return func() {}
	}
	return func() { _ = unix.IoctlSetTermios(fd, unix.TCSETS, old) }
}

// copySize gives the container's terminal the size of this process's, if that has one.
func copySize(console *os.File) {
	own := ownTerminal()
	if own == nil {
		return
	}
	size, err := unix.IoctlGetWinsize(int(own.Fd()), unix.TIOCGWINSZ)
	if err != nil || size.Row == 0 && size.Col == 0 { // a terminal that knows none says nothing
		return
	}
	if raw, err := console.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, size) })
	}
}
