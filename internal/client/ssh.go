package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// remote is an engine on another machine, which is reached by running ssh there: `wherry system dial-stdio`, or docker's.
//
//	client ── socketpair ── ssh ── sshd ── wherry system dial-stdio ── the engine's socket
//
// ssh finds keys, agents, jump hosts and known hosts itself, as its own configuration says.
type remote struct {
	host       string // as it was given, ssh://…
	user, name string
	port, path string // "": ssh's own; the usual socket
}

// sshAddress reads ssh://[user@]host[:port][/socket].
func sshAddress(host string) (*remote, error) {
	u, err := url.Parse(host)
	if err != nil {
		return nil, errors.New("it is no address: give ssh://user@host:port/path/of/socket; user, port and path may be missing")
	}
	r := &remote{host: host, user: u.User.Username(), name: u.Hostname(), port: u.Port(), path: u.Path}
	_, password := u.User.Password()
	switch {
	case r.name == "" || strings.HasPrefix(r.name, "-") || strings.HasPrefix(r.user, "-"):
		return nil, errors.New("no machine is named: give ssh://user@host")
	case password:
		return nil, errors.New("a password in an address is seen by everybody on this machine: leave it out, ssh asks for it")
	case u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("nothing may stand behind the socket's path")
	case r.path == "/":
		r.path = ""
	}
	return r, nil
}

// arguments are ssh's. The remote shell may be any, so what it is told is one word for sh.
func (r *remote) arguments() []string {
	args := []string{"-T", "-o", "ConnectTimeout=30"}
	if r.user != "" {
		args = append(args, "-l", r.user)
	}
	if r.port != "" {
		args = append(args, "-p", r.port)
	}
	at := ""
	if r.path != "" {
		at = " --host " + quoted("unix://"+r.path)
	}
	script := "if command -v wherry >/dev/null 2>&1; then exec wherry" + at + " system dial-stdio; else exec docker" + at + " system dial-stdio; fi"
	return append(args, "--", r.name, "sh -c "+quoted(script))
}

func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// dial starts an ssh of its own for each connection.
func (r *remote) dial(ctx context.Context) (net.Conn, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make a connection for ssh: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "engine"), os.NewFile(uintptr(pair[1]), "ssh")
	defer ours.Close()
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, fmt.Errorf("make a connection for ssh: %w", err)
	}
	c := &sshConn{UnixConn: conn.(*net.UnixConn), host: r.host, over: make(chan struct{})}
	c.cmd = exec.Command("ssh", r.arguments()...)
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = theirs, theirs, &c.said
	// Control-C is the command's, not the connection's: ssh has a session of its own. It asks nothing on a terminal then, so it needs a
	// key or an agent.
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := c.cmd.Start(); err != nil {
		conn.Close()
		return nil, &startError{"run ssh to reach " + r.host, err}
	}
	if ctx.Err() != nil {
		c.Close()
		return nil, ctx.Err()
	}
	go c.wait()
	return c, nil
}

// sshConn is a connection through an ssh, which ends with it.
type sshConn struct {
	*net.UnixConn
	host string
	cmd  *exec.Cmd
	over chan struct{} // closed when ssh has ended
	said tail

	mu   sync.Mutex
	read bool // something has come
}

func (c *sshConn) wait() {
	defer close(c.over)
	_ = c.cmd.Wait() // what it says tells more than how it ended
}

// Read gives in place of an end before the first byte what ssh has said, since that is why there is none.
func (c *sshConn) Read(p []byte) (int, error) {
	n, err := c.UnixConn.Read(p)
	c.mu.Lock()
	first := !c.read
	c.read = c.read || n > 0
	c.mu.Unlock()
	if n > 0 || err == nil || !first || errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
		return n, err
	}
	select {
	case <-c.over:
	case <-time.After(5 * time.Second):
	}
	said := c.said.String()
	if said == "" {
		said = "the connection was closed before an engine answered; is there a wherry or docker on that machine?"
	}
	return n, &startError{message: c.host + ": " + said}
}

// WriteTo and ReadFrom would go around Read.
func (c *sshConn) WriteTo(w io.Writer) (int64, error) { return io.Copy(w, struct{ io.Reader }{c}) }

// Close ends ssh too; it gets a moment to say goodbye.
func (c *sshConn) Close() error {
	err := c.UnixConn.Close()
	select {
	case <-c.over:
	case <-time.After(200 * time.Millisecond):
		_ = c.cmd.Process.Kill()
	}
	return err
}

// tail keeps the end of what a program says.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(p []byte) (int, error) {
	const most = 4 << 10
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	t.buf = t.buf[max(0, len(t.buf)-most):]
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.buf))
}
