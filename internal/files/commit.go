package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/archive"
	containers "wherry.dev/wherry/internal/container"
	"wherry.dev/wherry/internal/image"
	"wherry.dev/wherry/internal/ref"
)

// CommitOptions of Commit.
type CommitOptions struct {
	Ref, Author, Comment string
	Changes              []string
	NoPause              bool
	Config               *container.Config // overrides, may be nil
}

// Commit makes an image of a container's changes. The container's processes stand still meanwhile, unless NoPause is set.
func (s *Service) Commit(ctx context.Context, id string, o CommitOptions) (_ digest.Digest, failed error) {
	v, done, err := s.view(ctx, id)
	if err != nil {
		return "", err
	}
	defer done()
	if v.Running && !v.Paused && !o.NoPause {
		release, err := s.hold(ctx, &v)
		if err != nil {
			return "", err
		}
		defer func() { failed = errors.Join(failed, release()) }()
	}
	u, err := openUpper(&v)
	if err != nil {
		return "", fmt.Errorf("commit container %s: %w", v.Name, err)
	}
	layer := archive.Stream(ctx, func(ctx context.Context, w io.Writer) error {
		return u.layer(ctx, archive.NewWriter(w, v.Rootfs.IDMap))
	}, u.Close)
	defer layer.Close()
	made, err := s.images.Commit(ctx, layer, image.CommitOptions{
		Parent: v.Image, Ref: o.Ref, Author: o.Author, Comment: o.Comment, Config: imageConfig(v.Config, o.Config), Changes: o.Changes, ContainerID: v.ID,
	})
	if err != nil {
		return "", err
	}
	name := o.Ref
	if r, err := ref.Parse(name); err == nil {
		name = r.Familiar()
	}
	v.Publish(s.events, events.ActionCommit, map[string]string{"comment": o.Comment, "imageID": made.String(), "imageRef": name})
	return made, nil
}

// hold has a container's processes stand still until release. One that ends by itself meanwhile stands still, be its end written down yet or
// not: then a pause is a conflict, as it is for one that somebody else has just paused.
func (s *Service) hold(ctx context.Context, v *containers.View) (release func() error, err error) {
	err = s.containers.Pause(ctx, v.ID, containers.PauseOptions{Held: true})
	if errdefs.IsConflict(err) {
		return func() error { return nil }, nil
	}
	if err != nil {
		return nil, fmt.Errorf("pause container %s while it is committed: %w", v.Name, err)
	}
	return func() error {
		err := s.containers.Unpause(context.WithoutCancel(ctx), v.ID)
		if err != nil && !errdefs.IsConflict(err) && !errdefs.IsNotFound(err) {
			return fmt.Errorf("container %s stays paused: %w: docker unpause lets it go on", v.Name, err)
		}
		return nil
	}, nil
}

// imageConfig is a container's configuration as an image has it, with what the request says laid over.
func imageConfig(c, over *container.Config) dockerspec.DockerOCIImageConfig {
	var out dockerspec.DockerOCIImageConfig
	if c != nil {
		out = converted(c)
		out.OnBuild = nil // they were for whoever builds on the parent
	}
	if over == nil {
		return out
	}
	o := converted(over)
	if len(o.Entrypoint) > 0 {
		out.Entrypoint = o.Entrypoint
		out.Cmd = o.Cmd
	} else if len(o.Cmd) > 0 {
		out.Cmd = o.Cmd
	}
	for _, f := range []struct{ to, from *string }{{&out.User, &o.User}, {&out.WorkingDir, &o.WorkingDir}, {&out.StopSignal, &o.StopSignal}} {
		if *f.from != "" {
			*f.to = *f.from
		}
	}
	out.Env = mergeEnv(out.Env, o.Env)
	out.ExposedPorts, out.Volumes, out.Labels = union(out.ExposedPorts, o.ExposedPorts), union(out.Volumes, o.Volumes), union(out.Labels, o.Labels)
	if o.Healthcheck != nil {
		out.Healthcheck = o.Healthcheck
	}
	if len(o.Shell) > 0 {
		out.Shell = o.Shell
	}
	out.OnBuild = o.OnBuild
	return out
}

func converted(c *container.Config) dockerspec.DockerOCIImageConfig {
	var out dockerspec.DockerOCIImageConfig
	out.User, out.WorkingDir, out.StopSignal = c.User, c.WorkingDir, c.StopSignal
	out.Env, out.Entrypoint, out.Cmd = slices.Clone(c.Env), slices.Clone(c.Entrypoint), slices.Clone(c.Cmd)
	out.Volumes, out.Labels = maps.Clone(c.Volumes), maps.Clone(c.Labels)
	for port := range c.ExposedPorts {
		if out.ExposedPorts == nil {
			out.ExposedPorts = map[string]struct{}{}
		}
		out.ExposedPorts[port.String()] = struct{}{}
	}
	out.Healthcheck, out.OnBuild, out.Shell = c.Healthcheck, slices.Clone(c.OnBuild), slices.Clone(c.Shell)
	return out
}

func mergeEnv(base, over []string) []string {
	out := slices.DeleteFunc(slices.Clone(base), func(kv string) bool {
		key, _, _ := strings.Cut(kv, "=")
		return slices.ContainsFunc(over, func(o string) bool { return strings.HasPrefix(o, key+"=") })
	})
	return append(out, over...)
}

func union[V any](a, b map[string]V) map[string]V {
	if len(b) == 0 {
		return a
	}
	out := maps.Clone(a)
	if out == nil {
		out = map[string]V{}
	}
	maps.Copy(out, b)
	return out
}

// Size of the writable layer and of the whole root file system in bytes (ps -s). Of a container that does not run it is measured once.
func (s *Service) Size(ctx context.Context, m containers.Measured) (rw, root int64, err error) {
	rw, err = m.Kept.Of("rw", func() (int64, error) {
		sizes, err := m.Trees.Layer.Measure(ctx, m.Rootfs.Upper)
		return sizes.Length, err
	})
	if err != nil {
		return 0, 0, fmt.Errorf("size of container %s: %w", m.Name, err)
	}
	below, err := s.layersSize(ctx, m.Rootfs.Lower)
	if err != nil {
		return 0, 0, fmt.Errorf("size of container %s: %w", m.Name, err)
	}
	return rw, rw + below, nil
}

// layersSize adds up each layer once: it does not change. They are named by where they are recorded, and may be mounted elsewhere.
func (s *Service) layersSize(ctx context.Context, lower []string) (sum int64, err error) {
	var places []string
	for i, dir := range lower {
		s.mu.Lock()
		n, ok := s.layers[dir]
		s.mu.Unlock()
		if !ok {
			if places == nil {
				if places, err = s.images.Mounted(lower); err != nil {
					return 0, err
				}
			}
			if n, err = sizeOf(ctx, places[i]); err != nil {
				return 0, err
			}
			s.mu.Lock()
			s.layers[dir] = n
			s.mu.Unlock()
		}
		sum += n
	}
	return sum, nil
}

func sizeOf(ctx context.Context, dir string) (int64, error) {
	f, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return archive.Size(ctx, f)
}
