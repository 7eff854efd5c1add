package sysprog

import (
	"fmt"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// Launcher starts programs that inherit a few descriptors, in a time that does not grow with those that this process has: a fork copies all of them,
// and the execve closes them again. It has places with low numbers, where what a program is to inherit is put; the child shares this process's table, and
// leaves all behind the places when it makes its own (CLOSE_RANGE_UNSHARE, close_range(2)).
type Launcher struct {
	mu     sync.Mutex // one at a time has the places
	places []int      // the program's, then the inherited
	null   *os.File
}

// lowest is a descriptor that no launched program inherits.
const lowest = 10

// NewLauncher takes places for as many files, early, while few descriptors are taken.
func NewLauncher(files int) (*Launcher, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	l := &Launcher{null: null}
	for range files + 1 {
		fd, err := unix.FcntlInt(null.Fd(), unix.F_DUPFD_CLOEXEC, lowest)
		if err != nil {
			l.Close()
			return nil, fmt.Errorf("take places for descriptors: %w", err)
		}
		l.places = append(l.places, fd)
	}
	return l, nil
}

// Close gives the places back.
func (l *Launcher) Close() {
	for _, fd := range l.places {
		unix.Close(fd)
	}
	l.null.Close()
}

// Launch is one program.
type Launch struct {
	Program    *os.File // executed by its descriptor
	Argv, Envp []string
	Files      []*os.File // descriptors 0…; nil: /dev/null
	Group      *os.File   // the directory of a control group (version 2) to begin in; nil: this process's
}

// Start returns when the program has been executed. It is a child, with a session of its own, in the root directory; the pidfd is the caller's.
func (l *Launcher) Start(x Launch) (pid, pidfd int, err error) {
	if len(x.Files)+1 > len(l.places) || len(x.Files) > lowest {
		return 0, -1, fmt.Errorf("start %s: %d files, and there are places for %d", x.Program.Name(), len(x.Files), len(l.places)-1)
	}
	size := 4096
	for _, s := range slices.Concat(x.Argv, x.Envp) {
		size += len(s) + 16
	}
	p, err := New(size)
	if err != nil {
		return 0, -1, err
	}
	defer p.Close()
	if x.Group != nil {
		p.group = int(x.Group.Fd())
	}
	l.write(p, x)

	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.vacate(len(x.Files) + 1)
	for i, f := range append([]*os.File{x.Program}, x.Files...) {
		if f == nil {
			continue
		}
		if err := unix.Dup3(int(f.Fd()), l.places[i], unix.O_CLOEXEC); err != nil {
			return 0, -1, fmt.Errorf("start %s: put descriptor %d in its place: %w", x.Program.Name(), i-1, err)
		}
	}
	pr, err := p.Start(unix.CLONE_FILES, false)
	if err != nil {
		return 0, -1, err
	}
	if err := pr.Wait(markLaunched); err != nil {
		pr.Discard()
		return 0, -1, err
	}
	return pr.Pid, pr.Pidfd, nil
}

// vacate drops what lies in the places: a connection ends when nobody has its other end.
func (l *Launcher) vacate(n int) {
	for _, fd := range l.places[:n] {
		_ = unix.Dup3(int(l.null.Fd()), fd, unix.O_CLOEXEC)
	}
}

// markLaunched is passed right before the execve.
const markLaunched = 1

func (l *Launcher) write(p *Program, x Launch) {
	name := x.Program.Name()
	p.Call("leave the descriptors of its maker", unix.SYS_CLOSE_RANGE, slices.Max(l.places)+1, uintptr(^uint32(0)), unix.CLOSE_RANGE_UNSHARE)
	makeRoom(p)
	for i := range x.Files {
		p.Call(fmt.Sprintf("take descriptor %d", i), unix.SYS_DUP3, l.places[i+1], i, 0)
	}
	p.Call("keep nothing else", unix.SYS_CLOSE_RANGE, len(x.Files), slices.Max(l.places), unix.CLOSE_RANGE_CLOEXEC) // what a service manager gave may not be marked
	p.Call("begin a session", unix.SYS_SETSID)
	p.Call("go to the root directory", unix.SYS_CHDIR, p.String("/"))
	p.DefaultSignals()
	p.Call("unblock signals", unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, p.Bytes(make([]byte, 8)), nil, 8)
	argv, envp := p.Strings(x.Argv), p.Strings(x.Envp)
	p.Mark(markLaunched)
	p.Call("execute "+name, unix.SYS_EXECVEAT, l.places[0], p.String(""), argv, envp, unix.AT_EMPTY_PATH)
	p.Fail("execute "+name, int(unix.ENOEXEC))
}
