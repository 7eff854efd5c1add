package buildclient

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"wherry.dev/wherry/internal/explain"
)

// history of a build: what went into it, and into the one before.
type history struct {
	store   explain.Store
	key     string
	before  chan *explain.Record // read beside the build; one comes, nil for none
	watches map[string]*explain.Watch
	build   explain.Build
}

// remember begins to note what the build depends on; nil where its Dockerfile is not on this side.
func (j *job) remember() *history {
	if j.sources.dockerfile == nil {
		return nil
	}
	h := &history{
		store: explain.DefaultStore(), before: make(chan *explain.Record, 1), watches: map[string]*explain.Watch{},
		key:   explain.Key(j.sources.dir, j.o.Context, j.sources.dockerfile.path, j.o.Target, strings.Join(j.o.Platforms, ",")),
		build: explain.Build{Dockerfile: j.sources.dockerfile.data, Args: map[string]string{}, Options: map[string]string{}},
	}
	go func() { h.before <- h.store.Load(h.key) }()
	if j.sources.ignore != nil {
		h.build.Rules = string(j.sources.ignore.data)
	}
	for mount, fs := range j.sources.mounts {
		if mount == mountDockerfile {
			continue
		}
		name := j.sources.names[mount] // "" is the main context
		w := explain.NewWatch(fs)
		h.watches[name], j.sources.mounts[mount] = w, w
		h.build.Contexts = append(h.build.Contexts, name)
	}
	for k, v := range j.opt.FrontendAttrs {
		if name, ok := strings.CutPrefix(k, "build-arg:"); ok {
			h.build.Args[name] = v
		} else if slices.Contains(stepOptions, k) {
			h.build.Options[k] = v
		}
	}
	return h
}

// stepOptions are attributes of the frontend that RUN steps depend on.
var stepOptions = []string{"add-hosts", "force-network-mode", "ulimit", "shm-size", "cgroup-parent", "memory", "memswap", "cpushares", "cpuperiod",
	"cpuquota", "cpusetcpus", "cpusetmems", "hostname"}

// recall compares the build with the one before and, where it succeeded, keeps what went into it for the next one. What cannot be kept or
// compared is no reason for a build to fail: it is said where somebody asked.
func (j *job) recall(ctx context.Context, h *history, succeeded bool) error {
	if h == nil {
		return errors.New("only builds whose Dockerfile is on this side can be explained, not those of a tar file or an address")
	}
	var before *explain.Record
	select {
	case before = <-h.before:
	case <-ctx.Done():
		return nil
	}
	salt := explain.NewSalt(before)
	now := &explain.Record{Salt: salt, Rules: h.build.Rules, Files: map[string][]explain.File{}}
	var err error
	if now.Steps, err = h.build.Steps(explain.Seal(salt)); err != nil {
		return err
	}
	for name, w := range h.watches {
		var files []explain.File
		if before != nil {
			files = before.Files[name]
		}
		now.Files[name] = w.Files(files)
	}
	seen := j.watch.seen()
	now.SetImages(seen)
	if j.o.Explain {
		c := explain.Compare(before, now)
		if j.o.NoCache {
			c.NoCache = []string{}
		} else {
			c.NoCache = j.o.NoCacheStages
		}
		if err := c.Report(j.c.Out, seen); err != nil {
			return err
		}
	}
	if !succeeded {
		return nil
	}
	return h.store.Save(h.key, now, before)
}

// explained recalls, and says what hindered it where an explanation was asked for.
func (j *job) explained(ctx context.Context, h *history, succeeded bool) {
	if err := j.recall(ctx, h, succeeded); err != nil && j.o.Explain {
		fmt.Fprintf(j.c.Err, "wherry: --explain: %v\n", err)
	}
}
