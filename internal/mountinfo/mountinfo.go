// Package mountinfo reads the kernel's tables of mounts, /proc/PID/mountinfo.
//
// It keeps no table. One is read whole, since lines may be of any length: whoever may mount chooses what stands in them.
package mountinfo

import (
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Mount is a line of a table (proc_pid_mountinfo(5)). Names are what they are, without the table's escapes.
type Mount struct {
	ID      uint64
	Part    string   // of its file system: what is mounted
	At      string   // as seen from the root directory of the process
	Flags   []string // of the mount: ro, nosuid …
	Type    string
	Source  string
	Options []string // of the file system, which other mounts of it have too
	Peers   []string // whom it shares mounts with: shared:N, master:N; none: it is private
}

// Own is the table of this process, lowest mounts first; with types only the mounts of these file systems.
func Own(types ...string) ([]Mount, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	return Parse(string(text), types...)
}

// Table is the one of the mount namespace and the root directory that this process had when it was opened. It is not for several goroutines at
// once.
type Table struct{ f *os.File }

// Open opens it.
func Open() (*Table, error) {
	const name = "/proc/self/mountinfo"
	// Not by package os: Go's poller would wait for changes, too, and a change is told once.
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return &Table{os.NewFile(uintptr(fd), name)}, nil
}

// Close lets go of it.
func (t *Table) Close() error { return t.f.Close() }

// Changed says whether a mount has come, gone or changed since the last call, or since Open (proc_pid_mounts(5): the kernel then announces an
// error and priority data). Who reads after a call sees what that call was about.
func (t *Table) Changed() bool {
	poll := []unix.PollFd{{Fd: int32(t.f.Fd()), Events: unix.POLLPRI}}
	n, err := unix.Poll(poll, 0)
	return err != nil || n > 0 && poll[0].Revents&(unix.POLLPRI|unix.POLLERR) != 0
}

// Read gives it, as Own does.
func (t *Table) Read(types ...string) ([]Mount, error) {
	text, err := io.ReadAll(io.NewSectionReader(t.f, 0, math.MaxInt64))
	if err != nil {
		return nil, err
	}
	return Parse(string(text), types...)
}

// Parse reads a table's text, as Own does.
func Parse(text string, types ...string) (list []Mount, err error) {
	for line := range strings.Lines(text) {
		// 36 35 98:0 /part /at flags,… optional… - type source options,…
		before, after, ok := strings.Cut(line, " - ")
		if name, _, _ := strings.Cut(after, " "); len(types) > 0 && ok && !slices.Contains(types, name) {
			continue
		}
		f, kind := strings.Split(before, " "), strings.Split(strings.TrimSuffix(after, "\n"), " ") // other white space is not escaped
		if !ok || len(f) < 6 || len(kind) < 3 {
			return nil, fmt.Errorf("a line of mountinfo has an unknown form: %q", line)
		}
		id, err := strconv.ParseUint(f[0], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("a line of mountinfo has an unknown form: %q", line)
		}
		m := Mount{ID: id, Part: unescape(f[3]), At: unescape(f[4]), Flags: strings.Split(f[5], ","), Type: kind[0], Source: unescape(kind[1]), Peers: f[6:]}
		for _, o := range strings.Split(kind[len(kind)-1], ",") {
			m.Options = append(m.Options, unescape(o))
		}
		list = append(list, m)
	}
	return list, nil
}

// unescape reads the octal numbers that stand for blanks and the like.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				out.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		out.WriteByte(s[i])
	}
	return out.String()
}
