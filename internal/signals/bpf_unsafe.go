package signals

import (
	"fmt"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The parts of union bpf_attr (bpf(2)) that are used.
type (
	mapCreate  struct{ kind, keySize, valueSize, entries, flags uint32 }
	mapElement struct {
		table, _       uint32
		key, at, flags uint64
	}
	programLoad struct {
		kind, instructions uint32
		code, license      uint64
		logLevel, logSize  uint32
		log                uint64
	}
	tracepointOpen struct {
		name       uint64
		program, _ uint32
	}
)

func makeTable(key, value, entries int) (int, error) {
	attr := mapCreate{kind: unix.BPF_MAP_TYPE_HASH, keySize: uint32(key), valueSize: uint32(value), entries: uint32(entries), flags: unix.BPF_F_NO_PREALLOC}
	return bpf(unix.BPF_MAP_CREATE, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
}

func put(table int, key uint64, v *value) error {
	return element(unix.BPF_MAP_UPDATE_ELEM, table, key, v)
}

func get(table int, key uint64, v *value) error {
	return element(unix.BPF_MAP_LOOKUP_ELEM, table, key, v)
}

func remove(table int, key uint64) error { return element(unix.BPF_MAP_DELETE_ELEM, table, key, nil) }

func element(command, table int, key uint64, v *value) error {
	attr := mapElement{table: uint32(table), key: uint64(uintptr(unsafe.Pointer(&key))), at: uint64(uintptr(unsafe.Pointer(v)))}
	_, err := bpf(command, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	runtime.KeepAlive(&key)
	runtime.KeepAlive(v)
	return err
}

func loadProgram(code []byte) (int, error) {
	license := []byte("GPL\x00")
	attr := programLoad{kind: unix.BPF_PROG_TYPE_RAW_TRACEPOINT, instructions: uint32(len(code) / 8),
		code: uint64(uintptr(unsafe.Pointer(&code[0]))), license: uint64(uintptr(unsafe.Pointer(&license[0])))}
	fd, err := bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	if err != nil {
		log := make([]byte, 64<<10)
		attr.logLevel, attr.logSize, attr.log = 1, uint32(len(log)), uint64(uintptr(unsafe.Pointer(&log[0])))
		_, err = bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
		text, _, _ := strings.Cut(string(log), "\x00")
		lines := strings.Split(strings.TrimSpace(text), "\n")
		err = fmt.Errorf("load a BPF program: %w: %s", err, strings.Join(lines[max(0, len(lines)-4):], "; "))
		runtime.KeepAlive(log)
	}
	runtime.KeepAlive(code)
	runtime.KeepAlive(license)
	return fd, err
}

// attach runs the program at a tracepoint for as long as the descriptor is open.
func attach(program int, tracepoint string) (int, error) {
	name := append([]byte(tracepoint), 0)
	attr := tracepointOpen{name: uint64(uintptr(unsafe.Pointer(&name[0]))), program: uint32(program)}
	fd, err := bpf(unix.BPF_RAW_TRACEPOINT_OPEN, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	runtime.KeepAlive(name)
	if err != nil {
		return -1, fmt.Errorf("attach a BPF program to the tracepoint %s: %w", tracepoint, err)
	}
	unix.CloseOnExec(fd)
	return fd, nil
}

func bpf(command int, attr unsafe.Pointer, size uintptr) (int, error) {
	r, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(command), uintptr(attr), size)
	if errno != 0 {
		return -1, errno
	}
	return int(r), nil
}
