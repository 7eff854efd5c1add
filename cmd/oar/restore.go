package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/cgroup"
	"wherry.dev/wherry/internal/criu"
	"wherry.dev/wherry/internal/ociruntime"
	"wherry.dev/wherry/internal/sysprog"
)

// restoration are the options of restore.
type restoration struct {
	creation
	images  criu.Options
	keep    bool
	streams []string
}

// restore makes a container from a bundle and the images that checkpoint wrote. The bundle says how it is confined and the images do not:
// what criu has made of them is compared with the configuration before anything of it runs.
func (r imager) restore(ctx context.Context, f flags) error {
	o := restoration{creation: creation{trace: r.step}}
	o.define(f)
	defineImages(f, &o.images)
	f.yes(&o.detach, "detach d", "do not wait for its end")
	f.yes(&o.keep, "keep", "leave the stopped container to be looked at and deleted")
	f.Bool("no-subreaper", false, hidden)
	profile := f.String("lsm-profile", "", "the security module's `MODULE:LABEL`, which must be the configuration's")
	mounts := f.String("lsm-mount-context", "", "the `LABEL` of mounts, which must be the configuration's")
	var err error
	if o.id, err = f.id(); err != nil {
		return err
	}
	if err := completeImages(r.store, &o.images); err != nil {
		return err
	}
	if o.streams, err = readStreams(o.images.Images); err != nil {
		return err
	}
	if o.noPivot {
		return errors.New("--no-pivot: criu always pivots to the root file system")
	}
	if r.systemd {
		return errors.New("restore makes control groups itself and does not ask systemd for them: leave --systemd-cgroup out")
	}
	c, err := r.newRecord(o.creation)
	if err != nil {
		return err
	}
	if label := labelFor(c.spec.Process); *profile != "" && *profile != label || *mounts != "" && *mounts != c.spec.Linux.MountLabel {
		return errors.Join(fmt.Errorf("--lsm-profile, --lsm-mount-context: the bundle's configuration says %q and %q, and the container is confined as that says", label, c.spec.Linux.MountLabel), os.RemoveAll(c.dir))
	}
	signals := catchSignals()
	pidfd, err := restoreRecord(ctx, c, o)
	if err != nil && !errors.Is(err, errLeft) {
		os.RemoveAll(c.dir)
	}
	if err != nil {
		return err
	}
	defer pidfd.Close()
	if o.detach {
		return nil
	}
	status, err := attend(pidfd, nil, signals)
	if err == nil && o.keep {
		return exitCode(status.Code)
	}
	if err := errors.Join(err, c.destroy(ctx)); err != nil {
		return err
	}
	return exitCode(status.Code)
}

// readStreams reads the names of the first process's streams. They only say which files of criu's are replaced by this process's own.
func readStreams(images string) (list []string, err error) {
	f, err := os.Open(filepath.Join(images, streamsFile))
	if err != nil {
		return nil, fmt.Errorf("the images of a checkpoint by oar: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	if err := checkStreams(list); err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return list[:min(3, len(list))], nil
}

// checkStreams refuses what is no name of a stream.
func checkStreams(list []string) error {
	for _, name := range list {
		inside, file := strings.CutPrefix(name, "file[")
		if !file {
			inside, _ = strings.CutPrefix(name, "pipe:[")
		}
		digits, ok := strings.CutSuffix(inside, "]")
		if name != "" && (inside == name || !ok || strings.Trim(digits, "0123456789abcdef:") != "") {
			return fmt.Errorf("%q is no name of a stream", name)
		}
	}
	return nil
}

// restoreRecord makes the processes and lets them go on. All is undone when an error is returned.
func restoreRecord(ctx context.Context, c *record, o restoration) (*os.File, error) {
	if err := checkpointable(c); err != nil {
		return nil, err
	}
	release, err := c.lock()
	if err != nil {
		return nil, err
	}
	defer release()
	if err := c.save(); err != nil {
		return nil, err
	}
	if c.group, err = cgroup.Create(c.Cgroup, c.spec.Linux.Resources); err != nil {
		return nil, err
	}
	pidfd, err := revive(ctx, c, o)
	if err != nil {
		return nil, endAfter(ctx, c, err)
	}
	return pidfd, nil
}

// revive has criu make the processes, compares them with the configuration, and lets them go on.
func revive(ctx context.Context, c *record, o restoration) (*os.File, error) {
	o.trace("have criu make the processes")
	images, err := restoreOptions(c, o)
	if err != nil {
		return nil, err
	}
	defer closeFiles(images)
	if c.Pid, err = criu.Restore(ctx, images); err != nil {
		return nil, err
	}
	fd, err := unix.PidfdOpen(c.Pid, 0)
	if err != nil {
		return nil, err
	}
	pidfd, err := sysprog.Pollable(fd)
	if err != nil {
		return nil, err
	}
	if err := letGo(ctx, c, o, pidfd); err != nil {
		pidfd.Close()
		return nil, err
	}
	return pidfd, nil
}

// letGo has the processes go on, which stand stopped until they have been compared.
func letGo(ctx context.Context, c *record, o restoration, pidfd *os.File) (err error) {
	if c.Started, err = startTime(c.Pid); err != nil {
		return err
	}
	o.trace("compare them with the configuration")
	confined := ociruntime.OpenOptions{Spec: c.spec, State: c.ociState(specs.StateCreating), Pid: c.Pid, Pidfd: pidfd, Cgroup: c.group, RootPath: c.Rootfs}
	if err := ociruntime.Confined(confined); err != nil {
		return fmt.Errorf("the images are not of this configuration's container, which was ended: %w", err)
	}
	if h := c.spec.Hooks; h != nil {
		if err := ociruntime.RunHooks(ctx, "prestart", h.Prestart, c.ociState(specs.StateCreated)); err != nil { //nolint:staticcheck // deprecated, not gone
			return err
		}
		if err := ociruntime.RunHooks(ctx, "createRuntime", h.CreateRuntime, c.ociState(specs.StateCreating)); err != nil {
			return err
		}
	}
	if err := c.save(); err != nil {
		return err
	}
	if err := writePid(o.pidFile, c.Pid); err != nil {
		return err
	}
	if o.pidfdSocket != "" {
		if err := send(o.pidfdSocket, "pidfd", pidfd); err != nil {
			return err
		}
	}
	o.trace("let them go on")
	if err := c.signalAll(unix.SIGCONT); err != nil {
		return err
	}
	return c.poststart(ctx)
}

// restoreOptions name what of the container lies outside, as this configuration has it.
func restoreOptions(c *record, o restoration) (r criu.RestoreOptions, err error) {
	r.Options = o.images
	r.Root = c.Rootfs
	if r.External, err = external(c, nil, restoredMount); err != nil {
		return r, err
	}
	if err := placeInGroup(&r, c.group); err != nil {
		return r, err
	}
	for i, name := range o.streams {
		if name != "" && !slices.ContainsFunc(r.Inherit, func(i criu.Inherited) bool { return i.Name == name }) {
			r.Inherit = append(r.Inherit, criu.Inherited{Name: name, File: []*os.File{os.Stdin, os.Stdout, os.Stderr}[i]})
		}
	}
	r.Label = labelFor(c.spec.Process)
	return r, openNetwork(c, &r)
}

// labelFor is the security module's label of a configuration, in criu's words.
func labelFor(p *specs.Process) string {
	switch {
	case p.ApparmorProfile != "" && ociruntime.AppArmor():
		return "apparmor:" + p.ApparmorProfile
	case p.SelinuxLabel != "" && ociruntime.SELinux():
		return "selinux:" + p.SelinuxLabel
	}
	return ""
}

// openNetwork opens the network namespace that the configuration names by its path.
func openNetwork(c *record, r *criu.RestoreOptions) error {
	for _, ns := range c.spec.Linux.Namespaces {
		if ns.Type == specs.NetworkNamespace && ns.Path != "" {
			f, err := os.Open(ns.Path)
			if err != nil {
				return err
			}
			r.Inherit = append(r.Inherit, criu.Inherited{Name: externalNetwork, File: f})
		}
	}
	return nil
}

// externalNetwork is the name, in the images, of a network namespace from outside.
const externalNetwork = "external-network"

// closeFiles closes what was opened for criu, but this process's streams.
func closeFiles(r criu.RestoreOptions) {
	closeGroup(r)
	for _, i := range r.Inherit {
		if i.Name == externalNetwork {
			i.File.Close()
		}
	}
}

// networkInode is criu's name of a joined network namespace.
func networkInode(path string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return "", err
	}
	return "net[" + strconv.FormatUint(st.Ino, 10) + "]:" + externalNetwork, nil
}
