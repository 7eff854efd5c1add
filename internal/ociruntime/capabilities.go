package ociruntime

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// capabilityNames by number (linux/capability.h).
var capabilityNames = [...]string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
	"CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW",
	"CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN",
	"CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE",
	"CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND",
	"CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE"}

const lastCapability = len(capabilityNames) - 1

// capSets are the five sets as bit masks.
type capSets struct{ bounding, effective, permitted, inheritable, ambient uint64 }

func capabilitySets(c *specs.LinuxCapabilities) capSets {
	var s capSets
	if c == nil {
		return s
	}
	for _, row := range []struct {
		to    *uint64
		names []string
	}{{&s.bounding, c.Bounding}, {&s.effective, c.Effective}, {&s.permitted, c.Permitted}, {&s.inheritable, c.Inheritable}, {&s.ambient, c.Ambient}} {
		for _, name := range row.names {
			if bit, ok := capabilityNumber(name); ok {
				*row.to |= 1 << bit
			}
		}
	}
	// What the creating process itself may not have cannot be given.
	own := ownCapabilities()
	s.bounding, s.permitted = s.bounding&own, s.permitted&own
	s.effective, s.inheritable = s.effective&s.permitted, s.inheritable&own
	s.ambient &= s.permitted & s.inheritable
	return s
}

// capabilityWarnings name what is asked for and left out: capabilities that this runtime does not know, and ambient ones that the kernel
// would not raise.
func capabilityWarnings(c *specs.LinuxCapabilities) (warnings []string) {
	if c == nil {
		return nil
	}
	var unknown []string
	for _, list := range [][]string{c.Bounding, c.Effective, c.Permitted, c.Inheritable, c.Ambient} {
		for _, name := range list {
			if _, ok := capabilityNumber(name); !ok && !slices.Contains(unknown, name) {
				unknown = append(unknown, name)
			}
		}
	}
	if len(unknown) > 0 {
		warnings = append(warnings, fmt.Sprintf("unknown capabilities are left out: %s", strings.Join(unknown, ", ")))
	}
	if len(c.Inheritable) == 0 { // the steps of Podman's builds name ambient ones, none of which can be: nobody has asked for them
		return warnings
	}
	raised := capabilitySets(c).ambient
	var refused []string
	for _, name := range c.Ambient {
		if bit, ok := capabilityNumber(name); ok && raised&(1<<bit) == 0 {
			refused = append(refused, name)
		}
	}
	if len(refused) > 0 {
		warning := fmt.Sprintf("can't raise ambient capability %s: it is not permitted and inheritable", refused[0]) // runc's words
		if len(refused) > 1 {
			warning += ", nor are " + strings.Join(refused[1:], ", ")
		}
		warnings = append(warnings, warning)
	}
	return warnings
}

func capabilityNumber(name string) (bit int, ok bool) {
	bit = slices.IndexFunc(capabilityNames[:], func(n string) bool { return strings.EqualFold(n, name) })
	return bit, bit >= 0
}

// data is the array of struct __user_cap_data_struct (capset(2), version 3).
func (s capSets) data() []byte {
	b := make([]byte, 24)
	for i := range 2 {
		shift := 32 * i
		binary.LittleEndian.PutUint32(b[12*i:], uint32(s.effective>>shift))
		binary.LittleEndian.PutUint32(b[12*i+4:], uint32(s.permitted>>shift))
		binary.LittleEndian.PutUint32(b[12*i+8:], uint32(s.inheritable>>shift))
	}
	return b
}
