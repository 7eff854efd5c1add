package cli

import (
	"context"
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

// forwardSignals passes what this process is sent on to a container, whose id comes when it runs; signals that come before wait for it. The third
// SIGINT or SIGTERM calls giveUp: whatever runs there does not listen, and somebody wants the prompt back.
func forwardSignals(ctx context.Context, app *App, running <-chan string, giveUp func()) (stop func()) {
	got := make(chan os.Signal, 64)
	signal.Notify(got, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2)
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		later := time.NewTimer(rareSignals)
		defer later.Stop()
		asked, id := 0, ""
		for {
			var s syscall.Signal
			select {
			case <-later.C:
				signal.Notify(got)
				continue
			case sig := <-got:
				s, _ = sig.(syscall.Signal)
			case <-ctx.Done():
				return
			}
			switch s {
			case unix.SIGCHLD, unix.SIGPIPE, unix.SIGURG, unix.SIGWINCH, unix.SIGTTIN, unix.SIGTTOU:
				continue
			case unix.SIGINT, unix.SIGTERM:
				if asked++; asked == 3 {
					giveUp()
					return
				}
			}
			if id == "" {
				select {
				case id = <-running:
				case <-ctx.Done():
					return
				}
			}
			if c, err := app.Client(); err == nil {
				_ = c.Post(ctx, "/containers/"+id+"/kill", url.Values{"signal": {signalName(s)}}, nil, nil)
			}
		}
	}()
	return func() {
		signal.Stop(got)
		cancel()
		<-done
	}
}

// forwarding is that of a runner, where it passes signals on.
type forwarding struct {
	running   chan string   // takes the container's id when it runs
	cancelled chan struct{} // closed when the user gives up waiting for it
	stop      func()
}

func (r *runner) forward(ctx context.Context) *forwarding {
	f := &forwarding{running: make(chan string, 1), cancelled: make(chan struct{}), stop: func() {}}
	if r.proxy {
		f.stop = forwardSignals(ctx, r.app, f.running, func() { close(f.cancelled) })
	}
	return f
}

func signalName(s syscall.Signal) string {
	if name := unix.SignalName(s); name != "" {
		return name
	}
	return strconv.Itoa(int(s))
}
