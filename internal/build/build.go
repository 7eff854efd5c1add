// Package build makes images of Dockerfiles, with BuildKit as a library.
//
// BuildKit's solver, its Dockerfile frontend and its cache run in the engine's process, on the engine's own parts: images are found and
// pulled by package image, layers and the build cache lie in the same store, and a RUN step is a sandboxed container like any other,
// without being one of the list. Nothing else in the tree knows BuildKit.
//
// The Builder starts at the first request that needs it: until then it costs a directory's name.
//
//	<root>/build/           BuildKit's databases: records of the cache, results, history
//	<state>/build/<id>/     a RUN step: its task, its output while it runs
//
// A Builder is safe for many goroutines.
package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/containerd/errdefs"

	"wherry.dev/wherry/internal/cdi"
	"wherry.dev/wherry/internal/container"
	"wherry.dev/wherry/internal/event"
	"wherry.dev/wherry/internal/image"
	"wherry.dev/wherry/internal/network"
	"wherry.dev/wherry/internal/settings"
)

// Options of New.
type Options struct {
	Root, State string // the engine's
	Images      *image.Service
	Containers  *container.Service
	Networks    *network.Service
	Events      *event.Bus
	Settings    settings.Builds
	CDI         cdi.Dirs             // where devices are described that steps may ask for
	Insecure    []string             // registries, as package registry has them
	Log         func(error)          // what went wrong behind the calls; nil: nobody is told
	Busy        func() (idle func()) // is called when a build begins, and what it returns when it is over; nil: nobody is told
}

// Builder builds images.
type Builder struct {
	o        Options
	contexts contexts
	cancels  cancels
	uppers   uppers

	mu     sync.Mutex // guards what follows
	engine *engine
	closed bool
}

// New makes a builder that has not started. What an earlier life's steps have left is ended.
func New(ctx context.Context, o Options) (*Builder, error) {
	if o.Log == nil {
		o.Log = func(error) {}
	}
	if o.Busy == nil {
		o.Busy = func() func() { return func() {} }
	}
	b := &Builder{o: o}
	if err := endSteps(ctx, b.steps(), o); err != nil {
		return nil, fmt.Errorf("end the steps of builds that were cut off: %w", err)
	}
	if err := settleLeft(b.root(), o.Log); err != nil {
		o.Log(fmt.Errorf("settle the databases of builds that were cut off: %w", err))
	}
	return b, nil
}

func (b *Builder) root() string { return filepath.Join(b.o.Root, "build") }

func (b *Builder) steps() string { return filepath.Join(b.o.State, "build") }

// start starts the engine, once.
func (b *Builder) start(ctx context.Context) (*engine, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, fmt.Errorf("the engine is closing: %w", errdefs.ErrUnavailable)
	}
	if b.engine != nil {
		return b.engine, nil
	}
	for _, dir := range []string{b.root(), b.steps()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	e, err := b.open(context.WithoutCancel(ctx))
	if err != nil {
		return nil, fmt.Errorf("start the builder: %w", err)
	}
	b.engine = e
	return e, nil
}

// used says whether anything was ever built here.
func (b *Builder) used() bool {
	_, err := os.Stat(filepath.Join(b.root(), metadataFile))
	return err == nil
}

// Close ends what is being built.
func (b *Builder) Close() error {
	b.mu.Lock()
	b.closed = true
	e := b.engine
	b.mu.Unlock()
	if e == nil {
		return nil
	}
	return e.close()
}

// closers run in reverse order.
type closers []func() error

func (c closers) close() error {
	var errs []error
	for i := len(c) - 1; i >= 0; i-- {
		errs = append(errs, c[i]())
	}
	return errors.Join(errs...)
}
