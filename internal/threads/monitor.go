package threads

import (
	"os"
	"strconv"
)

// slack is how late the runtime's monitor may be, in nanoseconds.
const slack = "500000"

// Calm lets the runtime's monitor wake less often. While a program works it wakes every 20 µs plus the timer slack of 50 µs: on few processors
// it takes a tenth of what runs for some milliseconds. Only a process with CAP_SYS_NICE may change its other threads' slack (proc_pid_timerslack_ns(5));
// for others nothing changes.
func Calm() {
	if monitor := monitorID(); monitor != 0 {
		_ = os.WriteFile("/proc/"+strconv.Itoa(monitor)+"/timerslack_ns", []byte(slack), 0)
	}
}

// monitorID is the monitor's thread, which the main thread makes before any other; 0 where it is not found.
func monitorID() (first int) {
	tasks, err := os.Open("/proc/self/task")
	if err != nil {
		return 0
	}
	defer tasks.Close()
	names, err := tasks.Readdirnames(-1)
	if err != nil {
		return 0
	}
	for _, name := range names {
		if tid, err := strconv.Atoi(name); err == nil && tid != os.Getpid() && (first == 0 || tid < first) {
			first = tid
		}
	}
	return first
}
