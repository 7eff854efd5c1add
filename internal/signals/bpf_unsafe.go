package signals

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/bpf"
)

// The parts of union bpf_attr (bpf(2)) that are used.
type (
	mapCreate  struct{ kind, keySize, valueSize, entries, flags uint32 }
	mapElement struct {
		table, _ uint32
		key, at  unsafe.Pointer
		flags    uint64
	}
	tracepointOpen struct {
		name       unsafe.Pointer
		program, _ uint32
	}
)

func makeTable(key, value, entries int) (int, error) {
	attr := mapCreate{kind: unix.BPF_MAP_TYPE_HASH, keySize: uint32(key), valueSize: uint32(value), entries: uint32(entries), flags: unix.BPF_F_NO_PREALLOC}
	return bpf.Call(unix.BPF_MAP_CREATE, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
}

func put(table int, key uint64, v *value) error {
	return element(unix.BPF_MAP_UPDATE_ELEM, table, key, v)
}

func get(table int, key uint64, v *value) error {
	return element(unix.BPF_MAP_LOOKUP_ELEM, table, key, v)
}

func remove(table int, key uint64) error { return element(unix.BPF_MAP_DELETE_ELEM, table, key, nil) }

func element(command, table int, key uint64, v *value) error {
	attr := mapElement{table: uint32(table), key: unsafe.Pointer(&key), at: unsafe.Pointer(v)}
	_, err := bpf.Call(command, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return err
}

// attach runs the program at a tracepoint for as long as the descriptor is open.
func attach(program int, tracepoint string) (int, error) {
	name := append([]byte(tracepoint), 0)
	attr := tracepointOpen{name: unsafe.Pointer(&name[0]), program: uint32(program)}
	fd, err := bpf.Call(unix.BPF_RAW_TRACEPOINT_OPEN, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	if err != nil {
		return -1, fmt.Errorf("attach a BPF program to the tracepoint %s: %w", tracepoint, err)
	}
	unix.CloseOnExec(fd)
	return fd, nil
}
