package cli

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"wherry.dev/wherry/internal/client"
)

// artifactCommands are about artifacts: files that registries keep beside images.
func artifactCommands() []command {
	line := func(verb, short string, build func(*App) *cobra.Command, also ...string) command {
		return command{name: "artifact " + verb, group: groupOther, short: short, build: build, also: also}
	}
	return []command{
		line("add", "Make an artifact of files", artifactAddCommand),
		line("push", "Send an artifact to a registry, made of files or made before", artifactPushCommand),
		line("pull", "Fetch an artifact from a registry", artifactPullCommand),
		line("extract", "Write the files of an artifact to a directory", artifactExtractCommand),
		line("ls", "List artifacts", artifactListCommand, "artifact list"),
		line("inspect", "Print all about artifacts", artifactInspectCommand),
		line("rm", "Remove artifacts", artifactRmCommand, "artifact remove"),
	}
}

// artifact is one as the engine shows it.
type artifact struct {
	Name        string `json:",omitempty"`
	Digest      string
	Type        string
	Size        int64
	Created     time.Time           `json:",omitzero"`
	Subject     *ocispec.Descriptor `json:",omitempty"`
	Annotations map[string]string   `json:",omitempty"`
	Files       []artifactFile
}

type artifactFile struct {
	Name, MediaType, Digest string
	Size                    int64
	Annotations             map[string]string `json:",omitempty"`
}

// makeFlags say what an artifact of files is.
type makeFlags struct {
	kind, fileKind string
	annotations    listFlag
}

func (f *makeFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.kind, "type", "", "Type of the artifact, such as application/vnd.example.thing")
	c.Flags().StringVar(&f.fileKind, "file-type", "", "Media type of files that are given without one (default application/octet-stream)")
	c.Flags().Var(&f.annotations, "annotation", "Annotation of the artifact, key=value")
}

func (f *makeFlags) query(q url.Values) url.Values {
	if f.kind != "" {
		q.Set("type", f.kind)
	}
	for _, a := range f.annotations.values {
		q.Add("annotation", a)
	}
	return q
}

// send makes an artifact of files by a route that takes them.
func (f *makeFlags) send(ctx context.Context, app *App, r client.Request, files []string) (ocispec.Descriptor, error) {
	var d ocispec.Descriptor
	c, err := app.Client()
	if err != nil {
		return d, err
	}
	body, err := packFiles(files, f.fileKind)
	if err != nil {
		return d, err
	}
	defer body.Close()
	r.Method, r.Body = http.MethodPost, body
	if r.Header == nil {
		r.Header = http.Header{}
	}
	r.Header.Set("Content-Type", "application/x-tar")
	res, err := c.Stream(ctx, r)
	if err != nil {
		return d, err
	}
	defer res.Body.Close()
	return d, json.NewDecoder(res.Body).Decode(&d)
}

// namedFile is a file for an artifact: NAME, or NAME:MEDIA/TYPE.
type namedFile struct {
	path, name, kind string
	size             int64
}

func parseFile(arg, kind string) (namedFile, error) {
	f := namedFile{path: arg, kind: kind}
	st, err := os.Stat(arg)
	if at := strings.LastIndexByte(arg, ':'); err != nil && at > 0 && strings.Contains(arg[at:], "/") {
		f.path, f.kind = arg[:at], arg[at+1:]
		st, err = os.Stat(f.path)
	}
	if err != nil {
		return f, err
	}
	if !st.Mode().IsRegular() {
		return f, fmt.Errorf("%s is no file", f.path)
	}
	f.size = st.Size()
	if f.name = filepath.Clean(f.path); !filepath.IsLocal(f.name) {
		f.name = filepath.Base(f.name)
	}
	return f, nil
}

// packFiles sends files as a tar.
func packFiles(args []string, kind string) (io.ReadCloser, error) {
	var files []namedFile
	for _, arg := range args {
		f, err := parseFile(arg, kind)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	r, w := io.Pipe()
	go func() { // ends with the reader: what it writes to an end that is closed is an error
		t := tar.NewWriter(w)
		var err error
		for i := 0; i < len(files) && err == nil; i++ {
			err = files[i].pack(t)
		}
		if err == nil {
			err = t.Close()
		}
		w.CloseWithError(err)
	}()
	return r, nil
}

func (f namedFile) pack(t *tar.Writer) error {
	in, err := os.Open(f.path)
	if err != nil {
		return err
	}
	defer in.Close()
	h := &tar.Header{Typeflag: tar.TypeReg, Name: filepath.ToSlash(f.name), Mode: 0o644, Size: f.size}
	if f.kind != "" {
		h.PAXRecords = map[string]string{"WHERRY.type": f.kind}
	}
	if err := t.WriteHeader(h); err != nil {
		return err
	}
	_, err = io.Copy(t, io.LimitReader(in, f.size))
	return err
}

func artifactAddCommand(app *App) *cobra.Command {
	f := &makeFlags{}
	c := &cobra.Command{Use: "add [OPTIONS] NAME[:TAG] FILE[:MEDIATYPE]...", Args: atLeast(2), RunE: func(cmd *cobra.Command, args []string) error {
		d, err := f.send(cmd.Context(), app, client.Request{Path: "/wherry/artifacts", Query: f.query(url.Values{"name": {args[0]}})}, args[1:])
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(app.Out, d.Digest)
		return err
	}}
	f.add(c)
	return c
}

func artifactPushCommand(app *App) *cobra.Command {
	f := &makeFlags{}
	var insecure bool
	c := &cobra.Command{Use: "push [OPTIONS] NAME[:TAG] [FILE[:MEDIATYPE]...]", Args: atLeast(1), RunE: func(cmd *cobra.Command, args []string) error {
		if len(args) > 1 {
			if _, err := f.send(cmd.Context(), app, client.Request{Path: "/wherry/artifacts", Query: f.query(url.Values{"name": {args[0]}})}, args[1:]); err != nil {
				return err
			}
		} else if f.kind != "" || f.fileKind != "" || len(f.annotations.values) > 0 {
			return errors.New("--type, --file-type and --annotation say what files are made into: name the files, too")
		}
		return moveArtifact(cmd.Context(), app, "push", args[0], insecure)
	}}
	f.add(c)
	insecureFlag(c, &insecure)
	return c
}

func moveArtifact(ctx context.Context, app *App, verb, name string, insecure bool) error {
	q := url.Values{"name": {name}}
	if insecure {
		q.Set("insecure", "1")
	}
	return postAndShow(ctx, app, app.Out, client.Request{Method: http.MethodPost, Path: "/wherry/artifacts/" + verb, Query: q, Header: authHeader(app, splitName(name).registry)})
}

func artifactPullCommand(app *App) *cobra.Command {
	var insecure bool
	var output string
	c := &cobra.Command{Use: "pull [OPTIONS] NAME[:TAG|@DIGEST]", Args: exactly(1), RunE: func(cmd *cobra.Command, args []string) error {
		if err := moveArtifact(cmd.Context(), app, "pull", args[0], insecure); err != nil || output == "" {
			return err
		}
		return extractArtifact(cmd.Context(), app, args[0], output)
	}}
	c.Flags().StringVarP(&output, "output", "o", "", "Write the files to this directory, too")
	insecureFlag(c, &insecure)
	return c
}

func artifactExtractCommand(app *App) *cobra.Command {
	return &cobra.Command{Use: "extract NAME[:TAG|@DIGEST] DIRECTORY", Args: exactly(2), RunE: func(cmd *cobra.Command, args []string) error {
		return extractArtifact(cmd.Context(), app, args[0], args[1])
	}}
}

// extractArtifact writes files beside those that are there, and over none.
func extractArtifact(ctx context.Context, app *App, name, dir string) error {
	c, err := app.Client()
	if err != nil {
		return err
	}
	res, err := c.Stream(ctx, client.Request{Path: "/wherry/artifacts/files", Query: url.Values{"name": {name}}})
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := unpackLayout(dir, res.Body); err != nil {
		return fmt.Errorf("write to %s: %w", dir, err)
	}
	return nil
}

// artifactRow is a line of `artifact ls`.
type artifactRow struct {
	Repository   string
	Tag          string
	Digest       string
	Type         string
	CreatedSince string `head:"CREATED"`
	Size         string
	ID           string `head:"-"`
}

func artifactListCommand(app *App) *cobra.Command {
	var format string
	var quiet, whole bool
	c := &cobra.Command{Use: "ls [OPTIONS]", Args: exactly(0), RunE: func(cmd *cobra.Command, args []string) error {
		f, err := layout{table: `{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.Type}}\t{{.Size}}`}.parseRows(format, quiet)
		if err != nil {
			return err
		}
		cl, err := app.Client()
		if err != nil {
			return err
		}
		var list []artifact
		if err := cl.Get(cmd.Context(), "/wherry/artifacts", nil, &list); err != nil {
			return err
		}
		rows := make([]artifactRow, 0, len(list))
		for _, a := range list {
			row := artifactRow{Repository: "<none>", Tag: "<none>", Digest: a.Digest, ID: a.Digest, Type: a.Type, Size: humanSize(a.Size), CreatedSince: ago(time.Now(), a.Created)}
			if !whole {
				row.Digest = shortID(a.Digest)
			}
			if a.Name != "" {
				row.Repository = repository(a.Name)
				if n := splitName(a.Name); n.tag != "" {
					row.Tag = n.tag
				}
			}
			rows = append(rows, row)
		}
		return writeRows(app.Out, f, rows)
	}}
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "Print digests only")
	c.Flags().BoolVar(&whole, "no-trunc", false, "Do not shorten digests")
	formatFlag(c, &format, "")
	return c
}

func artifactInspectCommand(app *App) *cobra.Command {
	return oneInspect[artifact](app, "NAME", func(name string) (string, url.Values, error) {
		return "/wherry/artifacts/inspect", url.Values{"name": {name}}, nil
	})
}

func artifactRmCommand(app *App) *cobra.Command {
	return &cobra.Command{Use: "rm NAME...", Args: atLeast(1), RunE: func(cmd *cobra.Command, args []string) error {
		c, err := app.Client()
		if err != nil {
			return err
		}
		return each(cmd.Context(), app, args, func(name string) error {
			if err := c.Delete(cmd.Context(), "/wherry/artifacts", url.Values{"name": {name}}, nil); err != nil {
				return err
			}
			_, err := fmt.Fprintln(app.Out, "Deleted:", name)
			return err
		})
	}}
}
