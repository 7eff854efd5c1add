package shim

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// maxFrame bounds what is read from the other side.
const maxFrame = 16 << 20

// Conn sends and receives frames. Sends are safe for many goroutines, receives for one.
type Conn struct {
	c  *net.UnixConn
	mu sync.Mutex // one frame at a time is written

	gone bool // execs.mu guards it: nobody reads what execs print to this client
}

// NewConn takes a connected socket.
func NewConn(c *net.UnixConn) *Conn { return &Conn{c: c} }

// Close ends the connection.
func (c *Conn) Close() error { return c.c.Close() }

// ErrTooLarge says that something was not sent since it does not fit a frame: the other side would give the connection up, and an engine takes
// a shim without one for dead.
var ErrTooLarge = fmt.Errorf("more than fits a message between engine and shim, %d MiB", maxFrame>>20)

// Send writes one frame; the files stay the caller's. After ErrTooLarge the connection is as before.
func (c *Conn) Send(v any, files ...*os.File) error {
	fds := make([]int, len(files))
	for i, f := range files {
		var err error
		if fds[i], err = descriptor(f); err != nil {
			return err
		}
	}
	return c.send(v, fds)
}

func (c *Conn) send(v any, fds []int) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(b) > maxFrame {
		return ErrTooLarge
	}
	frame := append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...)
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n, _, err := c.c.WriteMsgUnix(frame, rights, nil)
	if err == nil && n < len(frame) {
		_, err = c.c.Write(frame[n:])
	}
	return err
}

// descriptor is a file's, without making it blocking as os.File.Fd would.
func descriptor(f *os.File) (fd int, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	err = raw.Control(func(d uintptr) { fd = int(d) })
	return fd, err
}

// Receive reads one frame and the files that came with it.
func (c *Conn) Receive(v any) ([]*os.File, error) {
	head := make([]byte, 4)
	oob := make([]byte, unix.CmsgSpace(4*8))
	n, oobn, _, _, err := c.c.ReadMsgUnix(head, oob)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, io.EOF
	}
	files, err := receivedFiles(oob[:oobn])
	if err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(c.c, head[n:]); err != nil {
		return files, err
	}
	size := binary.BigEndian.Uint32(head)
	if size > maxFrame {
		return files, fmt.Errorf("a frame of %d bytes: %d are the most", size, maxFrame)
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(c.c, b); err != nil {
		return files, err
	}
	return files, json.Unmarshal(b, v)
}

func receivedFiles(oob []byte) ([]*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return files, nil
}
