package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// attachConsole joins a container's terminal with this process's streams; copied closes when its last output has been written. The
// returned function gives this process's terminal back as it was.
func attachConsole(console *os.File, copied chan struct{}) (restore func()) {
	restore = makeRaw(os.Stdin)
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

// makeRaw has a terminal pass every byte on (termios(3), "Raw mode"); anything else is left alone.
func makeRaw(f *os.File) (restore func()) {
	fd := int(f.Fd())
	old, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return func() {}
	}
	raw := *old
	raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	raw.Oflag &^= unix.OPOST
	raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	raw.Cflag = raw.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &raw); err != nil {
		return func() {}
	}
	return func() { _ = unix.IoctlSetTermios(fd, unix.TCSETS, old) }
}

// copySize gives the container's terminal the size of this process's.
func copySize(console *os.File) {
	size, err := unix.IoctlGetWinsize(int(os.Stdin.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return
	}
	if raw, err := console.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, size) })
	}
}
