package test

import (
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
