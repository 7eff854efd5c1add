package shim

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/logs"
)

// output moves what the container prints to its log.
type output struct {
	log   *logs.Writer
	stdin *os.File
	pumps sync.WaitGroup
	pipes []pipe
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
	var out, errs *os.File
	if out, s[1], err = os.Pipe(); err == nil {
		errs, s[2], err = os.Pipe()
	}
	if err != nil {
		s.Close()
		return s, err
	}
	o.pipes = []pipe{{from: out, stream: logs.Stdout}, {from: errs, stream: logs.Stderr}}
	for _, f := range s { // the process's ends become what programs expect, ours stay as the poller wants them
		if f != nil {
			_ = f.Fd()
		}
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
	o.pipes = append(o.pipes, pipe{from: from, stream: stream, terminal: true})
}

func (o *output) run() {
	for _, p := range o.pipes {
		o.pumps.Add(1)
		go func() {
			defer o.pumps.Done()
			o.copy(p)
		}()
	}
}

func (o *output) copy(p pipe) {
	frame := make([]byte, logs.HeaderSize+logs.MaxData)
	var pace logs.Pace
	for {
		n, err := p.from.Read(frame[logs.HeaderSize:])
		if n > 0 {
			o.append(&p, time.Now(), frame[:logs.HeaderSize+n])
		}
		if err != nil {
			return
		}
		if n > 0 && !p.terminal && pace.Fast(time.Now()) && n < logs.MaxData {
			p.widen()
			_ = unix.Nanosleep(&unix.Timespec{Nsec: gather.Nanoseconds()}, nil) // the scheduler's own timers are coarser
			pace.Waited(time.Now())
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
	for _, p := range o.pipes {
		_ = p.from.SetReadDeadline(time.Now().Add(drain))
	}
	o.pumps.Wait()
	n := o.untold()
	o.close()
	return n
}

func (o *output) close() {
	for _, p := range o.pipes {
		p.from.Close()
	}
	if o.stdin != nil {
		o.stdin.Close()
	}
	_ = o.log.End()
}
