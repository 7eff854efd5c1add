package build

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/exporter"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	gatewayapi "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/session/auth"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/network"
	registrytypes "github.com/moby/moby/api/types/registry"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/api/docker"
	"wherry.dev/wherry/internal/settings"
)

func TestWhatNoStepIsGiven(t *testing.T) {
	for name, m := range map[string]executor.Meta{
		"security.insecure":         {SecurityMode: pb.SecurityMode_INSECURE},
		"invalid security mode 7":   {SecurityMode: 7},
		"network mode 9":            {NetMode: 9},
		"a proxy that records what": {Proxy: &network.ProxyConfig{}},
	} {
		if err := allowedStep(&m, settings.Default().Builds); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, mode := range []pb.NetMode{pb.NetMode_UNSET, pb.NetMode_HOST, pb.NetMode_NONE} {
		if err := allowedStep(&executor.Meta{NetMode: mode}, settings.Builds{}); err != nil {
			t.Errorf("%s: %v", mode, err)
		}
	}
	if err := allowedStep(&executor.Meta{SecurityMode: pb.SecurityMode_INSECURE}, settings.Builds{Entitlements: []string{"security.insecure"}}); err != nil {
		t.Error(err)
	}
}

func TestOverlayViews(t *testing.T) {
	v := overlayView([]string{"rw", "lowerdir=/a:/b", "lowerdir+=/c", "upperdir=/u", "workdir=/w", "index=off"})
	if !slices.Equal(v.Lower, []string{"/a", "/b", "/c"}) || v.Upper != "/u" || v.Work != "/w" || !v.Layer {
		t.Errorf("%+v", v)
	}
	if v := overlayView([]string{"lowerdir=/a"}); v.Upper != "" || v.Layer {
		t.Errorf("a view of layers is written to: %+v", v)
	}
	if _, err := overlayAt(t.TempDir()); err == nil {
		t.Error("an overlay where nothing is mounted")
	}
}

func TestStubsGoAndFilesStay(t *testing.T) {
	layer, outside := t.TempDir(), t.TempDir()
	make := func(name, content string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(layer, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(layer, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	make("etc/resolv.conf", "")
	make("etc/hosts", "kept: the step has written to it")
	make("full/file", "x")
	if err := os.Mkdir(filepath.Join(layer, "empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(outside, "victim"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(layer, "link")); err != nil {
		t.Fatal(err)
	}
	date := time.Unix(1000, 0)
	if err := os.Chtimes(filepath.Join(layer, "etc"), date, date); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"/etc/resolv.conf", "/etc/hosts", "/full", "/empty", "/link/victim", "/../victim", "/missing/x"} {
		if err := removeStub(layer, name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, there := range map[string]bool{"etc/resolv.conf": false, "etc/hosts": true, "full/file": true, "empty": false} {
		if _, err := os.Lstat(filepath.Join(layer, name)); (err == nil) != there {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := os.Lstat(filepath.Join(outside, "victim")); err != nil {
		t.Errorf("a file outside is gone: %v", err)
	}
	if fi, err := os.Stat(filepath.Join(layer, "etc")); err != nil || !fi.ModTime().Equal(date) {
		t.Errorf("etc is dated %v: %v", fi.ModTime(), err)
	}
}

func TestPathsOfMountsStayInside(t *testing.T) {
	root, outside := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("s"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(root, "out")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "in"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	dir, err := os.OpenFile(root, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	for name, found := range map[string]bool{"/in": true, "/": true, "/out/secret": false, "/../" + filepath.Base(outside) + "/secret": false, "/proc/self/root": false} {
		f, err := openIn(dir, name)
		if (err == nil) != found {
			t.Errorf("%s: %v", name, err)
		}
		if f != nil {
			f.Close()
		}
	}
}

func TestContextsAreServedByTheirDigest(t *testing.T) {
	var c contexts
	dir := t.TempDir()
	address, drop, err := c.add(dir, strings.NewReader("an archive"))
	if err != nil {
		t.Fatal(err)
	}
	again, dropAgain, err := c.add(dir, strings.NewReader("an archive"))
	if err != nil || again != address {
		t.Fatalf("%s and %s: %v", address, again, err)
	}
	get := func(method, etag string) (int, string) {
		t.Helper()
		r, err := http.NewRequest(method, address, nil)
		if err != nil {
			t.Fatal(err)
		}
		if etag != "" {
			r.Header.Set("If-None-Match", etag)
		}
		resp, err := c.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode == 200 {
			return resp.StatusCode, resp.Header.Get("Etag") + string(b)
		}
		return resp.StatusCode, string(b)
	}
	etag := `"` + filepath.Base(address) + `"`
	dropAgain()
	dropAgain() // twice is once
	for _, row := range []struct {
		method, etag string
		status       int
		body         string
	}{{"GET", "", 200, etag + "an archive"}, {"GET", "", 200, etag + "an archive"}, {"HEAD", "", 200, etag}, {"GET", etag, 304, ""}, {"GET", `"other"`, 200, etag + "an archive"}} {
		if status, body := get(row.method, row.etag); status != row.status || body != row.body {
			t.Errorf("%s %s: %d %q", row.method, row.etag, status, body)
		}
	}
	drop()
	if status, _ := get("GET", ""); status != 404 {
		t.Errorf("after the build: %d", status)
	}
	if list, _ := os.ReadDir(dir); len(list) != 0 {
		t.Errorf("left behind: %v", list)
	}
}

func TestLoginsAreForTheirRegistry(t *testing.T) {
	l := &logins{byRegistry: map[string]registrytypes.AuthConfig{
		"https://index.docker.io/v1/": {Username: "hub", Password: "h"}, "r.example:5000": {Username: "u", Password: "p"}, "t.example": {IdentityToken: "token"},
	}}
	for host, want := range map[string]string{"registry-1.docker.io": "hub:h", "r.example:5000": "u:p", "t.example": ":token", "r.example": ":", "evil.example": ":", "": ":"} {
		got, err := l.Credentials(t.Context(), &auth.CredentialsRequest{Host: host})
		if err != nil || got.Username+":"+got.Secret != want {
			t.Errorf("%s: %v %v", host, got, err)
		}
	}
}

func TestRequestsBecomeAttributes(t *testing.T) {
	one := "1"
	got, err := (&Builder{}).frontendAttrs(t.Context(), docker.BuildRequest{Dockerfile: "d/f", Target: "t", Args: map[string]*string{"A": &one, "UNSET": nil}, Labels: map[string]string{"l": "v"},
		NoCache: true, Pull: true, Network: "none", Memory: 7, ExtraHosts: []string{"h:10.0.0.1"}, Remote: "https://x/y.git"})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"filename": "d/f", "target": "t", "build-arg:A": "1", "label:l": "v", "no-cache": "", "image-resolve-mode": "pull", "force-network-mode": "none",
		"memory": "7", "add-hosts": "h=10.0.0.1", "context": "https://x/y.git"}
	for k, v := range want {
		if g, ok := got[k]; !ok || g != v {
			t.Errorf("%s: %q, want %q", k, g, v)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%v", got)
	}
	if _, err := (&Builder{}).frontendAttrs(t.Context(), docker.BuildRequest{Network: "container:x"}); err == nil {
		t.Error("a network of a container's is taken")
	}
}

func TestStepsAreNumbered(t *testing.T) {
	for name, want := range map[string]string{
		"[2/3] RUN make": "2/3 RUN make", "[build 10/12] COPY [a] /b": "10/12 COPY [a] /b", "[internal] load build context": "", "exporting to image": "", "[]": "", "[x": "",
		"[1/2] FROM docker.io/library/alpine:latest@sha256:" + strings.Repeat("a", 64): "1/2 FROM alpine", "[1/1] FROM r:5000/x:2@sha256:" + strings.Repeat("a", 64): "1/1 FROM r:5000/x:2",
	} {
		number, text, ok := stepOf(name)
		if got := strings.TrimSpace(number + " " + text); ok != (want != "") || ok && got != want {
			t.Errorf("%s: %q %v", name, got, ok)
		}
	}
}

func TestExportersWords(t *testing.T) {
	attrs := map[string]string{"push": "", "unpack": "true", "dangling-name-prefix": "<none>", "name-canonical": "true", "compression": "zstd"}
	var o own
	if err := o.take(attrs); err != nil || !o.push || !o.store {
		t.Errorf("%+v %v", o, err)
	}
	if len(attrs) != 1 || attrs["compression"] != "zstd" {
		t.Errorf("left for BuildKit: %v", attrs)
	}
	o = own{}
	if err := o.take(map[string]string{"store": "false", "push": "false"}); err != nil || o.store || o.push {
		t.Errorf("%+v %v", o, err)
	}
	if err := new(own).take(map[string]string{"push": "perhaps"}); err == nil {
		t.Error("push=perhaps is taken")
	}
	names, err := fullNames("app, r.example/app:2,")
	if err != nil || !slices.Equal(names, []string{"docker.io/library/app:latest", "r.example/app:2"}) {
		t.Errorf("%v %v", names, err)
	}
	if _, err := fullNames("App:1"); err == nil {
		t.Error("an upper case name is taken")
	}
}

func TestChainNames(t *testing.T) {
	hex := strings.Repeat("ab", 32)
	for in, want := range map[string]string{"buildkit-layer-snapshot-v1-sha256-" + hex: "sha256:" + hex, "xyz": "xyz", "": "", "buildkit-layer-snapshot-v1-sha256-zz": "buildkit-layer-snapshot-v1-sha256-zz"} {
		if got := chainName(in); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
}

func TestTheClockIsNoSource(t *testing.T) {
	src := &exporter.Source{Metadata: map[string][]byte{exptypes.ExporterImageBaseConfigKey: []byte(`{"created":"2024-05-06T07:08:09.5Z"}`)}}
	if got := madeAt(src); got != "1714979289" {
		t.Errorf("on a base image: %s", got)
	}
	for _, config := range []string{"", "{", `{"created":"1970-01-01T00:00:00Z"}`, `{"created":null}`} {
		src.Metadata[exptypes.ExporterImageBaseConfigKey] = []byte(config)
		if got := madeAt(src); got != "315532800" {
			t.Errorf("%q: %s", config, got)
		}
	}
	clock := &exporter.Source{Metadata: map[string][]byte{
		exptypes.ExporterImageBaseConfigKey: []byte(`{"history":[{"created":"1999-01-01T00:00:00Z","created_by":"base"}]}`),
		exptypes.ExporterImageConfigKey:     []byte(`{"created":"2001-02-03T04:05:06.7Z","os":"linux","history":[{"created":"1999-01-01T00:00:00Z","created_by":"base"},{"created":"2001-02-03T04:05:06.7Z","created_by":"step"},{"created_by":"last"}]}`),
		"other":                             []byte(`{"created":"2001-02-03T04:05:06.7Z"}`),
	}}
	want := `{"created":"2024-05-06T07:01:29Z","history":[{"created":"1999-01-01T00:00:00Z","created_by":"base"},{"created":"2024-05-06T07:01:29Z","created_by":"step"},{"created":"2024-05-06T07:01:29Z","created_by":"last"}],"os":"linux"}`
	before := string(clock.Metadata[exptypes.ExporterImageConfigKey])
	then := madeThen(clock, "1714978889")
	if got := string(then.Metadata[exptypes.ExporterImageConfigKey]); got != want || string(then.Metadata["other"]) != string(clock.Metadata["other"]) {
		t.Errorf("made then:\n%s\n%s", got, want)
	}
	if string(clock.Metadata[exptypes.ExporterImageConfigKey]) != before || madeThen(clock, "soon") != clock {
		t.Error("the result itself was changed")
	}
	kept := Options{Settings: settings.Builds{Dates: "kept"}}
	if kept.dates() != "" || new(Options).dates() != "315532800" {
		t.Error("dates")
	}
}

func TestMessagesOfTheFirstBuilder(t *testing.T) {
	var out bytes.Buffer
	p := &legacyProgress{say: func(m docker.BuildMessage) { out.WriteString(m.Stream) }}
	p.end("sha256:"+strings.Repeat("a", 64), docker.BuildRequest{Tags: []string{"x:1", "docker.io/library/y"}})
	if out.String() != "Successfully built aaaaaaaaaaaa\nSuccessfully tagged x:1\nSuccessfully tagged y:latest\n" {
		t.Errorf("%q", out.String())
	}
	out.Reset()
	p.update(&controlapi.StatusResponse{Logs: []*controlapi.VertexLog{{Stream: 1, Msg: []byte("out\n")}, {Stream: 2, Msg: []byte("err\n")}}})
	if out.String() != "out\n\x1b[91merr\n\x1b[0m" {
		t.Errorf("%q", out.String())
	}
	out.Reset()
	p.quiet = true
	p.end("sha256:b", docker.BuildRequest{Tags: []string{"x:1"}})
	if out.String() != "sha256:b\n" {
		t.Errorf("quiet: %q", out.String())
	}
}

func TestInsecureRegistries(t *testing.T) {
	o := &Options{Insecure: []string{"r.lan:5000", "10.0.0.0/8"}}
	for host, want := range map[string]bool{"r.lan:5000": true, "r.lan": false, "10.1.2.3:5000": true, "10.1.2.3": true, "11.1.2.3": false, "docker.io": false, "[fd00::1]:5000": false} {
		if got := o.insecure(host); got != want {
			t.Errorf("%s: %v", host, got)
		}
	}
	for _, host := range []string{"..", "../..", "a/b"} {
		if dir, err := hostDir(host); dir != "" || err != nil {
			t.Errorf("%s: %s %v", host, dir, err)
		}
	}
	hosts, err := o.registryHosts(t.Context())("10.1.2.3:5000")
	if err != nil || len(hosts) != 1 || hosts[0].Host != "10.1.2.3:5000" {
		t.Errorf("%+v %v", hosts, err)
	}
}

func TestFailedStepsInTheFirstBuildersWords(t *testing.T) {
	p := &legacyProgress{}
	exit := &gatewayapi.ExitError{ExitCode: 3}
	err := p.explain(fmt.Errorf(`process "/bin/sh -c echo \"x\"; exit 3" did not complete successfully: %w`, exit))
	var coded interface{ ExitCode() int }
	if !errors.As(err, &coded) || coded.ExitCode() != 3 || err.Error() != `The command '/bin/sh -c echo "x"; exit 3' returned a non-zero code: 3` {
		t.Errorf("%v", err)
	}
	for _, other := range []error{errors.New("x"), &gatewayapi.ExitError{ExitCode: gatewayapi.UnknownExitStatus}} {
		if got := p.explain(other); got != other {
			t.Errorf("%v became %v", other, got)
		}
	}
	if err := p.explain(errors.New("dockerfile parse error on line 1: unknown instruction: lololol")); !errors.Is(err, errInvalid) {
		t.Errorf("what the user has to change: %v", err)
	}
}

func TestWritableSnapshotsAreRemembered(t *testing.T) {
	var u uppers
	dir := t.TempDir()
	options := func(upper string) []mount.Mount {
		return []mount.Mount{{Type: "overlay", Options: []string{"lowerdir=/a:/b", "upperdir=" + upper, "workdir=/w"}}}
	}
	u.note(options(dir))
	for i := range manyUppers - 1 {
		u.note(options(filepath.Join(dir, "gone", strconv.Itoa(i))))
	}
	u.note([]mount.Mount{{Type: "bind", Source: "/x"}})
	u.note([]mount.Mount{{Type: "overlay", Options: []string{"lowerdir=/a:/b"}}})
	if got := u.of(dir); len(got) != 3 || got[0] != "lowerdir=/a:/b" {
		t.Errorf("%v", got)
	}
	if len(u.by) != 1 || u.of("") != nil {
		t.Errorf("%d are remembered", len(u.by))
	}
}

func TestCopiesOfDirectoriesGo(t *testing.T) {
	layer, below := t.TempDir(), t.TempDir()
	past, begun := time.Unix(1234567890, 0), time.Now().Add(-datedBack)
	for _, dir := range []string{"same", "full", "other", "opaque", "dated"} {
		for _, root := range []string{layer, below} {
			if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := errors.Join(os.WriteFile(filepath.Join(layer, "full", "x"), nil, 0o644), os.Chmod(filepath.Join(layer, "other"), 0o700),
		unix.Lsetxattr(filepath.Join(layer, "opaque"), "trusted.overlay.opaque", []byte("y"), 0), os.Mkdir(filepath.Join(layer, "new"), 0o755), os.Chtimes(filepath.Join(layer, "dated"), past, past)); err != nil {
		t.Fatal(err)
	}
	for name, stays := range map[string]bool{"same": false, "full": true, "other": true, "opaque": true, "new": true, "dated": true} {
		if err := removeCopy(place{layer, []string{below}, "/" + name}, begun); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(filepath.Join(layer, name)); (err == nil) != stays {
			t.Errorf("%s: %v", name, err)
		}
	}
}
