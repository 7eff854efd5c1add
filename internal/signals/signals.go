// Package signals tells who sent the signal that ended a process.
//
// The status of a dead process names the signal and not the sender, and no log of the kernel's does. A small BPF program at the kernel's
// tracepoint signal_generate sees both; it keeps, for processes and control groups that somebody has asked about, the last signal of
// another process and the last one of a process to itself (a crash is one). Nothing is told for the rest, and nothing is printed, copied or
// woken: a lookup in a table is all that a signal costs.
//
// A Watch owns the table and the program: both end with it or with the process. It needs CAP_BPF, CAP_PERFMON and the kernel's type
// information (/sys/kernel/btf/vmlinux). It is safe for many goroutines.
package signals

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/bpf"
)

// Watch sees signals. The zero value sees none.
type Watch struct{ table, program, link int }

// Signal is one that was sent.
type Signal struct {
	Number  int
	At      time.Duration // CLOCK_MONOTONIC
	Sender  Process
	Parent  Process // the sender's
	UID     uint32  // the sender's, on the host
	Group   uint64  // the sender's control group
	Target  Process
	Kernel  bool   // the kernel sent it by itself: for a fault of the target, or for want of memory
	Code    int    // si_code (sigaction(2))
	Address uint64 // of a fault
	Call    int    // number of the system call that a filter forbids; -1: it is not about one
}

// Process is a process by its number on the host and its name.
type Process struct {
	Pid  int
	Name string
}

// value is what the table has of a process or group: what was last sent by others, and by a process to itself.
type value [2][slotSize]byte

// ofProcess tells processes from groups, whose numbers are far below.
const ofProcess = 1 << 63

// maxEntries bounds the table: two for each container.
const maxEntries = 16384

// Open begins to see signals.
func Open() (*Watch, error) {
	layout, err := findLayout("/sys/kernel/btf/vmlinux")
	if err != nil {
		return nil, fmt.Errorf("watch signals: read the kernel's types: %w", err)
	}
	w := &Watch{table: -1, program: -1, link: -1}
	if w.table, err = makeTable(8, len(value{})*slotSize, maxEntries); err != nil {
		return nil, fmt.Errorf("watch signals: make a BPF map: %w", err)
	}
	if w.program, err = bpf.Load(unix.BPF_PROG_TYPE_RAW_TRACEPOINT, 0, layout.program(w.table)); err == nil {
		w.link, err = attach(w.program, "signal_generate")
	}
	if err != nil {
		w.Close()
		return nil, fmt.Errorf("watch signals: %w", err)
	}
	return w, nil
}

// Close ends the watch.
func (w *Watch) Close() {
	for _, fd := range []*int{&w.link, &w.program, &w.table} {
		if *fd > 0 {
			unix.Close(*fd)
		}
		*fd = -1
	}
}

// Add begins to keep what is sent to a process (its first thread's number on the host), and to any in a control group of version 2 (0: none).
func (w *Watch) Add(pid int, group uint64) error {
	var empty value
	err := put(w.table, uint64(pid)|ofProcess, &empty)
	if err == nil && group != 0 {
		err = put(w.table, group, &empty)
	}
	if err != nil {
		return fmt.Errorf("watch signals to process %d: %w", pid, err)
	}
	return nil
}

// Forget ends that.
func (w *Watch) Forget(pid int, group uint64) {
	_ = remove(w.table, uint64(pid)|ofProcess)
	_ = remove(w.table, group)
}

// To is the last signal of a number that was sent to a process that was added.
func (w *Watch) To(pid, number int) (Signal, bool) { return w.look(uint64(pid)|ofProcess, number) }

// Within is the last signal of a number that was sent to another process of a group that was added.
func (w *Watch) Within(group uint64, number int) (Signal, bool) { return w.look(group, number) }

func (w *Watch) look(key uint64, number int) (last Signal, ok bool) {
	var v value
	if err := get(w.table, key, &v); err != nil {
		return last, false
	}
	for i := range v {
		s, err := parse(v[i][:])
		if err == nil && s.Number == number && (!ok || s.At > last.At) {
			last, ok = s, true
		}
	}
	return last, ok
}

// errEmpty: nothing was sent yet.
var errEmpty = errors.New("no signal")

// parse reads what the program has written (see program).
func parse(b []byte) (s Signal, err error) {
	if len(b) < slotSize {
		return s, fs.ErrInvalid
	}
	word := func(at int) uint32 { return binary.NativeEndian.Uint32(b[at:]) }
	long := func(at int) uint64 { return binary.NativeEndian.Uint64(b[at:]) }
	name := func(at int) string {
		text, _, _ := bytes.Cut(b[at:at+nameSize], []byte{0})
		return string(text)
	}
	if s.Number = int(word(atSignal)); s.Number == 0 {
		return s, errEmpty
	}
	s.At, s.UID, s.Group = time.Duration(long(atTime)), word(atUID), long(atGroup)
	s.Sender, s.Parent = Process{int(word(atSender + 4)), name(atSenderName)}, Process{int(word(atParent)), name(atParentName)}
	s.Target = Process{int(word(atTarget)), name(atTargetName)}
	s.Call = -1
	switch word(atInfoKind) {
	case 0: // SEND_SIG_NOINFO: as if by kill(2)
	case 1: // SEND_SIG_PRIV
		s.Kernel = true
	default:
		info := b[atInfo:]
		s.Code = int(int32(binary.NativeEndian.Uint32(info[8:])))
		if s.Kernel = s.Code > 0; s.Kernel {
			s.Address = binary.NativeEndian.Uint64(info[16:])
			if s.Number == int(unix.SIGSYS) {
				s.Address, s.Call = 0, int(int32(binary.NativeEndian.Uint32(info[24:])))
			}
		}
	}
	return s, nil
}
