package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestDevicesOfSteps: RUN --device gets what a vendor describes where the client allows it, and nothing of it stays in the image.
func TestDevicesOfSteps(t *testing.T) {
	dir := t.TempDir()
	ok(t, os.WriteFile(filepath.Join(dir, "lib"), []byte("a library\n"), 0o644))
	b := newBuilder(t, fmt.Sprintf("[containers]\ncdi-spec-dirs = [%q]", dir))
	// Read at each build: it is written after the engine has started.
	ok(t, os.WriteFile(filepath.Join(dir, "port.json"), []byte(fmt.Sprintf(`{"cdiVersion": "0.6.0", "kind": "ferry.example/port", "devices": [
		{"name": "zero", "containerEdits": {"env": ["PORT=zero"], "deviceNodes": [{"path": "/dev/ferry", "hostPath": "/dev/zero"}],
			"mounts": [{"hostPath": %q, "containerPath": "/opt/ferry/lib", "options": ["ro", "bind"]}]}},
		{"name": "open", "annotations": {"org.mobyproject.buildkit.device.autoallow": "true"}, "containerEdits": {"env": ["OPEN=yes"]}}]}`, filepath.Join(dir, "lib"))), 0o644))
	const base = "FROM busybox:1\n"
	zero := base + `RUN --device=ferry.example/port=zero [ $PORT = zero ] && [ "$(cat /opt/ferry/lib)" = "a library" ] && [ "$(head -c2 /dev/ferry | od -An -tx1)" = " 00 00" ] && touch /done` + "\n"
	for _, client := range []string{"wherry build --no-cache", "docker buildx build --no-cache"} {
		for name, row := range map[string]struct{ dockerfile, allow, want string }{
			"not allowed":        {zero, "network.host", "device ferry.example/port=zero is requested by the build but not allowed: both the client (--allow device=NAME"},
			"allowed by name":    {zero + "RUN [ -e /done ] && [ ! -e /opt/ferry ] && [ ! -e /dev/ferry ] && [ -z $PORT ]", "device=ferry.example/port=zero", ""},
			"all are allowed":    {base + "RUN --device=ferry.example/port=* [ $OPEN = yes ] && [ -c /dev/ferry ]", "device", ""},
			"harmless":           {base + "RUN --device=ferry.example/port=open [ $OPEN = yes ]", "network.host", ""},
			"there is none":      {base + "RUN --device=ferry.example/bridge=1,required true", "device", `device "ferry.example/bridge=1" is not registered`},
			"it does not matter": {base + "RUN --device=ferry.example/bridge=1 true", "device", ""},
		} {
			out, err := b.build(client, row.dockerfile, "--allow", row.allow)
			if (err == nil) != (row.want == "") || !strings.Contains(out, row.want) {
				t.Errorf("%s, %s: %v\n%s", client, name, err, out)
			}
		}
	}
}
