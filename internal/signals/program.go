package signals

import "encoding/binary"

// A slot of the table, by offsets.
const (
	nameSize = 16 // TASK_COMM_LEN

	atTime       = 0  // ns since boot
	atSender     = 8  // thread and process
	atUID        = 16 //
	atSignal     = 20
	atInfoKind   = 24 // 0 and 1: special (SEND_SIG_NOINFO, SEND_SIG_PRIV); 2: info was copied
	atTarget     = 28
	atSenderName = 32
	atTargetName = 48
	atGroup      = 64
	atInfo       = 72 // the beginning of struct siginfo
	infoSize     = 32
	atParent     = 104
	atParentName = 112
	slotSize     = 128
)

// Helpers of the kernel's (bpf-helpers(7)).
const (
	helpLookup  = 1
	helpTime    = 5
	helpPid     = 14
	helpUID     = 15
	helpName    = 16
	helpTask    = 35
	helpGroup   = 80
	helpRead    = 113 // bpf_probe_read_kernel
	exitingFlag = 4   // PF_EXITING
)

// assembler writes BPF instructions (Documentation/bpf/standardization/instruction-set.rst).
type assembler struct {
	code  []byte
	jumps map[int]string // by the instruction's number
	label map[string]int
}

// instruction is one: what is done, to which register, with which other one or constant.
type instruction struct {
	op, to, with uint8
	offset       int16
	constant     int32
}

func (a *assembler) add(i instruction) {
	a.code = append(a.code, i.op, i.to|i.with<<4)
	a.code = binary.NativeEndian.AppendUint16(a.code, uint16(i.offset))
	a.code = binary.NativeEndian.AppendUint32(a.code, uint32(i.constant))
}

func (a *assembler) copy(to, from uint8) { a.add(instruction{op: move, to: to, with: from}) }
func (a *assembler) set(to uint8, constant int32) {
	a.add(instruction{op: moveConst, to: to, constant: constant})
}
func (a *assembler) plus(to uint8, constant int32) {
	a.add(instruction{op: addConst, to: to, constant: constant})
}
func (a *assembler) call(helper int32) { a.add(instruction{op: callHelper, constant: helper}) }
func (a *assembler) load(op, to, from uint8, offset int16) {
	a.add(instruction{op: op, to: to, with: from, offset: offset})
}
func (a *assembler) store(op, at uint8, offset int16, of uint8) {
	a.add(instruction{op: op, to: at, offset: offset, with: of})
}
func (a *assembler) put(op, at uint8, offset int16, constant int32) {
	a.add(instruction{op: op, to: at, offset: offset, constant: constant})
}

func (a *assembler) jump(op, register uint8, constant int32, to string) {
	a.jumps[len(a.code)/8] = to
	a.add(instruction{op: op, to: register, constant: constant})
}

func (a *assembler) jumpIfSame(one, other uint8, to string) {
	a.jumps[len(a.code)/8] = to
	a.add(instruction{op: jumpSame, to: one, with: other})
}

func (a *assembler) mark(name string) { a.label[name] = len(a.code) / 8 }

func (a *assembler) done() []byte {
	for at, name := range a.jumps {
		binary.NativeEndian.PutUint16(a.code[at*8+2:], uint16(a.label[name]-at-1))
	}
	return a.code
}

// Operations, and registers: r0 is what a helper gives, r1 to r5 are its arguments, r6 to r9 stay, r10 is the stack.
const (
	loadWord, loadLong   = 0x61, 0x79
	storeWord, storeLong = 0x63, 0x7b
	putWord, putLong     = 0x62, 0x7a
	move, moveConst      = 0xbf, 0xb7
	move32               = 0xbc
	addConst             = 0x07
	shiftRight           = 0x77
	jumpAlways           = 0x05
	jumpIf, jumpIfNot    = 0x15, 0x55
	jumpSame             = 0x1d
	jumpIfMore           = 0x25
	jumpIfBits           = 0x45
	callHelper, exit     = 0x85, 0x95
	loadFD               = 0x18
)

// source is a place in the kernel's memory: what a register points at, and an offset from there.
type source struct {
	register uint8
	offset   int32
}

// read copies size bytes of the kernel's memory to where a register points (the stack, or the slot) and an offset from there.
func (a *assembler) read(to, from source, size int32) {
	a.copy(3, from.register)
	a.plus(3, from.offset)
	a.copy(1, to.register)
	a.plus(1, to.offset)
	a.set(2, size)
	a.call(helpRead)
}

func stack(offset int32) source { return source{10, offset} }
func slot(offset int32) source  { return source{9, offset} }

// lookup finds the key at the top of the stack in the table.
func (a *assembler) lookup(table int) {
	a.add(instruction{op: loadFD, to: 1, with: 1, constant: int32(table)})
	a.add(instruction{})
	a.copy(2, 10)
	a.plus(2, -8)
	a.call(helpLookup)
}

// program is what runs at each signal: (signal, siginfo, task, group, result).
func (l layout) program(table int) []byte {
	a := &assembler{jumps: map[int]string{}, label: map[string]int{}}
	l.filter(a)
	l.find(a, table)
	l.record(a)
	a.mark("out")
	a.set(0, 0)
	a.add(instruction{op: exit})
	return a.done()
}

// filter leaves out signals that end nobody, those that the target ignores, and those of processes that are ending: the first process of a
// namespace kills what is left in it.
func (l layout) filter(a *assembler) {
	a.load(loadLong, 6, 1, 0)
	a.add(instruction{op: move32, to: 6, with: 6})
	for _, signal := range []int32{17, 23, 26, 27, 18, 28, 29} { // CHLD URG VTALRM PROF CONT WINCH IO
		a.jump(jumpIf, 6, signal, "out")
	}
	a.jump(jumpIfMore, 6, 31, "out")
	a.load(loadLong, 7, 1, 8)
	a.load(loadLong, 8, 1, 16)
	a.load(loadLong, 9, 1, 32)
	a.jump(jumpIf, 9, 1, "out") // TRACE_SIGNAL_IGNORED
	a.call(helpTask)
	a.copy(9, 0)
	a.put(putLong, 10, -32, 0)
	a.read(stack(-32), source{9, l.flags}, 4)
	a.load(loadWord, 1, 10, -32)
	a.jump(jumpIfBits, 1, exitingFlag, "out")
	a.store(storeLong, 10, -48, 9)
}

// find looks for the target, and then for its control group. Its number stays at -24, the sender's task at -48.
func (l layout) find(a *assembler, table int) {
	a.put(putLong, 10, -8, 0)
	a.read(stack(-8), source{8, l.tgid}, 4)
	a.load(loadWord, 1, 10, -8)
	a.store(storeLong, 10, -24, 1)
	a.put(putWord, 10, -4, -1<<31) // ofProcess; the machine's low word comes first
	a.lookup(table)
	a.jump(jumpIfNot, 0, 0, "found")
	a.read(stack(-8), source{8, l.cgroups}, 8)
	for _, offset := range []int32{l.group, l.node, l.id} {
		a.load(loadLong, 9, 10, -8)
		a.read(stack(-8), source{9, offset}, 8)
	}
	a.lookup(table)
	a.jump(jumpIf, 0, 0, "out")
	a.mark("found")
	a.copy(9, 0)
}

// record fills the first slot, or the second where a process has sent the signal to itself.
func (l layout) record(a *assembler) {
	a.call(helpPid)
	a.store(storeLong, 10, -16, 0)
	a.add(instruction{op: shiftRight, to: 0, constant: 32})
	a.load(loadLong, 1, 10, -24)
	a.jumpIfSame(0, 1, "itself")
	a.jump(jumpAlways, 0, 0, "slot")
	a.mark("itself")
	a.plus(9, slotSize)
	a.mark("slot")
	a.store(storeWord, 9, atSignal, 6)
	a.store(storeWord, 9, atTarget, 1)
	a.load(loadLong, 1, 10, -16)
	a.store(storeLong, 9, atSender, 1)
	a.call(helpTime)
	a.store(storeLong, 9, atTime, 0)
	a.call(helpUID)
	a.store(storeWord, 9, atUID, 0)
	a.call(helpGroup)
	a.store(storeLong, 9, atGroup, 0)
	a.copy(1, 9)
	a.plus(1, atSenderName)
	a.set(2, nameSize)
	a.call(helpName)
	a.read(slot(atTargetName), source{8, l.comm}, nameSize)
	a.load(loadLong, 8, 10, -48)
	a.put(putLong, 10, -40, 0)
	a.read(stack(-40), source{8, l.parent}, 8)
	a.load(loadLong, 8, 10, -40)
	a.read(slot(atParent), source{8, l.tgid}, 4)
	a.read(slot(atParentName), source{8, l.comm}, nameSize)
	a.jump(jumpIfMore, 7, 1, "info")
	a.store(storeWord, 9, atInfoKind, 7)
	a.jump(jumpAlways, 0, 0, "out")
	a.mark("info")
	a.put(putWord, 9, atInfoKind, 2)
	a.read(slot(atInfo), source{7, 0}, infoSize)
}
