package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/spf13/cobra"

	"wherry.dev/wherry/internal/client"
)

// runCommands make containers and join in on what runs in them.
func runCommands() []command {
	return []command{
		{name: "run", also: []string{"container run"}, group: groupCommon, short: "Make a container from an image and run it", build: runCommand},
		{name: "exec", also: []string{"container exec"}, group: groupCommon, short: "Run one more command in a running container", build: execCommand},
		{name: "create", also: []string{"container create"}, group: groupOther, short: "Make a container without starting it", build: createCommand},
		{name: "start", also: []string{"container start"}, group: groupOther, short: "Start containers", build: startCommand},
		{name: "attach", also: []string{"container attach"}, group: groupOther, short: "Join a running container's input and output", build: attachCommand},
	}
}

func createCommand(app *App) *cobra.Command {
	cmd := &cobra.Command{Use: "create [OPTIONS] IMAGE [COMMAND [ARG...]]", Args: atLeast(1)}
	f := addRunFlags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		req, err := f.request(cmd.Flags(), args)
		if err != nil {
			return &exitError{125, err}
		}
		addProxies(app, req.Config)
		id, err := createContainer(cmd.Context(), app, f, req)
		if err != nil {
			return &exitError{1, err}
		}
		if err = say(app.Out, id); err == nil {
			hintAtLatest(cmd.Context(), app, f, req)
		}
		return err
	}
	return cmd
}

func runCommand(app *App) *cobra.Command {
	cmd := &cobra.Command{Use: "run [OPTIONS] IMAGE [COMMAND [ARG...]]", Args: atLeast(1)}
	fs := cmd.Flags()
	f := addRunFlags(fs)
	var detach, proxy, waits bool
	var keys string
	fs.BoolVarP(&detach, "detach", "d", false, "Leave it running and print its ID")
	fs.BoolVar(&waits, "wait-healthy", false, "With -d: come back when its health check says that it is well, or why not")
	fs.BoolVar(&proxy, "sig-proxy", true, "Pass signals on to the process")
	fs.StringVar(&keys, "detach-keys", "", "Keys that leave it running (default ctrl-p,ctrl-q)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		req, err := f.request(fs, args)
		if err != nil {
			return &exitError{125, err}
		}
		if waits && !detach {
			return &exitError{125, errors.New("--wait-healthy needs -d: a run in the foreground comes back when the container ends")}
		}
		r := runner{app: app, proxy: proxy, remove: f.rm, idFile: f.cidfile}
		if r.keys, err = detachKeys(app, keys); err != nil {
			return &exitError{125, err}
		}
		if detach {
			if len(f.attach.values) > 0 {
				return &exitError{125, errors.New("-d and -a contradict each other: keep one")}
			}
			req.AttachStdin, req.AttachStdout, req.AttachStderr, req.StdinOnce = false, false, false, false
		} else if err := checkInput(app, req.AttachStdin, req.Tty); err != nil {
			return err
		}
		addProxies(app, req.Config)
		req.HostConfig.ConsoleSize = terminalSize(app)
		if !detach {
			return r.run(cmd.Context(), f, req)
		}
		id, err := createContainer(cmd.Context(), app, f, req)
		if err != nil {
			return &exitError{125, err}
		}
		if err := r.startDetached(cmd.Context(), id); err != nil {
			return err
		}
		if waits {
			if err := awaitHealthy(cmd.Context(), app, id); err != nil {
				return err
			}
		}
		hintAtLatest(cmd.Context(), app, f, req)
		hintAtOpenPorts(cmd.Context(), app, req, id)
		return nil
	}
	return cmd
}

// createContainer makes the container, pulling its image where the policy says so, and writes --cidfile.
func createContainer(ctx context.Context, app *App, f *runFlags, req container.CreateRequest) (id string, err error) {
	c, err := app.Client()
	if err != nil {
		return "", err
	}
	idFile, err := openIDFile(f.cidfile)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, idFile.close(id)) }()
	var made container.CreateResponse
	err = withImage(ctx, app, f, &req, func() error {
		return c.Post(ctx, "/containers/create", f.query(), f.withOwn(req), &made)
	})
	if err != nil {
		return "", err
	}
	printWarnings(app, made.Warnings)
	return made.ID, nil
}

func printWarnings(app *App, list []string) {
	for _, w := range list {
		_ = say(app.Err, "WARNING:", w)
	}
}

// query is what of a container is not in the request's body.
func (f *runFlags) query() url.Values {
	query := url.Values{}
	if f.name != "" {
		query.Set("name", f.name)
	}
	if f.platform != "" {
		query.Set("platform", f.platform)
	}
	return query
}

// withImage does what needs images, the container's own and those that are mounted, pulling them where the policy says so. Pinned ones are pulled by
// their digest, and the request is changed to name them so.
func withImage(ctx context.Context, app *App, f *runFlags, req *container.CreateRequest, do func() error) error {
	pulls := pullOptions{platform: f.platform, quiet: f.quiet}
	pins, err := f.pins(ctx, app, req, f.pull == "always")
	if err != nil {
		return err
	}
	pull := func(name string) error {
		if p, ok := pins[name]; ok {
			return p.pull(ctx, app, app.Err, pulls)
		}
		return pullImage(ctx, app, app.Err, name, pulls)
	}
	if f.pull == "always" || f.pull == "newer" {
		if err := pull(req.Image); err != nil {
			if f.pull == "always" || !isHere(ctx, app, req.Image) {
				return err
			}
			printWarnings(app, []string{err.Error() + ": the image that is here is used"})
		}
	}
	err = f.inPlace(ctx, app, do)
	pulled := map[string]bool{}
	for imageIsMissing(err) && (f.pull == "missing" || f.pull == "newer") {
		name := missingImage(err, *req)
		if pulled[name] {
			break
		}
		pulled[name] = true
		if !f.quiet {
			fmt.Fprintf(app.Err, "Unable to find image '%s' locally\n", name)
		}
		if pullErr := pull(name); pullErr != nil {
			if isForeign(err) {
				pullErr = fmt.Errorf("%w (%v)", pullErr, err)
			}
			return pullErr
		}
		err = f.inPlace(ctx, app, do)
	}
	return err
}

func isHere(ctx context.Context, app *App, image string) bool {
	c, err := app.Client()
	return err == nil && c.Get(ctx, imagePath(image, "/json"), nil, nil) == nil
}

// inPlace makes a container where its name is free, and with --replace where it is not: the one that has it is removed when all else about the
// request is found good.
func (f *runFlags) inPlace(ctx context.Context, app *App, do func() error) error {
	err := do()
	if client.Status(err) != http.StatusConflict || !strings.Contains(err.Error(), "already in use by container") {
		return err
	}
	if !f.replace {
		return fmt.Errorf("the name %s is already in use by another container: remove that one (wherry rm -f %[1]s), or give --replace, or another --name", f.name)
	}
	c, clientErr := app.Client()
	if clientErr != nil {
		return clientErr
	}
	if err := c.Delete(ctx, containerPath(f.name, ""), url.Values{"force": {"1"}}, nil); err != nil && !client.IsNotFound(err) {
		return fmt.Errorf("replace container %s: %w", f.name, err)
	}
	return do()
}

// idFile is the file of --cidfile; nil without one.
type idFile struct{ f *os.File }

func openIDFile(path string) (*idFile, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("--cidfile %s is there already: another container may have it; remove it or name another", path)
	}
	if err != nil {
		return nil, fmt.Errorf("--cidfile: %w", err)
	}
	return &idFile{f}, nil
}

// close writes a container's id, and takes the file away where there is none.
func (i *idFile) close(id string) error {
	if i == nil {
		return nil
	}
	_, err := i.f.WriteString(id)
	if err = errors.Join(err, i.f.Close()); err != nil || id == "" {
		os.Remove(i.f.Name())
	}
	return err
}

// imageIsMissing tells a missing image from a missing network or volume.
func imageIsMissing(err error) bool {
	return client.IsNotFound(err) && strings.Contains(strings.ToLower(err.Error()), "no such image") || isForeign(err)
}

// isForeign says that an image is here, and not for the platform.
func isForeign(err error) bool {
	return client.IsNotFound(err) && strings.Contains(err.Error(), "does not provide the specified platform")
}

// missingImage is the one that an error is about: the container's own, or one that is to be mounted.
func missingImage(err error, req container.CreateRequest) string {
	if req.HostConfig == nil {
		return req.Image
	}
	for _, m := range req.HostConfig.Mounts {
		n := splitName(m.Source)
		if n.tag == "" && n.digest == "" {
			n.tag = "latest"
		}
		if m.Type == mount.TypeImage && m.Source != req.Image && strings.HasSuffix(err.Error(), ": "+familiarName(n.String())) {
			return m.Source
		}
	}
	return req.Image
}

// detachKeys are those of the flag, of config.json, or ctrl-p,ctrl-q.
func detachKeys(app *App, flag string) ([]byte, error) {
	if flag == "" {
		flag = configText(app, "detachKeys")
	}
	return parseDetachKeys(flag)
}
