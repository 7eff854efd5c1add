package container

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
)

// TestCDI: what a vendor's file describes is in the container: nodes, which may be used, mounts, variables, groups, and what hooks make.
func TestCDI(t *testing.T) {
	e := newEngine(t)
	dir := t.TempDir()
	lib := filepath.Join(dir, "lib")
	file := func(path, text string, mode os.FileMode) string {
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if err := os.Mkdir(lib, 0o755); err != nil {
		t.Fatal(err)
	}
	file(filepath.Join(lib, "driver"), "of acme", 0o644)
	told := filepath.Join(dir, "told")
	outside := "bundle=$(sed 's/.*\"bundle\":\"\\([^\"]*\\)\".*/\\1/'); grep -c '\"path\":\"/tmp\"' $bundle/config.json >" + told
	at := func(inside string) string {
		return fmt.Sprintf(`{"cdiVersion":"0.7.0","kind":"acme.com/card","devices":[{"name":"zero","containerEdits":{"env":["CARD=zero"],"additionalGids":[4242],
"deviceNodes":[{"path":"/dev/card","hostPath":"/dev/fuse","permissions":"r"}],"mounts":[{"hostPath":%q,"containerPath":"/opt/acme","options":["ro","rbind"]}],
"hooks":[{"hookName":"createRuntime","path":"/bin/sh","args":["sh","-c",%q]},{"hookName":"createContainer","path":"/bin/sh","args":["sh","-c",%q]},
{"hookName":"startContainer","path":"/bin/touch","args":["touch","/started"]},{"hookName":"poststart","path":"/bin/sh","args":["sh","-c",%q]}]}}]}`,
			lib, outside, inside, ": >"+told+".after")
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	file(filepath.Join(dir, "acme.json"), at("set -e; cat >/dev/null; cd /tmp; id -u >by; ln -s driver libacme"), 0o644)
	e.Service.o.Settings.CDISpecDirs = []string{dir}
	card := func(name string) container.HostConfig {
		return container.HostConfig{Resources: container.Resources{DeviceRequests: []container.DeviceRequest{{Driver: "cdi", DeviceIDs: []string{"acme.com/card=" + name}}}}}
	}
	const look = `set -e; [ "$CARD" = zero ]; [ -c /dev/card ]; : </dev/card; ! (: >/dev/card) 2>/dev/null; cat /opt/acme/driver; ! touch /opt/acme/x 2>/dev/null
id -G | grep -qw 4242; [ -f /started ]; [ -L /libacme ]; cat /by`
	id := e.create(request{cmd: sh(look), c: container.Config{Env: []string{"CARD=mine"}}, h: card("zero")})
	answer := e.arm(id, container.WaitConditionNextExit)
	e.start(id)
	if code := e.take(answer); code != 0 {
		t.Errorf("exit %d: %s", code, e.output(id))
	}
	if b, err := os.ReadFile(told); err != nil || strings.TrimSpace(string(b)) == "0" {
		t.Errorf("the hook outside: %q, %v", b, err)
	}
	if _, err := os.Stat(told + ".after"); err != nil {
		t.Error(err)
	}
	missing := e.create(request{cmd: sh("true"), h: card("two")})
	if err := e.Start(t.Context(), missing); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "unresolvable CDI devices acme.com/card=two") {
		t.Errorf("a device that is not there: %v", err)
	}
	file(filepath.Join(dir, "acme.json"), at("exit 3"), 0o644)
	failing := e.create(request{cmd: sh("true"), h: card("zero")})
	if err := e.Start(t.Context(), failing); err == nil || !strings.Contains(err.Error(), "createContainer hook") {
		t.Errorf("a hook that fails: %v", err)
	}
}
