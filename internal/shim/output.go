package shim

import (
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/logs"
)

// output moves what the container prints to its log.
type output struct {
	log    *logs.Writer
	stdin  *os.File
	pumps  sync.WaitGroup
	pipes  []pipe
	lostMu sync.Mutex
	lost   int64 // bytes that a full disk has cost
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
			now := time.Now()
			if err := o.log.AppendFrame(p.stream, now, frame[:logs.HeaderSize+n]); err != nil {
				o.lostMu.Lock()
				o.lost += int64(n)
				o.lostMu.Unlock()
			}
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

// finish reads what is left, for a bounded time, and marks the log's end.
func (o *output) finish() {
	for _, p := range o.pipes {
		_ = p.from.SetReadDeadline(time.Now().Add(drain))
	}
	o.pumps.Wait()
	o.close()
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
