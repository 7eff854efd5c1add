package container

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/mount"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/image"
	networks "wherry.dev/wherry/internal/network"
	"wherry.dev/wherry/internal/sandbox"
	"wherry.dev/wherry/internal/spec"
	"wherry.dev/wherry/internal/task"
	"wherry.dev/wherry/internal/why"
)

// permit asks anew whether the image may run, and those that it mounts: the policy may have changed since the container was made.
func (n *starting) permit(ctx context.Context) error {
	if err := image.Permit(ctx, n.s.o.Images, &n.r.Image); err != nil {
		return err
	}
	for _, m := range n.r.Mounts {
		if m.Image == nil {
			continue
		}
		img := image.Image{ID: m.Image.ID, Ref: m.Image.Ref, Manifest: ocispec.Descriptor{Digest: m.Image.Manifest, MediaType: m.Image.Type}}
		if err := image.Permit(ctx, n.s.o.Images, &img); err != nil {
			return err
		}
	}
	return nil
}

// layers sees to it that the image is still there, and that --restart-fresh gets its clean layer. They may be at another place than before
// the last boot.
func (n *starting) layers(context.Context) error {
	lower, err := n.s.o.Images.Mounted(n.r.Image.Lower)
	if err != nil {
		return fail(errdefs.ErrFailedPrecondition, "a layer of image %s is not there any more (%v): create the container anew", n.r.Config.Image, err)
	}
	found := *n.r
	found.Image.Lower = lower
	n.r = &found
	if n.again && n.r.fresh() && n.o.from == nil {
		return freshLayer(&n.s.o, n.r)
	}
	if n.volatile() {
		// Overlay refuses a layer that was mounted without syncs, since a power cut may have spoiled it. There was none: see spent.
		return os.RemoveAll(volatileMark(n.c.dir))
	}
	return nil
}

// volatileMark is where overlay notes that a layer was mounted without syncs.
func volatileMark(dir string) string {
	_, work := layerDirs(dir)
	return filepath.Join(work, "work", "incompat")
}

// spent says that a disposable container has been started, though its record does not say so: the power was cut, or the engine killed,
// before that was on the disk.
func (l life) spent(r *Record) bool {
	_, err := os.Stat(volatileMark(l.c.dir))
	return err == nil && r.HostConfig.AutoRemove && r.Status == Created
}

// volatile says that the writable layer is disposable.
func (n *starting) volatile() bool { return n.r.HostConfig.AutoRemove }

func (n *starting) findUser(context.Context) (err error) {
	layers := n.r.layers(n.c.dir)
	a := accounts{open: func(name string) (*os.File, error) { return openInLayers(layers, name) }}
	if n.who, err = a.find(n.r.Config.User, n.r.HostConfig.GroupAdd); err != nil {
		n.cause = why.NoUser
		return err
	}
	return n.who.fits(n.r.IDMap.Size)
}

func (n *starting) findDevices(context.Context) (err error) {
	if n.input.Devices, n.input.DeviceRules, err = devicesOf(n.r.HostConfig); err != nil {
		return err
	}
	if n.input.Edits, err = deviceEdits(n.r.HostConfig, n.s.o.Settings.CDISpecDirs, n.who.user); err != nil {
		return err
	}
	n.input.BlockIO, err = blockIO(&n.r.HostConfig.Resources)
	return err
}

// hold keeps a file open until the task is made, and is the path by which the runtime finds it. A path of its own could be another's by
// then: the pid of a namespace, a link in a folder that a container writes to.
func (n *starting) hold(f *os.File) string {
	n.held = append(n.held, f)
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd())
}

// findMounts makes missing folders of -v again, and opens what lies below volumes.
func (n *starting) findMounts(ctx context.Context) error {
	n.input.Mounts = slices.Clone(n.r.Mounts)
	for i := range n.input.Mounts {
		m := &n.input.Mounts[i]
		if m.CreateSource {
			if err := bindSource(m); err != nil {
				return err
			}
		}
		if err := reaches(m); err != nil {
			return err
		}
		if m.Type == mount.TypeImage {
			if err := n.showImage(m); err != nil {
				return err
			}
		}
		if m.Type != mount.TypeVolume {
			continue
		}
		// What the volume's options mount is there no more after a reboot, and a program must not find an empty folder in its place.
		if _, _, err := n.s.o.Volumes.Acquire(ctx, m.Name, n.r.ID); err != nil {
			return err
		}
		n.onUndo(func(ctx context.Context) { n.s.o.Volumes.Idle(ctx, m.Name, n.r.ID) })
		if m.Subpath == "" {
			continue
		}
		f, err := openBelow(m.Source, m.Subpath)
		if err != nil {
			return invalid("cannot access path %s of volume %s: %v: make it first, for example with a container that mounts the whole volume", m.Subpath, m.Name, err)
		}
		m.Source = n.hold(f)
	}
	return nil
}

func openBelow(dir, name string) (*os.File, error) {
	d, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return openBeneath(d, name)
}

// join opens the namespaces of other containers.
func (n *starting) join(context.Context) error {
	h := n.r.HostConfig
	n.input.Joined = map[specs.LinuxNamespaceType]string{}
	for _, row := range []struct {
		is   bool
		name string
		kind specs.LinuxNamespaceType
		file string
	}{
		{h.NetworkMode.IsContainer(), h.NetworkMode.ConnectedContainer(), specs.NetworkNamespace, "net"},
		{h.PidMode.IsContainer(), h.PidMode.Container(), specs.PIDNamespace, "pid"},
		{h.IpcMode.IsContainer(), h.IpcMode.Container(), specs.IPCNamespace, "ipc"},
	} {
		if !row.is {
			continue
		}
		c, err := n.s.index.find(row.name)
		if err != nil {
			return fail(errdefs.ErrConflict, "cannot join the %s namespace of container %s: it does not exist any more", row.kind, row.name)
		}
		t, r, err := c.running()
		if err != nil {
			return notJoinable(row.kind, r)
		}
		if err := n.joinOne(t, row.kind, row.file); err != nil {
			return err
		}
		if n.r.IDMap.Size > 0 {
			if err := n.joinOne(t, specs.UserNamespace, "user"); err != nil {
				return err
			}
		}
		if row.kind == specs.IPCNamespace {
			if !r.HostConfig.IpcMode.IsShareable() {
				return fail(errdefs.ErrConflict, "can't join IPC of container %s: non-shareable IPC (hint: use IpcMode:shareable for the donor container)", r.Name)
			}
			n.input.Shm = n.s.o.sharedMemory(r.ID)
		}
	}
	return nil
}

func (n *starting) joinOne(t *task.Task, kind specs.LinuxNamespaceType, name string) error {
	f, err := t.Namespace(name)
	if err != nil {
		return fmt.Errorf("open the %s namespace to join: %w", kind, err)
	}
	n.input.Joined[kind] = n.hold(f)
	return nil
}

// bridged says that package network furnishes the container's network namespace: with interfaces or, on none, with loopback only.
func (r *Record) bridged() bool {
	m := r.HostConfig.NetworkMode
	return !m.IsContainer() && !m.IsHost()
}

// allocateRequest is what a container asks of its networks.
func (r *Record) allocateRequest() networks.AllocateRequest {
	h := r.HostConfig
	q := networks.AllocateRequest{ContainerID: r.ID, Name: r.Name, Hostname: r.Config.Hostname, Networks: r.Networks, First: string(h.NetworkMode), Ports: h.PortBindings,
		PublishAll: h.PublishAllPorts, Exposed: r.Config.ExposedPorts, DNSSearch: h.DNSSearch, DNSOptions: h.DNSOptions,
		ExtraHosts: h.ExtraHosts, Domainname: r.Config.Domainname, Sysctls: h.Sysctls, Scope: r.scope(), Privileged: h.Privileged}
	for _, a := range h.DNS {
		q.DNS = append(q.DNS, a.String())
	}
	q.Understudy = r.Replaces != nil && r.Replaces.Live && !r.Replaces.Switched
	if first := r.Networks[string(h.NetworkMode)]; first != nil && len(h.Links) > 0 {
		linked := first.Copy()
		linked.Links = append(linked.Links, r.askedLinks()...)
		q.Networks = withNetwork(r.Networks, string(h.NetworkMode), linked)
	}
	return q
}

func (n *starting) allocate(ctx context.Context) error {
	if !n.r.bridged() {
		return nil
	}
	if err := n.s.index.linkable(n.r); err != nil {
		return err
	}
	q := n.r.allocateRequest()
	if n.o.from != nil {
		q.Had = n.o.from.Networks
	}
	a, err := n.s.o.Networks.Allocate(ctx, q)
	if err != nil {
		return err
	}
	n.onUndo(func(ctx context.Context) { n.s.log(n.s.o.Networks.Release(ctx, n.r.ID)) })
	if n.o.from != nil {
		n.o.from.compare(n.r, a)
	}
	n.content = sandbox.Content{Hosts: a.Hosts, ResolvConf: a.ResolvConf, Hostname: n.r.Config.Hostname}
	return nil
}

func (n *starting) writeFiles(context.Context) error {
	h := n.r.HostConfig
	files := sandbox.FilesIn(n.s.o.etcDir(n.r.ID))
	if err := os.MkdirAll(n.s.o.etcDir(n.r.ID), 0o700); err != nil {
		return n.s.o.noRoom(err)
	}
	switch {
	case h.NetworkMode.IsContainer():
		owner, err := n.s.index.networkOwner(n.c)
		if err != nil {
			return err
		}
		files = sandbox.FilesIn(n.s.o.etcDir(owner.id))
	case n.r.bridged():
		if err := n.writeOwn(files, n.content); err != nil {
			return err
		}
	default:
		own := networks.WithResolvers(n.s.o.Networks, sandbox.HostNetwork{Hostname: n.r.Config.Hostname, ExtraHosts: h.ExtraHosts, DNS: h.DNS,
			DNSSearch: h.DNSSearch, DNSOptions: h.DNSOptions})
		if err := n.writeOwn(files, own.Content()); err != nil {
			return err
		}
	}
	n.input.Hosts, n.input.HostnameFile, n.input.ResolvConf = files.Hosts, files.Hostname, files.ResolvConf
	return nil
}

// writeOwn writes the container's files; where a mount cannot map their ids, they belong to the container's root on the disk.
func (n *starting) writeOwn(files sandbox.Files, content sandbox.Content) error {
	err := writeEtc(n.s, files, content)
	if err != nil || n.s.host.mapped || n.r.IDMap.Size == 0 {
		return err
	}
	for _, path := range []string{files.Hosts, files.Hostname, files.ResolvConf} {
		if err := os.Lchown(path, n.r.IDMap.Host(0), n.r.IDMap.Host(0)); err != nil {
			return fmt.Errorf("give a file of /etc to the container: %w", err)
		}
	}
	return nil
}

func (n *starting) shareMemory(context.Context) error {
	if !n.r.HostConfig.IpcMode.IsShareable() {
		return nil
	}
	n.input.Shm = n.s.o.sharedMemory(n.r.ID)
	n.onUndo(func(context.Context) { n.s.log(removeSharedMemory(n.input.Shm)) })
	return makeSharedMemory(n.input.Shm, n.r)
}

func (n *starting) build(context.Context) (err error) {
	in := &n.input
	in.ID, in.Config, in.HostConfig = n.r.ID, n.r.Config, n.r.HostConfig
	in.User, in.Hostname = n.who.user, n.r.Config.Hostname
	in.Base, in.Size = n.r.IDMap.Base, n.r.IDMap.Size
	in.Oar, in.CgroupPath, in.MaxRlimits = n.s.o.Oar, n.s.o.cgroupPath(n.r), n.s.host.rlimit
	in.Env = []string{defaultPath, "HOSTNAME=" + n.r.Config.Hostname}
	if n.r.Config.Tty {
		in.Env = append(in.Env, "TERM=xterm")
	}
	if !slices.ContainsFunc(n.r.Config.Env, func(kv string) bool { return strings.HasPrefix(kv, "HOME=") }) {
		in.Env = append(in.Env, "HOME="+n.who.home)
	}
	in.Env = append(in.Env, linkEnv(n.s, n.r)...)
	n.spec, err = spec.Build(*in)
	return err
}
