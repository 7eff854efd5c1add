package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/access"
	"wherry.dev/wherry/internal/image"
	networks "wherry.dev/wherry/internal/network"
	"wherry.dev/wherry/internal/rootfs"
	"wherry.dev/wherry/internal/spec"
)

// CreateRequest of Create.
type CreateRequest struct {
	Name             string // "": an invented one
	Config           *container.Config
	HostConfig       *container.HostConfig
	NetworkingConfig *network.NetworkingConfig
	Platform         *ocispec.Platform
	Secrets          []SecretUse
	ReadOnlyFlat     bool // "ro" of a bind is not for what is mounted below it, where the request does not say so

	replaces *Replacement
	inherit  []spec.Mount // of the container that it replaces
	apart    bool         // that one has been taken off all networks
}

// creating collects what the steps of one Create make.
type creating struct {
	s        *Service
	r        *Record
	q        CreateRequest
	img      *image.Image
	dir      string
	warnings []string
	undo     []func()
}

// Create makes a container that is ready to start. errdefs.ErrNotFound "No such image: …" (the client pulls then), ErrConflict for a taken
// name, ErrInvalidArgument.
func (s *Service) Create(ctx context.Context, q CreateRequest) (container.CreateResponse, error) {
	scope := access.ScopeOf(ctx)
	n := &creating{s: s, q: q, r: &Record{ID: newID(), Created: time.Now().UTC(), Status: Created, Owner: scope.Owner, Limited: scope.Limited, Replaces: q.replaces}}
	for _, step := range []func(*creating, context.Context) error{
		(*creating).resolve, (*creating).configure, (*creating).name, (*creating).links, (*creating).makeDir, (*creating).takeRange, (*creating).acquire,
		(*creating).layer, (*creating).mounts, (*creating).secrets, (*creating).store,
	} {
		if err := step(n, ctx); err != nil {
			for i := len(n.undo) - 1; i >= 0; i-- {
				n.undo[i]()
			}
			return container.CreateResponse{}, plain(err)
		}
	}
	s.publish(n.r, events.ActionCreate)
	if n.warnings == nil {
		n.warnings = []string{}
	}
	return container.CreateResponse{ID: n.r.ID, Warnings: n.warnings}, nil
}

func (n *creating) onUndo(fn func()) { n.undo = append(n.undo, fn) }

func (n *creating) resolve(ctx context.Context) (err error) {
	if n.q.Config == nil {
		return invalid("config cannot be empty in order to create a container")
	}
	if n.q.Config.Image == "" {
		return invalid("no image specified: say which image the container is made of")
	}
	n.img, err = n.s.o.Images.Resolve(ctx, n.q.Config.Image, n.q.Platform)
	if err != nil {
		return err
	}
	if len(n.img.Lower) == 0 {
		return invalid("image %s has no layers: there is nothing to run", n.q.Config.Image)
	}
	n.r.Image = *n.img
	return image.Permit(ctx, n.s.o.Images, n.img)
}

// configure merges the request with the image and the defaults, and checks all of it.
func (n *creating) configure(context.Context) error {
	n.r.Config = merge(n.q.Config, &n.img.Config)
	h := container.HostConfig{}
	if n.q.HostConfig != nil {
		h = *n.q.HostConfig
	}
	h.LogConfig.Config = maps.Clone(h.LogConfig.Config)
	if want := n.q.Config.Labels[restartKey]; want != "" { // an image's label is not asked: it would throw away what others have written
		h.Annotations = union(h.Annotations, map[string]string{restartKey: want})
	}
	fillIn(&h, &n.s.o.Settings)
	n.r.HostConfig = withDefaults(&h)
	n.s.index.joinByID(n.r.HostConfig)
	v := validation{config: n.r.Config, exposed: n.q.Config.ExposedPorts, host: n.r.HostConfig, cpus: n.s.host.cpus, nodes: n.s.host.nodes, v2: n.s.host.v2}
	if err := v.check(); err != nil {
		return err
	}
	n.warnings = v.warnings
	var err error
	if n.r.Log, err = logOptions(h.LogConfig, filepath.Join(n.s.o.containersDir(), n.r.ID, "logs")); err != nil {
		return err
	}
	if n.r.Networks, err = requestedNetworks(n.r.HostConfig.NetworkMode, n.q.NetworkingConfig); err != nil {
		return err
	}
	if err := namedPlainly(n.s.o.Networks, n.r); err != nil {
		return err
	}
	if n.q.apart {
		n.r.Networks = nil
	}
	return n.hostname()
}

func (n *creating) hostname() error {
	c, h := n.r.Config, n.r.HostConfig
	switch {
	case h.NetworkMode.IsContainer() && c.Hostname != "":
		return invalid("conflicting options: hostname and the network mode %s", h.NetworkMode)
	case h.UTSMode.IsHost() && c.Hostname != "":
		return invalid("conflicting options: hostname and the UTS mode")
	case c.Hostname != "":
	case h.NetworkMode.IsHost() || h.UTSMode.IsHost():
		c.Hostname, _ = os.Hostname()
	case h.NetworkMode.IsContainer(): // they share /etc/hosts, where this name stands
		other, err := n.s.index.named(h.NetworkMode.ConnectedContainer())
		if err != nil {
			return err
		}
		c.Hostname, c.Domainname = other.record().Config.Hostname, other.record().Config.Domainname
	default:
		c.Hostname = n.r.short()
	}
	return nil
}

func (n *creating) name(context.Context) error {
	x := n.s.index
	n.onUndo(func() { x.release(n.r.Name, n.r.ID) })
	if n.q.Name != "" {
		n.r.Name = n.q.Name
		if n.r.Name[0] == '/' {
			n.r.Name = n.r.Name[1:]
		}
		if !validName(n.r.Name) {
			return invalid("Invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", n.q.Name)
		}
		return x.reserve(n.r.Name, n.r.ID)
	}
	for try := range 100 {
		n.r.Name = newName(try)
		if x.reserve(n.r.Name, n.r.ID) == nil {
			return nil
		}
	}
	n.r.Name = n.r.short()
	return x.reserve(n.r.Name, n.r.ID)
}

// makeDir makes the container's folder. Until the record is in it, the engine's next start would take it away again.
func (n *creating) makeDir(ctx context.Context) error {
	n.dir, _ = n.s.o.dirsOf(n.r.ID)
	n.onUndo(func() { _ = rootfs.RemoveTree(n.dir) })
	if !n.s.blank.take(ctx, n.dir) {
		if err := makeFolder(n.dir); err != nil {
			return fmt.Errorf("make the folder of container %s: %w", n.r.Name, err)
		}
	}
	if n.r.HostConfig.AutoRemove {
		return os.Chmod(n.dir, 0o700|disposable)
	}
	return nil
}

// takeRange gives the container its ids: its own, the host's, or those of the container whose namespaces it joins.
func (n *creating) takeRange(context.Context) error {
	h := n.r.HostConfig
	joined, err := n.s.index.joined(h)
	if err != nil {
		return err
	}
	if len(joined) > 0 {
		first := joined[0].record().IDMap
		for _, c := range joined[1:] {
			if c.record().IDMap != first {
				return invalid("containers %s and %s have different user namespaces: their other namespaces cannot be joined together", joined[0].record().Name, c.record().Name)
			}
		}
		n.r.IDMap = first
		return nil
	}
	if h.Privileged || h.UsernsMode.IsHost() {
		return nil
	}
	if n.r.IDMap, err = n.s.ranges.Take(); err != nil {
		return err
	}
	n.r.OwnRange = true
	n.onUndo(func() { n.s.ranges.Give(n.r.IDMap) })
	return nil
}

// joinedContainers are those whose namespaces a configuration joins.
func (x *index) joined(h *container.HostConfig) ([]*Container, error) {
	var out []*Container
	for _, name := range joinedNames(h) {
		c, err := x.named(name)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

// joinByID has a configuration name the containers whose namespaces it joins by their ids: they may be renamed. Who is not there is noticed
// later.
func (x *index) joinByID(h *container.HostConfig) {
	id := func(name string) (joined string, ok bool) {
		c, err := x.find(name)
		if err != nil {
			return "", false
		}
		return "container:" + c.id, true
	}
	if joined, ok := id(h.NetworkMode.ConnectedContainer()); ok {
		h.NetworkMode = container.NetworkMode(joined)
	}
	if joined, ok := id(h.PidMode.Container()); ok {
		h.PidMode = container.PidMode(joined)
	}
	if joined, ok := id(h.IpcMode.Container()); ok {
		h.IpcMode = container.IpcMode(joined)
	}
}

func joinedNames(h *container.HostConfig) []string {
	var names []string
	if h.NetworkMode.IsContainer() {
		names = append(names, h.NetworkMode.ConnectedContainer())
	}
	if h.PidMode.IsContainer() {
		names = append(names, h.PidMode.Container())
	}
	if h.IpcMode.IsContainer() {
		names = append(names, h.IpcMode.Container())
	}
	return names
}

func (n *creating) acquire(ctx context.Context) error {
	n.onUndo(func() { n.s.o.Images.Release(context.WithoutCancel(ctx), n.r.ID) })
	if err := n.s.o.Images.Acquire(ctx, n.img.ID, n.img.Manifest.Digest, n.r.ID); err != nil {
		return err
	}
	// Only now nobody can take the layers away: before, the image may have been removed and pulled again, into other folders.
	img, err := n.s.o.Images.Resolve(ctx, n.img.ID.String(), n.q.Platform)
	if err != nil {
		return err
	}
	n.r.Image.Lower = img.Lower
	return nil
}

// layer gives the writable layer to the container, and makes the working directory in it where the image has none.
func (n *creating) layer(context.Context) error {
	if err := ownLayer(n.dir, n.r); err != nil {
		return fmt.Errorf("own the writable layer of container %s: %w", n.r.Name, err)
	}
	return makeWorkingDir(&n.s.o, n.r)
}

// freshLayer puts a clean writable layer in the place of the used one.
func freshLayer(o *Options, r *Record) error {
	dir, _ := o.dirsOf(r.ID)
	rootfsDir := filepath.Join(dir, "rootfs")
	old := rootfsDir + ".old"
	if err := rootfs.RemoveTree(old); err != nil {
		return err
	}
	if err := os.Rename(rootfsDir, old); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := makeLayer(dir); err != nil {
		return err
	}
	if err := ownLayer(dir, r); err != nil {
		return err
	}
	if err := makeWorkingDir(o, r); err != nil {
		return err
	}
	return rootfs.RemoveTree(old)
}

// rootfs is the container's root file system.
func (o *Options) rootfs(r *Record) rootfs.Rootfs {
	dir, _ := o.dirsOf(r.ID)
	upper, work := layerDirs(dir)
	return rootfs.Rootfs{Lower: r.Image.Lower, Base: o.baseDir(), Upper: upper, Work: work, IDMap: r.IDMap}
}

// baseDir is the layer below those of images.
func (o *Options) baseDir() string { return filepath.Join(o.Root, "base") }

// makeBase makes that layer: the places of what every container has mounted, which small images lack and which would be made in each writable
// layer otherwise; the marker by which programs see that they are in a container; /etc/mtab (mtab(5)), where programs look for what is mounted.
func (o *Options) makeBase() error {
	base := o.baseDir()
	var errs []error
	made := func(at string, mode os.FileMode, err error) { // whatever the umask is; what is there belongs to containers that run
		if err == nil && mode != 0 {
			err = os.Chmod(at, mode)
		}
		if !errors.Is(err, os.ErrExist) {
			errs = append(errs, err)
		}
	}
	for _, dir := range []string{"", "dev", "etc", "proc", "sys"} {
		at := filepath.Join(base, dir)
		made(at, 0o755, os.Mkdir(at, 0o755))
	}
	for _, name := range []string{"etc/hosts", "etc/hostname", "etc/resolv.conf"} {
		at := filepath.Join(base, name)
		made(at, 0o644, unix.Mknod(at, unix.S_IFREG, 0))
	}
	marker := filepath.Join(base, spec.MarkerPath)
	made(marker, 0o755, unix.Mknod(marker, unix.S_IFREG, 0))
	made("", 0, os.Symlink("/proc/mounts", filepath.Join(base, "etc", "mtab")))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("make the layer below those of images: %w", err)
	}
	return nil
}

// store writes the record: from here on the container is there, also after a power cut.
func (n *creating) store(ctx context.Context) error {
	if err := n.afford(ctx); err != nil {
		return err
	}
	if err := n.r.write(n.dir, !n.r.HostConfig.AutoRemove); err != nil {
		return err
	}
	if !n.r.HostConfig.AutoRemove {
		if err := syncDir(filepath.Dir(n.dir)); err != nil {
			return err
		}
	}
	_, taskDir := n.s.o.dirsOf(n.r.ID)
	c := newContainer(n.r, n.dir, taskDir)
	c.past.read = true // there is nothing yet
	n.s.index.add(c)
	return nil
}

// afford holds what the client's containers take in memory against its share, by the files of their records.
func (n *creating) afford(ctx context.Context) error {
	scope := access.ScopeOf(ctx)
	if !scope.Limited {
		return nil
	}
	own, err := json.Marshal(n.r)
	if err != nil {
		return err
	}
	have := 0
	for _, c := range n.s.index.all() {
		if c.record().Owner != scope.Owner {
			continue
		}
		if st, err := os.Stat(filepath.Join(c.dir, recordFile)); err == nil {
			have += int(st.Size())
		}
	}
	return scope.Afford("containers", have, len(own))
}

// namedPlainly refuses networks that are the host's, or none at all, beside others or by their ids: a container would begin with neither. By
// its name either of them is a mode.
func namedPlainly(s *networks.Service, r *Record) error {
	for name := range r.Networks {
		if mode := container.NetworkMode(name); mode == r.HostConfig.NetworkMode && (mode.IsHost() || mode.IsNone()) || name == network.NetworkBridge {
			continue
		}
		found, err := networks.NameOf(s, name)
		if mode := container.NetworkMode(found.Name); err == nil && (mode.IsHost() || mode.IsNone()) {
			return invalid("network %s cannot be joined beside others, nor by its id: say --network %s and no other", found.Name, found.Name)
		}
	}
	return nil
}

// requestedNetworks says by network what the container wants there. The network mode names the only one, where nothing else is asked for, or
// else which of them is the first.
func requestedNetworks(mode container.NetworkMode, cfg *network.NetworkingConfig) (map[string]*network.EndpointSettings, error) {
	out := map[string]*network.EndpointSettings{}
	if cfg != nil {
		for name, e := range cfg.EndpointsConfig {
			if name == "default" {
				name = network.NetworkBridge
			}
			if e == nil {
				e = &network.EndpointSettings{}
			}
			if err := scoped(name, e); err != nil {
				return nil, err
			}
			out[name] = e.Copy()
		}
	}
	if mode.IsContainer() || mode.IsNone() || mode.IsHost() {
		for name, e := range out {
			if name != string(mode) && !(mode.IsContainer() && container.NetworkMode(name).IsContainer()) { // by its name there, by its id here
				return nil, fail(errdefs.ErrInvalidArgument, "conflicting options: cannot attach both user-defined and non-user-defined network-modes (%s and %s)", mode, name)
			}
			if what := fixed(e, mode); what != "" {
				return nil, fail(errdefs.ErrInvalidArgument, "conflicting options: %s and the network mode %s: leave one of them out", what, mode)
			}
		}
	}
	if mode.IsContainer() {
		return nil, nil
	}
	if len(out) == 0 {
		out[string(mode)] = &network.EndpointSettings{}
	}
	return out, nil
}

// fixed names what an endpoint asks for that it can have on networks of the engine's only.
func fixed(e *network.EndpointSettings, mode container.NetworkMode) string {
	switch i := e.IPAMConfig; {
	case i != nil && (i.IPv4Address.IsValid() || i.IPv6Address.IsValid() || len(i.LinkLocalIPs) > 0):
		return "an IP address"
	case len(e.MacAddress) > 0 && mode.IsContainer(): // of others Docker takes it, and does nothing with it
		return "mac-address"
	}
	return ""
}

// mainNetwork is the key of the network that the mode names, by its name or by its id.
func (r *Record) mainNetwork() string {
	mode := string(r.HostConfig.NetworkMode)
	if r.Networks[mode] == nil && len(r.Networks) == 1 {
		for name := range r.Networks {
			return name
		}
	}
	return mode
}
