// Package threads makes threads ahead of need and for one use, and has the runtime's own disturb less.
//
// The Go runtime ends a process that cannot have one more thread: a table of processes that somebody else has filled would end an engine, or a
// shim and its container with it, in the middle of an answer. Threads that are idle are kept for ever and taken first.
package threads

import (
	"runtime"
	"sync"
)

// Reserve returns when this process has n threads more than it is running on. Where there is no room for them already, the runtime ends the process.
func Reserve(n int) {
	var ready, done sync.WaitGroup
	release := make(chan struct{})
	for range n {
		ready.Add(1)
		done.Go(func() {
			runtime.LockOSThread() // while one waits, the next needs a thread of its own
			defer runtime.UnlockOSThread()
			ready.Done()
			<-release
		})
	}
	ready.Wait()
	close(release)
	done.Wait()
}
