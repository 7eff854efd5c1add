package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/cgroup"
	"wherry.dev/wherry/internal/ociruntime"
)

// A container's folder below --root:
//
//	state.json   what create knew (record), replaced by rename
//	config.json  the configuration that it was created from
//	exec.fifo    the gate: its init process holds it open and reads the byte of start; gone when started
//
// Whether the container is alive is never read from there: its pidfd says it, of a process with the noted start time.
const (
	recordFile = "state.json"
	configFile = "config.json"
	gateFile   = "exec.fifo"
)

// record is what a later command must know of a container.
type record struct {
	ID           string    `json:"id"`
	Bundle       string    `json:"bundle"`
	Rootfs       string    `json:"rootfs"`
	Created      time.Time `json:"created"`
	Owner        string    `json:"owner"`           // user id
	Cgroup       string    `json:"cgroup"`          // "" until systemd has made it
	Scope        string    `json:"scope,omitempty"` // the unit of systemd's whose group it is
	Pid          int       `json:"pid"`             // 0: creation has not come to its end
	Started      uint64    `json:"started"`         // the process's start time in the kernel's ticks (proc_pid_stat(5))
	NoNewKeyring bool      `json:"noNewKeyring,omitempty"`
	Delegated    string    `json:"delegated,omitempty"` // what its control group lacks: see the constants

	dir    string
	spec   *specs.Spec
	group  *cgroup.Group // see openGroup
	nested bool          // see store
	locked bool          // by this process
	slice  string        // of the scope, while it is made
	*logger
}

// statusPaused is runc's word for a frozen container.
const statusPaused specs.ContainerState = "paused"

func (r *store) dir(id string) string { return filepath.Join(r.root, id) }

// load reads a container's record and configuration, which say what processes are killed and which hooks run: nobody else may have written them.
func (r *store) load(id string) (*record, error) {
	c := &record{dir: r.dir(id), nested: r.nested, logger: &r.logger}
	b, err := os.ReadFile(filepath.Join(c.dir, recordFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("container does not exist: %q (looked in %s): %w", id, r.root, fs.ErrNotExist)
	}
	if err != nil {
		return nil, err
	}
	if err := checkOwn(c.dir); err != nil {
		return nil, fmt.Errorf("container %s: %w", id, err)
	}
	if err := json.Unmarshal(b, c); err != nil {
		return nil, fmt.Errorf("the state of container %s is damaged: %s/%s: %w; remove it with delete --force", id, c.dir, recordFile, err)
	}
	if c.spec, err = readSpec(c.dir); err != nil {
		return c, err
	}
	c.spec = translate(c.spec, r.inside)
	if p := c.spec.Process; p != nil && p.ApparmorProfile != "" && !ociruntime.AppArmor() { // create has said that it has no effect
		p.ApparmorProfile = ""
	}
	return c, nil
}

// save replaces the record.
func (c *record) save() error {
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return writeWhole(filepath.Join(c.dir, recordFile), b)
}

// writeWhole writes a file that is never seen half. It may lie in a folder where others write too (--pid-file /tmp/…): what they have put in
// the place of its beginning is not written to.
func writeWhole(path string, content []byte) error {
	temporary := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}

// lockCreated locks a container that nobody creates just now: that may take as long as hooks like.
func (c *record) lockCreated() (release func(), err error) {
	if c.creating() {
		return nil, fmt.Errorf("container %s is being created: wait for that, or delete it with --force", c.ID)
	}
	return c.lock()
}

// lock keeps other commands from changing the container at the same time; the kernel gives it back with the process.
func (c *record) lock() (release func(), err error) {
	f, err := os.Open(c.dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock container %s: %w", c.ID, err)
	}
	mine, err := f.Stat()
	if now, e := os.Stat(c.dir); err != nil || e != nil || !os.SameFile(mine, now) {
		f.Close()
		return nil, fmt.Errorf("container does not exist: %q was deleted meanwhile: %w", c.ID, fs.ErrNotExist)
	}
	c.locked = true
	return func() { c.locked = false; f.Close() }, nil
}

// creating says that the process that creates the container is still at it: one that holds the lock, where this process does not.
func (c *record) creating() bool {
	if c.locked {
		return false
	}
	f, err := os.Open(c.dir)
	if err != nil {
		return false
	}
	defer f.Close()
	return c.Pid == 0 && unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil
}

// process opens the init process, if it is alive: the pid's owner with the noted start time, not yet dead by its pidfd.
func (c *record) process() (pidfd *os.File, alive bool) {
	if c.Pid == 0 {
		return nil, false
	}
	fd, err := unix.PidfdOpen(c.Pid, 0)
	if err != nil {
		return nil, false
	}
	pidfd = os.NewFile(uintptr(fd), "pidfd")
	if started, err := startTime(c.Pid); err == nil && started == c.Started && !ended(fd) {
		return pidfd, true
	}
	pidfd.Close()
	return nil, false
}

// ended says that a process, all its threads, is dead (reaped or not).
func ended(pidfd int) bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 0)
	return err == nil && n > 0
}

// startTime is field 22 of proc_pid_stat(5); the second field may hold anything.
func startTime(pid int) (uint64, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	return startTimeOf(string(b))
}

func startTimeOf(stat string) (uint64, error) {
	_, rest, ok := cutLast(stat, ") ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 20 {
		return 0, fmt.Errorf("a process's stat has an unknown form: %q", stat)
	}
	return strconv.ParseUint(fields[19], 10, 64)
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// status derives the state from what the kernel says.
func (c *record) status() specs.ContainerState {
	pidfd, alive := c.process()
	switch {
	case !alive && c.creating():
		return specs.StateCreating
	case !alive:
		return specs.StateStopped
	}
	pidfd.Close()
	if g, err := c.openGroup(); err == nil && cgroup.Frozen(g) {
		return statusPaused
	}
	if gate, err := c.gate(); err == nil {
		gate.Close()
		return specs.StateCreated
	}
	return specs.StateRunning
}

// gate opens the write side; an error when nobody waits there.
func (c *record) gate() (*os.File, error) {
	fd, err := unix.Open(filepath.Join(c.dir, gateFile), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), gateFile), nil
}

// keepGroupsAnnotation with the value "1" leaves processes the supplementary groups of who calls oar. It is crun's, for Podman's --group-add keep-groups.
const keepGroupsAnnotation = "run.oci.keep_original_groups"

func keepsGroups(spec *specs.Spec) bool { return spec.Annotations[keepGroupsAnnotation] == "1" }

// ociState is what hooks and callers are told.
func (c *record) ociState(status specs.ContainerState) specs.State {
	s := specs.State{Version: specs.Version, ID: c.ID, Status: status, Pid: c.Pid, Bundle: c.Bundle, Annotations: c.spec.Annotations}
	if status == specs.StateStopped {
		s.Pid = 0
	}
	return s
}

// require refuses a command that the container's status does not permit, in words that callers look for.
func (c *record) require(what string, wanted ...specs.ContainerState) error {
	have := c.status()
	if slices.Contains(wanted, have) {
		return nil
	}
	return fmt.Errorf("%s: %s is %s", refusal(what, have), c.ID, have)
}

// refusal says in general why a command is none for a status.
func refusal(what string, have specs.ContainerState) string {
	switch {
	case what == "start" && have == specs.StateStopped:
		return "cannot start a container that has stopped"
	case what == "start" && have == specs.StateRunning:
		return "cannot start an already running container"
	case what == "exec" && have == statusPaused:
		return "cannot exec in a paused container (use --ignore-paused to override)"
	case what == "start", what == "exec":
		return fmt.Sprintf("cannot %s in a %s container", what, have)
	case what == "resume" && have != specs.StateStopped:
		return "container not paused"
	}
	return "container not running"
}

// open makes the container usable for further processes.
func (c *record) open() (*ociruntime.Container, error) {
	if !hasUserNamespace(c.spec) || c.nested {
		if err := protectBinary(); err != nil {
			return nil, err
		}
	}
	pidfd, alive := c.process()
	if !alive {
		return nil, c.notRunning()
	}
	g, err := c.openGroup()
	if err != nil {
		pidfd.Close()
		return nil, err
	}
	return ociruntime.Open(ociruntime.OpenOptions{Spec: c.spec, State: c.ociState(c.status()), Pid: c.Pid, Pidfd: pidfd, Cgroup: g})
}

// readSpec reads the configuration of a container's folder.
func readSpec(dir string) (*specs.Spec, error) {
	name := filepath.Join(dir, configFile)
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	return parseSpec(name, b)
}

func parseSpec(name string, config []byte) (*specs.Spec, error) {
	if string(bytes.TrimSpace(config)) == "null" {
		return nil, fmt.Errorf("%s: config cannot be null", name)
	}
	spec, err := ociruntime.DecodeSpec(config)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return spec, nil
}
