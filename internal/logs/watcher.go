package logs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Watcher tells followers that their folders have changed. One serves them all: the kernel gives each user a hundred or so inotify
// instances. Where it has none left, followers look by themselves ten times a second. The zero value is ready; the first follower opens it. Safe for many
// goroutines.
type Watcher struct {
	Log func(error) // may be nil; is told that followers look by themselves

	pinned atomic.Int64 // segments that its readers hold open
	most   atomic.Int64 // so many may be held before it gets scarce

	mu      sync.Mutex // guards what follows
	closed  bool
	inotify *os.File
	done    chan struct{} // closed when the goroutine that reads has ended
	watches map[int32]map[*Reader]struct{}
	looking map[*Reader]struct{} // without inotify; nil: the goroutine for them does not run
	stop    chan struct{}        // closed by Close
	looked  chan struct{}        // closed when it has ended
}

const interesting = unix.IN_CREATE | unix.IN_MODIFY

// add begins to tell a reader of changes; drop ends it.
func (w *Watcher) add(r *Reader) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	err := w.watch(r)
	if errors.As(err, new(limitError)) {
		if w.looking == nil && w.Log != nil {
			w.Log(fmt.Errorf("output that is followed is looked for ten times a second only: %w", err))
		}
		w.look(r)
		return nil
	}
	return err
}

// watch has the kernel tell of changes. The caller holds the lock.
func (w *Watcher) watch(r *Reader) error {
	if err := w.open(); err != nil {
		return err
	}
	number := -1
	var err error
	e := control(w.inotify, func(fd int) { number, err = unix.InotifyAddWatch(fd, r.dir, interesting) })
	if err = errors.Join(e, err); err != nil {
		return fmt.Errorf("watch %s: %w", r.dir, limited(err))
	}
	r.watch = int32(number)
	if w.watches[r.watch] == nil {
		w.watches[r.watch] = map[*Reader]struct{}{}
	}
	w.watches[r.watch][r] = struct{}{}
	return nil
}

func (w *Watcher) open() error {
	switch {
	case w.closed:
		return os.ErrClosed
	case w.inotify != nil:
		return nil
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("read the limit of open files: %w", err)
	}
	w.most.Store(int64(min(limit.Cur, 1<<20) / 4))
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("watch for output: %w", limited(err))
	}
	w.inotify, w.done, w.watches = os.NewFile(uintptr(fd), "inotify"), make(chan struct{}), map[int32]map[*Reader]struct{}{}
	go w.read(w.inotify, w.done)
	return nil
}

// limitError is one of inotify's limits.
type limitError string

func (e limitError) Error() string { return string(e) }

// limited names the limits of inotify(7), for which the kernel has the numbers of too many open files and of a full disk.
func limited(err error) error {
	switch {
	case errors.Is(err, unix.EMFILE):
		fd, scarce := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 0)
		if scarce != nil { // it is the process's own
			return err
		}
		unix.Close(fd)
		return limitError("root has as many inotify instances as fs.inotify.max_user_instances permits: raise that with sysctl, or end programs that hold them")
	case errors.Is(err, unix.ENOSPC):
		return limitError("root watches as many files as fs.inotify.max_user_watches permits: raise that with sysctl, or end programs that do so")
	}
	return err
}

// scarce says that readers who are far behind may hold no more: together they have a quarter of the process's descriptors, or they keep the last
// twentieth of a disk. Clients that stopped reading are not to stop the engine, nor to fill a disk by what containers print.
func (w *Watcher) scarce(dir string) bool {
	if w.pinned.Load() >= w.most.Load() {
		return true
	}
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && st.Bavail < st.Blocks/20
}

// control gives a descriptor without making it block, as os.File.Fd would.
func control(f *os.File, fn func(fd int)) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(func(fd uintptr) { fn(int(fd)) })
}

// drop ends a reader's watch. Readers of one folder share the kernel's: it goes with the last of them.
func (w *Watcher) drop(r *Reader) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r.watch == byLooking {
		delete(w.looking, r)
		return
	}
	delete(w.watches[r.watch], r)
	if len(w.watches[r.watch]) == 0 && !w.closed {
		delete(w.watches, r.watch)
		_ = control(w.inotify, func(fd int) { _, _ = unix.InotifyRmWatch(fd, uint32(r.watch)) })
	}
}

const (
	byLooking = -2 // instead of the number of a watch
	lookEvery = 100 * time.Millisecond
)

// look has a reader look by itself. The caller holds the lock.
func (w *Watcher) look(r *Reader) {
	r.watch = byLooking
	if w.looking == nil {
		w.looking, w.stop, w.looked = map[*Reader]struct{}{}, make(chan struct{}), make(chan struct{})
		go w.keepLooking(w.stop, w.looked)
	}
	w.looking[r] = struct{}{}
}

// keepLooking wakes those that look by themselves until there is none, or Close.
func (w *Watcher) keepLooking(stop, done chan struct{}) {
	defer close(done)
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		w.mu.Lock()
		for r := range w.looking {
			r.notify(true)
		}
		over := len(w.looking) == 0 && !w.closed
		if over {
			w.looking = nil
		}
		w.mu.Unlock()
		if over {
			return
		}
	}
}

// gather is how long changes gather while they come without a pause: a wake-up for each would cost more than what was printed.
const gather = time.Millisecond

// read runs until Close.
func (w *Watcher) read(inotify *os.File, done chan struct{}) {
	defer close(done)
	buf := make([]byte, 64<<10)
	var pace Pace
	for {
		n, err := inotify.Read(buf)
		if pace.Fast(time.Now()) {
			time.Sleep(gather)
			pace.Waited(time.Now())
		}
		if err != nil {
			return
		}
		masks := map[int32]uint32{}
		for b := buf[:n]; len(b) >= unix.SizeofInotifyEvent; {
			masks[int32(binary.NativeEndian.Uint32(b))] |= binary.NativeEndian.Uint32(b[4:])
			b = b[min(len(b), unix.SizeofInotifyEvent+int(binary.NativeEndian.Uint32(b[12:]))):]
		}
		w.tell(masks)
	}
}

// tell wakes the readers of changed folders; all of them after an overflow of the kernel's queue.
func (w *Watcher) tell(masks map[int32]uint32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := masks[-1]; ok {
		for number := range w.watches {
			masks[number] |= interesting
		}
	}
	for number, mask := range masks {
		for r := range w.watches[number] {
			r.notify(mask&unix.IN_CREATE != 0)
		}
	}
}

// Close ends all watches; it waits for the goroutine.
func (w *Watcher) Close() error {
	w.mu.Lock()
	w.closed = true
	inotify, done := w.inotify, w.done
	looks := w.looking != nil
	w.inotify, w.looking = nil, nil
	w.mu.Unlock()
	if looks {
		close(w.stop)
		<-w.looked
	}
	if inotify == nil {
		return nil
	}
	err := inotify.Close()
	<-done
	return err
}
