package review

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
)

const module = "wherry.dev/wherry"

// layers is the architecture: a package may import packages of this module that stand on a line further down, and, where its own line
// says so, ones that stand before it on the same line ("a < b": b may import a). The lines between the dashes have no names in code.
const layers = `
cmd:        cmd/oar cmd/wherry cmd/wherryd cmd/wherry-build cmd/wherry-verify
edges:      client buildopt explain < cli buildclient
edges:      api/docker < build
upper:      verify metrics tracing
upper:      monitor files < disk
service:    container
services:   sandbox volume secret image network/dns network/firewall < network
mechanisms: task compare cdi
mechanisms: snapshot
mechanisms: registry < trust
runtime:    ociruntime shim
leaves:     sysprog < rootfs access < event
leaves:     cgroup < systemd
leaves:     resctrl
leaves:     erofs
leaves:     layer
leaves:     archive < mend
leaves:     login version network/link network/localhost criu seccomp logs ref settings contexts lockfile sources spec
leaves:     why signals
leaves:     inflate apart retar contract threads
leaves:     evidence < policy
leaves:     mutual audit plugin forward
leaves:     mountinfo bpf ready sparse room terse awake
`

// leafPackages may use these and nothing else from outside the standard library.
const leafImports = `
golang.org/x/sys golang.org/x/net/bpf github.com/containerd/errdefs github.com/opencontainers/runtime-spec
github.com/opencontainers/go-digest github.com/opencontainers/image-spec github.com/moby/moby/api github.com/moby/docker-image-spec
github.com/elastic/go-seccomp-bpf/arch github.com/klauspost/compress github.com/moby/profiles/seccomp github.com/distribution/reference
github.com/docker/go-units github.com/fluent/fluent-logger-golang/fluent github.com/pelletier/go-toml/v2 github.com/goccy/go-yaml
`

type goPackage struct {
	Name, ImportPath, Doc, Dir     string
	GoFiles, Imports, Deps, SFiles []string
	TestGoFiles, TestImports       []string
	XTestGoFiles, XTestImports     []string
	Standard                       bool
}

// list runs `go list` in the module's root.
func list(t *testing.T, args ...string) []goPackage {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json"}, args...)...)
	cmd.Dir = "../.."
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %s: %v\n%s", strings.Join(args, " "), err, &stderr)
	}
	var pkgs []goPackage
	for d := json.NewDecoder(bytes.NewReader(out)); d.More(); {
		var p goPackage
		if err := d.Decode(&p); err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
	return pkgs
}

type place struct {
	line, group int // further down is a larger line; groups of a line are parted by "<"
	layer       string
}

func parseLayers(t *testing.T) map[string]place {
	t.Helper()
	places := map[string]place{}
	for i, line := range strings.Split(strings.TrimSpace(layers), "\n") {
		name, rest, ok := strings.Cut(line, ":")
		if !ok {
			t.Fatalf("layers: no name in %q", line)
		}
		group := 0
		for _, word := range strings.Fields(rest) {
			if word == "<" {
				group++
				continue
			}
			places[word] = place{line: i, group: group, layer: name}
		}
	}
	return places
}

func short(importPath string) string {
	p := strings.TrimPrefix(importPath, module+"/")
	return strings.TrimPrefix(p, "internal/")
}

func TestDepsPointDown(t *testing.T) {
	places := parseLayers(t)
	for _, p := range list(t, "./cmd/...", "./internal/...") {
		name := short(p.ImportPath)
		if name == "review" {
			continue
		}
		from, ok := places[name]
		if !ok {
			t.Errorf("%s stands in no layer: add it to the text in layers_test.go where it belongs", name)
			continue
		}
		for _, imported := range p.Imports {
			if !strings.HasPrefix(imported, module+"/") {
				if from.layer == "leaves" && !allowedInLeaf(imported) {
					t.Errorf("leaf %s imports %s", name, imported)
				}
				continue
			}
			to, ok := places[short(imported)]
			switch {
			case !ok:
			case to.line > from.line:
			case to.line == from.line && to.group < from.group:
			case from.layer == "cmd":
			default:
				t.Errorf("%s (%s) imports %s (%s): arrows only point down", name, from.layer, short(imported), to.layer)
			}
		}
	}
}

func allowedInLeaf(imported string) bool {
	if first, _, _ := strings.Cut(imported, "/"); !strings.Contains(first, ".") {
		return true // standard library
	}
	for _, allowed := range strings.Fields(leafImports) {
		if imported == allowed || strings.HasPrefix(imported, allowed+"/") {
			return true
		}
	}
	return false
}

// TestEdgesAreRemovable: the command line knows no service, only the API.
func TestEdgesAreRemovable(t *testing.T) {
	for _, p := range list(t, "-deps", "./cmd/wherry") {
		name := short(p.ImportPath)
		for _, service := range []string{"container", "image", "network", "volume", "files", "monitor", "task", "ociruntime", "api/docker"} {
			if p.ImportPath == module+"/internal/"+service {
				t.Errorf("cmd/wherry links %s", name)
			}
		}
	}
}

func TestBinariesStaySmall(t *testing.T) {
	rows := []struct {
		cmd       string
		most      int
		forbidden []string
	}{
		{"./cmd/oar", 200, []string{"net/http", "regexp", "google.golang.org/grpc", "google.golang.org/protobuf", "github.com/spf13/cobra"}},
		{"./cmd/wherry", 300, []string{"google.golang.org/grpc", "google.golang.org/protobuf", "go.opentelemetry.io", "github.com/moby/buildkit", "github.com/containerd/containerd", "github.com/distribution/reference"}},
	}
	for _, row := range rows {
		pkgs := list(t, "-deps", row.cmd)
		if len(pkgs) > row.most {
			t.Errorf("%s links %d packages, %d is the budget", row.cmd, len(pkgs), row.most)
		}
		for _, p := range pkgs {
			for _, bad := range row.forbidden {
				if p.ImportPath == bad || strings.HasPrefix(p.ImportPath, bad+"/") {
					t.Errorf("%s links %s", row.cmd, p.ImportPath)
				}
			}
		}
	}
}
