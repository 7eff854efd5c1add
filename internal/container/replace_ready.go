package container

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"

	"wherry.dev/wherry/internal/awake"
)

// serves waits until the new container is healthy. Where nothing checks that, it is to listen where the old one does, and to run for a while.
func (n *replacing) serves(ctx context.Context) error {
	c := n.new
	checked := checkOf(c.record().Config) != nil
	late := make(chan struct{})
	defer awake.After(n.o.HealthTimeout, func() { close(late) }).Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		changed := c.next()
		r := c.record()
		if c.isGone() || !r.Status.Alive() || r.RestartCount > 0 {
			return n.died(ctx, r)
		}
		switch {
		case !checked && time.Since(r.StartedAt) >= n.o.Settle && len(n.missing()) == 0:
			return nil
		case checked:
			switch h := c.healthState(); {
			case h != nil && h.Status == container.Healthy:
				return nil
			case h != nil && h.Status == container.Unhealthy:
				return n.unfit(ctx, "is unhealthy")
			}
		}
		select {
		case <-changed:
		case <-tick.C:
		case <-late:
			if ports := n.missing(); !checked && len(ports) > 0 {
				return n.unfit(ctx, fmt.Sprintf("does not listen at port %v within %s, where the old one does", ports, n.o.HealthTimeout))
			}
			return n.unfit(ctx, fmt.Sprintf("is not healthy within %s", n.o.HealthTimeout))
		case <-ctx.Done():
			return fmt.Errorf("the new container is not waited for any more: %w", context.Cause(ctx))
		}
	}
}

// missing are the ports at which the old one takes connections and the new one does not yet.
func (n *replacing) missing() []uint16 {
	have := n.new.listening()
	return slices.DeleteFunc(slices.Clone(n.listened), func(p uint16) bool { return slices.Contains(have, p) })
}

func (n *replacing) died(ctx context.Context, r *Record) error {
	what := fmt.Sprintf("has ended with status %d", r.ExitCode)
	if r.OOMKilled {
		what += " (out of memory)"
	}
	return n.unfit(ctx, what)
}

// unfit says why the new container does not get the old one's place, with what it said last.
func (n *replacing) unfit(ctx context.Context, what string) error {
	r := n.new.record()
	var b strings.Builder
	fmt.Fprintf(&b, "the new container, of %s, %s", r.Config.Image, what)
	if old := n.old.record(); old.Status.Alive() {
		fmt.Fprintf(&b, "; %s goes on as it was", n.name)
	}
	if h := n.new.healthState(); h != nil && len(h.Log) > 0 {
		last := h.Log[len(h.Log)-1]
		fmt.Fprintf(&b, "\nlast health check: exit status %d: %s", last.ExitCode, strings.TrimSpace(last.Output))
	}
	if text := n.lastWords(ctx); text != "" {
		fmt.Fprintf(&b, "\nlast output:\n%s", text)
	}
	return fail(errdefs.ErrFailedPrecondition, "%s", b.String())
}

// lastWords are the last lines that the new container printed.
func (n *replacing) lastWords(ctx context.Context) string {
	const lines, most = 10, 4 << 10
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	var out bytes.Buffer
	if err := n.s.Logs(ctx, n.new.id, LogsOptions{Stdout: true, Stderr: true, Tail: lines}, &out, &out); err != nil {
		return ""
	}
	text := strings.TrimSpace(out.String())
	return text[max(0, len(text)-most):]
}

// listening are the TCP ports at which a running container takes connections from outside it.
func (c *Container) listening() (ports []uint16) {
	pid := c.record().Pid
	if pid == 0 {
		return nil
	}
	sockets(pid, func(s socket) {
		if s.state == tcpListen && !s.loopback && !slices.Contains(ports, s.port) {
			ports = append(ports, s.port)
		}
	})
	slices.Sort(ports)
	return ports
}

// connections counts those that others have made to ports of a process's network namespace.
func connections(pid int, ports []uint16) (n int) {
	if pid == 0 {
		return 0
	}
	sockets(pid, func(s socket) {
		over := s.state == tcpListen || s.state == tcpFinWait2 || s.state == tcpTimeWait || s.state == tcpClose
		if !over && !s.loopback && slices.Contains(ports, s.port) {
			n++
		}
	})
	return n
}

// States of TCP sockets in the kernel's tables (include/net/tcp_states.h).
const (
	tcpFinWait2 = 5
	tcpTimeWait = 6
	tcpClose    = 7
	tcpListen   = 10
)

// socket is a line of /proc/PID/net/tcp.
type socket struct {
	port     uint16
	state    uint64
	loopback bool
}

// sockets reads the TCP sockets of a process's network namespace.
func sockets(pid int, each func(socket)) {
	for _, name := range []string{"tcp", "tcp6"} {
		f, err := os.Open(fmt.Sprintf("/proc/%d/net/%s", pid, name))
		if err != nil {
			continue // it has ended, or the kernel has no IPv6
		}
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			if s, ok := parseSocket(lines.Text()); ok {
				each(s)
			}
		}
		f.Close()
	}
}

func parseSocket(line string) (s socket, ok bool) {
	f := strings.Fields(line)
	if len(f) < 4 {
		return s, false
	}
	address, port, found := strings.Cut(f[1], ":")
	n, err := strconv.ParseUint(port, 16, 16)
	state, stateErr := strconv.ParseUint(f[3], 16, 8)
	if !found || err != nil || stateErr != nil {
		return s, false
	}
	v4 := len(address) == 8 && strings.HasSuffix(address, "7F") // words in the machine's order: the first byte is the last
	mapped := strings.HasPrefix(address, "0000000000000000FFFF0000") && strings.HasSuffix(address, "7F")
	return socket{port: uint16(n), state: state, loopback: v4 || mapped || address == "00000000000000000000000001000000"}, true
}
