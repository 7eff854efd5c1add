package ociruntime

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/why"
)

// machines are the programs' (elf(5), e_machine) that are met in images. The package debug/elf would bring compression and debuggers'
// formats into the binary that stands beside every container.
func machines() map[uint16]string {
	return map[uint16]string{3: "386", 8: "mips", 20: "ppc", 21: "ppc64le", 22: "s390x", 40: "arm", 62: "amd64", 183: "arm64", 243: "riscv64", 258: "loong64"}
}

func machineName(m uint16) string {
	if name, ok := machines()[m]; ok {
		return name
	}
	return fmt.Sprintf("machine %d", m)
}

// elfProblem says why the kernel refuses a program, by the first bytes of its file: another machine, or a loader that is not there.
func elfProblem(files view, head []byte) (string, why.Cause) {
	if len(head) < 64 || !bytes.HasPrefix(head, []byte("\x7fELF")) {
		return "", ""
	}
	machine, wide := machineName(binary.LittleEndian.Uint16(head[18:])), head[4] == 2
	if head[5] == 2 { // most significant byte first
		machine = machineName(binary.BigEndian.Uint16(head[18:]))
	}
	if machine != runtime.GOARCH && !(machine == "386" && runtime.GOARCH == "amd64") {
		return fmt.Sprintf("it is a program for %s, this machine is %s: use an image for this platform, or have an emulator run it (binfmt_misc: on Debian, install qemu-user-static and binfmt-support)", machine, runtime.GOARCH), why.WrongArchitecture
	}
	loader := interpreterOf(head, wide)
	if loader == "" {
		return "", ""
	}
	f, err := files.open(loader, unix.O_PATH)
	if err != nil {
		return fmt.Sprintf("its loader %s is not in the image (a program built for another libc?)", shown(loader)), why.MissingInterpreter
	}
	f.Close()
	return "", ""
}

// interpreterOf finds the program header PT_INTERP among the head's and reads the path that it names.
func interpreterOf(head []byte, wide bool) string {
	le := binary.LittleEndian
	table, size, count := uint64(le.Uint32(head[28:])), uint64(le.Uint16(head[42:])), uint64(le.Uint16(head[44:]))
	if wide {
		table, size, count = le.Uint64(head[32:]), uint64(le.Uint16(head[54:])), uint64(le.Uint16(head[56:]))
	}
	for i := range count {
		at := table + i*size
		if size < 32 || at > uint64(len(head)) || uint64(len(head))-at < size {
			return ""
		}
		header := head[at : at+size]
		if le.Uint32(header) != 3 { // PT_INTERP
			continue
		}
		offset, length := uint64(le.Uint32(header[4:])), uint64(le.Uint32(header[16:]))
		if wide {
			if size < 56 {
				return ""
			}
			offset, length = le.Uint64(header[8:]), le.Uint64(header[32:])
		}
		if length == 0 || length > 4096 || offset > uint64(len(head)) || uint64(len(head))-offset < length {
			return ""
		}
		name, _, _ := bytes.Cut(head[offset:offset+length], []byte{0})
		return string(name)
	}
	return ""
}
