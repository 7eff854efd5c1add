package ociruntime

import (
	"errors"
	"fmt"
	"os"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/network/link"
	"wherry.dev/wherry/internal/sysprog"
)

// label is what a process writes to a file of its own in procfs for a security module to confine it from its next execve on.
type label struct {
	name string // as errors name it
	file string // below /proc/self
	text string
}

// AppArmor says that the kernel applies AppArmor's profiles.
func AppArmor() bool {
	b, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	return err == nil && strings.HasPrefix(string(b), "Y")
}

// SELinux says that the kernel applies SELinux's labels: its file system is mounted where everybody looks for it.
func SELinux() bool {
	var st unix.Statfs_t
	return unix.Statfs("/sys/fs/selinux", &st) == nil && st.Type == unix.SELINUX_MAGIC
}

// labelsOf are those of a container's first process, or of a further one, which has those of the first where it says none. One that cannot
// be applied is an error: the process would be less confined than asked for.
func labelsOf(p, first *specs.Process) (list []label, err error) {
	profile, context := p.ApparmorProfile, p.SelinuxLabel
	if profile == "" {
		profile = first.ApparmorProfile
	}
	if context == "" {
		context = first.SelinuxLabel
	}
	if profile != "" && (profile != "unconfined" || AppArmor()) {
		if !AppArmor() {
			return nil, fmt.Errorf("process.apparmorProfile %s: this kernel does not apply AppArmor's profiles (apparmor=1 security=apparmor on its command line); "+
				"leave it out to go on without", profile)
		}
		file := "attr/apparmor/exec"
		if _, err := os.Stat("/proc/self/" + file); errors.Is(err, os.ErrNotExist) {
			file = "attr/exec" // kernels before 5.8
		}
		list = append(list, label{"the AppArmor profile " + profile, file, "exec " + profile})
	}
	if context != "" {
		if !SELinux() {
			return nil, fmt.Errorf("process.selinuxLabel %s: SELinux is not in force here (no /sys/fs/selinux); leave it out to go on without", context)
		}
		list = append(list, label{"the SELinux label " + context, "attr/exec", context}, label{"the SELinux label of keys " + context, "attr/keycreate", context})
	}
	return list, nil
}

// writeLabels appends the writing of labels, right after the clone: it is the process itself that must write, and nothing is executed before
// its program. The files are opened by a descriptor of this process's procfs, which knows the process by its number here: what a container
// has made of its own /proc is not looked at (CVE-2019-16884).
func writeLabels(p *sysprog.Program, list []label, h *held) error {
	if len(list) == 0 {
		return nil
	}
	proc, err := os.OpenFile("/proc", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	h.keep(proc)
	var st unix.Statfs_t
	if err := unix.Fstatfs(descriptor(proc), &st); err != nil || st.Type != unix.PROC_SUPER_MAGIC {
		return errors.Join(errors.New("/proc is not a procfs: no label can be applied"), err)
	}
	for _, l := range list {
		fd := p.Store(p.Call(applyLabel+l.name, unix.SYS_OPENAT, descriptor(proc), p.String("self/"+l.file), unix.O_WRONLY|unix.O_CLOEXEC, 0))
		p.Call(applyLabel+l.name, unix.SYS_WRITE, fd, p.String(l.text), len(l.text))
		p.Call(applyLabel+l.name, unix.SYS_CLOSE, fd)
	}
	return nil
}

// applyLabel begins the name of the steps that apply labels.
const applyLabel = "apply "

// hint says of a failed step what to do about it.
func hint(failed *sysprog.Error) error {
	switch {
	case failed.Name == pivotStep && errors.Is(failed, unix.EINVAL):
		return fmt.Errorf("%w: on a host that runs from its initial RAM disk --no-pivot is needed", failed)
	case strings.HasPrefix(failed.Name, openSysctl) && errors.Is(failed, unix.ENOENT):
		return fmt.Errorf("%w: %s", failed, link.NoSysctl)
	case strings.HasPrefix(failed.Name, setSysctl) && errors.Is(failed, unix.EINVAL):
		return fmt.Errorf("%w: %s", failed, link.NoValue)
	case strings.HasPrefix(failed.Name, setScheduler):
		return refusedScheduler(failed)
	case !strings.HasPrefix(failed.Name, applyLabel):
		return failed
	case errors.Is(failed, unix.ENOENT):
		return fmt.Errorf("%w: it is not loaded; apparmor_parser -r FILE loads it", failed)
	case errors.Is(failed, unix.EINVAL):
		return fmt.Errorf("%w: the kernel does not know it", failed)
	}
	return failed
}

// mountContext is the option that gives the files of a new file system the container's label.
func mountContext(spec *specs.Spec, fstype string) string {
	if fstype == "cgroup" || fstype == "cgroup2" || !SELinux() {
		return ""
	}
	return spec.Linux.MountLabel
}
