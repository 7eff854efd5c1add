package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"wherry.dev/wherry/internal/lockfile"
	"wherry.dev/wherry/internal/sources"
)

// lockOptions of lock.
type lockOptions struct {
	path                         string
	files, args                  []string
	check, update, remove, local bool
	quiet                        bool
}

func lockCommand(app *App) *cobra.Command {
	var o lockOptions
	c := &cobra.Command{Use: "lock [OPTIONS] [IMAGE...]", Args: atLeast(0), Long: lockHelp, RunE: func(cmd *cobra.Command, args []string) error {
		if err := o.contradicts(args); err != nil {
			return &exitError{125, err}
		}
		l, err := o.open(args)
		if err != nil {
			return err
		}
		w := &locking{app: app, o: o, file: l}
		if o.check {
			return w.check()
		}
		return w.run(cmd.Context(), args)
	}}
	fs := c.Flags()
	fs.StringArrayVarP(&o.files, "file", "f", nil, "Dockerfile, or compose file (.yaml, .yml), whose images to lock")
	fs.StringVar(&o.path, "lock-file", "", "Lock file (default: the nearest wherry.lock, here or in a folder above, else a new one here)")
	fs.StringArrayVar(&o.args, "build-arg", nil, "Value of an ARG in Dockerfiles, NAME=VALUE; it is kept in the lock file")
	fs.BoolVar(&o.check, "check", false, "Change nothing; fail when the lock file is not what the files name")
	fs.BoolVar(&o.update, "update", false, "Look up again what IMAGE means, or all")
	fs.BoolVar(&o.remove, "remove", false, "Take IMAGE out of the lock file")
	fs.BoolVar(&o.local, "local", false, "Ask what names mean in the engine's store, not at registries")
	fs.BoolVarP(&o.quiet, "quiet", "q", false, "Print nothing but errors")
	return c
}

const lockHelp = `Note what images mean now, so that they can be taken again

IMAGE and the images of FROM, COPY --from, RUN --mount=from and # syntax in Dockerfiles, and of
services in compose files, are looked up at their registries; wherry.lock holds what they mean.
Without IMAGE and -f, a new lock file takes the Dockerfile and the compose file of this folder, and
one that is there is completed. What it holds stays until --update. Keep it in version control, then:

  wherry run --locked IMAGE      runs just that image, also when the tag has moved
  wherry lock --check            in CI: is everything that the files name in the lock file?
  wherry lock --update           takes what the tags mean by now`

func (o *lockOptions) contradicts(args []string) error {
	switch {
	case o.check && (o.update || o.remove || o.local), o.update && o.remove:
		return errors.New("--check, --update, --remove and --local: --local goes with --update only, the others stand alone")
	case o.check && len(args) > 0:
		return errors.New("--check looks at the files that the lock file names, and takes no IMAGE")
	case o.remove && len(args) == 0:
		return errors.New("--remove: say which IMAGE")
	}
	return nil
}

// open reads the lock file, or begins a new one, and adds the files and arguments of the command line to it.
func (o *lockOptions) open(images []string) (*lockfile.File, error) {
	path := cmp.Or(o.path, nearestLock())
	_, err := os.Stat(path)
	isNew := errors.Is(err, fs.ErrNotExist) && !o.check && !o.remove
	var l *lockfile.File
	if isNew {
		l = lockfile.New(cmp.Or(path, lockfile.Name))
	} else if l, err = openLock(path); err != nil {
		return nil, err
	}
	files := o.files
	if isNew && len(files) == 0 && len(images) == 0 {
		if files = sources.Usual("."); len(files) == 0 {
			return nil, errors.New("here is neither a Dockerfile nor a compose file: name IMAGE, or files with -f")
		}
	}
	for _, f := range files {
		name, err := l.Relative(f)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(l.Files, name) {
			l.Files = append(l.Files, name)
		}
	}
	slices.Sort(l.Files)
	for _, a := range o.args {
		name, value, has := strings.Cut(a, "=")
		if !has {
			if value, has = os.LookupEnv(name); !has {
				return nil, fmt.Errorf("--build-arg %s: it has no value, and neither has the environment: write %s=VALUE", name, name)
			}
		}
		put(&l.BuildArgs, name, value)
	}
	return l, nil
}

// locking is one call of lock.
type locking struct {
	app  *App
	o    lockOptions
	file *lockfile.File
}

// wanted are the images that the files name, in full, with the place of the first mention.
func (w *locking) wanted() (map[string]string, error) {
	out := map[string]string{}
	for _, f := range w.file.Files {
		path := w.file.At(f)
		list, err := sources.Read(path, sources.Options{Args: w.file.BuildArgs, Env: os.LookupEnv})
		if errors.Is(err, fs.ErrNotExist) && !slices.Contains(w.o.files, f) && !slices.Contains(w.o.files, path) {
			err = fmt.Errorf("%w: take it out of %s, or bring it back", err, w.file.Path)
		}
		if err != nil {
			return nil, err
		}
		for _, r := range list {
			if splitName(r.Name).digest != "" {
				continue // pinned where it stands
			}
			if full := taggedName(r.Name); out[full] == "" {
				out[full] = fmt.Sprintf("%s:%d", filepath.Clean(r.File), r.Line)
			}
		}
	}
	return out, nil
}

// check says what is missing in the lock file, and what is there for nobody.
func (w *locking) check() error {
	wanted, err := w.wanted()
	if err != nil {
		return err
	}
	var wrong []string
	for _, name := range sorted(wanted) {
		if _, ok := w.file.Images[name]; !ok {
			wrong = append(wrong, fmt.Sprintf("%s: %s is not in %s", wanted[name], familiarName(name), w.file.Path))
		}
	}
	for _, name := range sorted(w.file.Images) {
		if !w.file.Images[name].Listed && wanted[name] == "" {
			wrong = append(wrong, fmt.Sprintf("%s: no file names %s any more", w.file.Path, familiarName(name)))
		}
	}
	if len(wrong) > 0 {
		for _, line := range wrong {
			fmt.Fprintln(w.app.Err, printable(line))
		}
		return fmt.Errorf("%s does not match: run wherry lock", w.file.Path)
	}
	w.say("%s matches: %s", w.file.Path, plural(len(w.file.Images), "image", "images"))
	return nil
}

func (w *locking) say(format string, args ...any) {
	if !w.o.quiet {
		fmt.Fprintln(w.app.Out, printable(fmt.Sprintf(format, args...)))
	}
}

// run brings the lock file in line with what is asked for, whole or not at all.
func (w *locking) run(ctx context.Context, args []string) error {
	wanted, err := w.wanted()
	if err != nil {
		return err
	}
	before := maps.Clone(w.file.Images)
	again, err := w.choose(args, wanted)
	if err != nil {
		return err
	}
	for name, img := range w.file.Images {
		if !img.Listed && wanted[name] == "" {
			delete(w.file.Images, name)
		}
	}
	if err := w.lookUp(ctx, again); err != nil {
		return err
	}
	w.report(before)
	changed, err := w.file.Write()
	if err != nil {
		return err
	}
	note := ""
	if !changed {
		note = ", nothing has changed"
	}
	w.say("%s: %s%s", w.file.Path, plural(len(w.file.Images), "image", "images"), note)
	return nil
}

// choose says which names are to be looked up, after it has listed or taken out those of the command line.
func (w *locking) choose(args []string, wanted map[string]string) ([]string, error) {
	again := map[string]bool{}
	for name := range wanted {
		_, known := w.file.Images[name]
		again[name] = !known || w.o.update && len(args) == 0
	}
	for name := range w.file.Images {
		again[name] = again[name] || w.o.update && len(args) == 0 && w.file.Images[name].Listed
	}
	for _, arg := range args {
		n, name := splitName(arg), taggedName(arg)
		img, known := w.file.Images[name]
		switch {
		case n.digest != "":
			return nil, fmt.Errorf("%s has a digest and is pinned already: name its tag", arg)
		case w.o.remove && !known:
			return nil, fmt.Errorf("%s is not in %s", arg, w.file.Path)
		case w.o.remove && wanted[name] != "":
			return nil, fmt.Errorf("%s is named at %s: take it out there", arg, wanted[name])
		case w.o.remove:
			delete(w.file.Images, name)
			delete(again, name)
			continue
		case w.o.update && !known && wanted[name] == "":
			return nil, fmt.Errorf("%s is not in %s: add it with wherry lock %s", arg, w.file.Path, arg)
		}
		again[name] = again[name] || w.o.update || !known
		if !w.o.update && wanted[name] == "" {
			img.Listed = true
		}
		if known || img.Listed {
			w.file.Images[name] = img
		}
	}
	maps.DeleteFunc(again, func(_ string, yes bool) bool { return !yes })
	return sorted(again), nil
}

// lookUp notes what names mean. One that is still what it was keeps its time.
func (w *locking) lookUp(ctx context.Context, names []string) error {
	answers := meansAll(ctx, w.app, names, place{registry: !w.o.local, platforms: true})
	var failed []string
	for _, name := range names {
		a, img := answers[name], w.file.Images[name]
		if a.err != nil {
			failed = append(failed, name)
			continue
		}
		if img.Digest != a.Digest {
			img.Locked = time.Now().UTC().Truncate(time.Second)
		}
		img.Digest, img.Platforms = a.Digest, a.Platforms
		w.file.Images[name] = img
	}
	if len(failed) == 0 {
		return nil
	}
	_ = each(ctx, w.app, failed, func(name string) error { return answers[name].err })
	return fmt.Errorf("nothing is written to %s", w.file.Path)
}

// report says how images changed.
func (w *locking) report(before map[string]lockfile.Image) {
	for _, name := range sorted(before) {
		if _, stays := w.file.Images[name]; !stays {
			w.say("- %s", familiarName(name))
		}
	}
	for _, name := range sorted(w.file.Images) {
		is, was := w.file.Images[name], before[name]
		switch {
		case was.Digest == "":
			w.say("+ %s %s", familiarName(name), shortDigest(is.Digest))
		case was.Digest != is.Digest:
			w.say("~ %s %s, was %s", familiarName(name), shortDigest(is.Digest), shortDigest(was.Digest))
		}
	}
}
