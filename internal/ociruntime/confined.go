package ociruntime

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Confined compares processes that something else has made from what it was given (criu, from an archive) with a configuration, and says
// how they are less confined than that: by control group, namespaces, capabilities, no_new_privs, system calls, security module, mounts
// and devices. The processes are stopped, so that nothing changes meanwhile.
func Confined(o OpenOptions) error {
	pids, err := members(o)
	if err != nil {
		return err
	}
	want := capabilitySets(o.Spec.Process.Capabilities)
	f, err := filterOf(o.Spec, o.Filter, o.State)
	if err != nil {
		return err
	}
	if err := ownNamespaces(o); err != nil {
		return err
	}
	for _, pid := range pids {
		err := confinedProcess(o, pid, want, f)
		if err != nil && pid != o.Pid && dead(pid) { // a helper of who made them, which has just ended
			continue
		}
		if err != nil {
			return fmt.Errorf("process %d: %w", pid, err)
		}
	}
	return confinedMounts(o)
}

// members are all processes in the first one's pid namespace, or in the control group where that is the machine's.
func members(o OpenOptions) ([]int, error) {
	if !names(o.Spec, specs.PIDNamespace) {
		return o.Cgroup.Procs()
	}
	return InNamespace("pid", o.Pid)
}

// InNamespace lists the processes that share a namespace, of a kind as in /proc/PID/ns, with one of them, as far as this user may see that.
func InNamespace(kind string, pid int) ([]int, error) {
	want, err := os.Readlink(procOf(pid) + "/ns/" + kind)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, e := range entries {
		n, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if have, err := os.Readlink(procOf(n) + "/ns/" + kind); err == nil && have == want {
			pids = append(pids, n)
		}
	}
	return pids, nil
}

// dead says that a process has ended: it is gone, or nobody has reaped it yet.
func dead(pid int) bool {
	b, err := os.ReadFile(procOf(pid) + "/stat")
	if err != nil {
		return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) // it went while it was read
	}
	_, rest, _ := strings.Cut(string(b[bytes.LastIndexByte(b, ')')+1:]), " ")
	return strings.HasPrefix(rest, "Z") || strings.HasPrefix(rest, "X")
}

func procOf(pid int) string { return "/proc/" + strconv.Itoa(pid) }

func names(spec *specs.Spec, kind specs.LinuxNamespaceType) bool {
	for _, ns := range spec.Linux.Namespaces {
		if ns.Type == kind {
			return true
		}
	}
	return false
}

// namespaceFile is a kind of namespace by its name in procfs.
type namespaceFile struct {
	file string
	kind specs.LinuxNamespaceType
}

// namespaceFiles are the namespaces but the time namespace, which confines nobody.
func namespaceFiles() []namespaceFile {
	return []namespaceFile{{"mnt", specs.MountNamespace}, {"pid", specs.PIDNamespace}, {"net", specs.NetworkNamespace}, {"ipc", specs.IPCNamespace},
		{"uts", specs.UTSNamespace}, {"user", specs.UserNamespace}, {"cgroup", specs.CgroupNamespace}}
}

// ownNamespaces: the first process is where the configuration says, by path or in one that is not this process's.
func ownNamespaces(o OpenOptions) error {
	paths := map[specs.LinuxNamespaceType]string{}
	for _, ns := range o.Spec.Linux.Namespaces {
		paths[ns.Type] = ns.Path
	}
	for _, ns := range namespaceFiles() {
		in, err := os.Stat(procOf(o.Pid) + "/ns/" + ns.file)
		if err != nil {
			return err
		}
		path, asked := paths[ns.kind]
		if path == "" {
			path = "/proc/self/ns/" + ns.file
		}
		there, err := os.Stat(path)
		if err != nil {
			return err
		}
		if same, want := os.SameFile(in, there), !asked || paths[ns.kind] != ""; same != want {
			return fmt.Errorf("it is not in the %s namespace that the configuration says", ns.kind)
		}
	}
	if !names(o.Spec, specs.UserNamespace) || paths[specs.UserNamespace] != "" {
		return nil
	}
	for file, maps := range map[string][]specs.LinuxIDMapping{"uid_map": o.Spec.Linux.UIDMappings, "gid_map": o.Spec.Linux.GIDMappings} {
		b, err := os.ReadFile(procOf(o.Pid) + "/" + file)
		if err != nil {
			return err
		}
		var want []string
		for _, m := range maps {
			want = append(want, fmt.Sprint(m.ContainerID, m.HostID, m.Size))
		}
		if have := strings.Join(strings.Fields(string(b)), " "); have != strings.Join(want, " ") {
			return fmt.Errorf("its %s is %q, not the configuration's %q", file, have, strings.Join(want, " "))
		}
	}
	return nil
}

func confinedProcess(o OpenOptions, pid int, want capSets, f filter) error {
	if err := sameNamespaces(pid, o.Pid); err != nil {
		return err
	}
	groups, err := os.ReadFile(procOf(pid) + "/cgroup")
	if err != nil {
		return err
	}
	if path := strayGroup(string(groups), o); path != "" {
		return fmt.Errorf("it is in control group %s, not in %s", path, o.Cgroup.Path())
	}
	status, err := os.ReadFile(procOf(pid) + "/status")
	if err != nil {
		return err
	}
	if err := confinedStatus(string(status), want, o.Spec.Process.NoNewPrivileges); err != nil {
		return err
	}
	if err := confinedLabel(pid, o.Spec.Process); err != nil || len(f.code) == 0 {
		return err
	}
	code, err := firstFilter(pid)
	if err != nil {
		return fmt.Errorf("read its seccomp filter: %w", err)
	}
	if !bytes.Equal(code, f.code) {
		return errors.New("its seccomp filter is not the one that the configuration's profile compiles to")
	}
	return nil
}

func sameNamespaces(pid, first int) error {
	for _, ns := range namespaceFiles() {
		a, err := os.Readlink(procOf(pid) + "/ns/" + ns.file)
		if err != nil {
			return err
		}
		if b, err := os.Readlink(procOf(first) + "/ns/" + ns.file); err != nil || a != b {
			return errors.Join(fmt.Errorf("it is not in the first process's %s namespace", ns.file), err)
		}
	}
	return nil
}

// strayGroup is the first control group of a process, as procfs lists them, that is not in the container's; "" without one.
func strayGroup(list string, o OpenOptions) string {
	for line := range strings.Lines(list) {
		_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		controllers, path, ok := strings.Cut(rest, ":")
		if !ok {
			continue
		}
		for _, c := range strings.Split(controllers, ",") {
			if _, limited := o.Cgroup.Dirs()[c]; !limited {
				continue
			}
			if _, inside := within(path, o.Cgroup.Path()); !inside {
				return path
			}
		}
	}
	return ""
}

// confinedStatus looks at a process's status (proc_pid_status(5)). What is in a set may also come from a program that gives it, up to the
// bounding set.
func confinedStatus(status string, want capSets, noNewPrivileges bool) error {
	may := want.bounding
	for _, set := range []uint64{want.permitted, want.effective, want.inheritable, want.ambient} {
		may |= set
	}
	seen := 0
	for line := range strings.Lines(status) {
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch key {
		case "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb":
			set, err := strconv.ParseUint(value, 16, 64)
			if err != nil {
				return err
			}
			allowed := may
			if key == "CapInh" || key == "CapAmb" {
				allowed = want.inheritable | want.ambient
			}
			if more := set &^ allowed; more != 0 {
				return fmt.Errorf("it has capabilities that the configuration does not give (%s %#x)", key, more)
			}
			seen++
		case "NoNewPrivs":
			if noNewPrivileges && value != "1" {
				return errors.New("it lacks no_new_privs, which the configuration sets")
			}
			seen++
		}
	}
	if seen != 6 {
		return fmt.Errorf("its status has %d of the 6 lines that are looked for", seen)
	}
	return nil
}

func confinedLabel(pid int, p *specs.Process) error {
	want, file := "", ""
	switch {
	case p.SelinuxLabel != "" && SELinux():
		want, file = p.SelinuxLabel, "attr/current"
	case p.ApparmorProfile != "" && p.ApparmorProfile != "unconfined" && AppArmor():
		want, file = p.ApparmorProfile, "attr/current"
	default:
		return nil
	}
	b, err := os.ReadFile(procOf(pid) + "/" + file)
	if err != nil {
		return err
	}
	if have, _, _ := strings.Cut(strings.TrimRight(string(b), "\x00\n"), " ("); have != want {
		return fmt.Errorf("the security module confines it by %q, not by %q", have, want)
	}
	return nil
}

// firstFilter reads the filter that a process got first, its container's, as a tracer of a moment.
func firstFilter(pid int) ([]byte, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.PtraceSeize(pid); err != nil {
		return nil, err
	}
	defer func() { _ = unix.PtraceDetach(pid) }()
	if err := unix.PtraceInterrupt(pid); err != nil {
		return nil, err
	}
	var ws unix.WaitStatus
	if _, err := unix.Wait4(pid, &ws, unix.WALL, nil); err != nil {
		return nil, err
	}
	if !ws.Stopped() {
		return nil, errors.New("it has ended")
	}
	code, err := seccompFilter(pid)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) {
		return nil, nil // it has none
	}
	return code, err
}
