package bpf_test

import (
	"encoding/binary"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/bpf"
)

// long is a program whose check takes the kernel a while: n times r0 = 0, then exit.
func long(n int) []byte {
	code := make([]byte, 0, (n+1)*8)
	for range n {
		code = binary.LittleEndian.AppendUint64(code, 0xb7)
	}
	return binary.LittleEndian.AppendUint64(code, 0x95)
}

// A signal that arrives while the kernel checks a program breaks the check off; Go's scheduler sends such signals.
func TestLoadAmongSignals(t *testing.T) {
	thread, done := make(chan int), make(chan error, 1)
	code := long(4000)
	go func() {
		runtime.LockOSThread()
		thread <- unix.Gettid()
		for range 200 {
			fd, err := bpf.Load(unix.BPF_PROG_TYPE_CGROUP_DEVICE, 0, code)
			if err != nil {
				done <- err
				return
			}
			unix.Close(fd)
		}
		done <- nil
	}()
	tid := <-thread
	for {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			return
		default:
			unix.Tgkill(os.Getpid(), tid, unix.SIGURG)
			unix.Nanosleep(&unix.Timespec{Nsec: 200_000}, nil)
		}
	}
}

func TestLoadTellsWhatIsWrong(t *testing.T) {
	fd, err := bpf.Load(unix.BPF_PROG_TYPE_CGROUP_DEVICE, 0, long(1)[:8])
	if err == nil || !strings.Contains(err.Error(), "last insn is not an exit or jmp") {
		t.Fatalf("a program without an end: descriptor %d, error %v; want the kernel's words", fd, err)
	}
	if _, err := bpf.Load(unix.BPF_PROG_TYPE_CGROUP_DEVICE, 0, nil); err == nil {
		t.Fatal("a program of no instructions was loaded")
	}
}
