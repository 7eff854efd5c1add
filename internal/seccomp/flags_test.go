package seccomp

import (
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestFlags(t *testing.T) {
	all := []specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"}
	notify := []specs.LinuxSyscall{{Names: []string{"mkdir"}, Action: specs.ActNotify}}
	quiet := unix.SECCOMP_FILTER_FLAG_TSYNC | unix.SECCOMP_FILTER_FLAG_LOG | unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
	for name, row := range map[string]struct {
		profile specs.LinuxSeccomp
		want    int
	}{
		"none":            {specs.LinuxSeccomp{DefaultAction: specs.ActAllow}, 0},
		"all":             {specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: all}, quiet},
		"listener":        {specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: notify}, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER},
		"for everything":  {specs.LinuxSeccomp{DefaultAction: specs.ActNotify}, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER},
		"all, a listener": {specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: all, Syscalls: notify}, quiet | unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | flagTsyncESRCH | flagWaitKillableRecv},
	} {
		if got, err := Flags(&row.profile); err != nil || got != row.want {
			t.Errorf("%s: %#x, %v; want %#x", name, got, err, row.want)
		}
	}
	if _, err := Flags(&specs.LinuxSeccomp{Flags: []specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_NEW_LISTENER"}}); err == nil {
		t.Error("a flag that the specification does not have is taken")
	}
}

// TestArchitectures: every name of the specification may stand in a profile, and the machine's own calls are filtered whatever it lists.
func TestArchitectures(t *testing.T) {
	names := Architectures()
	if len(names) != 23 {
		t.Errorf("%d architectures: %q", len(names), names)
	}
	for _, name := range names {
		filter, err := Compile(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.Arch(name)},
			Syscalls: []specs.LinuxSyscall{{Names: []string{"mount"}, Action: specs.ActErrno}}})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := verdictOf(t, machine(t, filter), call{arch: unix.AUDIT_ARCH_X86_64, nr: 165}); got != unix.SECCOMP_RET_ERRNO|1 {
			t.Errorf("%s: mount by the machine's own interface: %#x", name, got)
		}
	}
}

// TestRuleLikeTheDefault: a rule that says what is done anyway changes nothing.
func TestRuleLikeTheDefault(t *testing.T) {
	filter, err := Compile(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"mount"}, Action: specs.ActAllow}}})
	if err != nil {
		t.Fatal(err)
	}
	if got := verdictOf(t, machine(t, filter), call{arch: unix.AUDIT_ARCH_X86_64, nr: 165}); got != unix.SECCOMP_RET_ALLOW {
		t.Errorf("mount: %#x", got)
	}
}
