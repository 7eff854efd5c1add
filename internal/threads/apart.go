package threads

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// Apart runs fn on a thread of its own, which ends with it: what fn does to the thread's namespaces, groups or ids happens to nobody else.
func Apart(fn func() error) error {
	result := make(chan error, 1)
	go func() { // ends with fn, which the receive below waits for
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() { // the first thread never ends, and stands for the whole process in /proc: take another
			result <- Apart(fn)
			runtime.UnlockOSThread()
			return
		}
		result <- fn() // the thread stays locked, so it ends
	}()
	return <-result
}
