package container

import (
	"context"
	"os"
	"strconv"
	"strings"
	"time"

	"wherry.dev/wherry/internal/why"
)

type askerKey struct{}

// AskedBy says in a context which client a request is of: what it does to containers is remembered as its doing. who is called where that
// is needed, at most.
func AskedBy(ctx context.Context, who func() why.Client) context.Context {
	return context.WithValue(ctx, askerKey{}, who)
}

type reasonKey struct{}

// asking says in a context what a container is signalled for. The first reason counts: a removal kills.
func asking(ctx context.Context, reason string) context.Context {
	if ctx.Value(reasonKey{}) != nil {
		return ctx
	}
	return context.WithValue(ctx, reasonKey{}, reason)
}

// maxAsks bounds what is remembered: a client may send a signal every second for a year.
const maxAsks = 8

// note remembers that a signal is sent, and why.
func (n *stopping) note(ctx context.Context, signal int) {
	a := why.Ask{Signal: signal}
	a.For, _ = ctx.Value(reasonKey{}).(string)
	if signal != sigkill {
		a.Handled = handles(n.task.Pid(), signal)
	}
	noteAsk(ctx, n.c, a)
}

// noteAsk remembers what a client wants of a container now.
func noteAsk(ctx context.Context, c *Container, a why.Ask) {
	a.At = time.Now().UTC()
	if who, ok := ctx.Value(askerKey{}).(func() why.Client); ok && a.For != why.AskUnhealthy && a.For != why.AskShutdown {
		client := who()
		a.By = &client
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p := &c.past
	if len(p.asks) == maxAsks {
		p.asks = append(p.asks[:0:0], p.asks[1:]...)
	}
	p.asks = append(p.asks, a)
}

// forgetAsks is for a new life.
func forgetAsks(c *Container) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.past.asks = nil
}

// handles says whether a process has a handler for a signal (proc_pid_status(5), SigCgt); nil where that cannot be seen.
func handles(pid, signal int) *bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return nil
	}
	_, rest, ok := strings.Cut(string(b), "\nSigCgt:")
	text, _, _ := strings.Cut(rest, "\n")
	mask, err := strconv.ParseUint(strings.TrimSpace(text), 16, 64)
	if !ok || err != nil || signal < 1 || signal > 64 {
		return nil
	}
	handled := mask>>(signal-1)&1 == 1
	return &handled
}
