package test

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	bk "github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
)

// graph is what a client of BuildKit's protocol may ask for: a step of busybox that prints, with whatever was changed in it.
func graph(t *testing.T, change func(*pb.Op), options ...llb.RunOption) *llb.Definition {
	t.Helper()
	options = append([]llb.RunOption{llb.Args([]string{"sh", "-c", "echo SE''EN: it ran >&2; cat /m/secret /c/secret"}), llb.IgnoreCache}, options...)
	def, err := llb.Image("docker.io/library/busybox:1").Run(options...).Root().Marshal(t.Context(), llb.LinuxAmd64)
	ok(t, err)
	return changed(t, def, change)
}

// changed rewrites a definition; operations name those that they rest on by digest, and come after them.
func changed(t *testing.T, def *llb.Definition, change func(*pb.Op)) *llb.Definition {
	t.Helper()
	is := map[string]string{}
	for i, b := range def.Def {
		var op pb.Op
		ok(t, op.UnmarshalVT(b))
		for _, in := range op.Inputs {
			if d := is[in.Digest]; d != "" {
				in.Digest = d
			}
		}
		change(&op)
		after, err := op.MarshalVT()
		ok(t, err)
		was := digest.FromBytes(b)
		is[string(was)] = string(digest.FromBytes(after))
		def.Metadata[digest.FromBytes(after)] = def.Metadata[was]
		def.Def[i] = after
	}
	return def
}

// TestUnknownAndForbiddenRequests: moby/buildkit 64bbec89c (GHSA-7236-3392-c5c6), CVE-2024-23653, CVE-2024-23650 and CVE-2026-33747: what a
// frontend asks for is refused where it is not known or not allowed, is never the insecure case of a switch, and never leads outside.
func TestUnknownAndForbiddenRequests(t *testing.T) {
	h := newHostileBuild(t)
	c, err := bk.New(t.Context(), shared.engine.host())
	ok(t, err)
	defer c.Close()
	exec := func(f func(*pb.ExecOp)) func(*pb.Op) {
		return func(op *pb.Op) {
			if e := op.GetExec(); e != nil {
				f(e)
			}
		}
	}
	mount := func(f func(*pb.Mount)) func(*pb.Op) {
		return exec(func(e *pb.ExecOp) {
			for _, m := range e.Mounts {
				if m.Dest == "/c" {
					f(m)
				}
			}
		})
	}
	source := func(id string, attrs map[string]string) func(*pb.Op) {
		return func(op *pb.Op) {
			if s := op.GetSource(); s != nil {
				s.Identifier, s.Attrs = id, attrs
			}
		}
	}
	up := h.fill("UP")
	refused := map[string]func(*pb.Op){
		"security mode 2":          exec(func(e *pb.ExecOp) { e.Security = 2 }),
		"security mode -1":         exec(func(e *pb.ExecOp) { e.Security = -1 }),
		"security mode insecure":   exec(func(e *pb.ExecOp) { e.Security = pb.SecurityMode_INSECURE }),
		"network mode 3":           exec(func(e *pb.ExecOp) { e.Network = 3 }),
		"network mode -1":          exec(func(e *pb.ExecOp) { e.Network = -1 }),
		"network of the host":      exec(func(e *pb.ExecOp) { e.Network = pb.NetMode_HOST }),
		"the host, in other words": exec(func(e *pb.ExecOp) { e.Meta.CgroupParent = "wherry-network:host:" }),
		"nobody's network":         exec(func(e *pb.ExecOp) { e.Meta.CgroupParent = "wherry-network:container:x:" }),
		"mount type 5":             mount(func(m *pb.Mount) { m.MountType = 5 }),
		"cache sharing 3":          mount(func(m *pb.Mount) { m.CacheOpt.Sharing = 3 }),
		"mount's input 99":         mount(func(m *pb.Mount) { m.Input = 99 }),
		"mount's input -5":         mount(func(m *pb.Mount) { m.Input = -5 }),
		"cache without options":    mount(func(m *pb.Mount) { m.CacheOpt = nil }),
		"no meta":                  exec(func(e *pb.ExecOp) { e.Meta = nil }),
		"no arguments":             exec(func(e *pb.ExecOp) { e.Meta.Args = nil }),
		"no mounts":                exec(func(e *pb.ExecOp) { e.Mounts = nil }),
		"a device":                 exec(func(e *pb.ExecOp) { e.CdiDevices = []*pb.CDIDevice{{Name: "vendor.example/all=mem"}} }),
		"no source":                source("", nil),
		"a source of no scheme":    source("no-such://x", nil),
		"an image of no name":      source("docker-image://", nil),
		"an image upwards":         source("docker-image://"+up, nil),
		"a layout upwards":         source("oci-layout://"+up+"@sha256:"+strings.Repeat("0", 64), nil),
		"git with an option":       source("git://--upload-pack=touch "+h.out+"/made;", nil),
		"git by a program":         source("git://x", map[string]string{"git.fullurl": "ext::touch " + h.out + "/made"}),
		"git, a file":              source("git://x", map[string]string{"git.fullurl": "file://" + h.out}),
		"a file by http upwards":   source(h.server+"/no/such", map[string]string{"http.filename": up + "/made"}),
		"a local directory abroad": source("local://"+up, nil),
		"an empty operation":       func(op *pb.Op) { op.Op = nil },
		"an input of no digest":    func(op *pb.Op) { op.Inputs = append(op.Inputs, &pb.Input{Digest: "sha256:x", Index: 7}) },
	}
	for name, change := range refused {
		t.Run(name, func(t *testing.T) {
			out, err := solve(t, c, graph(t, change, llb.AddMount("/c", llb.Scratch(), llb.AsPersistentCacheDir("llb", llb.CacheMountShared))))
			if err == nil {
				t.Error("it is not refused")
			}
			h.blind(t, out)
		})
	}
	inside := map[string]func(*pb.Op){
		"an output of its own": mount(func(m *pb.Mount) { m.Output = 99 }),
		"mounted upwards":      mount(func(m *pb.Mount) { m.Dest = "/" + up + "/etc" }),
		"selected upwards":     mount(func(m *pb.Mount) { m.Selector = up }),
		"a cache's id":         mount(func(m *pb.Mount) { m.CacheOpt.ID = up }),
		"working upwards":      exec(func(e *pb.ExecOp) { e.Meta.Cwd = "/" + up + "/deeper" }),
		"a group upwards":      exec(func(e *pb.ExecOp) { e.Meta.CgroupParent = "/" + up }),
		"a host name upwards":  exec(func(e *pb.ExecOp) { e.Meta.Hostname = up }),
		"hosts of two lines": exec(func(e *pb.ExecOp) {
			e.Meta.ExtraHosts = []*pb.HostIP{{Host: "a\n127.0.0.1 " + up, IP: "x"}}
		}),
		"a user of no number": exec(func(e *pb.ExecOp) { e.Meta.User = "4294967296:-1" }),
		"limits of no kind":   exec(func(e *pb.ExecOp) { e.Meta.Ulimit = []*pb.Ulimit{{Name: "no-such", Soft: -7, Hard: 1 << 60}} }),
	}
	defer removeGroups(t, up) // a parent that a request names is the requester's: it stays, as with other engines
	for name, change := range inside {
		t.Run(name, func(t *testing.T) {
			out, _ := solve(t, c, graph(t, change, llb.AddMount("/c", llb.Scratch(), llb.AsPersistentCacheDir("llb", llb.CacheMountShared))))
			h.blind(t, strings.ReplaceAll(out, "SEEN: it ran", ""))
		})
	}
	t.Run("bytes of no meaning", func(t *testing.T) {
		def := graph(t, func(*pb.Op) {})
		def.Def = append(def.Def, []byte("\xff\x00garbage"), nil)
		if out, err := solve(t, c, def); err == nil {
			t.Errorf("it is not refused: %s", out)
		}
	})
	t.Run("a frontend's containers and files", func(t *testing.T) { frontendRequests(t, h, c) })
	// What is allowed runs, with the same client.
	if out, err := solve(t, c, graph(t, func(*pb.Op) {}, llb.Args([]string{"echo", "it", "runs"}))); err != nil || !strings.Contains(out, "it runs") {
		t.Errorf("%v: %s", err, out)
	}
}

// solve returns what the steps print.
func solve(t *testing.T, c *bk.Client, def *llb.Definition) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	status := make(chan *bk.SolveStatus)
	printed := make(chan string)
	go func() {
		var b strings.Builder
		for s := range status {
			for _, l := range s.Logs {
				b.Write(l.Data)
			}
		}
		printed <- b.String()
	}()
	_, err := c.Solve(ctx, def, bk.SolveOpt{}, status)
	return <-printed, err
}

// frontendRequests asks what a program does that writes builds: for files of results, and for processes beside the build.
func frontendRequests(t *testing.T, h *hostileBuild, c *bk.Client) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	_, err := c.Build(ctx, bk.SolveOpt{}, "", func(ctx context.Context, g gateway.Client) (*gateway.Result, error) {
		def := graph(t, func(*pb.Op) {}, llb.Args([]string{"ln", "-s", h.out, "/link"}))
		result, err := g.Solve(ctx, gateway.SolveRequest{Definition: def.ToPB(), Evaluate: true})
		if err != nil {
			return nil, fmt.Errorf("solve: %w", err)
		}
		ref, err := result.SingleRef()
		if err != nil {
			return nil, err
		}
		for _, name := range []string{h.out + "/secret", h.fill("UP/secret"), "/link/secret", "link/../" + h.fill("UP/secret"), "/proc/1/root" + h.out + "/secret"} {
			if b, err := ref.ReadFile(ctx, gateway.ReadRequest{Filename: name}); err == nil {
				t.Errorf("%s is read: %q", name, b)
			}
			if _, err := ref.StatFile(ctx, gateway.StatRequest{Path: name}); err == nil {
				t.Errorf("%s is found", name)
			}
		}
		for _, name := range []string{h.out, h.fill("UP"), "/link", "/link/etc"} {
			list, _ := ref.ReadDir(ctx, gateway.ReadDirRequest{Path: name})
			for _, f := range list {
				if strings.Contains(f.Path, "secret") || strings.Contains(f.Path, "docker-init") {
					t.Errorf("%s is listed: %s", name, f.Path)
				}
			}
		}
		for _, r := range []gateway.NewContainerRequest{
			{NetMode: pb.NetMode_HOST}, {NetMode: 3}, {NetMode: -1},
			{Mounts: []gateway.Mount{{Dest: "/c", MountType: 9}}},
			{Mounts: []gateway.Mount{{Dest: "/c", MountType: pb.MountType_CACHE, CacheOpt: &pb.CacheOpt{ID: "x", Sharing: 9}}}},
			{Mounts: []gateway.Mount{{Dest: h.fill("/UP/etc"), MountType: pb.MountType_TMPFS}}},
		} {
			r.Mounts = append([]gateway.Mount{{Dest: "/", Ref: ref, MountType: pb.MountType_BIND}}, r.Mounts...)
			out, err := runBeside(ctx, g, r, gateway.StartRequest{Args: []string{"sh", "-c", "echo ran; cat /c/secret /link/secret"}, Cwd: "/"})
			h.blind(t, out)
			if err == nil || r.NetMode != 0 && strings.Contains(out, "ran") {
				t.Errorf("%v of %v is not refused: %s", r.NetMode, r.Mounts[1:], out)
			}
		}
		plain := gateway.NewContainerRequest{Mounts: []gateway.Mount{{Dest: "/", Ref: ref, MountType: pb.MountType_BIND}}}
		for _, mode := range []pb.SecurityMode{pb.SecurityMode_INSECURE, 2, -1} {
			out, err := runBeside(ctx, g, plain, gateway.StartRequest{Args: []string{"echo", "ran"}, Cwd: "/", SecurityMode: mode})
			if err == nil || strings.Contains(out, "ran") {
				t.Errorf("security mode %v is not refused: %s", mode, out)
			}
		}
		for range 5 { // it waits until there is something to join
			if out, err := runAtOnce(ctx, g, plain); err != nil || out != "ran\n" {
				t.Errorf("a process beside one that begins: %v: %q", err, out)
			}
		}
		out, err := runBeside(ctx, g, plain, gateway.StartRequest{Args: []string{"sh", "-c", "echo ran; cat secret /link/secret; touch made"}, Cwd: h.fill("/UP")})
		h.blind(t, out)
		if out, err = runBeside(ctx, g, plain, gateway.StartRequest{Args: []string{"echo", "ran"}, Cwd: "/"}); err != nil || !strings.Contains(out, "ran") {
			t.Errorf("what is allowed: %v: %s", err, out)
		}
		return result, nil
	}, nil)
	if err != nil {
		t.Error(err)
	}
}

// runBeside runs a process in a container of its own, and returns what it printed.
func runBeside(ctx context.Context, g gateway.Client, r gateway.NewContainerRequest, s gateway.StartRequest) (string, error) {
	c, err := g.NewContainer(ctx, r)
	if err != nil {
		return "", err
	}
	defer c.Release(ctx)
	var out output
	s.Stdout, s.Stderr = &out, &out
	p, err := c.Start(ctx, s)
	if err != nil {
		return out.String(), err
	}
	err = p.Wait()
	return out.String(), err
}

// runAtOnce runs a process in a container whose first one was started a moment ago.
func runAtOnce(ctx context.Context, g gateway.Client, r gateway.NewContainerRequest) (string, error) {
	c, err := g.NewContainer(ctx, r)
	if err != nil {
		return "", err
	}
	in, _ := io.Pipe() // which nobody closes: the container goes nevertheless
	first, err := c.Start(ctx, gateway.StartRequest{Args: []string{"cat"}, Cwd: "/", Stdin: in})
	if err != nil {
		return "", err
	}
	defer func() {
		_ = c.Release(ctx)
		_ = first.Wait()
	}()
	var out output
	p, err := c.Start(ctx, gateway.StartRequest{Args: []string{"echo", "ran"}, Cwd: "/", Stdout: &out, Stderr: &out})
	if err == nil {
		err = p.Wait()
	}
	return out.String(), err
}

// output keeps what a process prints, both streams.
type output struct {
	mu sync.Mutex
	b  strings.Builder // guarded by mu
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) Close() error { return nil }

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// removeGroups takes away the control groups that were made for a parent, in each hierarchy.
func removeGroups(t *testing.T, parent string) {
	t.Helper()
	parent = filepath.Clean("/" + parent)
	for _, pattern := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		tops, err := filepath.Glob(pattern)
		ok(t, err)
		for _, top := range tops {
			for at := parent; at != "/"; at = filepath.Dir(at) {
				if err := os.Remove(top + at); err != nil { // not there, or somebody else's are in it
					break
				}
			}
		}
	}
}
