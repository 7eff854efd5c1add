package link

import (
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Sysctls sets what SetSysctl does, in namespaces that come and go, by a procfs of its own. The kernel keeps what was looked up, and entries of
// one name in different namespaces behind each other: in the host's procfs every start would walk past those of all containers. The zero value
// works. Safe for many goroutines, which take turns.
type Sysctls struct {
	mu   sync.Mutex // guards what follows
	proc *os.File   // nil: none yet, or none to be had
	left int        // uses before it is made anew
}

// usesOfProc is how many settings go through one procfs.
const usesOfProc = 128

// Set writes a setting below /proc/sys of the calling thread's namespace; the key has slashes.
func (s *Sysctls) Set(key, value string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left == 0 {
		s.renew()
	}
	s.left--
	if s.proc == nil {
		return SetSysctl(key, value)
	}
	return setBelow(int(s.proc.Fd()), "sys/", key, value)
}

// renew makes a procfs. Where the kernel permits none (in a container, as a rule) the host's has to do. The caller holds mu.
func (s *Sysctls) renew() {
	if s.proc != nil {
		s.proc.Close()
	}
	s.proc, s.left = nil, usesOfProc
	fs, err := unix.Fsopen("proc", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return
	}
	defer unix.Close(fs)
	if unix.FsconfigCreate(fs) != nil {
		return
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err == nil {
		s.proc = os.NewFile(uintptr(fd), "procfs")
	}
}

// Close gives the procfs up; a use after it makes another one.
func (s *Sysctls) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil {
		return nil
	}
	err := s.proc.Close()
	s.proc, s.left = nil, 0
	return err
}
