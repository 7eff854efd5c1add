package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/criu"
)

// streamsFile is beside criu's images: the names by which they know the files that were the first process's streams.
const streamsFile = "descriptors.json"

// imager has the commands that write containers to disk and back.
type imager struct{ *store }

// defineImages names the options that checkpoint and restore share.
func defineImages(f flags, o *criu.Options) {
	f.text(&o.Images, "image-path", "checkpoint", "the images' `FOLDER`")
	f.text(&o.Work, "work-path", "", "a `FOLDER` for logs and statistics (the images' unless given)")
	f.text(&o.Cgroups, "manage-cgroups-mode", "soft", "how criu treats control groups: "+strings.Join(criu.CgroupModes(), ", "))
	f.yes(&o.TCPEstablished, "tcp-established", "established connections too")
	f.yes(&o.UnixSockets, "ext-unix-sk", "connections to unix sockets outside too")
	f.yes(&o.ShellJob, "shell-job", "processes of a shell's session too")
	f.yes(&o.FileLocks, "file-locks", "locks of files too")
	f.yes(&o.LazyPages, "lazy-pages", "memory is fetched when it is touched")
	f.yes(&o.AutoDedup, "auto-dedup", "drop memory of earlier images that later ones have")
	f.yes(&o.LinkRemap, "link-remap", "give deleted files that are in use a name")
	f.many((*texts)(&o.Empty), "empty-ns", "leave a `KIND` of namespace empty: network")
}

// completeImages makes the folders' names absolute and refuses what criu does not know.
func completeImages(r *store, o *criu.Options) (err error) {
	o.Program = r.criu
	if !slices.Contains(criu.CgroupModes(), o.Cgroups) {
		return fmt.Errorf("--manage-cgroups-mode %q: it is one of %s", o.Cgroups, strings.Join(criu.CgroupModes(), ", "))
	}
	for i, kind := range o.Empty {
		if kind != "network" && kind != "net" {
			return fmt.Errorf("--empty-ns %q: it is network", kind)
		}
		o.Empty[i] = "net"
	}
	for _, dir := range []*string{&o.Images, &o.Work} {
		if *dir == "" {
			continue
		}
		if *dir, err = filepath.Abs(*dir); err != nil {
			return err
		}
	}
	return nil
}

// checkpoint writes a running container to disk with criu. It is deleted then, as after its end, unless it is left running.
func (r imager) checkpoint(ctx context.Context, f flags) error {
	var o criu.DumpOptions
	defineImages(f, &o.Options)
	f.text(&o.Parent, "parent-path", "", "the `FOLDER` of earlier images of --pre-dump, from that of the images on")
	f.text(&o.PageServer, "page-server", "", "send the memory to `ADDRESS:PORT`")
	f.yes(&o.LeaveRunning, "leave-running", "let the container go on")
	f.yes(&o.Pre, "pre-dump", "write its memory only, and let it go on")
	f.yes(&o.TCPSkip, "tcp-skip-in-flight", "leave out connections that are being made")
	status := f.Int("status-fd", -1, "criu writes a byte to `DESCRIPTOR` when memory may be fetched")
	id, err := f.id()
	if err != nil {
		return err
	}
	if err := completeImages(r.store, &o.Options); err != nil {
		return err
	}
	if err := checkParent(o); err != nil {
		return err
	}
	c, err := r.load(id)
	if err != nil {
		return err
	}
	release, err := c.lockCreated()
	if err != nil {
		return err
	}
	defer release()
	if err := c.require("checkpoint", specs.StateRunning); err != nil {
		return err
	}
	if err := checkpointable(c); err != nil {
		return err
	}
	if err := keepsPrivileges(ctx, c, o.Program); err != nil {
		return err
	}
	if *status >= 0 {
		o.Status = os.NewFile(uintptr(*status), "status")
	}
	return dump(ctx, c, o)
}

// checkParent finds the earlier images: criu would write all of the memory without a word where they are not.
func checkParent(o criu.DumpOptions) error {
	if o.Parent == "" {
		return nil
	}
	if filepath.IsAbs(o.Parent) {
		return fmt.Errorf("--parent-path %s: it is a path from the images' folder on (../NAME)", o.Parent)
	}
	images := o.Images
	if real, err := filepath.EvalSymlinks(images); err == nil { // it is made where it is missing
		images = real
	}
	if _, err := os.Stat(filepath.Join(images, o.Parent)); err != nil {
		return fmt.Errorf("--parent-path %s: there are no earlier images: %w", o.Parent, err)
	}
	return nil
}

// checkpointable refuses what criu's command line cannot bring back.
func checkpointable(c *record) error {
	switch {
	case c.nested:
		return errors.New("checkpoint and restore need root: criu takes and gives what only the machine's root may")
	case c.spec.Process.Terminal:
		return errors.New("the container has a terminal, whose other side is held by somebody outside: only containers without one can be checkpointed")
	case hasUserNamespace(c.spec):
		return errors.New("the container has a user namespace: criu can write it down, but not make its device nodes again from within it")
	case c.Scope != "":
		return errors.New("the container's control group is a scope of systemd's: only containers whose groups oar makes can be checkpointed")
	}
	for _, ns := range c.spec.Linux.Namespaces {
		if ns.Path != "" && ns.Type != specs.NetworkNamespace {
			return fmt.Errorf("the container is in the %s namespace of %s: criu would make it one of its own", ns.Type, ns.Path)
		}
	}
	return nil
}

// keepsNoNewPrivileges is the first version of criu that brings no_new_privs back.
const keepsNoNewPrivileges = 31900

// keepsPrivileges refuses what could be written and not be read again: a version of criu that forgets no_new_privs.
func keepsPrivileges(ctx context.Context, c *record, program string) error {
	version, err := criu.Version(ctx, program)
	if err != nil || version >= keepsNoNewPrivileges || !c.spec.Process.NoNewPrivileges {
		return err
	}
	return fmt.Errorf("criu %d.%d does not bring no_new_privs back, which the configuration sets (process.noNewPrivileges): 3.19 and later do",
		version/10000, version/100%100)
}

func dump(ctx context.Context, c *record, o criu.DumpOptions) error {
	streams, err := streamsOf(c)
	if err != nil {
		return err
	}
	o.Pid, o.Root = c.Pid, c.Rootfs
	if o.External, err = external(c, streams, dumpedMount); err != nil {
		return err
	}
	for _, ns := range c.spec.Linux.Namespaces {
		if ns.Path == "" {
			continue
		}
		network, err := networkInode(ns.Path)
		if err != nil {
			return err
		}
		o.External = append(o.External, network)
	}
	if err := os.MkdirAll(o.Images, 0o700); err != nil {
		return err
	}
	b, err := json.Marshal(streams)
	if err != nil {
		return err
	}
	if err := writeWhole(filepath.Join(o.Images, streamsFile), b); err != nil {
		return err
	}
	if err := criu.Dump(ctx, o); err != nil {
		return err
	}
	if o.Pre || o.LeaveRunning {
		return nil
	}
	return c.destroy(context.WithoutCancel(ctx))
}

// streamsOf are criu's names of the first process's streams that lie outside of the container: pipes, and files on mounts of the host's.
// The others' are empty: criu finds them in the container again.
func streamsOf(c *record) (list []string, err error) {
	proc := "/proc/" + strconv.Itoa(c.Pid)
	table, err := os.ReadFile(proc + "/mountinfo")
	if err != nil {
		return nil, err
	}
	for fd := range 3 {
		link, err := os.Readlink(fmt.Sprintf("%s/fd/%d", proc, fd))
		if errors.Is(err, os.ErrNotExist) {
			list = append(list, "")
			continue
		}
		if err != nil {
			return nil, err
		}
		name := ""
		if strings.HasPrefix(link, "pipe:[") {
			name = link
		} else if strings.HasPrefix(link, "/") {
			if name, err = outsideFile(proc, fd, string(table)); err != nil {
				return nil, err
			}
		}
		list = append(list, name)
	}
	return list, nil
}

// outsideFile is criu's name of a file on a mount that the container does not have; "" where it has it.
func outsideFile(proc string, fd int, table string) (string, error) {
	about, err := os.ReadFile(fmt.Sprintf("%s/fdinfo/%d", proc, fd))
	if err != nil {
		return "", err
	}
	_, rest, _ := strings.Cut(string(about), "mnt_id:")
	rest, _, _ = strings.Cut(rest, "\n")
	mount, err := strconv.Atoi(strings.TrimSpace(rest))
	if err != nil {
		return "", fmt.Errorf("the mount of descriptor %d: %w", fd, err)
	}
	for line := range strings.Lines(table) {
		if strings.HasPrefix(line, strconv.Itoa(mount)+" ") {
			return "", nil
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("%s/fd/%d", proc, fd), &st); err != nil {
		return "", err
	}
	return fmt.Sprintf("file[%x:%x]", mount, st.Ino), nil
}

// dumpedMount and restoredMount name, to criu, what is mounted from outside: by its place in the container.
func dumpedMount(at, _ string) string           { return fmt.Sprintf("mnt[%s]:%s", at, at) }
func restoredMount(at, onTheHost string) string { return fmt.Sprintf("mnt[%s]:%s", at, onTheHost) }

// external lists what of the container lies outside: binds, control groups, a joined network namespace, streams.
func external(c *record, streams []string, mount func(at, onTheHost string) string) (list []string, err error) {
	g, err := c.openGroup()
	if err != nil {
		return nil, err
	}
	for _, m := range c.spec.Mounts {
		at := filepath.Clean("/" + m.Destination)
		bind := m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
		switch {
		case strings.ContainsAny(at, "[]:"):
			return nil, fmt.Errorf("mount %s: criu takes no such name", at)
		case bind:
			source := m.Source
			if !filepath.IsAbs(source) {
				source = filepath.Join(c.Bundle, source)
			}
			list = append(list, mount(at, source))
		case m.Type == "cgroup" || m.Type == "cgroup2":
			dirs := g.Dirs()
			for controller, dir := range dirs {
				switch {
				case len(dirs) == 1:
					list = append(list, mount(at, dir))
				case controller == "":
					list = append(list, mount(filepath.Join(at, "unified"), dir))
				default:
					list = append(list, mount(filepath.Join(at, controller), dir))
				}
			}
		}
	}
	for _, s := range streams {
		if strings.HasPrefix(s, "file[") && !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	return list, nil
}
