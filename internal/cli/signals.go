package cli

import (
	"context"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// forwardSignals passes what this process is sent on to a container. Signals that come before started is closed wait for it. The third
// SIGINT or SIGTERM calls giveUp: whatever runs there does not listen, and somebody wants the prompt back.
func forwardSignals(ctx context.Context, app *App, id string, started <-chan struct{}, giveUp func()) (stop func()) {
	got := make(chan os.Signal, 64)
	signal.Notify(got)
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		asked := 0
		for {
			var s syscall.Signal
			select {
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
			select {
			case <-started:
			case <-ctx.Done():
				return
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

func signalName(s syscall.Signal) string {
	if name := unix.SignalName(s); name != "" {
		return name
	}
	return strconv.Itoa(int(s))
}
