package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/opencontainers/go-digest"
	"github.com/spf13/pflag"

	"wherry.dev/wherry/internal/client"
	"wherry.dev/wherry/internal/lockfile"
)

// lockFlags are --locked and --lock-file.
type lockFlags struct {
	locked bool
	file   string
}

func (f *lockFlags) add(fs *pflag.FlagSet) {
	fs.BoolVar(&f.locked, "locked", false, "Take just the image that the lock file names, or none (see wherry lock)")
	fs.StringVar(&f.file, "lock-file", "", "Lock file (default: the nearest wherry.lock, here or in a folder above)")
}

// checkLock refuses a lock file that would not be looked at.
func (f *lockFlags) checkLock() error {
	if f.file != "" && !f.locked {
		return errors.New("--lock-file is only read with --locked: add it")
	}
	return nil
}

// nearestLock is the lock file of this folder or one above, as people would write its name; "" for none.
func nearestLock() string {
	here, err := os.Getwd()
	if err != nil {
		return ""
	}
	path, err := lockfile.Find(here)
	if err != nil || path == "" {
		return ""
	}
	if rel, err := filepath.Rel(here, path); err == nil {
		return rel
	}
	return path
}

// openLock reads the lock file that is named, or the nearest one.
func openLock(path string) (*lockfile.File, error) {
	if path == "" {
		path = nearestLock()
	}
	if path == "" {
		return nil, fmt.Errorf("there is no %s in this folder or above: make one with wherry lock", lockfile.Name)
	}
	l, err := lockfile.Read(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("there is no lock file %s: make it with wherry lock --lock-file %[1]s", path)
	}
	return l, err
}

// pin is a reference with the one image that it may mean.
type pin struct {
	name   string // as it was written
	digest digest.Digest
	file   string // which says so; "" where the digest was written
}

// pinned is the reference with its digest.
func (p pin) pinned() string {
	if p.file == "" {
		return p.name
	}
	return pinnedName(p.name, p.digest)
}

// pin finds out what a reference may mean. One that is written with a digest is pinned already; a lock file must not say otherwise.
func (f *lockFlags) pin(name string) (pin, error) {
	n := splitName(name)
	l, err := openLock(f.file)
	if err != nil {
		return pin{}, err
	}
	img, ok := l.Images[taggedName(name)]
	switch {
	case n.digest != "" && n.tag != "" && ok && img.Digest.String() != n.digest:
		return pin{}, fmt.Errorf("%s: %s says that %s is %s: let one follow the other", name, l.Path, familiarName(taggedName(name)), img.Digest)
	case n.digest != "":
		return pin{name: name, digest: digest.Digest(n.digest)}, nil
	case !ok:
		return pin{}, fmt.Errorf("%s is not in %s: add it with wherry lock %[1]s", name, l.Path)
	}
	return pin{name: name, digest: img.Digest, file: l.Path}, nil
}

// pins replaces the images of a request by those of the lock file. Tags that mean others here are errors, unless they are pulled anyway.
func (f *lockFlags) pins(ctx context.Context, app *App, req *container.CreateRequest, pulled bool) (map[string]pin, error) {
	if !f.locked {
		return nil, nil
	}
	out := map[string]pin{}
	one := func(name string) (pin, error) {
		p, err := f.pin(name)
		if err == nil && !pulled && p.file != "" {
			err = p.standsHere(ctx, app)
		}
		return p, err
	}
	p, err := one(req.Image)
	if err != nil {
		return nil, err
	}
	req.Image = p.pinned()
	out[req.Image] = p
	for i := range req.HostConfig.Mounts {
		m := &req.HostConfig.Mounts[i]
		if m.Type != mount.TypeImage {
			continue
		}
		if p, err = one(m.Source); err != nil {
			return nil, err
		}
		m.Source = repository(p.name) + "@" + p.digest.String()
		out[m.Source] = p
	}
	return out, nil
}

// standsHere wants the tag to mean the image, or nothing yet.
func (p pin) standsHere(ctx context.Context, app *App) error {
	m, err := means(ctx, app, taggedName(p.name), place{})
	switch {
	case client.IsNotFound(err):
		return nil
	case err != nil:
		return err
	case m.Digest != p.digest:
		return fmt.Errorf("%s is %s here, and %s in %s: wherry pull --locked %[1]s brings the tag in line, wherry lock --update %[1]s the file",
			p.name, shortDigest(m.Digest), shortDigest(p.digest), p.file)
	}
	return nil
}

// pull fetches the image by its digest and lets the tag mean it.
func (p pin) pull(ctx context.Context, app *App, out io.Writer, o pullOptions) error {
	n := splitName(p.name)
	if n.tag == "" && n.digest != "" {
		return pullImage(ctx, app, out, p.name, o)
	}
	repo := repository(p.name)
	if err := pullImage(ctx, app, out, repo+"@"+p.digest.String(), o); err != nil {
		return err
	}
	if p.file == "" {
		return nil
	}
	c, err := app.Client()
	if err != nil {
		return err
	}
	was, err := means(ctx, app, taggedName(p.name), place{})
	if err == nil && was.Digest == p.digest {
		return nil
	}
	if err == nil && !o.quiet {
		fmt.Fprintf(out, "%s was %s\n", familiarName(taggedName(p.name)), was.Digest)
	}
	q := url.Values{"repo": {repo}, "tag": {splitName(taggedName(p.name)).tag}}
	return c.Post(ctx, imagePath(repo+"@"+p.digest.String(), "/tag"), q, nil, nil)
}

// pullLocked fetches what the lock file says that a name means.
func pullLocked(ctx context.Context, app *App, name string, lock lockFlags, o pullOptions) error {
	if o.allTags {
		return errors.New("--locked and --all-tags contradict each other: a lock file names single tags")
	}
	p, err := lock.pin(name)
	if err != nil {
		return err
	}
	if err := p.pull(ctx, app, app.Out, o); err != nil {
		return err
	}
	_, err = fmt.Fprintln(app.Out, splitName(p.pinned()))
	return err
}
