// Package resctrl puts processes into classes of service of the processor's resource control (Intel RDT, AMD QoS), and removes the classes
// that were made for one container (Documentation/filesystems/resctrl.rst; runtime-spec, "IntelRdt").
//
//	<root>/                   the default class
//	  schemata tasks          shares of caches and bandwidth; who is in it
//	  info/last_cmd_status    why the last write was refused
//	  mon_groups/<id>/tasks   a group that is measured by itself
//	  <class>/                as the root, but for info
//
// What it does is safe for many goroutines, as far as they do not make and remove the same class.
package resctrl

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/mountinfo"
)

// Root is a mounted resctrl file system.
type Root struct{ dir string }

// At is the file system mounted at dir.
func At(dir string) Root { return Root{dir} }

// Find finds it in this process's mount table.
func Find() (Root, error) {
	list, err := mountinfo.Own("resctrl")
	if err != nil {
		return Root{}, err
	}
	if len(list) > 0 {
		return Root{list[0].At}, nil
	}
	return Root{}, errors.New("no resctrl file system is mounted on this host: where processor and kernel have resource control (grep resctrl /proc/filesystems), " +
		"mount it with: mount -t resctrl resctrl /sys/fs/resctrl")
}

// Class is where a container's processes go.
type Class struct {
	dir  string
	mon  string   // its own group that is measured; empty: none
	made []string // directories that were made for it, in order
}

// Prepare finds or makes the class of a container, as the configuration says.
func (r Root) Prepare(id string, c *specs.LinuxIntelRdt) (*Class, error) {
	if err := check(id, c); err != nil {
		return nil, err
	}
	k := &Class{dir: r.class(id, c)}
	if err := r.prepare(k, id, c); err != nil {
		return nil, errors.Join(err, k.Undo())
	}
	return k, nil
}

// Of is the class that a running process is in, where another one is to join it.
func (r Root) Of(pid int) (*Class, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cpu_resctrl_groups", pid))
	if err != nil {
		return nil, fmt.Errorf("find the class of service of process %d: %w", pid, err)
	}
	return r.joined(string(b))
}

// joined reads what the kernel says of a process: "res:/" and the class, "mon:" and the group that is measured, each empty for the default.
func (r Root) joined(text string) (*Class, error) {
	k := &Class{}
	for line := range strings.Lines(text) {
		kind, name, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch name = strings.Trim(name, "/"); {
		case strings.ContainsAny(name, "/\x00"):
			return nil, fmt.Errorf("a process's class of service %q is not understood", line)
		case kind == "res":
			k.dir = filepath.Join(r.dir, name)
		case kind == "mon" && name != "" && k.dir != "":
			k.mon = filepath.Join(k.dir, "mon_groups", name)
		}
	}
	if k.dir == "" {
		return nil, errors.New("the kernel does not say which class of service a process is in: is a resctrl file system mounted?")
	}
	return k, nil
}

func (r Root) prepare(k *Class, id string, c *specs.LinuxIntelRdt) error {
	lines := schemata(c)
	_, err := os.Stat(k.dir)
	switch {
	case err == nil && c.ClosID != "":
		if err := k.compare(c); err != nil {
			return err
		}
		lines = c.Schemata // the others are so already
	case err == nil: // somebody else's: it would be removed with the container
		return fmt.Errorf("a class of service %s exists already: name it in closID, or remove it: %w", k.dir, fs.ErrExist)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	case c.ClosID != "" && len(lines) == 0:
		return fmt.Errorf("the class of service %q does not exist in %s, and the configuration says nothing that a new one could have: %w", c.ClosID, r.dir, err)
	default:
		if err := k.mkdir(k.dir); err != nil {
			return fmt.Errorf("make a class of service: %w", r.explain(err))
		}
	}
	if err := r.write(k.dir, lines); err != nil {
		return err
	}
	if !c.EnableMonitoring {
		return nil
	}
	k.mon = filepath.Join(k.dir, "mon_groups", id)
	if err := k.mkdir(k.mon); err != nil {
		return fmt.Errorf("make the container's group to be measured: %w", r.explain(err))
	}
	return nil
}

func (k *Class) mkdir(dir string) error {
	err := os.Mkdir(dir, 0o755)
	if err == nil {
		k.made = append(k.made, dir)
	}
	return err
}

// class is the directory of a container's class.
func (r Root) class(id string, c *specs.LinuxIntelRdt) string {
	switch c.ClosID {
	case "":
		return filepath.Join(r.dir, id)
	case "/":
		return r.dir
	}
	return filepath.Join(r.dir, c.ClosID)
}

// schemata are the lines to write, in their order.
func schemata(c *specs.LinuxIntelRdt) []string {
	var lines []string
	for _, s := range append([]string{c.L3CacheSchema, c.MemBwSchema}, c.Schemata...) {
		if s != "" {
			lines = append(lines, s)
		}
	}
	return lines
}

// check refuses names that lead elsewhere, and lines that are more than one.
func check(id string, c *specs.LinuxIntelRdt) error {
	for _, name := range []string{id, c.ClosID} {
		if name == c.ClosID && (name == "" || name == "/") {
			continue
		}
		if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\n") || slices.Contains([]string{"info", "mon_data", "mon_groups"}, name) {
			return fmt.Errorf("linux.intelRdt: %q is no name of a class of service: it is one folder's name, or / for the default class", name)
		}
	}
	for _, line := range schemata(c) {
		if strings.Contains(line, "\n") {
			return fmt.Errorf("linux.intelRdt: %q has more than one line: give each one its own element of schemata", line)
		}
	}
	if c.MemBwSchema != "" && !strings.HasPrefix(c.MemBwSchema, "MB:") {
		return fmt.Errorf("linux.intelRdt: memBwSchema %q does not begin with MB:", c.MemBwSchema)
	}
	return nil
}

// compare says whether a class that exists already has the shares that are asked for.
func (k *Class) compare(c *specs.LinuxIntelRdt) error {
	if c.L3CacheSchema == "" && c.MemBwSchema == "" {
		return nil
	}
	b, err := os.ReadFile(filepath.Join(k.dir, "schemata"))
	if err != nil {
		return err
	}
	have := map[string]string{}
	for line := range strings.Lines(string(b)) {
		for key, value := range shares(line) {
			have[key] = value
		}
	}
	for _, line := range []string{c.L3CacheSchema, c.MemBwSchema} {
		for key, value := range shares(line) {
			if have[key] != value {
				return fmt.Errorf("the class of service %s exists with other shares than the configuration's %q (%s is %q): take another closID, or change the one or the other",
					k.dir, line, key, have[key])
			}
		}
	}
	return nil
}

// shares reads "L3:0=ff;1=0f" to "L3:0" is "ff", "L3:1" is "f".
func shares(line string) map[string]string {
	out := map[string]string{}
	kind, rest, ok := strings.Cut(strings.TrimSpace(line), ":")
	if !ok {
		return out
	}
	for _, part := range strings.Split(rest, ";") {
		if domain, value, ok := strings.Cut(part, "="); ok {
			out[strings.TrimSpace(kind)+":"+digits(domain)] = digits(value)
		}
	}
	return out
}

// digits is a number as the shortest that says the same.
func digits(s string) string {
	s = strings.ToLower(strings.TrimSpace(s))
	if short := strings.TrimLeft(s, "0"); short != "" || s == "" {
		return short
	}
	return "0"
}

// write gives the kernel one line after the other.
func (r Root) write(dir string, lines []string) error {
	file := filepath.Join(dir, "schemata")
	for _, line := range lines {
		if err := command(file, line+"\n"); err != nil {
			return fmt.Errorf("write %q to %s: %w", line, file, r.explain(err))
		}
	}
	return nil
}

// command appends to a file, which for the kernel is the same as a write; a directory that is only laid out like its own gets the file.
func command(file, text string) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// explain adds what the kernel says of its last refusal.
func (r Root) explain(err error) error {
	if errors.Is(err, unix.ENOSPC) {
		err = fmt.Errorf("%w: the processor has no more of them", err)
	}
	if b, e := os.ReadFile(filepath.Join(r.dir, "info/last_cmd_status")); e == nil && strings.TrimSpace(string(b)) != "ok" {
		return fmt.Errorf("%w (%s)", err, strings.TrimSpace(string(b)))
	}
	return err
}

// Add moves a process, whose children follow it, into the class and its group.
func (k *Class) Add(pid int) error {
	for _, dir := range []string{k.dir, k.mon} {
		if dir == "" {
			continue
		}
		if err := command(filepath.Join(dir, "tasks"), strconv.Itoa(pid)+"\n"); err != nil {
			return fmt.Errorf("move process %d into the class of service %s: %w", pid, dir, err)
		}
	}
	return nil
}

// Undo removes what Prepare has made.
func (k *Class) Undo() error {
	var errs []error
	for _, dir := range slices.Backward(k.made) {
		errs = append(errs, remove(dir))
	}
	k.made = nil
	return errors.Join(errs...)
}

// Remove takes away what belongs to a container that is gone: its group that was measured, and a class of its own.
func (r Root) Remove(id string, c *specs.LinuxIntelRdt) error {
	if err := check(id, c); err != nil {
		return err
	}
	dir := r.class(id, c)
	var err error
	if c.EnableMonitoring {
		err = remove(filepath.Join(dir, "mon_groups", id))
	}
	if c.ClosID == "" {
		err = errors.Join(err, remove(dir))
	}
	return err
}

// remove lets the kernel's files go with their directory.
func remove(dir string) error {
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
		return &fs.PathError{Op: "rmdir", Path: dir, Err: err}
	}
	return nil
}

// Update changes the shares of a container's class.
func (r Root) Update(id string, c *specs.LinuxIntelRdt) error {
	if err := check(id, c); err != nil {
		return err
	}
	return r.write(r.class(id, c), schemata(c))
}
