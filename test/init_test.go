package test

import (
	"archive/tar"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestInitIsNobodysToChange: class 1: the runtime's binary, which --init shows inside, stays as it is, and as its owner has left it, when a
// container that may mount has made its mount writable.
func TestInitIsNobodysToChange(t *testing.T) {
	h := newHostile(t)
	image := h.image("base", nil)
	script := `busybox mount -o remount,bind,rw /sbin/docker-init && echo remounted; busybox chmod 0777 /sbin/docker-init && echo changed; busybox chown 7 /sbin/docker-init && echo owned
busybox truncate -s 1 /sbin/docker-init && echo truncated; echo x >>/sbin/docker-init && echo written; ls -ln /sbin/docker-init`
	out := h.must("wherry", "run", "--rm", "--init", "--cap-add", "SYS_ADMIN", image, "sh", "-c", script)
	for _, bad := range []string{"changed", "owned", "truncated", "written"} {
		if strings.Contains(out, bad) {
			t.Errorf("the runtime's binary is %s: %s", bad, out)
		}
	}
	if !strings.Contains(out, "remounted") {
		t.Errorf("nothing was tried: %s", out)
	}
}

// TestKernelsDoorsStayShut: class 9 (CVE-2022-0492): device nodes that an image or a copy brings open nothing, and no control group's release
// agent is set, with seccomp and without it.
func TestKernelsDoorsStayShut(t *testing.T) {
	h := newHostile(t)
	image := h.image("devices", nil, piece{name: "disk", kind: tar.TypeBlock, mode: 0o666, major: 254}, piece{name: "memory", kind: tar.TypeChar, mode: 0o666, major: 1, minor: 1})
	for _, way := range [][]string{nil, {"--userns=host"}, {"--security-opt", "seccomp=unconfined"}, {"--userns=host", "--security-opt", "seccomp=unconfined"}} {
		c := h.background(append(append([]string{}, way...), image, "sleep", "1000")...)
		node := filepath.Join(t.TempDir(), "node.tar")
		ok(t, os.WriteFile(node, layerOf(piece{name: "copied", kind: tar.TypeBlock, mode: 0o666, major: 254}), 0o644))
		out, err := shared.engine.run("sh", "-c", `"$1" cp - "$2":/tmp <"$3"`, "sh", shared.bin+"/wherry", c, node)
		if err != nil {
			t.Fatalf("cp: %v %s", err, out)
		}
		for _, client := range []string{"wherry", "docker"} {
			out, _ := h.run(client, "exec", c, "sh", "-c", "for n in /disk /memory /tmp/copied; do head -c 1 $n >/dev/null && echo OPENED; done; probe agent")
			if strings.Contains(out, "OPENED") || strings.Contains(out, "WRITTEN") || strings.Count(out, "not permitted") < 3 || !strings.Contains(out, "done") {
				t.Errorf("%v: %s", way, out)
			}
		}
	}
}
