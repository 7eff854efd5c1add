package localhost

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Instructions (Documentation/bpf/standardization/instruction-set.rst) and helpers (linux/bpf.h) that the program uses.
const (
	opLoadPointer = 0x18 // two instructions: a pointer to a map's value, or 64 bits
	opLoad        = 0x61 // dst = 32 bits at src + off
	opLoadByte    = 0x71
	opStore       = 0x63 // 32 bits of src to dst + off
	opStoreHalf   = 0x6b
	opStoreValue  = 0x62 // 32 bits of imm to dst + off
	opMove        = 0xb7
	opMoveReg     = 0xbf
	opMove32      = 0xb4
	opAdd         = 0x07
	opAddReg      = 0x0f
	opAnd         = 0x57
	opShift       = 0x77 // to the right
	opShiftReg    = 0x7f
	opBigEndian   = 0xdc
	opJump        = 0x05
	opJumpEq      = 0x15
	opJumpNe      = 0x55
	opJumpNe32    = 0x56
	opJumpNeReg   = 0x5d
	opCall        = 0x85
	opExit        = 0x95

	helperLookupTCP = 84
	helperLookupUDP = 85
	helperRelease   = 86
	helperCookie    = 122
)

// Offsets of struct bpf_sock_addr, and of the struct bpf_sock_tuple of IPv6 that the program has on its stack.
const (
	ctxAddress  = 8
	ctxPort     = 24
	ctxProtocol = 36

	tupleSize = 36
	tuple     = -40
)

type instruction struct {
	op       byte
	dst, src byte
	off      int16
	imm      int32
	to       string // of a jump
	label    string // what jumps name
}

// Addresses in words as the program reads them.
const (
	one      = 0x01000000 // the last word of ::1
	mapped   = -0x10000   // 0xffff0000: the third word of ::ffff:127.0.0.1
	loopback = 0x0100007f // and its last
)

// program changes the address ::1 into ::ffff:127.0.0.1 at connect(2), in one network namespace, for ports whose bit is set and at which nobody listens
// there. It refuses nothing.
func program(table int, cookie uint64) []byte {
	code := []instruction{{op: opMoveReg, dst: 6, src: 1}}
	for i, word := range []int32{0, 0, 0, one} {
		code = append(code, instruction{op: opLoad, dst: 2, src: 6, off: ctxAddress + int16(4*i)}, instruction{op: opJumpNe32, dst: 2, imm: word, to: "out"})
	}
	code = append(code,
		instruction{op: opMoveReg, dst: 1, src: 6}, instruction{op: opCall, imm: helperCookie},
		instruction{op: opLoadPointer, dst: 1, imm: int32(uint32(cookie))}, instruction{imm: int32(uint32(cookie >> 32))},
		instruction{op: opJumpNeReg, dst: 0, src: 1, to: "out"},

		instruction{op: opLoadPointer, dst: 1, src: unix.BPF_PSEUDO_MAP_VALUE, imm: int32(table)}, instruction{},
		instruction{op: opLoad, dst: 8, src: 6, off: ctxProtocol}, instruction{op: opJumpEq, dst: 8, imm: unix.IPPROTO_TCP, to: "bit"},
		instruction{op: opJumpNe, dst: 8, imm: unix.IPPROTO_UDP, to: "out"}, instruction{op: opAdd, dst: 1, imm: bytesEach},
		instruction{label: "bit", op: opLoad, dst: 2, src: 6, off: ctxPort}, instruction{op: opBigEndian, dst: 2, imm: 16},
		instruction{op: opAnd, dst: 2, imm: 0xffff}, // older kernels' check does not know that it is that
		instruction{op: opMoveReg, dst: 4, src: 2}, instruction{op: opAnd, dst: 4, imm: 7}, instruction{op: opShift, dst: 2, imm: 3},
		instruction{op: opAddReg, dst: 1, src: 2}, instruction{op: opLoadByte, dst: 3, src: 1}, instruction{op: opShiftReg, dst: 3, src: 4},
		instruction{op: opAnd, dst: 3, imm: 1}, instruction{op: opJumpEq, dst: 3, imm: 0, to: "out"})
	for i, word := range []int32{0, 0, 0, one, 0, 0, 0, one, 0} { // from and to ::1
		code = append(code, instruction{op: opStoreValue, dst: 10, off: tuple + int16(4*i), imm: word})
	}
	code = append(code,
		instruction{op: opLoad, dst: 1, src: 6, off: ctxPort}, instruction{op: opStoreHalf, dst: 10, src: 1, off: tuple + tupleSize - 2},
		instruction{op: opMoveReg, dst: 1, src: 6}, instruction{op: opMoveReg, dst: 2, src: 10}, instruction{op: opAdd, dst: 2, imm: tuple},
		instruction{op: opMove, dst: 3, imm: tupleSize}, instruction{op: opMove, dst: 4, imm: -1}, instruction{op: opMove, dst: 5, imm: 0},
		instruction{op: opJumpEq, dst: 8, imm: unix.IPPROTO_TCP, to: "tcp"},
		instruction{op: opCall, imm: helperLookupUDP}, instruction{op: opJump, to: "found"},
		instruction{label: "tcp", op: opCall, imm: helperLookupTCP},
		instruction{label: "found", op: opJumpEq, dst: 0, imm: 0, to: "change"},
		instruction{op: opMoveReg, dst: 1, src: 0}, instruction{op: opCall, imm: helperRelease}, instruction{op: opJump, to: "out"},
		instruction{label: "change", op: opMove32, dst: 1, imm: mapped}, instruction{op: opStore, dst: 6, src: 1, off: ctxAddress + 8},
		instruction{op: opMove32, dst: 1, imm: loopback}, instruction{op: opStore, dst: 6, src: 1, off: ctxAddress + 12},
		instruction{label: "out", op: opMove, dst: 0, imm: 1}, instruction{op: opExit})
	return encode(code)
}

func encode(code []instruction) []byte {
	labels := map[string]int{}
	for i, c := range code {
		if c.label != "" {
			labels[c.label] = i
		}
	}
	out := make([]byte, 0, len(code)*8)
	for i, c := range code {
		if c.to != "" {
			c.off = int16(labels[c.to] - i - 1)
		}
		out = append(out, c.op, c.src<<4|c.dst)
		out = binary.LittleEndian.AppendUint16(out, uint16(c.off))
		out = binary.LittleEndian.AppendUint32(out, uint32(c.imm))
	}
	return out
}
