package buildclient

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/identity"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/upload/uploadprovider"
	"github.com/tonistiigi/fsutil"

	"wherry.dev/wherry/internal/buildopt"
)

// Mounts lists the directories of RUN --mount=type=cache, or takes one out as a tar or in from one. The engine has no way to either; a step
// that has the directory mounted can do both, and this program itself is what runs in it:
//
//	export   tool, cache → /out/cache.tar → the tar exporter → FILE
//	import   FILE → an upload → /in/cache.tar, tool → cache
func (c *Client) Mounts(ctx context.Context, m buildopt.Mounts) error {
	known, err := c.cacheMounts(ctx)
	if err != nil {
		return err
	}
	switch m.Verb {
	case "ls":
		return c.listMounts(known)
	case "export":
		if !slices.ContainsFunc(known, func(k cacheMount) bool { return k.key == m.Key() }) {
			return fmt.Errorf("there is no cache mount %s; wherry builder cache ls lists them", m.ID)
		}
		return c.exportMount(ctx, m)
	}
	return c.importMount(ctx, m)
}

// cacheMount is one that the engine keeps.
type cacheMount struct {
	key  string
	size int64
	used *time.Time
}

// cacheMounts are known by the descriptions that BuildKit gives them: cached mount /target from … with id "key"
func (c *Client) cacheMounts(ctx context.Context) ([]cacheMount, error) {
	list, err := c.kit.DiskUsage(ctx, client.WithFilter([]string{"type==" + string(client.UsageRecordTypeCacheMount)}))
	if err != nil {
		return nil, plain(err)
	}
	var out []cacheMount
	for _, r := range list {
		if _, id, ok := strings.Cut(r.Description, ` with id "`); ok {
			out = append(out, cacheMount{key: strings.TrimSuffix(id, `"`), size: r.Size, used: r.LastUsedAt})
		}
	}
	return out, nil
}

func (c *Client) listMounts(list []cacheMount) error {
	tw := tabwriter.NewWriter(c.Out, 10, 1, 3, ' ', 0)
	fmt.Fprintln(tw, "ID\tSIZE\tLAST USED")
	for _, m := range list {
		used := "never"
		if m.used != nil {
			used = units.HumanDuration(time.Since(*m.used)) + " ago"
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\n", oneLine(strings.TrimPrefix(m.key, "/")), size(m.size), used)
	}
	return tw.Flush()
}

// Places in a step that packs or unpacks.
const (
	mountTool  = "tool"
	cacheDir   = "/cache"
	packedName = "cache.tar"
)

// step that runs this program with the cache mounted.
func (c *Client) mountStep(m buildopt.Mounts, words ...string) (llb.ExecState, error) {
	owner, owned, err := m.Owner()
	if err != nil {
		return llb.ExecState{}, err
	}
	base, opts := llb.Scratch(), []llb.MountOption{llb.AsPersistentCacheDir(m.Key(), llb.CacheMountLocked)}
	if owned { // as BuildKit's frontend makes it: the mount is another one with another owner
		base = base.File(llb.Mkdir(cacheDir, os.FileMode(owner[2]), llb.WithUIDGID(owner[0], owner[1])), llb.WithCustomName("[internal] setting cache mount permissions"))
		opts = append(opts, llb.SourcePath(cacheDir))
	}
	self, err := os.Executable()
	if err != nil {
		return llb.ExecState{}, fmt.Errorf("find this program: %w", err)
	}
	name := filepath.Base(self)
	tool := llb.Local(mountTool, llb.IncludePatterns([]string{name}), llb.SharedKeyHint("wherry-build"), llb.WithCustomName("[internal] load "+name))
	return llb.Scratch().Run(
		llb.Args(append([]string{"/tool/" + name}, words...)), llb.AddMount("/tool", tool, llb.Readonly), llb.AddMount(cacheDir, base, opts...),
		// It is never the same step twice. (To ignore the cache would have BuildKit empty the mount first.)
		llb.AddEnv("WHERRY_STEP", identity.NewID()), llb.Network(llb.NetModeNone), llb.WithCustomName("cache mount "+m.ID),
	), nil
}

// runStep has the engine do it.
func (c *Client) runStep(ctx context.Context, st llb.State, opt client.SolveOpt) error {
	def, err := st.Marshal(ctx)
	if err != nil {
		return fmt.Errorf("describe the step: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	dir, err := fsutil.NewFS(filepath.Dir(self))
	if err != nil {
		return err
	}
	opt.LocalMounts = map[string]fsutil.FS{mountTool: dir}
	opt.SharedKey = sharedKey(filepath.Dir(self))
	_, err = c.kit.Solve(ctx, def, opt, nil)
	if ctx.Err() != nil {
		return &ExitError{Code: interrupted, Cause: errors.New("interrupted")}
	}
	if err != nil {
		return plain(err)
	}
	return nil
}

func (c *Client) exportMount(ctx context.Context, m buildopt.Mounts) error {
	step, err := c.mountStep(m, "cache-pack", cacheDir, "/out/"+packedName)
	if err != nil {
		return err
	}
	var into io.WriteCloser = keepOpen{c.Out}
	file := &resultFile{path: m.File}
	j := job{files: []*resultFile{file}}
	defer j.dropFiles()
	if m.File != "-" {
		if into, err = file.open(nil); err != nil {
			return err
		}
	}
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		size, err := unwrap(into, r)
		if err == nil && size <= emptyTar {
			fmt.Fprintf(c.Err, "note: it is empty; where the Dockerfile says uid=, gid= or mode= of this mount, say the same here\n")
		}
		r.CloseWithError(err)
		done <- errors.Join(err, into.Close())
	}()
	output := func(map[string]string) (io.WriteCloser, error) { return w, nil }
	err = c.runStep(ctx, step.AddMount("/out", llb.Scratch()), client.SolveOpt{Exports: []client.ExportEntry{{Type: client.ExporterTar, Output: output}}})
	w.CloseWithError(errors.Join(err, io.EOF))
	if e := <-done; err == nil {
		err = e
	}
	if err != nil || m.File == "-" {
		return err
	}
	return file.keep()
}

// emptyTar is the size of a tar without entries.
const emptyTar = 1024

// unwrap takes the packed cache out of the tar that it comes in, and says how large it is.
func unwrap(w io.Writer, r io.Reader) (int64, error) {
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if err != nil {
			return 0, fmt.Errorf("read what the engine sends: %w", err)
		}
		if filepath.Base(h.Name) != packedName {
			continue
		}
		n, err := io.Copy(w, tr)
		if err == nil {
			_, err = io.Copy(io.Discard, r)
		}
		return n, err
	}
}

func (c *Client) importMount(ctx context.Context, m buildopt.Mounts) error {
	in := io.NopCloser(c.In)
	if m.File != "-" {
		f, err := os.Open(m.File)
		if err != nil {
			return err
		}
		in = f
	}
	step, err := c.mountStep(m, "cache-unpack", "/in/"+packedName, cacheDir)
	if err != nil {
		return err
	}
	up := uploadprovider.New()
	input := llb.HTTP(up.Add(in), llb.Filename(packedName), llb.WithCustomName("[internal] load the tar"))
	step.AddMount("/in", input, llb.Readonly)
	return c.runStep(ctx, step.Root(), client.SolveOpt{Session: []session.Attachable{up}})
}
