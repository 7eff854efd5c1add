package ociruntime

import (
	"encoding/binary"
	"fmt"
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

func capabilitySets(c *specs.LinuxCapabilities) (capSets, error) {
	var s capSets
	if c == nil {
		return s, nil
	}
	for _, row := range []struct {
		to    *uint64
		names []string
	}{{&s.bounding, c.Bounding}, {&s.effective, c.Effective}, {&s.permitted, c.Permitted}, {&s.inheritable, c.Inheritable}, {&s.ambient, c.Ambient}} {
		for _, name := range row.names {
			bit, err := capabilityNumber(name)
			if err != nil {
				return s, err
			}
			*row.to |= 1 << bit
		}
	}
	// What the creating process itself may not have cannot be given.
	own := ownCapabilities()
	s.bounding, s.permitted = s.bounding&own, s.permitted&own
	s.effective, s.inheritable = s.effective&s.permitted, s.inheritable&own
	s.ambient &= s.permitted & s.inheritable
	return s, nil
}

func capabilityNumber(name string) (int, error) {
	for i, n := range capabilityNames {
		if strings.EqualFold(n, name) {
			return i, nil
		}
	}
	return 0, fmt.Errorf("capability %q is not one that Linux has", name)
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
