package spec

import (
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Security is what --security-opt says.
type Security struct {
	NoNewPrivileges bool
	Strict          bool   // wherry=strict
	Unmasked        bool   // systempaths=unconfined
	WritableCgroups bool   // writable-cgroups
	Seccomp         string // "": the default profile, "unconfined", or a profile as JSON
}

// ParseSecurity reads --security-opt values: "key=value" or, as in old scripts, "key:value". AppArmor profiles and SELinux labels are
// accepted where the host has neither, as Docker does.
func ParseSecurity(list []string) (Security, error) {
	var s Security
	for _, opt := range list {
		key, value, has := strings.Cut(opt, "=")
		if !has {
			key, value, has = strings.Cut(opt, ":")
		}
		switch key {
		case "no-new-privileges":
			if has && value != "true" && value != "false" {
				return s, badOption(opt, "no-new-privileges is true or false")
			}
			s.NoNewPrivileges = value != "false"
		case "seccomp":
			s.Seccomp = value
			if value == "builtin" {
				s.Seccomp = ""
			}
		case "wherry":
			if value != "strict" {
				return s, badOption(opt, "the only value is wherry=strict")
			}
			s.Strict = true
		case "systempaths":
			if value != "unconfined" {
				return s, badOption(opt, "the only value is systempaths=unconfined")
			}
			s.Unmasked = true
		case "writable-cgroups":
			if has && value != "true" && value != "false" {
				return s, badOption(opt, "writable-cgroups is true or false")
			}
			s.WritableCgroups = value != "false"
		case "apparmor", "label":
			if !has && key != "label" {
				return s, badOption(opt, "give a value, as in "+key+"=…")
			}
		case "disable":
		default:
			keys := []string{"no-new-privileges", "seccomp", "wherry", "systempaths", "apparmor", "label"}
			return s, badOption(opt, Suggest(key, keys))
		}
	}
	return s, nil
}

func badOption(opt, hint string) error {
	return fmt.Errorf("invalid --security-opt %q: %s: %w", opt, hint, errdefs.ErrInvalidArgument)
}

func (b *builder) seccomp(s *specs.Spec) (*specs.LinuxSeccomp, error) {
	switch {
	case b.opts.Seccomp == "unconfined", b.opts.Seccomp == "" && b.privileged(): // a profile that was asked for holds with --privileged too
		return nil, nil
	case b.opts.Seccomp == "":
		p, err := seccomp.GetDefaultProfile(s)
		if err == nil && b.opts.Strict {
			withoutSocketcall(p)
		}
		return p, err
	}
	p, err := seccomp.LoadProfile(b.opts.Seccomp, s)
	if err != nil {
		return nil, fmt.Errorf("seccomp profile: %v: give the profile's JSON, or unconfined: %w", err, errdefs.ErrInvalidArgument)
	}
	return p, nil
}

// withoutSocketcall takes away the 32-bit way to sockets whose families no filter sees: its arguments lie in memory.
func withoutSocketcall(p *specs.LinuxSeccomp) {
	for i := range p.Syscalls {
		names := slices.Clone(p.Syscalls[i].Names)
		p.Syscalls[i].Names = slices.DeleteFunc(names, func(n string) bool { return n == "socketcall" })
	}
}

// capabilityNames without CAP_ (capabilities(7)), by number.
var capabilityNames = strings.Fields(`CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG
WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE`)

func defaultCapabilities() []string {
	return []string{"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "SETUID", "SETGID", "SETFCAP", "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "NET_RAW"}
}

func strictCapabilities() []string {
	return []string{"CHOWN", "DAC_OVERRIDE", "FOWNER", "SETUID", "SETGID", "KILL"}
}

// CapabilityOptions of Capabilities.
type CapabilityOptions struct{ Privileged, Strict bool }

// Capabilities are the default ones with --cap-drop taken away and --cap-add added, in the order of their numbers, with CAP_.
func Capabilities(add, drop []string, o CapabilityOptions) ([]string, error) {
	add, err := capabilities(add)
	if err != nil {
		return nil, err
	}
	if drop, err = capabilities(drop); err != nil {
		return nil, err
	}
	have := defaultCapabilities()
	switch {
	case o.Privileged, slices.Contains(add, "ALL"):
		have = capabilityNames
	case o.Strict:
		have = strictCapabilities()
	}
	if slices.Contains(drop, "ALL") {
		have = nil
		if slices.Contains(add, "ALL") {
			return nil, fmt.Errorf("capabilities: ALL is both added and dropped: keep one of them: %w", errdefs.ErrInvalidArgument)
		}
	}
	var out []string
	for _, name := range capabilityNames {
		if slices.Contains(add, name) || slices.Contains(have, name) && !slices.Contains(drop, name) {
			out = append(out, "CAP_"+name)
		}
	}
	return out, nil
}

func capabilities(list []string) ([]string, error) {
	out := make([]string, 0, len(list))
	for _, name := range list {
		short := strings.TrimPrefix(strings.ToUpper(strings.TrimSpace(name)), "CAP_")
		if short != "ALL" && !slices.Contains(capabilityNames, short) {
			return nil, fmt.Errorf("unknown capability %q: %s: %w", name, Suggest(short, capabilityNames), errdefs.ErrInvalidArgument)
		}
		out = append(out, short)
	}
	return out, nil
}

// Suggest says what a wrong word could have been: "did you mean X?" where one of the words is near, otherwise which words there are.
func Suggest(word string, words []string) string {
	best, distance := "", 1<<30
	for _, c := range words {
		if d := edits(strings.ToLower(word), strings.ToLower(c)); d < distance {
			best, distance = c, d
		}
	}
	if distance <= max(1, min(len(word), len(best))/3) {
		return "did you mean " + best + "?"
	}
	if len(words) > 16 {
		return "there is none of that name, nor of a similar one"
	}
	return "it can be " + strings.Join(words, ", ")
}

// edits is the Levenshtein distance.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
