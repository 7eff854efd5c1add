package localhost

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/bpf"
)

// The parts of union bpf_attr, struct bpf_link_info and struct bpf_prog_info (linux/bpf.h) that are used.
type (
	mapCreate  struct{ kind, keySize, valueSize, entries, flags uint32 }
	linkCreate struct{ program, target, attachType, flags uint32 }
	byID       struct{ id, next, flags uint32 }
	infoOf     struct {
		fd, size uint32
		info     unsafe.Pointer
	}
	linkInfo    struct{ kind, id, program uint32 }
	programInfo struct {
		kind, id                    uint32
		tag                         [8]byte
		jitedLength, translated     uint32
		jited, instructions, loaded uint64
		user, maps                  uint32
		mapIDs                      uint64
		name                        [16]byte
	}
)

func makeBits() (int, error) {
	attr := mapCreate{kind: unix.BPF_MAP_TYPE_ARRAY, keySize: 4, valueSize: bitsSize, entries: 1, flags: unix.BPF_F_MMAPABLE}
	return bpf.Call(unix.BPF_MAP_CREATE, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
}

func createLink(program, group int) (int, error) {
	attr := linkCreate{program: uint32(program), target: uint32(group), attachType: unix.BPF_CGROUP_INET6_CONNECT}
	return bpf.Call(unix.BPF_LINK_CREATE, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
}

func linkID(link int) (uint32, error) {
	var info linkInfo
	err := look(link, unsafe.Pointer(&info), unsafe.Sizeof(info))
	return info.id, err
}

// detach ends a program by its link's number and its name; another's, which has the number by now, is left alone.
func detach(id uint32, name string) {
	attr := byID{id: id}
	link, err := bpf.Call(unix.BPF_LINK_GET_FD_BY_ID, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	if err != nil {
		return
	}
	defer unix.Close(link)
	var of linkInfo
	if look(link, unsafe.Pointer(&of), unsafe.Sizeof(of)) != nil || of.kind != unix.BPF_LINK_TYPE_CGROUP {
		return
	}
	attr = byID{id: of.program}
	fd, err := bpf.Call(unix.BPF_PROG_GET_FD_BY_ID, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	if err != nil {
		return
	}
	defer unix.Close(fd)
	var info programInfo
	if look(fd, unsafe.Pointer(&info), unsafe.Sizeof(info)) != nil || unix.ByteSliceToString(info.name[:]) != name {
		return
	}
	end := uint32(link)
	_, _ = bpf.Call(unix.BPF_LINK_DETACH, unsafe.Pointer(&end), unsafe.Sizeof(end))
}

func look(fd int, info unsafe.Pointer, size uintptr) error {
	attr := infoOf{fd: uint32(fd), size: uint32(size), info: info}
	_, err := bpf.Call(unix.BPF_OBJ_GET_INFO_BY_FD, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return err
}

// namespaceCookie is the number of the calling thread's network namespace in the words of BPF.
func namespaceCookie() (cookie uint64, err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	return cookie, err
}
