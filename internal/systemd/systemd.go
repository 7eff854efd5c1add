// Package systemd has the service manager make, limit and stop the control groups of containers: transient scope units with a delegated
// group (systemd.io, "Control Group APIs and Delegation"), over D-Bus, with a client of its own (docs/decisions/0012).
//
// It owns nothing but the connection; a scope lasts as long as there are processes in its group.
package systemd

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// Property is one property of a unit. Values are of type string, bool, int32, uint32, uint64, []byte, []uint32 or []string.
type Property struct {
	Name  string
	Value any
}

// Scope describes a transient scope.
type Scope struct {
	Unit        string // "….scope"
	Slice       string // "" is the manager's default
	Description string
	Pids        []int // at least one: a scope without processes is none
	Properties  []Property
}

// ErrExists says that there is a unit of the name that was to be made: it is another's.
var ErrExists = errors.New("a container of this name runs; delete it, or take another name")

// Start makes a scope with a group of its own that is delegated to the caller, and returns the group's path below /sys/fs/cgroup.
func (c *Conn) Start(ctx context.Context, s Scope) (group string, err error) {
	if err := checkUnit(s.Unit, ".scope"); err != nil {
		return "", err
	}
	err = c.startUnit(ctx, s)
	if isError(err, "UnitExists") {
		// One that failed, or has just lost its last process, is in the way only by its name.
		if err := c.resetFailed(ctx, s.Unit); err != nil {
			return "", err
		}
		err = c.startUnit(ctx, s)
	}
	if isError(err, "UnitExists") {
		return "", fmt.Errorf("systemd has a unit %s already: %w: %w", s.Unit, ErrExists, err)
	}
	if err != nil {
		return "", fmt.Errorf("start %s: %w", s.Unit, err)
	}
	return c.Group(ctx, s.Unit)
}

func (c *Conn) startUnit(ctx context.Context, s Scope) error {
	pids := make([]uint32, 0, len(s.Pids))
	for _, p := range s.Pids {
		pids = append(pids, uint32(p))
	}
	list := []Property{{"Description", s.Description}, {"PIDs", pids}, {"Delegate", true}, {"DefaultDependencies", false}, {"CollectMode", "inactive-or-failed"},
		{"CPUAccounting", true}, {"IOAccounting", true}, {"MemoryAccounting", true}, {"TasksAccounting", true}}
	if s.Slice != "" {
		if err := checkUnit(s.Slice, ".slice"); err != nil {
			return err
		}
		list = append(list, Property{"Slice", s.Slice})
	}
	m := toManager("StartTransientUnit", "ssa(sv)a(sa(sv))", s.Unit, "replace")
	m.body.properties(append(list, s.Properties...))
	m.body.array(8, func() {}) // no other units
	answer, err := c.call(ctx, m)
	if err != nil {
		return err
	}
	return c.await(ctx, answer)
}

// Group is the path of a unit's control group; "" when it has none.
func (c *Conn) Group(ctx context.Context, unit string) (string, error) {
	group, err := c.get(ctx, object+"/unit/"+label(unit), name+".Scope", "ControlGroup")
	if err != nil {
		return "", fmt.Errorf("ask for the control group of %s: %w", unit, err)
	}
	return group, nil
}

// Stopping says that the host is being shut down, or started anew.
func (c *Conn) Stopping(ctx context.Context) (bool, error) {
	state, err := c.get(ctx, object, manager, "SystemState")
	if err != nil {
		return false, fmt.Errorf("ask for the state of the system: %w", err)
	}
	return state == "stopping", nil
}

// get reads a property that is text.
func (c *Conn) get(ctx context.Context, path, iface, property string) (string, error) {
	m := call{destination: name, path: path, iface: ofObject, member: "Get", signature: "ss"}
	m.body.string(iface)
	m.body.string(property)
	answer, err := c.call(ctx, m)
	if err != nil {
		return "", err
	}
	args, err := answer.arguments("v")
	if err != nil {
		return "", err
	}
	return args[0], nil
}

// Set changes properties of a unit until it ends.
func (c *Conn) Set(ctx context.Context, unit string, list []Property) error {
	if len(list) == 0 {
		return nil
	}
	m := toManager("SetUnitProperties", "sba(sv)", unit)
	m.body.bool(true) // nothing is written to disk
	m.body.properties(list)
	if _, err := c.call(ctx, m); err != nil {
		return fmt.Errorf("set properties of %s: %w", unit, err)
	}
	return nil
}

// Stop ends a unit, which kills what is left in its group, and forgets that it failed. One that is gone is fine.
func (c *Conn) Stop(ctx context.Context, unit string) error {
	answer, err := c.call(ctx, toManager("StopUnit", "ss", unit, "replace"))
	if err == nil {
		err = c.await(ctx, answer)
	}
	if err != nil && !isError(err, "NoSuchUnit") {
		return fmt.Errorf("stop %s: %w", unit, err)
	}
	return c.resetFailed(ctx, unit)
}

func (c *Conn) resetFailed(ctx context.Context, unit string) error {
	if _, err := c.call(ctx, toManager("ResetFailedUnit", "s", unit)); err != nil && !isError(err, "NoSuchUnit") {
		return fmt.Errorf("reset %s: %w", unit, err)
	}
	return nil
}

// toManager begins a call of the manager's with strings.
func toManager(member, signature string, args ...string) call {
	m := call{destination: name, path: object, iface: manager, member: member, signature: signature}
	for _, a := range args {
		m.body.string(a)
	}
	return m
}

// label writes a unit's name as the last part of its object's path: what is no letter or digit as its number.
func label(unit string) string {
	var b strings.Builder
	for i, c := range []byte(unit) {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' && i > 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "_%02x", c)
		}
	}
	return b.String()
}

// checkUnit refuses what systemd would not take as a unit's name (systemd.unit(5)).
func checkUnit(unit, suffix string) error {
	ok := len(unit) <= 255 && len(unit) > len(suffix) && strings.HasSuffix(unit, suffix)
	for _, c := range unit {
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune(`:-_.\`, c))
	}
	if !ok {
		return fmt.Errorf("%q is no name of a unit of systemd's: letters, digits and : - _ . \\ and %s at the end", unit, suffix)
	}
	return nil
}

// Name is what a container's configuration says about its place: "slice:prefix:name".
type Name struct{ Slice, Unit string }

// ParseName reads linux.cgroupsPath in the form that callers of runc use with --systemd-cgroup. An empty one is made from the id.
func ParseName(path, id string) (Name, error) {
	if path == "" {
		path = ":oar:" + id
	}
	parts := strings.Split(path, ":")
	if len(parts) != 3 {
		return Name{}, fmt.Errorf("linux.cgroupsPath is %q: with --systemd-cgroup it is \"slice:prefix:name\", such as \"system.slice:docker:1234\"", path)
	}
	n := Name{Slice: parts[0], Unit: parts[2] + ".scope"}
	if parts[1] != "" {
		n.Unit = parts[1] + "-" + n.Unit
	}
	if parts[2] == "" || strings.HasSuffix(parts[2], ".slice") {
		return Name{}, errors.New("linux.cgroupsPath names no scope: a container cannot be a slice, as no processes may be in one")
	}
	n.Unit = strings.ReplaceAll(n.Unit, "+", `\x2b`)
	if n.Slice == "" {
		n.Slice = "system.slice"
		if OfUser() {
			n.Slice = "user.slice"
		}
	}
	return n, errors.Join(checkUnit(n.Slice, ".slice"), checkUnit(n.Unit, ".scope"))
}
