package ociruntime

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// coverable are the files of a procfs that may be covered by others, as those do who show a container its limits in place of the machine.
func coverable() []string {
	return []string{"/cpuinfo", "/diskstats", "/loadavg", "/meminfo", "/slabinfo", "/stat", "/swaps", "/uptime", "/sys/crypto/fips_enabled", "/sys/kernel/ns_last_pid"}
}

// sparesProc refuses to cover the container's procfs: programs, and runtimes, believe what they read there and write to it what the kernel
// is to know (CVE-2019-16884, CVE-2025-52881). An image can ask for it: by a volume there, or by a link that leads there.
func (l *layout) sparesProc(a *attachment) error {
	switch {
	case a.parent != nil && a.parent.isProc():
		if rest := path.Clean("/" + a.rest); rest == "/" && a.isProc() || slices.Contains(coverable(), rest) && !a.isDir {
			return nil
		}
	case a.at == "/proc" && !a.isProc():
	default:
		return nil
	}
	return fmt.Errorf("%s would be covered: /proc is the kernel's, but for the files %s: mount elsewhere", a.at, strings.Join(coverable(), ", "))
}

// isProc says that a mount is a procfs, of the child's making or shown from elsewhere.
func (a *attachment) isProc() bool {
	if a.source == nil {
		return a.fstype == "proc"
	}
	var st unix.Statfs_t
	return unix.Fstatfs(descriptor(a.source), &st) == nil && st.Type == unix.PROC_SUPER_MAGIC
}
