package cli

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"wherry.dev/wherry/internal/client"
)

// copying is one cp: from and to name a container where its name is not empty.
type copying struct {
	app            *App
	client         *client.Client
	container      string
	source, target string
	owners, follow bool // -a, -L
	quiet          bool
}

func copyCommand(app *App) *cobra.Command {
	cmd := &cobra.Command{Use: "cp [OPTIONS] CONTAINER:SOURCE TARGET|-  or  cp [OPTIONS] SOURCE|- CONTAINER:TARGET", Args: exactly(2)}
	c := copying{app: app}
	cmd.Flags().BoolVarP(&c.owners, "archive", "a", false, "Keep owners and groups")
	cmd.Flags().BoolVarP(&c.follow, "follow-link", "L", false, "Copy what SOURCE points to when it is a symbolic link")
	cmd.Flags().BoolVarP(&c.quiet, "quiet", "q", false, "Do not say how much was copied")
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		from, source := splitCopy(args[0])
		to, target := splitCopy(args[1])
		switch {
		case source == "" || target == "":
			return errors.New("cp: a path cannot be empty")
		case from != "" && to != "":
			return errors.New("cp: one side must be this machine; from container to container copy through a directory or a pipe: cp A:/x - | wherry cp - B:/")
		case from == "" && to == "":
			return errors.New("cp: neither side is a container: write CONTAINER:PATH on one")
		}
		if c.client, err = app.Client(); err != nil {
			return err
		}
		c.source, c.target = source, target
		if from != "" {
			c.container = from
			return c.out(cmd.Context())
		}
		c.container = to
		return c.in(cmd.Context())
	}
	return cmd
}

var errNoPath = errors.New("no such file or directory in the container")

// stat asks about a path in the container; a symbolic link is not followed.
func (c *copying) stat(ctx context.Context, p string) (container.PathStat, error) {
	h, err := c.client.Head(ctx, containerPath(c.container, "/archive"), url.Values{"path": {p}})
	if client.IsNotFound(err) {
		// The answer to HEAD has no body that would say what is missing.
		if _, gone := inspectContainer(ctx, c.client, c.container); gone != nil {
			return container.PathStat{}, gone
		}
		return container.PathStat{}, errNoPath
	}
	if err != nil {
		return container.PathStat{}, c.reason(ctx, p, err)
	}
	return readStat(h)
}

// reason asks once more, so that the answer has a body that says why.
func (c *copying) reason(ctx context.Context, p string, err error) error {
	res, told := c.client.Stream(ctx, client.Request{Path: containerPath(c.container, "/archive"), Query: url.Values{"path": {p}}})
	if told != nil {
		return told
	}
	res.Body.Close()
	return err
}

func readStat(h http.Header) (st container.PathStat, err error) {
	data, err := base64.StdEncoding.DecodeString(h.Get("X-Docker-Container-Path-Stat"))
	if err == nil {
		err = json.Unmarshal(data, &st)
	}
	if err != nil {
		return st, fmt.Errorf("read the engine's answer about a path: %w", err)
	}
	return st, nil
}

// linkTarget is where a link leads, as an absolute path in the container.
func linkTarget(link, target string) string {
	if path.IsAbs(target) {
		return path.Clean(target)
	}
	return path.Join(path.Dir(path.Clean(link)), target)
}

// endpoint is the side that is copied to.
type endpoint struct {
	path        string // cleaned
	exists, dir bool
	slash       bool // it was written with a slash at its end
}

// place says in which directory the copy goes and under which name; "" is: its contents go into the directory itself.
func (e endpoint) place(base string, sourceDir, contents bool) (dir, name string, err error) {
	switch {
	case e.exists && e.dir && sourceDir && contents:
		return e.path, "", nil
	case e.exists && e.dir:
		return e.path, base, nil
	case e.exists && sourceDir:
		return "", "", fmt.Errorf("cp: %s is a file, and a directory was to be copied there", e.path)
	case e.exists && e.slash:
		return "", "", fmt.Errorf("cp: %s is a file, not a directory", e.path)
	case !e.exists && e.slash && !sourceDir:
		return "", "", fmt.Errorf("cp: there is no directory %s: make it first, or leave the slash at the end out to name the copy so", e.path)
	}
	return path.Dir(e.path), path.Base(e.path), nil
}

// wantsContents tells whether a path is written with /. at its end: what is in it, without itself.
func wantsContents(p string) bool { return p == "." || strings.HasSuffix(p, "/.") }

// out copies from the container.
func (c *copying) out(ctx context.Context) error {
	if _, ok := terminal(c.app.Out); ok && c.target == "-" {
		return errors.New("cp: an archive is nothing for a terminal: send the output on")
	}
	source := path.Join("/", c.source)
	base := path.Base(source)
	if c.follow {
		st, err := c.stat(ctx, source)
		if err != nil {
			return fmt.Errorf("cp %s:%s: %w", c.container, c.source, err)
		}
		if st.Mode&os.ModeSymlink != 0 && st.LinkTarget != "" {
			source = linkTarget(source, st.LinkTarget)
		}
	}
	res, err := c.client.Stream(ctx, client.Request{Path: containerPath(c.container, "/archive"), Query: url.Values{"path": {source}}})
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if c.target == "-" {
		if _, err = io.Copy(c.app.Out, res.Body); err != nil {
			return fmt.Errorf("cp from container %s: %w", c.container, err)
		}
		return nil
	}
	st, err := readStat(res.Header)
	if err != nil {
		return err
	}
	to := endpoint{path: filepath.Clean(c.target), slash: strings.HasSuffix(c.target, "/") || wantsContents(c.target)}
	if local, err := os.Stat(c.target); err == nil {
		to.exists, to.dir = true, local.IsDir()
	}
	dir, name, err := to.place(base, st.Mode.IsDir(), wantsContents(c.source) || source == "/")
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("cp to %s: %w", c.target, err)
	}
	defer root.Close()
	u := unpacking{root: root, name: name, wholeTree: source == "/", owners: c.owners}
	err = u.run(res.Body)
	if err != nil {
		return fmt.Errorf("cp %s:%s to %s: %w", c.container, c.source, c.target, err)
	}
	c.say(u.bytes, c.target)
	return nil
}

// in copies into the container.
func (c *copying) in(ctx context.Context) error {
	target := path.Join("/", c.target)
	to := endpoint{path: target, slash: strings.HasSuffix(c.target, "/") || wantsContents(c.target)}
	st, err := c.stat(ctx, target)
	for hops := 0; err == nil && st.Mode&os.ModeSymlink != 0 && st.LinkTarget != "" && hops < 40; hops++ {
		to.path = linkTarget(to.path, st.LinkTarget)
		st, err = c.stat(ctx, to.path)
	}
	if err != nil && !errors.Is(err, errNoPath) {
		return err
	}
	to.exists, to.dir = err == nil, st.Mode.IsDir()
	if c.source == "-" {
		if !to.dir {
			return fmt.Errorf("cp: an archive is unpacked in a directory, which %s:%s is not", c.container, c.target)
		}
		return c.put(ctx, to.path, c.app.In)
	}
	p, err := c.packing()
	if err != nil {
		return err
	}
	dir, name, err := to.place(filepath.Base(p.path), p.isDir(), wantsContents(c.source))
	if err != nil {
		return err
	}
	p.name = name
	reader, writer := io.Pipe()
	go func() { writer.CloseWithError(p.run(writer)) }()
	err = c.put(ctx, dir, reader)
	reader.CloseWithError(errors.New("the engine takes no more"))
	if err != nil {
		return fmt.Errorf("cp %s to %s:%s: %w", c.source, c.container, c.target, err)
	}
	c.say(p.bytes, c.container+":"+c.target)
	return nil
}

// packing looks at the source.
func (c *copying) packing() (*packing, error) {
	p := &packing{}
	var err error
	if p.path, err = filepath.Abs(c.source); err != nil {
		return nil, err
	}
	if p.about, err = os.Lstat(p.path); err != nil {
		return nil, fmt.Errorf("cp: %w", err)
	}
	// A link with a slash behind it means what it points to.
	if p.about.Mode()&os.ModeSymlink != 0 && (c.follow || strings.HasSuffix(c.source, "/") || wantsContents(c.source)) {
		if p.real, err = filepath.EvalSymlinks(p.path); err != nil {
			return nil, fmt.Errorf("cp: %w", err)
		}
		if p.about, err = os.Lstat(p.real); err != nil {
			return nil, fmt.Errorf("cp: %w", err)
		}
	}
	if strings.HasSuffix(c.source, "/") && !p.isDir() {
		return nil, fmt.Errorf("cp: %s is no directory", c.source)
	}
	return p, nil
}

func (c *copying) put(ctx context.Context, dir string, tar io.Reader) error {
	q := url.Values{"path": {dir}, "noOverwriteDirNonDir": {"true"}}
	if c.owners {
		q.Set("copyUIDGID", "true")
	}
	return c.client.Put(ctx, containerPath(c.container, "/archive"), q, tar, nil)
}

func (c *copying) say(bytes int64, where string) {
	if _, ok := terminal(c.app.Err); ok && !c.quiet {
		fmt.Fprintf(c.app.Err, "Successfully copied %s to %s\n", humanSize(bytes), where)
	}
}
