package buildopt

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// parse reads a command line as wherry and wherry-build do.
func parse(t *testing.T, args ...string) *Options {
	t.Helper()
	var o Options
	fs := pflag.NewFlagSet("build", pflag.ContinueOnError)
	o.Register(fs)
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	o.Context = fs.Arg(0)
	return &o
}

func whole(name string) (string, error) {
	if strings.Contains(name, "!") {
		return "", fmt.Errorf("no name")
	}
	return "docker.io/library/" + name, nil
}

func TestExports(t *testing.T) {
	name := map[string]string{"name": "docker.io/library/a:1"}
	pushed := map[string]string{"name": "docker.io/library/a:1", "push": "true"}
	for _, row := range []struct {
		args string
		want []Export
	}{
		{"-t a:1", []Export{{TypeEngine, name, ""}}},
		{"-t a:1 -t a:1", []Export{{TypeEngine, name, ""}}},
		{"", []Export{{TypeEngine, map[string]string{}, ""}}},
		{"-o out", []Export{{"local", map[string]string{}, "out"}}},
		{"-o -", []Export{{"tar", map[string]string{}, "-"}}},
		{"-o type=tar,dest=x.tar -t a:1", []Export{{"tar", map[string]string{}, "x.tar"}}},
		{"-o type=oci,dest=x.tar -t a:1", []Export{{"oci", name, "x.tar"}}},
		{"-o type=oci,tar=false,dest=d", []Export{{"oci", map[string]string{"tar": "false"}, "d"}}},
		{"-o type=docker -t a:1", []Export{{TypeEngine, name, ""}}},
		{"-o type=docker,dest=x.tar,name=b:2 -t a:1", []Export{{"docker", map[string]string{"name": "docker.io/library/b:2"}, "x.tar"}}},
		{"--push -t a:1", []Export{{TypeImage, pushed, ""}}},
		{"-o type=registry -t a:1", []Export{{TypeImage, pushed, ""}}},
		{"-o type=image,push=true -t a:1", []Export{{TypeImage, pushed, ""}}},
		{"-o type=image -t a:1", []Export{{TypeEngine, name, ""}}},
		{"-o type=cacheonly", []Export{}},
		{"-o out --load -t a:1", []Export{{"local", map[string]string{}, "out"}, {TypeEngine, name, ""}}},
		{"--format docker --annotation index,manifest[linux/arm64]:k=v --annotation x=y=z", []Export{{TypeEngine, map[string]string{
			"oci-mediatypes": "false", "annotation-index.k": "v", "annotation-manifest[linux/arm64].k": "v", "annotation.x": "y=z"}, ""}}},
	} {
		got, err := parse(t, strings.Fields(row.args)...).Exports(whole)
		if err != nil || !reflect.DeepEqual(got, row.want) {
			t.Errorf("%s: %+v %v, want %+v", row.args, got, err, row.want)
		}
	}
}

func TestFrontendAttrs(t *testing.T) {
	t.Setenv("FROM_ENV", "e")
	t.Setenv("SOURCE_DATE_EPOCH", "")
	for _, row := range []struct {
		args string
		want map[string]string
	}{
		{"", map[string]string{}},
		{"--build-arg A=1 --build-arg FROM_ENV --build-arg NOT_SET --label l=v --target x --platform linux/amd64,linux/arm64", map[string]string{
			"build-arg:A": "1", "build-arg:FROM_ENV": "e", "label:l": "v", "target": "x", "platform": "linux/amd64,linux/arm64"}},
		{"--no-cache", map[string]string{"no-cache": ""}},
		{"--no-cache-filter a,b", map[string]string{"no-cache": "a,b"}},
		{"--pull", map[string]string{"image-resolve-mode": "pull"}},
		{"--pull=never", map[string]string{}},
		{"--network host", map[string]string{"force-network-mode": "host"}},
		{"--network default", map[string]string{}},
		{"--add-host a:1.2.3.4 --add-host b=::1 --add-host c:[fd00::1] --add-host h:host-gateway", map[string]string{"add-hosts": "a=1.2.3.4,b=::1,c=fd00::1,h=host-gateway"}},
		{"--shm-size 64m -m 1g --memory-swap -1 -c 2 --ulimit nofile=1:2 --ulimit core=0", map[string]string{
			"shm-size": "67108864", "memory": "1073741824", "memswap": "-1", "cpushares": "2", "ulimit": "nofile=1:2,core=0"}},
		{"--source-date-epoch 1970-01-01T00:01:00Z", map[string]string{"build-arg:SOURCE_DATE_EPOCH": "60"}},
		{"--timestamp 5", map[string]string{"build-arg:SOURCE_DATE_EPOCH": "5"}},
		{"--provenance=mode=max --sbom", map[string]string{"attest:provenance": "mode=max", "attest:sbom": ""}},
		{"--attest type=sbom,generator=x --attest type=provenance --provenance=false", map[string]string{"attest:sbom": "generator=x"}},
	} {
		if _, ok := row.want["image-resolve-mode"]; !ok {
			row.want["image-resolve-mode"] = "local"
		}
		got, err := parse(t, strings.Fields(row.args)...).FrontendAttrs(nil)
		if err != nil || !maps.Equal(got, row.want) {
			t.Errorf("%s: %v %v, want %v", row.args, got, err, row.want)
		}
	}
	t.Setenv("SOURCE_DATE_EPOCH", "7")
	got, err := parse(t, "--build-arg", "http_proxy=mine").FrontendAttrs(map[string]string{"http_proxy": "p", "https_proxy": "q"})
	want := map[string]string{"image-resolve-mode": "local", "build-arg:SOURCE_DATE_EPOCH": "7", "build-arg:http_proxy": "mine", "build-arg:https_proxy": "q"}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("%v %v, want %v", got, err, want)
	}
	if o := parse(t, "--network", "host", "--allow", "security.insecure"); !slices.Equal(o.Entitlements(), []string{"security.insecure", "network.host"}) {
		t.Errorf("entitlements %v", o.Entitlements())
	}
}

func TestSources(t *testing.T) {
	t.Setenv("SET", "x")
	secrets, err := parse(t, "--secret", "id=a,src=/f", "--secret", "id=SET", "--secret", "id=b,type=env,src=V", "--secret", `"id=c","src=a,b"`, "--secret", "id=d").SecretSources()
	want := []Secret{{"a", "/f", ""}, {"SET", "", "SET"}, {"b", "", "V"}, {"c", "a,b", ""}, {"d", "d", ""}}
	if err != nil || !reflect.DeepEqual(secrets, want) {
		t.Errorf("%+v %v, want %+v", secrets, err, want)
	}
	agents, err := parse(t, "--ssh", "default", "--ssh", "k=/a,/b", "--ssh", "r=/s,raw=true").SSHSources()
	if err != nil || !reflect.DeepEqual(agents, []SSH{{ID: "default"}, {ID: "k", Paths: []string{"/a", "/b"}}, {ID: "r", Paths: []string{"/s"}, Raw: true}}) {
		t.Errorf("%+v %v", agents, err)
	}
	contexts, err := parse(t, "--build-context", "A=dir", "--build-context", "b=docker-image://x", "--build-context", "c=oci-layout://d:v", "--build-context", "g=https://h/r.git").NamedContexts()
	if err != nil || contexts[0].Name != "a" || contexts[0].Dir != "dir" || contexts[1].Dir != "" || contexts[2].OCI != "d:v" || contexts[3].Dir != "" {
		t.Errorf("%+v %v", contexts, err)
	}
	from, err := parse(t, "--cache-from", "user/app:cache", "--cache-from", "type=local,src=d").CachesFrom()
	if err != nil || from[0].Attrs["ref"] != "user/app:cache" || from[1].Type != "local" {
		t.Errorf("%+v %v", from, err)
	}
	to, err := parse(t, "--cache-to", "inline", "--cache-to", "type=registry,ref=x,mode=max").CachesTo()
	if err != nil || to[0].Type != "inline" || to[1].Attrs["mode"] != "max" {
		t.Errorf("%+v %v", to, err)
	}
}

// TestRemote: a directory whose name looks like an address is a directory.
func TestRemote(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.MkdirAll(filepath.Join("github.com", "a"), 0o755); err != nil {
		t.Fatal(err)
	}
	for s, want := range map[string]bool{"https://h/x.git#main:d": true, "git@h:x.git": true, "github.com/a": false, "github.com/b/c": true, "./x": false, "httpd": false} {
		if got := Remote(s); got != want {
			t.Errorf("%s: %v", s, got)
		}
	}
}

func TestRefused(t *testing.T) {
	for args, want := range map[string]string{
		"-o type=nope .": "there is no type nope", "-o type=local .": "dest=DIRECTORY", "-o type=image,dest=x .": "goes to no file", "-o - -o type=oci .": "only one",
		"-o type=tar,output=x .": "dest=x", "--push .": "needs a name", "--push -o d .": "none of the outputs", "--tag= .": "needs a name", "-o dest=x .": "no type",
		"--secret src=x .": "no id", "--secret id=a,b=c .": "no key b", "--secret id=a,type=x .": "no type x", "--ssh =x .": "no id", "--ssh a=x,raw=maybe .": "true or false",
		"--ssh a=x,y,raw=1 .": "one socket", "--build-context a .": "NAME=what", "--build-arg =x .": "NAME=value", "--add-host a .": "NAME:ADDRESS",
		"--add-host a:b .": "no address", "--platform x --progress loud .": "auto, tty", "--pull=sometimes .": "always", "--network mine .": "default, none, host",
		"--allow root .": "network.host", "--memory x .": "512m", "--ulimit x .": "--ulimit", "--attest type=x .": "sbom or provenance", "--provenance=x .": "KEY=value",
		"--call=run .": "outline", "--call=check,xml .": "format=json", "--source-date-epoch soon .": "seconds since 1970", "--cache-to type=local .": "dest=",
		"--cache-from type=registry .": "ref=", "-f - -": "one of them", "--annotation x .": "NAME=value", "--builder other .": "default", "--on-failure continue .": "shell",
	} {
		if err := parse(t, strings.Fields(args)...).Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", args, err, want)
		}
	}
	if err := parse(t, "-t", "a", "--check", "--rm=false", "--force-rm", ".").Validate(); err != nil {
		t.Error(err)
	}
}

func FuzzValues(f *testing.F) {
	for _, s := range []string{"type=oci,dest=-", "-", "a,b=c", `"type=image","name=a,b"`, "index:k=v", "id=a,src=b", "default=x,raw=1", "a:1.2.3.4"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		o := Options{Outputs: []string{s}, Annotations: []string{s}, Secrets: []string{s}, SSH: []string{s}, Contexts: []string{s}, CacheFrom: []string{s},
			CacheTo: []string{s}, Attest: []string{s}, AddHosts: []string{s}, Args: []string{s}, Call: s, SourceDate: s, ShmSize: s}
		_ = o.Validate()
		exports, err := (&Options{Outputs: []string{s}}).Exports(nil)
		if err == nil && len(exports) > 1 {
			t.Errorf("%q: %+v", s, exports)
		}
	})
}
