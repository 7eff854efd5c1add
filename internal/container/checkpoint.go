package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"

	networks "wherry.dev/wherry/internal/network"
	"wherry.dev/wherry/internal/rootfs"
	"wherry.dev/wherry/internal/task"
	"wherry.dev/wherry/internal/why"
)

// A checkpoint is a folder with a container's processes: <Root>/containers/<id>/checkpoints/<name>, or <dir>/<name> where its maker has named
// another folder. One that is being made has a name that no checkpoint can have.

// CheckpointOptions say which checkpoint is meant, and what becomes of the container.
type CheckpointOptions struct {
	Name         string
	Dir          string // an absolute path on the host; empty: the container's own folder
	LeaveRunning bool
}

// checkpointRecord is what the engine keeps beside the processes.
type checkpointRecord struct {
	ID       string // of the container
	Networks map[string]networks.Had
}

const checkpointFile = "checkpoint.json"

// ValidCheckpoint says that a name is one folder's, and none that is being made.
func ValidCheckpoint(name string) error {
	for i, r := range name {
		plain := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !plain && (i == 0 || !strings.ContainsRune("_.-", r)) {
			return invalid("invalid checkpoint name %q: it begins with a letter or digit and has letters, digits and _.- only", name)
		}
	}
	if name == "" || len(name) > 128 {
		return invalid("invalid checkpoint name %q: it has between 1 and 128 characters", name)
	}
	return nil
}

// place is the folder that a container's checkpoints are in.
func (o CheckpointOptions) place(c *Container) (string, error) {
	if o.Dir == "" {
		return filepath.Join(c.dir, "checkpoints"), nil
	}
	if !filepath.IsAbs(o.Dir) {
		return "", invalid("checkpoint folder %q: it is an absolute path on the engine's host", o.Dir)
	}
	return filepath.Clean(o.Dir), nil
}

func (o CheckpointOptions) folder(c *Container) (string, error) {
	if err := ValidCheckpoint(o.Name); err != nil {
		return "", err
	}
	place, err := o.place(c)
	return filepath.Join(place, o.Name), err
}

func noCheckpoint(c *Container, name string) error {
	return fail(errdefs.ErrNotFound, "checkpoint %s does not exist for container %s", name, c.record().Name)
}

// Checkpoints lists the names of a container's, in a folder of the host's or its own.
func Checkpoints(s *Service, id, dir string) ([]string, error) {
	c, err := s.index.find(id)
	if err != nil {
		return nil, err
	}
	place, err := CheckpointOptions{Dir: dir}.place(c)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(place)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if _, err := os.Lstat(filepath.Join(place, e.Name(), checkpointFile)); err == nil && ValidCheckpoint(e.Name()) == nil {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// RemoveCheckpoint removes one.
func RemoveCheckpoint(s *Service, id string, o CheckpointOptions) error {
	c, err := s.index.find(id)
	if err != nil {
		return err
	}
	c.op.Lock()
	defer c.op.Unlock()
	dir, err := o.folder(c)
	if err != nil {
		return err
	}
	if _, err := readCheckpoint(c, o.Name, dir); err != nil {
		return err
	}
	return rootfs.RemoveTree(dir)
}

// readCheckpoint reads what the engine has noted of one. A folder without it is not one of the engine's, and left alone.
func readCheckpoint(c *Container, name, dir string) (r checkpointRecord, err error) {
	if fi, err := os.Lstat(dir); err != nil || !fi.IsDir() {
		return r, noCheckpoint(c, name)
	}
	b, err := os.ReadFile(filepath.Join(dir, checkpointFile))
	if errors.Is(err, fs.ErrNotExist) {
		return r, noCheckpoint(c, name)
	}
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil {
		return r, fmt.Errorf("read checkpoint %s: %w", dir, err)
	}
	return r, nil
}

// MakeCheckpoint writes the processes of a running container to disk. It ends then, and no policy starts it again, unless it is left running.
func MakeCheckpoint(ctx context.Context, s *Service, id string, o CheckpointOptions) error {
	c, err := s.index.find(id)
	if err != nil {
		return err
	}
	ctx, done := s.lives.outlive(ctx) // criu is not to be stopped in the middle of a process
	defer done()
	return checkpoint(ctx, life{s, c}, o)
}

func checkpoint(ctx context.Context, l life, o CheckpointOptions) error {
	into, err := o.folder(l.c)
	if err != nil {
		return err
	}
	l.c.op.Lock()
	defer l.c.op.Unlock()
	t, r, err := l.c.running()
	if err != nil {
		return err
	}
	if err := checkpointable(r, o); err != nil {
		return err
	}
	if _, err := os.Lstat(into); err == nil {
		return fail(errdefs.ErrAlreadyExists, "checkpoint with name %s already exists for container %s", o.Name, r.Name)
	}
	program, err := findCriu()
	if err != nil {
		return fail(errdefs.ErrNotImplemented, "checkpoint of container %s: %v", r.Name, err)
	}
	dir, err := beginCheckpoint(l, into)
	if err != nil {
		return l.s.o.noRoom(err)
	}
	if !o.LeaveRunning {
		l.noteStopped(nil)
	}
	if err := dumped(ctx, l, t, task.CheckpointOptions{Dir: dir, Into: into, LeaveRunning: o.LeaveRunning, Criu: program}); err != nil {
		if !o.LeaveRunning {
			l.c.settle(func(n *Record) { n.Stopped = r.Stopped })
		}
		kept := keepDumpLog(l.c.dir, dir, into)
		l.s.log(errors.Join(rootfs.RemoveTree(dir), rootfs.RemoveTree(into)))
		return checkpointFailure(r, strings.ReplaceAll(err.Error(), filepath.Join(dir, dumpLog), kept))
	}
	l.s.publish(r, events.ActionCheckpoint, "checkpoint", o.Name)
	if o.LeaveRunning {
		return nil
	}
	noteAsk(ctx, l.c, why.Ask{For: why.AskDump, Checkpoint: o.Name, Dir: o.Dir})
	return endCheckpointed(ctx, l, t)
}

// connected is in criu's words where there are TCP connections.
const connected = "tcp-established"

// dumped has the shim do it, while no health check is under way: its connections would be in the way, and those that it has left end soon.
func dumped(ctx context.Context, l life, t *task.Task, o task.CheckpointOptions) error {
	const tries, wait = 5, 100 * time.Millisecond
	limited, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	awaitNoProbe(limited, l)
	err := task.Checkpoint(ctx, t, o)
	for i := 1; i < tries && err != nil && strings.Contains(err.Error(), connected); i++ {
		time.Sleep(wait)
		err = task.Checkpoint(ctx, t, o)
	}
	if err != nil || o.LeaveRunning {
		l.startHealth(ctx)
	}
	return err
}

// endCheckpointed waits for the end of what criu has ended.
func endCheckpointed(ctx context.Context, l life, t *task.Task) error {
	ctx, cancel := context.WithTimeoutCause(ctx, killLimit, fmt.Errorf("container %s has been checkpointed and does not end", l.c.record().Name))
	defer cancel()
	exit, err := t.Wait(ctx)
	if err != nil {
		return err
	}
	l.ended(ctx, t, exit)
	return nil
}

// findCriu finds the program that does the work.
func findCriu() (string, error) {
	path, err := exec.LookPath("criu")
	if err != nil {
		return "", errors.New("the program criu is not on this machine: install the package criu")
	}
	return filepath.Abs(path)
}

// checkpointable refuses what is known not to come back.
func checkpointable(r *Record, o CheckpointOptions) error {
	switch {
	case r.Status == Paused:
		return fail(errdefs.ErrConflict, "container %s is paused: unpause it before a checkpoint", r.Name)
	case r.Config.Tty:
		return fail(errdefs.ErrNotImplemented, "checkpoint of container %s: it has a terminal, whose other side is held outside of it: only containers without -t can be checkpointed", r.Name)
	case r.HostConfig.AutoRemove && !o.LeaveRunning:
		return fail(errdefs.ErrConflict, "container %s goes when it ends (--rm), and its checkpoints with it: leave it running", r.Name)
	}
	return nil
}

// beginCheckpoint makes the folder under a name of its own, with what the engine wants to know at the restore.
func beginCheckpoint(l life, into string) (dir string, err error) {
	if err := os.MkdirAll(filepath.Dir(into), 0o700); err != nil {
		return "", err
	}
	dir = filepath.Join(filepath.Dir(into), ".new-"+filepath.Base(into))
	if err := rootfs.RemoveTree(dir); err != nil {
		return "", err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	record := checkpointRecord{ID: l.c.id, Networks: map[string]networks.Had{}}
	if endpoints, _, ok := l.s.o.Networks.Endpoints(l.c.id); ok {
		for name, e := range endpoints {
			record.Networks[name] = networks.Had{IPv4: e.IPAddress, IPv6: e.GlobalIPv6Address, MAC: e.MacAddress}
		}
	}
	b, err := json.Marshal(record)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, checkpointFile), b, 0o600)
	}
	return dir, err
}

// dumpLog is criu's log of a dump, in its folder.
const dumpLog = "dump.log"

// keepDumpLog keeps the log of a checkpoint that has failed, the last one's, and says where.
func keepDumpLog(containerDir string, dirs ...string) string {
	to := filepath.Join(containerDir, "checkpoint.log")
	for _, dir := range dirs {
		if os.Rename(filepath.Join(dir, dumpLog), to) == nil {
			break
		}
		if b, err := os.ReadFile(filepath.Join(dir, dumpLog)); err == nil && os.WriteFile(to, b, 0o600) == nil { // another file system
			break
		}
	}
	return to
}

// checkpointFailure gives criu's refusals their class.
func checkpointFailure(r *Record, text string) error {
	for _, word := range []string{"criu cannot be used", "no_new_privs", "namespace of"} {
		if strings.Contains(text, word) {
			return fail(errdefs.ErrNotImplemented, "checkpoint of container %s: %s", r.Name, text)
		}
	}
	if strings.Contains(text, connected) {
		return fail(errdefs.ErrConflict, "checkpoint of container %s, which goes on: it has TCP connections, whose other ends would not wait: end them first (%s)", r.Name, text)
	}
	return fmt.Errorf("checkpoint of container %s, which goes on: %s", r.Name, text)
}

// StartFrom runs a container from a checkpoint on. errdefs.ErrNotModified when it runs already. The warnings say what is another than it was.
func StartFrom(ctx context.Context, s *Service, id string, o CheckpointOptions) (warnings []string, err error) {
	c, err := s.index.find(id)
	if err != nil {
		return nil, err
	}
	dir, err := o.folder(c)
	if err != nil {
		return nil, err
	}
	r, err := readCheckpoint(c, o.Name, dir)
	if err != nil {
		return nil, err
	}
	if r.ID != c.id {
		return nil, fail(errdefs.ErrConflict, "checkpoint %s in %s is of another container, %s: what it has open would not be there", o.Name, dir, r.ID)
	}
	program, err := findCriu()
	if err != nil {
		return nil, fail(errdefs.ErrNotImplemented, "start of container %s from checkpoint %s: %v", c.record().Name, o.Name, err)
	}
	from := &checkpointed{name: o.Name, dir: dir, criu: program, checkpointRecord: r}
	err = life{s, c}.startByUser(ctx, startOptions{from: from})
	return from.warnings, err
}

// checkpointed is a checkpoint that a start goes on from.
type checkpointed struct {
	name, dir, criu string
	checkpointRecord
	warnings []string // what could not be as it was
}

// compare warns where somebody has an address that the container had: what listens on all of its addresses does not mind.
func (f *checkpointed) compare(r *Record, a *networks.Allocation) {
	for _, name := range slices.Sorted(maps.Keys(f.Networks)) {
		had, have := f.Networks[name], a.Networks[name]
		if have == nil {
			continue
		}
		for _, row := range [][2]netip.Addr{{had.IPv4, have.IPAddress}, {had.IPv6, have.GlobalIPv6Address}} {
			if row[0].IsValid() && row[0] != row[1] {
				f.warnings = append(f.warnings, fmt.Sprintf("container %s goes on from checkpoint %s at another address than it had: somebody has %s on the network %s, and it is %s now",
					r.Name, f.name, row[0], name, row[1]))
			}
		}
	}
}
