package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sort"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"wherry.dev/wherry/internal/client"
)

// copyEnd is one end of a copy: a reference, or the name of an image in an OCI layout.
type copyEnd struct {
	layout string // "oci" for a directory, "oci-archive" for a tar; "": a registry
	path   string
	name   string
}

// parseEnd reads REFERENCE, docker://REFERENCE, oci:DIRECTORY[:NAME] or oci-archive:FILE[:NAME].
func parseEnd(arg string) copyEnd {
	for _, kind := range []string{"oci", "oci-archive"} {
		if rest, ok := strings.CutPrefix(arg, kind+":"); ok {
			p := copyEnd{layout: kind}
			p.path, p.name, _ = strings.Cut(rest, ":")
			return p
		}
	}
	return copyEnd{name: strings.TrimPrefix(arg, "docker://")}
}

// destinationAuth is the header with the login for the registry that something is copied to.
const destinationAuth = "X-Wherry-Destination-Auth"

func imageCopyCommand(app *App) *cobra.Command {
	var all, referrers, fromInsecure, toInsecure bool
	var platform string
	c := &cobra.Command{Use: "copy [OPTIONS] SOURCE DESTINATION", Args: exactly(2), RunE: func(cmd *cobra.Command, args []string) error {
		if all && platform != "" {
			return errors.New("--all-platforms and --platform contradict each other: keep one")
		}
		q := url.Values{}
		for key, on := range map[string]bool{"all": all, "referrers": referrers, "insecure": fromInsecure, "toInsecure": toInsecure} {
			if on {
				q.Set(key, "1")
			}
		}
		if platform != "" {
			q.Set("platform", platform)
		}
		return copyImage(cmd.Context(), app, parseEnd(args[0]), parseEnd(args[1]), q)
	}}
	c.Flags().BoolVarP(&all, "all-platforms", "a", false, "Copy all platforms, with what is attested of them, not only this machine's")
	c.Flags().StringVar(&platform, "platform", "", "Copy only one platform, such as linux/arm64")
	c.Flags().BoolVar(&referrers, "referrers", false, "Copy what refers to the image, too: signatures, attestations and the like")
	c.Flags().BoolVar(&fromInsecure, "src-insecure", false, "Allow the source's registry to have no TLS, or a certificate that nobody has signed")
	c.Flags().BoolVar(&toInsecure, "dest-insecure", false, "Allow the destination's registry to have no TLS, or a certificate that nobody has signed")
	return c
}

func copyImage(ctx context.Context, app *App, from, to copyEnd, q url.Values) error {
	r := client.Request{Method: http.MethodPost, Path: "/wherry/copy", Query: q, Header: http.Header{}}
	q.Set("from", from.name)
	q.Set("to", to.name)
	if from.layout == "" {
		r.Header = authHeader(app, splitName(from.name).registry)
	}
	if to.layout == "" {
		r.Header[destinationAuth] = authHeader(app, splitName(to.name).registry)["X-Registry-Auth"]
	}
	switch {
	case from.layout != "" && to.layout != "":
		return errors.New("copy: one of the two has to be in a registry: load and save take images from file to file")
	case to.layout != "":
		return copyToLayout(ctx, app, to, r)
	case from.layout == "":
		return postAndShow(ctx, app, app.Out, r)
	}
	body, err := openImages(from.path)
	if err != nil {
		return err
	}
	defer body.Close()
	r.Path, r.Body = "/wherry/copy/in", body
	r.Header.Set("Content-Type", "application/x-tar")
	return postAndShow(ctx, app, app.Out, r)
}

func copyToLayout(ctx context.Context, app *App, to copyEnd, r client.Request) error {
	if to.name != "" {
		return fmt.Errorf("copy to %s: a layout gets the name that the image has: leave :%s out", to.path, to.name)
	}
	c, err := app.Client()
	if err != nil {
		return err
	}
	r.Method, r.Path = http.MethodGet, "/wherry/copy/out"
	res, err := c.Stream(ctx, r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if to.layout == "oci" {
		return saveLayout(to.path, res.Body)
	}
	return saveTo(app, to.path, io.Reader(res.Body))
}

// referrerRow is a line of `image referrers`.
type referrerRow struct {
	Type   string
	Digest string
	Size   string
	ID     string `head:"-"`
}

func imageReferrersCommand(app *App) *cobra.Command {
	var format, kind, platform string
	var quiet, insecure, whole bool
	c := &cobra.Command{Use: "referrers [OPTIONS] IMAGE", Args: exactly(1), RunE: func(cmd *cobra.Command, args []string) error {
		f, err := layout{table: `{{.Type}}\t{{.Digest}}\t{{.Size}}`}.parseRows(format, quiet)
		if err != nil {
			return err
		}
		q := url.Values{"name": {args[0]}}
		for key, value := range map[string]string{"type": kind, "platform": platform} {
			if value != "" {
				q.Set(key, value)
			}
		}
		if insecure {
			q.Set("insecure", "1")
		}
		list, err := referrers(cmd.Context(), app, args[0], q)
		if err != nil {
			return err
		}
		rows := make([]referrerRow, 0, len(list))
		for _, d := range list {
			row := referrerRow{Type: d.ArtifactType, Digest: d.Digest.String(), ID: d.Digest.String(), Size: humanSize(d.Size)}
			if !whole && format == "" {
				row.Digest = shortID(row.Digest)
			}
			rows = append(rows, row)
		}
		return writeRows(app.Out, f, rows)
	}}
	c.Flags().StringVar(&kind, "type", "", "List only artifacts of this type")
	c.Flags().StringVar(&platform, "platform", "", "List what refers to one platform's manifest, such as linux/arm64, not to the whole image")
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "Print digests only")
	c.Flags().BoolVar(&whole, "no-trunc", false, "Do not shorten digests")
	insecureFlag(c, &insecure)
	formatFlag(c, &format, "")
	return c
}

// referrers are sorted by their type.
func referrers(ctx context.Context, app *App, name string, q url.Values) ([]ocispec.Descriptor, error) {
	c, err := app.Client()
	if err != nil {
		return nil, err
	}
	var answer struct{ Referrers []ocispec.Descriptor }
	r := client.Request{Path: "/wherry/referrers", Query: q, Header: authHeader(app, splitName(name).registry)}
	if err := c.Do(ctx, r, &answer); err != nil {
		return nil, err
	}
	list := answer.Referrers
	sort.SliceStable(list, func(i, j int) bool { return list[i].ArtifactType < list[j].ArtifactType })
	return list, nil
}

func imageAttachCommand(app *App) *cobra.Command {
	f := &makeFlags{}
	var platform string
	var insecure bool
	c := &cobra.Command{Use: "attach [OPTIONS] IMAGE FILE[:MEDIATYPE]...", Args: atLeast(2), RunE: func(cmd *cobra.Command, args []string) error {
		if f.kind == "" {
			return errors.New("attach: say what it is with --type, such as application/spdx+json")
		}
		q := f.query(url.Values{"image": {args[0]}})
		if platform != "" {
			q.Set("platform", platform)
		}
		if insecure {
			q.Set("insecure", "1")
		}
		r := client.Request{Path: "/wherry/attach", Query: q, Header: authHeader(app, splitName(args[0]).registry)}
		d, err := f.send(cmd.Context(), app, r, args[1:])
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(app.Out, d.Digest)
		return err
	}}
	f.add(c)
	c.Flags().StringVar(&platform, "platform", "", "Attach it to one platform's manifest, such as linux/arm64, not to the whole image")
	insecureFlag(c, &insecure)
	return c
}
