package systemd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"
)

const (
	busName  = "org.freedesktop.DBus"
	busPath  = "/org/freedesktop/DBus"
	name     = "org.freedesktop.systemd1"
	object   = "/org/freedesktop/systemd1"
	manager  = name + ".Manager"
	ofObject = "org.freedesktop.DBus.Properties"
)

// patience is how long the service manager may take for one request: it may be starting other units.
const patience = 30 * time.Second

// Conn is a connection to the service manager. It is used by one goroutine at a time.
type Conn struct {
	conn   net.Conn
	in     *bufio.Reader
	bus    bool // by way of a bus; false: the manager's own socket
	serial uint32
	jobs   map[string]string // ended ones with their results
}

// Error is an answer of the service manager, or of the bus.
type Error struct{ Name, Message string }

func (e *Error) Error() string { return e.Message + " (" + e.Name + ")" }

// isError says that an answer is a certain error of the service manager's.
func isError(err error, short string) bool {
	var e *Error
	return errors.As(err, &e) && e.Name == name+"."+short
}

// Running says that systemd is this host's service manager (sd_booted(3)).
func Running() bool {
	fi, err := os.Lstat("/run/systemd/system")
	return err == nil && fi.IsDir()
}

// address is where a manager may be spoken to.
type address struct {
	path string
	bus  bool
}

// addresses of the service manager: root's by its own socket, which needs no bus; a user's by the user's bus.
func addresses() []address {
	if !OfUser() {
		return []address{{"/run/systemd/private", false}, {"/run/dbus/system_bus_socket", true}}
	}
	var list []address
	for _, a := range strings.Split(os.Getenv("DBUS_SESSION_BUS_ADDRESS"), ";") {
		rest, ok := strings.CutPrefix(a, "unix:path=")
		if path, _, _ := strings.Cut(rest, ","); ok && path != "" {
			list = append(list, address{path, true})
		}
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		list = append(list, address{dir + "/bus", true}, address{dir + "/systemd/private", false})
	}
	return list
}

// OfUser says that this process is not the host's root: then only the user's own manager takes its requests.
func OfUser() bool {
	if os.Geteuid() != 0 {
		return true
	}
	b, err := os.ReadFile("/proc/self/uid_map")
	fields := strings.Fields(string(b))
	return err == nil && (len(fields) != 3 || fields[0] != "0" || fields[1] != "0" || fields[2] != "4294967295")
}

// Open connects to the service manager: the host's for root, the user's own for everybody else.
func Open(ctx context.Context) (*Conn, error) {
	var errs []error
	for _, a := range addresses() {
		c, err := dial(ctx, a)
		if err == nil {
			return c, nil
		}
		errs = append(errs, err)
	}
	if len(errs) == 0 {
		errs = append(errs, errors.New("neither DBUS_SESSION_BUS_ADDRESS nor XDG_RUNTIME_DIR says where the user's bus is: log in by PAM, or enable lingering with loginctl"))
	}
	return nil, fmt.Errorf("reach systemd: %w", errors.Join(errs...))
}

func dial(ctx context.Context, a address) (*Conn, error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: a.path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	c := &Conn{conn: conn, in: bufio.NewReader(conn), bus: a.bus, jobs: map[string]string{}}
	if err := c.greet(ctx); err != nil {
		conn.Close()
		return nil, fmt.Errorf("%s: %w", a.path, err)
	}
	return c, nil
}

// Close ends the connection.
func (c *Conn) Close() error { return c.conn.Close() }

// greet authenticates by the credentials that the kernel notes at connect: a number said here would be another one in a user namespace.
func (c *Conn) greet(ctx context.Context) error {
	defer c.within(ctx)()
	if _, err := io.WriteString(c.conn, "\x00AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n"); err != nil {
		return err
	}
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return fmt.Errorf("authenticate: %w", err)
		}
		if strings.HasPrefix(string(line), "OK ") {
			break
		}
		if !strings.HasPrefix(string(line), "DATA") {
			return fmt.Errorf("authenticate: the answer is %q", strings.TrimSpace(string(line)))
		}
	}
	if !c.bus {
		return nil
	}
	if _, err := c.call(ctx, call{destination: busName, path: busPath, iface: busName, member: "Hello"}); err != nil {
		return err
	}
	match := call{destination: busName, path: busPath, iface: busName, member: "AddMatch", signature: "s"}
	match.body.string("type='signal',interface='" + manager + "',member='JobRemoved',path='" + object + "'")
	_, err := c.call(ctx, match)
	return err
}

// within bounds reads and writes until the returned function is called.
func (c *Conn) within(ctx context.Context) func() {
	_ = c.conn.SetDeadline(time.Now().Add(patience))
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Unix(1, 0)) })
	return func() { stop() }
}

// call sends a method call and returns its answer. Ends of jobs that come meanwhile are noted.
func (c *Conn) call(ctx context.Context, m call) (*message, error) {
	defer c.within(ctx)()
	c.serial++
	b, err := m.encode(c.serial, c.bus)
	if err != nil {
		return nil, err
	}
	if _, err := c.conn.Write(b); err != nil {
		return nil, fmt.Errorf("call %s: %w", m.member, err)
	}
	for {
		answer, err := readMessage(c.in)
		if err != nil {
			return nil, fmt.Errorf("call %s: %w", m.member, c.cause(ctx, err))
		}
		switch {
		case answer.kind == kindReply && answer.reply == c.serial:
			return answer, nil
		case answer.kind == kindError && answer.reply == c.serial:
			text, _ := answer.arguments("s")
			return nil, &Error{Name: answer.errorName, Message: strings.Join(text, "")}
		}
		c.note(answer)
	}
}

func (c *Conn) cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// note remembers a job's end: JobRemoved(id, job, unit, result).
func (c *Conn) note(m *message) {
	if m.kind != kindSignal || m.member != "JobRemoved" {
		return
	}
	if args, err := m.arguments("uoss"); err == nil {
		c.jobs[args[1]] = args[3]
	}
}

// await waits for the end of a job that an answer names.
func (c *Conn) await(ctx context.Context, answer *message) error {
	args, err := answer.arguments("o")
	if err != nil {
		return err
	}
	defer c.within(ctx)()
	for {
		if result, ok := c.jobs[args[0]]; ok {
			delete(c.jobs, args[0])
			if result == "done" {
				return nil
			}
			return fmt.Errorf("systemd says of its job: %s", result)
		}
		m, err := readMessage(c.in)
		if err != nil {
			return fmt.Errorf("wait for systemd's job: %w", c.cause(ctx, err))
		}
		c.note(m)
	}
}
