package cli

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// rareSignals is when the signals that hardly anybody sends are caught too: catching one costs a switch between threads, there and back, and all
// of them would take longer than many a container runs.
const rareSignals = 100 * time.Millisecond

// forwarding passes what this process is sent on to a container; signals that come before it runs wait for that.
type forwarding struct {
	app     *App
	running chan string   // takes the container's id when it runs
	made    chan struct{} // closed when there is a container
	giveUp  func()        // whatever runs there does not listen, and somebody wants the prompt back; or there is no container yet
	stop    func()
}

// forward begins it, where the runner does so. giveUp is called at the third SIGINT or SIGTERM, and at the first while there is no container.
func (r *runner) forward(ctx context.Context, giveUp func()) *forwarding {
	f := &forwarding{app: r.app, running: make(chan string, 1), made: make(chan struct{}), giveUp: giveUp, stop: func() {}}
	if !r.proxy {
		return f
	}
	got := make(chan os.Signal, 64)
	signal.Notify(got, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2)
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.pass(ctx, got)
	}()
	f.stop = func() { // the signals stay caught: this process ends next, and giving back each costs a switch between threads too
		cancel()
		<-done
	}
	return f
}

func (f *forwarding) pass(ctx context.Context, got chan os.Signal) {
	later := time.NewTimer(rareSignals)
	defer later.Stop()
	asked, id := 0, ""
	var early []syscall.Signal
	for {
		select {
		case <-later.C:
			signal.Notify(got)
		case id = <-f.running:
			for _, s := range early {
				f.send(ctx, id, s)
			}
		case sig := <-got:
			s, _ := sig.(syscall.Signal)
			switch s {
			case unix.SIGCHLD, unix.SIGPIPE, unix.SIGURG, unix.SIGWINCH, unix.SIGTTIN, unix.SIGTTOU:
				continue
			case unix.SIGINT, unix.SIGTERM:
				if asked++; asked == 3 || !f.isMade() {
					f.giveUp()
					return
				}
				if _, ok := terminal(f.app.Err); ok && asked == 2 && id != "" {
					fmt.Fprintf(f.app.Err, "\nThe container has got the signal twice and runs on: once more gives the prompt back and leaves it running; wherry kill %s ends it, and run --init has such signals end it.\n", shortID(id))
				}
			}
			if id == "" {
				early = append(early, s)
				continue
			}
			f.send(ctx, id, s)
		case <-ctx.Done():
			return
		}
	}
}

func (f *forwarding) isMade() bool {
	select {
	case <-f.made:
		return true
	default:
		return false
	}
}

func (f *forwarding) send(ctx context.Context, id string, s syscall.Signal) {
	if c, err := f.app.Client(); err == nil {
		_ = c.Post(ctx, "/containers/"+id+"/kill", url.Values{"signal": {signalName(s)}}, nil, nil)
	}
}

func signalName(s syscall.Signal) string {
	if name := unix.SignalName(s); name != "" {
		return name
	}
	return strconv.Itoa(int(s))
}
