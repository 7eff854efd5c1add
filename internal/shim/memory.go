package shim

import (
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	tidyAfter = 2 * time.Second
	tidyEvery = 64
)

// tidyLater gives memory back, a while after a start or an exec: a shim then sleeps, often for days, and there may be a thousand of them.
// The caller holds mu.
func (s *Server) tidyLater() {
	if s.untidy >= tidyEvery { // health checks would fill a heap that is collected hardly ever
		s.untidy = 0
		go giveBack()
		return
	}
	if s.tidy == nil {
		s.tidy = time.AfterFunc(tidyAfter, s.tidyNow)
		return
	}
	s.tidy.Reset(tidyAfter)
}

func (s *Server) tidyNow() {
	s.mu.Lock()
	collect := s.untidy > 0
	s.untidy = 0
	s.mu.Unlock()
	s.execs.sweep() // a client may have closed its end of a pipe after the process
	if collect {
		giveBack()
		return
	}
	forgetProgram() // after a start alone, a collection would take more memory than it frees
}

// giveBack frees the heap's unused pages; that takes about a millisecond.
func giveBack() {
	debug.FreeOSMemory()
	forgetProgram()
}

// forgetProgram forgets the pages of the program itself, which the start has touched and whose few that are needed come back from the page
// cache.
func forgetProgram() {
	own, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return
	}
	for line := range strings.Lines(string(maps)) {
		f := strings.Fields(line)
		if len(f) != 6 || f[5] != own || strings.Contains(f[1], "w") {
			continue // only what is of the file and was never written to
		}
		from, to, _ := strings.Cut(f[0], "-")
		begin, err1 := strconv.ParseUint(from, 16, 64)
		end, err2 := strconv.ParseUint(to, 16, 64)
		if err1 == nil && err2 == nil {
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, uintptr(begin), uintptr(end-begin), unix.MADV_DONTNEED)
		}
	}
}
