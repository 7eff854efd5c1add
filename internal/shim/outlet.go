package shim

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// outlet is where a stream of an exec can be read. The client reads it; should the client go, the shim does, so that the process neither
// waits nor is ended by its next word.
type outlet struct {
	client *Conn
	from   *os.File
}

// outletsOf are an exec's: its terminal, or the other ends of the pipes that its client has made.
func outletsOf(p Process, streams Streams) (out []*os.File) {
	if console := p.Console(); console != nil {
		if f, err := duplicate(console); err == nil {
			out = append(out, f)
		}
		return out
	}
	for _, f := range streams[1:] {
		if f == nil {
			continue
		}
		if st, err := f.Stat(); err != nil || st.Mode().Type() != os.ModeNamedPipe {
			continue
		}
		fd, err := descriptor(f)
		if err != nil {
			continue
		}
		if from, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", fd), os.O_RDONLY|unix.O_NONBLOCK, 0); err == nil {
			out = append(out, from)
		}
	}
	return out
}

func duplicate(f *os.File) (*os.File, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var own int
	closed := raw.Control(func(fd uintptr) { own, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 3) })
	if err := errors.Join(closed, err); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(own), f.Name()), nil
}

// closeOutlets closes those that nobody can write to any more; the others belong to what an exec has left behind.
func closeOutlets(list []outlet) (left []outlet) {
	for _, o := range list {
		fd, err := descriptor(o.from)
		poll := []unix.PollFd{{Fd: int32(fd)}} // asks for nothing: a hang-up is told in any case
		if n, e := unix.Poll(poll, 0); err != nil || e == nil && n > 0 && poll[0].Revents&unix.POLLHUP != 0 {
			o.from.Close()
			continue
		}
		left = append(left, o)
	}
	return left
}

func (o outlet) drain() {
	_, _ = io.Copy(io.Discard, o.from)
	o.from.Close()
}
