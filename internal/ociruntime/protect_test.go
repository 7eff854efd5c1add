package ociruntime

import (
	"fmt"
	"os"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestManyMaskedDirectories: engines mask a directory for each processor. All are covered by one file system that nobody writes to.
func TestManyMaskedDirectories(t *testing.T) {
	const many = 400
	b := newBox(t, "sh", "-c", "stat -c %d /sys/fs /sys/kernel /proc/irq; touch /sys/kernel/x; ls -A /sys/fs; head -c 1 /proc/keys; echo end")
	l := b.spec.Linux
	l.MaskedPaths, l.ReadonlyPaths = nil, []string{"/proc/sys"}
	for i := range many {
		l.MaskedPaths = append(l.MaskedPaths, fmt.Sprintf("/sys/devices/system/cpu/cpu%d/no_such_directory", i))
		l.ReadonlyPaths = append(l.ReadonlyPaths, fmt.Sprintf("/sys/devices/system/cpu/cpu%d/no_such_directory_either", i))
	}
	l.MaskedPaths = append(l.MaskedPaths, "/sys/fs", "/proc/keys", "/sys/kernel", "/proc/irq", "/sys/fs/cgroup")
	out, _, err := b.run()
	must(t, err)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != 5 || lines[0] != lines[1] || lines[0] != lines[2] || !strings.Contains(lines[3], "Read-only file system") || lines[4] != "end" {
		t.Errorf("devices of three masked directories, a file made in one, what is in another and in a masked file: %q", lines)
	}
}

// TestManyMounts: as many as the engine takes.
func TestManyMounts(t *testing.T) {
	const many = 1024
	b := newBox(t, "sh", "-c", "ls /many/*/mounted") // what the kernel lists may lack some while others on the machine mount
	dir := t.TempDir()
	must(t, os.WriteFile(dir+"/mounted", nil, 0o644))
	for i := range many {
		b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Type: "bind", Source: dir, Destination: fmt.Sprintf("/many/%d", i), Options: []string{"rbind", "ro", "rslave"}})
	}
	out, _, err := b.run()
	must(t, err)
	if n := strings.Count(out, "/mounted\n"); n != many {
		t.Errorf("%d mounts of %d", n, many)
	}
}
