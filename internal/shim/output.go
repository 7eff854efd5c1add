package shim

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/logs"
	"wherry.dev/wherry/internal/ready"
)

// output moves what the container prints to its log.
type output struct {
	log   *logs.Writer
	stdin *os.File
	pipes []*pipe
	ready *ready.List   // nil: nothing is read
	over  chan struct{} // closed when all has been read, or reading was given up
	lost  missing
}

// missing is output that could not be written to the log, a full disk's for example, and of which the log does not tell yet.
type missing struct {
	mu    sync.Mutex // guards what follows
	bytes int64
	since time.Time
	err   error
}

type pipe struct {
	from     *os.File
	stream   logs.Stream
	terminal bool
	wide     bool
	pace     logs.Pace
}

// drain is how long output is still read after all processes of the container are dead: only descriptors passed elsewhere last longer.
const drain = 2 * time.Second

// open makes the pipes and returns the process's ends.
func (o *output) open(terminal, stdin bool) (s Streams, err error) {
	if terminal {
		return s, nil
	}
	if stdin {
		if s[0], o.stdin, err = os.Pipe(); err != nil {
			return s, err
		}
	}
	for _, stream := range []logs.Stream{logs.Stdout, logs.Stderr} {
		p := &pipe{stream: stream}
		if p.from, s[len(o.pipes)+1], err = ready.Pipe(); err != nil {
			s.Close()
			return s, err
		}
		o.pipes = append(o.pipes, p)
	}
	if s[0] != nil { // the process's end becomes what programs expect, ours stays as the poller wants it
		_ = s[0].Fd()
	}
	return s, nil
}

// Close closes the process's ends, as far as they are there.
func (s Streams) Close() {
	for _, f := range s {
		if f != nil {
			f.Close()
		}
	}
}

func (o *output) pump(from *os.File, stream logs.Stream) {
	o.pipes = append(o.pipes, &pipe{from: from, stream: stream, terminal: true})
}

// run begins to read.
func (o *output) run() (err error) {
	files := make([]*os.File, len(o.pipes))
	for i, p := range o.pipes {
		files[i] = p.from
	}
	if o.ready, err = ready.New(files...); err != nil {
		return fmt.Errorf("watch the container's output: %w", err)
	}
	o.over = make(chan struct{})
	go func() { // ends with the output, or by finish
		defer close(o.over)
		o.copy()
	}()
	return nil
}

// copy moves output to the log in the order in which it was written, as far as that is to be known: of what waits in two pipes the one that was
// written to first comes first.
func (o *output) copy() {
	frame := make([]byte, logs.HeaderSize+logs.MaxData)
	for {
		i, ok := o.ready.Next()
		if !ok {
			return
		}
		p := o.pipes[i]
		n, err := ready.Read(p.from, frame[logs.HeaderSize:])
		switch {
		case err == unix.EAGAIN: // what was announced has been read already
			continue
		case err != nil || n == 0:
			o.ready.End(i)
			continue
		}
		o.append(p, time.Now(), frame[:logs.HeaderSize+n])
		if p.terminal || n == logs.MaxData || o.ready.Hung(i) {
			o.ready.Again(i)
		}
		if !p.terminal && p.pace.Fast(time.Now()) && n < logs.MaxData {
			p.widen()
			_ = unix.Nanosleep(&unix.Timespec{Nsec: gather.Nanoseconds()}, nil) // the scheduler's own timers are coarser
			p.pace.Waited(time.Now())
		}
	}
}

// append writes a frame to the log. Nobody waits for a disk to have room: what has none is lost, and the next frame that is written says so.
func (o *output) append(p *pipe, t time.Time, frame []byte) {
	o.lost.mu.Lock()
	defer o.lost.mu.Unlock()
	var err error
	if o.lost.bytes == 0 {
		err = o.log.AppendFrame(p.stream, t, frame)
	} else {
		told, text := o.lost.notice(p.terminal)
		err = o.log.AppendTold(logs.Entry{Stream: told, Time: t, Data: []byte(text)}, p.stream, t, frame)
	}
	if err == nil {
		o.lost.bytes = 0
		return
	}
	if o.lost.bytes == 0 {
		o.lost.since, o.lost.err = t, err
	}
	o.lost.bytes += int64(len(frame) - logs.HeaderSize)
}

// notice is what the log says in the place of what is missing. The caller holds mu.
func (m *missing) notice(terminal bool) (logs.Stream, string) {
	why := m.err
	if failed := new(os.PathError); errors.As(why, &failed) {
		why = failed.Err
	}
	text := fmt.Sprintf("wherry: %d bytes of output are missing here, from %s on: the log could not be written: %v", m.bytes, m.since.UTC().Format(time.RFC3339), why)
	if terminal {
		return logs.Stdout, "\r\n" + text + "\r\n"
	}
	return logs.Stderr, text + "\n"
}

// untold tries once more to have the log say what is missing at its end, and returns how many bytes are and it does not.
func (o *output) untold() int64 {
	o.lost.mu.Lock()
	defer o.lost.mu.Unlock()
	if o.lost.bytes == 0 {
		return 0
	}
	told, text := o.lost.notice(len(o.pipes) == 1)
	if o.log.Append(told, time.Now(), []byte(text)) == nil {
		o.lost.bytes = 0
	}
	return o.lost.bytes
}

// widen gives the pipe of a program that prints without a pause more room. Where the kernel gives none the program waits now and then.
func (p *pipe) widen() {
	if p.wide {
		return
	}
	p.wide = true
	if raw, err := p.from.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, wideRoom) })
	}
}

const (
	// gather is how long output gathers in its pipe while a program prints without a pause: a frame for each of its writes would cost more than
	// its bytes, here, in the engine and in the client. wideRoom is what the pipe then has room for, in bytes.
	gather   = 500 * time.Microsecond
	wideRoom = 512 << 10
)

// finish reads what is left, for a bounded time, and marks the log's end. It returns how many bytes the log lacks without saying so.
func (o *output) finish() int64 {
	if o.ready != nil {
		o.ready.GiveUp(time.Now().Add(drain))
		<-o.over
	}
	n := o.untold()
	o.close()
	return n
}

func (o *output) close() {
	for _, p := range o.pipes {
		p.from.Close()
	}
	if o.ready != nil {
		o.ready.Close()
	}
	if o.stdin != nil {
		o.stdin.Close()
	}
	_ = o.log.End()
}
