package cgroup

import (
	"encoding/binary"
	"fmt"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/bpf"
)

// attachDeviceProgram compiles device rules to a BPF program of type cgroup_device and attaches it to the group (bpf(2),
// Documentation/admin-guide/cgroup-v2.rst, "Device controller"). Of each kind of access (read, write, mknod) that is asked for, the last
// rule about the device and that kind decides, as version 1 does with rules that are written one after another; without one it is refused.
func attachDeviceProgram(g *Group, rules []specs.LinuxDeviceCgroup) error {
	dir, err := os.Open(g.dirs[unified])
	if err != nil {
		return err
	}
	defer dir.Close()
	prog, err := bpf.Load(unix.BPF_PROG_TYPE_CGROUP_DEVICE, 0, deviceProgram(rules))
	if err != nil {
		return fmt.Errorf("load the device rules of control group %s: %w", g.path, err)
	}
	defer unix.Close(prog)
	old, err := attachedPrograms(int(dir.Fd()))
	if err != nil {
		return fmt.Errorf("list the device rules of control group %s: %w", g.path, err)
	}
	defer func() {
		for _, fd := range old {
			unix.Close(fd)
		}
	}()
	if err := attachProgram(int(dir.Fd()), prog, unix.BPF_CGROUP_DEVICE); err != nil {
		return fmt.Errorf("attach the device rules to control group %s: %w", g.path, err)
	}
	for _, fd := range old { // all attached programs must permit an access: the new one takes the place of the others
		if err := detachProgram(int(dir.Fd()), fd); err != nil {
			return fmt.Errorf("detach earlier device rules from control group %s: %w", g.path, err)
		}
	}
	return nil
}

// eBPF instructions, as far as a decision about a device needs them (Documentation/bpf/standardization/instruction-set.rst).
const (
	bpfLoadWord = 0x61 // dst = *(u32 *)(src + off)
	bpfMove     = 0xb7 // dst = imm
	bpfMoveReg  = 0xbf
	bpfAnd32    = 0x54 // dst &= imm
	bpfShift32  = 0x74 // dst >>= imm
	bpfJumpNe   = 0x56 // 32-bit: if dst != imm
	bpfJumpEq   = 0x16 // 32-bit: if dst == imm
	bpfExit     = 0x95
)

type instruction struct {
	op       byte
	dst, src byte
	off      int16
	imm      int32
}

// deviceKind in the kernel's numbers (BPF_DEVCG_DEV_BLOCK, _CHAR); 0 for all.
func deviceKind(kind string) int32 {
	switch kind {
	case "b":
		return 1
	case "c":
		return 2
	}
	return 0
}

// deviceProgram: r2 type, r3 the access that nothing has been decided about, r4 major, r5 minor from struct bpf_cgroup_dev_ctx; rules from
// the last to the first.
func deviceProgram(rules []specs.LinuxDeviceCgroup) []byte {
	code := []instruction{
		{op: bpfLoadWord, dst: 2, src: 1, off: 0}, {op: bpfAnd32, dst: 2, imm: 0xffff},
		{op: bpfLoadWord, dst: 3, src: 1, off: 0}, {op: bpfShift32, dst: 3, imm: 16},
		{op: bpfLoadWord, dst: 4, src: 1, off: 4}, {op: bpfLoadWord, dst: 5, src: 1, off: 8},
	}
	for i := len(rules) - 1; i >= 0; i-- {
		rule, always := deviceRuleCode(rules[i])
		code = append(code, rule...)
		if always { // what follows is never reached, which the kernel refuses
			return encode(code)
		}
	}
	return encode(append(code, instruction{op: bpfMove, dst: 0, imm: 0}, instruction{op: bpfExit}))
}

func encode(code []instruction) []byte {
	out := make([]byte, 0, len(code)*8)
	for _, c := range code {
		out = append(out, c.op, c.src<<4|c.dst)
		out = binary.LittleEndian.AppendUint16(out, uint16(c.off))
		out = binary.LittleEndian.AppendUint32(out, uint32(c.imm))
	}
	return out
}

// deviceRuleCode decides where the rule does, and falls through otherwise; always says that it never falls through.
func deviceRuleCode(r specs.LinuxDeviceCgroup) (code []instruction, always bool) {
	mask := accessMask(r.Access)
	if mask == 0 {
		return nil, false
	}
	if kind := deviceKind(r.Type); kind != 0 {
		code = append(code, instruction{op: bpfJumpNe, dst: 2, imm: kind})
	}
	if r.Major != nil && *r.Major >= 0 {
		code = append(code, instruction{op: bpfJumpNe, dst: 4, imm: int32(*r.Major)})
	}
	if r.Minor != nil && *r.Minor >= 0 {
		code = append(code, instruction{op: bpfJumpNe, dst: 5, imm: int32(*r.Minor)})
	}
	always = len(code) == 0 && mask == accessAll
	verdict := int32(0)
	switch {
	case r.Allow: // what it allows is decided; all is allowed when nothing is left
		verdict = 1
		code = append(code, instruction{op: bpfAnd32, dst: 3, imm: ^mask})
		if mask != accessAll {
			code = append(code, instruction{op: bpfJumpNe, dst: 3, imm: 0})
		}
	case mask != accessAll: // it forbids some of what is left, or has nothing to say
		code = append(code, instruction{op: bpfMoveReg, dst: 1, src: 3}, instruction{op: bpfAnd32, dst: 1, imm: mask}, instruction{op: bpfJumpEq, dst: 1, imm: 0})
	}
	code = append(code, instruction{op: bpfMove, dst: 0, imm: verdict}, instruction{op: bpfExit})
	for i := range code {
		if op := code[i].op; op == bpfJumpNe || op == bpfJumpEq {
			code[i].off = int16(len(code) - i - 1)
		}
	}
	return code, always
}

// accessAll are all kinds of access.
const accessAll = 7

// accessMask in the kernel's bits: mknod 1, read 2, write 4.
func accessMask(access string) int32 {
	if access == "" {
		return accessAll
	}
	var mask int32
	for _, c := range access {
		mask |= map[rune]int32{'m': 1, 'r': 2, 'w': 4}[c]
	}
	return mask
}
