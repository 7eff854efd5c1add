package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"wherry.dev/wherry/internal/client"
)

// manifestCommands make and show lists of manifests.
func manifestCommands() []command {
	line := func(verb, short string, build func(*App) *cobra.Command) command {
		return command{name: "manifest " + verb, group: groupOther, short: short, build: build}
	}
	return []command{
		line("create", "Make a list of the manifests of several images", manifestCreateCommand),
		line("add", "Add images to a list", manifestAddCommand),
		line("annotate", "Change what a list says of an image", manifestAnnotateCommand),
		line("inspect", "Print a list, or a manifest as its registry has it", manifestInspectCommand),
		line("push", "Send a list to a registry", manifestPushCommand),
		line("remove", "Take an image out of a list", manifestRemoveCommand),
		line("rm", "Remove lists", manifestRmCommand),
	}
}

// listed is what is to stand in a list, and how: the body of the engine's routes.
type listed struct {
	Image       string
	All         bool              `json:",omitempty"`
	Platform    ocispec.Platform  `json:",omitzero"`
	Annotations map[string]string `json:",omitempty"`
}

// listFlags are those of commands that put something into a list.
type listFlags struct {
	listed
	insecure    bool
	annotations listFlag
	features    listFlag
}

func (f *listFlags) describe(c *cobra.Command) {
	c.Flags().StringVar(&f.Platform.Architecture, "arch", "", "Set the architecture")
	c.Flags().StringVar(&f.Platform.OS, "os", "", "Set the operating system")
	c.Flags().StringVar(&f.Platform.Variant, "variant", "", "Set the variant of the architecture")
	c.Flags().StringVar(&f.Platform.OSVersion, "os-version", "", "Set the version of the operating system")
	c.Flags().Var(&f.features, "os-features", "Set features of the operating system")
	c.Flags().Var(&f.annotations, "annotation", "Set an annotation of the entry, key=value")
}

func (f *listFlags) finish() error {
	for _, text := range f.features.values {
		f.Platform.OSFeatures = append(f.Platform.OSFeatures, strings.Split(text, ",")...)
	}
	for _, text := range f.annotations.values {
		key, value, ok := strings.Cut(text, "=")
		if !ok {
			return fmt.Errorf("--annotation %s: write key=value", text)
		}
		put(&f.Annotations, key, value)
	}
	return nil
}

func insecureFlag(c *cobra.Command, into *bool) {
	c.Flags().BoolVar(into, "insecure", false, "Allow the registry to have no TLS, or a certificate that nobody has signed")
}

// postList does something with a list and an image, with this user's login for the image's registry.
func postList(ctx context.Context, app *App, list, verb string, f *listFlags) (out struct{ Digests []string }, err error) {
	c, err := app.Client()
	if err != nil {
		return out, err
	}
	body, err := json.Marshal(f.listed)
	if err != nil {
		return out, err
	}
	header := authHeader(app, splitName(f.Image).registry)
	header.Set("Content-Type", "application/json")
	q := url.Values{"name": {list}}
	if f.insecure {
		q.Set("insecure", "1")
	}
	res, err := c.Stream(ctx, client.Request{Method: http.MethodPost, Path: "/wherry/lists/" + verb, Query: q, Header: header, Body: bytes.NewReader(body)})
	if err != nil {
		return out, err
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusNoContent {
		return out, nil
	}
	return out, json.NewDecoder(res.Body).Decode(&out)
}

func manifestCreateCommand(app *App) *cobra.Command {
	var amend bool
	f := &listFlags{}
	c := &cobra.Command{Use: "create [OPTIONS] LIST [IMAGE...]", Args: atLeast(1), RunE: func(cmd *cobra.Command, args []string) error {
		cl, err := app.Client()
		if err != nil {
			return err
		}
		q := url.Values{"name": {args[0]}}
		if amend {
			q.Set("amend", "1")
		}
		if err := cl.Post(cmd.Context(), "/wherry/lists", q, nil, nil); err != nil {
			return err
		}
		for _, name := range args[1:] {
			f.Image = name
			if _, err := postList(cmd.Context(), app, args[0], "add", f); err != nil {
				if !amend { // nothing stays of a list that was not made whole
					err = errors.Join(err, cl.Delete(context.WithoutCancel(cmd.Context()), "/wherry/lists", q, nil))
				}
				return err
			}
		}
		n := splitName(args[0])
		if n.tag == "" {
			n.tag = "latest"
		}
		_, err = fmt.Fprintln(app.Out, "Created manifest list", n)
		return err
	}}
	c.Flags().BoolVarP(&amend, "amend", "a", false, "Add to the list where it is there already")
	c.Flags().BoolVar(&f.All, "all", false, "Of images for several platforms take all, not only this machine's")
	insecureFlag(c, &f.insecure)
	return c
}

func manifestAddCommand(app *App) *cobra.Command {
	f := &listFlags{}
	c := &cobra.Command{Use: "add [OPTIONS] LIST IMAGE...", Args: atLeast(2), RunE: func(cmd *cobra.Command, args []string) error {
		if err := f.finish(); err != nil {
			return err
		}
		for _, name := range args[1:] {
			f.Image = name
			out, err := postList(cmd.Context(), app, args[0], "add", f)
			if err != nil {
				return err
			}
			for _, d := range out.Digests {
				fmt.Fprintln(app.Out, d)
			}
		}
		return nil
	}}
	c.Flags().BoolVar(&f.All, "all", false, "Of images for several platforms take all, not only this machine's")
	insecureFlag(c, &f.insecure)
	f.describe(c)
	return c
}

func manifestAnnotateCommand(app *App) *cobra.Command {
	f := &listFlags{}
	c := &cobra.Command{Use: "annotate [OPTIONS] LIST IMAGE|DIGEST", Args: exactly(2), RunE: func(cmd *cobra.Command, args []string) error {
		if err := f.finish(); err != nil {
			return err
		}
		f.Image = args[1]
		_, err := postList(cmd.Context(), app, args[0], "annotate", f)
		return err
	}}
	insecureFlag(c, &f.insecure)
	f.describe(c)
	return c
}

func manifestRemoveCommand(app *App) *cobra.Command {
	f := &listFlags{}
	c := &cobra.Command{Use: "remove [OPTIONS] LIST IMAGE|DIGEST", Args: exactly(2), RunE: func(cmd *cobra.Command, args []string) error {
		f.Image = args[1]
		_, err := postList(cmd.Context(), app, args[0], "drop", f)
		return err
	}}
	insecureFlag(c, &f.insecure)
	return c
}

func manifestRmCommand(app *App) *cobra.Command {
	return &cobra.Command{Use: "rm LIST...", Args: atLeast(1), RunE: func(cmd *cobra.Command, args []string) error {
		c, err := app.Client()
		if err != nil {
			return err
		}
		return each(cmd.Context(), app, args, func(name string) error {
			if err := c.Delete(cmd.Context(), "/wherry/lists", url.Values{"name": {name}}, nil); err != nil {
				return err
			}
			_, err := fmt.Fprintln(app.Out, "Deleted:", name)
			return err
		})
	}}
}

func manifestPushCommand(app *App) *cobra.Command {
	var insecure, purge, all bool
	c := &cobra.Command{Use: "push [OPTIONS] LIST [DESTINATION]", Args: between(1, 2), RunE: func(cmd *cobra.Command, args []string) error {
		to := strings.TrimPrefix(args[len(args)-1], "docker://")
		q := url.Values{"name": {args[0]}, "to": {to}}
		if insecure {
			q.Set("insecure", "1")
		}
		r := client.Request{Method: http.MethodPost, Path: "/wherry/lists/push", Query: q, Header: authHeader(app, splitName(to).registry)}
		if err := postAndShow(cmd.Context(), app, app.Out, r); err != nil || !purge {
			return err
		}
		cl, err := app.Client()
		if err != nil {
			return err
		}
		return cl.Delete(cmd.Context(), "/wherry/lists", url.Values{"name": {args[0]}}, nil)
	}}
	insecureFlag(c, &insecure)
	c.Flags().BoolVarP(&purge, "purge", "p", false, "Remove the list here when it has been sent")
	c.Flags().BoolVar(&all, "all", true, "Taken and ignored: the images of the list are always sent with it")
	_ = c.Flags().MarkHidden("all")
	return c
}

// manifestView is one manifest or index, as the engine shows it.
type manifestView struct {
	Ref        string
	Descriptor ocispec.Descriptor
	Raw        json.RawMessage
	Children   []manifestView
}

// verbose is how Docker prints one with --verbose.
type verboseManifest struct {
	Ref              string
	Descriptor       ocispec.Descriptor
	Raw              []byte
	OCIManifest      json.RawMessage `json:",omitempty"`
	SchemaV2Manifest json.RawMessage `json:",omitempty"`
}

func (m manifestView) verbose() verboseManifest {
	v := verboseManifest{Ref: m.Ref, Descriptor: m.Descriptor, Raw: m.Raw}
	if strings.HasPrefix(m.Descriptor.MediaType, "application/vnd.docker.") {
		v.SchemaV2Manifest = m.Raw
	} else {
		v.OCIManifest = m.Raw
	}
	return v
}

func manifestInspectCommand(app *App) *cobra.Command {
	var insecure, verbose bool
	c := &cobra.Command{Use: "inspect [OPTIONS] [LIST] IMAGE", Args: between(1, 2), RunE: func(cmd *cobra.Command, args []string) error {
		cl, err := app.Client()
		if err != nil {
			return err
		}
		q := url.Values{"name": {args[0]}}
		if insecure {
			q.Set("insecure", "1")
		}
		if verbose || len(args) == 2 {
			q.Set("children", "1")
		}
		res, err := cl.Stream(cmd.Context(), client.Request{Path: "/wherry/manifests", Query: q, Header: authHeader(app, splitName(args[0]).registry)})
		if err != nil {
			return err
		}
		defer res.Body.Close()
		var view manifestView
		if err := json.NewDecoder(res.Body).Decode(&view); err != nil {
			return fmt.Errorf("read the engine's answer: %w", err)
		}
		if len(args) == 2 {
			if view, err = view.child(args[1]); err != nil {
				return err
			}
		}
		return printManifest(app, view, verbose)
	}}
	insecureFlag(c, &insecure)
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, "Print descriptors and platforms too, and of a list all that it lists")
	return c
}

// child is an entry of a list, named by its digest.
func (m manifestView) child(name string) (manifestView, error) {
	_, digest, ok := strings.Cut(name, "@")
	if !ok {
		digest = name
	}
	for _, c := range m.Children {
		if c.Descriptor.Digest.String() == digest {
			return c, nil
		}
	}
	return m, fmt.Errorf("%s has no entry %s: name it by its digest", m.Ref, name)
}

func printManifest(app *App, view manifestView, verbose bool) error {
	var v any = view.verbose()
	if !verbose {
		var out bytes.Buffer
		if err := json.Indent(&out, view.Raw, "", "\t"); err != nil {
			return err
		}
		_, err := fmt.Fprintln(app.Out, printable(out.String()))
		return err
	}
	if len(view.Children) > 0 {
		var list []verboseManifest
		for _, c := range view.Children {
			list = append(list, c.verbose())
		}
		v = list
	}
	out, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(app.Out, printable(string(out)))
	return err
}
