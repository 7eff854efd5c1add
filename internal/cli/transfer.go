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
	"strings"

	"github.com/moby/moby/api/types/registry"
	"github.com/spf13/cobra"

	"wherry.dev/wherry/internal/client"
	"wherry.dev/wherry/internal/login"
)

// pullOptions of pullImage.
type pullOptions struct {
	platform string // "" is the engine's
	quiet    bool   // print nothing
	allTags  bool

	platforms    []string // several, instead of platform
	allPlatforms bool
}

// pullImage has the engine fetch an image, with the login that this user has for its registry, and prints on out how far it is.
func pullImage(ctx context.Context, app *App, out io.Writer, name string, o pullOptions) error {
	if err := oneTag(name); err != nil {
		return err
	}
	n := splitName(name)
	switch {
	case name == "":
		return errors.New("pull: the name is empty: give one such as debian:12")
	case o.allTags && (n.tag != "" || n.digest != ""):
		return fmt.Errorf("pull %s: all tags are asked for, and one is given: leave it out, or leave --all-tags out", name)
	case n.tag == "" && n.digest == "" && !o.allTags:
		n.tag = "latest"
		if !o.quiet {
			fmt.Fprintln(out, "Using default tag: latest")
		}
	}
	q := url.Values{"fromImage": {repository(name)}}
	switch {
	case n.digest != "":
		q.Set("tag", n.digest)
	case n.tag != "":
		q.Set("tag", n.tag)
	}
	if o.platform != "" {
		q.Set("platform", o.platform)
	}
	if err := addPlatforms(q, "platforms", o.platforms); err != nil {
		return err
	}
	if o.allPlatforms {
		q.Set("allPlatforms", "1")
	}
	if o.quiet {
		out = io.Discard
	}
	r := client.Request{Method: http.MethodPost, Path: "/images/create", Query: q, Header: authHeader(app, n.registry)}
	return postAndShow(ctx, app, out, r)
}

// repository is a reference as it was written, without tag and digest.
func repository(name string) string {
	n := splitName(name)
	if n.digest != "" {
		name, _, _ = strings.Cut(name, "@")
	}
	if n.tag != "" {
		name = strings.TrimSuffix(name, ":"+n.tag)
	}
	return name
}

// oneTag refuses a name with two tags, such as a:1:2: the engine is sent repository and tag apart, and would take the last.
func oneTag(name string) error {
	if first := splitName(repository(name)).tag; first != "" {
		return fmt.Errorf("invalid reference format: %q has two tags: leave out :%s or :%s", name, first, splitName(name).tag)
	}
	return nil
}

// postAndShow does a request whose answer is a stream of messages.
func postAndShow(ctx context.Context, app *App, out io.Writer, r client.Request) error {
	c, err := app.Client()
	if err != nil {
		return err
	}
	res, err := c.Stream(ctx, r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	return showMessages(out, res.Body)
}

// authHeader carries this user's login for a registry to the engine. One that cannot be read is not the end: most images are public.
func authHeader(app *App, server string) http.Header {
	key := login.ServerKey(server)
	var a *registry.AuthConfig
	c, err := login.Read(app.Config)
	if err == nil {
		a, err = c.Credentials(key)
	}
	if err != nil {
		fmt.Fprintf(app.Err, "warning: going on without a login for %s: %v\n", login.HostOf(key), err)
	}
	if a == nil {
		a = &registry.AuthConfig{}
	}
	text, err := json.Marshal(a)
	if err != nil {
		return nil // strings only: it cannot happen
	}
	return http.Header{registry.AuthHeader: {base64.URLEncoding.EncodeToString(text)}}
}

// imagePath is a route of one image; the slashes of its name are slashes of the path.
func imagePath(name, verb string) string {
	parts := strings.Split(name, "/")
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	return "/images/" + strings.Join(parts, "/") + verb
}

func pullCommand(app *App) *cobra.Command {
	o := pullOptions{}
	var lock lockFlags
	c := &cobra.Command{Use: "pull [OPTIONS] NAME[:TAG|@DIGEST]", Args: exactly(1), RunE: func(cmd *cobra.Command, args []string) error {
		if err := lock.checkLock(); err != nil {
			return err
		}
		if lock.locked {
			return pullLocked(cmd.Context(), app, args[0], lock, o)
		}
		if len(o.platforms) == 1 {
			o.platform, o.platforms = o.platforms[0], nil
		}
		if err := pullImage(cmd.Context(), app, app.Out, args[0], o); err != nil {
			return err
		}
		n := splitName(args[0])
		if n.tag == "" && n.digest == "" && !o.allTags {
			n.tag = "latest"
		}
		_, err := fmt.Fprintln(app.Out, n)
		return err
	}}
	c.Flags().BoolVarP(&o.allTags, "all-tags", "a", false, "Pull every tag of the repository")
	c.Flags().BoolVarP(&o.quiet, "quiet", "q", false, "Print the name only")
	c.Flags().StringSliceVar(&o.platforms, "platform", defaultPlatforms(), "Platform of the image, such as linux/arm64; may be given several times")
	c.Flags().BoolVar(&o.allPlatforms, "all-platforms", false, "Pull all platforms that the image has")
	lock.add(c.Flags())
	trustFlag(c)
	return c
}

// defaultPlatforms are those that Docker's tools share.
func defaultPlatforms() []string {
	if p := os.Getenv("DOCKER_DEFAULT_PLATFORM"); p != "" {
		return []string{p}
	}
	return nil
}

// addPlatforms puts platforms into a query, each as the object that routes want.
func addPlatforms(q url.Values, key string, list []string) error {
	for _, text := range list {
		p, err := platformJSON(text)
		if err != nil {
			return err
		}
		q.Add(key, p)
	}
	return nil
}

// platformFlag is --platform with the default that Docker's tools share.
func platformFlag(c *cobra.Command, into *string, usage string) {
	c.Flags().StringVar(into, "platform", os.Getenv("DOCKER_DEFAULT_PLATFORM"), usage)
}

// trustFlag takes a flag of Docker's that means nothing here, so that scripts with it go on working.
func trustFlag(c *cobra.Command) {
	c.Flags().Bool("disable-content-trust", true, "Taken and ignored")
	_ = c.Flags().MarkHidden("disable-content-trust")
}

func pushCommand(app *App) *cobra.Command {
	var all, quiet bool
	var platform string
	c := &cobra.Command{Use: "push [OPTIONS] IMAGE[:TAG]", Args: exactly(1), RunE: func(cmd *cobra.Command, args []string) error {
		if err := oneTag(args[0]); err != nil {
			return err
		}
		n := splitName(args[0])
		switch {
		case n.digest != "":
			return fmt.Errorf("push %s: a digest cannot be pushed by its name: give the tag", args[0])
		case all && n.tag != "":
			return fmt.Errorf("push %s: all tags are asked for, and one is given: leave it out, or leave --all-tags out", args[0])
		case !all && n.tag == "":
			n.tag = "latest"
			if !quiet {
				fmt.Fprintln(app.Out, "Using default tag: latest")
			}
		}
		q := url.Values{}
		if n.tag != "" {
			q.Set("tag", n.tag)
		}
		if platform != "" {
			p, err := platformJSON(platform)
			if err != nil {
				return err
			}
			q.Set("platform", p)
		}
		out := app.Out
		if quiet {
			out = io.Discard
		}
		r := client.Request{Method: http.MethodPost, Path: imagePath(repository(args[0]), "/push"), Query: q, Header: authHeader(app, n.registry)}
		if err := postAndShow(cmd.Context(), app, out, r); err != nil || !quiet {
			return err
		}
		_, err := fmt.Fprintln(app.Out, n)
		return err
	}}
	c.Flags().BoolVarP(&all, "all-tags", "a", false, "Push every tag of the repository")
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "Print the name only")
	c.Flags().StringVar(&platform, "platform", "", "Push the manifest of one platform only, such as linux/arm64")
	trustFlag(c)
	return c
}

// platformJSON writes os/arch/variant as the object that some routes want.
func platformJSON(text string) (string, error) {
	parts := strings.Split(strings.ToLower(text), "/")
	if len(parts) < 2 || len(parts) > 3 {
		return "", fmt.Errorf("--platform %s: write it as os/architecture[/variant], such as linux/arm64", text)
	}
	p := map[string]string{"os": parts[0], "architecture": parts[1]}
	if len(parts) == 3 {
		p["variant"] = parts[2]
	}
	out, err := json.Marshal(p)
	return string(out), err
}

func loadCommand(app *App) *cobra.Command {
	var input string
	var platforms []string
	var quiet bool
	c := &cobra.Command{Use: "load [OPTIONS]", RunE: func(cmd *cobra.Command, args []string) error {
		body := app.In
		if input != "" && input != "-" {
			f, err := openImages(input)
			if err != nil {
				return err
			}
			defer f.Close()
			body = f
		} else if _, ok := terminal(app.In); ok {
			return errors.New("load reads an archive, not a terminal: give --input FILE, or redirect the input")
		}
		q := url.Values{}
		if _, live := terminal(app.Out); quiet || !live {
			q.Set("quiet", "1")
		}
		if err := addPlatforms(q, "platform", platforms); err != nil {
			return err
		}
		header := http.Header{"Content-Type": {"application/x-tar"}}
		return postAndShow(cmd.Context(), app, app.Out, client.Request{Method: http.MethodPost, Path: "/images/load", Query: q, Header: header, Body: body})
	}}
	c.Flags().StringVarP(&input, "input", "i", "", "Read the archive from a file, or an OCI layout from a directory, instead of the input")
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "Print only what was loaded")
	c.Flags().StringSliceVar(&platforms, "platform", nil, "Load only one platform, such as linux/arm64; may be given several times")
	return c
}

func openArchive(path string) (*os.File, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if st.IsDir() {
		return nil, fmt.Errorf("%s is a directory, not an archive: pack it first, with tar -C %s -cf FILE .", path, path)
	}
	return os.Open(path)
}

func importCommand(app *App) *cobra.Command {
	var changes []string
	var message, platform string
	c := &cobra.Command{Use: "import [OPTIONS] FILE|URL|- [REPOSITORY[:TAG]]", Args: between(1, 2), RunE: func(cmd *cobra.Command, args []string) error {
		q := url.Values{"fromSrc": {"-"}, "changes": changes}
		r := client.Request{Method: http.MethodPost, Path: "/images/create", Query: q}
		source := args[0]
		switch {
		case source == "-":
			r.Body = app.In
		case strings.HasPrefix(source, "http://"), strings.HasPrefix(source, "https://"):
			q.Set("fromSrc", source)
		default:
			f, err := openArchive(source)
			if err != nil {
				return err
			}
			defer f.Close()
			r.Body = f
		}
		if len(args) == 2 {
			q.Set("repo", args[1])
		}
		if message != "" {
			q.Set("message", message)
		}
		if platform != "" {
			q.Set("platform", platform)
		}
		return postAndShow(cmd.Context(), app, app.Out, r)
	}}
	c.Flags().StringArrayVarP(&changes, "change", "c", nil, "Apply a Dockerfile instruction to the image, such as 'CMD [\"sh\"]'")
	c.Flags().StringVarP(&message, "message", "m", "", "Comment of the image")
	platformFlag(c, &platform, "Platform of the image")
	return c
}
